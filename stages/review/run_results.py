"""The results of a run at a revision: from Git, and from the DVC cache where cached."""

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.params import GateParams
from stages.datasets.pairs import read_splits
from stages.gate import Check, checks
from stages.review.revision import Revision
from stages.scoring.metrics import HEADLINE, METRICS, counted

_FACTS = ["pair_id", "class_name", "accepted", "reason", "image_sha256", "mask_sha256"]
# What `--pull` fetches: all but the models.
CACHED = [
    *(paths.INGESTED, paths.QUALITY_PAIRS, paths.SPLIT_PAIRS, paths.PREDICTIONS),
    *(paths.INGESTED_SUMMARY, paths.BUILD, paths.EXPORT_SUMMARY),
]


@dataclass(frozen=True)
class RunResults:
    """One side of a comparison, read and checked."""

    revision: Revision
    params: dict[str, Any]
    plan: dict[str, dict[str, Any]]  # dvc.yaml's stages
    metrics: dict[str, Any]
    # pair_id, class_name, metrics (NaN where undefined), site, is_headline
    per_image: pd.DataFrame
    checks: list[Check] | None  # the gate's; None if its params cannot be read
    history: pd.DataFrame | None
    gradients: pd.DataFrame | None

    @property
    def gate(self) -> bool | None:
        """Whether the metrics pass the gate; None if its params cannot be read."""
        return None if self.checks is None else all(c.passed for c in self.checks)

    @cached_property
    def ingested(self) -> dict[str, Any] | None:
        """What ingest says of the data; None if it is not cached."""
        return self.revision.json(paths.INGESTED_SUMMARY, is_cached=True)

    @cached_property
    def build(self) -> dict[str, Any] | None:
        """The machine that trained; None if that is not cached."""
        return self.revision.json(paths.BUILD, is_cached=True)

    @cached_property
    def export(self) -> dict[str, Any] | None:
        """The exported files; None if none were made or that is not cached."""
        if not self.gate:
            return None
        return self.revision.json(paths.EXPORT_SUMMARY, is_cached=True)

    @cached_property
    def facts(self) -> pd.DataFrame | None:
        """Hash and acceptance of every ingested pair; None if that is not cached."""
        place = self.revision.file(paths.QUALITY_PAIRS)
        if place is None:
            return None
        try:
            table: pd.DataFrame = pq.read_table(place, columns=_FACTS).to_pandas()
        except pa.ArrowException:  # from before a column existed
            return None
        return table

    @cached_property
    def splits(self) -> pd.DataFrame | None:
        """The split table; None if it is not cached."""
        place = self.revision.file(paths.SPLIT_PAIRS)
        if place is None:
            return None
        try:
            return read_splits(place)
        except PipelineError:
            return None

    @property
    def lacks(self) -> list[Path]:
        """Outputs that this side made and no cache here holds."""
        found = {
            paths.QUALITY_PAIRS: self.facts,
            paths.SPLIT_PAIRS: self.splits,
            paths.INGESTED: self.revision.folder(paths.INGESTED),
            paths.PREDICTIONS: self.revision.file(paths.PREDICTIONS),
        }
        return [path for path, value in found.items() if value is None]


def same_out(base: RunResults, head: RunResults, path: Path) -> bool:
    """Whether both sides recorded the same bytes of an output."""
    hashes = [e.revision.outs.get(path.as_posix()) for e in (base, head)]
    return hashes[0] is not None and hashes[0] == hashes[1]


def load(revision: Revision) -> RunResults:
    """Reads the results at a revision.

    Raises:
        PipelineError: If nothing was evaluated there, or a file is corrupt.
    """
    metrics, per_image = revision.json(paths.METRICS), _per_image(revision)
    if metrics is None or per_image is None:
        missing = paths.METRICS if metrics is None else paths.PER_IMAGE
        raise PipelineError(
            f"{revision} holds no {missing}, so there is nothing to compare; run "
            "`dvc repro` there and commit what it wrote"
        )
    if not isinstance(metrics.get(HEADLINE.name), dict):
        found = f"it has no {HEADLINE.name}"
        raise revision.corrupt(paths.METRICS, "what evaluate wrote", found)
    params = revision.yaml(paths.PARAMS)
    stages = revision.yaml(paths.PLAN).get("stages")
    return RunResults(
        revision=revision,
        params=params,
        plan=stages if isinstance(stages, dict) else {},
        metrics=metrics,
        per_image=per_image,
        checks=_checks(metrics, params),
        history=_table(revision, paths.HISTORY, [], ["epoch", "loss", "dice"]),
        gradients=_table(
            revision, paths.GRADIENTS, ["part"], ["step", "head", "gradient_norm"]
        ),
    )


def _checks(metrics: dict[str, Any], params: dict[str, Any]) -> list[Check] | None:
    try:
        return checks(metrics, GateParams.model_validate(params.get("gate")))
    except ValidationError:
        return None


def _per_image(revision: Revision) -> pd.DataFrame | None:
    path, name = paths.PER_IMAGE, HEADLINE.name
    table = _table(revision, path, ["pair_id", "class_name"], [name])
    if table is None:
        return None
    if table["pair_id"].duplicated().any():
        twice = table.loc[table["pair_id"].duplicated(), "pair_id"].iloc[0]
        raise revision.corrupt(path, "one row per image", f"{twice!r} is in it twice")
    if not table[name].dropna().between(0, HEADLINE.largest).all():
        raise revision.corrupt(path, f"{name} from 0 to 1", "a value is outside")
    table = counted(table)
    # Images of sites that are held out whole are not in the headline.
    is_headline = table.get("is_headline", pd.Series(True, table.index)).astype(bool)
    return table.assign(site=table.get("site", ""), is_headline=is_headline)


def _table(
    revision: Revision, path: Path, text: list[str], numbers: list[str]
) -> pd.DataFrame | None:
    """A CSV table with at least these columns; None if there is none.

    Columns of METRICS are numbers too, where it has them.
    """
    content = revision.read(path)
    if content is None:
        return None
    floats = [*numbers, *METRICS]
    try:
        table = pd.read_csv(
            BytesIO(content),
            dtype=dict.fromkeys([*text, "site"], "str")
            | dict.fromkeys(floats, "float"),
            keep_default_na=False,
            na_values={name: [""] for name in floats},
        )
        missing = [name for name in (*text, *numbers) if name not in table]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
    except ValueError as error:
        raise revision.corrupt(path, "a table that a stage wrote", error) from None
    return table

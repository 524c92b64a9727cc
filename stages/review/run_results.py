"""What one side holds of a run: from Git always, from the DVC cache where it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.core import paths
from stages.core.errors import PipelineError
from stages.datasets.pairs import read_splits
from stages.review.revision import Revision
from stages.scoring.metrics import HEADLINE, METRICS

TEXT = ("pair_id", "class_name")
_FACTS = ["pair_id", "class_name", "accepted", "reason", "image_sha256", "mask_sha256"]
# What `--pull` fetches: all but the models.
CACHED = [
    paths.INGESTED,
    paths.QUALITY_PAIRS,
    paths.SPLIT_PAIRS,
    paths.PREDICTIONS,
    paths.OVERLAYS,
]


@dataclass(frozen=True)
class RunResults:
    """One side of a comparison, read and checked."""

    revision: Revision
    params: dict[str, Any]
    plan: dict[str, Any]
    metrics: dict[str, Any]
    per_image: pd.DataFrame  # pair_id, class_name, metrics; NaN where undefined
    verdict: dict[str, Any] | None
    history: pd.DataFrame | None
    gradients: pd.DataFrame | None
    ingested: dict[str, Any] | None
    export: dict[str, Any] | None

    @property
    def gate(self) -> bool | None:
        """Whether the gate was passed; None if nobody asked it."""
        return None if self.verdict is None else bool(self.verdict["passed"])

    @property
    def checks(self) -> list[dict[str, Any]]:
        """What the gate checked."""
        return [] if self.verdict is None else list(self.verdict["checks"])

    @cached_property
    def facts(self) -> pd.DataFrame | None:
        """Hash and acceptance of every ingested pair; None if it is in no cache."""
        place = self.revision.file(paths.QUALITY_PAIRS)
        if place is None:
            return None
        try:
            facts: pd.DataFrame = pq.read_table(place, columns=_FACTS).to_pandas()
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return None
        return None if facts["pair_id"].duplicated().any() else facts

    @cached_property
    def splits(self) -> pd.DataFrame | None:
        """The split table; None if it is in no cache."""
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
        readers = {
            paths.QUALITY_PAIRS: self.facts,
            paths.SPLIT_PAIRS: self.splits,
            paths.INGESTED: self.revision.folder(paths.INGESTED),
            paths.PREDICTIONS: self.revision.file(paths.PREDICTIONS),
        }
        return [path for path, found in readers.items() if found is None]


def load(revision: Revision) -> RunResults:
    """Reads what Git holds of a revision.

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
    _check_agreement(revision, metrics, per_image)
    return RunResults(
        revision=revision,
        params=revision.yaml(paths.PARAMS) or {},
        plan=revision.yaml(paths.PLAN) or {},
        metrics=metrics,
        per_image=per_image,
        verdict=_verdict(revision),
        history=_table(revision, paths.HISTORY, ["epoch", "loss", "dice"]),
        gradients=_gradients(revision),
        ingested=revision.json(paths.INGESTED_SUMMARY),
        export=_export(revision),
    )


def _per_image(revision: Revision) -> pd.DataFrame | None:
    table = _table(revision, paths.PER_IMAGE, [HEADLINE.name], [*METRICS], text=TEXT)
    if table is None:
        return None
    if table["pair_id"].duplicated().any():
        name = table.loc[table["pair_id"].duplicated(), "pair_id"].iloc[0]
        raise revision.corrupt(
            paths.PER_IMAGE, "one row an image", f"{name!r} is twice in it"
        )
    if not table[HEADLINE.name].dropna().between(0, 1).all():
        raise revision.corrupt(
            paths.PER_IMAGE, "dice from 0 to 1", "a value is outside"
        )
    return table


def _check_agreement(
    revision: Revision, metrics: dict[str, Any], per_image: pd.DataFrame
) -> None:
    """The scalars must be those of the table: a hand-edited mean would mislead."""
    overlap = metrics.get("dice")
    stated = overlap.get("mean") if isinstance(overlap, dict) else None
    if stated is not None and not isinstance(stated, int | float):
        raise revision.corrupt(
            paths.METRICS, "numbers by name", f"dice.mean is {stated!r}"
        )
    found = per_image["dice"].mean()
    agrees = (
        (stated is None and not np.isfinite(found))
        or (stated is not None and abs(stated - found) < 1e-5)
    ) and metrics.get("num_images") == len(per_image)
    if not agrees:
        raise revision.corrupt(
            paths.METRICS,
            f"the summary of {paths.PER_IMAGE}",
            f"it says mean Dice {stated} of {metrics.get('num_images')} images, the "
            f"table has {found:.6f} of {len(per_image)}",
        )


def _verdict(revision: Revision) -> dict[str, Any] | None:
    verdict = revision.json(paths.VERDICT)
    if verdict is None:
        return None
    checks = verdict.get("checks")
    keys = {"metric", "value", "kind", "bound", "passed"}
    if not isinstance(verdict.get("passed"), bool) or not (
        isinstance(checks, list)
        and all(isinstance(check, dict) and keys <= set(check) for check in checks)
        and all(isinstance(check["bound"], int | float) for check in checks)
    ):
        raise revision.corrupt(paths.VERDICT, "the gate's verdict", "its keys differ")
    return verdict


def _gradients(revision: Revision) -> pd.DataFrame | None:
    names = ["step", "head", "gradient_norm"]
    return _table(revision, paths.GRADIENTS, names, text=("part",))


def _export(revision: Revision) -> dict[str, Any] | None:
    values = revision.json(paths.EXPORT_SUMMARY)
    formats = None if values is None else values.get("formats")
    if values is not None and not (
        isinstance(formats, dict) and all(isinstance(f, dict) for f in formats.values())
    ):
        raise revision.corrupt(paths.EXPORT_SUMMARY, "export's summary", "no formats")
    return values


def _table(
    revision: Revision,
    path: Path,
    numbers: Sequence[str],
    optional: Sequence[str] = (),
    *,
    text: Sequence[str] = (),
) -> pd.DataFrame | None:
    """A CSV table; None if there is none.

    Args:
        revision: Whose.
        path: The table.
        numbers: Columns that it must have.
        optional: Columns of numbers that it may have.
        text: Columns of text that it must have.
    """
    content = revision.read(path)
    if content is None:
        return None
    try:
        table = pd.read_csv(
            BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8"
        )
        missing = [name for name in (*text, *numbers) if name not in table.columns]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        for name in {*numbers, *optional} & set(table.columns):
            table[name] = pd.to_numeric(table[name].replace("", None)).astype(float)
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise revision.corrupt(path, "a table that a stage wrote", error) from None
    return table

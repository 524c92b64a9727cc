"""A repository with a real run and commits whose effect on every image is known."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.core.imaging import decode_image, decode_mask, encode_png
from stages.core.params import parse_params
from stages.datasets.pairs import read_pairs, read_splits
from stages.gate import gate
from stages.ingest import ingest
from stages.scoring.overlays import overlay
from stages.scoring.scores import Scores, columns, summarise
from stages.split import split
from stages.validate import validate
from tests.conftest import with_overrides
from tests.plan import Plan

SHIFT, WORSE_SHIFT, BETTER_SHIFT = 2, 5, 1  # pixels that a prediction lies beside


class ReviewRepository:
    """Commits by name; each but the first rewrites what its stages would have made.

    base        a real `dvc repro`, then predictions of a decent model
    retrained   a param changed that changes nothing
    worse       the images in `worsened` predicted worse, that in `improved` better
    resplit     another seed of the split: other validation images, some the same
    redrawn     another seed of the phantoms: the same ids, other pictures
    grown       more pairs, some of the old ones rejected
    failing     a bound that the same model falls short of
    """

    def __init__(self, finished: Path, root: Path) -> None:
        """Copies a finished run; the rest is written by the stages' functions."""
        self.plan = Plan.at(finished).copy(root)
        self.root = root
        self.commits: dict[str, str] = {"before": self.plan.git("rev-parse", "HEAD~1")}
        with contextlib.chdir(root):
            self.values = self._read_values()
            self._build()

    def _build(self) -> None:
        self._score(lambda _: SHIFT)
        self._commit("base")
        ids = sorted(pd.read_csv(paths.PER_IMAGE)["pair_id"])
        self.worsened, self.improved = ids[1:6], ids[7]

        self._set({"train.learning_rate_schedule": "constant"})
        self._commit("retrained")

        self._from("base")
        shifts = dict.fromkeys(self.worsened, WORSE_SHIFT) | {
            self.improved: BETTER_SHIFT
        }
        self._score(lambda pair_id: shifts.get(pair_id, SHIFT))
        self._commit("worse")

        self._from("base")
        self._set({"split.seed": 113})
        split(self._params().split)
        # Had only the new images counted, it would look better; the old ones are worse.
        old = set(ids)
        self._score(lambda pair_id: WORSE_SHIFT if pair_id in old else BETTER_SHIFT)
        self._commit("resplit")

        self._from("base")
        self._set({"ingest.phantom.seed": 8})
        self._make_data()
        self._score(lambda _: SHIFT)
        self._commit("redrawn")

        self._from("base")
        facts = pq.read_table(paths.QUALITY_PAIRS).to_pandas()
        fractions = facts["foreground_fraction"].sort_values()
        most = round(float(fractions.iloc[-3:-1].mean()), 4)
        self.rejected = sorted(
            facts.loc[facts["foreground_fraction"] > most, "pair_id"]
        )
        self._set(
            {
                "ingest.phantom.pairs": 40,
                "validate.foreground_max": most,
                "validate.max_rejected_fraction": 0.9,
            }
        )
        self._make_data()
        self._score(lambda _: SHIFT)
        self._commit("grown")

        self._from("base")
        self._set({"gate.min": {"dice.mean": 0.999}})
        with contextlib.suppress(PipelineError):
            gate(self._params().gate)
        # As after a `dvc repro` that the gate stopped: the lock keeps the former run.
        self._remember("failing")
        self._from("base")

    def per_image(self, name: str) -> pd.DataFrame:
        """The table of a commit, read anew from Git."""
        text = self.plan.git("show", f"{self.commits[name]}:{paths.PER_IMAGE}")
        rows = [line.split(",") for line in text.splitlines()]
        table = pd.DataFrame(rows[1:], columns=rows[0]).set_index("pair_id")
        return table[["dice", "hd95_px"]].astype(float)

    def groups(self) -> dict[str, str]:
        """Group of every pair, at the base."""
        with contextlib.chdir(self.root):
            table = read_splits()
        return dict(zip(table["pair_id"], table["group"], strict=True))

    def clone(self, folder: Path, *words: str) -> Plan:
        """A clone without a cache, as another person's."""
        self.plan.git("clone", "-q", *words, f"file://{self.root}", str(folder))
        clone = Plan.at(folder)
        clone.git("config", "user.email", "test@example.org")
        clone.git("config", "user.name", "test")
        return clone

    def _params(self) -> Any:
        return parse_params(self.values)

    def _from(self, name: str) -> None:
        self.plan.git("checkout", "-q", self.commits[name])
        with Repo() as repo:
            repo.checkout(force=True)
        self.values = self._read_values()

    def _read_values(self) -> dict[str, Any]:
        values = YAML(typ="safe", pure=True).load(paths.PARAMS.read_text("utf-8"))
        assert isinstance(values, dict)
        return values

    def _set(self, overrides: dict[str, Any]) -> None:
        self.values = with_overrides(self.values, overrides)
        self.plan.write_params(self.values)

    def _make_data(self) -> None:
        params = self._params()
        ingest(params.ingest)
        validate(params.validate_)
        split(params.split)

    def _score(self, shift: Callable[[str], int]) -> None:
        """Writes what evaluate would, had the model predicted the truth, shifted."""
        params = self._params()
        table = read_splits()
        table = table[table["split"] == "validation"].reset_index(drop=True)
        scores = Scores()
        pictures = {}
        for pair in read_pairs(table["pair_id"]):
            image, mask = pair.content()
            pair_id, truth = pair.pair_id, decode_mask(mask)
            predicted = np.roll(truth, shift(pair_id), axis=1)
            scores.add(pair_id, truth, predicted.astype(np.float32), 0.5)
            pictures[pair_id] = overlay(
                decode_image(image),
                mask_true=truth,
                mask_pred=predicted,
                caption=pair_id,
            )
        per_image = table[["pair_id", "class_name", "group"]].merge(
            pd.DataFrame(scores.rows), on="pair_id"
        )
        metrics = summarise(per_image, params.evaluate)
        files.write_json(paths.METRICS, metrics, sort_keys=False)
        files.write_csv(paths.PER_IMAGE, per_image[columns(per_image)])
        files.write_csv(paths.THRESHOLD_CURVE, scores.threshold_curve())
        masks = [scores.masks[pair_id] for pair_id in per_image["pair_id"]]
        with files.replacing(paths.PREDICTIONS) as partial:
            predicted = {"pair_id": list(per_image["pair_id"]), "mask": masks}
            pq.write_table(pa.table(predicted), partial)
        with files.replacing(paths.OVERLAYS) as partial:
            partial.mkdir()
            # As evaluate does, of some alone.
            for pair_id in sorted(pictures)[:6]:
                name = f"{paths.slug(pair_id)}.png"
                (partial / name).write_bytes(encode_png(pictures[pair_id]))
        gate(params.gate)

    def _commit(self, name: str) -> None:
        """As if every stage had run and written what now lies there."""
        with Repo() as repo:
            repo.commit(force=True)
        self._remember(name)

    def _remember(self, name: str) -> None:
        self.commits[name] = self.plan.commit(name)
        self.plan.git("branch", f"a-{name}")


@contextlib.contextmanager
def written(path: Path, content: str | bytes) -> Iterator[None]:
    """A file with another content for a while."""
    former = path.read_bytes() if path.exists() else None
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        yield
    finally:
        if former is None:
            path.unlink()
        else:
            path.write_bytes(former)

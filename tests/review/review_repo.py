"""A repository whose commits change every image in a known way."""

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
from stages.core.imaging import decode_mask
from stages.core.params import parse_params
from stages.datasets.pairs import read_pairs, read_splits
from stages.gate import gate
from stages.ingest import ingest
from stages.scoring.scores import Predicted, Scores, columns, summarise
from stages.split import split
from stages.validate import validate
from tests.conftest import TINY, with_overrides
from tests.plan import Plan

SHIFT, WORSE_SHIFT, BETTER_SHIFT = 2, 5, 1  # pixels that a prediction lies beside
EXPORTED = {"parameters": 12_345, "formats": {"onnx": {"bytes": 67_890}}}


class ReviewRepository:
    """Commits by name; each but the first two changes `base` in one respect.

    before      nothing has run
    base        real data, split and scores; a stand-in for a model, of 2 px shifts
    retrained   a param changed that changes nothing
    worse       the images in `worsened` predicted worse, that in `improved` better
    resplit     another seed of the split: other validation images, some the same
    redrawn     another seed of the phantoms: the same ids, other pictures
    grown       more pairs, some of the old ones rejected
    failing     a bound that the same model falls short of
    few         two images of two groups scored
    """

    def __init__(self, root: Path, shipped_values: dict[str, Any]) -> None:
        """Makes the repository in an empty folder."""
        self.root = root
        self.values = with_overrides(
            shipped_values,
            TINY
            | {
                "ingest.phantom.pairs": 20,
                "split.validation_fraction": 0.5,
                "split.seed": 3,  # holds out 10 images of all classes
            },
        )
        self.plan = Plan(root, self.values)
        self.commits = {"before": self.plan.git("rev-parse", "HEAD")}
        with contextlib.chdir(root):
            self._build()

    def _build(self) -> None:
        self._make_data()
        self._pretend_to_train()
        self._score(lambda _: SHIFT)
        self._commit("base")
        ids = sorted(pd.read_csv(paths.PER_IMAGE)["pair_id"])
        self.worsened, self.improved = ids[1:7], ids[8]
        facts = pq.read_table(paths.QUALITY_PAIRS).to_pandas()
        fractions = facts["foreground_fraction"].sort_values()
        most = round(float(fractions.iloc[-3:-1].mean()), 4)
        too_much = facts["foreground_fraction"] > most
        self.rejected = sorted(facts.loc[too_much, "pair_id"])

        self._from_base({"gate.min": {"dice.mean": 0.999}})
        with contextlib.suppress(PipelineError):
            gate(parse_params(self.values).gate)
        # As after a `dvc repro` that the gate stopped: the lock keeps the former run.
        self._remember("failing")

        self._from_base({"train.learning_rate_schedule": "constant"})
        gate(parse_params(self.values).gate)
        self._commit("retrained")

        self._from_base()
        shifts = dict.fromkeys(self.worsened, WORSE_SHIFT) | {
            self.improved: BETTER_SHIFT
        }
        self._score(lambda pair_id: shifts.get(pair_id, SHIFT))
        self._commit("worse")

        self._from_base({"split.seed": 6})
        split(parse_params(self.values).split)
        # Had only the new images counted, it would look better; the old ones are worse.
        old = set(ids)
        self._score(lambda pair_id: WORSE_SHIFT if pair_id in old else BETTER_SHIFT)
        self._commit("resplit")

        self._from_base({"ingest.phantom.seed": 8})
        self._make_data()
        self._score(lambda _: SHIFT)
        self._commit("redrawn")

        self._from_base(
            {
                "ingest.phantom.pairs": 24,
                "validate.foreground_max": most,
                "validate.max_rejected_fraction": 0.9,
            }
        )
        self._make_data()
        self._score(lambda _: SHIFT)
        self._commit("grown")

        self._from_base()
        files.write_csv(paths.PER_IMAGE, pd.read_csv(paths.PER_IMAGE).head(2))
        self._commit("few")
        self._from_base()

    def per_image(self, name: str) -> pd.DataFrame:
        """The table of a commit, read anew from Git."""
        text = self.plan.git("show", f"{self.commits[name]}:{paths.PER_IMAGE}")
        rows = [line.split(",") for line in text.splitlines()]
        table = pd.DataFrame(rows[1:], columns=rows[0]).set_index("pair_id")
        return table[["dice", "hd95_px"]].astype(float)

    def clone(self, folder: Path, *words: str) -> Plan:
        """A clone without a cache, as another person's."""
        self.plan.git("clone", "-q", *words, f"file://{self.root}", str(folder))
        return Plan.at(folder)

    def _from_base(self, overrides: dict[str, Any] | None = None) -> None:
        """The base with other params; cached outputs stay those of the last commit."""
        self.plan.git("checkout", "-q", "-f", self.commits["base"])
        values = YAML(typ="safe", pure=True).load(paths.PARAMS.read_text("utf-8"))
        self.values = with_overrides(values, overrides or {})
        if overrides:
            self.plan.write_params(self.values)

    def _make_data(self) -> None:
        params = parse_params(self.values)
        ingest(params.ingest)
        validate(params.validate_)
        split(params.split)

    def _pretend_to_train(self) -> None:
        """Writes what train and export would."""
        files.write_text(paths.MODEL, "a model")
        files.write_json(paths.BUILD, {"processor": "a processor"})
        files.write_text(
            paths.HISTORY, "epoch,loss,dice,learning_rate\n1,0.5,0.8,1\n2,0.3,0.9,1\n"
        )
        files.write_text(
            paths.GRADIENTS,
            "step,head,part,gradient_norm\n0,0,middle,1\n0,0,encoder_0,2\n",
        )
        files.write_json(paths.EXPORT_SUMMARY, EXPORTED)
        files.write_text(paths.EXPORT / "unet.onnx", "a model")

    def _score(self, shift: Callable[[str], int]) -> None:
        """Writes what evaluate would, had the model predicted the truth, shifted."""
        params = parse_params(self.values)
        table = read_splits()
        table = table[table["split"] == "validation"].reset_index(drop=True)
        scores = Scores(threshold=0.5)
        for pair in read_pairs(table["pair_id"]):
            truth = decode_mask(pair.content()[1])
            predicted = np.roll(truth, shift(pair.pair_id), axis=1)
            scores.add(Predicted(pair.pair_id, truth, predicted.astype(np.float32)))
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
        paths.OVERLAYS.mkdir(parents=True, exist_ok=True)
        for name, mask in zip(predicted["pair_id"], masks, strict=True):
            (paths.OVERLAYS / f"{paths.slug(name)}.png").write_bytes(mask)
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

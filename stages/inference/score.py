"""Scores a model on labelled data: `lungfield score`.

The metrics are those of `evaluate`, so that a model can be compared across data sets.
OUT gets `metrics.json`, `per_image.csv` and `overlays/`. Pairs that cannot be read are
named and not scored.
"""

import hashlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.core import files, imaging, paths, provenance
from stages.core.errors import PipelineError
from stages.core.imaging import UnreadableImageError
from stages.core.params import EvaluateParams, IngestParams, load_params
from stages.datasets import layouts
from stages.datasets.masks import MaskDefinition
from stages.datasets.pairs import Pair
from stages.datasets.sources.folder import pairs_in
from stages.inference import segmenter
from stages.inference.segmenter import MAX_PIXELS, Exported, Segmenter
from stages.scoring import scores

logger = logging.getLogger(__name__)


def run(
    model: Path,
    folder: Path,
    out: Path | None,
    *,
    layout: str = "",
    target: str = "",
    classes: list[str] | None = None,
    limit: int = 0,
    threshold: float | None = None,
) -> None:
    """Scores as a command line asks, the rest as in `params.yaml`; prints Dice.

    Raises:
        PipelineError: If the model or the data cannot be used, or at the end, if a
            pair could not be scored.
    """
    params = load_params()
    wanted = {
        "layout": layout or layouts.detect(folder, params.ingest),
        "target": target,
        "classes": classes or [],
        "limit": limit,
    }
    out = out or paths.WORK / "scores" / folder.stem
    metrics = score(
        model,
        folder,
        out,
        ingest=params.ingest.model_copy(update=wanted),
        evaluate=params.evaluate,
        threshold=threshold,
    )
    print(f"{scores.headline(metrics)}; layout {wanted['layout']}, see {out}")
    if metrics["num_skipped"]:
        raise PipelineError(
            f"{metrics['num_skipped']} pairs of {folder} could not be scored and are "
            "listed above; repair or remove them to include all in the figure"
        )


def score(
    model_path: Path,
    folder: Path,
    out: Path,
    *,
    ingest: IngestParams,
    evaluate: EvaluateParams,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Predicts every readable pair of a directory or zip, and scores it.

    Args:
        model_path: See `open_model`.
        folder: Directory or zip.
        out: Folder to write; its metrics, table and overlays are replaced.
        ingest: Layout, classes, number of pairs, and bounds on files.
        evaluate: Intervals, pictures, and the threshold of a model that has none.
        threshold: None takes the model's own.

    Returns:
        The metrics of `evaluate`, the data, and the number of skipped pairs.

    Raises:
        PipelineError: If the model or the data cannot be used.
    """
    model = open_model(model_path, flip_tta=evaluate.flip_tta)
    if threshold is None and model.threshold is None:
        threshold = evaluate.threshold
    segment = Segmenter(model, threshold=threshold)
    keep = model.keep_components
    evaluate = evaluate.model_copy(
        update={
            "threshold": segment.threshold,
            "keep_components": evaluate.keep_components if keep is None else keep,
        }
    )
    meant = layouts.load(ingest.layout).ABOUT.definition(ingest.target)
    is_same = _is_same_definition(model, meant)
    reading = _Reading(folder, ingest)
    scored = scores.score_pairs(
        reading.readable(),
        model.predict,
        evaluate,
        image_size=model.image_size,
        channels=model.image_channels,
    )
    if not scored.rows:
        raise PipelineError(
            f"{folder} holds {len(reading.problems)} pairs, but none can be read "
            f"({reading.problems[0]}); repair them, or name another folder or layout"
        )
    per_image = pd.DataFrame(reading.rows).merge(
        pd.DataFrame(scored.rows), on="pair_id", validate="one_to_one"
    )
    metrics = scores.summarise(per_image, evaluate) | {
        "threshold": evaluate.threshold,
        "num_skipped": len(reading.problems),
        "model_sha256": files.sha256(model_path),
        "data": {
            "layout": ingest.layout,
            "dataset": layouts.load(ingest.layout).ABOUT.dataset,
            "mask_definition": meant.text,
            "same_mask_definition": is_same,
        },
    }
    scores.write_overlays(
        out / "overlays",
        _Reading(folder, ingest).readable,
        per_image=per_image,
        masks=scored.masks,
        params=evaluate,
    )
    files.write_csv(out / "per_image.csv", per_image[scores.columns(per_image)])
    files.write_json(out / "metrics.json", metrics, sort_keys=False)
    for problem in reading.problems:
        logger.warning("skipped %s", problem)
    return metrics


def open_model(path: Path, *, flip_tta: bool = False) -> Exported:
    """Opens ONNX, LiteRT, a SavedModel's folder or `.keras`.

    A `.keras` file carries no provenance and no `evaluate.flip_tta`; the mask
    definition of the checkout's own is taken from `data/ingested.json`.

    Raises:
        PipelineError: If it is none of these.
    """
    if path.suffix == ".tflite" or path.is_dir():
        return _open_other_format(path)
    if path.suffix != ".keras":
        return segmenter.load(path)
    from stages.nn.inference import load_model, predictor

    model = load_model(path)
    _, size, _, channels = model.input_shape
    is_own = path.absolute() == paths.MODEL.absolute()
    known = is_own and paths.INGESTED_SUMMARY.is_file()
    facts = {"data": files.read_json(paths.INGESTED_SUMMARY)} if known else {}
    return Exported(predictor(model, flip_tta=flip_tta), size, channels, facts)


def _open_other_format(path: Path) -> Exported:
    """LiteRT or a SavedModel: its provenance holds the size of its input."""
    facts = provenance.read(path)
    train = facts.get("params", {}).get("train", {})
    size, channels = train.get("image_size"), train.get("image_channels")
    if not isinstance(size, int) or channels not in (1, 3):
        raise PipelineError(
            f"{path} should carry its image size and channels but does not; "
            "name the unet.onnx beside it"
        )
    from stages.export import litert, saved_model

    loader = saved_model.load if path.is_dir() else litert.load
    return Exported(loader(path), size, channels, facts)


def _is_same_definition(model: Exported, of_data: MaskDefinition) -> bool | None:
    """Whether model and data define their masks alike; warns if not or unknown."""
    if not model.mask_definition_id:
        logger.warning(
            "the model carries no mask definition; this data has %r", of_data.text
        )
        return None
    if model.mask_definition_id != of_data.id:
        logger.warning(
            "scores compare only if both masks mean the same: the model was trained on "
            "%r, this data has %r",
            model.mask_definition,
            of_data.text,
        )
    return model.mask_definition_id == of_data.id


@dataclass
class _Reading:
    """The pairs of a data set: those that can be scored, and the others' problems."""

    folder: Path
    params: IngestParams
    rows: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def readable(self, only: Collection[str] | None = None) -> Iterator[Pair]:
        """Yields the pairs, or `only` some, that can be scored; records their rows."""
        pairs = pairs_in(self.folder, self.params)
        seen: set[str] = set()
        word = "score" if only is None else "overlays"
        for pair in tqdm(pairs, word, unit="image", disable=None):
            if only is not None and pair.pair_id not in only:
                continue
            problem = _problem(pair)
            if pair.pair_id in seen:
                problem = "another pair has the same id"
            if problem:
                self.problems.append(f"{pair.pair_id}: {problem}")
                continue
            seen.add(pair.pair_id)
            row = {"pair_id": pair.pair_id, "class_name": pair.class_name}
            # The bootstrap draws copies of an image together, like a patient's images.
            row["group"] = pair.group or hashlib.sha256(pair.content()[0]).hexdigest()
            self.rows.append(row)
            yield pair


def _problem(pair: Pair) -> str:
    """The reason why a pair cannot be scored, or ""."""
    if pair.problem:
        return pair.problem
    sides = [("image", pair.image), ("mask", pair.mask)]
    if pair.region is not None:
        sides.append(("region", pair.region))
    for side, encoded in sides:
        if encoded is None:
            return f"{side} is missing"
        try:
            picture = imaging.read(encoded, max_pixels=MAX_PIXELS)
            values = np.unique(imaging.mask_values(picture)) if side == "mask" else ()
        except UnreadableImageError as error:
            return f"{side}: {error}"
        if np.count_nonzero(values) > 1:
            return f"mask has {len(values)} values, expected 0 and one other"
    return ""

"""Scores a model on labelled data: `python -m stages.inference.score MODEL FOLDER`.

MODEL is anything that export wrote (`unet.onnx`, `unet.tflite`, `saved_model/`) or a
`.keras` file; FOLDER is a folder or a zip in a layout of `stages/datasets/layouts`. OUT
(data/.work/scores/NAME by default) gets `metrics.json`, `per_image.csv` and
`overlays/`. The numbers are those of `evaluate`, so a model can be read across data
sets. Pairs that cannot be read are named, are not in the numbers, and make the exit
code 1.
"""

import argparse
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.core import arguments, files, imaging, paths, provenance
from stages.core.errors import PipelineError, run
from stages.core.imaging import UnreadableImageError
from stages.core.params import EvaluateParams, IngestParams, load_params, names_in
from stages.datasets import headers, layouts
from stages.datasets.pairs import Pair
from stages.datasets.sources._tree import open_tree
from stages.datasets.sources.folder import pairs_in
from stages.inference import segmenter
from stages.inference.predict import MAX_PIXELS
from stages.inference.segmenter import Exported
from stages.scoring import scores

logger = logging.getLogger(__name__)


def score(
    model_path: Path,
    folder: Path,
    out: Path,
    *,
    ingest: IngestParams,
    evaluate: EvaluateParams,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Predicts every readable pair of a data set and scores it.

    Args:
        model_path: What `open_model` takes.
        folder: Directory or zip.
        out: Folder to write; its metrics, table and overlays are replaced.
        ingest: The layout, which classes, how many pairs, and bounds on files.
        evaluate: Intervals, pictures, and the threshold of a model that has none.
        threshold: A pixel at least this probable is foreground; None takes the
            model's own.

    Returns:
        The metrics: those of `evaluate`, what was scored, and how many pairs were
        skipped.

    Raises:
        PipelineError: If the model or the data cannot be used.
    """
    model = open_model(model_path, mirror=evaluate.mirror)
    if threshold is None:
        threshold = model.threshold or evaluate.threshold
    keep = model.keep_components
    if keep is None:
        keep = evaluate.keep_components
    evaluate = evaluate.model_copy(
        update={"threshold": threshold, "keep_components": keep}
    )
    meant = layouts.target_of(ingest.layout, ingest.target).mask_definition
    warn_of_definitions(model.mask_definition, meant)
    reading = Reading(folder, ingest)
    scored = scores.Scores()
    predicted = scores.predictions(
        reading.encoded(),
        model.predict,
        image_size=model.image_size,
        channels=model.image_channels,
        batch_size=evaluate.batch_size,
    )
    for pair_id, mask, prob in predicted:
        scored.add(pair_id, mask, prob, threshold, keep)
    if not scored.rows:
        raise PipelineError(
            f"{folder} holds {len(reading.problems)} pairs, but none can be read "
            f"({reading.problems[0]}); mend them, or name another folder or layout"
        )
    per_image = pd.DataFrame(reading.rows).merge(
        pd.DataFrame(scored.rows), on="pair_id", validate="one_to_one"
    )
    metrics = scores.summarise(per_image, evaluate) | {
        "num_skipped": len(reading.problems),
        "model_sha256": files.sha256(model_path),
        "data": {
            "layout": ingest.layout,
            "dataset": layouts.load(ingest.layout).ABOUT.dataset,
            "mask_definition": meant,
            "same_mask_definition": model.mask_definition == meant
            if model.mask_definition
            else None,
        },
    }
    ranks = scores.pictured(per_image, evaluate)
    scores.write_overlays(
        out / "overlays",
        Reading(folder, ingest).encoded(only=set(ranks)),
        ranks=ranks,
        per_image=per_image,
        masks=scored.masks,
    )
    files.write_csv(out / "per_image.csv", per_image.drop(columns="group"))
    files.write_json(out / "metrics.json", metrics)
    scores.log_headline(metrics)
    for problem in reading.problems:
        logger.warning("skipped %s", problem)
    return metrics


def open_model(path: Path, *, mirror: bool = False) -> Exported:
    """Any model of this pipeline; all but `.onnx` need TensorFlow, which takes seconds.

    A `.keras` file does not say what its masks mean; where it is the checkout's own,
    `data/ingested.json` does.

    Args:
        path: `*.onnx`, `*.tflite`, a SavedModel's folder or `*.keras`.
        mirror: As `evaluate.mirror`, of a `.keras` file; in others it is built in.

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
    return Exported(predictor(model, mirror=mirror), size, channels, facts)


def _open_other_format(path: Path) -> Exported:
    """LiteRT or a SavedModel: what it takes stands in its own provenance."""
    facts = provenance.read(path)
    train = facts.get("params", {}).get("train", {})
    size, channels = train.get("image_size"), train.get("image_channels")
    if not isinstance(size, int) or channels not in (1, 3):
        raise PipelineError(
            f"{path} should say which image size and channels it takes but does not; "
            "name the unet.onnx that lies beside it"
        )
    from stages.export import litert, saved_model

    loader = saved_model.load if path.is_dir() else litert.load
    return Exported(loader(path), size, channels, facts)


def warn_of_definitions(of_model: str, of_data: str) -> None:
    """Says so where the masks of model and data do not mean the same."""
    if not of_model:
        logger.warning(
            "the model does not say what its masks mean; this data's are: %s", of_data
        )
    elif of_model != of_data:
        logger.warning(
            "the masks may mean different things, and then the scores say little: "
            "the model learnt %r, this data has %r",
            of_model,
            of_data,
        )


def detect_layout(folder: Path, params: IngestParams) -> str:
    """The layout by which most pairs are found; params' own where they tie.

    Raises:
        PipelineError: If there is no pair in any layout, or several fit as well.
    """
    tree = open_tree(folder, params)
    counts: dict[str, int] = {}
    for name in names_in(Path(layouts.__file__).parent):
        try:
            found = layouts.load(name).find(tree)
        except PipelineError:
            continue
        counts[name] = sum(entry.is_complete for entry in found)
    most = max(counts.values(), default=0)
    # `pairs` takes any two folders of these names: the layouts that ask for more win.
    best = [name for name, count in counts.items() if count == most and most]
    best = [name for name in best if name != "pairs"] or best
    if len(best) == 1 or params.layout in best:
        return params.layout if params.layout in best else best[0]
    choices = ", ".join(sorted(counts))
    fits = f"fits {' and '.join(best)} alike" if best else "fits no layout"
    raise PipelineError(f"{folder} {fits}; name one with --layout: {choices}")


@dataclass
class Reading:
    """Pairs of a data set on their way to the network, and those that are not."""

    folder: Path
    params: IngestParams
    rows: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def encoded(self, only: set[str] | None = None) -> Iterator[scores.Encoded]:
        """Yields the pairs that can be read; notes class and group of each.

        Args:
            only: Ids to yield; None yields all.
        """
        pairs = pairs_in(self.folder, self.params)
        seen: set[str] = set()
        for pair in tqdm(
            pairs, desc="overlays" if only else "score", unit="image", disable=None
        ):
            if only is not None and pair.pair_id not in only:
                continue
            problem = _problem(pair)
            if pair.pair_id in seen:
                problem = "another pair has the same id"
            if problem or pair.image is None or pair.mask is None:
                self.problems.append(f"{pair.pair_id}: {problem}")
                continue
            seen.add(pair.pair_id)
            # Copies are one draw of the bootstrap, as patients are.
            group = pair.group or hashlib.sha256(pair.image).hexdigest()
            self.rows.append(
                {
                    "pair_id": pair.pair_id,
                    "class_name": pair.class_name,
                    "group": group,
                }
            )
            yield pair.pair_id, pair.image, pair.mask


def _problem(pair: Pair) -> str:
    """Why a pair cannot be scored, or ""."""
    if pair.problem:
        return pair.problem
    for side, encoded in (("image", pair.image), ("mask", pair.mask)):
        if encoded is None:
            return f"{side} is missing"
        try:
            headers.inspect(encoded, MAX_PIXELS, "an image may have")
            pixels = imaging.decode(encoded)
            if side == "image":
                imaging.to_channels(pixels)
                continue
            values = np.unique(imaging.mask_values(pixels))
        except UnreadableImageError as error:
            return f"{side}: {error}"
        if np.count_nonzero(values) > 1:
            return f"mask has {len(values)} values, expected 0 and one other"
    return ""


def main() -> None:
    """Reads the command line; what it leaves open is in `params.yaml`."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.inference.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = names_in(Path(layouts.__file__).parent)
    parser.add_argument("model", type=Path, help="what export wrote, or a .keras file")
    parser.add_argument("folder", type=Path, help="labelled data: a folder or a zip")
    parser.add_argument("-o", "--out", type=Path, help="folder to write")
    parser.add_argument("--layout", choices=known, help="default: what fits the data")
    parser.add_argument("--target", help="what the masks show; default: its first")
    parser.add_argument("--classes", nargs="+", default=[], help="default: all")
    parser.add_argument("--limit", type=arguments.positive, help="pairs a class")
    parser.add_argument("--threshold", type=arguments.fraction, help="default: own")
    given = parser.parse_args()
    params = load_params()
    layout = given.layout or detect_layout(given.folder, params.ingest)
    wanted = {
        "layout": layout,
        "target": given.target or "",
        "classes": given.classes,
        "limit": given.limit or 0,
    }
    out = given.out or paths.WORK / "scores" / given.folder.stem
    metrics = score(
        given.model,
        given.folder,
        out,
        ingest=params.ingest.model_copy(update=wanted),
        evaluate=params.evaluate,
        threshold=given.threshold,
    )
    dice = metrics["dice"]
    print(
        f"Dice {dice['mean']:.4f} (95 % interval {dice['ci_low']:.4f} to "
        f"{dice['ci_high']:.4f}) on {metrics['num_images']} images of {layout}; {out}"
    )
    if metrics["num_skipped"]:
        raise PipelineError(
            f"{metrics['num_skipped']} pairs of {given.folder} could not be scored and "
            "are listed above; mend or remove them to have all in the number"
        )


if __name__ == "__main__":
    run(main)

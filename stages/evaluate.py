"""Scores the model on the held-out side of the split, image by image.

Reads   data/model/unet.keras, data/ingested, data/splits/pairs.csv (validation rows)
Writes  data/evaluation/: metrics.json, per_image.csv, threshold_curve.csv,
        predictions.parquet (every predicted mask), overlays/
Why     so that a number means one thing: each mask at its own size, then averaged
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from stages.core import files, paths
from stages.core.errors import PipelineError, run
from stages.core.imaging import (
    Float,
    Mask,
    decode_image,
    decode_mask,
    encode_png,
    preprocess,
    resize_prob,
    to_input,
)
from stages.core.metrics import bootstrap_interval, dice, hd95_and_assd, iou
from stages.core.nn.inference import load_model, predictor
from stages.core.overlays import overlay
from stages.core.pairs import read_pairs, read_splits
from stages.core.params import EvaluateParams, load_params

logger = logging.getLogger(__name__)

THRESHOLDS = np.arange(1, 20) / 20
OVERLAP_METRICS = ("dice", "iou")
DISTANCE_METRICS = ("hd95_px", "assd_px")


def evaluate(
    params: EvaluateParams,
    *,
    model_path: Path = paths.MODEL,
    ingested: Path = paths.INGESTED,
    splits: Path = paths.SPLIT_PAIRS,
    metrics_path: Path = paths.METRICS,
    per_image_path: Path = paths.PER_IMAGE,
    threshold_path: Path = paths.THRESHOLD_CURVE,
    predictions_path: Path = paths.PREDICTIONS,
    overlays: Path = paths.OVERLAYS,
) -> dict[str, Any]:
    """Predicts every validation pair, scores it at its mask's own size, pictures some.

    Never fails on a low score: that is `gate`'s to do.

    Args:
        params: The `evaluate` section.
        model_path: A `.keras` file; its input shape decides the preprocessing.
        ingested: Shards of pairs.
        splits: Split table; its validation rows are scored.
        metrics_path: Scalars, nested by name.
        per_image_path: One row an image.
        threshold_path: Mean Dice against the probability threshold.
        predictions_path: Every predicted mask as PNG, so that any image of any
            revision can be looked at later.
        overlays: One picture for each of the worst, the median and the best.

    Returns:
        The metrics.

    Raises:
        PipelineError: If the model or the data cannot be read, or nothing is held out.
    """
    table = read_splits(splits)
    table = table[table["split"] == "validation"].reset_index(drop=True)
    if table.empty:
        raise PipelineError(
            f"{splits} should have validation rows but has none; raise "
            "split.validation_fraction and run `dvc repro`"
        )
    model = load_model(model_path)
    scores = Scores()
    progress = tqdm(total=len(table), desc="evaluate", unit="image", disable=None)
    with progress:
        for pair_id, mask, prob in _predictions(model, table, ingested, params):
            scores.add(pair_id, mask, prob, params.threshold)
            progress.update()

    per_image = table[["pair_id", "class_name", "group"]].merge(
        pd.DataFrame(scores.rows), on="pair_id", validate="one_to_one"
    )
    metrics = summarise(per_image, params)
    files.write_json(metrics_path, metrics)
    files.write_csv(per_image_path, per_image.drop(columns="group"))
    files.write_csv(threshold_path, scores.threshold_curve())
    _write_predictions(predictions_path, per_image["pair_id"], scores.masks)
    _write_overlays(overlays, per_image, scores.masks, ingested, params)
    logger.info(
        "%d images: Dice %.4f (95 %% interval %.4f to %.4f), 5th percentile %.4f, "
        "lowest %.4f; %d undefined",
        metrics["num_images"],
        *(metrics["dice"][k] for k in ("mean", "ci_low", "ci_high", "p05", "min")),
        metrics["num_undefined"],
    )
    return metrics


@dataclass
class Scores:
    """What is kept of each prediction: its metrics, its mask, its threshold curve."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[str, bytes] = field(default_factory=dict)
    curves: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, pair_id: str, mask_true: Mask, prob: Float, threshold: float) -> None:
        """Scores a probability map against a mask of any size."""
        prob = resize_prob(prob, *mask_true.shape)
        mask_pred = prob >= threshold
        hd95_px, assd_px = hd95_and_assd(mask_true=mask_true, mask_pred=mask_pred)
        self.rows.append(
            {
                "pair_id": pair_id,
                "dice": dice(mask_true=mask_true, mask_pred=mask_pred),
                "iou": iou(mask_true=mask_true, mask_pred=mask_pred),
                "hd95_px": hd95_px,
                "assd_px": assd_px,
            }
        )
        self.masks[pair_id] = encode_png(mask_pred.astype(np.uint8) * 255)
        self.curves.append(dice_at_thresholds(mask_true, prob))

    def threshold_curve(self) -> pd.DataFrame:
        """Mean Dice over images at each threshold."""
        with np.errstate(invalid="ignore"):
            curves = np.stack(self.curves)
        defined = np.isfinite(curves)
        means = np.where(defined, curves, 0).sum(0) / np.maximum(defined.sum(0), 1)
        means[~defined.any(0)] = np.nan
        return pd.DataFrame({"threshold": THRESHOLDS, "dice": means})


def dice_at_thresholds(mask_true: Mask, prob: Float) -> NDArray[np.float64]:
    """Dice at each of `THRESHOLDS`, from one histogram; NaN where both are empty."""
    # A pixel in bin k passes the first k thresholds.
    bins = np.searchsorted(THRESHOLDS.astype(np.float32), prob.ravel(), side="right")
    size = len(THRESHOLDS) + 1
    predicted = np.bincount(bins, minlength=size)[::-1].cumsum()[::-1][1:]
    inside = bins[mask_true.ravel()]
    overlap = np.bincount(inside, minlength=size)[::-1].cumsum()[::-1][1:]
    total = predicted + inside.size
    return np.where(total > 0, 2 * overlap / np.maximum(total, 1), np.nan)


def summarise(per_image: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """The scalars of metrics.json from the table of images.

    Args:
        per_image: pair_id, class_name, group, dice, iou, hd95_px, assd_px; NaN where
            undefined.
        params: bootstrap_resamples, bootstrap_seed.

    Returns:
        Nested by name. `num_undefined` counts images with any undefined metric: an
        empty prediction has no surface distance, and must not improve a mean by that.
    """
    names = [*OVERLAP_METRICS, *DISTANCE_METRICS]
    metrics = {name: _statistics(per_image, name, params) for name in OVERLAP_METRICS}
    for name in DISTANCE_METRICS:
        metrics[name] = {"mean": per_image[name].mean()}
    by_class = {
        class_name: {
            "num_images": len(rows),
            "dice": _statistics(rows, "dice", params),
        }
        for class_name, rows in per_image.groupby("class_name", sort=True)
    }
    return {
        **metrics,
        "threshold": params.threshold,
        "num_images": len(per_image),
        "num_undefined": int(per_image[names].isna().any(axis=1).sum()),
        "by_class": by_class,
    }


def _statistics(
    rows: pd.DataFrame, name: str, params: EvaluateParams
) -> dict[str, float]:
    values = rows[name]
    low, high = bootstrap_interval(
        values.to_numpy(np.float64),
        rows["group"].to_numpy(object),
        resamples=params.bootstrap_resamples,
        seed=params.bootstrap_seed,
    )
    return {
        "mean": values.mean(),
        "median": values.median(),
        "p05": values.quantile(0.05),
        "min": values.min(),
        "ci_low": low,
        "ci_high": high,
    }


def _predictions(
    model: keras.Model, table: pd.DataFrame, ingested: Path, params: EvaluateParams
) -> Iterator[tuple[str, Mask, Float]]:
    """Yields pair id, true mask and probability map; a batch in memory at a time."""
    predict = predictor(model)
    _, size, _, channels = model.input_shape
    waiting: list[tuple[str, Mask, NDArray[np.uint8]]] = []

    def flush() -> Iterator[tuple[str, Mask, Float]]:
        images = to_input(np.stack([image for *_, image in waiting]))
        for (pair_id, mask, _), prob in zip(waiting, predict(images), strict=True):
            yield pair_id, mask, prob[:, :, 0]
        waiting.clear()

    for row in read_pairs(table["pair_id"], ingested):
        image = decode_image(row["image"], channels)
        mask = decode_mask(row["mask"])
        waiting.append((row["pair_id"], mask, preprocess(image, size)))
        if len(waiting) == params.batch_size:
            yield from flush()
    if waiting:
        yield from flush()


def _write_predictions(
    path: Path, pair_ids: pd.Series, masks: dict[str, bytes]
) -> None:
    columns = {
        "pair_id": pa.array(list(pair_ids), pa.string()),
        "mask": pa.array([masks[pair_id] for pair_id in pair_ids], pa.binary()),
    }
    with files.replacing(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="none")


def pictured(per_image: pd.DataFrame, params: EvaluateParams) -> dict[str, str]:
    """Which pairs get a picture, and as what: worst, median or best.

    Ties are broken by pair id, so that the same scores picture the same pairs.
    """
    ranked = per_image.dropna(subset="dice").sort_values(["dice", "pair_id"])
    ids = list(ranked["pair_id"])
    middle = max(0, (len(ids) - params.overlays_median) // 2)
    chosen = {
        "best": ids[len(ids) - min(params.overlays_best, len(ids)) :],
        "median": ids[middle : middle + params.overlays_median],
        "worst": ids[: params.overlays_worst],
    }
    return {pair_id: rank for rank, some in chosen.items() for pair_id in some}


def _write_overlays(
    folder: Path,
    per_image: pd.DataFrame,
    masks: dict[str, bytes],
    ingested: Path,
    params: EvaluateParams,
) -> None:
    """One PNG a pictured pair, under the pair's name: the same file across runs."""
    ranks = pictured(per_image, params)
    scores = per_image.set_index("pair_id")
    with files.replacing(folder) as partial:
        partial.mkdir()
        for row in read_pairs(ranks, ingested):
            pair_id = row["pair_id"]
            score = scores.loc[pair_id]
            caption = (
                f"{pair_id}  {ranks[pair_id]}  Dice {score['dice']:.3f}  "
                f"hd95 {score['hd95_px']:.1f} px"
            )
            picture = overlay(
                decode_image(row["image"]),
                mask_true=decode_mask(row["mask"]),
                mask_pred=decode_mask(masks[pair_id]),
                caption=caption,
            )
            name = f"{paths.slug(pair_id)}.png"
            (partial / name).write_bytes(encode_png(picture))


def main() -> None:
    """Scores with the `evaluate` section of `params.yaml`."""
    evaluate(load_params().evaluate)


if __name__ == "__main__":
    run(main)

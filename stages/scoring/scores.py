"""Scores of predicted masks, each at its own size, and pictures of some.

`evaluate` and `stages.inference.score` use the same functions, so that their numbers
can be compared.
"""

import logging
import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import files, imaging, paths
from stages.core.errors import PipelineError
from stages.core.imaging import Float, Mask, Predictor, Spacing
from stages.core.params import EvaluateParams
from stages.datasets.pairs import Pair
from stages.scoring.metrics import (
    FALSE_ALARMS,
    HEADLINE,
    INTERVAL,
    METRICS,
    STATISTICS,
    Masks,
    Metric,
    confidence_interval,
    counted,
    number,
    present,
    severity,
)
from stages.scoring.overlays import overlay
from stages.scoring.postprocess import largest_components

logger = logging.getLogger(__name__)

THRESHOLDS = np.arange(1, 20) / 20
# Columns of images with a spacing, and of those with a region.
AREAS = ("area_true_cm2", "area_pred_cm2")
SEVERITY = ("severity_true", "severity_pred")


@dataclass(frozen=True)
class Predicted:
    """A pair's true mask, and what the network says of its image."""

    pair_id: str
    mask: Mask  # of any size (H, W)
    prob: Float  # of any size, resized to the mask's
    spacing: Spacing | None = None  # of the mask's pixels
    region: Mask | None = None  # (H, W), of which the foreground is a part


def score_pairs(
    pairs: Iterable[Pair],
    predict: Predictor,
    params: EvaluateParams,
    *,
    image_size: int,
    channels: int,
) -> "Scores":
    """Predicts pairs, a batch in memory at a time, and scores them.

    Warns of true masks with more regions than `keep_components` lets a prediction have.

    Args:
        pairs: The pairs to score.
        predict: The network.
        params: The threshold, the regions to keep, and the size of a batch.
        image_size: Side of the network's input, pixels.
        channels: Of its input, 1 or 3.

    Raises:
        PipelineError: If a pair or its region cannot be decoded.
    """
    scored = Scores(params.threshold, params.keep_components)
    num_cut = 0
    pairs = iter(pairs)
    while batch := list(islice(pairs, params.batch_size)):
        images, known = [], []
        for pair in batch:
            image, mask = pair.decoded(channels)
            images.append(imaging.preprocess(image, image_size))
            spacing = pair.spacing and imaging.resized_spacing(
                pair.spacing, image.shape, mask.shape
            )
            known.append((pair.pair_id, mask, spacing, _region(pair, mask)))
            num_cut += 0 < params.keep_components < imaging.num_components(mask)
        probs = predict(imaging.to_input(np.stack(images)))
        for (pair_id, mask, spacing, region), prob in zip(known, probs, strict=True):
            scored.add(Predicted(pair_id, mask, prob[:, :, 0], spacing, region))
    if num_cut:
        logger.warning(
            "%d of %d true masks have more than evaluate.keep_components (%d) regions, "
            "which no prediction can have then; raise it, or set it to 0",
            num_cut,
            len(scored.rows),
            params.keep_components,
        )
    return scored


def _region(pair: Pair, mask: Mask) -> Mask | None:
    """The region that a pair's foreground is a part of, at its mask's size."""
    if pair.region is None:
        return None
    try:
        return imaging.resize_mask(imaging.decode_mask(pair.region), *mask.shape)
    except imaging.UnreadableImageError as error:
        raise PipelineError(
            f"{pair.pair_id}: {pair.region_path} should be a mask of the region that "
            f"its foreground is a part of, but cannot be decoded ({error}); repair it"
        ) from None


@dataclass
class Scores:
    """Metrics, predicted mask and threshold curve of each scored image.

    The threshold curve is of all regions.
    """

    threshold: float
    keep_components: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[str, bytes] = field(default_factory=dict)
    curves: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, predicted: Predicted) -> None:
        """Scores a prediction at the true mask's size."""
        prob = imaging.resize_prob(predicted.prob, *predicted.mask.shape)
        mask_pred = largest_components(prob >= self.threshold, self.keep_components)
        masks = Masks(
            mask_true=predicted.mask,
            mask_pred=mask_pred,
            spacing=predicted.spacing,
            region=predicted.region,
        )
        values = {name: metric.score(masks) for name, metric in METRICS.items()}
        if masks.spacing:
            areas = (size * math.prod(masks.spacing) / 100 for size in masks.sizes)
            values |= dict(zip(AREAS, areas, strict=False))
        if masks.region is not None:
            values |= dict(zip(SEVERITY, severity(masks), strict=True))
        self.rows.append({"pair_id": predicted.pair_id, **values})
        self.masks[predicted.pair_id] = imaging.encode_png(
            mask_pred.astype(np.uint8) * 255
        )
        self.curves.append(dice_at_thresholds(predicted.mask, prob))

    def threshold_curve(self, pair_ids: Container[str] | None = None) -> pd.DataFrame:
        """Mean Dice at each threshold, over the images named, by default over all."""
        curves = np.stack(
            [
                curve
                for row, curve in zip(self.rows, self.curves, strict=True)
                if pair_ids is None or row["pair_id"] in pair_ids
            ]
        )
        defined = np.isfinite(curves)
        means = np.where(defined, curves, 0).sum(0) / np.maximum(defined.sum(0), 1)
        means[~defined.any(0)] = np.nan
        return pd.DataFrame({"threshold": THRESHOLDS, "dice": means})


def dice_at_thresholds(mask_true: Mask, prob: Float) -> NDArray[np.float64]:
    """Dice at each of `THRESHOLDS`, from one histogram; NaN without any truth."""
    if not mask_true.any():
        return np.full(len(THRESHOLDS), np.nan)
    # A pixel in bin k passes the first k thresholds.
    bins = np.searchsorted(THRESHOLDS.astype(np.float32), prob.ravel(), side="right")
    size = len(THRESHOLDS) + 1
    predicted = np.bincount(bins, minlength=size)[::-1].cumsum()[::-1][1:]
    inside = bins[mask_true.ravel()]
    overlap = np.bincount(inside, minlength=size)[::-1].cumsum()[::-1][1:]
    return np.asarray(2 * overlap / (predicted + inside.size), np.float64)


def summarise(per_image: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """The scalars of metrics.json from the table of images, the headline first.

    The table has pair_id, class_name, group and a column per metric, NaN where
    undefined; with sites, also site and is_headline: other images count in their site's
    figures alone. `num_undefined` counts images with foreground and any undefined
    metric: an empty prediction has no surface distance, which must not improve a mean.
    """
    has_empty = FALSE_ALARMS.name in present(per_image)
    per_image = counted(per_image)
    own = (
        per_image[per_image["is_headline"]] if "is_headline" in per_image else per_image
    )
    metrics = _summary(own, params, {m.name: m.statistics for m in METRICS.values()})
    if has_empty:
        metrics["num_without_foreground"] = int(own[FALSE_ALARMS.name].notna().sum())
    if SEVERITY[0] in own:
        true, predicted = (own.loc[own["dice"].notna(), name] for name in SEVERITY)
        metrics["severity"] = {"correlation": float(true.corr(predicted))}
    of_class = {m.name: m.class_statistics for m in METRICS.values()}
    metrics["by_class"] = {
        str(name): _by_metric(rows.dropna(axis="columns", how="all"), params, of_class)
        for name, rows in own.groupby("class_name")
    }
    if "site" in per_image:
        of_site = {m.name: m.site_statistics for m in METRICS.values()}
        metrics["by_site"] = {
            str(name): _summary(rows, params, of_site)
            for name, rows in per_image.groupby("site")
        }
    return metrics


def _summary(
    rows: pd.DataFrame, params: EvaluateParams, statistics: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Statistics by metric, and the counts."""
    return _by_metric(rows, params, statistics) | {
        "num_images": len(rows),
        "num_undefined": num_undefined(rows),
    }


def _by_metric(
    rows: pd.DataFrame, params: EvaluateParams, statistics: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    return {
        name: _statistics(rows, METRICS[name], statistics[name], params)
        for name in present(rows)
        if statistics[name] and name in rows
    }


def num_undefined(rows: pd.DataFrame) -> int:
    """The number of images with foreground and any undefined metric."""
    names = [name for name in present(rows) if not METRICS[name].is_optional]
    undefined = rows[names].isna().any(axis=1)
    if FALSE_ALARMS.name in rows:
        undefined &= rows[FALSE_ALARMS.name].isna()
    return int(undefined.sum())


def _statistics(
    rows: pd.DataFrame, metric: Metric, wanted: Sequence[str], params: EvaluateParams
) -> dict[str, float]:
    values = rows[metric.name]
    found = {name: STATISTICS[name](values) for name in wanted if name in STATISTICS}
    if INTERVAL[0] in wanted:
        low, high = confidence_interval(
            values.to_numpy(np.float64),
            rows["group"].to_numpy(object),
            resamples=params.bootstrap_resamples,
            seed=params.bootstrap_seed,
        )
        ends = np.clip((low, high), 0.0, metric.largest)
        found |= dict(zip(INTERVAL, ends, strict=True))
    return found


def columns(per_image: pd.DataFrame) -> list[str]:
    """The columns of per_image.csv, in its order."""
    others = [name for name in (*AREAS, *SEVERITY) if name in per_image]
    of_site = ["site", "is_headline"] if "site" in per_image else []
    return ["pair_id", "class_name", *present(per_image), *others, *of_site]


def pictured(per_image: pd.DataFrame, params: EvaluateParams) -> dict[str, str]:
    """The pairs to picture, each as worst, median, best or false alarm.

    Ties are broken by pair id, so that the same scores picture the same pairs.
    """
    ranked = counted(per_image).dropna(subset="dice").sort_values(["dice", "pair_id"])
    ids = list(ranked["pair_id"])
    middle = max(0, (len(ids) - params.overlays_median) // 2)
    alarms: list[str] = []
    if FALSE_ALARMS.name in per_image:
        alarms = sorted(per_image.loc[per_image[FALSE_ALARMS.name] > 0, "pair_id"])
    chosen = {
        "false alarm": alarms[: params.overlays_worst],
        "best": ids[len(ids) - min(params.overlays_best, len(ids)) :],
        "median": ids[middle : middle + params.overlays_median],
        "worst": ids[: params.overlays_worst],
    }
    return {pair_id: rank for rank, some in chosen.items() for pair_id in some}


def write_overlays(
    folder: Path,
    read: Callable[[Collection[str]], Iterable[Pair]],
    *,
    per_image: pd.DataFrame,
    masks: Mapping[str, bytes],
    params: EvaluateParams,
) -> None:
    """Writes one PNG per pair that `pictured` chooses, under the pair's name.

    `read` yields the pairs of some ids, and `masks` are the predicted ones as PNG.
    """
    ranks = pictured(per_image, params)
    scores = per_image.set_index("pair_id")
    with files.replacing(folder) as partial:
        partial.mkdir()
        for pair in read(ranks):
            pair_id, (image, mask) = pair.pair_id, pair.decoded(channels=1)
            score = scores.loc[pair_id]
            caption = f"{pair_id}  {ranks[pair_id]}  Dice {score['dice']:.3f}"
            if np.isfinite(score["hd95_px"]):  # an empty mask has no outline
                caption += f"  hd95 {score['hd95_px']:.1f} px"
            picture = overlay(
                image,
                mask_true=mask,
                mask_pred=imaging.decode_mask(masks[pair_id]),
                caption=caption,
            )
            name = f"{paths.slug(pair_id)}.png"
            (partial / name).write_bytes(imaging.encode_png(picture))


def headline(metrics: Mapping[str, Any]) -> str:
    """The main figures of metrics.json in one line."""
    of = metrics[HEADLINE.name]
    mean, low, high, p05, least = (
        number(HEADLINE.name, of[name]) for name in ("mean", *INTERVAL, "p05", "min")
    )
    num_empty = metrics.get("num_without_foreground", 0)
    text = (
        f"{HEADLINE.title} {mean} (95 % interval {low} to {high}) on "
        f"{metrics['num_images'] - num_empty} images; 5th percentile {p05}, lowest "
        f"{least}; {metrics['num_undefined']} undefined"
    )
    if num_empty:
        rate = metrics[FALSE_ALARMS.name]["mean"]
        text += f"; false alarms on {rate:.1%} of {num_empty} without foreground"
    return text

"""The registry of metrics: how each is computed, summarised, compared and written.

If both masks are empty, every metric is undefined (NaN); if one is, Dice and IoU are 0
and the distances undefined. Means are over defined values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.imaging import Mask, outline


class Masks:
    """A true and a predicted mask of one image, which every metric takes."""

    def __init__(self, *, mask_true: Mask, mask_pred: Mask) -> None:
        """Takes both masks.

        Args:
            mask_true: Reference mask, shape (H, W), bool.
            mask_pred: Predicted mask, same shape and dtype.

        Raises:
            ValueError: If shapes differ or a mask is not boolean.
        """
        if mask_true.dtype != np.bool_ or mask_pred.dtype != np.bool_:
            raise ValueError(
                "mask_true and mask_pred should be boolean, "
                f"received {mask_true.dtype} and {mask_pred.dtype}"
            )
        if mask_true.shape != mask_pred.shape or mask_true.ndim != 2:
            raise ValueError(
                "mask_true and mask_pred should have one shape (H, W), "
                f"received {mask_true.shape} and {mask_pred.shape}"
            )
        self.true, self.pred = mask_true, mask_pred

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """Foreground pixels of the truth, of the prediction, and of both at once."""
        both = self.true & self.pred
        true, pred, common = map(np.count_nonzero, (self.true, self.pred, both))
        return int(true), int(pred), int(common)

    @cached_property
    def surface_distances(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Distance of every outline pixel to the other mask's outline.

        Pixels from truth to prediction, (N,), and from prediction to truth, (M,);
        both empty if either mask is.
        """
        outline_true, outline_pred = outline(self.true), outline(self.pred)
        if not outline_true.any() or not outline_pred.any():
            empty = np.zeros(0, np.float32)
            return empty, empty
        # Far from both masks nothing is measured: the crop saves most of the work.
        left, top, width, height = cv2.boundingRect(
            (outline_true | outline_pred).view(np.uint8)
        )
        crop = np.s_[top : top + height, left : left + width]
        outline_true, outline_pred = outline_true[crop], outline_pred[crop]
        return (
            _distance_to(outline_pred)[outline_true],
            _distance_to(outline_true)[outline_pred],
        )


def dice(masks: Masks) -> float:
    """Dice coefficient, `2 |T and P| / (|T| + |P|)`.

    Returns:
        In [0, 1]; NaN if both masks are empty, 0 if one is.

    Example:
        >>> a = np.array([[True, True, False]])
        >>> b = np.array([[False, True, True]])
        >>> dice(Masks(mask_true=a, mask_pred=b))
        0.5
    """
    true, pred, common = masks.sizes
    return 2 * common / (true + pred) if true + pred else float("nan")


def iou(masks: Masks) -> float:
    """Intersection over union, `|T and P| / |T or P|`; empty masks as in `dice`.

    Example:
        >>> a = np.array([[True, True, False]])
        >>> b = np.array([[False, True, True]])
        >>> round(iou(Masks(mask_true=a, mask_pred=b)), 4)
        0.3333
    """
    true, pred, common = masks.sizes
    union = true + pred - common
    return common / union if union else float("nan")


def hd95(masks: Masks) -> float:
    """95th-percentile symmetric Hausdorff distance between two mask outlines.

    The larger of the two directed 95th percentiles (linear interpolation).

    Returns:
        Pixels, >= 0; NaN if either mask is empty.

    Source: Huttenlocher et al., 1993; outline pixels as in MONAI.
    """
    to_pred, to_true = masks.surface_distances
    if not len(to_pred):
        return float("nan")
    return float(max(np.percentile(to_pred, 95), np.percentile(to_true, 95)))


def assd(masks: Masks) -> float:
    """Average symmetric surface distance: mean over the pixels of both outlines.

    Returns:
        Pixels, >= 0; NaN if either mask is empty.
    """
    to_pred, to_true = masks.surface_distances
    if not len(to_pred):
        return float("nan")
    total = float(to_pred.sum(dtype=np.float64) + to_true.sum(dtype=np.float64))
    return total / (len(to_pred) + len(to_true))


# A summary over images, NaN left out, by the last part of its name in metrics.json.
STATISTICS: dict[str, Callable[["pd.Series[float]"], float]] = {
    "mean": lambda values: float(values.mean()),
    "median": lambda values: float(values.median()),
    "p05": lambda values: float(values.quantile(0.05)),
    "min": lambda values: float(values.min()),
}
INTERVAL = ("ci_low", "ci_high")  # of the mean, by `bootstrap_interval`


@dataclass(frozen=True)
class Metric:
    """A number per image: how it is computed, summarised, compared and written.

    Its `name` is the column of per_image.csv and the first part of the names in
    metrics.json, such as `dice.mean`. Adding one to `METRICS` adds it everywhere.
    """

    name: str
    title: str  # for readers
    unit: str  # "" or px
    higher_is_better: bool
    digits: int  # after the point, for readers
    score: Callable[[Masks], float]  # NaN where undefined
    statistics: tuple[str, ...]  # of `STATISTICS` and `INTERVAL`


_OVERLAP = ("mean", *INTERVAL, "median", "p05", "min")
METRICS = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "", True, 4, dice, _OVERLAP),
        Metric("iou", "IoU", "", True, 4, iou, _OVERLAP),
        Metric(
            *("hd95_px", "95th percentile of surface distance", "px", False, 2),
            *(hd95, ("mean",)),
        ),
        Metric("assd_px", "mean surface distance", "px", False, 2, assd, ("mean",)),
    )
}
HEADLINE = METRICS["dice"]
# Whole numbers of metrics.json, and whether more is better; None says neither.
COUNTS: dict[str, bool | None] = {"num_undefined": False, "num_images": None}


def metric_of(name: str) -> Metric | None:
    """The metric of a name in metrics.json; None for a count or an unknown one.

    Example:
        >>> metric_of("by_class.COVID.dice.mean").title
        'Dice'
    """
    return next((METRICS[p] for p in name.split(".")[-2:] if p in METRICS), None)


def higher_is_better(name: str) -> bool | None:
    """Direction of a value of metrics.json; None where it has none."""
    metric = metric_of(name)
    return (
        COUNTS.get(name.split(".")[-1]) if metric is None else metric.higher_is_better
    )


def order(name: str) -> tuple[bool, int, int, str]:
    """Sort key of names in metrics.json: the headline first, parts of it last."""
    *_, first, last = f".{name}".split(".")
    names, statistics = [*METRICS, *COUNTS], [*_OVERLAP]
    key = first if first in METRICS else last
    return (
        name.startswith("by_"),
        names.index(key) if key in names else len(names),
        statistics.index(last) if last in statistics else len(statistics),
        name,
    )


def number(name: str, value: object) -> str:
    """A value of metrics.json for readers, with the digits of its metric.

    Example:
        >>> number("dice.mean", 0.97586), number("hd95_px.mean", None)
        ('0.9759', 'undefined')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "undefined"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not a number"
    return f"{value:,.{_digits(name)}f}"


def signed(name: str, value: float) -> str:
    """A difference for readers, with a true minus sign; 0 has no sign."""
    text = f"{value:+,.{_digits(name)}f}"
    if not float(text.replace(",", "")):
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def _digits(name: str) -> int:
    metric = metric_of(name)
    if metric is not None:
        return metric.digits
    return 0 if name.split(".")[-1] in COUNTS else 4


def bootstrap_interval(
    values: NDArray[np.float64],
    groups: NDArray[np.object_],
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling whole groups.

    Images of one patient, and copies, are not independent: they are drawn together.

    Args:
        values: (N,), NaN where undefined.
        groups: (N,) group of each value.
        resamples: Number of bootstrap samples.
        seed: Of the draw.

    Returns:
        Low and high end; NaN if no value is defined.
    """
    defined = np.isfinite(values)
    if not defined.any():
        return float("nan"), float("nan")
    _, index = np.unique(groups[defined].astype(str), return_inverse=True)
    sums = np.bincount(index, weights=values[defined])
    counts = np.bincount(index)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 256):  # bounds memory for any number of groups
        size = (min(256, resamples - start), len(sums))
        drawn = generator.integers(0, len(sums), size=size)
        means[start : start + 256] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _distance_to(edge: Mask) -> NDArray[np.float32]:
    """Euclidean distance of every pixel to the nearest pixel of an outline."""
    background = np.where(edge, 0, 1).astype(np.uint8)
    distances = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)

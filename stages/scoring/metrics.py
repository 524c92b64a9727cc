"""The registry of metrics: how each is computed, summarised, compared and written.

If both masks are empty, overlap and distances are undefined (NaN); if one is, Dice and
IoU are 0 and the distances undefined. Means are over defined values, and `counted`
leaves images whose truth is empty to the false alarms.
"""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.special import stdtrit

from stages.core.imaging import Mask, Spacing, outline

Distances = tuple[NDArray[np.floating], NDArray[np.floating]]


class Masks:
    """A true and a predicted mask of one image, which every metric takes."""

    def __init__(
        self,
        *,
        mask_true: Mask,
        mask_pred: Mask,
        spacing: Spacing | None = None,
        region: Mask | None = None,
    ) -> None:
        """Takes both masks, (H, W) bool, and the region of which they are a part.

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
        self.spacing, self.region = spacing, region

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """Foreground pixels of the truth, of the prediction, and of both at once."""
        both = self.true & self.pred
        true, pred, common = map(np.count_nonzero, (self.true, self.pred, both))
        return int(true), int(pred), int(common)

    @cached_property
    def surface_distances(self) -> Distances:
        """Distance of every outline pixel to the other mask's outline, in pixels.

        From truth to prediction, (N,), and from prediction to truth, (M,); both empty
        if either mask is.
        """
        return self._surface_distances((1.0, 1.0))

    @cached_property
    def surface_distances_mm(self) -> Distances:
        """Likewise in millimetres; empty without a spacing."""
        if self.spacing is None:
            return np.zeros(0), np.zeros(0)
        row, column = self.spacing
        if row == column:
            to_pred, to_true = self.surface_distances
            return to_pred * row, to_true * row
        return self._surface_distances(self.spacing)

    def _surface_distances(self, spacing: Spacing) -> Distances:
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
            _distance_to(outline_pred, spacing)[outline_true],
            _distance_to(outline_true, spacing)[outline_pred],
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
    """Intersection over union, `|T and P| / |T or P|`; empty masks as in `dice`."""
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
    return _hd95(masks.surface_distances)


def hd95_mm(masks: Masks) -> float:
    """`hd95_px` in millimetres, of images with a pixel spacing."""
    return _hd95(masks.surface_distances_mm)


def _hd95(distances: Distances) -> float:
    if not len(distances[0]):
        return float("nan")
    return float(max(np.percentile(way, 95) for way in distances))


def assd(masks: Masks) -> float:
    """Average symmetric surface distance: mean over the pixels of both outlines.

    Returns:
        Pixels, >= 0; NaN if either mask is empty.
    """
    return _assd(masks.surface_distances)


def assd_mm(masks: Masks) -> float:
    """`assd_px` in millimetres, of images with a pixel spacing."""
    return _assd(masks.surface_distances_mm)


def _assd(distances: Distances) -> float:
    if not len(distances[0]):
        return float("nan")
    total = sum(float(way.sum(dtype=np.float64)) for way in distances)
    return total / sum(map(len, distances))


def false_alarms(masks: Masks) -> float:
    """1 if foreground is found where there is none, else 0; the mean is a rate."""
    true, pred, _ = masks.sizes
    return float(pred > 0) if not true else float("nan")


def severity(masks: Masks) -> tuple[float, float]:
    """Share of the region that is foreground, true and predicted; NaN without one.

    Source: Tahir et al., 2021 (the share of the lungs that is infected).
    """
    if masks.region is None or not masks.region.any():
        return float("nan"), float("nan")
    return (
        float(masks.true[masks.region].mean()),
        float(masks.pred[masks.region].mean()),
    )


def severity_error(masks: Masks) -> float:
    """Absolute difference of both values of `severity`."""
    true, pred = severity(masks)
    return abs(true - pred)


# A summary over images, NaN left out, by the last part of its name in metrics.json.
STATISTICS: dict[str, Callable[["pd.Series[float]"], float]] = {
    "mean": lambda values: float(values.mean()),
    "median": lambda values: float(values.median()),
    "p05": lambda values: float(values.quantile(0.05)),
    "min": lambda values: float(values.min()),
}
INTERVAL = ("ci_low", "ci_high")  # of the mean, by `confidence_interval`


@dataclass(frozen=True)
class Metric:
    """A number per image: how it is computed, summarised, compared and written.

    Its `name` is the column of per_image.csv and the first part of the names in
    metrics.json, such as `dice.mean`. Adding one to `METRICS` adds it everywhere.
    """

    name: str
    title: str  # for readers
    score: Callable[[Masks], float]  # NaN where undefined
    _: KW_ONLY
    unit: str = ""  # px, mm, or "" for a share
    higher_is_better: bool = False
    digits: int = 4  # after the point, for readers
    statistics: tuple[str, ...] = ("mean",)  # of `STATISTICS` and `INTERVAL`
    largest: float = math.inf  # possible value
    site_statistics: tuple[str, ...] = ()  # of each site apart
    class_statistics: tuple[str, ...] = ()  # likewise of each class
    is_optional: bool = False  # left out where no image has it defined


_HEADLINE = ("mean", *INTERVAL, "median", "p05", "min")
METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "dice",
            "Dice",
            dice,
            higher_is_better=True,
            statistics=_HEADLINE,
            largest=1.0,
            site_statistics=("mean", *INTERVAL, "p05"),
            class_statistics=("mean",),
        ),
        Metric("iou", "IoU", iou, higher_is_better=True, largest=1.0),
        Metric(
            "hd95_px",
            "95th percentile of surface distance",
            hd95,
            unit="px",
            digits=2,
            site_statistics=("mean",),
        ),
        Metric("assd_px", "mean surface distance", assd, unit="px", digits=2),
        Metric(
            "hd95_mm",
            "95th percentile of surface distance",
            hd95_mm,
            unit="mm",
            digits=2,
            site_statistics=("mean",),
            is_optional=True,
        ),
        Metric(
            "assd_mm",
            "mean surface distance",
            assd_mm,
            unit="mm",
            digits=2,
            is_optional=True,
        ),
        Metric(
            "false_alarms",
            "false alarms",
            false_alarms,
            statistics=("mean", *INTERVAL),
            largest=1.0,
            site_statistics=("mean",),
            class_statistics=("mean",),
            is_optional=True,
        ),
        Metric(
            "severity_error",
            "error of the share of the region",
            severity_error,
            largest=1.0,
            is_optional=True,
        ),
    )
}
HEADLINE = METRICS["dice"]
FALSE_ALARMS = METRICS["false_alarms"]
# Other numbers of metrics.json: whether more is better (None: neither), and digits.
OTHERS: dict[str, tuple[bool | None, int]] = {
    "correlation": (True, 4),
    "num_undefined": (False, 0),
    "num_without_foreground": (None, 0),
    "num_images": (None, 0),
}


def present(table: pd.DataFrame) -> list[str]:
    """The metrics of a table of images: all but the optional that none has defined."""
    return [
        name
        for name, metric in METRICS.items()
        if not metric.is_optional or (name in table and table[name].notna().any())
    ]


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """A table of images in which only values are defined that enter a summary.

    Images whose truth is empty count as false alarms or not, and in nothing else: their
    Dice is 0 for any false alarm and undefined without one, whatever the model finds
    where there is something to find.
    """
    if FALSE_ALARMS.name not in table:
        return table
    has_foreground = table[FALSE_ALARMS.name].isna()
    others = [n for n in present(table) if n != FALSE_ALARMS.name]
    return table.assign(**{n: table[n].where(has_foreground) for n in others})


def metric_of(name: str) -> Metric | None:
    """The metric of a name in metrics.json; None for a count or an unknown one.

    Example:
        >>> metric_of("by_class.COVID.dice.mean").title
        'Dice'
    """
    return next((METRICS[p] for p in name.split(".")[-2:] if p in METRICS), None)


def higher_is_better(name: str) -> bool | None:
    """Direction of a value of metrics.json; None where it has none."""
    return _direction_and_digits(name)[0]


def _direction_and_digits(name: str) -> tuple[bool | None, int]:
    if metric := metric_of(name):
        return metric.higher_is_better, metric.digits
    return OTHERS.get(name.split(".")[-1], (None, 4))


def order(name: str) -> tuple[bool, int, int, str]:
    """Sort key of names in metrics.json: the headline first, parts of it last."""
    *_, first, last = f".{name}".split(".")
    names, statistics = [*METRICS, *OTHERS], [*_HEADLINE]
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
    return f"{value:,.{_direction_and_digits(name)[1]}f}"


def signed(name: str, value: float) -> str:
    """A difference for readers, with a true minus sign; 0 has no sign."""
    text = f"{value:+,.{_direction_and_digits(name)[1]}f}"
    if not float(text.replace(",", "")):
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def confidence_interval(
    values: NDArray[np.float64],
    groups: NDArray[np.object_],
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of the mean over images that belong to groups.

    Images of one patient, and copies, are not independent: groups are the sample. Each
    end is the outer one of two intervals: Student's t with the groups' standard error,
    which holds for few groups, and the bootstrap-t over groups, which holds for skewed
    values such as Dice. Simulated, they cover the mean in 93 to 97 % of samples of 5,
    12 and 68 groups; percentiles of bootstrap means cover 80, 88 and 93 %.

    Args:
        values: (N,), NaN where undefined.
        groups: (N,) group of each value.
        resamples: Number of bootstrap samples.
        seed: Of the draw.

    Returns:
        Low and high end; NaN with fewer than 2 groups.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12;
    standard error of a ratio as in Cochran, Sampling Techniques, 1977, section 6.4.
    """
    defined = np.isfinite(values)
    _, index = np.unique(groups[defined].astype(str), return_inverse=True)
    sums = np.bincount(index, values[defined]).astype(np.float64)
    counts = np.bincount(index)
    if len(sums) < 2:
        return float("nan"), float("nan")
    mean, error = (float(v[0]) for v in _mean_and_error(sums[None], counts[None]))
    generator = np.random.default_rng(seed)
    studentised = []
    for start in range(0, resamples, 256):  # bounds memory for any number of groups
        size = (min(256, resamples - start), len(sums))
        drawn = generator.integers(0, len(sums), size=size)
        means, errors = _mean_and_error(sums[drawn], counts[drawn])
        spread = errors > 1e-12  # not one group drawn again and again
        studentised.append((means[spread] - mean) / errors[spread])
    pivots = np.concatenate([*studentised, [0.0]])
    low, high = np.percentile(pivots, [2.5, 97.5])
    reach = float(stdtrit(len(sums) - 1, 0.975))
    below, above = max(reach, float(high)), max(reach, -float(low))
    return mean - below * error, mean + above * error


def _mean_and_error(
    sums: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over images and its standard error, from (samples, groups)."""
    total, num = counts.sum(1), sums.shape[1]
    mean = sums.sum(1) / total
    residuals = sums - mean[:, None] * counts
    variance = num / (num - 1) * (residuals**2).sum(1) / total**2
    return mean, np.sqrt(variance)


def _distance_to(edge: Mask, spacing: Spacing) -> NDArray[np.floating]:
    """Euclidean distance of every pixel to the nearest pixel of an outline."""
    if spacing != (1.0, 1.0):
        return np.asarray(distance_transform_edt(~edge, sampling=spacing))
    background = np.where(edge, 0, 1).astype(np.uint8)
    distances = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)

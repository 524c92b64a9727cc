"""Overlap and surface distance of two masks, in NumPy; and bootstrap intervals.

Written down once: both masks empty leaves every metric undefined (NaN); one empty
gives `dice = iou = 0` and undefined distances. Means are over defined values.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.core.imaging import Mask, outline


def dice(*, mask_true: Mask, mask_pred: Mask) -> float:
    """Dice coefficient of two masks.

    `2 |T and P| / (|T| + |P|)`

    Args:
        mask_true: Reference mask, shape (H, W), bool.
        mask_pred: Predicted mask, same shape and dtype.

    Returns:
        In [0, 1]; NaN if both masks are empty, 0 if one is.

    Raises:
        ValueError: If shapes differ or a mask is not boolean.

    Example:
        >>> a = np.array([[True, True, False]])
        >>> b = np.array([[False, True, True]])
        >>> dice(mask_true=a, mask_pred=b)
        0.5
    """
    _check(mask_true, mask_pred)
    total = int(np.count_nonzero(mask_true)) + int(np.count_nonzero(mask_pred))
    if total == 0:
        return float("nan")
    return 2 * int(np.count_nonzero(mask_true & mask_pred)) / total


def iou(*, mask_true: Mask, mask_pred: Mask) -> float:
    """Intersection over union, `|T and P| / |T or P|`; args and errors as `dice`.

    Example:
        >>> a = np.array([[True, True, False]])
        >>> b = np.array([[False, True, True]])
        >>> round(iou(mask_true=a, mask_pred=b), 4)
        0.3333
    """
    _check(mask_true, mask_pred)
    union = int(np.count_nonzero(mask_true | mask_pred))
    if union == 0:
        return float("nan")
    return int(np.count_nonzero(mask_true & mask_pred)) / union


def surface_distances(
    *, mask_true: Mask, mask_pred: Mask
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance of every outline pixel to the other mask's outline.

    Args:
        mask_true: Reference mask, shape (H, W), bool.
        mask_pred: Predicted mask, same shape and dtype.

    Returns:
        Pixels from truth to prediction, (N,), and from prediction to truth, (M,);
        both empty if either mask is.

    Raises:
        ValueError: If shapes differ or a mask is not boolean.
    """
    _check(mask_true, mask_pred)
    outline_true, outline_pred = outline(mask_true), outline(mask_pred)
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


def hd95(*, mask_true: Mask, mask_pred: Mask) -> float:
    """95th-percentile symmetric Hausdorff distance between two mask outlines.

    The larger of the two directed 95th percentiles (linear interpolation).

    Args:
        mask_true: Reference mask, shape (H, W), bool.
        mask_pred: Predicted mask, same shape and dtype.

    Returns:
        Pixels, >= 0; NaN if either mask is empty.

    Raises:
        ValueError: If shapes differ or a mask is not boolean.

    Source: Huttenlocher et al., 1993; outline pixels as in MONAI.
    """
    return hd95_and_assd(mask_true=mask_true, mask_pred=mask_pred)[0]


def assd(*, mask_true: Mask, mask_pred: Mask) -> float:
    """Average symmetric surface distance: mean over the pixels of both outlines.

    Args, errors and empty masks as `hd95`.
    """
    return hd95_and_assd(mask_true=mask_true, mask_pred=mask_pred)[1]


def hd95_and_assd(*, mask_true: Mask, mask_pred: Mask) -> tuple[float, float]:
    """Both surface metrics from one pass over the distances, in pixels."""
    to_pred, to_true = surface_distances(mask_true=mask_true, mask_pred=mask_pred)
    if not len(to_pred):
        return float("nan"), float("nan")
    worst = max(np.percentile(to_pred, 95), np.percentile(to_true, 95))
    total = float(to_pred.sum(dtype=np.float64) + to_true.sum(dtype=np.float64))
    return float(worst), total / (len(to_pred) + len(to_true))


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


def _check(mask_true: Mask, mask_pred: Mask) -> None:
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


def _distance_to(edge: Mask) -> NDArray[np.float32]:
    """Euclidean distance of every pixel to the nearest pixel of an outline."""
    background = np.where(edge, 0, 1).astype(np.uint8)
    distances = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)

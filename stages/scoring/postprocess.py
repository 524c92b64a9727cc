"""From probabilities to a mask, for `evaluate`, `score`, `predict` and `serve`."""

import cv2
import numpy as np

from stages.core.imaging import Float, Mask


def mask_of(prob: Float, *, threshold: float, keep_components: int) -> Mask:
    """Pixels at least as probable as the threshold, in the largest regions, (H, W)."""
    return largest_components(prob >= threshold, keep_components)


def largest_components(mask: Mask, count: int) -> Mask:
    """The `count` largest 8-connected regions, and any as large; 0 keeps all.

    Example:
        >>> mask = np.array([[True, True, False, True]])
        >>> largest_components(mask, 1).tolist()
        [[True, True, False, False]]
    """
    if not count:
        return mask
    num_labels, labels, statistics, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    if num_labels - 1 <= count:
        return mask
    sizes = statistics[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0  # background
    least = np.sort(sizes)[-count]
    return np.asarray((sizes >= least)[labels], bool)

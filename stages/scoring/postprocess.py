"""From probabilities to a mask, once for all who make one.

`evaluate`, `score`, `predict` and `serve` use this.
"""

import cv2
import numpy as np

from stages.core.imaging import Float, Mask


def mask_of(prob: Float, *, threshold: float, keep_components: int) -> Mask:
    """The mask that a probability map stands for.

    Args:
        prob: (H, W), at the size the mask is wanted in.
        threshold: A pixel at least this probable is foreground.
        keep_components: So many regions are kept, the largest; 0 keeps all.
    """
    return largest_components(prob >= threshold, keep_components)


def largest_components(mask: Mask, count: int) -> Mask:
    """The `count` largest 8-connected regions, and any as large as the last of them.

    Args:
        mask: (H, W).
        count: 0 keeps all.

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
    sizes[0] = 0  # what is no region
    least = np.sort(sizes)[-count]
    return np.asarray((sizes >= least)[labels], bool)

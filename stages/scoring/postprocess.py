"""The regions of a predicted mask that are kept, wherever one is made."""

import cv2
import numpy as np

from stages.core.imaging import Mask


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

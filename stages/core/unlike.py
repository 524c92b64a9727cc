"""Whether an image, or what was found in it, is unlike all that a model was shown."""

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.core.imaging import Grey, Mask, to_channels

# What 517 radiographs and phantoms of the training sets hold, with room on both sides:
# lungs are 10 to 57 % of the picture, always in two regions of at least 1 %; greys have
# a mean of 65 to 186 and a standard deviation of 13 to 90, and no colour at all.
AREA_FRACTION = (0.07, 0.65)
REGION_FRACTION = 0.01
LUNGS = 2
GREY_MEAN = (45.0, 205.0)
CONTRAST_MIN = 12.0
COLOUR_MAX = 8.0
# Below it, the pixels called lung are nearly as probably none.
CONFIDENCE_MIN = 0.6


def image(pixels: NDArray[np.generic], greys: Grey) -> list[str]:
    """What about an image is unlike any radiograph of the training data.

    Args:
        pixels: As decoded.
        greys: The same as 8 bits, one or three channels.
    """
    found = []
    mean, contrast = float(greys.mean()), float(greys.std())
    if contrast < CONTRAST_MIN:
        found.append(f"low contrast ({contrast:.1f} of 255)")
    if not GREY_MEAN[0] <= mean <= GREY_MEAN[1]:
        word = "dark" if mean < GREY_MEAN[0] else "bright"
        found.append(f"very {word} (mean {mean:.0f} of 255)")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        colour = to_channels(pixels, 3).astype(np.int16)
        if float((colour.max(2) - colour.min(2)).mean()) > COLOUR_MAX:
            found.append("in colour")
    return found


def mask(predicted: Mask, confidence: float) -> list[str]:
    """What about a prediction is unlike any pair of lungs of the training data.

    Args:
        predicted: Predicted mask, (H, W).
        confidence: Mean probability of the pixels called lung; NaN if there are none.
    """
    found = []
    if not predicted.any():
        return ["no lung found"]
    area = float(predicted.mean())
    if not AREA_FRACTION[0] <= area <= AREA_FRACTION[1]:
        word = "small" if area < AREA_FRACTION[0] else "large"
        found.append(f"lungs very {word} ({area:.0%} of the image)")
    _, _, statistics, _ = cv2.connectedComponentsWithStats(
        predicted.astype(np.uint8), connectivity=8
    )
    large = statistics[1:, cv2.CC_STAT_AREA] >= REGION_FRACTION * predicted.size
    if int(large.sum()) != LUNGS:
        found.append(f"{int(large.sum())} regions instead of {LUNGS}")
    if confidence < CONFIDENCE_MIN:
        found.append(f"unsure (mean confidence {confidence:.2f})")
    return found

"""Whether an image, or what was found in it, is unlike all that a model was shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.core.imaging import Grey, Mask, to_channels

Range = tuple[float, float]

# For models that do not say what they were shown: what 517 radiographs and phantoms
# hold. Lungs are 10 to 57 % of the picture; greys have a mean of 65 to 186 and a
# standard deviation of 13 to 90.
LUNGS = {
    "image_mean": (65.0, 186.0),
    "image_contrast": (13.0, 90.0),
    "foreground_fraction": (0.1, 0.57),
}
# A little more than the training set's own range is still like it: how much nearer the
# end of the scale a value may be, as a factor. The ends are those of 8-bit greys, of
# their standard deviation, and of a share.
ROOM = 1.3
ENDS = {"image_mean": 255.0, "image_contrast": 127.5, "foreground_fraction": 1.0}
# Smaller regions are crumbs. Lungs are always two larger ones.
REGION_FRACTION = 0.01
COLOUR_MAX = 8.0
# Below it, the pixels called foreground are nearly as probably none.
CONFIDENCE_MIN = 0.6


@dataclass(frozen=True)
class Usual:
    """What is usual in the data that a model learnt from."""

    mean: Range  # of 8-bit greys
    contrast: Range  # their standard deviation
    area: Range  # foreground, as a share of the image
    regions: tuple[int, int]  # that are no crumbs
    is_grey: bool
    noun: str  # what is found


def usual(
    ranges: Mapping[str, Any], *, is_of_lungs: bool, is_grey: bool
) -> Usual | None:
    """Widens the ranges of a training set by some room.

    Args:
        ranges: Least and largest of each fact, under the names of the quality report.
        is_of_lungs: Then there are two, and what `ranges` lacks is known.
        is_grey: Whether colour is unusual.

    Returns:
        None if a range is missing that nobody knows.
    """
    known = dict(LUNGS) if is_of_lungs else {}
    for name, found in ranges.items():
        if _is_range(found):
            known[name] = (float(found[0]), float(found[1]))
    if not known.keys() >= ENDS.keys():
        return None
    mean, contrast, area = (_with_room(known[name], end) for name, end in ENDS.items())
    most = int(known.get("num_components", (0, 1))[1])
    return Usual(
        mean,
        contrast,
        area,
        regions=(2, 2) if is_of_lungs else (0, most),
        is_grey=is_grey,
        noun="lung" if is_of_lungs else "foreground",
    )


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and np.isfinite(v) for v in value)
    )


def _with_room(of_data: Range, end: float) -> Range:
    least, most = of_data
    return least / ROOM, end - (end - most) / ROOM


def image(pixels: NDArray[np.generic], greys: Grey, usual: Usual) -> list[str]:
    """What about an image is unlike any image of the training data.

    Args:
        pixels: As decoded.
        greys: The same as 8 bits, one or three channels.
        usual: What the model learnt from.
    """
    found = []
    mean, contrast = _greys(greys)
    if not usual.contrast[0] <= contrast <= usual.contrast[1]:
        word = "low" if contrast < usual.contrast[0] else "high"
        found.append(f"{word} contrast ({contrast:.1f} of 255)")
    if not usual.mean[0] <= mean <= usual.mean[1]:
        word = "dark" if mean < usual.mean[0] else "bright"
        found.append(f"very {word} (mean {mean:.0f} of 255)")
    if usual.is_grey and pixels.ndim == 3 and pixels.shape[2] >= 3:
        colour = to_channels(pixels, 3).astype(np.int16)
        if float((colour.max(2) - colour.min(2)).mean()) > COLOUR_MAX:
            found.append("in colour")
    return found


def _greys(greys: Grey) -> Range:
    """Mean and standard deviation of an image's greys, as validate measures them."""
    mean, deviation = cv2.meanStdDev(to_channels(greys, 1))
    return float(mean[0, 0]), float(deviation[0, 0])


def mask(predicted: Mask, confidence: float, usual: Usual) -> list[str]:
    """What about a prediction is unlike any mask of the training data.

    Args:
        predicted: Predicted mask, (H, W).
        confidence: Mean probability of the pixels in it; NaN if there are none.
        usual: What the model learnt from.
    """
    if not predicted.any():
        return [f"no {usual.noun} found"] if usual.area[0] > 0 else []
    found = []
    area = float(predicted.mean())
    if not usual.area[0] <= area <= usual.area[1]:
        word = "little" if area < usual.area[0] else "much"
        found.append(f"very {word} {usual.noun} ({area:.0%} of the image)")
    _, _, statistics, _ = cv2.connectedComponentsWithStats(
        predicted.astype(np.uint8), connectivity=8
    )
    sizes = statistics[1:, cv2.CC_STAT_AREA]
    large = int((sizes >= REGION_FRACTION * predicted.size).sum())
    least, most = usual.regions
    if not least <= large <= most:
        expected = f"{most}" if least == most else f"at most {most}"
        plural = "" if large == 1 else "s"
        found.append(f"{large} region{plural} instead of {expected}")
    if confidence < CONFIDENCE_MIN:
        found.append(f"unsure (mean confidence {confidence:.2f})")
    return found

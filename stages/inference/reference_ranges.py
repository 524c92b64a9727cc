"""Warns of images and predicted masks that differ from a model's training data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stages.core.imaging import Grey, Mask, Pixels, to_channels
from stages.inference import orientation

Range = tuple[float, float]

# For models whose file carries no ranges: those of 517 radiographs and phantoms. Lungs
# are 10 to 57 % of the picture; greys have a mean of 65 to 186 and a standard deviation
# of 13 to 90.
LUNGS = {
    "image_mean": (65.0, 186.0),
    "image_contrast": (13.0, 90.0),
    "foreground_fraction": (0.1, 0.57),
}
# Values a little outside the training range are still accepted: the distance to the end
# of the scale may shrink by this factor.
TOLERANCE = 1.3
# Ends of the scales: 8-bit greys, their standard deviation, a share.
ENDS = {"image_mean": 255.0, "image_contrast": 127.5, "foreground_fraction": 1.0}
# Regions below this share of the image are not counted.
MIN_REGION_FRACTION = 0.02
# Mean spread between the colours of a pixel, of 255, up to which an image is grey.
MAX_COLOUR = 8.0
# Below it, foreground is little more probable than background.
MIN_CONFIDENCE = 0.6


@dataclass(frozen=True)
class ReferenceRanges:
    """The ranges of a model's training data, widened by some tolerance.

    Attributes:
        mean: Mean of an image's 8-bit greys.
        contrast: Their standard deviation.
        area: Foreground, as a share of the image.
        regions: Number of regions of a mask, small ones not counted.
        is_grey: Whether colour is unusual.
        noun: The name of the foreground.
    """

    mean: Range
    contrast: Range
    area: Range
    regions: tuple[int, int]
    is_grey: bool
    noun: str

    @classmethod
    def of(
        cls, ranges: Mapping[str, Any], *, is_of_lungs: bool, is_grey: bool
    ) -> "ReferenceRanges | None":
        """Widens the ranges of a training set, named as in the quality report.

        Masks of lungs have two regions, and known ranges where `ranges` has none.

        Returns:
            None if a range is missing that is not known either.
        """
        known: dict[str, Range] = dict(LUNGS) if is_of_lungs else {}
        known |= {
            name: (float(found[0]), float(found[1]))
            for name, found in ranges.items()
            if _is_range(found)
        }
        if not known.keys() >= ENDS.keys():
            return None
        mean, contrast, area = (
            (known[name][0] / TOLERANCE, end - (end - known[name][1]) / TOLERANCE)
            for name, end in ENDS.items()
        )
        most = int(known.get("num_components", (0, 1))[1])
        return cls(
            mean,
            contrast,
            area,
            regions=(2, 2) if is_of_lungs else (0, most),
            is_grey=is_grey,
            noun="lung" if is_of_lungs else "foreground",
        )

    def of_image(self, pixels: Pixels, greys: Grey) -> list[str]:
        """Names what is unusual about a decoded image and its 8-bit form."""
        found = []
        mean, contrast = (
            float(value[0, 0]) for value in cv2.meanStdDev(to_channels(greys))
        )
        if not self.contrast[0] <= contrast <= self.contrast[1]:
            word = "low" if contrast < self.contrast[0] else "high"
            found.append(f"{word} contrast ({contrast:.1f} of 255)")
        if not self.mean[0] <= mean <= self.mean[1]:
            word = "dark" if mean < self.mean[0] else "bright"
            found.append(f"very {word} (mean {mean:.0f} of 255)")
        if self.noun == "lung" and (how := orientation.unusual(greys)):
            found.append(f"probably {how}")
        if self.is_grey and pixels.ndim == 3 and pixels.shape[2] >= 3:
            colour = to_channels(pixels, 3).astype(np.int16)
            if float((colour.max(2) - colour.min(2)).mean()) > MAX_COLOUR:
                found.append("in colour")
        return found

    def of_mask(self, predicted: Mask, confidence: float) -> list[str]:
        """Names what is unusual about a predicted mask and its mean probability."""
        if not predicted.any():
            return [f"no {self.noun} found"] if self.area[0] > 0 else []
        found = []
        area = float(predicted.mean())
        if not self.area[0] <= area <= self.area[1]:
            word = "little" if area < self.area[0] else "much"
            found.append(f"very {word} {self.noun} ({area:.0%} of the image)")
        _, _, statistics, _ = cv2.connectedComponentsWithStats(
            predicted.astype(np.uint8), connectivity=8
        )
        sizes = statistics[1:, cv2.CC_STAT_AREA]
        large = int((sizes >= MIN_REGION_FRACTION * predicted.size).sum())
        least, most = self.regions
        if not least <= large <= most:
            expected = f"{most}" if least == most else f"at most {most}"
            plural = "" if large == 1 else "s"
            found.append(f"{large} region{plural} instead of {expected}")
        if confidence < MIN_CONFIDENCE:
            found.append(f"unsure (mean confidence {confidence:.2f})")
        return found


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and np.isfinite(v) for v in value)
    )

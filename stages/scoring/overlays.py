"""Pictures of a prediction against the truth, for people."""

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.core import imaging
from stages.core.imaging import Grey, Mask

# Okabe and Ito's colours, told apart by colour-blind readers too. Blue, green, red.
TRUE_POSITIVE = (115, 158, 0)
FALSE_POSITIVE = (0, 94, 213)
FALSE_NEGATIVE = (233, 180, 86)
TRUTH = (66, 228, 240)
SIDE_PX = 384
BAR_PX = 22
LEGEND = (
    ("truth", TRUTH),
    ("found", TRUE_POSITIVE),
    ("too much", FALSE_POSITIVE),
    ("missed", FALSE_NEGATIVE),
)


def overlay(
    image: Grey, *, mask_true: Mask | None, mask_pred: Mask, caption: str
) -> NDArray[np.uint8]:
    """Draws a prediction over its radiograph, with a caption and a legend.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        mask_true: Reference mask of any size; None draws the prediction alone.
        mask_pred: Predicted mask of any size.
        caption: One line; what is not ASCII is shown escaped.

    Returns:
        (SIDE_PX + 2 BAR_PX, SIDE_PX, 3) uint8, blue first.
    """
    grey = imaging.resize_image(image, SIDE_PX, SIDE_PX)
    canvas = np.array(imaging.to_channels(grey, channels=3))
    pred = imaging.resize_mask(mask_pred, SIDE_PX, SIDE_PX)
    if mask_true is None:
        regions = [(pred, TRUE_POSITIVE)]
        line, colour = imaging.outline(pred), TRUE_POSITIVE
    else:
        true = imaging.resize_mask(mask_true, SIDE_PX, SIDE_PX)
        regions = [
            (true & pred, TRUE_POSITIVE),
            (pred & ~true, FALSE_POSITIVE),
            (true & ~pred, FALSE_NEGATIVE),
        ]
        line, colour = imaging.outline(true), TRUTH
    for region, tint in regions:
        weight = 0.22 if tint == TRUE_POSITIVE else 0.6
        mixed = canvas[region] * (1 - weight) + np.asarray(tint, np.float64) * weight
        canvas[region] = mixed.round().astype(np.uint8)
    canvas[line] = colour
    legend = LEGEND if mask_true is not None else LEGEND[1:2]
    return np.vstack([_caption(caption), canvas, _legend(legend)])


def _caption(text: str) -> NDArray[np.uint8]:
    bar = np.zeros((BAR_PX, SIDE_PX, 3), np.uint8)
    plain = text.encode("ascii", "backslashreplace").decode()
    _text(bar, plain, 6, (255, 255, 255))
    return bar


def _legend(entries: tuple[tuple[str, tuple[int, int, int]], ...]) -> NDArray[np.uint8]:
    bar = np.zeros((BAR_PX, SIDE_PX, 3), np.uint8)
    x = 6
    for word, colour in entries:
        cv2.rectangle(bar, (x, 6), (x + 10, 16), colour, -1)
        _text(bar, word, x + 15, (210, 210, 210))
        x += 25 + 8 * len(word)
    return bar


def _text(bar: NDArray[np.uint8], text: str, x: int, colour: tuple[int, ...]) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    (width, _), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1.0, (SIDE_PX - x - 4) / max(width, 1))  # a long name stays whole
    cv2.putText(bar, text, (x, 15), font, scale, colour, 1, cv2.LINE_AA)

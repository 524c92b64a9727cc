"""Thumbnails of pairs, as data URLs for a page."""

import base64
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.core import imaging
from stages.core.imaging import Grey
from stages.datasets.pairs import Pair, num_rows, read_shard, shard_paths
from stages.validate.facts import read_side

SIDE = 176  # largest side of a thumbnail, pixels
OUTLINE_BGR = (40, 190, 255)  # amber: visible on black, grey and white


def make(
    rows: Collection[int], ingested: Path, *, max_image_pixels: int
) -> dict[int, dict[str, str]]:
    """Makes the thumbnails of some pairs, by their position in shard order.

    Returns:
        Per position `image`, `mask` and `outlined` (the image with the outline of the
        mask) as data URLs; "" for a side that cannot be read.
    """
    pictures: dict[int, dict[str, str]] = {}
    start = 0
    for shard in shard_paths(ingested):
        end = start + num_rows(shard)
        if any(start <= row < end for row in rows):
            for row, pair in enumerate(read_shard(shard), start):
                if row in rows:
                    pictures[row] = _pictures(pair, max_image_pixels)
        start = end
    return pictures


def _pictures(pair: Pair, max_image_pixels: int) -> dict[str, str]:
    image, _ = read_side(pair.image, pair.image_path, max_image_pixels)
    mask, _ = read_side(pair.mask, pair.mask_path, max_image_pixels, is_mask=True)
    return {
        "image": "" if image is None else _url(_small(image)),
        "mask": "" if mask is None else _url(_small(mask, is_mask=True)),
        "outlined": (
            "" if image is None or mask is None else _url(_outlined(image, mask))
        ),
    }


def _small(pixels: Grey, *, is_mask: bool = False) -> Grey:
    """Shrinks to at most `SIDE` pixels per side."""
    height, width = pixels.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    method = cv2.INTER_NEAREST_EXACT if is_mask else cv2.INTER_AREA
    if is_mask:  # 1 can be foreground and must be visible
        pixels = pixels * np.uint8(255 // max(int(pixels.max()), 1))
    return np.asarray(cv2.resize(pixels, size, interpolation=method), np.uint8)


def _outlined(image: Grey, mask: Grey) -> NDArray[np.uint8]:
    """(H, W, 3): the image in grey with the outline of its mask."""
    picture = np.repeat(_small(image)[:, :, None], 3, axis=2)
    height, width = picture.shape[:2]
    edge = imaging.outline(imaging.resize_mask(mask != 0, height, width))
    picture[edge] = OUTLINE_BGR
    return picture


def _url(pixels: NDArray[np.uint8]) -> str:
    encoded = base64.b64encode(imaging.encode_png(pixels)).decode("ascii")
    return f"data:image/png;base64,{encoded}"

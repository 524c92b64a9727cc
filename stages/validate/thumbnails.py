"""Small pictures of pairs, as text to put into a page."""

import base64
from collections.abc import Collection, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import imaging
from stages.core.imaging import Grey
from stages.datasets.pairs import num_rows, read_shard, shard_paths
from stages.validate.facts import quiet_opencv, read_side

SIDE = 176  # of a thumbnail, pixels
_COLUMNS = ("image", "image_path", "mask", "mask_path")
OUTLINE_BGR = (40, 190, 255)  # amber: seen on black, grey and white


def make(
    rows: Collection[int], ingested: Path, *, max_image_pixels: int
) -> dict[int, dict[str, str]]:
    """Makes the thumbnails of some pairs; only shards that hold one are read.

    Args:
        rows: Places of the pairs in shard order: the index of the table of facts.
        ingested: Shards.
        max_image_pixels: As in `workers.measure`.

    Returns:
        Under each place `image`, `mask` and `outlined` (the image with the mask's
        outline), as data URLs; empty for what cannot be read.
    """
    pictures: dict[int, dict[str, str]] = {}
    start = 0
    for shard in shard_paths(ingested):
        wanted = sorted(row - start for row in rows if row >= start)
        size = num_rows(shard)
        for place, pair in _rows(shard, [row for row in wanted if row < size]):
            pictures[start + place] = _pictures(pair, max_image_pixels)
        start += size
    if len(pictures) < len(set(rows)):
        raise ValueError(f"{ingested} holds {start} pairs, asked for row {max(rows)}")
    return pictures


def _rows(shard: Path, wanted: list[int]) -> Iterator[tuple[int, pd.Series]]:
    """Yields some rows of a shard, with their places in it."""
    start = 0
    for frame in read_shard(shard, columns=_COLUMNS) if wanted else ():
        for place in wanted:
            if start <= place < start + len(frame):
                yield place, frame.iloc[place - start]
        start += len(frame)
        if start > wanted[-1]:
            return


def _pictures(pair: pd.Series, max_image_pixels: int) -> dict[str, str]:
    with quiet_opencv():
        image, _ = read_side(pair["image"], pair["image_path"], max_image_pixels)
        mask, _ = read_side(
            pair["mask"], pair["mask_path"], max_image_pixels, is_mask=True
        )
    return {
        "image": _url(None if image is None else _small(image)),
        "mask": _url(None if mask is None else _small(mask, is_mask=True)),
        "outlined": _url(
            None if image is None or mask is None else _outlined(image, mask)
        ),
    }


def _small(pixels: Grey, *, is_mask: bool = False) -> Grey:
    """At most `SIDE` pixels a side; nothing is enlarged."""
    height, width = pixels.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    method = cv2.INTER_NEAREST_EXACT if is_mask else cv2.INTER_AREA
    if is_mask:  # 1 can be foreground, and should be seen
        pixels = pixels * np.uint8(255 // max(int(pixels.max()), 1))
    return np.asarray(cv2.resize(pixels, size, interpolation=method), np.uint8)


def _outlined(image: Grey, mask: Grey) -> NDArray[np.uint8]:
    """(H, W, 3): the image in grey with the outline of its mask."""
    picture = np.repeat(_small(image)[:, :, None], 3, axis=2)
    height, width = picture.shape[:2]
    edge = imaging.outline(imaging.resize_mask(mask != 0, height, width))
    picture[edge] = OUTLINE_BGR
    return picture


def _url(pixels: NDArray[np.uint8] | None) -> str:
    if pixels is None:
        return ""
    encoded = base64.b64encode(imaging.encode_png(pixels)).decode("ascii")
    return f"data:image/png;base64,{encoded}"

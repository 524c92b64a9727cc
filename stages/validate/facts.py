"""What is true of each pair, not yet judged: decoded once, measured, hashed."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from stages.core import imaging
from stages.core.imaging import Grey, UnreadableImageError

_TEXT = ("pair_id", "class_name", "group", "given_split", "image_path", "mask_path")
# Facts of both sides, under `image_` and `mask_`; null where it cannot be read.
_SIDE = {
    "readable": pa.bool_(),  # null where there is no file at all
    "problem": pa.string(),  # why it cannot be read, else ""
    "format": pa.string(),  # by its first bytes, whatever its name says
    "named": pa.string(),  # the format its name promises
    "channels": pa.int32(),
    "bit_depth": pa.int32(),
    "has_alpha": pa.bool_(),
    "has_palette": pa.bool_(),
    "height": pa.int32(),
    "width": pa.int32(),
    "shape": pa.string(),  # 299x299
    "sha256": pa.string(),  # of the 8-bit grey pixels and their shape
}
SCHEMA = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in _TEXT],
        pa.field("problem", pa.string()),  # why ingest could not take the bytes
        pa.field("may_be_empty", pa.bool_()),  # whether an empty mask is no mistake
        pa.field("missing", pa.string()),  # image or mask for an orphan, else ""
        *[pa.field(f"image_{name}", kind) for name, kind in _SIDE.items()],
        pa.field("image_mean", pa.float64()),  # of 8-bit greys, 0 to 255
        pa.field("image_contrast", pa.float64()),  # their standard deviation
        pa.field("image_phash", pa.string()),  # 256 bits as hex
        *[pa.field(f"mask_{name}", kind) for name, kind in _SIDE.items()],
        pa.field("mask_values", pa.string()),  # 0,255
        pa.field("foreground_fraction", pa.float64()),
        pa.field("num_components", pa.int32()),
    ]
)

_EXTENSIONS = {"jpg": "jpeg", "jpe": "jpeg", "tif": "tiff", "dib": "bmp"}
_EXTENSIONS |= {"dcm": "png", "dicom": "png"}  # ingest stores their pixels as PNG
MASK_VALUES_SHOWN = 8
_HASH_SIDE = 64  # pixels that a perceptual hash looks at
_HASH_BITS = 256


def measure_rows(
    rows: list[dict[str, Any]], *, max_image_pixels: int
) -> list[dict[str, Any]]:
    """Measures pairs; nothing but their bytes and these rules decides the result.

    Args:
        rows: Pairs as a shard holds them, with all its columns.
        max_image_pixels: An image that declares more is left undecoded.

    Returns:
        The columns of `SCHEMA` for each; what is absent is null.
    """
    return [_measure_pair(row, max_image_pixels) for row in rows]


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows; `to_dict("records")` looks at each value and takes six times."""
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV prints nothing (it is in the facts) and starts no threads (we do)."""
    level, threads = cv2.utils.logging.getLogLevel(), cv2.getNumThreads()
    hush_opencv()
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
        cv2.setNumThreads(threads)


def hush_opencv() -> None:
    """As `quiet_opencv`, for good: a process's threads would undo each other's."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(1)


def phash(image: Grey) -> str:
    """Perceptual hash: signs of an image's 256 lowest frequencies against their median.

    Insensitive to size, brightness, contrast and compression. All arithmetic is in
    whole numbers, so that every machine gets the same bits.

    Args:
        image: (H, W) uint8.

    Returns:
        256 bits as 64 hexadecimal digits; all 0 for an image of one grey.
    """
    side = 2 * _HASH_SIDE
    if min(image.shape) > 4 * side:  # two neighbours no longer stand for all between
        image = imaging.resize_image(image, 2 * side, 2 * side)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR_EXACT)
    small = cv2.resize(small, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    basis, chosen = _cosines()
    frequencies = (basis @ small.astype(np.float64) @ basis.T).ravel()[chosen]
    middle = np.partition(frequencies, _HASH_BITS // 2)[_HASH_BITS // 2]
    return (
        np.packbits(frequencies >= middle if middle else frequencies > 0)
        .tobytes()
        .hex()
    )


@functools.cache
def _cosines() -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Cosines as whole numbers, and which of their products are lowest in frequency.

    The products stay under 2^53, where float64 adds whole numbers exactly.
    """
    order = np.arange(23)
    position = np.arange(_HASH_SIDE)
    angles = np.pi * order[:, None] * (2 * position[None] + 1) / (2 * _HASH_SIDE)
    rows, columns = np.meshgrid(order, order, indexing="ij")
    radius = (rows**2 + columns**2).ravel()
    # All but the mean, by distance from it; the sort is stable.
    chosen = np.argsort(radius, kind="stable")[1 : _HASH_BITS + 1]
    return np.round(np.cos(angles) * 2**14), chosen


def _measure_pair(row: dict[str, Any], max_image_pixels: int) -> dict[str, Any]:
    facts = {name: row[name] for name in (*_TEXT, "problem", "may_be_empty")}
    missing = [s for s in ("image", "mask") if row[s] is None and not row["problem"]]
    facts["missing"] = " and ".join(missing)
    image, found = read_side(row["image"], row["image_path"], max_image_pixels)
    facts |= {f"image_{name}": value for name, value in found.items()}
    if image is not None:
        mean, deviation = cv2.meanStdDev(image)
        facts["image_mean"] = round(float(mean[0, 0]), 6)
        facts["image_contrast"] = round(float(deviation[0, 0]), 6)
        facts["image_phash"] = phash(image)
    mask, found = read_side(
        row["mask"], row["mask_path"], max_image_pixels, is_mask=True
    )
    facts |= {f"mask_{name}": value for name, value in found.items()}
    if mask is not None:
        foreground = int(np.count_nonzero(mask))  # as `imaging.decode_mask` has it
        facts["mask_values"] = _values(mask, foreground)
        facts["foreground_fraction"] = round(foreground / mask.size, 6)
        facts["num_components"] = imaging.num_components(mask)
    return facts


def read_side(
    encoded: bytes | None, path: str, max_image_pixels: int, *, is_mask: bool = False
) -> tuple[Grey | None, dict[str, Any]]:
    """Decodes one side to 8-bit grey, if it can be, and says what it is.

    Args:
        encoded: The file; None if there is none.
        path: Its name, for the format it promises.
        max_image_pixels: An image that declares more is left undecoded.
        is_mask: Whether its values are labels, not grey values.

    Returns:
        (H, W) grey values or None, and the facts of `_SIDE`.
    """
    found: dict[str, Any] = {"problem": ""}
    if encoded is None:
        return None, found
    found["format"] = imaging.format_of(encoded)
    try:
        picture = imaging.read(
            encoded, max_pixels=max_image_pixels, bound="validate.max_image_pixels"
        )
        grey = (
            imaging.mask_values(picture)
            if is_mask
            else imaging.to_channels(picture.pixels)
        )
    except UnreadableImageError as error:
        return None, found | {"readable": False, "problem": str(error)}
    height, width = grey.shape
    found |= {
        "readable": True,
        "named": _named_format(path),
        "channels": picture.channels,
        "bit_depth": picture.bit_depth,
        "has_alpha": picture.has_alpha,
        "has_palette": picture.has_palette,
        "height": height,
        "width": width,
        "shape": f"{height}x{width}",
        "sha256": hashlib.sha256(f"{height}x{width}:".encode() + grey.data).hexdigest(),
    }
    return grey, found


def _named_format(path: str) -> str:
    """The format that a file's name promises: `a.JPG` gives `jpeg`, no suffix ``."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    return _EXTENSIONS.get(suffix, suffix)


def _values(mask: Grey, foreground: int) -> str:
    """The grey values of a mask, ascending: `0,255`; the first few of many.

    Args:
        mask: (H, W).
        foreground: How many of them are not 0.
    """
    if 0 < foreground < mask.size and foreground == np.count_nonzero(mask == 255):
        return "0,255"
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    shown = ",".join(str(value) for value in values[:MASK_VALUES_SHOWN])
    more = len(values) - MASK_VALUES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown

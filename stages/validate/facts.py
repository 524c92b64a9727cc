"""The facts of each pair, before any judgement: decoded once, measured, hashed."""

import functools
import hashlib
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.core import imaging
from stages.core.imaging import Grey, UnreadableImageError
from stages.datasets.pairs import SHARD_SCHEMA, Pair

_COPIED = [field for field in SHARD_SCHEMA if field.type != pa.binary()]
# Facts of each side, prefixed with `image_` and `mask_`; null if it cannot be read.
_SIDE = {
    "readable": pa.bool_(),  # null if there is no file
    "problem": pa.string(),  # why it cannot be read, or ""
    "format": pa.string(),  # by its content
    "named": pa.string(),  # by its name
    "channels": pa.int32(),
    "bit_depth": pa.int32(),
    "has_alpha": pa.bool_(),
    "has_palette": pa.bool_(),
    "height": pa.int32(),
    "width": pa.int32(),
    "shape": pa.string(),  # 299x299
    "sha256": pa.string(),  # of the 8-bit grey pixels and their shape
}
Facts = dict[str, Any]  # by the columns of `SCHEMA`
SCHEMA = pa.schema(
    [
        *[field.with_nullable(True) for field in _COPIED],
        pa.field("missing", pa.string()),  # image or mask for an orphan, or ""
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
_HASH_SIDE = 64  # side of the image that is hashed, pixels
_HASH_BITS = 256


def phash(image: Grey) -> str:
    """Perceptual hash: which of the 256 lowest frequencies exceed their median.

    Insensitive to size, brightness, contrast and compression. All arithmetic is on
    integers, so that every machine gets the same bits.

    Returns:
        256 bits as 64 hexadecimal digits; all 0 for a constant image.
    """
    side = 2 * _HASH_SIDE
    if min(image.shape) > 4 * side:  # else linear sampling would skip pixels
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
    """Integer cosines, and the indices of the products of lowest frequency.

    All sums stay below 2^53, where float64 is exact for integers.
    """
    order = np.arange(23)
    position = np.arange(_HASH_SIDE)
    angles = np.pi * order[:, None] * (2 * position[None] + 1) / (2 * _HASH_SIDE)
    rows, columns = np.meshgrid(order, order, indexing="ij")
    radius = (rows**2 + columns**2).ravel()
    # Without the mean; a stable sort gives one order.
    chosen = np.argsort(radius, kind="stable")[1 : _HASH_BITS + 1]
    return np.round(np.cos(angles) * 2**14), chosen


def measure_pair(pair: Pair, max_image_pixels: int) -> Facts:
    """Measures a pair by its bytes alone; absent columns of `SCHEMA` are null.

    Images that declare more pixels than allowed are not decoded.
    """
    found: Facts = {field.name: getattr(pair, field.name) for field in _COPIED}
    is_absent = {"image": pair.image is None, "mask": pair.mask is None}
    missing = [side for side in is_absent if is_absent[side] and not pair.problem]
    found["missing"] = " and ".join(missing)
    image, of_image = read_side(pair.image, pair.image_path, max_image_pixels)
    found |= {f"image_{name}": value for name, value in of_image.items()}
    if image is not None:
        mean, deviation = cv2.meanStdDev(image)
        found["image_mean"] = round(float(mean[0, 0]), 6)
        found["image_contrast"] = round(float(deviation[0, 0]), 6)
        found["image_phash"] = phash(image)
    mask, of_mask = read_side(pair.mask, pair.mask_path, max_image_pixels, is_mask=True)
    found |= {f"mask_{name}": value for name, value in of_mask.items()}
    if mask is not None:
        foreground = int(np.count_nonzero(mask))  # as in `imaging.decode_mask`
        found["mask_values"] = _values(mask, foreground)
        found["foreground_fraction"] = round(foreground / mask.size, 6)
        found["num_components"] = imaging.num_components(mask)
    return found


def read_side(
    encoded: bytes | None, path: str, max_image_pixels: int, *, is_mask: bool = False
) -> tuple[Grey | None, dict[str, Any]]:
    """Decodes one side to (H, W) grey values or labels, and describes its file.

    Returns:
        Pixels, None if there are none to read, and the facts of `_SIDE`.
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
    """The format by a file's suffix: `a.JPG` gives `jpeg`; "" without one."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    return _EXTENSIONS.get(suffix, suffix)


def _values(mask: Grey, foreground: int) -> str:
    """The first 8 values of a mask in ascending order, such as `0,255`."""
    if 0 < foreground < mask.size and foreground == np.count_nonzero(mask == 255):
        return "0,255"
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    shown = ",".join(str(value) for value in values[:MASK_VALUES_SHOWN])
    more = len(values) - MASK_VALUES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown

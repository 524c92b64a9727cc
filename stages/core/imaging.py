"""Reading, resizing and the one preprocessing, by Pillow, OpenCV and NumPy.

Every room reads images through `read`, so that a file means the same to training,
evaluation, prediction and export.
"""

import io
import logging
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

Grey = NDArray[np.uint8]  # (H, W) or (H, W, 3)
Pixels = NDArray[np.integer[Any]]  # (H, W) or (H, W, C), uint8 or uint16
Mask = NDArray[np.bool_]  # (H, W)
Float = NDArray[np.float32]
Spacing = tuple[float, float]  # between rows and between columns, millimetres
Predictor = Callable[[Float], Float]  # (B, S, S, C) in [0, 1] -> (B, S, S, 1) prob

# Other files in a folder of images (READMEs, spreadsheets) are left alone.
IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
DICOM_SUFFIXES = {".dcm", ".dicom"}
_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "tiff": TiffImageFile,
    "bmp": BmpImageFile,
}
FORMATS = tuple(_OPENERS)
# First bytes of what is read, and of what else turns up under an image's name.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"BM": "bmp",
    b"GIF8": "gif",
    b"RIFF": "webp",
    b"\x00\x00\x00\x0cjP  ": "jpeg2000",
    b"II+\x00": "bigtiff",
    b"MM\x00+": "bigtiff",
    b"%PDF": "pdf",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"<": "html or xml",
    b"version https://git-lfs": "git-lfs pointer",
}
# Each scan of a progressive JPEG costs as much as decoding the picture once; encoders
# write about ten.
MAX_SCANS = 50
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_TILE = 258, 262, (322, 323)
_TIFF_STRIPS = ((273, 279), (324, 325))  # places and lengths; of tiles likewise
_TIFF_MIN_IS_WHITE = 0

# Pillow's warnings name no file, and its debug log quotes what the file says of a
# patient.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.INFO)


_SAMPLES = "expected whole numbers of 8 or 16 bits without a sign"


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be read; the message says why."""


@dataclass(frozen=True)
class Picture:
    """A decoded image file, its pixels as the file says that they are shown.

    Attributes:
        pixels: (H, W) or (H, W, C), uint8 or uint16; colours blue first.
        format: One of `FORMATS`.
        channels: Samples per pixel in the file, alpha included; 3 for a palette.
        bit_depth: Bits per sample in the file.
        has_alpha: Whether the file has an alpha channel; every pixel is opaque.
        has_palette: Whether colours were looked up in a palette.
    """

    pixels: Pixels
    format: str
    channels: int
    bit_depth: int
    has_alpha: bool
    has_palette: bool


def format_of(encoded: bytes) -> str:
    """The format by its first bytes: of `FORMATS`, another known one, or `unknown`."""
    if encoded[128:132] == b"DICM":
        return "dicom"
    names = (name for mark, name in _SIGNATURES.items() if encoded.startswith(mark))
    return next(names, "unknown")


def read(
    encoded: bytes, *, max_pixels: int | None = None, bound: str = "max_pixels"
) -> Picture:
    """Decodes an image as its file says that it is shown.

    Orientation (EXIF, XMP, TIFF), photometric interpretation, palettes and colour
    models are obeyed. Files with several pages or frames and with transparent pixels
    are refused: which picture they mean is not for us to say. Colour profiles, gamma
    and the shape of pixels are ignored.

    Args:
        encoded: A whole file: PNG, JPEG, TIFF or BMP.
        max_pixels: An image that declares more is refused before it is decoded;
            None takes any.
        bound: The name of that limit for the user.

    Raises:
        UnreadableImageError: If the bytes are empty, of another format, broken, too
            large, or of a kind that is refused.
    """
    kind = format_of(encoded)
    if not encoded:
        raise UnreadableImageError("the file is empty")
    if kind not in FORMATS:
        what = "of no known format" if kind == "unknown" else kind
        raise UnreadableImageError(f"its content is {what}")
    scans = encoded.count(b"\xff\xda") if kind == "jpeg" else 1
    if scans > MAX_SCANS:
        raise UnreadableImageError(
            f"it has {scans} scans, expected at most {MAX_SCANS}, and was not decoded"
        )
    stage = f"its {kind} header cannot be read"
    try:
        image = _OPENERS[kind](io.BytesIO(encoded))
        found = _describe(image, kind, encoded)
        _refuse(image, max_pixels, bound)
        stage = f"not a whole {kind} image"
        return Picture(_decode(image, encoded), **found)
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever its parsers raise
        reason = " ".join(str(error).split())[:100]
        raise UnreadableImageError(f"{stage} ({reason})") from None


def _describe(image: ImageFile.ImageFile, kind: str, encoded: bytes) -> dict[str, Any]:
    """The facts of a header, under the names of `Picture`."""
    bit_depth = 8
    if kind == "png":
        bit_depth = encoded[24]  # of IHDR; Pillow does not tell
    elif isinstance(image, TiffImageFile):
        bit_depth = image.tag_v2.get(_TIFF_BITS, (1,))[0]
    has_palette = image.mode in ("P", "PA")
    return {
        "format": kind,
        "channels": len(image.getbands()) + 2 * has_palette,
        "bit_depth": bit_depth,
        "has_alpha": image.has_transparency_data,
        "has_palette": has_palette,
    }


def _refuse(image: ImageFile.ImageFile, max_pixels: int | None, bound: str) -> None:
    """Raises what keeps a file from being decoded."""
    width, height = image.size
    if isinstance(image, TiffImageFile):
        # A tile may be larger than the picture, and memory is taken for it.
        width, height = (
            max(side, int(image.tag_v2.get(tag, 0)))
            for side, tag in zip(image.size, _TIFF_TILE, strict=True)
        )
    if max_pixels is not None and width * height > max_pixels:
        raise UnreadableImageError(
            f"it declares {width} x {height} pixels, more than {bound} "
            f"({max_pixels}), and was not decoded"
        )
    if image.mode in ("I", "F"):
        kind = "of 32 bits or signed" if image.mode == "I" else "fractions"
        raise UnreadableImageError(f"its samples are {kind}, {_SAMPLES}")
    if image.mode == "LAB":
        raise UnreadableImageError("its colours are CIELAB; convert it to RGB or grey")
    if getattr(image, "is_animated", False):
        raise UnreadableImageError(
            "it has several pages or frames; store each one that is meant as a file"
        )


def _decode(image: ImageFile.ImageFile, encoded: bytes) -> Pixels:
    # OpenCV takes inks for colours; Pillow converts them.
    is_plain = not image.has_transparency_data and image.mode != "CMYK"
    if isinstance(image, TiffImageFile) and is_plain:
        return _decode_tiff(image, encoded)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    shown: Image.Image = image
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        if shown.getchannel("A").getextrema() != (255, 255):
            raise UnreadableImageError(
                "some of its pixels are transparent; flatten it onto its background"
            )
    if image.mode in ("1", "LA"):
        shown = shown.convert("L")
    elif not image.mode.startswith(("L", "I;16")):
        shown = shown.convert("RGB")
    pixels = np.asarray(shown)
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels[:, :, ::-1])
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _decode_tiff(image: TiffImageFile, encoded: bytes) -> Pixels:
    """OpenCV reads 16 bits per colour, and strips that end early, as in LGG's films."""
    tags = image.tag_v2
    for offsets, counts in _TIFF_STRIPS:
        ends = map(operator.add, tags.get(offsets, ()), tags.get(counts, ()))
        if any(end > len(encoded) for end in ends):
            raise UnreadableImageError("not a whole tiff image: it is cut short")
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnreadableImageError(f"OpenCV refuses it: {error.err}") from None
    if pixels is None or sorted(pixels.shape[:2]) != sorted(image.size):
        raise UnreadableImageError("not a whole tiff image that OpenCV reads")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableImageError(f"its samples are {pixels.dtype}, {_SAMPLES}")
    if pixels.dtype == np.uint16 and tags.get(_TIFF_PHOTOMETRIC) == _TIFF_MIN_IS_WHITE:
        return np.bitwise_not(pixels)  # OpenCV inverts 8 bits alone
    return np.asarray(pixels)


def decode(encoded: bytes) -> Pixels:
    """The pixels of an image file; see `read`."""
    return read(encoded).pixels


def to_channels(pixels: Pixels, channels: int = 1) -> Grey:
    """Converts decoded pixels to 8 bits and to (H, W) or, with 3 channels, (H, W, 3).

    16 bits are scaled by 1/257, alpha is dropped, colour becomes grey by the
    usual luma weights (Rec. 601), grey becomes colour by repetition.
    """
    if pixels.dtype == np.uint16:
        # Rounded; without the float copies that NumPy would make of the picture.
        pixels = np.asarray(cv2.convertScaleAbs(pixels, alpha=1 / 257))
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 3 and channels == 1:
        code = cv2.COLOR_BGR2GRAY if pixels.shape[2] == 3 else cv2.COLOR_BGRA2GRAY
        pixels = np.asarray(cv2.cvtColor(pixels, code))
    elif pixels.ndim == 3:
        pixels = pixels[:, :, :3]
    elif channels == 3:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels, np.uint8)


def decode_image(encoded: bytes, channels: int = 1) -> Grey:
    """Decodes an image to uint8, (H, W) or (H, W, 3); errors as in `read`."""
    return to_channels(read(encoded).pixels, channels)


def mask_values(picture: Picture) -> Grey:
    """The values of a mask as (H, W) uint8.

    A mask of 16 bits whose values fit 8 holds labels and keeps them: scaled as grey
    values are, a mask of 0 and 1 would be empty.

    Raises:
        UnreadableImageError: If labels may have been lost in decoding.
    """
    pixels = picture.pixels
    if picture.bit_depth == 16 and pixels.dtype == np.uint8:
        raise UnreadableImageError(
            "it has 16 bits per colour; store a mask with 8 bits, or in grey"
        )
    if pixels.dtype == np.uint16 and not (pixels > np.uint16(255)).any():
        pixels = pixels.astype(np.uint8)
    return to_channels(pixels)


def decode_mask(encoded: bytes) -> Mask:
    """Decodes a mask to (H, W) bool; every value but 0 is foreground.

    Only masks of 0 and `validate.mask_foreground` get as far as training.
    """
    return np.asarray(mask_values(read(encoded)) != 0, bool)


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Encodes uint8 pixels as PNG; no metadata, same pixels same bytes."""
    # On radiographs run lengths alone are smaller than a full search, 5 times faster.
    rle = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    ok, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6, *rle])
    if not ok:
        raise ValueError(f"OpenCV cannot encode pixels of shape {pixels.shape}")
    return bytes(buffer.tobytes())


def resize_image(image: Grey, height: int, width: int) -> Grey:
    """Resizes grey values: by area where a side shrinks, linearly where it grows."""
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    for (rows, columns), method in (
        (smaller, cv2.INTER_AREA),
        ((height, width), cv2.INTER_LINEAR),
    ):
        if image.shape[:2] != (rows, columns):
            resized = cv2.resize(image, (columns, rows), interpolation=method)
            image = np.asarray(resized, np.uint8)
    return image


def resize_mask(mask: Mask, height: int, width: int) -> Mask:
    """Resizes a mask that is counted or shown: nearest, so it stays a mask."""
    if mask.shape == (height, width):
        return mask
    resized = cv2.resize(
        mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return np.asarray(resized, bool)


def resize_prob(prob: Float, height: int, width: int) -> Float:
    """Resizes a probability map linearly, to be thresholded at the target size."""
    if prob.shape == (height, width):
        return prob
    resized = cv2.resize(prob, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def preprocess(image: Grey, image_size: int) -> Grey:
    """The one preprocessing: (H, W) or (H, W, 3) uint8 to the network's (S, S, C).

    The network takes these values divided by 255 (`to_input`); any further
    normalisation is a layer of the network and so travels with it.
    """
    resized = resize_image(image, image_size, image_size)
    return resized if resized.ndim == 3 else resized[:, :, None]


def to_input(pixels: Grey) -> Float:
    """Grey values 0 to 255 as the network's float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def soft_mask(mask: Mask, image_size: int) -> Grey:
    """The training target: share of foreground under each input pixel, 0 to 255.

    Area averaging keeps the outline's sub-pixel place, which a nearest resize
    loses. The result is (image_size, image_size, 1) uint8.
    """
    return resize_image(mask.astype(np.uint8) * 255, image_size, image_size)[:, :, None]


def resized_spacing(
    spacing: Spacing, before: tuple[int, ...], after: tuple[int, ...]
) -> Spacing:
    """The spacing of an image of size (H, W, ...) at another size."""
    return spacing[0] * before[0] / after[0], spacing[1] * before[1] / after[1]


def outline(mask: Mask) -> Mask:
    """Foreground pixels that touch background or the border of the picture."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return np.asarray(mask & (inner[1:-1, 1:-1] == 0), bool)


def num_components(mask: Mask | Grey) -> int:
    """Number of 8-connected foreground regions; foreground is what is not 0."""
    found, _ = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return int(found) - 1

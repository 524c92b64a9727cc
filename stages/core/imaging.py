"""Decoding, resizing and the one preprocessing, in OpenCV and NumPy.

Training, evaluation, prediction and export all go through `preprocess`; the
SavedModel's PNG signature is its twin in TensorFlow and is tested against it.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # (H, W) or (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)
Float = NDArray[np.float32]
# What `decode` is given; other files (READMEs, spreadsheets) are no images.
IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}


class UnreadableImageError(ValueError):
    """Bytes that are no image we read; the message says what they are instead."""


def decode(encoded: bytes) -> NDArray[np.generic]:
    """Decodes image bytes as they are: any depth, any number of channels.

    Args:
        encoded: PNG, JPEG, TIFF or another format OpenCV reads.

    Returns:
        (H, W) or (H, W, C), uint8 or uint16, blue first, EXIF rotation ignored.

    Raises:
        UnreadableImageError: If the bytes are empty or not a whole image.
    """
    if not encoded:
        raise UnreadableImageError("the file is empty")
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnreadableImageError(f"OpenCV refuses it: {error.err}") from None
    if pixels is None:
        raise UnreadableImageError("not a whole image of a format that OpenCV reads")
    return pixels


def to_channels(pixels: NDArray[np.generic], channels: int = 1) -> Grey:
    """Brings decoded pixels to 8 bits and one or three channels.

    16 bits are scaled by 1/257, alpha is dropped, colour becomes grey by the
    usual luma weights (Rec. 601), grey becomes colour by repetition.

    Args:
        pixels: What `decode` returned.
        channels: 1 for (H, W), 3 for (H, W, 3).

    Returns:
        uint8 pixels.
    """
    if pixels.dtype == np.uint16:
        # Rounded; without the float copies that NumPy would make of the picture.
        deep = pixels.astype(np.uint16, copy=False)
        scaled = np.asarray(cv2.convertScaleAbs(deep, alpha=1 / 257), np.uint8)
    elif pixels.dtype == np.uint8:
        scaled = pixels.astype(np.uint8, copy=False)
    else:
        raise UnreadableImageError(f"pixels of type {pixels.dtype} are not supported")
    return _channels(scaled, channels)


def _channels(pixels: Grey, channels: int) -> Grey:
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if channels == 1 and pixels.ndim == 3 and pixels.shape[2] == 4:
        # Alpha is dropped here and not before: no copy of a picture without it.
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2GRAY), np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = pixels[:, :, :3]
    if channels == 1 and pixels.ndim == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    if channels == 3 and pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2).astype(np.uint8)
    return np.ascontiguousarray(pixels, np.uint8)


def decode_image(encoded: bytes, channels: int = 1) -> Grey:
    """Decodes an image to uint8, (H, W) or (H, W, 3); errors as in `decode`."""
    return to_channels(decode(encoded), channels)


def mask_values(pixels: NDArray[np.generic]) -> Grey:
    """Brings the decoded pixels of a mask to (H, W) uint8, its values kept.

    A mask of 16 bits whose values fit 8 holds labels and keeps them: scaled as grey
    values are, a mask of 0 and 1 would be empty.

    Args:
        pixels: What `decode` returned.
    """
    if pixels.dtype == np.uint16 and not (pixels > np.uint16(255)).any():
        pixels = pixels.astype(np.uint8)
    return to_channels(pixels, 1)


def decode_mask(encoded: bytes) -> Mask:
    """Decodes a mask to (H, W) bool; foreground is what is not 0.

    Only masks of 0 and `validate.mask_foreground` get as far as training.
    """
    return np.asarray(mask_values(decode(encoded)) != 0, bool)


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Encodes uint8 pixels as PNG; no metadata, same pixels same bytes."""
    # On radiographs run lengths alone are smaller than a full search, 5 times faster.
    rle = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    ok, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6, *rle])
    if not ok:
        raise ValueError(f"OpenCV cannot encode pixels of shape {pixels.shape}")
    return bytes(buffer.tobytes())


def resize_image(image: Grey, height: int, width: int) -> Grey:
    """Resizes grey values: by area when shrinking, linearly when growing."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(
        cv2.resize(image, (width, height), interpolation=method), np.uint8
    )


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
    """The one preprocessing: to the network's square, still uint8.

    The network takes these values divided by 255 (`to_input`); any further
    normalisation is a layer of the network and so travels with it.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        image_size: Side of the network's input, pixels.

    Returns:
        (image_size, image_size, C) uint8.
    """
    resized = resize_image(image, image_size, image_size)
    return resized if resized.ndim == 3 else resized[:, :, None]


def to_input(pixels: Grey) -> Float:
    """Grey values 0 to 255 as the network's float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def soft_mask(mask: Mask, image_size: int) -> Grey:
    """The training target: share of foreground under each input pixel, 0 to 255.

    Area averaging keeps the outline's sub-pixel place, which a nearest resize
    loses; never used for what is counted.

    Args:
        mask: (H, W) bool.
        image_size: Side of the network's input, pixels.

    Returns:
        (image_size, image_size, 1) uint8.
    """
    return resize_image(mask.astype(np.uint8) * 255, image_size, image_size)[:, :, None]


def outline(mask: Mask) -> Mask:
    """Foreground pixels that touch background or the border of the picture."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return np.asarray(mask & (inner[1:-1, 1:-1] == 0), bool)


def num_components(mask: Mask | Grey) -> int:
    """Number of 8-connected foreground regions; foreground is what is not 0."""
    height, width = mask.shape
    # Labels of 16 bits and this algorithm take 2/3 of the default's time. No more
    # regions fit than one in each block of 2 x 2.
    is_small = (height + 1) // 2 * ((width + 1) // 2) < 2**16 - 1
    labels = cv2.CV_16U if is_small else cv2.CV_32S
    found, _ = cv2.connectedComponentsWithAlgorithm(
        mask.view(np.uint8), 8, labels, cv2.CCL_SAUF
    )
    return int(found) - 1


Predictor = Callable[[Float], Float]  # (B, S, S, C) in [0, 1] -> (B, S, S, 1) prob

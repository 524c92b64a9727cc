"""Is an image read as its file says, and are masks and sizes what they should be?"""

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from stages.core import imaging
from stages.core.imaging import UnreadableImageError, read
from tests.conftest import lungs, png

GREY = np.random.default_rng(1).integers(0, 256, (5, 7), np.uint8)
DEEP = np.random.default_rng(2).integers(0, 2**16, (5, 7), np.uint16)
COLOUR = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)  # blue first
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "tiff": ".tiff", "bmp": ".bmp"}


def encode(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, pixels, list(options))[1])


def saved(image: Image.Image, **options: object) -> bytes:
    """An image as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    crc = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + crc


def tiff(pixels: np.ndarray, *, photometric: int, orientation: int = 1) -> bytes:
    """A TIFF of one strip, with tags of one's own."""
    height, width = pixels.shape[:2]
    samples = 3 if pixels.ndim == 3 else 1
    bits = struct.pack("<HH", pixels.itemsize * 8, 0)
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, None), (259, 3, 1),
        (262, 3, photometric), (273, 4, None), (274, 3, orientation),
        (277, 3, samples), (278, 4, height), (279, 4, pixels.nbytes),
    ]  # fmt: skip
    end = 8 + 2 + 12 * len(tags) + 4
    body = b""
    for tag, kind, value in tags:
        if tag == 258:
            field = bits if samples == 1 else struct.pack("<I", end)
            body += struct.pack("<HHI", tag, kind, samples) + field
        else:
            value = end + 6 if tag == 273 else value
            body += struct.pack("<HHII", tag, kind, 1, value)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)
    return head + bits[:2] * 3 + pixels.tobytes()


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """As EXIF orientation tells a viewer to show pixels."""
    swapped = pixels.swapaxes(0, 1)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: swapped,
        6: swapped[:, ::-1],
        7: swapped[::-1, ::-1],
        8: swapped[::-1],
    }[orientation]


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_every_format(kind, pixels):
    found = read(encode(SUFFIXES[kind], pixels))
    assert (found.format, found.bit_depth) == (kind, 8)
    assert found.channels == (1 if pixels.ndim == 2 else 3)
    assert not found.has_alpha
    assert not found.has_palette
    if kind == "jpeg":
        assert found.pixels.shape == pixels.shape
    else:
        assert np.array_equal(found.pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_are_kept_and_scaled_to_8(suffix):
    found = read(encode(suffix, DEEP))
    assert found.bit_depth == 16
    assert np.array_equal(found.pixels, DEEP)
    wanted = np.round(DEEP / 257).astype(np.uint8)
    assert np.array_equal(imaging.to_channels(found.pixels), wanted)
    layers = np.dstack([DEEP] * 3)
    assert np.array_equal(imaging.to_channels(layers, 3), np.dstack([wanted] * 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_orientation_is_obeyed(kind, orientation):
    """In every format that can carry it, at every depth."""
    if kind == "tiff":
        for pixels in (GREY, DEEP, COLOUR):
            photometric = 2 if pixels.ndim == 3 else 1
            stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
            encoded = tiff(stored, photometric=photometric, orientation=orientation)
            assert np.array_equal(read(encoded).pixels, turned(pixels, orientation))
        return
    image = Image.fromarray(GREY)
    plain = imaging.decode(saved(image, format=kind))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read(saved(image, format=kind, exif=exif))
    assert np.array_equal(found.pixels, turned(plain, orientation))
    assert np.array_equal(
        imaging.decode_mask(saved(image, format=kind, exif=exif)),
        turned(plain, orientation) != 0,
    )


@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8", "16"])
def test_white_may_be_zero(pixels):
    encoded = tiff(pixels, photometric=0)
    assert np.array_equal(read(encoded).pixels, np.iinfo(pixels.dtype).max - pixels)


def test_a_palette_is_looked_up():
    image = Image.fromarray(COLOUR[..., ::-1]).quantize(16)
    for kind in ("png", "tiff", "bmp"):
        found = read(saved(image, format=kind))
        assert found.has_palette
        assert np.array_equal(found.pixels[..., ::-1], np.asarray(image.convert("RGB")))
    # Grey as BMP stores it is no palette of colours.
    assert not read(encode(".bmp", GREY)).has_palette


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_transparency(kind):
    """An opaque alpha channel is dropped; what a transparent pixel shows is unknown."""
    for mode in ("LA", "RGBA"):
        opaque = Image.fromarray(GREY).convert(mode)
        found = read(saved(opaque, format=kind))
        assert found.has_alpha
        assert np.array_equal(imaging.to_channels(found.pixels), GREY)
        half = opaque.copy()
        half.putalpha(128)
        with pytest.raises(UnreadableImageError, match="pixels are transparent"):
            read(saved(half, format=kind))
    if kind == "png":
        indexed = Image.fromarray(GREY).quantize(4)
        with pytest.raises(UnreadableImageError, match="pixels are transparent"):
            read(saved(indexed, format=kind, transparency=0))


@pytest.mark.parametrize(
    ("kind", "mode"), [("jpeg", "CMYK"), ("tiff", "CMYK"), ("tiff", "YCbCr")]
)
def test_other_colour_models_are_converted(kind, mode):
    image = Image.fromarray(
        np.dstack([np.full((16, 16), v) for v in (200, 100, 50)]).astype(np.uint8)
    )
    encoded = saved(image.convert(mode), format=kind)
    found = read(encoded).pixels
    assert np.abs(found[..., ::-1].astype(int) - [200, 100, 50]).max() <= 3


def test_cielab_is_refused():
    lab = Image.frombytes("LAB", (7, 5), COLOUR.tobytes())
    with pytest.raises(UnreadableImageError, match="CIELAB"):
        read(saved(lab, format="tiff"))


def test_an_mpo_file_is_read_by_its_first_picture():
    image, more = Image.fromarray(COLOUR), [Image.fromarray(255 - COLOUR)]
    encoded = saved(image, format="mpo", save_all=True, append_images=more)
    first = imaging.decode(saved(image, format="jpeg"))
    assert np.abs(imaging.decode(encoded).astype(int) - first).max() <= 2


def test_several_pages_or_frames_are_refused():
    image = Image.fromarray(GREY)
    more = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}
    for kind in ("tiff", "png"):
        with pytest.raises(UnreadableImageError, match="several pages or frames"):
            read(saved(image, format=kind, **more))


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.int8])
def test_other_numbers_are_refused(kind):
    with pytest.raises(UnreadableImageError, match=r"whole numbers|pixel mode"):
        read(encode(".tiff", GREY.astype(kind)))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_cut_anywhere_is_refused_or_whole(kind):
    encoded = encode(SUFFIXES[kind], lungs()[0])
    whole = read(encoded).pixels
    for length in [*range(0, 200, 7), *range(200, len(encoded), 37)]:
        try:
            found = read(encoded[:length]).pixels
        except UnreadableImageError:
            continue
        assert np.array_equal(found, whole)


def test_a_size_is_judged_before_pixels_are_decoded(monkeypatch):
    monkeypatch.setattr(imaging, "_decode", None)
    for suffix in SUFFIXES.values():
        with pytest.raises(UnreadableImageError, match="7 x 5 pixels, more than b"):
            read(encode(suffix, GREY), max_pixels=34, bound="b")
    # Memory is taken for a tile, which may be larger than its picture.
    head = struct.pack("<HHI", 322, 4, 1) + struct.pack("<I", 2**15)
    plain = tiff(GREY, photometric=1)
    tiled = plain.replace(struct.pack("<HHI", 278, 4, 1) + struct.pack("<I", 5), head)
    with pytest.raises(UnreadableImageError, match="32768 x 5 pixels"):
        read(tiled, max_pixels=10**5)


def test_a_jpeg_of_many_scans_is_not_decoded():
    """Each costs as much as decoding the picture once: 300 kB took 12 s."""
    encoded = encode(".jpg", lungs()[0], cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert read(encoded).format == "jpeg"
    start = encoded.index(b"\xff\xda")
    bomb = encoded[:-2] + encoded[start:-2] * 40 + encoded[-2:]
    with pytest.raises(UnreadableImageError, match="scans, expected at most 50"):
        read(bomb)


def test_excess_data_and_lengths_that_lie_change_nothing():
    plain = png(GREY)
    excess = chunk(b"IDAT", zlib.compress(bytes(2**24)))
    assert np.array_equal(read(plain[:-12] + excess + plain[-12:]).pixels, GREY)
    for length in (2**31 - 1, 2**32 - 1, 100):
        spoilt = bytearray(plain)
        spoilt[33:37] = length.to_bytes(4, "big")
        with contextlib.suppress(UnreadableImageError):
            assert np.array_equal(read(bytes(spoilt)).pixels, GREY)


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (b"", "the file is empty"),
        (b"not an image", "of no known format"),
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
        (bytes(128) + b"DICM", "its content is dicom"),
        (png(GREY)[:60], "not a whole png image"),
    ],
)
def test_other_bytes_are_named(encoded, said):
    with pytest.raises(UnreadableImageError, match=said):
        read(encoded)


def test_a_mask_of_16_bits_keeps_its_labels():
    labels = (DEEP > 2**15).astype(np.uint16)
    assert np.array_equal(imaging.decode_mask(png(labels)), labels > 0)
    with pytest.raises(UnreadableImageError, match="16 bits per colour"):
        imaging.decode_mask(png(np.dstack([labels] * 3)))


def test_resized_masks_keep_their_area():
    mask = lungs(mask_size=97)[1] > 0
    for size in (32, 97, 160):
        resized = imaging.resize_mask(mask, size, size)
        assert resized.mean() == pytest.approx(mask.mean(), abs=0.03)
    # Averaging keeps the area that a nearest resize would round.
    soft = imaging.soft_mask(mask, 16)
    assert soft.mean() / 255 == pytest.approx(mask.mean(), abs=0.002)


def test_a_side_that_shrinks_is_averaged_while_the_other_grows():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 128))  # (64, 256)
    resized = imaging.resize_image(stripes, 128, 128)
    assert np.all(resized == 100)


def test_outline_of_a_square_and_of_a_mask_that_fills_the_picture():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    assert imaging.outline(mask).sum() == 16  # 5x5 less its 3x3 inside
    assert imaging.outline(np.ones((4, 5), bool)).sum() == 14  # border of 4x5
    assert imaging.num_components(lungs()[1] > 0) == 2

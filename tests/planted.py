"""Images whose metadata say what nobody may hear, and a search for who heard it."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from stages.datasets.pairs import Pair

PATIENT = "Mustermann^Erika"
DATE = "1987:03:21 04:05:06"
MARKERS = (PATIENT, "Mustermann", "1987:03", "PLANTED")


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    crc = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + crc


def exif() -> bytes:
    """A TIFF structure with description, artist and date, and no picture."""
    return tiff(None)


def tiff(pixels: np.ndarray | None) -> bytes:
    """(H, W) uint8 as an uncompressed TIFF with description, artist and date."""
    texts = {270: f"PLANTED {PATIENT}", 306: DATE, 315: PATIENT}
    tags: dict[int, tuple[int, int, bytes | int]] = {
        tag: (2, len(text) + 1, text.encode() + b"\0") for tag, text in texts.items()
    }
    body = b""
    if pixels is not None:
        height, width = pixels.shape
        body = pixels.tobytes()
        tags |= {
            tag: (4 if tag in (273, 279) else 3, 1, value)
            for tag, value in {
                256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1,
                278: height, 279: len(body),
            }.items()
        }  # fmt: skip
    start = 8 + len(body)
    extra_at = start + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, (kind, count, value) in sorted(tags.items()):
        if isinstance(value, int):
            packed = struct.pack("<H2x" if kind == 3 else "<I", value)
        else:
            packed = struct.pack("<I", extra_at + len(extra))
            extra += value
        entries += struct.pack("<HHI", tag, kind, count) + packed
    head = struct.pack("<2sHI", b"II", 42, start)
    return head + body + struct.pack("<H", len(tags)) + entries + bytes(4) + extra


def in_png(encoded: bytes) -> bytes:
    """The same picture with text of every kind, a date and EXIF."""
    text = f"PLANTED {PATIENT} {DATE}".encode()
    chunks = (
        chunk(b"tEXt", b"Comment\0" + text)
        + chunk(b"zTXt", b"Author\0\0" + zlib.compress(text))
        + chunk(b"iTXt", b"Title\0\0\0de\0Titel\0" + text)
        + chunk(b"tIME", struct.pack(">HBBBBB", 1987, 3, 21, 4, 5, 6))
        + chunk(b"eXIf", exif())
        + chunk(b"prVt", text)
    )
    return encoded[:33] + chunks + encoded[33:]


def in_jpeg(pixels: np.ndarray) -> bytes:
    """A JPEG with EXIF and a comment."""
    encoded = bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])[1])
    segments = b""
    comment = f"PLANTED {PATIENT} {DATE}".encode()
    for mark, data in ((b"\xff\xe1", b"Exif\0\0" + exif()), (b"\xff\xfe", comment)):
        segments += mark + struct.pack(">H", len(data) + 2) + data
    return encoded[:2] + segments + encoded[2:]


def lay(pairs: Iterable[Pair], folder: Path) -> None:
    """Writes pairs as a data set of files, each with something to tell."""
    for number, pair in enumerate(pairs):
        assert pair.image
        assert pair.mask
        image, suffix = in_png(pair.image), ".png"
        pixels = cv2.imdecode(np.frombuffer(pair.image, np.uint8), cv2.IMREAD_GRAYSCALE)
        if number % 4 == 1:
            image, suffix = in_jpeg(pixels), ".jpg"
        elif number % 4 == 2:
            image, suffix = tiff(pixels), ".tiff"
        for path, data in ((pair.image_path, image), (pair.mask_path, pair.mask)):
            target = folder / path
            if path == pair.image_path:
                target = target.with_suffix(suffix)
            else:
                data = in_png(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def heard(files: Iterable[Path]) -> list[str]:
    """The files that hold any of what was planted."""
    return [
        f"{marker} in {path}"
        for path in files
        for content in [path.read_bytes()]
        for marker in MARKERS
        if marker.encode() in content
    ]


def png_chunks(encoded: bytes) -> set[bytes]:
    """The kinds of chunks in a PNG."""
    kinds, at = set(), 8
    while at < len(encoded):
        (length,) = struct.unpack_from(">I", encoded, at)
        kinds.add(encoded[at + 4 : at + 8])
        at += 12 + length
    return kinds

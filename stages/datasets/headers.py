"""What an image file says of itself in its first bytes, read without decoding it.

A picture of 30,000 x 30,000 pixels fits into a few kilobytes: sizes are judged here
first. Only formats whose size can be told here are decoded at all.
"""

import struct
from dataclasses import dataclass

from stages.core.imaging import UnreadableImageError

# First bytes of what is read, and of what else turns up under an image's name.
_MAGIC = {
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
FORMATS = ("png", "jpeg", "tiff", "bmp")
_EXTENSIONS = {"jpg": "jpeg", "tif": "tiff", "dib": "bmp", "jpe": "jpeg"}
_EXTENSIONS |= {"dcm": "png", "dicom": "png"}  # ingest stores their pixels as PNG

# PNG colour types: samples a pixel, and which of them carry transparency.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_PNG_ALPHA = (4, 6)
_PNG_PALETTE = 3
# Decoders take memory for these before they see a pixel; OpenCV reads 32 and 64 bits.
_MOST_BITS, _MOST_CHANNELS = 16, 4
# JPEG markers that stand alone, and those that cannot come before a frame.
_JPEG_ALONE = {0x01, *range(0xD0, 0xD8)}
_JPEG_MISPLACED = {0x00, 0xD8, 0xD9, 0xDA}
# JPEG start-of-frame markers: 0xC0 to 0xCF but for three that mean other things.
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# TIFF: the type of two bytes; colour models, and samples a pixel without extra ones.
_TIFF_SHORT, _TIFF_LONG, _TIFF_PALETTE = 3, 4, 3
# Sides of the picture and of a tile, samples a pixel: one number each; bits: several.
_TIFF_SINGLE, _TIFF_BITS = (256, 257, 277, 322, 323), 258
_TIFF_COLOURS = {0: 1, 1: 1, 2: 3, _TIFF_PALETTE: 1}


@dataclass(frozen=True)
class Header:
    """An image as its header declares it."""

    format: str
    width: int = 0  # 0: the header of this format is not read
    height: int = 0
    channels: int = 0
    bit_depth: int = 0  # of one sample
    has_alpha: bool = False
    has_palette: bool = False


def format_of(encoded: bytes) -> str:
    """The format by its first bytes: of `FORMATS`, another known one, or `unknown`."""
    if encoded[128:132] == b"DICM":
        return "dicom"
    for magic, name in _MAGIC.items():
        if encoded.startswith(magic):
            return name
    return "unknown"


def named_format(path: str) -> str:
    """The format that a file's name promises: `a.JPG` gives `jpeg`, no suffix ``."""
    _, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return _EXTENSIONS.get(suffix.lower(), suffix.lower()) if dot else ""


def read_header(encoded: bytes) -> Header:
    """Reads format, declared size, depth and channels of an encoded image.

    Args:
        encoded: A whole file.

    Returns:
        A header; all but its format is 0 for a format that is not among `FORMATS`.

    Raises:
        UnreadableImageError: If the header is cut short or contradicts itself.
    """
    kind = format_of(encoded)
    try:
        match kind:
            case "png":
                return _png(encoded)
            case "jpeg":
                return _jpeg(encoded)
            case "tiff":
                return _tiff(encoded)
            case "bmp":
                return _bmp(encoded)
            case _:
                return Header(kind)
    except UnreadableImageError:
        raise
    except (struct.error, IndexError, KeyError, ValueError):
        raise UnreadableImageError(
            f"its {kind} header is cut short or broken"
        ) from None


def inspect(encoded: bytes, max_pixels: int, bound: str) -> Header:
    """Reads the header of what may be decoded, and refuses everything else.

    Args:
        encoded: A whole file.
        max_pixels: An image that declares more would fill the memory.
        bound: What the user calls `max_pixels`.

    Raises:
        UnreadableImageError: If it is empty, no image of `FORMATS`, broken, or too
            large.
    """
    if not encoded:
        raise UnreadableImageError("the file is empty")
    header = read_header(encoded)
    if header.format not in FORMATS:
        what = "of no known format" if header.format == "unknown" else header.format
        raise UnreadableImageError(f"its content is {what}")
    if header.bit_depth > _MOST_BITS or header.channels > _MOST_CHANNELS:
        raise UnreadableImageError(
            f"it declares {header.channels} channels of {header.bit_depth} bits, "
            f"expected at most {_MOST_CHANNELS} of {_MOST_BITS}, and was not decoded"
        )
    if header.width * header.height > max_pixels:
        raise UnreadableImageError(
            f"it declares {header.width} x {header.height} pixels, more than {bound} "
            f"({max_pixels}), and was not decoded"
        )
    return header


def _png(encoded: bytes) -> Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", encoded, 16)
    if encoded[12:16] != b"IHDR":
        raise ValueError
    if encoded.find(b"acTL", 33, encoded.find(b"IDAT")) > 0:
        # OpenCV would hold the picture twice.
        raise UnreadableImageError("it is an animation")
    position = 8
    while position + 8 <= len(encoded):
        (length,) = struct.unpack_from(">I", encoded, position)
        position += 12 + length
        if position > len(encoded):
            # OpenCV takes as much memory as the chunk says it has: up to 4 GiB.
            raise UnreadableImageError("not a whole image: it is cut short")
    return Header(
        "png",
        width=width,
        height=height,
        channels=_PNG_CHANNELS[colour],
        bit_depth=depth,
        # A tRNS chunk makes any colour type transparent; it precedes the pixels.
        has_alpha=colour in _PNG_ALPHA
        or encoded.find(b"tRNS", 33, encoded.find(b"IDAT")) > 0,
        has_palette=colour == _PNG_PALETTE,
    )


def _jpeg(encoded: bytes) -> Header:
    position = 2
    while True:
        if encoded[position] != 0xFF:
            raise ValueError
        marker = encoded[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        # A decoder that takes another way through the markers sees another size.
        if marker in _JPEG_MISPLACED:
            raise ValueError
        if marker in _JPEG_ALONE:
            position += 2
            continue
        if marker in _JPEG_FRAMES:
            depth, height, width, channels = struct.unpack_from(
                ">BHHB", encoded, position + 4
            )
            return Header("jpeg", width, height, channels, depth)
        (length,) = struct.unpack_from(">H", encoded, position + 2)
        if length < 2:
            raise ValueError
        position += 2 + length


def _tiff(encoded: bytes) -> Header:
    order = "<" if encoded[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(order + "I", encoded, 4)
    (entries,) = struct.unpack_from(order + "H", encoded, offset)
    tags: dict[int, int] = {}
    for index in range(entries):
        at = offset + 2 + 12 * index
        tag, kind, count = struct.unpack_from(order + "HHI", encoded, at)
        # A decoder would read another number here than we do.
        is_odd = kind not in (_TIFF_SHORT, _TIFF_LONG) or count != 1
        if (
            tag in tags
            or (tag in _TIFF_SINGLE and is_odd)
            or (tag == _TIFF_BITS and kind != _TIFF_SHORT)
        ):
            raise ValueError
        size, code = (2, "H") if kind == _TIFF_SHORT else (4, "I")
        where = at + 8
        if size * count > 4:  # the first of several values stands elsewhere
            (where,) = struct.unpack_from(order + "I", encoded, where)
            if tag not in (258, 338):
                continue
        (tags[tag],) = struct.unpack_from(order + code, encoded, where)
    channels, model = tags.get(277, 1), tags.get(262, 1)
    # A tile may be larger than the picture, and is what memory is taken for.
    return Header(
        "tiff",
        width=max(tags[256], tags.get(322, 0)),
        height=max(tags[257], tags.get(323, 0)),
        channels=channels,
        bit_depth=tags.get(258, 1),
        has_alpha=338 in tags or channels > _TIFF_COLOURS.get(model, channels),
        has_palette=model == _TIFF_PALETTE,
    )


def _bmp(encoded: bytes) -> Header:
    (size,) = struct.unpack_from("<I", encoded, 14)
    if size == 12:  # OS/2's header has 16-bit sides and no fourth byte a colour
        width, height, _, bits = struct.unpack_from("<HHHH", encoded, 18)
        step, used = 3, 0
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", encoded, 18)
        step, (used,) = 4, struct.unpack_from("<I", encoded, 46)
    has_palette = False
    if bits <= 8:
        length = step * (used or 1 << bits)
        colours = encoded[14 + size : 14 + size + length]
        if len(colours) < length:
            raise ValueError
        # Grey is stored as a palette, of three equal bytes each.
        blue, green, red = (colours[sample::step] for sample in range(3))
        has_palette = not blue == green == red
    return Header(
        "bmp",
        width=abs(width),
        height=abs(height),  # a negative height means top row first
        channels=4 if bits == 32 else 3 if bits > 8 or has_palette else 1,
        bit_depth=8,
        has_alpha=bits == 32,
        has_palette=has_palette,
    )

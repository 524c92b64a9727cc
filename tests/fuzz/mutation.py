"""Damages real files: blindly, and where the format keeps its lengths and checksums."""

import io
import struct
import zipfile
import zlib
from random import Random

MOST_BYTES = 256 * 1024
NUMBERS = (0, 1, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**64 - 1)
WORDS = (
    *(b"&a ", b"*a", b"!!python/name:os.system ", b"<<: *a\n", b"? ", b"- " * 40),
    *(b"9" * 5000, b".nan", b"-.inf", b"1e999", b"\0", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b'"', b"'", b",", b"\r", b"\n\n", b"\t", b"../", b"{", b"[", b"null", b"|\n"),
    *(b"%YAML 1.1\n---\n", b"\xed\xa0\x80", "\u202e".encode()),
)
TAGS = (*range(254, 342), 34665)  # of TIFF, and where EXIF begins

# Of DICOM: transfer syntax, presentation, samples, frames, size, spacings, bits, sign,
# padding, window, rescale, lookup tables.
DICOM_TAGS = (
    *((0x0002, 0x0010), (0x2050, 0x0020), (0x0028, 0x0002), (0x0028, 0x0004)),
    *((0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0030)),
    *((0x0018, 0x1164), (0x0018, 0x2010), (0x0028, 0x0100), (0x0028, 0x0101)),
    *((0x0028, 0x0102), (0x0028, 0x0103), (0x0028, 0x0120), (0x0028, 0x0121)),
    *((0x0028, 0x1050), (0x0028, 0x1051), (0x0028, 0x1052), (0x0028, 0x1053)),
    *((0x0028, 0x1056), (0x0028, 0x3000), (0x0028, 0x3010), (0x0028, 0x0301)),
)
DECIMALS = (
    *(b"", b"0", b"-1", b"1e400", b"nan", b"inf ", b"1\\2 ", b"0.2\\0.1 ", b"\\\\"),
    *(b"wide", b"0\\0 ", b"1\\2\\3 "),
)
CODES = (b"SIGMOID ", b"LINEAR_EXACT", b"INVERSE ", b"RGB ")
VALUES = (
    *((b"DS", text) for text in DECIMALS),
    *((b"US", struct.pack("<H", number)) for number in (0, 1, 8, 16, 65535)),
    *((b"CS", text) for text in CODES),
    *(
        (b"FD", struct.pack("<d", 1e308)),
        (b"SQ", b""),
        (b"UN", bytes(6)),
        (b"IS", b"9"),
    ),
)
LONG_TYPES = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def spoil(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """One to six edits, each of a kind drawn anew; few are likelier."""
    spoilt = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        _edit(random, spoilt, random.choice(corpus))
    return bytes(spoilt[:MOST_BYTES])


def _edit(random: Random, data: bytearray, other: bytes) -> None:
    # Half of the time near the start, where headers are.
    at = random.randrange(max(1, min(len(data), random.choice((64, MOST_BYTES)))))
    size = random.choice((1, 2, 4, 8, 16, 256))
    match random.randrange(9):
        case 0:
            for _ in range(random.choice((1, 2, 32))):
                if data:
                    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        case 1 | 2:  # a length field, perhaps
            number = random.choice((*NUMBERS, len(data), random.randrange(2**32)))
            order = random.choice(("big", "little"))
            size = min(size, 8)
            data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, order)
        case 3:
            del data[at:]
        case 4:
            del data[at : at + size]
        case 5:
            data[at:at] = data[at : at + size] * random.choice((1, 8, 64))
        case 6:  # the end of another file
            data[at:] = other[random.randrange(max(len(other), 1)) :]
        case 7:  # a piece or the header of another file
            start = random.choice((at, 0))
            data[start : start + 4 * size] = other[start : start + 4 * size]
        case _:
            data[at : at + random.choice((0, 1, 8))] = random.choice(WORDS)


def spoil_tags(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """TIFF, or EXIF inside another file: entries of its directory are changed."""
    start = data.find(b"II*\0")
    if start < 0 or len(data) < start + 8:
        return spoil(random, data, corpus)
    spoilt = bytearray(data)
    offset = start + int.from_bytes(data[start + 4 : start + 8], "little")
    count = int.from_bytes(data[offset : offset + 2], "little")
    for _ in range(random.choice((1, 1, 2, 4))):
        entry = offset + 2 + 12 * random.randrange(max(count, 1))
        if entry + 12 > len(data):
            break
        number = random.choice((*NUMBERS[:10], random.randrange(16)))
        match random.randrange(4):
            case 0:
                struct.pack_into("<H", spoilt, entry, random.choice(TAGS))
            case 1:
                struct.pack_into("<H", spoilt, entry + 2, random.randrange(20))
            case place:
                struct.pack_into("<I", spoilt, entry + 4 * (place - 1), number)
    return bytes(spoilt)


def spoil_dicom(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """Elements left out, of another type, or with another value; lengths that fit."""
    elements, at = [], 132
    while at + 12 <= len(data):
        kind, long = data[at + 4 : at + 6], data[at + 4 : at + 6] in LONG_TYPES
        size = int.from_bytes(
            data[at + 8 : at + 12] if long else data[at + 6 : at + 8], "little"
        )
        start = at + (12 if long else 8)
        elements.append((data[at : at + 4], kind, data[start : start + size]))
        at = start + size
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(elements))
        tag, kind, value = elements[place]
        match random.randrange(6):
            case 0:
                elements.pop(place)
            case 1:
                elements[place] = (
                    tag,
                    random.choice((*LONG_TYPES, b"US", b"DS")),
                    value,
                )
            case 2:
                elements[place] = (tag, kind, spoil(random, value, [value]))
            case _:
                group, number = random.choice(DICOM_TAGS)
                elements[place] = (
                    struct.pack("<HH", group, number),
                    *random.choice(VALUES),
                )
    return data[:132] + b"".join(
        tag
        + kind
        + (
            b"\0\0" + struct.pack("<I", len(value))
            if kind in LONG_TYPES
            else struct.pack("<H", len(value) % 65536)
        )
        + value
        for tag, kind, value in elements
    )


def spoil_png(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """Chunks edited, left out, doubled or swapped; checksums that fit."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return spoil(random, data, corpus)
    place = random.randrange(len(chunks))
    name, body = chunks[place]
    match random.randrange(5):
        case 0:
            chunks.pop(place)
        case 1:
            chunks.insert(random.randrange(len(chunks) + 1), chunks[place])
        case 2 if name == b"IDAT":
            rows = zlib.compress(spoil(random, zlib.decompress(body), corpus))
            chunks[place] = (name, rows)
        case _:
            chunks[place] = (name, spoil(random, body, [body]))
    return data[:8] + b"".join(
        struct.pack(">I", len(body))
        + name
        + body
        + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def spoil_zip(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """One member spoilt, with a checksum that fits."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = random.choice(list(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", random.choice((0, 8))) as archive:
        for name, content in members.items():
            if name == chosen:
                content = spoil(random, content, list(members.values()))
            archive.writestr(name, content)
    return buffer.getvalue()

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
# Of TIFF: sizes, bits, compression, photometric, strips, orientation, planes, tiles,
# sub-directories, extra samples, sample format.
TAGS = (
    *(256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324),
    *(330, 338, 339, 34665),
)


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

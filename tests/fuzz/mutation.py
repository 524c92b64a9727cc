"""Spoils real files: blindly, and where the format keeps its lengths and checksums."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random

MOST_BYTES = 256 * 1024
NUMBERS = (
    0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF,
    0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 2**53, 2**63 - 1, 2**64 - 1,
)  # fmt: skip
WORDS = (b"&a ", b"*a", b"!!python/name:os.system ", b"<<: *a\n", b"? ", b"- " * 40,
         b"9" * 5000, b"0x" + b"f" * 5000, b".nan", b"-.inf", b"1e999", b"\x00",
         b"\xef\xbb\xbf", b"\xff\xfe", b'"', b"'", b",", b"\r", b"\n\n", b"\t", b"../",
         b"{", b"[", b"}", b"]", b"null", b"true", b"2001-01-01", b"1:30:00", b"|\n",
         b"%YAML 1.1\n---\n", b"---\n", b"\xed\xa0\x80", "\u202e".encode())  # fmt: skip

# Of TIFF: sizes, bits, compression, photometric, strips, orientation, planes, tiles,
# sub-directories, extra samples, sample format.
TAGS = (256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324,
        330, 338, 339, 34665)  # fmt: skip

Edit = Callable[[Random, bytearray, list[bytes]], None]


def spoil(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """One to six edits, each of a kind drawn anew; fewer are likelier."""
    spoilt = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 1, 2, 2, 3, 4, 6))):
        random.choice(EDITS)(random, spoilt, corpus)
    return bytes(spoilt[:MOST_BYTES])


def _place(random: Random, data: bytearray) -> int:
    """Anywhere, but half of the time near the start or the end, where headers are."""
    if not data:
        return 0
    match random.randrange(4):
        case 0:
            return random.randrange(min(len(data), 64))
        case 1:
            return len(data) - 1 - random.randrange(min(len(data), 128))
        case _:
            return random.randrange(len(data))


def _flip_bits(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    for _ in range(random.choice((1, 1, 2, 8, 32))):
        if data:
            data[_place(random, data)] ^= 1 << random.randrange(8)


def _set_bytes(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    if data:
        data[_place(random, data)] = random.choice((0, 0x7F, 0x80, 0xFF, 0x20, 0x0A))


def _number(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    """A length field, perhaps: an odd number of 2, 4 or 8 bytes, either end first."""
    size = random.choice((2, 4, 4, 8))
    number = random.choice(
        (*NUMBERS, len(data), len(data) + 1, random.randrange(2**32))
    )
    at = _place(random, data)
    if at + size <= len(data):
        order = random.choice(("big", "little"))
        data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, order)


def _add(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    """A number that is there, a little larger or smaller."""
    size = random.choice((1, 2, 4))
    at = _place(random, data)
    if at + size <= len(data):
        order = random.choice(("big", "little"))
        number = int.from_bytes(data[at : at + size], order)
        number = (number + random.randint(-32, 32)) % 2 ** (8 * size)
        data[at : at + size] = number.to_bytes(size, order)


def _cut_off(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    del data[_place(random, data) :]


def _cut_out(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    at = _place(random, data)
    del data[at : at + random.choice((1, 2, 4, 16, 256))]


def _repeat(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    at = _place(random, data)
    piece = data[at : at + random.choice((1, 4, 16, 64, 512))]
    data[at:at] = piece * random.choice((1, 2, 8, 64))


def _splice(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    """The end of another file after the beginning of this one."""
    other = random.choice(corpus)
    if other and data:
        data[_place(random, data) :] = other[random.randrange(len(other)) :]


def _graft(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    """A piece of another file over a piece of this one."""
    other = random.choice(corpus)
    if other and data:
        start = random.randrange(len(other))
        piece = other[start : start + random.choice((4, 16, 64, 1024))]
        at = _place(random, data)
        data[at : at + len(piece)] = piece


def _other_header(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    size = random.choice((4, 8, 16, 33, 64))
    data[:size] = random.choice(corpus)[:size]


def _word(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    at = _place(random, data)
    data[at : at + random.choice((0, 0, 1, 8))] = random.choice(WORDS)


def _line(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    """Text: a line moved, doubled, dropped or indented otherwise."""
    lines = bytes(data).splitlines(keepends=True)
    if len(lines) < 2:
        return
    at = random.randrange(len(lines))
    match random.randrange(4):
        case 0:
            lines.insert(random.randrange(len(lines)), lines.pop(at))
        case 1:
            lines.insert(at, lines[random.randrange(len(lines))])
        case 2:
            lines.pop(at)
        case _:
            lines[at] = b" " * random.choice((1, 2, 4)) + lines[at]
    data[:] = b"".join(lines)


EDITS: tuple[Edit, ...] = (
    _flip_bits, _flip_bits, _set_bytes, _number, _number, _add, _cut_off, _cut_out,
    _repeat, _splice, _graft, _other_header, _word, _line,
)  # fmt: skip


def spoil_tags(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """TIFF, or EXIF inside another file: an entry of its directory is changed."""
    start = max(data.find(b"II*\0"), 0)
    if data[start : start + 4] != b"II*\0" or len(data) < start + 8:
        return spoil(random, data, corpus)
    spoilt = bytearray(data)
    (offset,) = struct.unpack_from("<I", data, start + 4)
    offset += start
    count = int.from_bytes(data[offset : offset + 2], "little")
    for _ in range(random.choice((1, 1, 2, 4))):
        entry = offset + 2 + 12 * random.randrange(max(count, 1))
        if entry + 12 > len(data):
            break
        match random.randrange(4):
            case 0:
                struct.pack_into("<H", spoilt, entry, random.choice(TAGS))
            case 1:
                struct.pack_into("<H", spoilt, entry + 2, random.randrange(20))
            case place:
                number = random.choice((*NUMBERS[:15], random.randrange(16)))
                struct.pack_into("<I", spoilt, entry + 4 * (place - 1), number)
    return bytes(spoilt)


def mend_png(data: bytes) -> bytes:
    """The same chunks with checksums that fit, so that what is inside is read."""
    if data[:4] != b"\x89PNG":
        return data
    mended, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        mended += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(mended + data[at:])


def spoil_inside_png(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
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
    match random.randrange(6):
        case 0:
            chunks.pop(place)
        case 1:
            chunks.insert(random.randrange(len(chunks) + 1), chunks[place])
        case 2:
            chunks.insert(random.randrange(len(chunks)), chunks.pop(place))
        case 3 if name == b"IDAT":
            body = zlib.compress(spoil(random, _inflated(body), corpus))
            chunks[place] = (name, body)
        case _:
            chunks[place] = (name, spoil(random, body, [body]))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(
            ">I", zlib.crc32(name + body)
        )
        for name, body in chunks
    )  # fmt: skip


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def spoil_inside_zip(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """One member spoilt and packed again with a checksum that fits."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # spoilt earlier
        return spoil(random, data, corpus)
    if not members or sum(map(len, members.values())) > 4 * MOST_BYTES:
        return spoil(random, data, corpus)
    chosen = random.choice(list(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", random.choice((0, 8))) as archive:
        for name, content in members.items():
            if name == chosen:
                content = spoil(random, content, list(members.values()))
            archive.writestr(name, content)
    return buffer.getvalue()

"""Where two files part: the first member, field, cell or byte that is not the same."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import imaging

SHOWN = 40  # characters of a value


def first(one: Path, other: Path) -> str:
    """Says where two files or folders differ first; "" where they are equal."""
    if not one.exists() or not other.exists():
        return "is there once only"
    if one.is_dir() != other.is_dir():
        return "a folder once, a file once"
    if not one.is_dir():
        return in_bytes(one.name, one.read_bytes(), other.read_bytes())
    sides = [
        {p.relative_to(top).as_posix(): p for p in top.rglob("*") if p.is_file()}
        for top in (one, other)
    ]
    for name in sorted(sides[0].keys() | sides[1].keys()):
        if name not in sides[0] or name not in sides[1]:
            return f"{name} is there once only"
        found = first(sides[0][name], sides[1][name])
        if found:
            return f"{name}: {found}"
    return ""


def in_bytes(name: str, one: bytes, other: bytes) -> str:
    """Says where two contents differ first, by what the name says they are."""
    if one == other:
        return ""
    look = BY_SUFFIX.get(Path(name).suffix.lower())
    try:
        found = look(one, other) if look else ""
    except Exception as error:  # a parser of what may be broken raises what it likes
        found = f"cannot be parsed ({type(error).__name__})"
    return found or _byte(one, other)


def _byte(one: bytes, other: bytes) -> str:
    length = min(len(one), len(other))
    unequal = np.frombuffer(one[:length], np.uint8) != np.frombuffer(
        other[:length], np.uint8
    )
    place = int(unequal.argmax()) if unequal.any() else length
    return f"byte {place} of {len(one)} and {len(other)}"


def _json(one: bytes, other: bytes) -> str:
    return _value("", json.loads(one), json.loads(other))


def _value(place: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other:
                return f"{place}.{key} is there once only".lstrip(".")
            if found := _value(f"{place}.{key}", one[key], other[key]):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list):
        for index, pair in enumerate(zip(one, other, strict=False)):
            if found := _value(f"{place}[{index}]", *pair):
                return found
    if one == other and type(one) is type(other):
        return ""
    return f"{place.lstrip('.') or 'all'}: {_shown(one)} and {_shown(other)}"


def _csv(one: bytes, other: bytes) -> str:
    tables = [list(csv.reader(io.StringIO(side.decode()))) for side in (one, other)]
    header = tables[0][0] if tables[0] else []
    for number, rows in enumerate(zip_longest(*tables), start=1):
        if rows[0] is None or rows[1] is None:
            return f"line {number} is there once only"
        for column, cells in enumerate(zip_longest(*rows)):
            if cells[0] != cells[1]:
                name = header[column] if column < len(header) else str(column)
                return (
                    f"line {number}, {name}: {_shown(cells[0])} and {_shown(cells[1])}"
                )
    return ""


def _text(one: bytes, other: bytes) -> str:
    sides = one.decode().split("\n"), other.decode().split("\n")
    for number, (left, right) in enumerate(zip_longest(*sides), start=1):
        if left != right:
            return f"line {number}: {_shown(left)} and {_shown(right)}"
    return ""


def _zip(one: bytes, other: bytes) -> str:
    archives = [zipfile.ZipFile(io.BytesIO(side)) for side in (one, other)]
    members = [archive.infolist() for archive in archives]
    for left, right in zip_longest(*members):
        if left is None or right is None or left.filename != right.filename:
            return "other members, or in another order"
        found = in_bytes(left.filename, archives[0].read(left), archives[1].read(right))
        if found:
            return f"{left.filename}: {found}"
        if left.date_time != right.date_time:
            return f"{left.filename}: its time"
    return ""


def _hdf5(one: bytes, other: bytes) -> str:
    import h5py  # type: ignore[import-untyped]

    with h5py.File(io.BytesIO(one)) as left, h5py.File(io.BytesIO(other)) as right:
        names: list[str] = []
        left.visit(names.append)
        for name in names:
            if name not in right:
                return f"{name} is there once only"
            if isinstance(left[name], h5py.Dataset):
                values = left[name][()], right[name][()]
                if not np.array_equal(*values):
                    return f"{name}: {_numbers(*values)}"
    return ""


def _numbers(one: Any, other: Any) -> str:
    if np.shape(one) != np.shape(other):
        return f"shapes {np.shape(one)} and {np.shape(other)}"
    place = tuple(int(i) for i in np.argwhere(np.asarray(one != other))[0])
    return f"at {place}, {one[place]} and {other[place]}"


def _parquet(one: bytes, other: bytes) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    left, right = (pq.read_table(pa.BufferReader(side)) for side in (one, other))
    if left.schema != right.schema:
        return "other columns"
    if len(left) != len(right):
        return f"{len(left)} and {len(right)} rows"
    for name in left.column_names:
        if left[name] != right[name]:
            cells = zip(left[name].to_pylist(), right[name].to_pylist(), strict=True)
            for row, (a, b) in enumerate(cells):
                if a != b:
                    return f"row {row}, {name}: {_shown(a)} and {_shown(b)}"
    return "equal rows, but " + _byte(one, other)


def _png(one: bytes, other: bytes) -> str:
    left, right = imaging.decode(one), imaging.decode(other)
    if np.array_equal(left, right):
        return "equal pixels, but " + _byte(one, other)
    return f"pixels {_numbers(left, right)}"


def _onnx(one: bytes, other: bytes) -> str:
    import onnx

    left, right = (onnx.ModelProto.FromString(side) for side in (one, other))
    return _message("", left, right)


def _message(place: str, one: Any, other: Any) -> str:
    """Walks two protocol buffers of one kind."""
    if one == other:
        return ""
    for descriptor in one.DESCRIPTOR.fields:
        values = getattr(one, descriptor.name), getattr(other, descriptor.name)
        if values[0] == values[1]:
            continue
        where = f"{place}.{descriptor.name}".lstrip(".")
        if hasattr(values[0], "DESCRIPTOR"):
            return _message(where, *values)
        if isinstance(values[0], str | bytes | int | float):
            return f"{where}: {_shown(values[0])} and {_shown(values[1])}"
        for index, (a, b) in enumerate(zip(*values, strict=False)):
            if a != b:
                here = f"{where}[{getattr(a, 'name', '') or index}]"
                if hasattr(a, "DESCRIPTOR"):
                    return _message(here, a, b)
                return f"{here}: {_shown(a)} and {_shown(b)}"
        return f"{where}: {len(values[0])} and {len(values[1])}"
    return ""


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


BY_SUFFIX: dict[str, Callable[[bytes, bytes], str]] = {
    ".csv": _csv,
    ".h5": _hdf5,
    ".html": _text,
    ".json": _json,
    ".keras": _zip,
    ".md": _text,
    ".onnx": _onnx,
    ".parquet": _parquet,
    ".png": _png,
    ".txt": _text,
    ".yaml": _text,
    ".zip": _zip,
}

import io
import json
import zipfile

import h5py
import numpy as np
import onnx
import pandas as pd
import pytest

from stages.tools.differences import first, in_bytes
from tests.conftest import png
from tests.inference.onnx_models import dark_is_lung


def as_json(value) -> bytes:
    return json.dumps(value).encode()


def as_parquet(**columns) -> bytes:
    return pd.DataFrame(columns).to_parquet()


def as_hdf5(values) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/conv/0"] = np.asarray(values)
    return buffer.getvalue()


def as_zip(members, date=(1980, 1, 1, 0, 0, 0)) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, date), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "one", "other", "found"),
    [
        (
            "a.json",
            as_json({"x": [1, {"y": 2}], "z": 0}),
            as_json({"x": [1, {"y": 3}], "z": 1}),
            "x[1].y: 2 and 3",
        ),
        ("a.json", as_json({"x": 1}), as_json({"y": 1}), "x is there once only"),
        ("a.json", as_json([1]), as_json([1, 2]), "all: [1] and [1, 2]"),
        ("a.json", b"[1]", b"[ 1]", "byte 1 of 3 and 4"),
        ("a.csv", b"p,q\n1,2\n", b"p,q\n1,3\n", "line 2, q: '2' and '3'"),
        ("a.csv", b"p\n1\n", b"p\n1\n2\n", "line 3 is there once only"),
        ("a.md", b"a\nb\n", b"a\nc\n", "line 2: 'b' and 'c'"),
        ("a.parquet", as_parquet(a=[1, 2]), as_parquet(a=[1, 3]), "row 1, a: 2 and 3"),
        ("a.parquet", as_parquet(a=[1]), as_parquet(b=[1]), "other columns"),
        ("a.parquet", as_parquet(a=[1]), as_parquet(a=[1, 1]), "1 and 2 rows"),
        (
            "a.h5",
            as_hdf5([[1.0, 2.0]]),
            as_hdf5([[1.0, 2.5]]),
            "layers/conv/0: at (0, 1), 2.0 and 2.5",
        ),
        (
            "a.keras",
            as_zip({"config.json": b"{}", "model.weights.h5": as_hdf5([1])}),
            as_zip({"config.json": b"{}", "model.weights.h5": as_hdf5([2])}),
            "model.weights.h5: layers/conv/0: at (0,), 1 and 2",
        ),
        (
            "a.keras",
            as_zip({"a": b""}),
            as_zip({"a": b""}, (2026, 1, 1, 0, 0, 0)),
            "a: its time",
        ),
        ("a.zip", as_zip({"a": b""}), as_zip({"b": b""}), "other members, or in an"),
        (
            "a.png",
            png(np.zeros((2, 2), np.uint8)),
            png(np.eye(2, dtype=np.uint8)),
            "pixels at (0, 0), 0 and 1",
        ),
        ("a.bin", b"abc", b"abd", "byte 2 of 3 and 3"),
        ("a.bin", b"abc", b"ab", "byte 2 of 3 and 2"),
        ("a.json", b"{", b"[", "cannot be parsed (JSONDecodeError)"),
        ("a.keras", b"PK", b"PL", "cannot be parsed (BadZipFile)"),
    ],
)
def test_the_first_difference_is_named(name, one, other, found):
    assert in_bytes(name, one, other).startswith(found)
    assert in_bytes(name, one, one) == ""


def test_a_weight_and_a_name_in_onnx(tmp_path):
    content = dark_is_lung(tmp_path / "a.onnx", 8, facts={"a": 1}).read_bytes()
    model = onnx.ModelProto.FromString(content)
    model.graph.node[1].name = "other"
    told = in_bytes("a.onnx", content, model.SerializeToString())
    assert told == "graph.node[1].name: '' and 'other'"
    other = dark_is_lung(tmp_path / "a.onnx", 8, facts={"a": 2}).read_bytes()
    assert in_bytes("a.onnx", content, other).startswith("metadata_props[0].value: ")


def test_folders(tmp_path):
    for top in ("a", "b"):
        (tmp_path / top / "sub").mkdir(parents=True)
        (tmp_path / top / "sub" / "x.json").write_text("{}")
    assert first(tmp_path / "a", tmp_path / "b") == ""
    (tmp_path / "b" / "y").touch()
    assert first(tmp_path / "a", tmp_path / "b") == "y is there once only"
    (tmp_path / "b" / "sub" / "x.json").write_text('{"k": 1}')
    told = first(tmp_path / "a", tmp_path / "b")
    assert told == "sub/x.json: k is there once only"
    assert first(tmp_path / "a", tmp_path / "c") == "is there once only"
    assert first(tmp_path / "a", tmp_path / "b" / "y") == "a folder once, a file once"

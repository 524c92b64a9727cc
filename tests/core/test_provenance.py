import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from stages.core import provenance
from stages.core.errors import PipelineError
from stages.core.provenance import read

FACTS = {
    "inputs": {"model": {"md5": "1", "sha256": "2"}},
    "data": {"licence": "CC BY 4.0 — ©"},
    "params": {"train": {"learning_rate": 0.001}},
}


def small_onnx(path, facts=FACTS):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "g", [value], [value])
    model = helper.make_model(graph)
    if facts is not None:
        provenance.into_onnx(model, facts)
    onnx.save(model, str(path))
    return path


def small_litert(path, facts=FACTS):
    model = schema.ModelT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], []
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    path.write_bytes(
        content if facts is None else provenance.into_litert(content, facts)
    )
    return path


def small_folder(path, facts=FACTS):
    path.mkdir()
    (path / "saved_model.pb").touch()
    if facts is not None:
        provenance.write_beside(path, facts)
    return path


KINDS = {"m.onnx": small_onnx, "m.tflite": small_litert, "m": small_folder}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_is_read(tmp_path, name):
    assert read(KINDS[name](tmp_path / name)) == FACTS


def test_litert_keeps_what_was_there(tmp_path):
    path = small_litert(tmp_path / "m.tflite", {"inputs": {}, "earlier": 1})
    content = provenance.into_litert(path.read_bytes(), FACTS)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    assert [entry.name for entry in model.metadata] == [b"provenance"] * 2
    assert b'"earlier": 1' in np.asarray(model.buffers[1].data, np.uint8).tobytes()


@pytest.mark.parametrize("facts", [None, [], {"inputs": []}, {"inputs": {"a": 1}}])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_others_carries_none(tmp_path, name, facts):
    with pytest.raises(PipelineError, match="carries no provenance"):
        read(KINDS[name](tmp_path / name, facts))


def test_what_is_no_exported_model(tmp_path):
    with pytest.raises(PipelineError, match="is missing"):
        read(tmp_path / "none.onnx")
    (tmp_path / "a.txt").touch()
    with pytest.raises(PipelineError, match=r"should be a \.onnx file"):
        read(tmp_path / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PipelineError, match=r"no saved_model\.pb"):
        read(tmp_path / "folder")


def test_a_models_ranges_are_those_of_the_sites_it_was_trained_on():
    def greys(low, high):
        return {"accepted_statistics": {"image_mean": {"min": low, "max": high}}}

    by_site = {"A": greys(90, 120), "B": greys(80, 100), "held out": greys(10, 200)}
    quality = greys(10, 200) | {"by_site": by_site}
    facts = provenance.facts(
        data={}, inputs={}, params={}, quality=quality, sites=["A", "B"]
    )
    assert facts["data"]["usual"] == {"image_mean": [80, 120]}


def test_facts_tell_of_the_data_but_name_no_file(tmp_path):
    data = {"dataset": "d", "folder": "Jane Doe", "classes": {"Jane Doe": 1}}
    facts = provenance.facts(data=data, inputs={}, params={})
    assert facts["data"]["dataset"] == "d"
    assert "Jane" not in provenance.text(facts)

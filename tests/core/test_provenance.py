import flatbuffers
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from stages.core import provenance
from stages.core.errors import PipelineError
from stages.core.provenance import read

FACTS = {"inputs": {"model": {"md5": "1", "sha256": "2"}}, "data": {}, "params": {}}


def small_onnx(path, facts=FACTS):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "g", [value], [value])
    model = helper.make_model(graph)
    if facts is not None:
        provenance.into_onnx(model, facts)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("facts", [None, [], {"inputs": []}, {"inputs": {"a": 1}}])
def test_a_file_of_others_carries_none(tmp_path, facts):
    with pytest.raises(PipelineError, match="carries no provenance"):
        read(small_onnx(tmp_path / "m.onnx", facts))


def test_other_formats_of_others_carry_none(tmp_path):
    model = schema.ModelT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], []
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "m.tflite").write_bytes(builder.Output())
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "saved_model.pb").touch()
    for name in ("m.tflite", "m"):
        with pytest.raises(PipelineError, match="carries no provenance"):
            read(tmp_path / name)


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

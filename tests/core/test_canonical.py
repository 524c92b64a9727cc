import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2

from stages.core import canonical, files


def small_model() -> keras.Model:
    keras.utils.set_random_seed(5)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(2, 3, name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, x, name="small")


# .keras


def test_keras_archives_of_equal_models_are_equal(tmp_path, monkeypatch):
    kept = []  # alive, so that the second model lies at other addresses
    for name, year in (("a", 2001), ("b", 2002)):
        clock = (year, 2, 3, 4, 5, 6, 0, 34, 0)
        monkeypatch.setattr("time.localtime", lambda *_, clock=clock: clock)
        kept.append(small_model())
        kept[-1].save(tmp_path / f"{name}.keras")
    raw = [(tmp_path / f"{name}.keras").read_bytes() for name in "ab"]
    assert raw[0] != raw[1]  # or this test could not fail
    for name in "ab":
        canonical.keras_archive(tmp_path / f"{name}.keras")
    first, second = ((tmp_path / f"{name}.keras").read_bytes() for name in "ab")
    assert first == second

    loaded = keras.models.load_model(tmp_path / "a.keras")
    for found, wanted in zip(loaded.get_weights(), kept[0].get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_keras_archives_of_other_weights_differ(tmp_path):
    model = small_model()
    model.save(tmp_path / "a.keras")
    model.get_layer("conv").bias.assign([0.0, 1e-7])
    model.save(tmp_path / "b.keras")
    for name in "ab":
        canonical.keras_archive(tmp_path / f"{name}.keras")
    assert files.sha256(tmp_path / "a.keras") != files.sha256(tmp_path / "b.keras")


def test_shared_objects_stay_shared(tmp_path):
    """Ids are renumbered by first appearance: equal stays equal, other stays other."""
    config = {"a": {"shared_object_id": 9 << 40}, "b": [{"shared_object_id": 7}]}
    config["c"] = {"shared_object_id": 9 << 40}
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("metadata.json", '{"date_saved": "today"}')
        archive.writestr("config.json", json.dumps(config))
    canonical.keras_archive(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        found = json.loads(archive.read("config.json"))
    ids = [found["a"], found["b"][0], found["c"]]
    assert [entry["shared_object_id"] for entry in ids] == [0, 1, 0]


# ONNX

WEIGHTS = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)


def two_branches(names: dict[str, str], *, turned: bool) -> onnx.ModelProto:
    """`sigmoid(conv(image) - relu(image) * 2)`, under any names, in any order."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"], "c", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["image"], ["relu"], "r", doc_string="where"),
        helper.make_node("Mul", ["relu", "two"], ["double"], "m"),
        helper.make_node("Sub", ["conv", "double"], ["sub"], "s"),
        helper.make_node("Sigmoid", ["sub"], ["probability"], "p"),
    ]
    constants = [
        numpy_helper.from_array(WEIGHTS, "w"),
        numpy_helper.from_array(np.float32(2), "two"),
        numpy_helper.from_array(np.float32(3), "unused"),
    ]
    if turned:
        nodes = [nodes[place] for place in (1, 2, 0, 3, 4)]
        constants.reverse()
    for node in nodes:
        node.name += names["node"]
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for constant in constants:
        constant.name = names.get(constant.name, constant.name)
    image, probability = (
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [names.get(f"of {name}", "batch"), 1, 4, 4]
        )
        for name in ("image", "probability")
    )
    graph = helper.make_graph(nodes, "g", [image], [probability], constants)
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def answer(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    image = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4)
    return session.run(["probability"], {"image": image})[0]


def test_onnx_graphs_that_differ_in_names_and_order_become_equal():
    first = two_branches({"node": "1"}, turned=False)
    other = {"node": "2", "w": "Relu_0_output_0", "relu": "w", "conv": "x7", "two": "a"}
    second = two_branches(other, turned=True)
    wanted = answer(first)
    np.testing.assert_array_equal(answer(second), wanted)
    for model in (first, second):
        canonical.onnx_graph(model)
        onnx.checker.check_model(model, full_check=True)
        np.testing.assert_array_equal(answer(model), wanted)
    first, second = (m.SerializeToString(deterministic=True) for m in (first, second))
    assert first == second
    assert b"unused" not in first


def test_onnx_graphs_that_differ_in_a_weight_stay_different():
    first, second = (two_branches({"node": ""}, turned=False) for _ in range(2))
    weights = WEIGHTS.copy()
    weights[0, 0, 0, 0] = 1
    second.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    for model in (first, second):
        canonical.onnx_graph(model)
    assert first.SerializeToString() != second.SerializeToString()


def test_open_sizes_of_onnx_graphs_are_named_by_first_appearance():
    """A converter's counter for them differs from one run to the next."""
    first, second, joined = (
        two_branches({"node": "", "of image": a, "of probability": b}, turned=False)
        for a, b in (("unk__217", "unk__218"), ("unk__219", "unk__220"), ("n", "n"))
    )
    wanted = answer(first)
    for model in (first, second, joined):
        canonical.onnx_graph(model)
        np.testing.assert_array_equal(answer(model), wanted)
    assert first.SerializeToString() == second.SerializeToString()
    sizes = [
        [
            value.type.tensor_type.shape.dim[0].dim_param
            for value in (*g.input, *g.output)
        ]
        for g in (first.graph, joined.graph)
    ]
    assert sizes == [["size_0", "size_1"], ["size_0", "size_0"]]


def test_onnx_graphs_within_graphs_are_refused():
    model = two_branches({"node": ""}, turned=False)
    inner = two_branches({"node": ""}, turned=False).graph
    branch = helper.make_node("If", ["image"], ["if"], then_branch=inner)
    model.graph.node.append(branch)
    with pytest.raises(ValueError, match="If"):
        canonical.onnx_graph(model)


# SavedModel


def save(path: Path) -> None:
    """A model with a variable, a loop and two signatures that share a function."""
    module = tf.Module()
    module.weight = tf.Variable([1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec((None, 2), name="x")])
    def double(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.map_fn(lambda row: row * module.weight, x) * 2}

    @tf.function(input_signature=[tf.TensorSpec((), tf.string, name="text")])
    def read(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return double(tf.io.decode_csv([text], [[0.0], [0.0]], field_delim=" ")[0:1])

    tf.saved_model.save(module, str(path), signatures={"double": double})


def test_saved_models_are_equal_whatever_was_traced_before(tmp_path):
    save(tmp_path / "a")
    for number in range(11):  # their counters pass from 9 to 10 for one of the two
        tf.function(lambda x, number=number: x + number)(tf.constant(1.0))
    save(tmp_path / "b")
    assert files.sha256(tmp_path / "a") != files.sha256(tmp_path / "b")
    for name in "ab":
        canonical.saved_model(
            tmp_path / name,
            graph=saved_model_pb2.SavedModel(),
            fingerprint=fingerprint_pb2.FingerprintDef(),
        )
    assert files.sha256(tmp_path / "a") == files.sha256(tmp_path / "b")

    loaded = tf.saved_model.load(str(tmp_path / "a"))
    found = loaded.signatures["double"](x=tf.constant([[1.0, 1.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(found["y"], [[2, 4], [6, 16]])
    fingerprint = tf.saved_model.experimental.read_fingerprint(str(tmp_path / "a"))
    assert fingerprint.saved_model_checksum
    # Git and DVC would lose an empty folder.
    assert not (tmp_path / "a" / "assets").exists()


def test_functions_are_counted_from_0_in_their_order():
    names = ["f_9", "f_10", "g_x_7", "plain", "f_101"]
    assert canonical._numbered_from_0(names) == {
        "f_9": "f_0",
        "f_10": "f_1",
        "f_101": "f_2",
        "g_x_7": "g_x_0",
    }

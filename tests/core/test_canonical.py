import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from stages.core import canonical


def small_model() -> keras.Model:
    keras.utils.set_random_seed(5)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(2, 3, name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, x, name="small")


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

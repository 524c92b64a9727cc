"""An ONNX network with known answers, made without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stages.core import provenance


def dark_is_lung(
    path: Path,
    size: int,
    *,
    facts: provenance.Facts | None = None,
    output: str = "probability",
) -> Path:
    """Writes `sigmoid(20 - 40 image)`: what is darker than mid grey is lung."""
    shape: list[Any] = ["n", size, size, 1]
    constants = {"slope": -40.0, "offset": 20.0}
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["image", "slope"], ["scaled"]),
            helper.make_node("Add", ["scaled", "offset"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], [output]),
        ],
        "dark",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.float32(value), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    if facts is not None:
        provenance.into_onnx(model, facts)
    onnx.save(model, str(path))
    return path

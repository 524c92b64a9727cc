"""ONNX: one file that old and small runtimes read alike.

Operator set 13; the input's standardisation is one InstanceNormalization and batch
norms are folded into the convolutions. The graph that TensorFlow's converter makes of
the standardisation (moments of a 5-D tensor) is silently wrong in some runtimes.
"""

import logging
from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from onnx import TensorProto, helper

from stages.core import canonical, provenance
from stages.core.imaging import Float, Predictor

logger = logging.getLogger(__name__)

OPSET = 13
IR_VERSION = 7  # of the release that brought operator set 13


def write(
    network: keras.Model,
    path: Path,
    *,
    facts: provenance.Facts,
    epsilon: float | None = None,
) -> None:
    """Writes `image` (B, S, S, C) to `probability` (B, S, S, 1), any batch size.

    `epsilon` is that of the standardisation, which the network lacks and the file has;
    None where there is none.
    """
    shape = (None, *network.input_shape[1:])
    signature = [tf.TensorSpec(shape, tf.float32, name="image")]

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probability": network(image, training=False)}

    model, _ = tf2onnx.convert.from_function(
        tf.function(serve, input_signature=signature, autograph=False),
        input_signature=signature,
        opset=OPSET,
    )
    if epsilon is not None:
        _standardise(model, epsilon)
    canonical.onnx_graph(model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    provenance.into_onnx(model, facts)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _standardise(model: onnx.ModelProto, epsilon: float) -> None:
    """Puts the standardisation before everything that reads the image.

    Over all pixels and channels of an image: as one channel of S x (S C) pixels. Some
    runtimes add them in float32, one after the other; around 0 the sum stays exact
    enough, at 256x256 too.
    """
    graph = model.graph
    image = graph.input[0]
    _, height, width, channels = (d.dim_value for d in image.type.tensor_type.shape.dim)
    for node in graph.node:
        node.input[:] = ["standard" if x == image.name else x for x in node.input]
    graph.initializer.extend(
        [
            helper.make_tensor(
                "one_channel", TensorProto.INT64, [4], [-1, 1, height, width * channels]
            ),
            helper.make_tensor(
                "as_before", TensorProto.INT64, [4], [-1, height, width, channels]
            ),
            helper.make_tensor("middle", TensorProto.FLOAT, [1], [0.5]),
            helper.make_tensor("scale", TensorProto.FLOAT, [1], [1.0]),
            helper.make_tensor("bias", TensorProto.FLOAT, [1], [0.0]),
        ]
    )
    nodes = [
        helper.make_node("Reshape", [image.name, "one_channel"], ["flat"]),
        helper.make_node("Sub", ["flat", "middle"], ["centred"]),
        helper.make_node(
            "InstanceNormalization",
            ["centred", "scale", "bias"],
            ["normal"],
            epsilon=epsilon,
        ),
        helper.make_node("Reshape", ["normal", "as_before"], ["standard"]),
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)


def load(path: Path) -> Predictor:
    """Reads the file with ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )

    def predict(images: Float) -> Float:
        return np.asarray(session.run(["probability"], {"image": images})[0])

    return predict


def load_in_opencv(path: Path) -> Predictor | None:
    """Reads the file with OpenCV's dnn; None if OpenCV refuses it."""
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        logger.warning("OpenCV cannot read %s: %s", path.name, error.err)
        return None

    def predict(images: Float) -> Float:
        network.setInput(images)
        return np.asarray(network.forward())

    return predict

"""ONNX: one file, batch norm folded into the convolutions, no training left in it."""

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx

from stages.core import canonical, provenance
from stages.core.imaging import Float, Predictor

OPSET = 18


def write(network: keras.Model, path: Path, *, facts: provenance.Facts) -> None:
    """Writes `image` (B, S, S, C) to `probability` (B, S, S, 1), any batch size.

    Args:
        network: Images (B, S, S, C) in [0, 1] to probabilities (B, S, S, 1).
        path: File to write.
        facts: Provenance, for the file's metadata.
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
    canonical.onnx_graph(model)
    provenance.into_onnx(model, facts)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


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

"""LiteRT (once TensorFlow Lite): one image at a time, static shapes, float32."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from stages.core import native_log, provenance
from stages.core.imaging import Float, Predictor


def write(
    network: keras.Model,
    path: Path,
    *,
    facts: provenance.Facts,
    epsilon: float | None = None,
) -> None:
    """Writes `image` (1, S, S, C) to `probability` (1, S, S, 1).

    The batch is fixed at one, since delegates on devices want static shapes. `epsilon`
    is as in `onnx_file.write`.
    """

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        if epsilon is not None:
            image -= _mean(image)
            image *= tf.math.rsqrt(_mean(image * image) + epsilon)
        return {"probability": network(image, training=False)}

    shape = (1, *network.input_shape[1:])
    module = tf.Module()
    module.weights = [variable.value for variable in network.variables]
    module.serve = tf.function(
        serve,
        input_signature=[tf.TensorSpec(shape, tf.float32, name="image")],
        autograph=False,
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )
    path.write_bytes(provenance.into_litert(converter.convert(), facts))


def _mean(image: tf.Tensor) -> tf.Tensor:
    """By rows first: LiteRT adds in float32, one value after the other.

    A sum of all 256x256 at once is off by so much that a probability moves by 0.002.
    """
    rows = tf.reduce_mean(image, axis=2, keepdims=True)
    return tf.reduce_mean(rows, axis=(1, 3), keepdims=True)


def load(path: Path) -> Predictor:
    """Reads the file with LiteRT, on one thread."""
    interpreter = Interpreter(str(path), num_threads=1)
    with native_log.without_notices():
        interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()

    def predict(images: Float) -> Float:
        return np.concatenate([run(image=one[None])["probability"] for one in images])

    return predict

"""TensorFlow SavedModel: what TensorFlow and TensorFlow Serving load.

`serving_default`: `image` (B, S, S, C) float32 in [0, 1] to `probability`
(B, S, S, 1).
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from stages.core import canonical, provenance
from stages.core.imaging import Float, Predictor


def write(network: keras.Model, path: Path, *, facts: provenance.Facts) -> None:
    """Makes the folder, with the provenance beside the graph."""
    image = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32, name="image")
    module = tf.Module()
    module.weights = [variable.value for variable in network.variables]
    serve = tf.function(
        lambda image: {"probability": network(image, training=False)},
        input_signature=[image],
        autograph=False,
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    canonical.saved_model(path)
    provenance.write_beside(path, facts)


def load(path: Path) -> Predictor:
    """Reads the folder with TensorFlow, as a server does."""
    # The loaded object owns the variables: the closure keeps it alive.
    module = tf.saved_model.load(str(path))
    signature = module.signatures["serving_default"]

    def predict(images: Float, _owner: object = module) -> Float:
        prob = signature(image=tf.constant(images))["probability"]
        return np.asarray(prob.numpy(), np.float32)

    return predict

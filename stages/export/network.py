"""The trained network, rewritten for export: the same answers, less to compute."""

from typing import Any

import keras
import numpy as np
from keras import layers


def folded(model: keras.Model) -> keras.Model:
    """A copy in which each batch norm is merged into the convolution before it.

    It is the same function up to rounding. A batch norm that does not directly follow a
    convolution stays as it is.
    """
    norms = {
        layer.name: layer.input._keras_history.operation
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    }
    norms = {
        name: conv
        for name, conv in norms.items()
        if isinstance(conv, layers.Conv2D)
        and conv.activation is keras.activations.linear
        and len(conv._outbound_nodes) == 1
    }
    convs = {conv.name for conv in norms.values()}

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if layer.name in convs:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: keras.Layer, x: keras.KerasTensor, **kwargs: Any) -> Any:
        return x if layer.name in norms else layer(x, **kwargs)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.name not in norms and layer.name not in convs:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    for name, conv in norms.items():
        norm = model.get_layer(name)
        kernel, *biases = conv.get_weights()
        bias = biases[0] if biases else np.zeros(kernel.shape[-1], np.float32)
        # (filters,) each; float64, so that only the result is rounded.
        ones = np.ones(kernel.shape[-1])
        gamma = np.asarray(norm.gamma, np.float64) if norm.scale else ones
        beta = np.asarray(norm.beta, np.float64) if norm.center else 0 * ones
        mean = np.asarray(norm.moving_mean, np.float64)
        factor = gamma / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
        copy.get_layer(conv.name).set_weights(
            [kernel * factor, (bias - mean) * factor + beta]
        )
    return copy


def without_standardisation(model: keras.Model) -> tuple[keras.Model, float | None]:
    """The network behind its `standardize` layer, and that layer's epsilon, if any."""
    for layer in model.layers:
        if layer.name == "standardize":
            return keras.Model(layer.output, model.outputs), float(layer.epsilon)
    return model, None

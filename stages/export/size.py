"""The work of a network: its multiply-adds, from its layers."""

import math

import keras


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds per image, through every kernel of the network.

    Convolutions and dense layers count, as usual; normalisation, activation and
    pooling, about 1 % of the work, do not. The input size must be fixed.
    """
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.Model):  # flip_tta runs the network once more
            total += multiply_adds(layer)
            continue
        kernels = [w.shape for w in layer.weights if w.name.endswith("kernel")]
        if kernels:
            # Each output pixel (each input pixel, if transposed) takes all of them.
            is_transposed = "Transpose" in type(layer).__name__
            shape = (layer.input if is_transposed else layer.output).shape
            total += math.prod(shape[1:-1]) * sum(map(math.prod, kernels))
    return total

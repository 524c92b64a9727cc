"""One file an architecture, each with `build(params) -> keras.Model`, found by name.

A network takes images (B, S, S, C) float32 in [0, 1] and returns a list of logits,
finest level first: (B, S, S, 1), (B, S/2, S/2, 1), … one a supervision weight. Its
layers are Keras's own and named by their part (`encoder_0_…`, `middle_…`,
`decoder_0_…`, `head_0`), finest level 0, so that a saved model loads without this
project and the gradient table can be read.
"""

from importlib import import_module
from typing import Any

import keras

from stages.core.params import TrainParams


def build(params: TrainParams) -> keras.Model:
    """Builds the network that `train.architecture` names."""
    module = import_module(f"{__name__}.{params.architecture}")
    model: keras.Model = module.build(params)
    return model


def inputs(params: TrainParams) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input and its normalised form, one layer without weights for every network.

    `standardize` brings each image to mean 0 and variance 1: exposure and window
    width then matter less, and the step is part of every exported file.
    """
    shape = (params.image_size, params.image_size, params.image_channels)
    image = keras.Input(shape, name="image")
    if params.input_normalization == "none":
        return image, image
    normalised = keras.layers.GroupNormalization(
        groups=1, center=False, scale=False, dtype="float32", name="standardize"
    )(image)
    return image, normalised


def levels(outputs: Any) -> list[Any]:
    """A call's outputs as a list, finest first; Keras unwraps a list of one."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def head(x: keras.KerasTensor, level: int) -> keras.KerasTensor:
    """1x1 convolution to logits; float32, since a float16 loss overflows."""
    return keras.layers.Conv2D(1, 1, dtype="float32", name=f"head_{level}")(x)


def conv_block(
    x: keras.KerasTensor, filters: int, momentum: float, name: str
) -> keras.KerasTensor:
    """The article's block: Conv 3x3, ReLU, Conv 3x3, batch norm, ReLU."""
    x = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv_1")(x)
    x = keras.layers.ReLU(name=f"{name}_relu_1")(x)
    x = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv_2")(x)
    x = keras.layers.BatchNormalization(momentum=momentum, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu_2")(x)

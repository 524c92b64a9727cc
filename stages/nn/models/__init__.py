"""One file per architecture, each with `build(params) -> keras.Model`, found by name.

A network takes images (B, S, S, C) float32 in [0, 1] and returns a list of logits,
finest level first: (B, S, S, 1), (B, S/2, S/2, 1), …, one per supervision weight. Its
layers are Keras's own, so that a saved model loads without this project, and named by
their part (`encoder_0_…`, `middle_…`, `decoder_0_…`, `head_0`), finest level 0.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from stages.core import plugins
from stages.core.errors import PipelineError
from stages.core.params import TrainParams

Block = Callable[[keras.KerasTensor, int, float, str], keras.KerasTensor]
Gate = Callable[[keras.KerasTensor, keras.KerasTensor, int, str], keras.KerasTensor]
Head = Callable[[keras.KerasTensor, int], keras.KerasTensor]


def build(params: TrainParams, *, any_size: bool = False) -> keras.Model:
    """Builds the network that `train.architecture` names.

    Args:
        params: The train section.
        any_size: Whether it takes images of any size, as in training that begins
            with small ones; the weights are the same either way.

    Raises:
        PipelineError: If `image_size` does not fit the network.
    """
    module = plugins.load(__name__, params.architecture)
    step = getattr(module, "PATCH", 1) * 2 ** (len(params.filters) - 1)
    step *= 2 if params.low_resolution_fraction else 1
    if params.image_size % step:
        raise PipelineError(
            f"train.image_size must be a multiple of {step} for the network "
            f"{params.architecture}, found {params.image_size}"
        )
    if any_size:
        params = params.model_copy(update={"image_size": None})
    model: keras.Model = module.build(params)
    return model


def u_shape(
    params: TrainParams,
    *,
    name: str,
    block: Block,
    down: Block,
    gate: Gate = lambda skip, *_: skip,
    stem: Callable[[keras.KerasTensor], keras.KerasTensor] = lambda x: x,
    head: Head | None = None,
) -> keras.Model:
    """Encoder, middle, decoder and supervised heads, from the parts that differ.

    Args:
        params: Uses image_size, image_channels, filters (one per encoder stage, the
            middle last), batch_norm_momentum, supervision_weights, input_normalization.
        name: Of the network.
        block: (x, filters, batch-norm momentum, name) to features of the same size.
        down: The same at half the size.
        gate: (skip, decoder features, filters, name) to the skip that is used.
        stem: The normalised image to the finest encoder's input.
        head: (decoder features, level) to logits.

    Returns:
        Image (B, S, S, C) to a list of logits, finest first.
    """
    *widths, middle = params.filters
    momentum = params.batch_norm_momentum
    image, x = inputs(params)  # (B, S, S, C)
    x = stem(x)

    skips = []
    for level, width in enumerate(widths):
        x = (down if level else block)(x, width, momentum, f"encoder_{level}")
        skips.append(x)  # (B, S/2^level, S/2^level, width)
    x = down(x, middle, momentum, "middle")

    logits = []
    for level in reversed(range(len(widths))):
        part, width = f"decoder_{level}", widths[level]
        x = layers.Conv2DTranspose(width, 2, strides=2, name=f"{part}_up")(x)
        skip = gate(skips[level], x, width, f"{part}_gate")
        x = layers.Concatenate(name=f"{part}_skip")([x, skip])
        x = block(x, width, momentum, part)
        if level < len(params.supervision_weights):
            logits.append((head or pixel_head)(x, level))
    return keras.Model(image, logits[::-1], name=name)


def inputs(params: TrainParams) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input and its normalised form, one layer without weights for every network.

    `standardize` brings each image to mean 0 and variance 1: exposure and window
    width then matter less, and the step is part of every exported file.
    """
    shape = (params.image_size, params.image_size, params.image_channels)
    image = keras.Input(shape, name="image")
    if params.input_normalization == "none":
        return image, image
    normalised = layers.GroupNormalization(
        groups=1,
        epsilon=1e-5,  # Keras' 1e-3 gives a low-contrast image a variance of 0.2
        center=False,
        scale=False,
        dtype="float32",
        name="standardize",
    )(image)
    return image, normalised


def levels(outputs: Any) -> list[Any]:
    """A call's outputs as a list, finest first; Keras unwraps a list of one."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def pixel_head(x: keras.KerasTensor, level: int) -> keras.KerasTensor:
    """1x1 convolution to logits; float32, since a float16 loss overflows."""
    return layers.Conv2D(1, 1, dtype="float32", name=f"head_{level}")(x)


def conv_block(
    x: keras.KerasTensor, filters: int, momentum: float, name: str
) -> keras.KerasTensor:
    """The article's block: Conv 3x3, ReLU, Conv 3x3, batch norm, ReLU."""
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv_1")(x)
    x = layers.ReLU(name=f"{name}_relu_1")(x)
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv_2")(x)
    x = layers.BatchNormalization(momentum=momentum, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu_2")(x)


def pooled_conv_block(
    x: keras.KerasTensor, filters: int, momentum: float, name: str
) -> keras.KerasTensor:
    """2x2 max pooling, then `conv_block`."""
    x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    return conv_block(x, filters, momentum, name)

"""U-Net of residual blocks that halves by stride.

Title: Road Extraction by Deep Residual U-Net, Zhang et al. 2018,
https://arxiv.org/abs/1711.10684 (residual blocks in a U-Net). Written afresh.

Changed: post-activation blocks, a transposed convolution as in `unet` for upsampling,
supervised decoder levels.
"""

import keras
from keras import layers

from stages.core.nn.models import head, inputs
from stages.core.params import TrainParams


def build(params: TrainParams) -> keras.Model:
    """Builds the network.

    Args:
        params: Uses image_size, image_channels, filters (one an encoder stage, the
            middle last), batch_norm_momentum, supervision_weights, input_normalization.

    Returns:
        Image (B, S, S, C) to a list of logits, finest first.
    """
    *widths, middle = params.filters
    image, x = inputs(params)  # (B, S, S, C)
    momentum = params.batch_norm_momentum

    skips = []
    for level, width in enumerate(widths):
        stride = 1 if level == 0 else 2
        x = _residual_block(x, width, momentum, f"encoder_{level}", stride)
        skips.append(x)  # (B, S/2^level, S/2^level, width)
    x = _residual_block(x, middle, momentum, "middle", stride=2)

    logits = []
    for level in reversed(range(len(widths))):
        name, width = f"decoder_{level}", widths[level]
        x = layers.Conv2DTranspose(width, 2, strides=2, name=f"{name}_up")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[level]])
        x = _residual_block(x, width, momentum, name)
        if level < len(params.supervision_weights):
            logits.append(head(x, level))
    return keras.Model(image, logits[::-1], name="residual_unet")


def _residual_block(
    x: keras.KerasTensor, filters: int, momentum: float, name: str, stride: int = 1
) -> keras.KerasTensor:
    """Two normalised 3x3 convolutions, added to a 1x1 projection of their input."""

    def normalised(x: keras.KerasTensor, size: int, step: int, part: str):  # type: ignore[no-untyped-def]
        x = layers.Conv2D(
            filters,
            size,
            strides=step,
            padding="same",
            use_bias=False,  # the norm behind it has one
            name=f"{name}_{part}",
        )(x)
        norm = layers.BatchNormalization(momentum=momentum, name=f"{name}_{part}_norm")
        return norm(x)

    shortcut = normalised(x, 1, stride, "shortcut")
    x = normalised(x, 3, stride, "conv_1")
    x = layers.ReLU(name=f"{name}_relu_1")(x)
    x = normalised(x, 3, 1, "conv_2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu_2")(x)

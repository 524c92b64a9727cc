"""U-Net whose skips pass an attention gate.

Title: Attention U-Net: Learning Where to Look for the Pancreas, Oktay et al. 2018,
https://arxiv.org/abs/1804.03999. Written afresh.

Changed: two dimensions, the article's blocks, and gates at the skip's own resolution
(the decoder's features are already upsampled there), so that no coefficient map has to
be interpolated. Suggested for small targets, such as lesions in brain MRI.
"""

import keras
from keras import layers

from stages.core.nn.models import conv_block, head, inputs
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
        x = conv_block(x, width, momentum, f"encoder_{level}")
        skips.append(x)  # (B, S/2^level, S/2^level, width)
        x = layers.MaxPooling2D(2, name=f"encoder_{level}_pool")(x)

    x = conv_block(x, middle, momentum, "middle")

    logits = []
    for level in reversed(range(len(widths))):
        name, width = f"decoder_{level}", widths[level]
        x = layers.Conv2DTranspose(width, 2, strides=2, name=f"{name}_up")(x)
        skip = _gate(skips[level], x, max(width // 2, 1), f"{name}_gate")
        x = layers.Concatenate(name=f"{name}_skip")([x, skip])
        x = conv_block(x, width, momentum, name)
        if level < len(params.supervision_weights):
            logits.append(head(x, level))
    return keras.Model(image, logits[::-1], name="attention_unet")


def _gate(
    skip: keras.KerasTensor, signal: keras.KerasTensor, filters: int, name: str
) -> keras.KerasTensor:
    """Scales every pixel of a skip by how much the decoder's signal asks for it."""
    asked = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_skip")(skip)
    signal = layers.Conv2D(filters, 1, name=f"{name}_signal")(signal)
    x = layers.Add(name=f"{name}_add")([asked, signal])
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_share")(x)
    return layers.Multiply(name=f"{name}_scale")([skip, x])  # (B, H, W, C)

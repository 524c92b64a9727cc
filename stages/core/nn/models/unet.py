"""U-Net with supervised decoder levels, as in the article this project follows.

Title: Image segmentation, U-Net and deep supervision loss using Keras (the network
and its heads); U-Net: Convolutional Networks for Biomedical Image Segmentation,
https://arxiv.org/abs/1505.04597 (the shape). Written afresh.

Changed: batch-norm momentum is a param (the article's 0.99 leaves validation Dice at
0 for the first epoch), inputs may be standardised, any depth and any number of heads.
With filters 64 to 1024, one channel and two heads: 31,042,498 parameters.
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
        name = f"decoder_{level}"
        x = layers.Conv2DTranspose(widths[level], 2, strides=2, name=f"{name}_up")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[level]])
        x = conv_block(x, widths[level], momentum, name)
        if level < len(params.supervision_weights):
            logits.append(head(x, level))
    return keras.Model(image, logits[::-1], name="unet")

"""U-Net at a quarter of the image's size, between a patch stem and a sub-pixel head.

Title: Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network, Shi et al. 2016, https://arxiv.org/abs/1609.05158 (the
head). Written afresh.

Changed: the rearrangements between 4x4 pixels and channels are convolutions of stride
4, orthogonal at first, which every exported format and old runtime reads. At 256 pixels
a step takes about as long as that of `unet` at 128, and outlines are finer.
"""

import keras
from keras import layers

from stages.core.params import TrainParams
from stages.nn.models import conv_block, pooled_conv_block, u_shape

PATCH = 4  # pixels; `train.image_size` is a multiple of this times 2^(stages - 1)


def build(params: TrainParams) -> keras.Model:
    """Builds the network; args and result as `u_shape`'s."""
    return u_shape(
        params,
        name="subpixel_unet",
        block=conv_block,
        down=pooled_conv_block,
        stem=_patches,
        head=_subpixels,
    )


def _patches(x: keras.KerasTensor) -> keras.KerasTensor:
    """(B, S, S, C) to (B, S/4, S/4, 16 C)."""
    return layers.Conv2D(
        PATCH**2 * x.shape[-1],
        PATCH,
        strides=PATCH,
        kernel_initializer="orthogonal",
        name="encoder_0_patches",
    )(x)


def _subpixels(x: keras.KerasTensor, level: int) -> keras.KerasTensor:
    """(B, H, W, C) to logits (B, 4 H, 4 W, 1), float32."""
    x = layers.Conv2D(
        PATCH**2, 3, padding="same", dtype="float32", name=f"head_{level}_conv"
    )(x)
    return layers.Conv2DTranspose(
        1,
        PATCH,
        strides=PATCH,
        kernel_initializer="orthogonal",
        dtype="float32",
        name=f"head_{level}",
    )(x)

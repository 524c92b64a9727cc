"""U-Net of residual blocks that halves by stride.

Title: Road Extraction by Deep Residual U-Net, Zhang et al. 2018,
https://arxiv.org/abs/1711.10684 (residual blocks in a U-Net). Written afresh.

Changed: post-activation blocks, a transposed convolution as in `unet` for upsampling,
supervised decoder levels.
"""

from functools import partial

import keras
from keras import layers

from stages.core.params import TrainParams
from stages.nn.models import u_shape


def build(params: TrainParams) -> keras.Model:
    """Builds the network; args and result as `u_shape`'s."""
    return u_shape(
        params,
        name="residual_unet",
        block=_residual_block,
        down=partial(_residual_block, stride=2),
    )


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

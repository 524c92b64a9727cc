"""U-Net whose skips pass an attention gate.

Title: Attention U-Net: Learning Where to Look for the Pancreas, Oktay et al. 2018,
https://arxiv.org/abs/1804.03999. Written afresh.

Changed: two dimensions, the article's blocks, and gates at the skip's own resolution
(the decoder's features are already upsampled there), so that no coefficient map has to
be interpolated. Suggested for small targets, such as lesions in brain MRI.
"""

import keras
from keras import layers

from stages.core.params import TrainParams
from stages.nn.models import conv_block, pooled_conv_block, u_shape


def build(params: TrainParams) -> keras.Model:
    """Builds the network; args and result as `u_shape`'s."""
    return u_shape(
        params,
        name="attention_unet",
        block=conv_block,
        down=pooled_conv_block,
        gate=_gate,
    )


def _gate(
    skip: keras.KerasTensor, signal: keras.KerasTensor, filters: int, name: str
) -> keras.KerasTensor:
    """Scales every pixel of a skip by how much the decoder's signal asks for it."""
    filters = max(filters // 2, 1)
    asked = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_skip")(skip)
    signal = layers.Conv2D(filters, 1, name=f"{name}_signal")(signal)
    x = layers.Add(name=f"{name}_add")([asked, signal])
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_share")(x)
    return layers.Multiply(name=f"{name}_scale")([skip, x])  # (B, H, W, C)

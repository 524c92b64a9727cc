"""U-Net with supervised decoder levels, as in the article this project follows.

Title: Image segmentation, U-Net and deep supervision loss using Keras (the network
and its heads); U-Net: Convolutional Networks for Biomedical Image Segmentation,
https://arxiv.org/abs/1505.04597 (the shape). Written afresh.

Changed: batch-norm momentum is a param (the article's 0.99 leaves validation Dice at
0 for the first epoch), inputs may be standardised, any depth and any number of heads.
With filters 64 to 1024, one channel and two heads: 31,042,498 parameters.
"""

import keras

from stages.core.params import TrainParams
from stages.nn.models import conv_block, pooled_conv_block, u_shape


def build(params: TrainParams) -> keras.Model:
    """Builds the network; args and result as `u_shape`'s."""
    return u_shape(params, name="unet", block=conv_block, down=pooled_conv_block)

"""Losses on logits: every public function is a choice of `train.loss`.

Each takes targets (B, H, W, 1) float32 in [0, 1], soft ones allowed, and logits of the
same shape, and returns one value per image, shape (B,).
"""

from keras import KerasTensor as Tensor
from keras import ops


def bce(mask: Tensor, logits: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over an image's pixels, >= 0."""
    # max(x, 0) - x z + log(1 + exp(-|x|)): finite for any logit.
    loss = ops.relu(logits) - logits * mask + ops.softplus(-ops.abs(logits))
    return ops.mean(loss, axis=(1, 2, 3))


def dice(mask: Tensor, logits: Tensor) -> Tensor:
    """Soft Dice loss in [0, 1]: `1 - (2 sum(t p) + s) / (sum(t) + sum(p) + s)`.

    The smoothing `s` of one pixel gives an empty mask a gradient that pushes
    probabilities down; `keras.losses.dice`, whose epsilon is in the denominator alone,
    costs 1 there and teaches nothing.
    """
    prob = ops.sigmoid(logits)
    axes = (1, 2, 3)
    overlap = ops.sum(mask * prob, axis=axes)
    total = ops.sum(mask, axis=axes) + ops.sum(prob, axis=axes)
    return 1 - (2 * overlap + 1) / (total + 1)


def bce_dice(mask: Tensor, logits: Tensor) -> Tensor:
    """Sum of `bce` and `dice`, as in nnU-Net."""
    return bce(mask, logits) + dice(mask, logits)


def bce_foreground_dice(mask: Tensor, logits: Tensor) -> Tensor:
    """`bce`, plus `dice` for images with foreground, for lesions that may be absent.

    In images without, `dice` pushes so hard that the network learns to find nothing in
    doubtful images with foreground either.
    """
    has_foreground = ops.cast(ops.any(mask > 0, axis=(1, 2, 3)), logits.dtype)
    return bce(mask, logits) + has_foreground * dice(mask, logits)

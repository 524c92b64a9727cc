"""Losses on logits, one value an image, and their sum over supervised levels."""

from collections.abc import Sequence

import keras
from keras import ops

EPSILON = 1e-6


def bce(mask: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Binary cross-entropy of logits, the mean over an image's pixels.

    Args:
        mask: Targets, shape (B, H, W, 1), float32 in [0, 1], soft ones allowed.
        logits: Raw network output, same shape.

    Returns:
        Shape (B,), >= 0.
    """
    # max(x, 0) - x z + log(1 + exp(-|x|)): finite for any logit.
    loss = ops.relu(logits) - logits * mask + ops.softplus(-ops.abs(logits))
    return ops.mean(loss, axis=(1, 2, 3))


def dice(mask: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Soft Dice loss, one an image: `1 - (2 sum(t p) + s) / (sum(t) + sum(p) + s)`.

    The smoothing `s` of one pixel gives an empty mask a gradient that pushes
    probabilities down; without it an empty mask teaches nothing.

    Args:
        mask: Targets, shape (B, H, W, 1), float32 in [0, 1], soft ones allowed.
        logits: Raw network output, same shape.

    Returns:
        Shape (B,), in [0, 1].
    """
    prob = ops.sigmoid(logits)
    axes = (1, 2, 3)
    overlap = ops.sum(mask * prob, axis=axes)
    total = ops.sum(mask, axis=axes) + ops.sum(prob, axis=axes)
    return 1 - (2 * overlap + 1) / (total + 1)


def bce_dice(mask: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Sum of `bce` and `dice`, as nnU-Net combines them; args and shape as theirs."""
    return bce(mask, logits) + dice(mask, logits)


LOSSES = {"bce": bce, "dice": dice, "bce_dice": bce_dice}


def supervised(
    mask: keras.KerasTensor,
    levels: Sequence[keras.KerasTensor],
    *,
    loss: str,
    weights: Sequence[float],
) -> keras.KerasTensor:
    """Weighted sum of a loss over decoder levels, against the mask averaged down.

    Args:
        mask: Targets, shape (B, S, S, 1), float32 in [0, 1].
        levels: Logits, finest first, shapes (B, S/2^k, S/2^k, 1).
        loss: `bce`, `dice` or `bce_dice`.
        weights: One a level.

    Returns:
        Shape (B,): one value an image, so that a mean over any number of devices is
        the mean over the global batch.
    """
    if len(levels) != len(weights):
        raise ValueError(
            f"weights should have one entry a level ({len(levels)}), "
            f"received {len(weights)}"
        )
    total = ops.zeros_like(mask[:, 0, 0, 0])
    for logits, weight in zip(levels, weights, strict=True):
        factor = mask.shape[1] // logits.shape[1]
        target = mask if factor == 1 else ops.average_pool(mask, factor, factor)
        logits = ops.cast(logits, "float32")
        total = total + weight * LOSSES[loss](target, logits)
    return total


def hard_dice(mask: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Dice of thresholded masks, one an image: what the training curve shows.

    At the network's size and of the soft mask cut at one half; only `evaluate`
    scores at the mask's own size. Both empty counts as 1 here, so that a curve has
    no holes.

    Args:
        mask: Targets, shape (B, H, W, 1), float32 in [0, 1].
        logits: Raw network output, same shape.

    Returns:
        Shape (B,), in [0, 1].
    """
    true = ops.cast(mask >= 0.5, "float32")
    pred = ops.cast(logits >= 0, "float32")
    axes = (1, 2, 3)
    overlap = ops.sum(true * pred, axis=axes)
    total = ops.sum(true, axis=axes) + ops.sum(pred, axis=axes)
    return (2 * overlap + EPSILON) / (total + EPSILON)

"""Deep supervision: one loss at several decoder levels, and the Dice of the curves."""

from collections.abc import Sequence

from keras import KerasTensor as Tensor
from keras import ops

from stages.nn import losses

EPSILON = 1e-6


def supervised(
    mask: Tensor, levels: Sequence[Tensor], *, loss: str, weights: Sequence[float]
) -> Tensor:
    """Weighted sum of a loss over decoder levels, against the mask averaged down.

    Args:
        mask: Targets, shape (B, S, S, 1), float32 in [0, 1].
        levels: Logits, finest first, shapes (B, S/2^k, S/2^k, 1).
        loss: The name of a function in `losses`.
        weights: One per level.

    Returns:
        One value per image, shape (B,), so that a mean over any number of devices is
        the mean over the global batch.
    """
    total = ops.zeros_like(mask[:, 0, 0, 0])
    for logits, weight in zip(levels, weights, strict=True):
        factor = mask.shape[1] // logits.shape[1]
        target = mask if factor == 1 else ops.average_pool(mask, factor, factor)
        logits = ops.cast(logits, "float32")
        total = total + weight * getattr(losses, loss)(target, logits)
    return total


def hard_dice(mask: Tensor, logits: Tensor) -> Tensor:
    """Dice of thresholded masks, one value per image: the training curve's.

    Both are (B, H, W, 1) at the network's size, with the soft mask cut at one half;
    `evaluate` scores at the mask's own size. Two empty masks count as 1.
    """
    true = ops.cast(mask >= 0.5, "float32")
    pred = ops.cast(logits >= 0, "float32")
    axes = (1, 2, 3)
    overlap = ops.sum(true * pred, axis=axes)
    total = ops.sum(true, axis=axes) + ops.sum(pred, axis=axes)
    return (2 * overlap + EPSILON) / (total + EPSILON)

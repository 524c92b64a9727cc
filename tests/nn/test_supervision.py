import numpy as np

from stages.nn import losses
from stages.nn.supervision import hard_dice, supervised
from tests.nn.test_losses import certain, mask


def test_every_level_counts_by_its_weight():
    fine, coarse = certain(mask()), np.zeros((3, 4, 4, 1), "f4")
    pooled = mask().reshape(3, 4, 2, 4, 2, 1).mean((2, 4))
    for weights in ([1.0, 0.5], [1.0, 0.25], [0.5, 0.0]):
        value = supervised(mask(), [fine, coarse], loss="bce", weights=weights)
        expected = weights[0] * losses.bce(mask(), fine) + weights[1] * losses.bce(
            pooled, coarse
        )
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_hard_dice():
    # Two of four lung pixels found, none too much: 2 * 2 / (4 + 2).
    target = np.zeros((1, 4, 4, 1), "f4")
    target[0, 0] = 1
    logits = np.full((1, 4, 4, 1), -1.0, "f4")
    logits[0, 0, :2] = 1
    np.testing.assert_allclose(hard_dice(target, logits), 4 / 6, rtol=1e-5)
    empty = np.zeros_like(target)
    np.testing.assert_allclose(hard_dice(empty, logits * 0 - 1), 1, rtol=1e-5)

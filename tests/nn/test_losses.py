import numpy as np
import pytest
import tensorflow as tf

from stages.core import plugins
from stages.core.params import STAGES
from stages.nn import losses

NAMES = plugins.functions(STAGES / "nn" / "losses.py")
LOSSES = [getattr(losses, name) for name in NAMES]


def mask(seed=0, size=8):
    return (np.random.default_rng(seed).random((3, size, size, 1)) > 0.5).astype("f4")


def certain(target):
    """Logits that mean the target, as surely as float32 can say."""
    return (target * 2 - 1) * 100


@pytest.mark.parametrize("loss", LOSSES)
def test_perfect_is_zero_and_one_value_per_image(loss):
    value = loss(mask(), certain(mask()))
    assert value.shape == (3,)
    np.testing.assert_allclose(value, 0, atol=1e-6)


def test_the_worst_dice_is_nearly_one():
    np.testing.assert_allclose(losses.dice(mask(), certain(1 - mask())), 1, atol=0.02)


def test_values_by_hand():
    # Logit 0 is probability 1/2. Cross-entropy: log 2 a pixel. Dice: 2 of 4 pixels
    # are lung, so 1 - (2 * 1 + 1) / (2 + 2 + 1) = 0.4.
    target = np.array([[1, 0], [1, 0]], "f4").reshape(1, 2, 2, 1)
    zero = np.zeros_like(target)
    np.testing.assert_allclose(losses.bce(target, zero), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses.dice(target, zero), 0.4, rtol=1e-6)
    np.testing.assert_allclose(
        losses.bce_dice(target, zero), np.log(2) + 0.4, rtol=1e-6
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_an_empty_or_full_mask_still_teaches(loss, fill):
    logits = tf.Variable(
        np.random.default_rng(0).normal(size=(1, 8, 8, 1)), dtype="float32"
    )
    target = tf.fill((1, 8, 8, 1), fill)
    with tf.GradientTape() as tape:
        value = loss(target, logits)
    gradient = tape.gradient(value, logits).numpy()
    assert np.isfinite(gradient).all()
    # Towards an empty mask every logit goes down, towards a full one up.
    assert (gradient > 0).all() if fill == 0 else (gradient < 0).all()


def test_logits_far_out_are_finite_and_have_a_gradient():
    logits = tf.Variable(np.full((1, 8, 8, 1), -80.0), dtype="float32")
    with tf.GradientTape() as tape:
        loss = losses.bce(tf.ones((1, 8, 8, 1)), logits)
    assert float(loss[0]) == pytest.approx(80)
    assert np.abs(tape.gradient(loss, logits)).min() > 0

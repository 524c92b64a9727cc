import numpy as np
import pytest
import tensorflow as tf

from stages.nn import losses


def mask(seed=0, size=8):
    return (np.random.default_rng(seed).random((3, size, size, 1)) > 0.5).astype("f4")


def certain(target):
    """Logits that mean the target, as surely as float32 can say."""
    return (target * 2 - 1) * 100


@pytest.mark.parametrize("name", losses.LOSSES)
def test_perfect_is_zero_and_one_value_an_image(name):
    value = losses.LOSSES[name](mask(), certain(mask()))
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


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_an_empty_or_full_mask_still_teaches(name, fill):
    logits = tf.Variable(
        np.random.default_rng(0).normal(size=(1, 8, 8, 1)), dtype="float32"
    )
    target = tf.fill((1, 8, 8, 1), fill)
    with tf.GradientTape() as tape:
        loss = losses.LOSSES[name](target, logits)
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(gradient).all()
    # Towards an empty mask every logit goes down, towards a full one up.
    assert (gradient > 0).all() if fill == 0 else (gradient < 0).all()


def test_logits_far_out_are_finite_and_have_a_gradient():
    logits = tf.Variable(np.full((1, 8, 8, 1), -80.0), dtype="float32")
    with tf.GradientTape() as tape:
        loss = losses.bce(tf.ones((1, 8, 8, 1)), logits)
    assert float(loss[0]) == pytest.approx(80)
    assert np.abs(tape.gradient(loss, logits)).min() > 0


def test_every_level_counts_by_its_weight():
    fine, coarse = certain(mask()), np.zeros((3, 4, 4, 1), "f4")
    pooled = mask().reshape(3, 4, 2, 4, 2, 1).mean((2, 4))
    for weights in ([1.0, 0.5], [1.0, 0.25], [0.5, 0.0]):
        value = losses.supervised(mask(), [fine, coarse], loss="bce", weights=weights)
        expected = weights[0] * losses.bce(mask(), fine) + weights[1] * losses.bce(
            pooled, coarse
        )
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"one entry a level \(2\), received 1"):
        losses.supervised(mask(), [fine, coarse], loss="bce", weights=[1.0])


def test_hard_dice():
    # Two of four lung pixels found, none too much: 2 * 2 / (4 + 2).
    target = np.zeros((1, 4, 4, 1), "f4")
    target[0, 0] = 1
    logits = np.full((1, 4, 4, 1), -1.0, "f4")
    logits[0, 0, :2] = 1
    np.testing.assert_allclose(losses.hard_dice(target, logits), 4 / 6, rtol=1e-5)
    empty = np.zeros_like(target)
    np.testing.assert_allclose(losses.hard_dice(empty, logits * 0 - 1), 1, rtol=1e-5)

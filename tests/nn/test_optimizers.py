"""Tests of `stages.nn.optimizers`."""

import keras
import numpy as np
import pytest

from stages.nn import optimizers

RATE = 0.01


def first_update(section, name: str) -> np.ndarray:
    """By how much the first step of `muon` moves a kernel, as rows and columns."""
    layer = keras.layers.Conv2D(8, 3, name=name)
    layer.build((None, 16, 16, 4))
    optimizer = optimizers.muon(section("train", learning_rate=RATE))
    before = layer.kernel.numpy()
    gradient = np.random.default_rng(1).normal(size=before.shape).astype(np.float32)
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [layer.kernel])
    return (layer.kernel.numpy() - before).reshape(-1, 8)


def test_muon_moves_a_kernel_as_far_in_every_direction(section):
    sizes = np.linalg.svd(first_update(section, "encoder_0_conv_1"), compute_uv=False)
    expected = RATE * 0.2 * np.sqrt(3 * 3 * 4)
    # Five iterations bring singular values near 1, between 0.7 and 1.2.
    assert sizes == pytest.approx(expected, rel=0.35)


def test_heads_are_moved_by_adam(section):
    assert np.abs(first_update(section, "head_0")) == pytest.approx(RATE, rel=1e-3)

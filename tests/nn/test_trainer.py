from itertools import islice

import numpy as np
import pytest
from tensorflow.python.framework.config import disable_op_determinism

from stages.nn import dataset
from stages.nn.gradients import GradientProbe
from stages.nn.runtime import seed_everything
from stages.nn.trainer import Trainer, learning_rate_at
from tests.conftest import lungs


def batch(count=4):
    pictures = [lungs(seed, image_size=32, mask_size=32) for seed in range(count)]
    images = np.stack([image[..., None] for image, _ in pictures])
    masks = np.stack([mask[..., None] for _, mask in pictures])
    return images, masks


def as_floats(arrays):
    return tuple(a.astype(np.float32) / 255 for a in arrays)


@pytest.fixture
def trainer(section):
    def build(**overrides):
        seed_everything(1)
        return Trainer(section("train", **overrides))

    return build


class TestLearningRate:
    def rates(self, section, schedule, warmup=0.1, steps=100):
        values = {"learning_rate_schedule": schedule, "warmup_fraction": warmup}
        params = section("train", learning_rate=1.0, **values)
        return [learning_rate_at(step, steps, params) for step in range(steps)]

    @pytest.mark.parametrize(
        "schedule", ["constant", "cosine", "polynomial", "one_cycle"]
    )
    def test_climbs_to_the_peak_then_never_up_again(self, section, schedule):
        rates = self.rates(section, schedule)
        assert max(rates) == rates[9] == rates[10] == 1.0
        assert rates[:10] == sorted(rates[:10])
        assert rates[10:] == sorted(rates[10:], reverse=True)

    def test_values_by_hand(self, section):
        assert self.rates(section, "constant", 0.0) == [1.0] * 100
        # Half way down a cosine is half the peak.
        assert self.rates(section, "cosine", 0.0)[50] == pytest.approx(0.5)
        assert self.rates(section, "polynomial", 0.0)[50] == pytest.approx(0.5**0.9)
        assert self.rates(section, "one_cycle")[0] == pytest.approx(0.04 + 0.096)
        assert self.rates(section, "cosine", 0.0)[99] < 0.001


def test_steps_learn_two_images(trainer):
    learner = trainer(learning_rate=0.01, batch_size=2)
    data = as_floats(batch(2))
    losses = [float(learner.train_step(data, 0.01)[0]) for _ in range(40)]
    assert losses[-1] < 0.4 * losses[0]
    assert float(learner.train_step(data, 0.0)[1]) > 0.9


def test_averaged_weights_follow_the_definition(trainer):
    data = as_floats(batch())
    learner = trainer(ema_momentum=0.5)
    kernel = learner.model.trainable_variables[0]
    seen = []
    for _ in range(3):
        learner.train_step(data, 0.01)
        seen.append(kernel.numpy())
    # The first step sets the average, later ones move it by half.
    expected = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]
    with learner.averaged_weights():
        np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-5)
    assert np.array_equal(kernel.numpy(), seen[2])
    with pytest.raises(ZeroDivisionError), learner.averaged_weights():
        raise ZeroDivisionError
    assert np.array_equal(kernel.numpy(), seen[2])


def test_a_network_in_half_precision_trains_with_float32_heads(trainer):
    learner = trainer(precision="mixed_float16")
    loss, _ = learner.train_step(as_floats(batch()), 0.001)
    assert np.isfinite(float(loss))
    assert learner.model.get_layer("encoder_0_conv_1").compute_dtype == "float16"
    assert learner.model.get_layer("head_0").compute_dtype == "float32"


def test_a_compiled_step_is_the_plain_one(trainer):
    small = {"filters": [4, 8], "supervision_weights": [1.0]}
    plain, compiled = trainer(**small), trainer(**small, jit_compile=True)
    disable_op_determinism()  # XLA has no deterministic gradient of max pooling
    data = as_floats(batch())
    # The second loss is that of weights which the compiled optimiser has updated.
    for _ in range(2):
        losses = [float(t.train_step(data, 0.001)[0]) for t in (plain, compiled)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class TestStepsOnDevice:
    @pytest.fixture
    def arrays(self):
        return dataset.Arrays(*batch(10))

    def test_steps_in_one_call_are_calls_of_one_step(self, trainer, arrays):
        plan = dataset.step_plan(10, trainer().params, 0, slice(0, 3))
        columns = (*plan, np.array([0.01, 0.02, 0.03], np.float32))
        together, apart = trainer(), trainer()
        found = together.steps_on_device(arrays)(*columns).numpy()
        step = apart.steps_on_device(arrays)
        for place in range(3):
            row = step(*(values[place : place + 1] for values in columns))
            assert np.array_equal(found[place], row[0])
        for a, b in zip(together.state(), apart.state(), strict=True):
            assert np.array_equal(a, b)

    def test_they_are_the_steps_of_batches_that_the_host_makes(self, trainer, arrays):
        on_device, fed = trainer(), trainer()
        params = fed.params
        plan = dataset.step_plan(10, params, 1, slice(0, 3))
        rates = np.full(3, 0.01, np.float32)
        found = on_device.steps_on_device(arrays)(*plan, rates).numpy()
        batches = dataset.batches(arrays, params, range(1, 2))
        each = [fed.train_step(b, 0.01) for b in islice(batches, 3)]
        # OpenCV rounds coordinates to 1/32 pixel and values to whole greys.
        np.testing.assert_allclose(found[:, 0], [float(v[0]) for v in each], rtol=0.01)


def norms(learner):
    return {(h, p): n for h, p, n in GradientProbe(learner, *batch()).norms()}


class TestGradientProbe:
    def test_the_coarse_head_sends_nothing_to_the_finest_decoder(self, trainer):
        rows = norms(trainer(supervision_weights=[1.0, 0.5]))
        assert rows[1, "decoder_0"] == rows[1, "head_0"] == rows[0, "head_1"] == 0
        for head in (0, 1):
            assert rows[head, "encoder_0"] > 0
            assert rows[head, "middle"] > 0

    def test_it_leaves_the_network_as_it_was(self, trainer):
        learner = trainer()
        before = learner.state()
        norms(learner)
        for a, b in zip(before, learner.state(), strict=True):
            assert np.array_equal(a, b)

    def test_half_precision_measures_the_same(self, trainer):
        """A weight this small makes gradients that float16 cannot hold unscaled."""
        plain, half = (
            norms(trainer(supervision_weights=[1e-6], precision=precision))
            for precision in ("float32", "mixed_float16")
        )
        for key, norm in plain.items():
            assert half[key] == pytest.approx(norm, rel=0.05)

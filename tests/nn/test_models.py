import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.core import plugins
from stages.core.errors import PipelineError
from stages.core.params import STAGES
from stages.export import size
from stages.nn import models
from stages.nn.gradients import part_of
from stages.nn.inference import load_model, predictor, probabilities
from stages.nn.supervision import supervised

ARCHITECTURES = plugins.names(STAGES / "nn" / "models")


@pytest.fixture(params=ARCHITECTURES)
def params(request, section):
    changes = {"filters": [4, 6, 8, 8], "supervision_weights": [1.0, 0.5, 0.25]}
    return section("train", architecture=request.param, **changes)


def images(channels=1):
    return np.random.default_rng(0).random((2, 32, 32, channels), np.float32)


def test_the_articles_network_has_its_number_of_parameters(section):
    widths = {"filters": [64, 128, 256, 512, 1024], "supervision_weights": [1.0, 0.5]}
    params = section("train", architecture="unet", **widths)
    assert models.build(params).count_params() == 31_042_498


def test_logits_a_level_finest_first(params):
    levels = models.build(params)(images())
    assert [tuple(level.shape) for level in levels] == [
        (2, 32, 32, 1),
        (2, 16, 16, 1),
        (2, 8, 8, 1),
    ]
    assert all(np.isfinite(level).all() for level in levels)


def test_a_plain_network_and_colour_images(params):
    plain = params.model_copy(
        update={"supervision_weights": [1.0], "image_channels": 3}
    )
    levels = models.levels(models.build(plain)(images(3)))
    assert [tuple(level.shape) for level in levels] == [(2, 32, 32, 1)]


def test_one_that_takes_any_size_has_the_same_weights_to_set(params):
    model, any_size = models.build(params), models.build(params, any_size=True)
    any_size.set_weights(model.get_weights())
    levels = any_size(images())
    assert all(np.allclose(a, b) for a, b in zip(levels, model(images()), strict=True))
    large = any_size(np.repeat(np.repeat(images(), 2, 1), 2, 2))
    assert [x.shape[1] for x in large] == [64, 32, 16]


def test_gradients_reach_every_weight(params):
    model = models.build(params)
    mask = (images() > 0.5).astype(np.float32)
    with tf.GradientTape() as tape:
        losses = supervised(
            mask,
            model(images(), training=True),
            loss="bce_dice",
            weights=params.supervision_weights,
        )
    gradients = tape.gradient(losses, model.trainable_variables)
    dead = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.isfinite(gradient).all() or not np.any(gradient)
    ]
    # A bias before batch norm has no effect on the loss: the norm takes it away.
    assert all(path.endswith("bias") for path in dead)
    assert len(dead) <= len(gradients) // 4


def test_parts_are_named_by_their_place(params):
    parts = {part_of(v.path) for v in models.build(params).trainable_variables}
    assert parts >= {
        "encoder_0",
        "encoder_2",
        "middle",
        "decoder_0",
        "head_0",
        "head_2",
    }
    assert all(
        p.split("_")[0] in {"encoder", "middle", "decoder", "head"} for p in parts
    )


def test_it_loads_with_keras_alone_and_gives_the_same_logits(params, tmp_path):
    model = models.build(params)
    path = tmp_path / "m.keras"
    model.save(path)
    expected = model(images())
    for found, want in zip(load_model(path)(images()), expected, strict=True):
        assert np.array_equal(found, want)


def test_the_saved_file_needs_nothing_of_ours(section, tmp_path):
    models.build(section("train")).save(tmp_path / "m.keras")
    code = (
        "import keras, sys, json; m = keras.models.load_model('m.keras');"
        "print(json.dumps([m.count_params(), 'stages' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    count, imported = json.loads(done.stdout.splitlines()[-1])
    assert count > 0
    assert not imported


def test_a_size_that_does_not_fit_is_one_sentence(section):
    params = section("train", architecture="subpixel_unet", image_size=36)
    with pytest.raises(PipelineError, match="must be a multiple of 16 for the network"):
        models.build(params)


def test_low_contrast_is_standardised(section):
    """A deviation of 4 grey levels, the least that `validate` accepts."""
    model = models.build(section("train"))
    standardize = model.get_layer("standardize")
    assert np.std(standardize(images() * 4 / 255 * 12**0.5)) > 0.97


def test_standardised_inputs_ignore_exposure(section):
    model = models.build(section("train"))
    fine = images()
    np.testing.assert_allclose(
        model(fine * 0.5 + 0.2)[0], model(fine)[0], atol=0.02, rtol=0
    )
    none = models.build(section("train", input_normalization="none"))
    assert np.abs(none(fine * 0.5 + 0.2)[0] - none(fine)[0]).max() > 0.02


def test_a_mirrored_network_averages_both_sides(section):
    model = models.build(section("train"))
    batch = images()
    plain = predictor(model)
    expected = (plain(batch) + plain(batch[:, :, ::-1])[:, :, ::-1]) / 2
    found = predictor(model, flip_tta=True)(batch)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - plain(batch)).max() > 1e-3
    shipped = probabilities(model, flip_tta=True)
    assert shipped.count_params() == probabilities(model).count_params()
    assert size.multiply_adds(shipped) == 2 * size.multiply_adds(probabilities(model))


def test_what_ships_is_the_finest_head_as_probability(params):
    model = models.build(params)
    shipped = probabilities(model)
    assert shipped.output_shape == (None, 32, 32, 1)
    assert not any(layer.name in {"head_1", "head_2"} for layer in shipped.layers)
    prob = predictor(model)(images())
    np.testing.assert_allclose(
        prob, keras.ops.sigmoid(models.levels(model(images()))[0]), atol=1e-6
    )

import json
import os
import platform
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import stages.train
from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.nn import dataset, models
from stages.nn.checkpoint import Checkpoint
from stages.nn.report import Report
from stages.nn.trainer import Trainer
from stages.train import monitored, train
from tests.conftest import ingested_pair, lungs, write_data

OUTPUTS = (paths.MODEL, paths.HISTORY, paths.GRADIENTS, paths.BUILD)


def make_data(num_train=8, num_validation=2, **validation):
    """Neighbours share a group; validation pairs are changed."""
    pairs = [
        ingested_pair(f"COVID-{seed + 1}", *lungs(seed), group=f"g{seed // 2}")
        for seed in range(num_train + num_validation)
    ]
    held_out = [replace(pair, **validation) for pair in pairs[num_train:]]
    return write_data(pairs[:num_train] + held_out, {pair.pair_id for pair in held_out})


def curve(tag):
    """Points of TensorBoard's only run: (epoch, value)."""
    (folder,) = paths.TENSORBOARD.iterdir()
    events = EventAccumulator(str(folder)).Reload().Tensors(tag)
    return [(e.step, float(make_ndarray(e.tensor_proto))) for e in events]


def hashes():
    return {path.name: files.sha256(path) for path in OUTPUTS}


def test_writes_a_model_its_curves_and_what_built_it(section):
    make_data(image=b"no image")  # of the validation rows, which are never read
    changes = {"low_resolution_fraction": 0.5, "gradient_log_interval": 1}
    params = section("train", epochs=2, **changes)
    train(params)
    model = keras.models.load_model(paths.MODEL)
    assert model.input_shape == (None, 32, 32, 1)
    history = pd.read_csv(paths.HISTORY)
    columns = ["epoch", "image_size", "loss", "dice", "learning_rate"]
    assert list(history.columns) == columns
    assert list(history["epoch"]) == [1, 2]
    assert list(history["image_size"]) == [16, 32]
    for tag in ("loss", "dice", "learning_rate"):
        steps, values = zip(*curve(tag), strict=True)
        assert steps == (1, 2)
        assert values == pytest.approx(list(history[tag]), abs=1e-6)
    gradients = pd.read_csv(paths.GRADIENTS)
    assert list(gradients.columns) == ["step", "head", "part", "gradient_norm"]
    assert set(gradients["head"]) == {0, 1}
    assert set(gradients["step"]) == {0, 1, 2, 3}
    build = json.loads(paths.BUILD.read_text())
    assert set(build["libraries"]) == set(stages.train.LIBRARIES)
    assert all(build["libraries"].values())
    assert build["python"] == platform.python_version()
    assert build["processor"]
    assert build["devices"]
    assert build["threads"] == params.threads
    # Nothing else: its hash tells machines apart.
    assert "params" not in build
    assert build["onednn"] == (os.environ["TF_ENABLE_ONEDNN_OPTS"] != "0")
    assert not paths.CHECKPOINTS.exists()


class Killed(BaseException):
    """As if the process had been killed."""


def test_a_killed_training_goes_on_to_the_same_bytes(section, monkeypatch):
    make_data()
    epoch = 2
    params = section(
        "train",
        epochs=3,
        low_resolution_fraction=0.4,  # the first of them
        ema_momentum=0.9,
        monitor_fraction=0.25,
    )
    train(params)
    undisturbed = hashes()
    for path in OUTPUTS:
        path.unlink()

    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "is_due", lambda _: True)

    def save_then_die(self, arrays, table):
        save(self, arrays, table)
        if table["epoch"] == epoch:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_then_die)
        with pytest.raises(Killed):
            train(params)
    assert not paths.MODEL.exists()
    assert (paths.CHECKPOINTS / "checkpoint.npz").exists()

    epochs = []
    batches = dataset.batches

    def seen(*args):
        epochs.extend(args[2])
        return batches(*args)

    monkeypatch.setattr(dataset, "batches", seen)
    train(params)
    assert epochs == list(range(epoch, 3))  # the finished ones are not run again
    assert hashes() == undisturbed
    history = pd.read_csv(paths.HISTORY)
    assert [step for step, _ in curve("loss")] == [1, 2, 3]
    assert [v for _, v in curve("dice")] == pytest.approx(history["dice"], abs=1e-6)


def test_other_params_do_not_take_up_a_checkpoint(section, monkeypatch, caplog):
    make_data()

    def stop(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Report, "epoch", stop)  # after the checkpoint is written
        with pytest.raises(Killed):
            train(section("train"))
    caplog.set_level("INFO")
    train(section("train", learning_rate=0.5))
    assert "the checkpoint is of another training; starting over" in caplog.text
    assert len(pd.read_csv(paths.HISTORY)) == 1


def test_the_best_monitored_epoch_is_kept(section, monkeypatch):
    make_data()
    scores = iter([(1.0, 0.5), (0.9, 0.8), (0.9, 0.7), (0.9, 0.6)])
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: next(scores))
    kept = []
    weights = Trainer.weights

    def remember(self):
        kept.append(weights(self))
        return kept[-1]

    monkeypatch.setattr(Trainer, "weights", remember)
    changes = {"monitor_fraction": 0.25, "early_stopping_patience": 2}
    train(section("train", epochs=9, **changes))
    history = pd.read_csv(paths.HISTORY)
    assert list(history["monitor_dice"]) == [0.5, 0.8, 0.7, 0.6]  # then patience ended
    shipped = keras.models.load_model(paths.MODEL).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(shipped, kept[1], strict=True))


def test_monitored_groups_stay_whole(section):
    table = make_data(num_train=20, num_validation=4)
    params = section("train", monitor_fraction=0.3)
    train_ids, monitor_ids = monitored(table, params)
    group = table.set_index("pair_id")["group"]
    assert not set(group[train_ids]) & set(group[monitor_ids])
    assert len(monitor_ids) == 6
    assert set(train_ids) | set(monitor_ids) == set(
        table.loc[table["split"] == "train", "pair_id"]
    )
    assert monitored(table[::-1], params)[1][::-1] == monitor_ids


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_monitor_fraction_that_empties_a_side_is_one_sentence(section, fraction):
    table = make_data()
    with pytest.raises(PipelineError, match=r"train\.monitor_fraction 0\.\d+ of 4"):
        monitored(table, section("train", monitor_fraction=fraction))


def test_a_loss_that_is_no_number_says_what_to_lower(section, monkeypatch):
    make_data()
    monkeypatch.setattr(Trainer, "train_step", lambda *_: (float("nan"), 0.0))
    with pytest.raises(PipelineError, match=r"the loss is nan at step 0; lower"):
        train(section("train"))
    assert not paths.MODEL.exists()


class TestInitialWeights:
    @pytest.fixture
    def given(self, section):
        """Another model, and the params that go on from it."""
        make_data()
        given = paths.DATA / "given.keras"
        models.build(section("train")).save(given)
        code = keras.layers.Lambda(lambda image: image)
        keras.Sequential([keras.Input((32, 32, 1)), code]).save("code.keras")

        def build(place=given, **overrides):
            return section("train", initial_weights=str(place), **overrides)

        return given, build

    def test_are_gone_on_from(self, given, caplog):
        path, build = given
        caplog.set_level("INFO")
        # The only file of a folder, as by default; so low a rate learns nothing.
        train(build(path.parent, learning_rate=1e-12))
        found, wanted = (
            keras.models.load_model(p).trainable_weights for p in (paths.MODEL, path)
        )
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert "initial weights: those of data/given.keras" in caplog.text

    @pytest.mark.parametrize(
        ("overrides", "sentence"),
        [
            ({"filters": [4, 8, 16]}, "should fit the network subpixel_unet of params"),
            ({"supervision_weights": [1.0]}, "should fit the network"),
            ({"place": "data/none"}, "names 'data/none', which does not exist"),
            ({"place": "data/splits/pairs.csv"}, "should be a Keras model but cannot"),
            ({"place": "code.keras"}, "should be a Keras model but cannot"),
        ],
    )
    def test_of_another_network_are_one_sentence(self, given, overrides, sentence):
        with pytest.raises(PipelineError) as error:
            train(given[1](**overrides))
        assert sentence in str(error.value)
        assert not paths.MODEL.exists()

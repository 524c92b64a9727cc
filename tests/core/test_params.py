import re

import pytest
from ruamel.yaml import YAML

from stages.core.errors import PipelineError
from stages.core.params import (
    RENAMED,
    load_params,
    parse_params,
    parse_text,
    text_with_values,
)
from tests.conftest import ROOT, with_overrides


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("train.epoch", 3, "train.epoch is not a known key"),
        ("train.epochs", "three", "must be a valid integer, found 'three'"),
        ("train.epochs", 0, "train.epochs must be greater than 0, found 0"),
        ("train.learning_rate", float("nan"), "train.learning_rate must"),
        ("train.loss", "l2", "train.loss: must be one of bce, dice, bce_dice, "),
        ("ingest.source", "web", "must be one of folder, kaggle, phantom"),
        ("ingest.folder", "~/x", "without ~ (DVC does not expand it), found '~/x'"),
        ("ingest.kaggle.dataset", "x", "ingest.kaggle.dataset must match"),
        ("split.fold", 2, "split: fold must be less than folds (0), found 2"),
        ("split.folds", 1, "split: folds must be 0 (no folds) or at least 2"),
        ("train.image_size", 100, "image_size must be a multiple of 16"),
        ("train.supervision_weights", [1.0] * 5, "must have at most 3 entries"),
        ("train.supervision_weights", [0.0, 1.0], "start with a positive weight"),
        ("train.early_stopping_patience", 3, "needs a monitor_fraction above 0"),
        ("validate.image_mask_shapes", [["a", "b"]], "must be height x width"),
        ("validate.foreground_min", 0.9, "must be less than foreground_max (0.75)"),
        ("gate.min", {"dice": {"mean": "a"}}, "gate.min.dice.mean must be a valid"),
        ("gate.max", [1], "gate.max must be a valid dictionary, found [1]"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(
    shipped_values, key, value, sentence
):
    with pytest.raises(PipelineError) as caught:
        parse_params(with_overrides(shipped_values, {key: value}))
    message = str(caught.value)
    assert message.startswith("params.yaml: ")
    assert sentence in message
    assert "\n" not in message


def test_a_missing_key_is_named(shipped_values):
    values = with_overrides(shipped_values, {})
    del values["evaluate"]["threshold"]
    values["evaluate"]["treshold"] = 0.5
    with pytest.raises(PipelineError, match=r"evaluate\.treshold is not a known key"):
        parse_params(values)
    del values["evaluate"]["treshold"]
    with pytest.raises(PipelineError, match=r"evaluate\.threshold is missing"):
        parse_params(values)


@pytest.mark.parametrize("old", RENAMED)
def test_a_renamed_key_names_its_new_name(shipped_values, old):
    section, new = RENAMED[old].split(".")
    values = with_overrides(shipped_values, {})
    values[section][old.split(".")[1]] = values[section].pop(new)
    with pytest.raises(PipelineError, match=f"{old} is called {RENAMED[old]} now"):
        parse_params(values)


def test_bounds_may_be_nested_or_dotted_and_the_later_holds(shipped_values):
    bounds = {"dice.mean": 0.5, "dice": {"mean": 0.6, "p05": 0.4}, "num_images": 3}
    params = parse_params(with_overrides(shipped_values, {"gate.min": bounds}))
    assert params.gate.min == {"dice.mean": 0.6, "dice.p05": 0.4, "num_images": 3}


def test_another_file_is_one_sentence(tmp_path):
    with pytest.raises(PipelineError, match="run from the root of the repository"):
        load_params()
    for content in (b"a: [", b"\xff", b"a: 1\na: 2\n", b"3"):
        (tmp_path / "params.yaml").write_bytes(content)
        with pytest.raises(PipelineError) as caught:
            load_params()
        assert str(caught.value).startswith("params.yaml must")
        assert "\n" not in str(caught.value)


def test_numbers_read_as_dvc_reads_them(tmp_path, shipped_values):
    """YAML 1.2: `1e-3` is a number, as it is to DVC."""
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(shipped_values, file)
    text = (tmp_path / "params.yaml").read_text()
    text = re.sub(r"learning_rate: [\d.]+", "learning_rate: 1e-3", text)
    (tmp_path / "params.yaml").write_text(text)
    assert load_params().train.learning_rate == 0.001


def test_an_override_changes_its_own_line_only():
    text = (ROOT / "params.yaml").read_text("utf-8")
    assert text_with_values(text, {}) == text
    changed = text_with_values(text, {"train.epochs": 3, "gate.min.dice.mean": 0.5})
    lines = zip(text.splitlines(), changed.splitlines(), strict=True)
    different = [new for old, new in lines if new != old]
    assert [line.split("#")[0].split() for line in different] == [
        ["epochs:", "3"],
        ["mean:", "0.5"],
    ]
    assert parse_text(changed).train.epochs == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trains.epochs", "trains is not a known key"),
        ("train.epochs.most", "epochs is a value, not a section"),
    ],
)
def test_an_invalid_override_is_one_sentence(name, words):
    text = (ROOT / "params.yaml").read_text("utf-8")
    with pytest.raises(PipelineError, match=words):
        text_with_values(text, {name: 3})

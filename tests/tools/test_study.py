"""Does a study become the DVC experiment that its file describes?"""

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core import studies
from stages.core.errors import PipelineError
from stages.core.params import parse_text, text_with_values
from stages.tools import study
from tests.conftest import ROOT, with_overrides
from tests.plan import Plan


def params_text() -> str:
    return (ROOT / "params.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", studies.names())
def test_a_study_sets_its_own_values_alone(name):
    params = studies.load(name).params
    text = text_with_values(params_text(), params)
    yaml = YAML(typ="safe", pure=True)
    assert yaml.load(text) == with_overrides(yaml.load(params_text()), dict(params))
    parse_text(text)


def test_settings_are_yaml():
    assert study.parse_settings(["a.b=3", "c=[x, 1.5]", "d=a=b", "e=''"]) == {
        "a.b": 3,
        "c": ["x", 1.5],
        "d": "a=b",
        "e": "",
    }


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("nope", [], "no study 'nope'; choose one of article"),
        ("article", ["train.epochs"], "should be key=value, such as train.epochs=5"),
        ("article", ["a=[1"], "should be key=value"),
        ("article", ["train.epochs=0"], "train.epochs must be greater than 0"),
    ],
)
def test_a_mistake_changes_nothing(name, settings, sentence, isolated):
    (isolated / "params.yaml").write_text(params_text(), "utf-8")
    with pytest.raises(PipelineError, match=sentence):
        study.study(name, settings)
    assert (isolated / "params.yaml").read_text("utf-8") == params_text()


@pytest.fixture
def repository(tmp_path):
    """A plan of one quick stage that reads the project's params."""
    (tmp_path / "params.yaml").write_text(params_text(), "utf-8")
    stage = {"cmd": "cp params.yaml kept.yaml", "params": ["ingest", "train"]}
    Plan.small(tmp_path, {"keep": stage | {"outs": ["kept.yaml"]}})
    return tmp_path


def test_it_ends_as_an_experiment_of_its_name(repository, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    folder = "it's ${oc.env:SECRET} here.zip"
    (repository / folder).write_bytes(b"")
    assert study.study("article", data=Path(folder)) == 0
    kept = YAML(typ="safe", pure=True).load((repository / "kept.yaml").read_text())
    # No value is interpreted: no secret of the environment reaches the params.
    assert kept["ingest"]["folder"] == str((repository / folder).resolve())
    assert kept["ingest"]["source"] == "folder"
    assert kept["ingest"]["classes"] == ["COVID"]
    assert kept["train"]["filters"] == [64, 128, 256, 512, 1024]
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert listed.stdout.split() == ["article"]
    # The experiment stays; the next run gets a number.
    assert study.free_name("article") == "article-2"

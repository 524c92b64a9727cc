"""Does a study become the DVC experiment that its file describes?"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages.core import studies
from stages.core.errors import PipelineError
from stages.core.params import parse_params
from stages.tools import study
from tests.conftest import ROOT, with_overrides


def params_text() -> str:
    return (ROOT / "params.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", studies.names())
def test_dvc_sets_what_the_file_says(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(params_text(), "utf-8")
    params = studies.load(name).params
    flags = study.words(name, params)[4:]
    apply_overrides(path, [flag.removeprefix("-S") for flag in flags])
    values = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    shipped = YAML(typ="safe", pure=True).load(params_text())
    assert values == with_overrides(shipped, dict(params))
    parse_params(values)


@pytest.mark.parametrize(
    "value",
    [
        "it's, [a] {b}: c=d",
        r"back\slash",
        r"\'\\'\\",
        "",
        "true",
        "12",
        "Röntgen 肺",
        ["Viral Pneumonia", "a,b"],
        [["299x299", "256x256"]],
        [],
        True,
        3,
        0.0001,
        1e-7,
    ],
)
def test_any_value_reaches_dvc_as_it_is(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a:\n  b: 1\n", "utf-8")
    apply_overrides(path, [f"a.b={study.as_override(value)}"])
    assert YAML(typ="safe", pure=True).load(path.read_text("utf-8")) == {
        "a": {"b": value}
    }


def test_settings_are_read_as_yaml() -> None:
    assert study.given(["a.b=3", "c=[x, 1.5]", "d=a=b", "e=''"]) == {
        "a.b": 3,
        "c": ["x", 1.5],
        "d": "a=b",
        "e": "",
    }


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("nope", [], "no study 'nope'"),
        ("article", ["train.epochs"], "should be key=value, such as train.epochs=5"),
        ("article", ["=3"], "should be key=value"),
        ("article", ["a=[1"], "should be key=value"),
        ("article", ["train.epoch=3"], "train.epoch is not a known key"),
        ("article", ["train.epochs=0"], "train.epochs must be greater than 0"),
        ("article", ["trian.epochs=3"], r"params.yaml has no trian\.epochs"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(
    name: str,
    settings: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "params.yaml").write_text(params_text(), "utf-8")
    monkeypatch.setattr(study.subprocess, "run", None)
    with pytest.raises(PipelineError, match=sentence):
        study.study(name, settings)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A plan of one quick stage that reads the project's params."""
    (tmp_path / "params.yaml").write_text(params_text(), "utf-8")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  keep:\n    cmd: cp params.yaml kept.yaml\n"
        "    params: [ingest, train]\n    outs: [kept.yaml]\n",
        "utf-8",
    )
    for words in (
        ["git", "init", "-q", "-b", "main"],
        ["git", "config", "user.email", "test@example.org"],
        ["git", "config", "user.name", "test"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", "begin"],
    ):
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_it_ends_as_an_experiment_of_its_name(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert study.free_name("article") == "article"
    assert study.study("article", ["ingest.folder=it's here.zip"]) == 0
    kept = YAML(typ="safe", pure=True).load((repository / "kept.yaml").read_text())
    assert kept["ingest"]["folder"] == "it's here.zip"
    assert kept["ingest"]["classes"] == ["COVID"]
    assert kept["train"]["filters"] == [64, 128, 256, 512, 1024]
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = [ref.split("/")[-1] for ref in refs.split() if "/exec/" not in ref]
    assert names == ["article"]
    # What was found once stays; the next run gets a number.
    assert study.free_name("article") == "article-2"


def test_the_command_lists_the_studies() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stages.tools.study", "nope"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no study 'nope'; there are article")


def test_make_hands_on_the_name_in_either_case() -> None:
    for variable in ("STUDY", "study"):
        done = subprocess.run(
            ["make", "-n", "study", f"{variable}=lgg_mri", "SET=train.epochs=2"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        assert "stages.tools.study lgg_mri --set 'train.epochs=2'" in done.stdout

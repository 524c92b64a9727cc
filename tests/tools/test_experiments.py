"""Many runs in one table, and the picture of what Dice costs."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from ruamel.yaml import YAML

from stages.core.errors import PipelineError
from stages.tools import experiments
from tests.conftest import ROOT


def entry(name, dice, work, *, passed=True, **params):
    statistics = {"mean": dice, "ci_low": dice - 0.01, "ci_high": dice + 0.01}
    data = {
        "params": {"params.yaml": {"data": {"train": {"epochs": 5, **params}}}},
        "metrics": {
            "data/evaluation/metrics.json": {"data": {"dice": statistics}},
            "data/gate/verdict.json": {"data": {"passed": passed}},
            "data/export.json": {"data": {"multiply_adds": work}},
        },
    }
    return {"rev": "0" * 40, "name": name, "data": data}


def shown():
    """What `dvc exp show --json` prints: commits, with experiments under them."""
    main = entry("main", 0.95, 1_000_000, filters=[8, 16])
    main["experiments"] = [
        {"name": "wide", "revs": [entry("wide", 0.97, 9_000_000, filters=[32, 64])]},
        {"name": "waste", "revs": [entry("waste", 0.94, 5_000_000, filters=[16, 32])]},
        {
            "name": "failed",
            "revs": [entry("failed", 0.2, 9, passed=False, filters=[8, 16])],
        },
        {"name": "queued", "revs": [{"rev": "1" * 40, "name": "queued", "data": None}]},
    ]
    return [main]


def test_best_first_with_intervals_and_only_params_that_differ():
    found = experiments.runs(shown())
    assert [one.name for one in found] == ["wide", "main", "waste", "failed"]
    assert experiments.differing(found) == ["train.filters"]
    assert experiments.front(found) == {"wide", "main"}
    lines = experiments.table(found).splitlines()
    assert lines[1].split() == [
        *("*", "wide", "0.9700", "0.9600", "to", "0.9800"),
        *("passed", "9,000,000", "[32,", "64]"),
    ]
    assert lines[2].startswith("*")
    assert lines[3].startswith(" ")
    # What lies behind a failed gate is another run's export.
    assert "FAILED  -" in lines[4]


def test_the_picture_is_svg_that_asks_for_nothing():
    svg = experiments.picture(experiments.runs(shown()))
    words = [element.text for element in ET.fromstring(svg).iter()]
    assert {"wide", "main", "waste"} <= set(words)  # the runs that were exported
    assert "failed" not in words
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert svg == experiments.picture(experiments.runs(shown()))
    hostile = shown()
    hostile[0]["name"] = "</svg><script>alert(1)</script>"
    ET.fromstring(experiments.picture(experiments.runs(hostile)))
    with pytest.raises(PipelineError, match="no run has both"):
        experiments.picture(experiments.runs([entry("a", 0.1, 1, passed=False)]))


def test_real_experiments_of_dvc(tmp_path, monkeypatch):
    """`dvc exp save` keeps three runs of a small plan; the command compares them."""

    def run(*words, check=True):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 or not check, done.stderr
        return done

    paths = {
        "data/evaluation/metrics.json": {"dice": {"mean": 0.9, "ci_low": 0.8}},
        "data/gate/verdict.json": {"passed": True},
        "data/export.json": {"multiply_adds": 1000},
    }
    outs = [{path: {"cache": False}} for path in paths]
    stage = {"cmd": "true", "params": ["train"], "metrics": outs}
    yaml = YAML()
    with (tmp_path / "dvc.yaml").open("w") as file:
        yaml.dump({"stages": {"train": stage}}, file)

    def write(epochs, dice, work):
        with (tmp_path / "params.yaml").open("w") as file:
            yaml.dump({"train": {"epochs": epochs}}, file)
        values = dict(paths)
        values["data/evaluation/metrics.json"] = {
            "dice": {"mean": dice, "ci_low": dice - 0.1, "ci_high": dice + 0.05}
        }
        values["data/export.json"] = {"multiply_adds": work}
        for path, value in values.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(json.dumps(value))

    dvc = (sys.executable, "-m", "dvc")
    run("git", "init", "-q", "-b", "main")
    run("git", "config", "user.email", "test@example.org")
    run("git", "config", "user.name", "test")
    run(*dvc, "init", "-q")
    write(1, 0.9, 1000)
    run(*dvc, "commit", "-q", "-f")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "base")
    for name, values in {"long": (9, 0.95, 4000), "poor": (2, 0.8, 2000)}.items():
        write(*values)
        run(*dvc, "commit", "-q", "-f")
        run(*dvc, "exp", "save", "-q", "-f", "-n", name)
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    done = run(sys.executable, "-m", "stages.tools.experiments", "-o", "out/e.svg")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][-1] == "train.epochs"
    assert lines[1][:3] == ["*", "long", "0.9500"]
    assert [line[1] for line in lines[1:3]] == ["long", "main"]
    assert ET.parse(tmp_path / "out" / "e.svg")

    monkeypatch.chdir(tmp_path / "out")
    (tmp_path / ".dvc").rename(tmp_path / "elsewhere")
    with pytest.raises(PipelineError, match="`dvc exp show` fails"):
        experiments.show([])

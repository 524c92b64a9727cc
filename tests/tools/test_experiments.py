"""Many runs in one table, and the picture of what Dice costs."""

import json
import xml.etree.ElementTree as ET

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from stages.cli import app
from stages.core import dvc_files
from stages.core.errors import PipelineError
from stages.tools import experiments
from tests.plan import Plan


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A DVC cache in which a summary's hash is its multiply-adds, padded."""
    monkeypatch.setattr(dvc_files, "cache", lambda: tmp_path / "cache")
    for work in (9, 1_000_000, 5_000_000, 9_000_000):
        place = dvc_files.stored(tmp_path / "cache", f"{work:032d}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"multiply_adds": work}))


def entry(name, dice, work, **params):
    bound = {"min": {"dice.mean": 0.5}, "max": {}}
    statistics = {"mean": dice, "ci_low": dice - 0.01, "ci_high": dice + 0.01}
    data = {
        "params": {
            "params.yaml": {"data": {"train": {"epochs": 5, **params}, "gate": bound}}
        },
        "metrics": {"data/evaluation/metrics.json": {"data": {"dice": statistics}}},
        "outs": {"data/export.json": {"hash": f"{work:032d}"}},
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
            "revs": [entry("failed", 0.2, 9, filters=[8, 16])],
        },
        {"name": "queued", "revs": [{"rev": "1" * 40, "name": "queued", "data": None}]},
    ]
    return [main]


def test_best_first_with_intervals_and_only_params_that_differ(cache):
    found = experiments.read(shown())
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
    assert lines[4].split()[5:7] == ["FAILED", "-"]


def test_the_same_runs_are_the_same_picture_of_any_names(cache, tmp_path):
    hostile = shown()
    hostile[0]["name"] = "</svg>$<script>alert(1)</script>"
    for name in ("a.svg", "b.svg"):
        experiments.draw(experiments.read(hostile), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    ET.fromstring(text)
    assert "<script>alert" not in text
    with pytest.raises(PipelineError, match="no run has both"):
        experiments.draw(experiments.read([entry("a", 0.1, 1)]), tmp_path / "c.svg")


def test_real_experiments_of_dvc(tmp_path, monkeypatch):
    """`dvc exp save` keeps three runs of a small plan; the command compares them."""

    metrics, export = "data/evaluation/metrics.json", "data/export.json"
    stage = {
        "cmd": "true",
        "params": ["train", "gate"],
        "metrics": [{metrics: {"cache": False}}],
        "outs": [export],
    }

    def write(epochs, dice, work):
        with (tmp_path / "params.yaml").open("w") as file:
            gate = {"min": {"dice.mean": 0.5}, "max": {}}
            YAML().dump({"train": {"epochs": epochs}, "gate": gate}, file)
        ends = {"mean": dice, "ci_low": dice - 0.1, "ci_high": dice + 0.05}
        values = {metrics: {"dice": ends}, export: {"multiply_adds": work}}
        for path, value in values.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(json.dumps(value))

    plan = Plan.small(tmp_path, {"train": stage})
    write(1, 0.9, 1000)
    plan.run("dvc", "commit", "-q", "-f")
    plan.commit("base")
    for name, values in {"long": (9, 0.95, 4000), "poor": (2, 0.8, 2000)}.items():
        write(*values)
        plan.run("dvc", "commit", "-q", "-f")
        plan.run("dvc", "exp", "save", "-q", "-f", "-n", name)
    done = CliRunner().invoke(app, ["experiments", "-o", "out/e.svg"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert lines[0][-1] == "train.epochs"
    assert lines[1][:3] == ["*", "long", "0.9500"]
    assert [line[1] for line in lines[1:3]] == ["long", "main"]
    assert ET.parse(tmp_path / "out" / "e.svg")

    monkeypatch.chdir(tmp_path / "out")
    (tmp_path / ".dvc").rename(tmp_path / "elsewhere")
    with pytest.raises(PipelineError, match="`dvc exp show` failed"):
        experiments.show([])

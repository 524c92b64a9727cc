"""Many runs in one table, and the picture of what Dice costs."""

import dataclasses
import json
import math
import xml.etree.ElementTree as ET

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML
from typer.testing import CliRunner

from stages.cli import app
from stages.core import paths
from stages.core.errors import PipelineError
from stages.tools import experiments
from tests.plan import Plan

STAGE = {
    "cmd": "true",
    "params": ["train", "gate"],
    "metrics": [{str(paths.METRICS): {"cache": False}}],
    "plots": [{str(paths.PER_IMAGE): {"cache": False}}],
    "outs": [str(paths.EXPORT_SUMMARY)],
}


@pytest.fixture
def plan(tmp_path):
    """A commit, and three runs that `dvc exp save` keeps."""

    def write(width, dice, multiply_adds):
        train = {"epochs": 5, "filters": [width]}
        gate = {"min": {"dice.mean": 0.5}, "max": {}}
        YAML().dump({"train": train, "gate": gate}, paths.PARAMS)
        ends = {"mean": dice, "ci_low": dice - 0.01, "ci_high": dice + 0.01}
        for path, text in {
            paths.METRICS: json.dumps({"dice": ends}),
            paths.PER_IMAGE: f"pair_id,class_name,dice\na,A,{dice}\n",
            paths.EXPORT_SUMMARY: json.dumps({"multiply_adds": multiply_adds}),
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    plan = Plan.small(tmp_path, {"train": STAGE})
    for name, *values in (
        ("base", 8, 0.95, 1_000_000),
        ("wide", 32, 0.97, 9_000_000),
        ("waste", 16, 0.94, 5_000_000),
        ("failed", 8, 0.2, 9),
    ):
        write(*values)
        with Repo() as repo:
            repo.commit(force=True)
            if name == "base":
                plan.commit("base")
            else:
                repo.experiments.save(name=name, force=True)
    return plan


def test_best_first_with_intervals_and_only_params_that_differ(plan, monkeypatch):
    done = CliRunner().invoke(app, ["experiments", "-o", "out/e.svg"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split()[-2:] == ["multiply-adds", "train.filters"]
    assert lines[1].split() == [
        *("*", "wide", "0.9700", "0.9600", "to", "0.9800"),
        *("passed", "9,000,000", "[32]"),
    ]
    assert lines[2].startswith("*   main ")
    assert lines[3].startswith("    waste ")
    # The export of a run that fails at the gate is that of an earlier run.
    assert lines[4].split()[:1] + lines[4].split()[-3:-1] == ["failed", "FAILED", "-"]
    ET.parse(plan.root / "out" / "e.svg")

    plan.git("checkout", "-qf", "HEAD~1")
    with pytest.raises(PipelineError, match="no run has both"):
        experiments.run(plan.root / "none.svg", num=None, all_commits=False)
    assert len(experiments.read(1, all_commits=True)) == 4
    monkeypatch.chdir(plan.root / "out")
    with pytest.raises(PipelineError, match="should be its root"):
        experiments.read(1, all_commits=False)


def test_the_same_runs_are_the_same_picture_of_any_names(tmp_path):
    run = experiments.Run("</svg>$<script>", {}, 0.9, 0.8, 0.95, True, 1e6)
    runs = [run, dataclasses.replace(run, name="undefined", dice=math.nan)]
    for name in ("a.svg", "b.svg"):
        experiments.draw(runs, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    ET.fromstring(text)
    assert "<script>" not in text

"""The plan as a user meets it: `dvc repro` in a clone, with tiny params."""

import copy
import json

import pytest

from stages.core import files
from tests.conftest import with_overrides
from tests.plan import Plan

STAGES = ["ingest", "validate", "split", "train", "evaluate", "gate", "export"]


@pytest.mark.slow
def test_stages_run_when_they_must_and_only_then(tmp_path, tiny_values):
    plan = Plan(tmp_path, tiny_values)
    assert plan.repro() == dict.fromkeys(STAGES, "run")
    first = plan.commit("first")
    metrics = (tmp_path / "data/evaluation/metrics.json").read_bytes()
    model = files.sha256(tmp_path / "data/model/unet.keras")
    assert not plan.git("status", "--porcelain")

    # Nothing changed: nothing runs.
    assert plan.repro() == dict.fromkeys(STAGES, "unchanged")

    # A bound: the gate, and what stands behind it.
    values = with_overrides(tiny_values, {"gate.min": {"dice.mean": 0.00001}})
    plan.write_params(values)
    became = plan.repro()
    assert became == dict.fromkeys(STAGES[:5], "unchanged") | {
        "gate": "run",
        "export": "run",
    }

    # A training param: the data stages are left alone.
    plan.write_params(with_overrides(values, {"train.learning_rate": 0.02}))
    became = plan.repro("evaluate")
    assert [became[stage] for stage in STAGES[:5]] == ["unchanged"] * 3 + ["run"] * 2
    assert files.sha256(tmp_path / "data/model/unet.keras") != model
    second = plan.commit("second")
    assert first != second

    # An older commit comes back without training.
    plan.git("checkout", "-q", first)
    became = plan.repro()
    assert "run" not in became.values()
    assert (tmp_path / "data/evaluation/metrics.json").read_bytes() == metrics
    assert files.sha256(tmp_path / "data/model/unet.keras") == model
    # And from the run-cache alone, without the lock that remembers its results.
    (tmp_path / "dvc.lock").unlink()
    became = plan.repro()
    assert "run" not in became.values()
    assert became["train"] == "cached"
    assert files.sha256(tmp_path / "data/model/unet.keras") == model
    assert not plan.git("status", "--porcelain")

    # A gate that fails: one sentence and the table; nothing is exported.
    failing = copy.deepcopy(tiny_values) | {
        "gate": {"min": {"dice.mean": 1.1}, "max": {}}
    }
    plan.write_params(failing)
    done = plan.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "dice.mean" in done.stderr
    assert "FAILED" in done.stderr
    assert "Traceback" not in done.stderr
    assert (
        json.loads((tmp_path / "data/gate/verdict.json").read_text())["passed"] is False
    )
    done = plan.run("stages.export", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")

    # What a user types wrong is one sentence.
    plan.write_params(with_overrides(tiny_values, {"train.epochs": "many"}))
    done = plan.run("stages.split", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: params.yaml: train.epochs should be a valid integer, found 'many'"
    )

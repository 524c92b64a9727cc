"""The plan as a user meets it: `dvc repro` in a clone, with tiny params."""

import copy
import json

import pytest
from ruamel.yaml import YAML

from stages.core import files, paths
from tests.conftest import with_overrides
from tests.faults import clones
from tests.plan import Plan

STAGES = ["ingest", "validate", "split", "train", "evaluate", "gate", "export"]


@pytest.mark.slow
def test_stages_run_when_they_must_and_only_then(finished, tmp_path):
    plan = Plan.at(finished).copy(tmp_path / "plan")
    root = plan.root
    first = plan.git("rev-parse", "HEAD")
    done = clones.read(finished)
    assert list(done.costs) == STAGES
    assert set(done.lock["stages"]) == set(STAGES)
    tiny_values = YAML(typ="safe", pure=True).load(root / paths.PARAMS)
    metrics = (root / paths.METRICS).read_bytes()
    model = files.sha256(root / paths.MODEL)
    assert not plan.git("status", "--porcelain")

    # Nothing changed: nothing runs.
    assert plan.repro() == dict.fromkeys(STAGES, "unchanged")

    # A bound: the gate, and what stands behind it.
    values = with_overrides(tiny_values, {"gate.min": {"dice.mean": 0.00001}})
    plan.write_params(values)
    became = plan.repro("gate")
    assert became == dict.fromkeys(STAGES[:5], "unchanged") | {"gate": "run"}
    status = json.loads(plan.run("dvc", "status", "--json").stdout)
    changed = [{"changed deps": {str(paths.VERDICT): "modified"}}]
    assert status == {"export": changed}

    # A training param: the data stages are left alone.
    plan.write_params(with_overrides(values, {"train.learning_rate": 0.02}))
    became = plan.repro("evaluate")
    assert [became[stage] for stage in STAGES[:5]] == ["unchanged"] * 3 + ["run"] * 2
    assert files.sha256(root / paths.MODEL) != model
    second = plan.commit("second")
    assert first != second

    # An older commit comes back without training.
    plan.git("checkout", "-q", first)
    became = plan.repro()
    assert "run" not in became.values()
    assert (root / paths.METRICS).read_bytes() == metrics
    assert files.sha256(root / paths.MODEL) == model
    # And from the run-cache alone, without the lock that remembers its results.
    (root / "dvc.lock").unlink()
    became = plan.repro()
    assert "run" not in became.values()
    assert became["train"] == "cached"
    assert files.sha256(root / paths.MODEL) == model
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
    assert json.loads((root / paths.VERDICT).read_text())["passed"] is False

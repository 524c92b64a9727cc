"""The plan as a user meets it: `dvc repro` in a clone, with tiny params."""

import copy
import json

import pytest

from stages.core import files, paths
from stages.core.params import parse_params
from stages.core.sources import phantom
from tests import planted
from tests.conftest import with_overrides
from tests.plan import Plan, outcomes

STAGES = ["ingest", "validate", "split", "train", "evaluate", "gate", "export"]


def check_that_no_metadata_went_anywhere(plan, printed):
    """The shards hold the source's own bytes; nothing else knows a patient."""
    data = plan.root / paths.DATA
    shards = {files.sha256(path) for path in (plan.root / paths.INGESTED).iterdir()}
    written = [
        path
        for top in (data, plan.root / ".dvc", plan.root / "dvc.lock")
        for path in (top, *top.rglob("*"))
        if path.is_file()
    ]
    theirs = {path for path in written if files.sha256(path) in shards}
    assert planted.heard(theirs)
    assert not planted.heard(set(written) - theirs)
    assert not any(marker in printed for marker in planted.MARKERS)
    pictures = list(data.glob("evaluation/overlays/*.png"))
    assert pictures
    for picture in pictures:
        assert planted.png_chunks(picture.read_bytes()) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.slow
def test_stages_run_when_they_must_and_only_then(
    tmp_path, tmp_path_factory, tiny_values
):
    folder = tmp_path_factory.mktemp("theirs")
    planted.lay(phantom.pairs(parse_params(tiny_values).ingest), folder)
    theirs = {"ingest.source": "folder", "ingest.folder": str(folder)}
    tiny_values = with_overrides(tiny_values, theirs)
    plan = Plan(tmp_path, tiny_values)
    done = plan.run("dvc", "repro")
    assert outcomes(done.stdout) == dict.fromkeys(STAGES, "run")
    check_that_no_metadata_went_anywhere(plan, done.stdout + done.stderr)
    first = plan.commit("first")
    metrics = (tmp_path / "data/evaluation/metrics.json").read_bytes()
    model = files.sha256(tmp_path / "data/model/unet.keras")
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

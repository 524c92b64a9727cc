import sys

import pytest

from stages.core import paths
from stages.core.errors import PipelineError
from stages.tools.verify import report, verify
from tests.conftest import ROOT
from tests.plan import Plan

STEP = """
import os, pathlib
noise = os.urandom(8) if pathlib.Path("unsound").exists() else b"same"
pathlib.Path("out").write_bytes(noise)
"""


@pytest.fixture
def plan(isolated) -> Plan:
    """A committed plan of one stage."""
    (isolated / "step.py").write_text(STEP)
    (isolated / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    stage = {"cmd": f"{sys.executable} step.py", "outs": ["out"]}
    return Plan.small(isolated, {"step": stage})


@pytest.mark.slow
def test_two_builds_are_the_same_until_they_are_not(
    plan, tmp_path_factory, capsys, monkeypatch
):
    work = tmp_path_factory.mktemp("builds")
    first, second, recorded = verify(work / "sound")
    assert set(first) == {"out"}
    assert recorded == {}
    report(first, second, recorded)
    assert "all 1 outputs of the two builds are the same" in capsys.readouterr().out
    assert not (plan.root / "out").exists()

    (plan.root / "unsound").touch()
    plan.commit("noise in an output")
    with pytest.raises(PipelineError, match=r"1 of 1 outputs differ between two"):
        report(*verify(work / "unsound"))

    monkeypatch.chdir(work)
    with pytest.raises(PipelineError, match="run from a checkout's root"):
        verify(work / "nowhere")


@pytest.mark.nightly
def test_every_output_of_every_stage_is_the_same_twice(
    tmp_path, tiny_values, monkeypatch
):
    root = tmp_path / "checkout"
    Plan(root, tiny_values)
    monkeypatch.chdir(root)
    first, second, recorded = verify(tmp_path / "builds")
    report(first, second, recorded)
    assert str(paths.EXPORT) in first


def test_a_record_of_another_processor_is_no_failure(capsys):
    built = {str(paths.BUILD): "b", "model": "2"}
    with pytest.raises(PipelineError, match=r"1 of 2 outputs differ from dvc\.lock"):
        report(built, built, built | {"model": "9"})
    report(built, built, {str(paths.BUILD): "z", "model": "9"})
    said = "2 differ from dvc.lock, which another processor or other libraries made"
    assert said in capsys.readouterr().out

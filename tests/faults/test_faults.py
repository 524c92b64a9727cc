"""Faults injected into the real pipeline; `make faults` injects 200."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.faults import flows


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        # A full disk; test_train, test_plan and test_flow hold what kills leave behind.
        ["--only", "4"],
        pytest.param([], marks=pytest.mark.nightly),
    ],
)
def test_faults_to_stages_are_survived(chosen, finished, tmp_path):
    words = ["--sample", "--seed", "3", "--base", str(finished), *chosen]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "faults survived" in done.stdout


@pytest.mark.nightly
def test_faults_to_flows_are_survived(capsys):
    assert flows.run(seed=3, count=10) == 0, capsys.readouterr().out

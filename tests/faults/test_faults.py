"""Faults injected into the real pipeline; `make faults` injects 200."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        # A full disk; test_train, test_plan and test_flow hold what kills leave behind.
        ["--only", "9"],
        pytest.param([], marks=pytest.mark.nightly),
        pytest.param(["--flows"], marks=pytest.mark.nightly),
    ],
)
def test_faults_are_survived(words, finished, tmp_path):
    words = ["--seed", "16", "--faults", "10", "--base", str(finished), *words]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "faults survived" in done.stdout

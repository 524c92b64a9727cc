"""Ten faults done to the real pipeline; `make faults` does 200."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.conftest import ROOT
from tests.faults import cases, flows, judge
from tests.faults.kinds import KINDS

INPUTS = {stage: ["data/x"] for stage in cases.STAGES} | {"ingest": []}


@pytest.mark.slow
def test_ten_faults_are_survived(finished, tmp_path):
    report = tmp_path / "report.json"
    words = ["--sample", "--seed", "3", "--base", str(finished), "--out", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    values = json.loads(report.read_text("utf-8"))
    assert values["survived"] == values["tried"] == 10
    assert sum(fault["stage"] == "train" for fault in values["faults"]) == 1


@pytest.mark.nightly
def test_ten_faults_to_flows_are_survived(capsys):
    assert flows.run(seed=3, count=10) == 0, capsys.readouterr().out


def test_every_kind_comes_to_every_stage_it_can():
    some = cases.cases(1, 200, INPUTS)
    assert [case.number for case in some] == list(range(200))
    for stage in cases.STAGES:
        kinds = {case.kind for case in some if case.stage == stage}
        assert kinds == set(cases.applicable(INPUTS, stage))
    assert {case.kind for case in some} == set(KINDS)


@pytest.mark.parametrize("count", [7, 80, 200])
def test_stages_share_the_faults_evenly(count):
    found = Counter(case.stage for case in cases.cases(1, count, INPUTS))
    assert set(found) == set(cases.STAGES)
    assert max(found.values()) - min(found.values()) <= 1


def test_a_seed_is_a_sequence():
    first = cases.cases(1, 50, INPUTS)
    assert cases.cases(1, 200, INPUTS)[:50] == first
    assert cases.cases(2, 50, INPUTS) != first
    assert first[7].dice(0).random() == first[7].dice(0).random()
    assert first[7].dice(0).random() != first[7].dice(1).random()


@pytest.mark.parametrize(
    ("text", "is_clear"),
    [
        ("error: no space left on the disk that holds data/x; free some\n", True),
        ("interrupted; the next run goes on from here\n", True),
        ("ERROR: 'data/ingested' is busy, it is being blocked by: (PID 7)\n", True),
        ("ERROR: failed to reproduce 'x': failed to run: y, exited with 1\n", False),
        ("ERROR: failed to reproduce 'x': failed to run: y, exited with -9\n", True),
        ("error: oops\n", False),
        ("Killed\n", False),
    ],
)
def test_what_counts_as_a_clear_message(text, is_clear):
    assert bool(judge.OURS.search(text) or judge.DVCS.search(text)) == is_clear


def test_a_traceback_is_found_whole():
    ours = 'Traceback (most recent call last):\n  File "/a/stages/b.py"\n    x\nError\n'
    theirs = ours.replace("stages", "dvc")
    found = judge.TRACEBACK.findall("before\n" + ours + "between\n" + theirs)
    assert ["/stages/" in each for each in found] == [True, False]

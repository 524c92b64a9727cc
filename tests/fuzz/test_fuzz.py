"""Are 500 damaged files read or refused, and does the fuzzer see what it looks for?"""

import os
import sys
import time

import pytest

from stages.core.errors import PipelineError
from tests.fuzz import __main__ as parent
from tests.fuzz import worker
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    count = parent.shares(500)[name]
    tally = worker.run(name, 0, count, seed=1, folder=tmp_path)
    assert not tally.findings, parent.table([tally], tmp_path)
    assert tally.inputs == count
    # As they are, the files are read: a refusal is due to the damage.
    assert tally.accepted
    assert tally.refused or count <= 10


def test_a_worker_gives_its_tally(tmp_path):
    tally = parent.fuzz("table", 20, seed=1, found=tmp_path)
    assert (tally.inputs, tally.findings) == (20, {})
    assert tally.refused + tally.accepted == 20


def linger(data: bytes) -> None:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass


def hoard(data: bytes) -> None:
    bytearray(os.urandom(2**20) * 40)


def fail(data: bytes) -> None:
    raise KeyError("not declared")


def refuse(data: bytes) -> None:
    raise PipelineError("a sentence")


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (linger, "hang: more than 0.03 s"),
        (hoard, "memory: more than 16 MiB"),
        (fail, "KeyError at test_fuzz.py"),
        (refuse, ""),
    ],
)
def test_the_effect_of_an_input_is_seen(tmp_path, monkeypatch, read, said):
    monkeypatch.setitem(TARGETS, "bad", Target(0, read, lambda: [b"seed"]))
    monkeypatch.setattr(worker, "MOST_SECONDS", 0.03 if read is linger else 60.0)
    monkeypatch.setattr(worker, "MOST_MIB", 16)
    tally = worker.run("bad", 0, 3, seed=0, folder=tmp_path)
    assert tally.inputs == 3
    if not said:
        assert (tally.refused, tally.findings) == (3, {})
        return
    ((what, indices),) = tally.findings.items()
    assert what.startswith(said)
    assert indices == [0, 1, 2]
    assert (tmp_path / "bad-0").read_bytes() == b"seed"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crash: SIGSEGV"),
        ("import sys; sys.exit('oh')", "crash: exit 1: oh"),
        (
            "import signal; signal.setitimer(signal.ITIMER_PROF, 0.1)\nwhile 1: pass",
            "hang: no answer within 20 s of work",
        ),
    ],
)
def test_the_death_of_a_worker_is_told(code, how):
    assert parent.work([sys.executable, "-c", code], [])[1] == how


def test_a_crash_is_a_finding_and_the_rest_is_tried(tmp_path, monkeypatch):
    """A worker that dies leaves its input behind, and the next one goes on after it."""
    started = []

    def work(command, words):
        _, first, count, _, folder = words
        started.append((first, count))
        if first:
            return worker.Tally("image", inputs=count, accepted=count), ""
        (tmp_path.__class__(folder) / "index").write_text("2")
        (tmp_path.__class__(folder) / "input").write_bytes(b"the third kills")
        return worker.Tally(""), "crash: SIGSEGV"

    monkeypatch.setattr(parent, "work", work)
    tally = parent.fuzz("image", 10, seed=4, found=tmp_path / "found")
    assert started == [(0, 10), (3, 7)]
    assert (tally.inputs, tally.accepted) == (10, 7)
    assert tally.findings == {"crash: SIGSEGV": [2]}
    assert (tmp_path / "found" / "image-2").read_bytes() == b"the third kills"

"""500 spoilt files on every test run, and that the fuzzer sees what it looks for."""

import os
import time

import pytest

from stages.core.errors import PipelineError
from tests.fuzz import __main__ as parent
from tests.fuzz import targets, worker
from tests.fuzz.targets import TARGETS, Target


def test_500_spoilt_files_are_read_or_refused(tmp_path):
    plan = parent.shares(500)
    tallies = parent.fuzz(plan, seed=1, found=tmp_path / "found", work=tmp_path / "w")
    print(parent.table(tallies))
    assert {tally["target"]: tally["inputs"] for tally in tallies} == plan
    assert sum(plan.values()) >= 500
    assert not any(tally["findings"] for tally in tallies), parent.table(tallies)
    # As they are, the files are read: what is refused is refused for what was done.
    assert all(tally["accepted"] for tally in tallies)
    assert all(tally["refused"] for tally in tallies if tally["inputs"] > 10)


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """Runs a reader as a target of one seed; the tally, and where findings lie."""

    def run(read, *, count: int, seed: int = 0, corpus: bytes = b"seed"):
        target = Target(0, read, lambda: [corpus])
        monkeypatch.setitem(TARGETS, "bad", target)
        note, found = worker.Note(tmp_path / "note"), tmp_path / "found"
        return worker.run("bad", 0, count, seed=seed, note=note, found=found), found

    return run


def test_the_same_seed_makes_the_same_inputs(bad):
    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        bad(seen.append, count=150, seed=seed, corpus=b"0123456789" * 9)
        return seen

    first = inputs(1)
    assert inputs(1) == first
    assert len(set(first)) > 100
    assert len(set(inputs(2)) & set(first)) < 50


def test_what_breaks_a_reader_is_made_plain(bad):
    """Of all that was done to the file, no more is left than it takes."""
    text = bytes(range(256)) * 2

    def read(data: bytes) -> None:
        if data != text:
            raise KeyError(f"a word of the input: {data[:20]}")

    tally, found = bad(read, count=300, corpus=text)
    assert tally.inputs == 300
    ((what, files),) = tally.findings.items()
    assert what.startswith("KeyError at test_fuzz.py")
    assert len(files) == worker.KEPT
    plain = (found / files[0]).read_bytes()
    assert sum(a != b for a, b in zip(plain, text, strict=True)) == 1


def linger(data: bytes) -> None:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass


def hoard(data: bytes) -> None:
    bytearray(os.urandom(2**20) * 40)


def fail(data: bytes) -> None:
    raise KeyError("what nobody declared")


def refuse(data: bytes) -> None:
    raise PipelineError("a sentence")


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (linger, "hang: more than 0.03 s"),
        (hoard, "memory: more than 1 GiB"),
        (fail, "KeyError at test_fuzz.py"),
        (refuse, ""),
    ],
)
def test_what_an_input_does_is_seen(bad, monkeypatch, read, said):
    most = 0.03 if read is linger else 60.0
    monkeypatch.setattr(worker, "MOST_SECONDS", most)
    monkeypatch.setattr(worker, "MOST_BYTES_MEMORY", 2**24)
    tally, found = bad(read, count=3)
    assert tally.inputs == 3
    if not said:
        assert (tally.refused, tally.findings) == (3, {})
        return
    ((what, files),) = tally.findings.items()
    assert what.startswith(said)
    assert len(files) == 3
    assert (found / "bad-0").read_bytes() == b"seed"


def test_a_crash_is_a_finding_and_the_rest_is_tried(tmp_path, monkeypatch):
    """A child that dies leaves its input behind, and the next one goes on after it."""
    started = []

    def child(left, note, found, work):
        started.append([list(one) for one in left])
        if len(started) == 1:
            note.write(2, b"the third kills")
            return [], "crash: SIGSEGV"
        count = left[0][2]
        return [worker.asdict(worker.Tally("image", inputs=count, accepted=count))], ""

    monkeypatch.setattr(parent, "_child", child)
    (tally,) = parent.fuzz(
        {"image": 10}, seed=4, found=tmp_path / "found", work=tmp_path / "w"
    )
    assert started == [[["image", 0, 10, 4]], [["image", 3, 7, 4]]]
    assert (tally["inputs"], tally["accepted"]) == (10, 7)
    (files,) = tally["findings"].values()
    assert (tmp_path / "found" / "image-2").read_bytes() == b"the third kills"
    assert f"python -m tests.fuzz image {files[0]}" in parent.table([tally])


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ('kill -SEGV "$$"', "crash: SIGSEGV"),
        ("echo oh >&2; exit 3", "crash: exit 3: oh"),
        ("while :; do :; done", "hang: no answer within 0.1 s of work"),
    ],
)
def test_how_a_child_died(tmp_path, monkeypatch, script, how):
    child = tmp_path / "child"
    child.write_text(f"""#!/bin/sh\necho '{{"begin": "image"}}'\n{script}\n""")
    child.chmod(0o755)
    monkeypatch.setattr(parent.sys, "executable", str(child))
    monkeypatch.setattr(parent, "STUCK_SECONDS", 0.1)
    note = worker.Note(tmp_path / "note")
    note.write(0, b"the input under way")
    left = [["image", 0, 1, 0]]
    printed, found = parent._child(left, note, tmp_path / "found", tmp_path)
    assert (printed, found.strip()) == ([{"begin": "image"}], how)


def test_shares_add_up():
    assert sum(parent.shares(100_000).values()) == 100_000
    assert set(parent.shares(1).values()) == {1}
    assert targets.shipped().ingest.max_zip_members == 1000

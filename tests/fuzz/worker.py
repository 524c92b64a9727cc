"""One child: input after input, each noted where the parent sees it if this dies.

Reads a plan as JSON from its arguments, writes a line of JSON for each target to
standard output. Hypothesis draws what is done to which file, and makes a file that an
error was found with as plain as it can. What an input costs is this process's own
processor time and memory, so that a busy machine changes no verdict.
"""

import contextlib
import json
import logging
import mmap
import os
import re
import struct
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from tests.fuzz.mutation import MOST_BYTES, spoil
from tests.fuzz.targets import TARGETS, Target

MOST_SECONDS = 2.0  # of processor time, for one input
MOST_BYTES_MEMORY = 2**30  # above what the process had before it
CORPUS = 400  # inputs kept because they led somewhere new
BATCH = 100  # inputs between two additions to the corpus: Hypothesis wants it constant
KEPT = 3  # files of one finding
HEAD = struct.Struct("<dqq")  # when begun, index, length of the input


@dataclass
class Tally:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    slowest_ms: float = 0.0
    peak_mib: float = 0.0
    findings: dict[str, list[str]] = field(default_factory=dict)  # what, then files


class Note:
    """The input under way, in memory that outlives this process."""

    def __init__(self, path: Path) -> None:
        size = HEAD.size + MOST_BYTES * 8
        if not path.exists() or path.stat().st_size != size:
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)

    def write(self, index: int, data: bytes) -> None:
        """Before an input is tried."""
        self._map[HEAD.size : HEAD.size + len(data)] = data
        self._map[: HEAD.size] = HEAD.pack(time.monotonic(), index, len(data))

    def read(self) -> tuple[float, int, bytes]:
        """When it was begun, which it is, and its bytes."""
        begun, index, length = HEAD.unpack(self._map[: HEAD.size])
        return begun, index, self._map[HEAD.size : HEAD.size + length]


def save(folder: Path, target: str, index: int, data: bytes) -> str:
    """Keeps an input that found something."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{index}"
    path.write_bytes(data)
    return str(path)


def run(
    name: str, first: int, count: int, *, seed: int, note: Note, found: Path
) -> Tally:
    """Tries `count` inputs of one target, from the number `first` on."""
    target = TARGETS[name]
    seeds = target.seeds()
    for data in seeds:  # the first answers are slow: libraries start
        attempt(target, data)
    trial = Trial(target, Tally(name), note, found, index=first)
    for data in seeds[first : first + count]:  # the files as they are come first
        with contextlib.suppress(UndeclaredError):
            trial(data)
        trial.close()
    corpus = list(seeds)
    while (left := count - trial.tally.inputs) > 0:
        _draw(
            trial,
            spoilt(target, tuple(corpus)),
            count=min(left, BATCH),
            seed=f"{seed}:{name}:{trial.index}",
        )
        corpus += trial.close()[: CORPUS - len(corpus)]
    return trial.tally


@st.composite
def spoilt(draw: st.DrawFn, target: Target, corpus: tuple[bytes, ...]) -> bytes:
    """A file of the corpus and what is done to it; plain is the first, hardly touched.

    Args:
        draw: Hypothesis'.
        target: Says by what its files are best spoilt.
        corpus: Whole files.
    """
    random = draw(st.randoms(use_true_random=False))
    some = list(corpus)
    return (target.spoil or spoil)(random, random.choice(some), some)[: MOST_BYTES * 8]


def _draw(
    trial: "Trial", inputs: st.SearchStrategy[bytes], *, count: int, seed: str
) -> None:
    """Tries up to `count` inputs, and plainer ones of the first that finds an error."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @hypothesis.given(inputs)
    def attempts(data: bytes) -> None:
        trial(data)

    with contextlib.suppress(UndeclaredError, Flaky):
        attempts()


class UndeclaredError(Exception):
    """An error that no target may raise."""


class Trial:
    """Tries inputs of one target and keeps the tally.

    The first input of a batch with an error that was not met before raises
    `UndeclaredError`. What is tried after it, until `close`, are plainer variants:
    they count in no tally.
    """

    def __init__(
        self, target: Target, tally: Tally, note: Note, found: Path, *, index: int
    ) -> None:
        self.target, self.tally, self.index = target, tally, index
        self._note, self._found = note, found
        self._sought: tuple[int, str, bytes] | None = None  # index, what, plainest
        self._seen: set[str] = set()
        self._fresh: list[bytes] = []

    def __call__(self, data: bytes) -> None:
        """Tries one input.

        Raises:
            UndeclaredError: If it raises what the target does not declare.
        """
        index = self._sought[0] if self._sought else self.index
        self._note.write(index, data)
        before = _memory_mib(reset=True)
        begun = time.process_time()
        outcome, what = attempt(self.target, data)
        seconds = time.process_time() - begun
        grown = _memory_mib() - before
        if self._sought:
            if outcome == "finding" and _kind(what) == _kind(self._sought[1]):
                self._sought = (index, what, data)
                raise UndeclaredError(what)
            return
        self.index += 1
        tally = self.tally
        tally.inputs += 1
        tally.refused += outcome == "refused"
        tally.accepted += outcome == "accepted"
        tally.slowest_ms = round(max(tally.slowest_ms, seconds * 1000), 1)
        tally.peak_mib = round(max(tally.peak_mib, grown), 1)
        # Not made plainer: hundreds of variants would take as long each, or as much.
        if seconds > MOST_SECONDS:
            self._keep(index, f"hang: more than {MOST_SECONDS:g} s", data)
        elif grown > MOST_BYTES_MEMORY / 2**20:
            self._keep(index, "memory: more than 1 GiB", data)
        elif outcome == "finding" and _kind(what) in map(_kind, tally.findings):
            self._keep(index, what, data)
        elif outcome == "finding":
            self._sought = (index, what, data)
            raise UndeclaredError(what)
        elif len(data) < MOST_BYTES:
            # A refusal never seen, or a new way to be accepted: worth spoiling further.
            key = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", what)[:120]
            if key not in self._seen:
                self._seen.add(key)
                self._fresh.append(data)

    def close(self) -> list[bytes]:
        """Ends a batch; returns inputs that led somewhere new."""
        if self._sought:
            self._keep(*self._sought)
        self._sought, fresh, self._fresh = None, self._fresh, []
        return fresh

    def _keep(self, index: int, what: str, data: bytes) -> None:
        same = [known for known in self.tally.findings if _kind(known) == _kind(what)]
        files = self.tally.findings.setdefault(same[0] if same else what, [])
        if len(files) < KEPT:
            files.append(save(self._found, self.tally.target, index, data))


def _kind(what: str) -> str:
    """What a finding shares with those of other inputs: no word of the input."""
    return what if what.startswith(("hang", "memory")) else what.partition(": ")[0]


def attempt(target: Target, data: bytes) -> tuple[str, str]:
    """Reads one input: `refused`, `accepted` or `finding`, and in which words."""
    try:
        target.read(data)
    except target.refusals as refusal:
        return "refused", str(refusal)
    except MemoryError:
        return "finding", "memory: MemoryError"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return "finding", f"{type(error).__name__} at {place}: {str(error)[:100]}"
    return "accepted", "accepted"


def _memory_mib(*, reset: bool = False) -> float:
    """This process's memory now (after `reset`) or its highest since."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    name = "VmRSS" if reset else "VmHWM"
    match = re.search(rf"{name}:\s+(\d+) kB", status)
    assert match
    return int(match[1]) / 1024


def main() -> None:
    """`worker.py FOLDER PLAN`: the plan is a list of [target, first, count, seed]."""
    work = Path(sys.argv[1])
    os.environ["FUZZ_WORK"] = str(work)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(work / "hypothesis")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    note = Note(work / "note")
    # Libraries print to standard output as they like.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name, first, count, seed in json.loads(sys.argv[2]):
        print(json.dumps({"begin": name}), file=out, flush=True)
        tally = run(name, first, count, seed=seed, note=note, found=Path(sys.argv[3]))
        print(json.dumps(asdict(tally)), file=out, flush=True)


if __name__ == "__main__":
    main()

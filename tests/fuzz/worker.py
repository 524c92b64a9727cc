"""One child: input after input, each noted where the parent sees it if this dies.

Reads a plan as JSON from its arguments, writes a line of JSON for each target to
standard output. What an input costs is this process's own processor time and
memory, so that a busy machine changes no verdict.
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
from random import Random

from tests.fuzz.mutation import MOST_BYTES, spoil
from tests.fuzz.targets import TARGETS, Target

MOST_SECONDS = 2.0  # of processor time, for one input
MOST_BYTES_MEMORY = 2**30  # above what the process had before it
CORPUS = 400  # inputs kept because they led somewhere new
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
    target, tally = TARGETS[name], Tally(name)
    seeds = target.seeds()
    corpus = list(seeds)
    make = target.spoil or spoil
    seen: set[str] = set()
    for data in seeds:  # the first answers are slow: libraries start
        attempt(target, data)
    for index in range(first, first + count):
        random = Random(f"{seed}:{name}:{index}")
        if index < len(seeds):  # the files as they are come first
            data = seeds[index]
        else:
            data = make(random, random.choice(corpus), corpus)[: MOST_BYTES * 8]
        note.write(index, data)
        before = _memory_mib(reset=True)
        begun = time.process_time()
        outcome, what = attempt(target, data)
        seconds = time.process_time() - begun
        grown = _memory_mib() - before
        tally.inputs += 1
        tally.refused += outcome == "refused"
        tally.accepted += outcome == "accepted"
        tally.slowest_ms = round(max(tally.slowest_ms, seconds * 1000), 1)
        tally.peak_mib = round(max(tally.peak_mib, grown), 1)
        if seconds > MOST_SECONDS:
            outcome, what = "finding", f"hang: more than {MOST_SECONDS:g} s"
        elif grown > MOST_BYTES_MEMORY / 2**20:
            outcome, what = "finding", "memory: more than 1 GiB"
        if outcome == "finding":
            files = tally.findings.setdefault(what, [])
            if len(files) < 3:
                files.append(save(found, name, index, data))
        elif len(data) < MOST_BYTES and len(corpus) < CORPUS:
            # A refusal never seen, or a new way to be accepted: worth spoiling further.
            key = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", what)[:120]
            if key not in seen:
                seen.add(key)
                corpus.append(data)
    return tally


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

"""Tries one target: `python -m tests.fuzz.worker TARGET FIRST COUNT SEED FOLDER`.

Each input lies in FOLDER/input before it is tried, so that it is known after a crash.
An input that keeps the processor busy for too long ends the process by SIGPROF. The
last line of standard output is the tally as JSON.
"""

import contextlib
import json
import logging
import os
import re
import signal
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
STUCK_SECONDS = 20.0
MOST_MIB = 1024.0  # above what the process had before the input
CORPUS = 400  # inputs kept because they led somewhere new


@dataclass
class Tally:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    slowest_ms: float = 0.0
    peak_mib: float = 0.0
    findings: dict[str, list[int]] = field(default_factory=dict)  # what, then inputs


def run(name: str, first: int, count: int, *, seed: int, folder: Path) -> Tally:
    """Tries `count` inputs of one target, from the number `first` on.

    The target's own files come first, then damaged ones. Inputs with findings stay in
    `folder`, named `TARGET-NUMBER`.
    """
    target, tally = TARGETS[name], Tally(name)
    seeds = target.seeds()
    for data in seeds:  # libraries start at the first answers
        attempt(target, data)
    corpus, seen = list(seeds), set()
    for index in range(first, first + count):
        random = Random(f"{seed}:{name}:{index}")
        data = (
            seeds[index]
            if index < len(seeds)
            else (target.spoil or spoil)(random, random.choice(corpus), corpus)
        )[: MOST_BYTES * 8]
        (folder / "input").write_bytes(data)
        (folder / "index").write_text(str(index))
        signal.setitimer(signal.ITIMER_PROF, STUCK_SECONDS)
        before, begun = _memory_mib(reset=True), time.process_time()
        outcome, what = attempt(target, data)
        seconds, grown = time.process_time() - begun, _memory_mib() - before
        signal.setitimer(signal.ITIMER_PROF, 0)
        tally.inputs += 1
        tally.refused += outcome == "refused"
        tally.accepted += outcome == "accepted"
        tally.slowest_ms = round(max(tally.slowest_ms, seconds * 1000), 1)
        tally.peak_mib = round(max(tally.peak_mib, grown), 1)
        if seconds > MOST_SECONDS:
            outcome, what = "finding", f"hang: more than {MOST_SECONDS:g} s"
        elif grown > MOST_MIB:
            outcome, what = "finding", f"memory: more than {MOST_MIB:g} MiB"
        if outcome == "finding":
            tally.findings.setdefault(what, []).append(index)
            (folder / f"{name}-{index}").write_bytes(data)
        # A new refusal, or a new way to be accepted, is worth damaging further.
        key = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", what)[:120]
        if key not in seen and len(corpus) < CORPUS and len(data) < MOST_BYTES:
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
        return "finding", f"{type(error).__name__} at {place}"
    return "accepted", "accepted"


def _memory_mib(*, reset: bool = False) -> float:
    """This process's memory now (after `reset`), or its highest since."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    name = "VmRSS" if reset else "VmHWM"
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"{name}:\s+(\d+) kB", status)
    assert match
    return int(match[1]) / 1024


def main() -> None:
    """Reads the command line."""
    name, first, count, seed, folder = sys.argv[1:]
    os.environ["FUZZ_WORK"] = folder
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print as they like
    tally = run(name, int(first), int(count), seed=int(seed), folder=Path(folder))
    print(json.dumps(asdict(tally)), file=out, flush=True)


if __name__ == "__main__":
    main()

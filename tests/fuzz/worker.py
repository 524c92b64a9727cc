"""Tries one target: `python -m tests.fuzz.worker TARGET FIRST COUNT SEED FOLDER`.

Each input lies in FOLDER/TARGET-NUMBER while it is tried, so that it is known after a
crash; those with findings stay. An input that keeps the processor busy for too long
ends the process by SIGPROF. The last line of standard output is the tally as JSON.
"""

import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.targets import TARGETS, Target

MOST_SECONDS = 2.0  # of processor time, for one input
STUCK_SECONDS = 20.0
MOST_MIB = 1024.0  # above what the process had before the input


@dataclass
class Tally:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    slowest_ms: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)  # by the name of the file


def run(name: str, first: int, count: int, *, seed: int, folder: Path) -> Tally:
    """Tries the inputs `first` to `count` of one target: its own files, then damaged.

    An input depends on the seed, the target and its number alone.
    """
    target, tally = TARGETS[name], Tally(name)
    seeds = target.seeds()
    for data in seeds:  # libraries start at the first answers
        attempt(target, data)
    for index in range(first, count):
        random = Random(f"{seed}:{name}:{index}")
        data = (
            seeds[index]
            if index < len(seeds)
            else target.spoil(random, random.choice(seeds), seeds)
        )
        path = folder / f"{name}-{index}"
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, STUCK_SECONDS)
        before, begun = _peak_mib(), time.process_time()
        outcome, what = attempt(target, data)
        seconds, grown = time.process_time() - begun, _peak_mib() - before
        signal.setitimer(signal.ITIMER_PROF, 0)
        tally.inputs += 1
        tally.refused += outcome == "refused"
        tally.accepted += outcome == "accepted"
        tally.slowest_ms = round(max(tally.slowest_ms, seconds * 1000), 1)
        if seconds > MOST_SECONDS:
            outcome, what = "finding", f"hang: more than {MOST_SECONDS:g} s"
        elif grown > MOST_MIB:
            outcome, what = "finding", f"memory: more than {MOST_MIB:g} MiB"
        if outcome == "finding":
            tally.findings[path.name] = what
        else:
            path.unlink()
    return tally


def attempt(target: Target, data: bytes) -> tuple[str, str]:
    """Reads one input: `refused`, `accepted` or `finding`, and in which words."""
    try:
        target.read(data)
    except target.refusals as refusal:
        return "refused", str(refusal)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return "finding", f"{type(error).__name__} at {place}"
    return "accepted", "accepted"


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Reads the command line."""
    name, first, count, seed, folder = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print as they like
    tally = run(name, int(first), int(count), seed=int(seed), folder=Path(folder))
    print(json.dumps(asdict(tally)), file=out, flush=True)


if __name__ == "__main__":
    main()

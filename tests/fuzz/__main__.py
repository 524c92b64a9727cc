"""`python -m tests.fuzz [--inputs N] [--seed S] [--jobs J] [--found FOLDER] [TARGET]`.

Tries damaged files on everything that reads foreign bytes and prints a table; exit 1 if
a reader crashed, hung, took too much memory or raised an error that it should not.
FOLDER keeps such inputs; `python -m tests.fuzz TARGET FILE` tries one of them again.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tabulate import tabulate

from tests.conftest import ROOT
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import Tally, attempt

MOST_SECONDS = 1800.0  # for one worker


def shares(inputs: int) -> dict[str, int]:
    """Inputs per target; at least one each."""
    return {
        name: max(round(inputs * target.share / 1000), 1)
        for name, target in TARGETS.items()
    }


def fuzz(name: str, count: int, *, seed: int, found: Path) -> Tally:
    """Tries `count` inputs of one target in processes that may die.

    A worker that dies leaves its input behind, and the next one goes on after it.
    """
    findings: dict[str, str] = {}
    first = 0
    while True:
        words = ["tests.fuzz.worker", name, str(first), str(count), str(seed), found]
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            capture_output=True,
            timeout=MOST_SECONDS,
        )
        if done.returncode == 0:
            tally = Tally(**json.loads(done.stdout.splitlines()[-1]))
            tally.findings |= findings
            return tally
        left = [int(path.name.rpartition("-")[2]) for path in found.glob(f"{name}-*")]
        last = max(left, default=-1)
        if last < first:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        is_signal = done.returncode < 0
        findings[f"{name}-{last}"] = (
            signal.Signals(-done.returncode).name
            if is_signal
            else done.stderr.decode(errors="replace")[-800:].strip()
        )
        first = last + 1


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--found", type=Path, default=Path("data/.work/fuzz"))
    given = parser.parse_args()
    if given.file:
        logging.disable(logging.CRITICAL)
        outcome, what = attempt(TARGETS[given.target], given.file.read_bytes())
        print(f"{outcome}: {what}")
        return int(outcome == "finding")
    plan = shares(given.inputs)
    if given.target:
        plan = {given.target: given.inputs}
    found = given.found.absolute()
    found.mkdir(parents=True, exist_ok=True)
    for path in found.iterdir():
        path.unlink()
    with ThreadPoolExecutor(given.jobs) as pool:
        jobs = [
            pool.submit(fuzz, name, count, seed=given.seed, found=found)
            for name, count in sorted(plan.items(), key=lambda item: -item[1])
        ]
        tallies = [job.result() for job in jobs]
    columns = ("target", "inputs", "refused", "accepted", "slowest_ms")
    rows = [[getattr(tally, column) for column in columns] for tally in tallies]
    print(tabulate(rows, headers=columns))
    findings = {k: v for tally in tallies for k, v in tally.findings.items()}
    for name, what in findings.items():
        print(f"FOUND {found / name}: {what}")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())

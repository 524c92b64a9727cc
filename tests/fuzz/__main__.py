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
from tempfile import TemporaryDirectory

from tabulate import tabulate

from tests.conftest import ROOT
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import STUCK_SECONDS, Tally, attempt

ASLEEP_SECONDS = 1800.0  # for one worker, that waits for what never comes
MOST_DEATHS = 20  # of one target's workers


def shares(inputs: int) -> dict[str, int]:
    """Inputs per target; at least one each."""
    return {
        name: max(round(inputs * target.share / 1000), 1)
        for name, target in TARGETS.items()
    }


def fuzz(name: str, count: int, *, seed: int, found: Path) -> Tally:
    """Tries `count` inputs of one target in processes that may die.

    Args:
        name: Of the target.
        count: Number of inputs.
        seed: Another seed gives other inputs.
        found: Folder for inputs with findings.
    """
    total, first = Tally(name), 0
    with TemporaryDirectory(prefix="fuzz-") as folder:
        for _ in range(MOST_DEATHS):
            words = [name, first, count - first, seed, folder]
            tally, death = work([sys.executable, "-m", "tests.fuzz.worker"], words)
            lost = 0
            if death:
                index = Path(folder, "index")
                last = int(index.read_text()) if index.exists() else first
                lost = last + 1 - first
                if Path(folder, "input").exists():
                    Path(folder, "input").rename(Path(folder, f"{name}-{last}"))
                tally = Tally(name, inputs=lost, findings={death: [last]})
            total.inputs += tally.inputs
            total.refused += tally.refused
            total.accepted += tally.accepted
            total.slowest_ms = max(total.slowest_ms, tally.slowest_ms)
            total.peak_mib = max(total.peak_mib, tally.peak_mib)
            for what, indices in tally.findings.items():
                total.findings.setdefault(what, []).extend(indices)
            first += tally.inputs
            if not death or first >= count:
                break
        for path in Path(folder).glob(f"{name}-*"):
            found.mkdir(parents=True, exist_ok=True)
            (found / path.name).write_bytes(path.read_bytes())
    return total


def work(command: list[str], words: list[object]) -> tuple[Tally, str]:
    """Runs a worker to its end: its tally, or how it died."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    words = [*command, *map(str, words)]
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=env, capture_output=True, timeout=ASLEEP_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Tally(""), f"hang: no end within {ASLEEP_SECONDS:g} s"
    if done.returncode == -signal.SIGPROF:
        return Tally(""), f"hang: no answer within {STUCK_SECONDS:g} s of work"
    if done.returncode < 0:
        return Tally(""), f"crash: {signal.Signals(-done.returncode).name}"
    if done.returncode:
        last = done.stderr.decode(errors="replace")[-800:].strip()
        return Tally(""), f"crash: exit {done.returncode}: {last}"
    return Tally(**json.loads(done.stdout.splitlines()[-1])), ""


def table(tallies: list[Tally], found: Path) -> str:
    """The tallies as lines of text, and the findings below."""
    columns = ("target", "inputs", "refused", "accepted", "slowest_ms", "peak_mib")
    rows = [[getattr(tally, column) for column in columns] for tally in tallies]
    lines = [tabulate(rows, headers=columns)]
    for tally in tallies:
        for what, indices in tally.findings.items():
            lines.append(
                f"FOUND {tally.target}: {what}; {len(indices)} inputs, such as"
            )
            name = f"{tally.target}-{indices[0]}"
            lines.append(f"  python -m tests.fuzz {tally.target} {found / name}")
    return "\n".join(lines)


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
    with ThreadPoolExecutor(given.jobs) as pool:
        tallies = list(
            pool.map(
                lambda item: fuzz(*item, seed=given.seed, found=given.found.absolute()),
                sorted(plan.items(), key=lambda item: -item[1]),
            )
        )
    print(table(tallies, given.found))
    return int(any(tally.findings for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.fuzz [--inputs N] [--seed S] [--jobs J] [--found FOLDER]`.

Tries spoilt files on everything that reads foreign bytes and prints a table; exit 1
if anything crashed, hung, took too much memory or raised what it should not. Inputs
that did are kept in FOLDER. `python -m tests.fuzz TARGET FILE` repeats one of them.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import Note, attempt, save

ROOT = Path(__file__).resolve().parents[2]
# A read that never comes back: by its processor time, so that a busy machine changes no
# verdict, or by the clock, for one that sleeps.
STUCK_SECONDS, ASLEEP_SECONDS = 20.0, 600.0
MOST_DEATHS = 20  # of one target's children


def shares(inputs: int) -> dict[str, int]:
    """Inputs a target; at least one each."""
    return {
        name: max(round(inputs * target.share / 1000), 1)
        for name, target in TARGETS.items()
    }


def fuzz(
    plan: dict[str, int], *, seed: int, found: Path, work: Path
) -> list[dict[str, Any]]:
    """Tries the planned targets one after another, in children that may die.

    Args:
        plan: Inputs a target.
        seed: Another seed, other inputs.
        found: Where to keep inputs that found something.
        work: An empty folder.

    Returns:
        A tally a target, as `worker.Tally` has it.
    """
    work.mkdir(parents=True, exist_ok=True)
    left = [[name, 0, count, seed] for name, count in plan.items()]
    tallies: dict[str, dict[str, Any]] = {}
    deaths: dict[str, int] = {}
    note = Note(work / "note")
    while left:
        note.write(-1, b"")
        printed, how = _child(left, note, found, work)
        done = [line for line in printed if "target" in line]
        for tally in done:
            _add(tallies, tally)
        left = left[len(done) :]
        if not left or how == "":
            break
        _, index, data = note.read()
        name, first, count, _ = left[0]
        if index < 0:  # it fell before its first input
            _add(tallies, {
                "target": name, "inputs": 0, "refused": 0, "accepted": 0,
                "slowest_ms": 0.0, "peak_mib": 0.0, "findings": {how: []},
            })  # fmt: skip
            left = left[1:]
            continue
        deaths[name] = deaths.get(name, 0) + 1
        lost = index + 1 - first
        _add(tallies, {
            "target": name, "inputs": lost, "refused": 0, "accepted": 0,
            "slowest_ms": 0.0, "peak_mib": 0.0,
            "findings": {how: [save(found, name, index, data)]},
        })  # fmt: skip
        left[0] = [name, index + 1, count - lost, seed]
        if count - lost <= 0 or deaths[name] >= MOST_DEATHS:
            left = left[1:]
    return list(tallies.values())


def _child(
    left: list[list[Any]], note: Note, found: Path, work: Path
) -> tuple[list[dict[str, Any]], str]:
    """Runs a child to its end, or kills it; what it said, and how it died, if so."""
    log = work / "log"
    with log.open("wb") as said, (work / "out").open("w+", encoding="utf-8") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(work), json.dumps(left),
             str(found)],
            cwd=ROOT, stdout=out, stderr=said,
            env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        )  # fmt: skip
        stuck, seen, spent = False, -1, 0.0
        while child.poll() is None:
            begun, index, _ = note.read()
            if index != seen or _is_between(out):
                seen, spent = index, _processor_seconds(child.pid)
            elif index >= 0 and (
                _processor_seconds(child.pid) - spent > STUCK_SECONDS
                or time.monotonic() - begun > ASLEEP_SECONDS
            ):
                stuck = True
                child.kill()
                break
            time.sleep(0.1)
        code = child.wait()
        out.seek(0)
        printed = [json.loads(line) for line in out.read().splitlines()]
    if stuck:
        return printed, f"hang: no answer within {STUCK_SECONDS:g} s of work"
    if code < 0:
        return printed, f"crash: {signal.Signals(-code).name}"
    tail = log.read_text("utf-8", errors="replace")[-800:]
    return printed, f"crash: exit {code}: {tail}" if code else ""


def _processor_seconds(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it has ended
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _is_between(out: Any) -> bool:
    """Whether the child prepares its next target, which may take long."""
    out.seek(0)
    lines = out.read().splitlines()
    return not lines or '"target"' in lines[-1]


def _add(tallies: dict[str, dict[str, Any]], tally: dict[str, Any]) -> None:
    total = tallies.setdefault(tally["target"], tally)
    if total is tally:
        return
    for key in ("inputs", "refused", "accepted"):
        total[key] += tally[key]
    for key in ("slowest_ms", "peak_mib"):
        total[key] = max(total[key], tally[key])
    for what, files in tally["findings"].items():
        total["findings"].setdefault(what, []).extend(files)


def table(tallies: list[dict[str, Any]]) -> str:
    """The tallies as lines of text, and what was found below."""
    columns = ("target", "inputs", "refused", "accepted", "slowest_ms", "peak_mib")
    total = {
        "target": "all",
        **{k: sum(t[k] for t in tallies) for k in columns[1:4]},
        **{k: max(t[k] for t in tallies) for k in columns[4:]},
    }
    rows = [columns, *([str(t[k]) for k in columns] for t in (*tallies, total))]
    lines = [
        f"{row[0]:<12}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows
    ]
    for tally in tallies:
        for what, files in tally["findings"].items():
            lines.append(f"FOUND {tally['target']}: {what}")
            lines += [
                f"  repeat: python -m tests.fuzz {tally['target']} {file}"
                for file in files
            ]
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
    found = given.found.absolute()
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as work,
        ThreadPoolExecutor(given.jobs) as pool,
    ):
        waiting = [
            pool.submit(
                fuzz, {name: count}, seed=given.seed, found=found,
                work=Path(work) / name,
            )
            for name, count in sorted(plan.items(), key=lambda item: -item[1])
        ]  # fmt: skip
        tallies = []
        for one in waiting:
            tallies += one.result()
            print(f"{tallies[-1]['target']} is done", file=sys.stderr, flush=True)
    print(table(tallies))
    return int(any(tally["findings"] for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())

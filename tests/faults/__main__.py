"""Injects faults into running stages or flows and prints what survived."""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from stages.core import tables
from tests.faults import cases, clones, flows, judge
from tests.faults.cases import Case
from tests.faults.kinds import KINDS, Scene

ATTEMPTS = 5  # a stage that ended before its fault is run again
OUTPUT_LINES = 40
JOBS = max(2, os.cpu_count() or 2)

# Does a fault; returns what was done, and what went wrong.
Do = Callable[[Case], tuple[str, list[str]]]


@contextmanager
def stages_disturbed(
    folder: Path, given: argparse.Namespace
) -> Iterator[tuple[list[Case], Do]]:
    """The cases, and how one is done: in a clone of its own."""
    base = clones.read(given.base) if given.base else clones.prepare(folder / "base")

    def do(case: Case) -> tuple[str, list[str]]:
        root = folder / f"case{case.number}"
        for attempt in range(ATTEMPTS):
            clear(root)
            clones.lay(base, case.stage, root)
            scene = Scene(base, root, case.stage, case.dice(attempt))
            try:
                if (what := KINDS[case.kind](scene)) is None:
                    continue
                wrong = judge.after_fault(scene)
                for step in scene.mend:
                    step()
                wrong += judge.after_recovery(scene)
                if wrong:
                    lines = [x for run in scene.runs for x in run.output().splitlines()]
                    wrong += ["the disturbed run printed:", *lines[-OUTPUT_LINES:]]
                return what, wrong
            finally:
                for step in scene.clear:
                    step()
                clear(root)
        return "not done", ["the stage always ended before the fault came"]

    yield cases.of_stages(given.seed, given.faults or 200, base.inputs), do


def clear(root: Path) -> None:
    """Removes a clone and what lies beside it."""
    for path in (root, root.with_suffix(".site")):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def flows_disturbed(
    folder: Path, given: argparse.Namespace
) -> Iterator[tuple[list[Case], Do]]:
    """The cases, and how one is done: to a server that others have disturbed before."""
    idle: queue.SimpleQueue[flows.Served] = queue.SimpleQueue()
    for number in range(given.jobs):
        idle.put(flows.lay(folder / f"served{number}"))

    def do(case: Case) -> tuple[str, list[str]]:
        served = idle.get()
        what, wrong = flows.do(served, case)
        if wrong:
            flows.remove(served)
            served = flows.lay(folder / f"after{case.number}")
        idle.put(served)
        return what, wrong

    try:
        yield cases.of_flows(given.seed, given.faults or 50, flows.kinds()), do
    finally:
        while not idle.empty():
            served = idle.get()
            try:
                served.stop()
            finally:
                flows.remove(served)


def table(results: list[tuple[Case, bool]]) -> str:
    """Survived of tried, by kind and stage."""
    stages = list(dict.fromkeys([*cases.STAGES, *(case.stage for case, _ in results)]))
    stages = [s for s in stages if any(case.stage == s for case, _ in results)]

    def cell(kind: str, stage: str) -> str:
        some = [
            survived
            for case, survived in results
            if stage in (case.stage, "all") and kind in (case.kind, "all")
        ]
        return f"{sum(some)}/{len(some)}" if some else "-"

    kinds = [*sorted({case.kind for case, _ in results}), "all"]
    rows = [
        [kind, *(cell(kind, stage) for stage in (*stages, "all"))] for kind in kinds
    ]
    return tables.text(["", *stages, "all"], rows)


def isolate() -> None:
    """Restarts in a mount namespace of its own, where this user may have one.

    Small and read-only file systems are then mounted for this run alone, and vanish
    with it, however it ends.
    """
    if "FAULTS_CAN_MOUNT" in os.environ:
        return
    own = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    probe = [*own, "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    able = (
        shutil.which("unshare")
        and not subprocess.run(probe, capture_output=True).returncode
    )
    os.environ["FAULTS_CAN_MOUNT"] = "1" if able else "0"
    if able:
        words = [sys.executable, "-m", "tests.faults", *sys.argv[1:]]
        os.execvp("unshare", [*own, *words])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the whole sequence")
    parser.add_argument("--faults", type=int, help="how many: 200, or 50 of flows")
    parser.add_argument("--only", type=int, nargs="+", help="these of the sequence")
    parser.add_argument("--base", type=Path, help="a finished run, to do none")
    parser.add_argument("--jobs", type=int, default=JOBS, help="at a time")
    parser.add_argument("--flows", action="store_true", help="to served flows instead")
    given = parser.parse_args()
    isolate()
    start = time.monotonic()
    disturbed = flows_disturbed if given.flows else stages_disturbed

    def one(case: Case) -> tuple[Case, bool]:
        what, wrong = do(case)
        word = "LOST" if wrong else "survived"
        line = f"{case.number:>4} {case.stage:<9}{case.kind:<19}{word:<9}{what}"
        print("\n      ".join([line, *"\n".join(wrong).splitlines()]), flush=True)
        return case, not wrong

    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        disturbed(Path(folder), given) as (some, do),
        ThreadPoolExecutor(given.jobs) as pool,
    ):
        chosen = [c for c in some if not given.only or c.number in given.only]
        results = list(pool.map(one, chosen))
    survived = sum(survived for _, survived in results)
    print(
        f"\nsurvived of tried, seed {given.seed}\n{table(results)}\n"
        f"{survived} of {len(results)} faults survived in "
        f"{time.monotonic() - start:.0f} s; repeat one with --only NUMBER"
    )
    return int(survived < len(results))


if __name__ == "__main__":
    sys.exit(main())

"""Injects faults into running stages or flows and prints what survived."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stages.core import tables
from tests.faults import cases, clones, flows, judge
from tests.faults.cases import Case
from tests.faults.clones import Base
from tests.faults.kinds import KINDS, Scene

ATTEMPTS = 5  # a stage that ended before its fault is run again
OUTPUT_LINES = 40
JOBS = max(2, os.cpu_count() or 2)


@dataclass
class Result:
    """The outcome of one fault."""

    case: Case
    what: str
    wrong: list[str]

    def __str__(self) -> str:
        word = "LOST" if self.wrong else "survived"
        case = self.case
        line = f"{case.number:>4} {case.stage:<9}{case.kind:<14}{word:<9}{self.what}"
        return "\n      ".join([line, *"\n".join(self.wrong).splitlines()])


def do(base: Base, case: Case, folder: Path) -> Result:
    """Injects one fault in a clone of its own, and judges."""
    what, wrong = None, []
    root = folder / f"case{case.number}"
    for attempt in range(ATTEMPTS):
        clear(root)
        clones.lay(base, case.stage, root)
        scene = Scene(base, root, case.stage, case.dice(attempt))
        try:
            what = KINDS[case.kind](scene)
            if what is None:
                continue
            wrong = judge.after_fault(scene)
            for step in scene.mend:
                step()
            run, code = judge.recover(scene)
            wrong += judge.after_recovery(scene, run, code)
            if wrong:
                lines = [x for run in scene.runs for x in run.output().splitlines()]
                wrong += ["the disturbed run printed:", *lines[-OUTPUT_LINES:]]
            break
        finally:
            for step in scene.clear:
                step()
    else:
        wrong = [f"in {ATTEMPTS} attempts the stage ended before the fault came"]
    clear(root)
    return Result(case, what or "not done", wrong)


def clear(root: Path) -> None:
    """Removes a clone and what lies beside it."""
    for path in (root, root.with_suffix(".site"), root.with_suffix(".clock")):
        shutil.rmtree(path, ignore_errors=True)


def table(results: list[Result]) -> str:
    """Survived of tried, by stage and kind."""
    kinds = [kind for kind in KINDS if any(r.case.kind == kind for r in results)]

    def cell(stage: str, kind: str) -> str:
        some = [
            r
            for r in results
            if stage in (r.case.stage, "all") and kind in (r.case.kind, "all")
        ]
        return f"{sum(not r.wrong for r in some)}/{len(some)}" if some else "-"

    columns = [*kinds, "all"]
    rows = [[s, *(cell(s, kind) for kind in columns)] for s in (*cases.STAGES, "all")]
    return tables.text(["", *columns], rows)


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
    parser.add_argument("--sample", action="store_true", help="the ten of `make test`")
    parser.add_argument("--base", type=Path, help="a finished run, to do none")
    parser.add_argument("--jobs", type=int, default=JOBS, help="at a time")
    parser.add_argument("--flows", action="store_true", help="to served flows instead")
    given = parser.parse_args()
    if given.flows:
        count = given.faults or 50
        return flows.run(given.seed, count, only=given.only, jobs=given.jobs)
    isolate()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        folder = Path(scratch)
        base = (
            clones.read(given.base)
            if given.base
            else clones.prepare(folder / "base", say=say)
        )
        some = (
            cases.sample(given.seed)
            if given.sample
            else cases.cases(given.seed, given.faults or 200, base.inputs)
        )

        def one(case: Case) -> Result:
            result = do(base, case, folder)
            say(str(result))
            return result

        with ThreadPoolExecutor(given.jobs) as pool:
            chosen = [c for c in some if not given.only or c.number in given.only]
            results = list(pool.map(one, chosen))
    survived = sum(not r.wrong for r in results)
    say(
        f"\nsurvived of tried, seed {given.seed}\n{table(results)}\n"
        f"{survived} of {len(results)} faults survived in "
        f"{time.monotonic() - start:.0f} s; repeat one with --only NUMBER"
    )
    return int(survived < len(results))


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

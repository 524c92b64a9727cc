"""`python -m tests.faults [--seed N] [--only K]`: does faults, prints what survived."""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults import cases, clones, flows, judge
from tests.faults.cases import Case
from tests.faults.clones import Base
from tests.faults.kinds import KINDS, Scene

ATTEMPTS = 5  # a stage that ended before its fault is laid again
OUTPUT_LINES = 40
JOBS = max(2, os.cpu_count() or 2)


@dataclass
class Result:
    """What became of one fault."""

    number: int
    stage: str
    kind: str
    what: str
    wrong: list[str]
    seconds: float

    @property
    def line(self) -> str:
        word = "LOST" if self.wrong else "survived"
        return (
            f"{self.number:>4} {self.stage:<9} {self.kind:<13} {word:<9}"
            f"{self.seconds:5.0f} s  {self.what}"
        )


def do(base: Base, case: Case, folder: Path, *, keep: bool) -> Result:
    """Does one fault in a clone of its own, and judges."""
    start, what, wrong = time.monotonic(), None, []
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
                wrong.append("the disturbed run's words:\n" + _said(scene))
            break
        finally:
            for step in scene.clear:
                step()
    else:
        wrong = [f"in {ATTEMPTS} attempts the stage ended before the fault came"]
    if not (keep and wrong):
        clear(root)
    seconds = time.monotonic() - start
    return Result(
        case.number, case.stage, case.kind, what or "not done", wrong, seconds
    )


def _said(scene: Scene) -> str:
    lines = [line for run in scene.runs for line in run.output().splitlines()]
    return "\n".join(lines[-OUTPUT_LINES:])


def clear(root: Path) -> None:
    """Removes a clone and what lies beside it."""
    for path in (root, root.with_suffix(".site"), root.with_suffix(".clock")):
        shutil.rmtree(path, ignore_errors=True)


def table(results: list[Result]) -> str:
    """Stage by kind: survived of tried."""
    kinds = [kind for kind in KINDS if any(r.kind == kind for r in results)]

    def cell(some: list[Result]) -> str:
        return f"{sum(not r.wrong for r in some)}/{len(some)}" if some else "-"

    def row(head: str, some: list[Result]) -> list[str]:
        by_kind = [cell([r for r in some if r.kind == kind]) for kind in kinds]
        return [head, *by_kind, cell(some)]

    rows = [["", *kinds, "all"]]
    rows += [row(s, [r for r in results if r.stage == s]) for s in cases.STAGES]
    rows += [row("all", results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def isolate() -> None:
    """Goes on in a mount namespace of its own, where this user may have one.

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
    parser.add_argument("--faults", type=int, help="how many to do: 200")
    parser.add_argument("--only", type=int, nargs="+", help="these of the sequence")
    parser.add_argument("--stage", nargs="+", help="those of the sequence in a stage")
    parser.add_argument("--sample", action="store_true", help="the ten of `make test`")
    parser.add_argument("--base", type=Path, help="a finished run, to do none")
    parser.add_argument("--jobs", type=int, default=JOBS, help="at a time")
    parser.add_argument("--minutes", type=float, help="begin no fault after so many")
    parser.add_argument("--out", type=Path, help="JSON report to write")
    parser.add_argument("--keep", type=Path, help="folder that keeps what was lost")
    parser.add_argument("--flows", action="store_true", help="50 faults to flows")
    given = parser.parse_args()
    if given.flows:
        return flows.run(
            given.seed, given.faults or 50, only=given.only, jobs=given.jobs
        )
    isolate()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        base = (
            clones.read(given.base)
            if given.base
            else clones.prepare(folder.absolute() / "base", say=say)
        )
        some = (
            cases.sample(given.seed)
            if given.sample
            else cases.cases(given.seed, given.faults or 200, base.inputs)
        )
        if given.only:
            some = [case for case in some if case.number in given.only]
        if given.stage:
            some = [case for case in some if case.stage in given.stage]

        def one(case: Case) -> Result | None:
            if given.minutes and time.monotonic() - start > given.minutes * 60:
                return None
            keep = given.keep is not None
            result = do(base, case, folder.absolute(), keep=keep)
            lines = [result.line, *result.wrong]
            say("\n".join(lines).replace("\n", "\n      "))
            return result

        with ThreadPoolExecutor(given.jobs) as pool:
            results = [result for result in pool.map(one, some) if result]
    return report(results, given, time.monotonic() - start)


def say(text: str) -> None:
    print(text, flush=True)


def report(results: list[Result], given: argparse.Namespace, seconds: float) -> int:
    """Prints the table and how to repeat what was lost; 1 if anything was."""
    lost = [r for r in results if r.wrong]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"\nsurvived of tried, seed {given.seed}\n{table(results)}")
    for r in lost:
        again = " --sample" if given.sample else ""
        print(
            f"lost: {r.stage}, {r.kind}, {r.what}; again: python -m tests.faults"
            f"{again} --seed {given.seed} --only {r.number}"
        )
    print(
        f"{len(results) - len(lost)} of {len(results)} faults survived; "
        f"{seconds:.0f} s, {cpu:.0f} s of processor"
    )
    if given.out:
        values = {
            "seed": given.seed,
            "tried": len(results),
            "survived": len(results) - len(lost),
            "seconds": round(seconds),
            "cpu_seconds": round(cpu),
            "faults": [asdict(r) for r in results],
        }
        given.out.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

"""Byte-identical or not: `python -m stages.tools.verify [--stage NAME]`.

Builds the last commit twice from scratch, each time in a clean clone with a cache of
its own, in processes of its own and in another time zone, and compares the SHA-256 of
every output: the two with each other, and with what `dvc.lock` records. With --stage,
only that stage is built, on inputs copied from this checkout. Exit 1 where anything
differs.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import files, paths
from stages.core.errors import PipelineError, run
from stages.core.params import load_params
from stages.tools import differences

logger = logging.getLogger(__name__)

DVC_LOCK = Path("dvc.lock")
# A clock or a time zone in an output shows best where they are far apart.
ZONES = {"first": "Pacific/Auckland", "second": "America/Los_Angeles"}
KINDS = ("outs", "metrics", "plots")
LAST_LINES = 12


@dataclass(frozen=True)
class Output:
    """One output of a stage, built twice."""

    stage: str
    path: Path
    sha256: str  # of the first build
    difference: str  # where the second parts from it; "" where they are equal
    recorded: str  # `same`, `differs` or `no record`, against dvc.lock
    recorded_difference: str  # where the first build parts from the checkout's file


def verify(stage: str | None, *, work: Path) -> list[Output]:
    """Builds twice and compares.

    Args:
        stage: Only this one; None builds the whole pipeline.
        work: Empty folder for the two clones.

    Returns:
        Every output, in the plan's order.

    Raises:
        PipelineError: If this is no clean checkout of the pipeline, an input of the
            stage is missing, or a build fails.
    """
    plan = _plan(stage)
    clones = [_clone(work / name) for name in ZONES]
    record = _outs(_lock(clones[0]))
    for clone in clones:
        _supply(clone, plan, stage)
        _build(clone, stage)
    rebuilt = _outs(_lock(clones[0]))
    return [
        _compare(name, path, clones, record, rebuilt)
        for name in ([stage] if stage else plan)
        for path in _paths(plan[name])
    ]


def _plan(stage: str | None) -> dict[str, Any]:
    """The stages of `dvc.yaml`."""
    if not paths.PLAN.is_file() or _git("rev-parse", "--verify", "HEAD") is None:
        raise PipelineError(
            f"{paths.PLAN} or a Git commit is missing here; run from the root of a "
            "checkout that has at least one commit"
        )
    if _git("status", "--porcelain", "--untracked-files=no"):
        logger.warning("what is not committed is not verified: clones hold commits")
    stages: dict[str, Any] = YAML(typ="safe", pure=True).load(paths.PLAN)["stages"]
    if stage is not None and stage not in stages:
        raise PipelineError(
            f"{paths.PLAN} has no stage {stage!r}; it has {', '.join(stages)}"
        )
    return stages


def _clone(target: Path) -> Path:
    done = subprocess.run(
        ["git", "clone", "--quiet", str(Path.cwd()), str(target)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PipelineError(f"git cannot clone this checkout: {done.stderr.strip()}")
    # Whatever this user's settings say: nothing is taken from another cache.
    (target / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n")
    return target


def _supply(clone: Path, plan: dict[str, Any], stage: str | None) -> None:
    """Lays into a clone what Git does not hold and the build starts from."""
    folder = Path(load_params().ingest.folder)
    if not folder.is_absolute() and folder.exists() and stage in (None, "ingest"):
        _copy(folder, clone / folder)
    if stage is None:
        return
    made = {path for name in plan for path in _paths(plan[name])}
    for path in map(Path, plan[stage]["deps"]):
        if path not in made:
            continue
        if not path.exists():
            raise PipelineError(
                f"{path}, which {stage} reads, is missing; run `dvc repro` (or "
                "`dvc pull`) first, or verify the whole pipeline"
            )
        _copy(path, clone / path)


def _copy(source: Path, target: Path) -> None:
    files.remove(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _build(clone: Path, stage: str | None) -> None:
    """Runs `dvc repro` in a clone, by this interpreter, without the run-cache."""
    words = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache"]
    words += ["--single-item", stage] if stage else []
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DVC_"))}
    search = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    log = clone.with_suffix(".log")
    logger.info("building %s, the %s time; %s grows", stage or "all", clone.name, log)
    with log.open("wb") as file:
        done = subprocess.run(
            words,
            cwd=clone,
            env=kept
            | {"PATH": search, "TZ": ZONES[clone.name], "DVC_NO_ANALYTICS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-LAST_LINES:]), file=sys.stderr)
        raise PipelineError(
            f"the {clone.name} build failed, its last lines are above; see what "
            "`dvc repro` says in a clean clone"
        )


def _compare(
    stage: str,
    path: Path,
    clones: list[Path],
    record: dict[Path, str],
    rebuilt: dict[Path, str],
) -> Output:
    first, second = (clone / path for clone in clones)
    sha256 = files.sha256(first)
    equal = sha256 == files.sha256(second)
    recorded, told = "no record", ""
    if path in record:
        recorded = "same" if record[path] == rebuilt.get(path) else "differs"
    if recorded == "differs" and path.exists():
        told = differences.first(path, first)
    return Output(
        stage,
        path,
        sha256,
        "" if equal else differences.first(first, second) or "names",
        recorded,
        told,
    )


def _paths(stage: dict[str, Any]) -> Iterator[Path]:
    """The outputs of a stage of the plan; some are a name, some a name with options."""
    for kind in KINDS:
        for out in stage.get(kind, []):
            yield Path(out if isinstance(out, str) else next(iter(out)))


def _lock(clone: Path) -> dict[str, Any]:
    path = clone / DVC_LOCK
    if not path.is_file():
        return {}
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(path)["stages"]
    return found


def _outs(lock: dict[str, Any]) -> dict[Path, str]:
    """MD5 of every output, as DVC records it."""
    return {
        Path(out["path"]): out["md5"]
        for stage in lock.values()
        for out in stage.get("outs", [])
    }


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    return None if done.returncode else done.stdout.strip()


def report(outputs: list[Output]) -> None:
    """Prints the table.

    Raises:
        PipelineError: If an output differs.
    """
    width = max(len(str(output.path)) for output in outputs)
    print(f"{'stage':<10}{'output':<{width}}  {'sha256':<12}  builds   dvc.lock")
    for out in outputs:
        builds = "differ" if out.difference else "same"
        print(
            f"{out.stage:<10}{out.path!s:<{width}}  {out.sha256[:12]}  "
            f"{builds:<7}  {out.recorded}"
        )
        if out.difference:
            print(f"{'':<10}the two builds differ: {out.difference}")
        if out.recorded_difference:
            print(f"{'':<10}this checkout's has otherwise: {out.recorded_difference}")
    unequal = [out for out in outputs if out.difference]
    if unequal:
        raise PipelineError(
            f"{len(unequal)} of {len(outputs)} outputs differ between two builds on "
            f"one machine, first {unequal[0].path} ({unequal[0].difference}); "
            f"stages.{unequal[0].stage} lets in a clock, an address or an order"
        )
    other = [out for out in outputs if out.recorded == "differs"]
    if other:
        raise PipelineError(
            f"{len(other)} of {len(outputs)} outputs are not what dvc.lock records, "
            f"first {other[0].path}; both builds agree, so code, params or data were "
            "changed without `dvc repro`, or another processor or number of threads "
            "made the record (compare data/model/build.json)"
        )
    print(f"all {len(outputs)} outputs are the same, byte for byte")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", help="build this one only")
    parser.add_argument("--keep", type=Path, help="new folder that keeps the builds")
    given = parser.parse_args()
    if given.keep is None:
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            report(verify(given.stage, work=Path(folder)))
        return
    try:
        given.keep.mkdir(parents=True)
    except FileExistsError:
        raise PipelineError(
            f"--keep {given.keep} exists already; name a new folder"
        ) from None
    report(verify(given.stage, work=given.keep.absolute()))


if __name__ == "__main__":
    run(main)

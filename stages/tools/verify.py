"""Builds the last commit twice from scratch and compares every output's hash.

Each build happens in a clean clone with a cache of its own and in another time zone, by
`dvc repro --force --no-run-cache`. `dvc.lock` then holds the hash of every output.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import dvc_files, files, git, paths, processes
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.core.tables import text

logger = logging.getLogger(__name__)

DVC_LOCK = Path("dvc.lock")
# A clock or a time zone in an output shows best where the two are far apart.
ZONES = {"first": "Pacific/Auckland", "second": "America/Los_Angeles"}
LAST_LINES = 12


@dataclass(frozen=True)
class Output:
    """One output's MD5 in both builds and in the committed `dvc.lock`."""

    path: str
    first: str
    second: str
    recorded: str  # "" where dvc.lock has no record


def run(stage: str | None, keep: Path | None) -> None:
    """Builds twice, prints the comparison, and removes the builds.

    Args:
        stage: Build this one alone, on inputs copied from this checkout.
        keep: A new folder that keeps the builds.

    Raises:
        PipelineError: If an output differs, or nothing can be built.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            report(verify(stage, work=Path(folder)))
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise PipelineError(
            f"--keep {keep} exists already; name a new folder"
        ) from None
    report(verify(stage, work=keep.absolute()))


def verify(stage: str | None, *, work: Path) -> list[Output]:
    """Builds twice.

    Args:
        stage: Build this one alone; None builds the whole pipeline.
        work: Empty folder for the two clones.

    Returns:
        The outputs that were built, in the plan's order.

    Raises:
        PipelineError: If this is not a checkout of the pipeline with a commit, an input
            of the stage is missing, or a build fails.
    """
    if not paths.PLAN.is_file():
        raise PipelineError(f"{paths.PLAN} is missing here; run from a checkout's root")
    git.output("rev-parse", "--verify", "HEAD")
    plan = YAML(typ="safe", pure=True).load(paths.PLAN)["stages"]
    if stage is not None and stage not in plan:
        raise PipelineError(
            f"{paths.PLAN} has no stage {stage!r}; it has {', '.join(plan)}"
        )
    if git.output("status", "--porcelain", "--untracked-files=no"):
        logger.warning("uncommitted changes are left out: the builds are of HEAD")
    built = []
    recorded: dict[str, str] = {}
    for name, zone in ZONES.items():
        clone = _clone(work / name)
        recorded = _hashes(clone)
        _copy_inputs(clone, plan, stage)
        _build(clone, stage, zone)
        built.append(_hashes(clone, stage))
    first, second = built
    return [
        Output(path, first[path], second.get(path, ""), recorded.get(path, ""))
        for path in first
    ]


def is_like_recorded(outputs: list[Output]) -> bool:
    """Whether a machine like this one made the committed results.

    Its description is an output of train; without it, only what no processor changes
    was built, or this checkout's own model was judged.
    """
    builds = [out for out in outputs if out.path == str(paths.BUILD)]
    return all(out.first == out.recorded for out in builds)


def _clone(target: Path) -> Path:
    git.output("clone", "--quiet", ".", str(target))
    clone = target / git.output("rev-parse", "--show-prefix")
    # Whatever this user's configuration says, nothing comes from another cache.
    (clone / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n")
    return clone


def _hashes(clone: Path, stage: str | None = None) -> dict[str, str]:
    """MD5 by path of the outputs in a clone's `dvc.lock`."""
    lock = clone / DVC_LOCK
    if not lock.is_file():
        return {}
    stages = YAML(typ="safe", pure=True).load(lock)["stages"]
    return dvc_files.recorded_outs({stage: stages[stage]} if stage else stages)


def _copy_inputs(clone: Path, plan: dict[str, Any], stage: str | None) -> None:
    """Copies into a clone what the build reads and Git does not hold."""
    folder = Path(load_params().ingest.folder)
    if not folder.is_absolute() and folder.exists() and stage in (None, "ingest"):
        _copy(folder, clone / folder)
    deps = plan[stage]["deps"] if stage else []
    for path in (Path(dep) for dep in deps if dep.startswith("data/")):
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


def _build(clone: Path, stage: str | None, zone: str) -> None:
    words = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache"]
    words += ["--single-item", stage] if stage else []
    log = clone / "build.log"
    logger.info("building %s in %s, see %s", stage or "all stages", clone, log.name)
    kept = {
        name: value
        for name, value in processes.environment().items()
        if name == "DVC_NO_ANALYTICS" or not name.startswith(("PYTHON", "DVC_"))
    }
    with log.open("wb") as file:
        done = subprocess.run(
            words,
            cwd=clone,
            env=kept | {"TZ": zone},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise PipelineError(
            "a build in a clean clone failed, its last lines are below",
            details="\n".join(lines[-LAST_LINES:]),
        )


def report(outputs: list[Output]) -> None:
    """Prints the comparison.

    Args:
        outputs: What `verify` gave.

    Raises:
        PipelineError: If the two builds differ, or both differ from a `dvc.lock` that
            a machine like this one made.
    """
    states = {"": "no record"}
    rows = [
        (
            out.path,
            out.first[:12],
            "same" if out.first == out.second else "DIFFER",
            "same"
            if out.recorded == out.first
            else states.get(out.recorded, "differs"),
        )
        for out in outputs
    ]
    head = ("output", "MD5", "builds", str(DVC_LOCK))
    print(text(head, rows))
    unequal = [out.path for out in outputs if out.first != out.second]
    if unequal:
        raise PipelineError(
            f"{len(unequal)} of {len(outputs)} outputs differ between two builds on "
            f"this machine, first {unequal[0]}; keep both with --keep and compare them "
            "with diffoscope"
        )
    other = [out.path for out in outputs if out.recorded not in ("", out.first)]
    if other and is_like_recorded(outputs):
        raise PipelineError(
            f"{len(other)} of {len(outputs)} outputs differ from {DVC_LOCK}, first "
            f"{other[0]}, though both builds agree: run `dvc repro` and commit, or "
            f"compare the threads and libraries in {paths.BUILD}"
        )
    print(f"all {len(outputs)} outputs of the two builds are the same, byte for byte")
    if other:
        print(f"{len(other)} differ from {DVC_LOCK}, which another processor made")

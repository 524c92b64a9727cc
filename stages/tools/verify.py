"""Builds the last commit twice from scratch and compares every output's hash.

Each build happens in a clean clone with a cache of its own and in another time zone, by
`dvc repro --force --no-run-cache`. `dvc.lock` then holds the hash of every output.
"""

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from stages.core import dvc_files, files, git, paths, processes, worktree
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.core.tables import text

logger = logging.getLogger(__name__)

# Two time zones that are far apart reveal a clock in an output.
ZONES = {"first": "Pacific/Auckland", "second": "America/Los_Angeles"}
LAST_LINES = 12

Hashes = dict[str, str]  # MD5 of outputs by path


def run(keep: Path | None) -> None:
    """Builds twice and compares; `keep` names a new folder for both builds.

    Raises:
        PipelineError: If an output differs, or nothing can be built.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            report(*verify(Path(folder)))
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise PipelineError(
            f"--keep {keep} exists already; name a new folder"
        ) from None
    report(*verify(keep.absolute()))


def verify(work: Path) -> tuple[Hashes, Hashes, Hashes]:
    """Builds twice below an empty folder.

    Returns:
        The outputs of both builds, and those that the last commit records.

    Raises:
        PipelineError: If this is not a checkout of the pipeline with a commit, or a
            build fails.
    """
    if not paths.PLAN.is_file():
        raise PipelineError(f"{paths.PLAN} is missing here; run from a checkout's root")
    git.output("rev-parse", "--verify", "HEAD")
    top = git.output("rev-parse", "--show-toplevel")
    if git.output("status", "--porcelain", "--untracked-files=no"):
        logger.warning("uncommitted changes are left out: the builds are of HEAD")
    recorded: Hashes = {}
    built = []
    for name, zone in ZONES.items():
        git.output("clone", "--quiet", top, str(work / name))
        clone = work / name / git.output("rev-parse", "--show-prefix")
        # The user's configuration may name a shared cache.
        files.write_text(clone / ".dvc/config.local", "[cache]\n    dir = cache\n")
        params = load_params()
        for place in (params.ingest.folder, params.train.initial_weights):
            worktree.link_source(Path.cwd(), clone, place)
        recorded = _hashes(clone)
        _build(clone, zone)
        built.append(_hashes(clone))
    first, second = built
    return first, second, recorded


def _hashes(clone: Path) -> Hashes:
    lock = clone / paths.DVC_LOCK
    if not lock.is_file():
        return {}
    return dvc_files.recorded_outs(YAML(typ="safe", pure=True).load(lock)["stages"])


def _build(clone: Path, zone: str) -> None:
    log = clone / "build.log"
    logger.info("building %s, see %s", clone, log.name)
    kept = {
        name: value
        for name, value in processes.environment().items()
        if name == "DVC_NO_ANALYTICS" or not name.startswith(("PYTHON", "DVC_"))
    }
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache"],
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


def report(first: Hashes, second: Hashes, recorded: Hashes) -> None:
    """Prints the comparison of two builds and the committed record.

    Raises:
        PipelineError: If the two builds differ, or both differ from a `dvc.lock` that
            a machine like this one made.
    """
    unequal = [path for path in first if first[path] != second.get(path)]
    other = [path for path in first if recorded.get(path, first[path]) != first[path]]
    rows = [
        (
            path,
            md5[:12],
            "DIFFER" if path in unequal else "same",
            "differs" if path in other else "same" if path in recorded else "no record",
        )
        for path, md5 in first.items()
    ]
    print(text(("output", "MD5", "builds", str(paths.DVC_LOCK)), rows))
    if unequal:
        raise PipelineError(
            f"{len(unequal)} of {len(first)} outputs differ between two builds on "
            f"this machine, first {unequal[0]}; keep both with --keep and compare them "
            "with diffoscope"
        )
    # If build.json differs, another processor or other libraries made dvc.lock.
    if other and str(paths.BUILD) not in other:
        raise PipelineError(
            f"{len(other)} of {len(first)} outputs differ from {paths.DVC_LOCK}, first "
            f"{other[0]}, though both builds agree: run `dvc repro` and commit, or "
            f"compare the threads and libraries in {paths.BUILD}"
        )
    print(f"all {len(first)} outputs of the two builds are the same, byte for byte")
    if other:
        print(
            f"{len(other)} differ from {paths.DVC_LOCK}, which another processor or "
            "other libraries made"
        )

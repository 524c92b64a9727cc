"""A run beside the working tree, in a Git worktree, kept as a DVC experiment.

What is not committed takes no part, so that the result is what anybody else gets from
that commit. The DVC cache is the repository's own: nothing is computed twice.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.flow.overrides import override, parse
from stages.flow.processes import git


def committed_params(root: Path, values: dict[str, Any]) -> str:
    """The text of the last commit's `params.yaml` with values set in it.

    Raises:
        PipelineError: If a value does not fit, or there is no such commit.
    """
    text = committed(root, paths.PARAMS)
    if text is None:
        raise PipelineError(
            f"{paths.PARAMS} is in no commit yet, and an experiment starts from the "
            "last one; commit it first"
        )
    return override(text, values)


def committed(root: Path, path: Path) -> str | None:
    """A file as the last commit has it; None where it has none."""
    try:
        return git(root, "show", f"HEAD:./{path.as_posix()}") + "\n"
    except subprocess.CalledProcessError:
        return None


@contextlib.contextmanager
def room(root: Path, params: str) -> Iterator[Path]:
    """Checks out the last commit beside the working tree, with these params.

    Gone at the end. A run that was killed leaves it, and the next one with the same
    commit and params goes on in it, from the checkpoints that lie there.

    Args:
        root: The repository; its working tree is not touched.
        params: The text of `params.yaml` there.

    Yields:
        The worktree's folder.

    Raises:
        PipelineError: If the same experiment is under way.
    """
    commit = git(root, "rev-parse", "HEAD")
    name = hashlib.sha256(json.dumps([commit, params]).encode()).hexdigest()[:12]
    folder = root / paths.WORK / "rooms" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(
                "an experiment with the same commit and params is under way; wait for "
                "it, or cancel it and run this again"
            ) from None
        if not _is_room(folder, commit):
            _remove(root, folder)
            git(root, "worktree", "add", "--force", "--detach", str(folder), commit)
        (folder / paths.PARAMS).write_text(params, "utf-8", newline="\n")
        _share_cache(root, folder)
        _bring_folder(root, folder, parse(params).ingest.folder)
        try:
            yield folder
        except Exception:
            _remove(root, folder)
            raise
        _remove(root, folder)


def keep(root: Path, folder: Path, *, name: str, message: str) -> str:
    """Commits what a room holds, and lists it as a DVC experiment.

    Args:
        root: The repository.
        folder: A room in which the stages have run.
        name: Of the experiment; `dvc exp show` lists it, `dvc exp apply` fetches it.
        message: Of the commit.

    Returns:
        The commit: params, lock, and every output that Git holds.
    """
    base = git(folder, "rev-parse", "HEAD")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--no-verify", "-m", message)
    commit = git(folder, "rev-parse", "HEAD")
    git(root, "update-ref", str(ExpRefInfo(base, name)), commit)
    return commit


def _is_room(folder: Path, commit: str) -> bool:
    """Whether a killed run has left a whole one."""
    if not (folder / ".git").is_file():
        return False
    with contextlib.suppress(subprocess.CalledProcessError):
        return git(folder, "rev-parse", "HEAD") == commit
    return False


def _remove(root: Path, folder: Path) -> None:
    files.remove(folder)
    git(root, "worktree", "prune")


def _share_cache(root: Path, folder: Path) -> None:
    """Points a room at the repository's own cache and remotes, wherever they are."""
    local = root / ".dvc" / "config.local"
    if local.is_file():  # it may hold a remote's credentials
        shutil.copy2(local, folder / ".dvc" / "config.local")
    with Repo(root) as repo:
        cache = repo.cache.local_cache_dir
        remotes = {name: facts["url"] for name, facts in repo.config["remote"].items()}
    with Repo(folder) as repo, repo.config.edit("local") as config:
        config["cache"]["dir"] = cache
        for name, url in remotes.items():
            config["remote"].setdefault(name, {})["url"] = url


def _bring_folder(root: Path, room_folder: Path, name: str) -> None:
    """Puts the source folder, which Git does not hold, where the room expects it."""
    source, target = root / name, room_folder / name
    if Path(name).is_absolute() or not source.exists():
        return
    if ".." in Path(name).parts:
        raise PipelineError(
            f"ingest.folder should be absolute or inside the repository for an "
            f"experiment, found {name}; write its whole path"
        )
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(str(source), str(target))
    else:
        shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """A second name for the same bytes; a copy, where file systems differ."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

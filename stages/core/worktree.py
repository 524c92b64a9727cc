"""Runs beside the working tree: a Git worktree that shares DVC's cache.

A run there starts from a commit, so that the commit reproduces its result. `keep` saves
the result as a DVC experiment.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.core import files, git, paths, processes
from stages.core.errors import PipelineError
from stages.core.params import text_with_values

FOLDER = paths.WORK / "worktrees"


def committed_params(root: Path, values: dict[str, Any]) -> str:
    """The text of the last commit's `params.yaml` with values set by dotted name.

    Raises:
        PipelineError: If a value does not fit, no commit has the file, or Git does not
            know who would make the experiment's commit.
    """
    git.require_author()
    text = committed(root, paths.PARAMS)
    if text is None:
        raise PipelineError(
            f"{paths.PARAMS} should be committed, since an experiment starts from the "
            "last commit, but is not; commit it first"
        )
    return text_with_values(text, values)


def committed(root: Path, path: Path) -> str | None:
    """A file's text in the last commit; None if the commit lacks it."""
    done = git.run("show", f"HEAD:./{path.as_posix()}", cwd=root)
    return None if done.returncode else done.stdout.decode("utf-8", "replace")


@contextlib.contextmanager
def checkout(root: Path, params: str, *, revision: str = "HEAD") -> Iterator[Path]:
    """Checks a commit out beside the working tree; yields the pipeline's folder there.

    `params` is the text of its `params.yaml`. The worktree is removed at the end. A
    killed run leaves it, and the next run of the same commit and params continues in it
    from its checkpoints.

    Raises:
        PipelineError: If another process runs the same commit and params.
    """
    commit = git.output("rev-parse", "--verify", f"{revision}^{{commit}}", cwd=root)
    prefix = git.output("rev-parse", "--show-prefix", cwd=root)
    name = hashlib.sha256(json.dumps([commit, params]).encode()).hexdigest()[:12]
    top = root / FOLDER / name
    top.parent.mkdir(parents=True, exist_ok=True)
    with top.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(
                "an experiment with the same commit and params is running; wait for "
                "it, or cancel it and run this again"
            ) from None
        if not _is_at(top, commit):
            _remove(root, top)
            git.output(
                *("worktree", "add", "--force", "--detach", str(top), commit), cwd=root
            )
        folder = top / prefix
        (folder / paths.PARAMS).write_text(params, "utf-8", newline="\n")
        _share_cache(root, folder)
        # Of the commit's own params, which this version may not know.
        values = YAML(typ="safe", pure=True).load(params) or {}
        link_source(root, folder, str(values["ingest"]["folder"]))
        initial = values.get("train", {}).get("initial_weights")
        if initial:
            link_source(root, folder, str(initial))
        try:
            yield folder
        except Exception:
            _remove(root, top)
            raise
        _remove(root, top)


def keep(folder: Path, *, stages: Iterable[str], name: str, message: str) -> str:
    """Saves a worktree's params, lock and outputs as a DVC experiment.

    `stages` are those that ran, or the last of them: DVC does not save a stage whose
    outputs are missing.

    Returns:
        The experiment's commit.

    Raises:
        PipelineError: If DVC cannot save it.
    """
    git.output("add", "--all", cwd=folder)  # else DVC leaves new files out
    words = ("--force", "--name", name, "--message", message)
    done = subprocess.run(
        processes.dvc("exp", "save", *words, *stages),
        cwd=folder,
        env=processes.environment(),
        capture_output=True,
    )
    if done.returncode:
        reason = git.last_line(done.stderr) or "no reason given"
        raise PipelineError(f"`dvc exp save` failed: {reason}")
    head = git.output("rev-parse", "HEAD", cwd=folder)
    found = experiment(folder, head, name)
    assert found is not None
    return found


def commit(folder: Path, message: str) -> str:
    """Commits a worktree's params, lock and outputs; returns the commit."""
    git.output("add", "--all", cwd=folder)
    words = ("--quiet", "--allow-empty", "--no-verify", "-m", message)
    git.output("commit", *words, cwd=folder)
    return git.output("rev-parse", "HEAD", cwd=folder)


def experiment(root: Path, base: str, name: str) -> str | None:
    """The commit of an experiment on a base commit; None if there is none."""
    reference = f"refs/exps/{base[:2]}/{base[2:]}/{name}"
    words = ("for-each-ref", "--format=%(objectname)", reference)
    return git.output(*words, cwd=root) or None


def _is_at(top: Path, commit: str) -> bool:
    """Whether a killed run left a complete worktree of that commit."""
    if not (top / ".git").is_file():
        return False
    return git.run("rev-parse", "HEAD", cwd=top).stdout.decode().strip() == commit


def _remove(root: Path, top: Path) -> None:
    files.remove(top)
    git.output("worktree", "prune", cwd=root)


def _share_cache(root: Path, folder: Path) -> None:
    """Gives a worktree the cache and the remotes of the checkout."""
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


def link_source(root: Path, folder: Path, name: str) -> None:
    """Links a file or folder that Git ignores into the worktree."""
    source, target = root / name, folder / name
    if Path(name).is_absolute() or not source.exists():
        return
    if source in (root, *folder.parents):  # it contains the worktree itself
        return
    if ".." in Path(name).parts:
        raise PipelineError(
            f"{name} should be absolute or inside the repository for an experiment; "
            "write its absolute path in params.yaml"
        )
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(str(source), str(target))
    else:
        shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """A hard link; a copy where the file systems differ."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

"""The Git repository in the working directory, and its DVC cache."""

import os
from functools import cached_property
from pathlib import Path

from stages.core import dvc_files, git
from stages.core.errors import PipelineError


class Repository:
    """The Git repository in the working directory, and its DVC cache."""

    def __init__(self) -> None:
        """Finds the repository.

        Raises:
            PipelineError: If the working directory is not the root of one.
        """
        done = git.run("rev-parse", "--show-toplevel")
        if done.returncode:
            reason = git.last_line(done.stderr) or "git gives no reason"
            raise PipelineError(
                f"{Path.cwd()} should be a Git repository but is not ({reason}); "
                "run from the root of a clone"
            )
        top = Path(os.fsdecode(done.stdout.rstrip(b"\n")))
        if top.resolve() != Path.cwd().resolve():
            raise PipelineError(
                f"{Path.cwd()} is inside the repository {top} but should be its root; "
                f"run the same command in {top}"
            )

    def resolve(self, revision: str) -> str:
        """The commit that a revision names, as 40 hexadecimal digits.

        Raises:
            PipelineError: If there is no such commit here.
        """
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options")
        done = git.run(*words, f"{revision}^{{commit}}")
        if done.returncode == 0:
            return done.stdout.decode().strip()
        if git.output("rev-parse", "--is-shallow-repository") == "true":
            raise PipelineError(
                f"Git revision {revision!r} is not in this clone, which is shallow; "
                "fetch the whole history with `git fetch --unshallow` (on a forge: "
                "`fetch-depth: 0`)"
            )
        raise PipelineError(
            f"Git revision {revision!r} is unknown here; `git branch --all` and "
            "`git log --oneline` list the known ones (a branch that only the remote "
            "has is called like origin/main)"
        )

    def only_in(self, here: str, there: str) -> int:
        """Number of commits that `here` has and `there` lacks."""
        return int(git.output("rev-list", "--count", f"{there}..{here}"))

    def changed_files(self, base: str, head: str | None) -> dict[str, tuple[int, int]]:
        """Files that differ, with lines added and removed; -1 where they are binary.

        Args:
            base: A commit.
            head: A commit; None for the working tree, untracked files included.
        """
        plain = ("--no-renames", "--no-ext-diff", "--no-textconv")
        commits = [base] if head is None else [base, head]
        done = git.run("diff", "--numstat", "-z", *plain, *commits, "--")
        changed: dict[str, tuple[int, int]] = {}
        for line in done.stdout.decode("utf-8", "replace").split("\0"):
            if line:
                added, removed, name = line.split("\t", 2)
                is_binary = added == "-"
                changed[name] = (-1, -1) if is_binary else (int(added), int(removed))
        if head is None:
            words = ("ls-files", "-z", "--others", "--exclude-standard")
            for name in filter(None, git.run(*words).stdout.decode().split("\0")):
                is_file = Path(name).is_file()
                lines = Path(name).read_bytes().count(b"\n") if is_file else 0
                changed[name] = (lines, 0)
        return dict(sorted(changed.items()))

    @cached_property
    def cache(self) -> Path:
        """The folder in which DVC keeps contents.

        Raises:
            PipelineError: If this is no DVC repository.
        """
        return dvc_files.cache()

"""The Git repository in the working directory, and where DVC keeps contents."""

import os
import subprocess
import sys
from functools import cached_property
from io import BytesIO
from pathlib import Path

from stages.core.errors import PipelineError


class Repository:
    """The Git repository in the working directory, and its DVC cache."""

    def __init__(self) -> None:
        """Finds the repository.

        Raises:
            PipelineError: If the working directory is not the root of one.
        """
        done = run_git("rev-parse", "--show-toplevel")
        if done.returncode:
            reason = _last_line(done.stderr) or "git says no more"
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
        """The commit a revision names, as 40 hexadecimal digits.

        Raises:
            PipelineError: If there is no such commit here.
        """
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options")
        done = run_git(*words, f"{revision}^{{commit}}")
        if done.returncode == 0:
            return done.stdout.decode().strip()
        if run_git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
            raise PipelineError(
                f"Git revision {revision!r} is not in this clone, which is shallow; "
                "fetch the whole history with `git fetch --unshallow` (on a forge: "
                "`fetch-depth: 0`)"
            )
        raise PipelineError(
            f"Git revision {revision!r} is unknown here; `git branch --all` and "
            "`git log --oneline` list those that are (a branch that only the remote "
            "has is called like origin/main)"
        )

    def blobs(self, commit: str, names: list[str]) -> dict[str, bytes | None]:
        """Contents of files of a commit, from one process; None where there is none.

        A name that cannot stand in a line of git's own language is none of ours.
        """
        asked = [name for name in names if "\n" not in name]
        lines = "".join(f"{commit}:{name}\n" for name in asked).encode()
        answer = BytesIO(run_git("cat-file", "--batch", given=lines).stdout)
        found: dict[str, bytes | None] = dict.fromkeys(names)
        for name in asked:
            # `ID blob SIZE`, the content and a line end; or `NAME missing`.
            words = answer.readline().split()
            if len(words) == 3 and words[2].isdigit():
                content = answer.read(int(words[2]))
                answer.read(1)
                found[name] = content if words[1] == b"blob" else None
        return found

    def only_in(self, here: str, there: str) -> int:
        """Number of commits that `here` has and `there` has not."""
        done = run_git("rev-list", "--count", f"{there}..{here}")
        return int(done.stdout or 0)

    def changed_files(self, base: str, head: str | None) -> dict[str, tuple[int, int]]:
        """Files that differ, with lines added and removed; -1 where they are binary.

        Args:
            base: A commit.
            head: A commit; None for the working tree, untracked files included.
        """
        plain = ("--no-renames", "--no-ext-diff", "--no-textconv")
        sides = [base] if head is None else [base, head]
        done = run_git("diff", "--numstat", "-z", *plain, *sides, "--")
        changed: dict[str, tuple[int, int]] = {}
        for line in done.stdout.decode("utf-8", "replace").split("\0"):
            if line:
                added, removed, name = line.split("\t", 2)
                is_binary = added == "-"
                changed[name] = (-1, -1) if is_binary else (int(added), int(removed))
        if head is None:
            for name in self._untracked():
                lines = (
                    Path(name).read_bytes().count(b"\n") if Path(name).is_file() else 0
                )
                changed[name] = (lines, 0)
        return dict(sorted(changed.items()))

    @staticmethod
    def _untracked() -> list[str]:
        done = run_git("ls-files", "-z", "--others", "--exclude-standard")
        return [name for name in done.stdout.decode().split("\0") if name]

    @cached_property
    def cache(self) -> Path:
        """Where DVC keeps contents, wherever its configuration puts it.

        Raises:
            PipelineError: If this is no DVC repository.
        """
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "cache", "dir"],
            capture_output=True,
            text=True,
            env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        )
        if done.returncode:
            raise PipelineError(
                f"`dvc cache dir` should name DVC's cache but fails "
                f"({_last_line(done.stderr.encode())}); see .dvc/config"
            )
        return Path(done.stdout.strip()) / "files" / "md5"


def run_git(
    *words: str, given: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs git; literal paths, English messages, and never a question asked."""
    env = os.environ | {
        "LC_ALL": "C",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    try:
        return subprocess.run(
            ["git", *words], input=given, capture_output=True, env=env
        )
    except FileNotFoundError:
        raise PipelineError(
            "git is needed to compare revisions and was not found; install it"
        ) from None


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""

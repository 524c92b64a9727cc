"""Runs git: literal paths, English messages, no questions."""

import os
import shlex
import subprocess
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from stages.core import paths
from stages.core.errors import PipelineError

_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
}


def run(
    *words: str, cwd: Path | None = None, given: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs git, whatever its exit code; `given` is its standard input.

    Raises:
        PipelineError: If git is not installed.
    """
    try:
        return subprocess.run(
            ["git", *words],
            cwd=cwd,
            input=given,
            capture_output=True,
            env=os.environ | _ENVIRONMENT,
        )
    except FileNotFoundError:
        raise PipelineError("git was not found; install it") from None


def output(*words: str, cwd: Path | None = None) -> str:
    """The text that git prints, stripped.

    Raises:
        PipelineError: If git fails; the sentence holds git's own reason.
    """
    done = run(*words, cwd=cwd)
    if done.returncode:
        reason = last_line(done.stderr or done.stdout) or "no reason given"
        raise PipelineError(f"`git {words[0]}` failed: {reason}")
    return done.stdout.decode("utf-8", "replace").strip()


def require_root() -> None:
    """Checks that the working directory is the root of a repository.

    Raises:
        PipelineError: If not; the sentence says where to go, or how to make it one.
    """
    done = run("rev-parse", "--show-toplevel")
    if done.returncode:
        raise PipelineError(
            f"{Path.cwd()} should be a Git repository but is not "
            f"({last_line(done.stderr)}); run from the root of a clone"
        )
    top = Path(os.fsdecode(done.stdout.rstrip(b"\n")))
    if top.resolve() == Path.cwd().resolve():
        return
    advice = f"run the same command in {top}"
    if not (top / paths.PLAN).is_file():
        prefix = output("rev-parse", "--show-prefix").rstrip("/")
        advice = (
            "give the folder a repository of its own (`git subtree split --prefix "
            f"{shlex.quote(prefix)}`) and run the same command there"
        )
    raise PipelineError(
        f"{Path.cwd()} is inside the repository {top} but should be its root; {advice}"
    )


def require_author() -> None:
    """Checks that commits and experiments can be made: Git knows who makes them.

    Raises:
        PipelineError: If not.
    """
    for name in ("name", "email"):
        is_known = f"GIT_COMMITTER_{name.upper()}" in os.environ
        if not is_known and run("config", f"user.{name}").returncode:
            raise PipelineError(
                f"Git should know user.{name}, since results are kept as commits, but "
                f"does not; set it: `git config user.{name} ...`"
            )


def files_at(commit: str, names: Iterable[str]) -> dict[str, bytes | None]:
    """Contents of a commit's files, from one process; None for missing ones.

    Names are relative to the root of the repository. A name with a line break counts as
    missing, since git's protocol cannot express it.
    """
    found: dict[str, bytes | None] = dict.fromkeys(names)
    asked = [name for name in found if "\n" not in name]
    lines = "".join(f"{commit}:{name}\n" for name in asked).encode()
    answer = BytesIO(run("cat-file", "--batch", given=lines).stdout)
    for name in asked:
        # `ID blob SIZE`, the content and a line end; or `NAME missing`.
        words = answer.readline().split()
        if len(words) == 3 and words[2].isdigit():
            content = answer.read(int(words[2]))
            answer.read(1)
            found[name] = content if words[1] == b"blob" else None
    return found


def last_line(text: bytes) -> str:
    """The last line that a command printed, usually the reason of its failure."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""

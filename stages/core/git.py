"""Runs git: literal paths, English messages, no questions."""

import os
import subprocess
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

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

"""Runs git: literal paths, English messages, no questions."""

import os
import subprocess
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
    """Runs git to its end, whatever its exit code.

    Args:
        words: Arguments of git.
        cwd: Where to run it; None is the working directory.
        given: Bytes for its standard input.

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
    """The text that git printed, stripped; arguments as in `run`.

    Raises:
        PipelineError: If git fails; the sentence holds git's own reason.
    """
    done = run(*words, cwd=cwd)
    if done.returncode:
        reason = last_line(done.stderr or done.stdout) or "no reason given"
        raise PipelineError(f"`git {words[0]}` failed: {reason}")
    return done.stdout.decode("utf-8", "replace").strip()


def last_line(text: bytes) -> str:
    """The last line of what a command printed, where most put their reason."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""

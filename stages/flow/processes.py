"""Commands as processes of their own group, each on a leash, heard line by line."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from stages.flow import leash

_running: set[subprocess.Popen[str]] = set()
_changing = threading.Lock()


def run(words: list[str], *, cwd: Path, heard: Callable[[str], None]) -> int:
    """Runs a command to its end.

    Args:
        words: The command and its arguments.
        cwd: Where to run it.
        heard: Called with each line that it prints, to either stream, as it comes.

    Returns:
        Its exit code; 128 and the signal's number where one ended it.
    """
    # Under the lock: whoever lets go of all that runs waits for this one too.
    with _changing:
        started = subprocess.Popen(
            [sys.executable, "-I", leash.__file__, *words],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        _running.add(started)
    try:
        assert started.stdout is not None
        with started.stdout:
            # A progress bar ends its lines by \r, which counts as an end here.
            for line in started.stdout:
                if text := line.replace("\b", "").rstrip():
                    heard(text)
    finally:
        let_go(started)
        started.wait()
        with _changing:
            _running.discard(started)
    return started.returncode


@contextlib.contextmanager
def ended_with_this() -> Iterator[None]:
    """However the block ends, nothing that was started in it runs on."""
    try:
        yield
    finally:
        with _changing:
            left = list(_running)
        for process in left:
            let_go(process)
        for process in left:
            process.wait()


def let_go(process: subprocess.Popen[str]) -> None:
    """Lets go of the leash: what still runs in the group is interrupted."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def dvc(*words: str) -> list[str]:
    """A `dvc` command of this interpreter's, which waits for others' locks."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *words]


def git(root: Path, *words: str) -> str:
    """Runs git to its end; returns what it printed.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    done = subprocess.run(
        ["git", *words], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """The flow's own, in which `python` is this interpreter and prints at once."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
    }

"""Commands that end with this process, read line by line."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from stages.core import process_group

_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()


def start(words: list[str], *, cwd: Path) -> subprocess.Popen[str]:
    """Starts a command in a process group that ends with this process.

    Its standard output carries both streams; closing its standard input interrupts the
    group.
    """
    return subprocess.Popen(
        [sys.executable, "-I", process_group.__file__, *words],
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


def run(words: list[str], *, cwd: Path, on_line: Callable[[str], None]) -> int:
    """Runs a command to its end; `on_line` receives each line as it is printed.

    Returns:
        The exit code; 128 plus the signal's number if a signal ended the command.
    """
    # `end_with_block` waits for every process that was started under this lock.
    with _lock:
        process = start(words, cwd=cwd)
        _running.add(process)
    try:
        assert process.stdout is not None
        with process.stdout:
            # A progress bar ends its lines by \r, which text mode reads as a line end.
            for line in process.stdout:
                if text := line.replace("\b", "").rstrip():
                    on_line(text)
    finally:
        interrupt(process)
        process.wait()
        with _lock:
            _running.discard(process)
    return process.returncode


@contextlib.contextmanager
def end_with_block() -> Iterator[None]:
    """Ends every command that `run` started in the block when the block ends."""
    try:
        yield
    finally:
        with _lock:
            left = list(_running)
        for process in left:
            interrupt(process)
        for process in left:
            process.wait()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Closes the pipe that keeps the process group running."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def dvc(*words: str) -> list[str]:
    """A `dvc` command of this interpreter, which waits for DVC's lock."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *words]


def environment() -> dict[str, str]:
    """This process's variables; `python` is this one, unbuffered, and prints UTF-8."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "DVC_NO_ANALYTICS": "1",
    }

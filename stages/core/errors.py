"""The error that a user sees, and how errors become exit codes."""

import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

logger = logging.getLogger(__name__)

# BSD's EX_TEMPFAIL: tells a scheduler that another try may succeed.
TRY_AGAIN = 75
AGAIN_S = 0.1


class PipelineError(Exception):
    """A mistake that the user can correct.

    The message is one sentence that names the file or key, the expected and the found
    value, and the next thing to do.
    """

    exit_code = 1

    def __init__(self, sentence: str = "", details: str = "") -> None:
        """`details` are lines to print below the sentence, such as a table."""
        super().__init__(sentence)
        self.details = details

    def __str__(self) -> str:
        return "\n".join(filter(None, (super().__str__(), self.details)))


class NetworkError(PipelineError):
    """The network or a remote service failed; it may work later."""

    exit_code = TRY_AGAIN


_handled: list[signal.Signals] = []  # without those that the parent process ignores
_received: list[int] = []


def run(main: Callable[[], None]) -> None:
    """Runs a command: logs to standard error, prints a user error as one sentence.

    Exit codes: 0 success, 1 error, 75 network error, 130 interrupted, 143 terminated.
    An unexpected exception keeps its traceback, since it is a defect.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_named)
    handler.setFormatter(_Visible("%(levelname).1s %(name)s: %(message)s"))
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO").upper(), handlers=[handler]
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        # If its encoding lacks a character, print an escape, as standard error does.
        sys.stdout.reconfigure(errors="backslashreplace")
    _handle_signals()
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as in `lungfield provenance FILE | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except PipelineError as error:
        # Untrusted names may hold line breaks; those of `details` are intended.
        sentence = " ".join(" ".join(map(str, error.args)).split())
        lines = filter(None, (sentence, error.details))
        print(f"error: {visible(chr(10).join(lines))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _end_interrupted()
    except Exception as error:
        if _received:  # native code raises another error when a signal interrupts it
            _end_interrupted()
        refused = _system_sentence(error)
        if refused is None:
            raise
        sys.exit(f"error: {visible(refused)}")


def visible(text: str) -> str:
    """Escapes control and bidirectional characters in untrusted text."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in text
    )


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _handle_signals() -> None:
    """Lets Ctrl-C and SIGTERM end the command cleanly, unless they are ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    _handled.clear()
    _received.clear()
    sys.unraisablehook = _unraisable
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _unwind)
            _handled.append(number)


def _unwind(number: int, _frame: FrameType | None) -> None:
    """Unwinds the stack, so that partial files are removed."""
    if number == signal.SIGTERM:
        # Two may arrive at once: one for the process group, one because DVC ended.
        signal.signal(number, signal.SIG_IGN)
    _received.append(number)
    # The message comes later: the signal may have interrupted a write to stderr.
    raise KeyboardInterrupt


def _unraisable(dropped: "sys.UnraisableHookArgs") -> None:
    """Sends a signal again if it came in a destructor, where Python drops errors."""
    if not _received or not isinstance(dropped.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    number = _received.pop()
    signal.signal(number, _unwind)
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _end_interrupted() -> NoReturn:
    """Prints one sentence and exits; a second signal ends the process at once."""
    for number in _handled:
        signal.signal(number, signal.SIG_IGN)
    last = _received[-1] if _received else signal.SIGINT
    word = "terminated" if last == signal.SIGTERM else "interrupted"
    print(f"{word}; the next run goes on from here", file=sys.stderr, flush=True)
    for number in _handled:
        signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + last)


def _named(record: logging.LogRecord) -> bool:
    """Lets `python -m stages.train` log as `stages.train` instead of `__main__`."""
    if record.name == "__main__":
        record.name = f"stages.{record.module}"
    return True


def _system_sentence(error: Exception) -> str | None:
    """The sentence for an error of the operating system; None for others."""
    where = getattr(error, "filename", None) or "data/"
    number = getattr(error, "errno", None) or _number_in(str(error))
    match number:
        case errno.ENOSPC | errno.EDQUOT:
            return (
                f"no space left on the disk that holds {where}; free some and run "
                "the same command again, nothing half-written was kept"
            )
        case errno.EFBIG:
            return (
                f"{where} would exceed the largest file size that this system allows "
                "(see `ulimit -f`); raise the limit and run the same command again"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            home = os.path.expanduser("~")  # noqa: PTH111 there may be none
            advice = "correct its permissions"
            if str(where).startswith(home) and not os.access(home, os.W_OK):
                advice += ", or set HOME to a folder that can be written,"
            return (
                f"{where} cannot be read or written ({os.strerror(number)}); {advice} "
                "and run the same command again"
            )
        case errno.ENOTDIR | errno.EEXIST:
            return (
                f"{where} cannot be created: a file has this name; name another folder"
            )
        case _:
            return None


def _number_in(text: str) -> int | None:
    """The error number that a message describes, as TensorFlow and HDF5 raise it."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    return next((n for n in numbers if os.strerror(n) in text), None)

"""The one error a user sees, and the one place that turns errors into exit codes."""

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

logger = logging.getLogger(__name__)

# BSD's EX_TEMPFAIL: who schedules stages can tell what is worth another try.
TRY_AGAIN = 75


class PipelineError(Exception):
    """Something the user can mend.

    The message is one sentence: it names the file or the key, what was expected,
    what was found, and what to do next.
    """

    exit_code = 1

    def __init__(self, sentence: str = "", details: str = "") -> None:
        """Takes the sentence, and lines of our own to print below it: a table."""
        super().__init__(sentence)
        self.details = details

    def __str__(self) -> str:
        return "\n".join(filter(None, (super().__str__(), self.details)))


class NetworkError(PipelineError):
    """The network, or who should answer over it, failed; it may work later."""

    exit_code = TRY_AGAIN


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception."""


_heeded: list[signal.Signals] = []  # those that `run` was not told to ignore


def run(main: Callable[[], None]) -> None:
    """Runs a command's `main`; a mistake of the user's ends in one sentence.

    Sets up logging to standard error. Exit codes: 0 done, 1 a sentence was
    printed, 75 a sentence about the network was, 130 interrupted, 143 terminated.
    Anything unforeseen keeps its traceback: that is a defect, and hiding it would
    help nobody.

    Args:
        main: The command, without arguments.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_named)
    handler.setFormatter(_Visible("%(levelname).1s %(name)s: %(message)s"))
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO").upper(), handlers=[handler]
    )
    _heed_signals()
    try:
        main()
    except PipelineError as error:
        # Foreign names may hold line breaks; details are laid out by us.
        sentence = " ".join(" ".join(map(str, error.args)).split())
        lines = filter(None, (sentence, error.details))
        print(f"error: {visible(chr(10).join(lines))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except _Terminated:
        _last_words("terminated; the next run goes on from here")
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        _last_words("interrupted; the next run goes on from here")
        sys.exit(130)
    except Exception as error:
        refused = _system_sentence(error)
        if refused is None:
            raise
        sys.exit(f"error: {visible(refused)}")


def visible(text: str) -> str:
    """Text in which a foreign name moves no cursor, hides nothing and turns nothing."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in text
    )


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _heed_signals() -> None:
    """Ctrl-C and SIGTERM end the command in order; an ignored one stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    _heeded.clear()
    # While modules were imported, `stages/__init__.py` had them.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, _terminated),
    ):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
            _heeded.append(number)


def _terminated(number: int, _frame: FrameType | None) -> None:
    """Ends as an interrupt does: what is half-written is cleared away."""
    # It may come twice at once: to the whole group, and from Linux as DVC died of it.
    signal.signal(number, signal.SIG_IGN)
    # Not a word here: the signal may have come in the midst of writing one.
    raise _Terminated(number)


def _last_words(sentence: str) -> None:
    """Says it undisturbed; whoever asks again then need not wait for threads."""
    for number in _heeded:
        signal.signal(number, signal.SIG_IGN)
    print(sentence, file=sys.stderr, flush=True)
    for number in _heeded:
        signal.signal(number, signal.SIG_DFL)


def _named(record: logging.LogRecord) -> bool:
    """`python -m stages.train` logs as `stages.train`, not as `__main__`."""
    if record.name == "__main__":
        record.name = f"stages.{record.module}"
    return True


def _system_sentence(error: Exception) -> str | None:
    """One sentence for what the machine, not the code, refused."""
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
                f"{where} would be larger than this system lets a file be "
                "(see `ulimit -f`); raise the limit and run the same command again"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return (
                f"{where} cannot be read or written ({os.strerror(number)}); give this "
                "user the right to it and run the same command again"
            )
        case _:
            return None


def _number_in(text: str) -> int | None:
    """TensorFlow and HDF5 tell in words alone that a disk is full."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    return next((n for n in numbers if os.strerror(n) in text), None)

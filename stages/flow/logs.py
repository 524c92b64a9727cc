"""One sentence instead of a traceback for what is no defect of the code."""

import logging
import textwrap
import warnings
from typing import Any, TextIO

from prefect.exceptions import FailedRun

NETWORK_MODULES = ("httpx", "httpcore", "websockets")


def shorten_tracebacks() -> None:
    """Shortens the records of this process's loggers from now on; may be repeated."""
    # Of Prefect's runner, when its watch for cancellations fails: flows.py watches too.
    warnings.filterwarnings("ignore", "coroutine 'Runner.* was never awaited")
    # Each request of Prefect's client is a line.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    make = logging.getLogRecordFactory()
    if getattr(make, "shortens", False):
        return

    def shortened(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        error = record.exc_info[1] if record.exc_info else None
        if record.name.startswith("prefect"):
            if error is None:  # Prefect logs "NoneType: None" where nothing was raised
                record.exc_info = None
            elif is_of_network(error) or isinstance(error, FailedRun):
                record.exc_info = None
                message = textwrap.shorten(record.getMessage(), 240)
                record.msg = f"{message} ({_one_line(error)})"
                record.args = ()
        return record

    shortened.shortens = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(shortened)


class WithoutTracebacks:
    """A stream that leaves out the tracebacks that Prefect's loops print."""

    def __init__(self, stream: TextIO) -> None:
        """Wraps a stream."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what is not a traceback."""
        if "Traceback (most recent call last)" in text:
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's."""
        return getattr(self._stream, name)


def is_of_network(error: BaseException) -> bool:
    """Whether an error comes from a server that does not answer."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_of_network(inner) for inner in error.exceptions)
    module = type(error).__module__.partition(".")[0]
    return (
        module in NETWORK_MODULES
        or isinstance(error, OSError | EOFError)
        or "Service exceeded error threshold" in str(error)  # of Prefect's loops
    )


def _one_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

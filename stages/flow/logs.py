"""One sentence instead of a traceback for what is no defect of the code."""

import logging
import textwrap
import warnings
from typing import Any

import httpx
from prefect.exceptions import FailedRun
from prefect.utilities import services

NETWORK_MODULES = ("httpcore", "websockets")
# They report one server that does not answer again and again. `report.py` waits for
# it, and `flows.py` watches for cancellations, too.
REPETITIVE = (
    "prefect.FlowRunCancellingObserver",
    "prefect.FlowRunSuspendingObserver",
    "prefect.events.clients",
    "prefect._internal.concurrency",
)


def shorten_tracebacks() -> None:
    """Shortens the records of this process's loggers from now on; may be repeated."""
    warnings.filterwarnings("ignore", "coroutine 'Runner.* was never awaited")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # each request is a line
    for name in REPETITIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("prefect.flow_runs").addFilter(_is_news)
    logging.raiseExceptions = False  # for records that the server does not take
    loop: Any = services.critical_service_loop
    # It prints tracebacks, then raises what the caller logs.
    loop.__defaults__ = tuple(
        _silent if value is print else value for value in loop.__defaults__
    )
    make = logging.getLogRecordFactory()
    if getattr(make, "shortens", False):
        return

    def shortened(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        error = record.exc_info[1] if record.exc_info else None
        if record.name.startswith("prefect"):
            if error is None:  # Prefect logs "NoneType: None" where nothing was raised
                record.exc_info = None
            elif is_of_network(error):
                record.exc_info = None
                message = textwrap.shorten(record.getMessage(), 240)
                record.msg = f"{message} ({one_line(error)})"
                record.args = ()
        return record

    shortened.shortens = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(shortened)


def _is_news(record: logging.LogRecord) -> bool:
    """False for the exception by which Prefect's engine ends a run that failed."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


def _silent(*_: object) -> None:
    pass


def is_of_network(error: BaseException) -> bool:
    """Whether an error comes from a server that does not answer."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_of_network(inner) for inner in error.exceptions)
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return (
        type(error).__module__.partition(".")[0] in NETWORK_MODULES
        or isinstance(error, OSError | EOFError | httpx.HTTPError)
        or "Service exceeded error threshold" in str(error)  # of Prefect's loops
    )


def one_line(error: BaseException) -> str:
    """The kind of an error and its message."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

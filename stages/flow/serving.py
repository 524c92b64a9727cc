"""Serves the deployments of `prefect.yaml` from one process.

It uses the server that Prefect's settings name. Without one it starts its own on
loopback, which ends with this process and keeps its history in PREFECT_HOME.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.context import get_settings_context
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)
from ruamel.yaml import YAML

from stages.core import process_group
from stages.core.errors import NetworkError, PipelineError
from stages.flow import leftovers, logs
from stages.flow.flows import SERVING

logger = logging.getLogger(__name__)

DEPLOYMENTS = Path("prefect.yaml")
LOOPBACK = "127.0.0.1"
SERVER_SETTINGS = {
    # Its default of 10 s ends in "database is locked" on a busy machine.
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    # In a server's memory, leases end with it while their slots stay taken.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}
START_S = 180  # a cold start takes 10 to 24 s on an idle machine
RESTART_S = 5
CHECK_S = 30


class _Runner(Runner):
    """Prefect's runner, ended by SIGTERM as by Ctrl-C: the schedules are paused."""

    def handle_sigterm(self, *_: Any) -> None:
        # Prefect's own handler never awaits its clean-up.
        signal.raise_signal(signal.SIGINT)


def serve() -> None:
    """Serves until interrupted; then the schedules pause."""
    logs.shorten_tracebacks()
    os.environ[SERVING] = str(os.getpid())
    found = deployments(DEPLOYMENTS)
    is_own = not PREFECT_API_URL.value()  # else other machines may use it
    with server() as url, temporary_settings({PREFECT_API_URL: url}):
        # A thread has no settings of its own: it takes these along.
        context = contextvars.copy_context()
        args = (_end_dead_runs,)
        threading.Thread(target=context.run, args=args, daemon=True).start()
        while _serve(found, is_first=is_own):
            is_own = False
            logger.warning("Prefect's server does not answer; waiting for it")
            while _problem(url):
                time.sleep(RESTART_S)


def _serve(found: list[RunnerDeployment], *, is_first: bool) -> bool:
    """Serves until interrupted (False), or until the server stops answering (True)."""
    runner = _Runner()
    try:
        leftovers.end_dead_runs()
        if is_first:
            leftovers.end_unknown_runs(str(each.name) for each in found)
        for deployment in found:
            runner.add_deployment(deployment)
        url = str(PREFECT_API_URL.value()).removesuffix("/api")
        logger.info("serving %s deployments, see %s; Ctrl-C ends it", len(found), url)
        asyncio.run(runner.start())
    except KeyboardInterrupt:
        return False
    except Exception as error:
        if not logs.is_of_network(error):
            raise
        return True
    return False


def _end_dead_runs() -> None:
    while True:
        time.sleep(CHECK_S)
        with contextlib.suppress(httpx.HTTPError):  # the next check finds them
            leftovers.end_dead_runs()


def deployments(path: Path) -> list[RunnerDeployment]:
    """The deployments of a `prefect.yaml`, without their work pools."""
    try:
        plan = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing here; run from the root of the repository"
        ) from None
    return [
        RunnerDeployment.from_entrypoint(
            entry["entrypoint"],
            entry["name"],
            description=entry.get("description"),
            parameters=entry.get("parameters"),
            schedules=[
                Cron(each["cron"], timezone=each["timezone"])
                for each in entry["schedules"]
            ],
            concurrency_limit=ConcurrencyLimitConfig(**entry["concurrency_limit"]),
        )
        for entry in plan["deployments"]
    ]


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of a server's API: the user's, or that of one started here.

    A server that was started here and dies is started again.

    Raises:
        PipelineError: If the one started here does not answer in time.
        NetworkError: If the user's does not answer.
    """
    if url := PREFECT_API_URL.value():
        if problem := _problem(url):
            raise NetworkError(
                f"Prefect's server {url} (from {_origin()}) does not answer "
                f"({problem}); start it, correct the address, which ends in /api, or "
                "unset it and this command starts a server of its own"
            )
        yield url
        return
    url = f"http://{LOOPBACK}:{PREFECT_SERVER_API_PORT.value()}/api"
    if not _problem(url):
        yield url
        return
    ends = threading.Event()
    processes = [_start_server(url)]

    def keep_running() -> None:
        while not ends.is_set():
            code = processes[-1].wait()
            if not ends.wait(RESTART_S):
                logger.warning("Prefect's server ended (%d); starting it again", code)
                processes.append(_start_server(url))

    keeper = threading.Thread(target=keep_running, daemon=True)
    try:
        deadline = time.monotonic() + START_S
        while _problem(url):
            if processes[0].poll() is not None or time.monotonic() > deadline:
                raise PipelineError(
                    f"Prefect's server should answer at {url} but does not; see "
                    f"{_server_log()}, or set PREFECT_SERVER_API_PORT to another port"
                )
            time.sleep(0.25)
        keeper.start()
        yield url
    finally:
        ends.set()
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def _start_server(url: str) -> subprocess.Popen[bytes]:
    """Starts a server in a process group that ends with this process.

    A group of its own, so that Ctrl-C pauses the schedules before the server ends.
    """
    words = ["-m", "prefect", "server", "start", "--host", LOOPBACK, "--analytics-off"]
    _server_log().parent.mkdir(parents=True, exist_ok=True)
    with _server_log().open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", process_group.__file__, sys.executable, *words],
            env={**SERVER_SETTINGS, **os.environ, "PREFECT_API_URL": url},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _server_log() -> Path:
    return Path(PREFECT_HOME.value()) / "server.log"


def _problem(url: str) -> str:
    """Why a server does not answer; "" if it does."""
    try:
        with (
            temporary_settings({PREFECT_API_URL: url}),
            get_client(sync_client=True) as client,
        ):
            client.api_version()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RuntimeError) as error:
        return logs.one_line(error)
    return ""


def _origin() -> str:
    """Where the address of the server was set."""
    if "PREFECT_API_URL" in os.environ:
        return "the variable PREFECT_API_URL"
    return f"Prefect's profile {get_settings_context().profile.name}"

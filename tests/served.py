"""Flows that are served for real: `lungfield schedule` in a repository, and its API."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from tests.conftest import ROOT
from tests.plan import Plan

SCHEDULE = "stages.cli schedule"


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 600) -> Any:
    """What a condition gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return found


def processes_in(folder: Path, words: str = "") -> list[psutil.Process]:
    """Others' processes that work below a folder, with some words in their command."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            there = Path(process.cwd()).is_relative_to(folder)
            if there and process.pid != os.getpid() and words in _command(process):
                found.append(process)
    return found


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


class Served:
    """A repository whose flows are served, on a server of its own."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.home = plan.root.with_suffix(".prefect")
        self.log = plan.root.with_suffix(".log")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serves, as a supervisor starts it, and waits until it does."""
        env = {
            name: value
            for name, value in self.plan.environment().items()
            if not name.startswith("PREFECT")
        }
        env |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.log.touch()
        before = len(self.log.read_text())
        with self.log.open("ab") as file:
            self.process = process = subprocess.Popen(
                [sys.executable, "-m", *SCHEDULE.split()],
                cwd=self.plan.root,
                env=env,
                stdout=file,
                stderr=file,
            )
        wait_for(
            lambda: "Ctrl-C ends" in self.log.read_text()[before:] or self.has_ended,
            "serving",
        )
        assert process.poll() is None, self.log.read_text()[before:]

    @property
    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self) -> None:
        """Ends it as systemd does; nothing of it may be left."""
        if self.process and not self.has_ended:
            self.process.terminate()
            self.process.wait(90)
        wait_for(lambda: not processes_in(self.plan.root), "all ended", seconds=30)

    def signal(self, words: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to all processes with these words in their command."""
        for process in processes_in(self.plan.root, words):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    @contextlib.contextmanager
    def api(self) -> Iterator[SyncPrefectClient]:
        """Prefect's client; flows that are called here use this server too."""
        with (
            temporary_settings({PREFECT_API_URL: self.url}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def schedule(self, deployment: str, *, at: Any = None, **parameters: Any) -> Any:
        """Schedules a run, for now by default; its id."""
        with self.api() as api:
            run = api.create_flow_run_from_deployment(
                api.read_deployment_by_name(deployment).id,
                parameters=parameters,
                state=Scheduled(scheduled_time=at),
            )
        return run.id

    def state(self, run_id: Any) -> State[Any] | None:
        """A run's state, None while the server does not answer."""
        with contextlib.suppress(Exception), self.api() as api:
            return api.read_flow_run(run_id).state
        return None

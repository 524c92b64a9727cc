"""Serves the deployments of `prefect.yaml` from one process: `python -m stages.flow`.

With PREFECT_API_URL set, on that server; else on one of its own, on loopback, which
ends with this process and keeps its history in PREFECT_HOME.
"""

import contextlib
import importlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)
from prefect.types.entrypoint import EntrypointType
from ruamel.yaml import YAML

from stages.core.errors import PipelineError, run
from stages.flow import leash

DEPLOYMENTS = Path("prefect.yaml")
LOOPBACK = "127.0.0.1"
# A busy machine: its default of 10 s ends in "database is locked" while a stage trains.
SERVER_SETTINGS = {"PREFECT_SERVER_DATABASE_TIMEOUT": "60"}
START_S = 180  # a cold start takes 10 to 24 s on an idle machine


def main() -> None:
    """Serves until interrupted; the schedules pause with it."""
    found = deployments(DEPLOYMENTS)
    with server() as url, temporary_settings({PREFECT_API_URL: url}):
        serve(*found)


def deployments(path: Path) -> list[RunnerDeployment]:
    """What a `prefect.yaml` deploys, to be served instead; its work pools don't count.

    Raises:
        PipelineError: If the file is missing.
    """
    try:
        plan = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing here; run from the root of the repository"
        ) from None
    return [_deployment(facts) for facts in plan["deployments"]]


def _deployment(facts: dict[str, Any]) -> RunnerDeployment:
    module, name = facts["entrypoint"].rsplit(".", 1)
    flow = getattr(importlib.import_module(module), name)
    made: RunnerDeployment = flow.to_deployment(
        facts["name"],
        description=facts.get("description"),
        parameters=facts.get("parameters"),
        schedules=[
            Cron(each["cron"], timezone=each["timezone"]) for each in facts["schedules"]
        ],
        concurrency_limit=ConcurrencyLimitConfig(**facts["concurrency_limit"]),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made.entrypoint = facts["entrypoint"]
    return made


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of a server's API: the user's, or that of one started here.

    Raises:
        PipelineError: If the one started here does not answer in time.
    """
    if url := PREFECT_API_URL.value():
        yield url
        return
    url = f"http://{LOOPBACK}:{PREFECT_SERVER_API_PORT.value()}/api"
    if _answers(url):
        yield url
        return
    words = ["-m", "prefect", "server", "start", "--host", LOOPBACK, "--analytics-off"]
    # On a leash, in a group of its own: Ctrl-C pauses the schedules before it ends.
    started = subprocess.Popen(
        [sys.executable, "-I", leash.__file__, sys.executable, *words],
        env={**SERVER_SETTINGS, **os.environ, "PREFECT_API_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(url):
            if started.poll() is not None or time.monotonic() > deadline:
                raise PipelineError(
                    f"Prefect's server should answer at {url} but does not; see above, "
                    "or choose another port with PREFECT_SERVER_API_PORT"
                )
            time.sleep(0.25)
        yield url
    finally:
        assert started.stdin is not None
        started.stdin.close()
        started.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    run(main)

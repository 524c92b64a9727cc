"""Flow runs whose process died: they are marked as ended, so their slots are freed.

Each run's process locks a file while it lives. The operating system releases the lock
however the process ends.
"""

import fcntl
import logging
from collections.abc import Iterable
from typing import IO
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from stages.core import paths

logger = logging.getLogger(__name__)

FOLDER = paths.WORK / "flow_runs"
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_held: list[IO[str]] = []


def hold(run_id: str) -> None:
    """Locks this run's file until this process ends."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = (FOLDER / run_id).open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    _held.append(file)


def end_dead_runs() -> None:
    """Marks unfinished runs of dead processes as crashed."""
    for path in sorted(FOLDER.glob("*")):
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            with get_client(sync_client=True) as client:
                _crash(client, UUID(path.name))
            path.unlink()


def end_unknown_runs(deployments: Iterable[str]) -> None:
    """Marks unfinished runs as crashed for which no process ever locked a file.

    Only for a server that no other machine uses, before this process serves.
    """
    named = DeploymentFilter(name=DeploymentFilterName(any_=list(deployments)))
    types = FlowRunFilterStateType(any_=UNFINISHED)
    unfinished = FlowRunFilter(state=FlowRunFilterState(type=types))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(
            deployment_filter=named, flow_run_filter=unfinished
        ):
            if not (FOLDER / str(run.id)).exists():
                _crash(client, run.id)


def _crash(client: SyncPrefectClient, run_id: UUID) -> None:
    try:
        run = client.read_flow_run(run_id)
    except ObjectNotFound:
        return
    if run.state is None or run.state.type not in UNFINISHED:
        return
    end = Cancelled if run.state.is_cancelling() else Crashed
    message = "its process died; what it had finished is kept, the next run goes on"
    state: State[None] = end(message=message)
    client.set_flow_run_state(run_id, state, force=True)
    logger.warning("run %s is marked as %s: %s", run.name, state.name, message)

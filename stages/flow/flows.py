"""The two flows: `pipeline` and `refresh`."""

import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM
from time import sleep
from typing import Any
from uuid import UUID

import httpx
from dvc.repo import Repo
from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from stages.core import git, processes, studies, worktree
from stages.core.errors import PipelineError
from stages.core.params import parse_text
from stages.flow import data_updates, leftovers, logs, report
from stages.flow.running import run_plan

# Set by Prefect in a process that a runner or a worker started for one run.
STARTED_BY_RUNNER = "PREFECT__FLOW_RUN_ID"
SERVING = "LUNGFIELD_SERVING"  # the process ID of `lungfield schedule`
REVIEW = [sys.executable, "-m", "stages.cli", "review", "HEAD~1", "HEAD"]


@flow
def pipeline(
    params: dict[str, Any] | None = None, study: str | None = None
) -> State[Any]:
    """Brings every stage of dvc.yaml up to date.

    Args:
        params: Values by dotted name, such as {"train.epochs": 5}. Without any, the
            stages run in the working tree. With some, they run beside it, on the last
            commit, and the result is kept as a DVC experiment named after the run.
        study: A study of stages/core/studies, such as article: its values, with
            params on top.
    """

    def run(root: Path) -> State[Any]:
        values = _values(params, study)
        if not values:
            result = run_plan(root)
            report.publish(root, result)
            return result.state()
        run_name = f"{study or ''}-{runtime.flow_run.name}"
        name = re.sub(r"[^A-Za-z0-9-]+", "-", run_name).strip("-")
        settings = ", ".join(f"{key}={value}" for key, value in values.items())
        text = worktree.committed_params(root, values)
        with worktree.checkout(root, text) as folder:
            result = run_plan(folder)
            if not result.is_judged:
                return result.state()
            # Kept before anything is reported: the server may be gone by now.
            message = f"pipeline: {settings}"
            ran = [*result.completed, *result.failed]
            worktree.keep(folder, stages=ran, name=name, message=message)
            kept = f"`dvc exp apply {name}` fetches the result"
            report.publish(folder, result, kept=kept)
        return result.state(kept)

    return _guarded(run)


@flow
def refresh(
    params: dict[str, Any] | None = None, study: str | None = None
) -> State[Any]:
    """Trains on newer data, if there are any, and keeps the result as a branch.

    Args:
        params: Values by dotted name to set besides the new version, such as
            {"ingest.source": "kaggle"}.
        study: A study of stages/core/studies, such as radiography: its values, with
            params on top.
    """

    def run(root: Path) -> State[Any]:
        values = _values(params, study)
        logger = get_run_logger()
        text = worktree.committed_params(root, values)
        update = data_updates.find(root, parse_text(text).ingest)
        logger.info("%s", update.sentence)
        if not update.name:
            return Completed(name="Nothing new", message=update.sentence)
        branch = f"refresh/{update.name}"
        if git.output("branch", "--list", branch, cwd=root):
            sentence = f"nothing new: branch {branch} exists already"
            return Completed(name="Nothing new", message=sentence)
        text = worktree.committed_params(root, values | update.values)
        with worktree.checkout(root, text) as folder:
            result = run_plan(folder)
            if not result.is_judged:
                return result.state()
            commit = worktree.commit(folder, f"data: {update.sentence}")
            _push(folder)
            git.output("branch", branch, commit, cwd=root)
            kept = f"branch {branch} holds the result"
            report.publish(folder, result, kept=kept)
            _review(folder)
        return result.state(f"{update.sentence}: {kept}")

    return _guarded(run)


def _values(params: dict[str, Any] | None, study: str | None) -> dict[str, Any]:
    """A study's values, with a run's own on top."""
    return {**(studies.load(study).params if study else {}), **(params or {})}


def _guarded(run: Callable[[Path], State[Any]]) -> State[Any]:
    """Runs in the working directory; ends with all that it started, errors named."""
    logs.shorten_tracebacks()
    if os.environ.get(STARTED_BY_RUNNER):
        leftovers.hold(str(runtime.flow_run.id))
        # The serving process may have died while this one was starting.
        parent = int(os.environ.get(SERVING, os.getppid()))
        args = (parent, UUID(str(runtime.flow_run.id)))
        threading.Thread(target=_end_when_unwanted, args=args, daemon=True).start()
    with processes.end_with_block():
        try:
            state = run(Path.cwd())
        except PipelineError as error:
            state = Failed(message=str(error))
        report.wait_for_server(str(state.message))
        return state


def _end_when_unwanted(parent: int, run_id: UUID) -> None:
    """Ends this process when its parent has died, or its run is cancelled.

    The parent sees to a cancellation too, unless its own watch for it has failed.
    """
    while os.getppid() == parent and not _is_cancelled(run_id):
        sleep(2)
    os.kill(os.getpid(), SIGTERM)


def _is_cancelled(run_id: UUID) -> bool:
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
        if state is not None and state.is_cancelling():
            client.set_flow_run_state(run_id, Cancelled(), force=True)
            return True
    return False


def _push(folder: Path) -> None:
    """Sends the outputs to the default DVC remote, where there is one."""
    with Repo(folder) as repo:
        remote = repo.config["core"].get("remote")
    if not remote:
        get_run_logger().info("no DVC remote is configured; outputs stay in this cache")
    elif not _run_into_log(processes.dvc("push"), folder):
        raise PipelineError(
            f"dvc push to {remote} failed, the run's log says why; the next refresh "
            "restores the results and tries again"
        )


def _review(folder: Path) -> None:
    """Publishes the review of the last commit against the one before."""
    if _run_into_log(REVIEW, folder):
        report.publish_review(folder)
    else:
        get_run_logger().warning("the review failed; the result is kept without one")


def _run_into_log(words: list[str], cwd: Path) -> bool:
    """Runs a command into the run's log; whether it succeeded."""
    return processes.run(words, cwd=cwd, on_line=get_run_logger().info) == 0

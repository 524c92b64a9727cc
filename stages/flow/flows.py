"""The two flows: `pipeline` and `refresh`."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from stages.core import studies
from stages.core.errors import PipelineError
from stages.flow import experiments, processes
from stages.flow.news import look
from stages.flow.overrides import parse
from stages.flow.running import run_plan

REVIEW = "stages.review"


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
            return run_plan(root).state()
        run_name = f"{study or ''}-{runtime.flow_run.name}"
        name = re.sub(r"[^A-Za-z0-9-]+", "-", run_name).strip("-")
        settings = ", ".join(f"{key}={value}" for key, value in values.items())
        text = experiments.committed_params(root, values)
        with experiments.room(root, text) as room:
            result = run_plan(room)
            if not result.is_judged:
                return result.state()
            experiments.keep(root, room, name=name, message=f"pipeline: {settings}")
        return result.state(f"`dvc exp apply {name}` fetches the result")

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
        text = experiments.committed_params(root, values)
        news = look(root, parse(text).ingest)
        logger.info("%s", news.sentence)
        if not news.name:
            return Completed(name="Nothing new", message=news.sentence)
        branch = f"refresh/{news.name}"
        if processes.git(root, "branch", "--list", branch):
            sentence = f"nothing new: branch {branch} is there already"
            return Completed(name="Nothing new", message=sentence)
        text = experiments.committed_params(root, values | news.values)
        with experiments.room(root, text) as room:
            result = run_plan(room)
            if not result.is_judged:
                return result.state()
            name = branch.replace("/", "-")
            message = f"data: {news.sentence}"
            commit = experiments.keep(root, room, name=name, message=message)
            _review(room)
            _push(room)
        processes.git(root, "branch", branch, commit)
        return result.state(f"{news.sentence}: branch {branch} holds the result")

    return _guarded(run)


def _values(params: dict[str, Any] | None, study: str | None) -> dict[str, Any]:
    """A study's values, with a run's own on top."""
    return {**(studies.load(study).params if study else {}), **(params or {})}


def _guarded(run: Callable[[Path], State[Any]]) -> State[Any]:
    """Runs in this folder; whatever was started ends, a mistake is a sentence."""
    with processes.ended_with_this():
        try:
            return run(Path.cwd())
        except PipelineError as error:
            return Failed(message=str(error))
        except subprocess.CalledProcessError as error:
            words = " ".join(error.cmd)
            return Failed(message=f"{words}: {(error.stderr or '').strip()}")


def _push(room: Path) -> None:
    """Sends the outputs to the default DVC remote, where there is one."""
    logger = get_run_logger()
    with Repo(room) as repo:
        remote = repo.config["core"].get("remote")
    if not remote:
        logger.info("no DVC remote is configured; the outputs stay in this cache")
        return
    if not _run_into_log(processes.dvc("push"), room):
        raise PipelineError(
            f"dvc push to {remote} failed, the run's log says why; the next refresh "
            "restores the results and tries again"
        )


def _review(room: Path) -> None:
    """The review of the last commit against the one before, if that tool is there."""
    if importlib.util.find_spec(REVIEW) is None:
        return
    if not _run_into_log([sys.executable, "-m", REVIEW, "HEAD~1", "HEAD"], room):
        get_run_logger().warning("the review failed; the result is kept without one")
        return
    create_markdown_artifact(
        markdown=(room / "review.md").read_text("utf-8"),
        key="review",
        description="What the new data changed, image by image",
    )


def _run_into_log(words: list[str], cwd: Path) -> bool:
    """Runs a command whose output is the run's log; whether it went well."""
    return processes.run(words, cwd=cwd, heard=get_run_logger().info) == 0

"""The plan as Prefect tasks: one a stage, each a `dvc repro --single-item` process."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from stages.core import paths
from stages.core.errors import TRY_AGAIN
from stages.flow import processes, report
from stages.flow.plan import read_plan

# The stage that meets the network, and how long to wait before another try of it. Its
# source has tried for half a minute by itself: what lasts longer lasts for minutes.
NETWORK_STAGE = "ingest"
RETRY_DELAYS = [timedelta(minutes=minutes).total_seconds() for minutes in (1, 5, 15)]
NETWORK_FAILED = "Network failed"
JUDGE = "gate"
SCORER = "evaluate"

# What `dvc repro` says of a stage; the last that it says holds.
OUTCOMES = {
    "Cached": re.compile(r"Stage '.+' didn't change, skipping"),
    "Restored": re.compile(r"Stage '.+' is cached - skipping run"),
    "Executed": re.compile(r"Running stage '.+'"),
}
EXITED = re.compile(r"exited with (\d+)")


@dataclass(frozen=True)
class StageResult:
    """What became of a stage: `Cached`, `Restored` from the run-cache, `Executed`."""

    stage: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class PlanResult:
    """What became of a run of the whole plan."""

    stages: dict[str, StageResult]  # those that completed
    failed: dict[str, str]  # those that did not, and why
    message: str

    @property
    def is_complete(self) -> bool:
        """Whether every stage is up to date, the gate passed."""
        return not self.failed

    @property
    def is_judged(self) -> bool:
        """Whether there are metrics to look at, good or bad."""
        return set(self.failed) <= {JUDGE}

    def state(self, where: str = "") -> State[Any]:
        """The run's end in Prefect's words; `where` says what is kept where."""
        message = f"{where}; {self.message}" if where else self.message
        if self.is_complete:
            return Completed(message=message, data=self.stages)
        return Failed(message=message)


def run_plan(root: Path) -> PlanResult:
    """Runs every stage of the plan, what does not depend on each other at once.

    Args:
        root: A DVC repository; for use inside a flow, whose artifacts it makes.
    """
    futures: dict[str, Any] = {}
    for stage, upstream in read_plan(root).items():
        retried = stage == NETWORK_STAGE
        runner = run_stage.with_options(
            name=stage,
            task_run_name=stage,
            retries=len(RETRY_DELAYS) if retried else 0,
            retry_delay_seconds=RETRY_DELAYS if retried else 0,
        )
        waited = [futures[name] for name in upstream]
        futures[stage] = runner.submit(
            stage, str(root), wait_for=waited, return_state=False
        )
    for future in futures.values():
        future.wait()
    states = {stage: future.state for stage, future in futures.items()}
    completed = {
        stage: state.result() for stage, state in states.items() if state.is_completed()
    }
    # A stage behind a failed one has not failed: it never started.
    failed = {
        stage: state.message or state.name
        for stage, state in states.items()
        if state.is_failed() or state.is_crashed() or state.is_cancelled()
    }
    if SCORER in completed:
        report.publish_metrics(root)
    if {JUDGE} & {*completed, *failed} and (root / paths.VERDICT).is_file():
        report.publish_verdict(root)
    return PlanResult(completed, failed, _message(completed, failed))


def _is_network(_task: Any, _run: Any, state: State[Any]) -> bool:
    return state.name == NETWORK_FAILED


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_network)
def run_stage(stage: str, root: str) -> State[Any]:
    """Brings one stage up to date; its outcome is the name of the task's state.

    Args:
        stage: Its name in `dvc.yaml`.
        root: The repository.
    """
    logger = get_run_logger()
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        logger.info("%s", line)

    begin = monotonic()
    words = processes.dvc("repro", "--single-item", stage)
    code = processes.run(words, cwd=Path(root), heard=hear)
    seconds = round(monotonic() - begin, 1)
    printed = "\n".join(heard)
    if code:
        return _failure(stage, Path(root), printed, code)
    said = [name for name, pattern in OUTCOMES.items() if pattern.search(printed)]
    outcome = said[-1] if said else "Completed"
    return Completed(
        name=outcome,
        message=f"{outcome.lower()}, {seconds} s",
        data=StageResult(stage, outcome.lower(), seconds),
    )


def _failure(stage: str, root: Path, printed: str, code: int) -> State[Any]:
    """Why a stage failed: its own sentence, or else DVC's."""
    exited = EXITED.search(printed)
    if stage == JUDGE and (root / paths.VERDICT).is_file():
        return Failed(message=report.verdict(root))
    sentences = re.findall(r"^(?:error|ERROR): (.*)", printed, re.MULTILINE)
    reason = sentences[0] if sentences else f"ended with {code}"
    name = NETWORK_FAILED if exited and int(exited[1]) == TRY_AGAIN else None
    return Failed(name=name or "Failed", message=f"{stage}: {reason}")


def _message(completed: dict[str, StageResult], failed: dict[str, str]) -> str:
    if failed:
        return "\n".join(failed.values())
    outcomes = [result.outcome for result in completed.values()]
    counts = [f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes)]
    seconds = sum(result.seconds for result in completed.values())
    return f"{len(outcomes)} stages up to date: {', '.join(counts)}; {seconds:.0f} s"

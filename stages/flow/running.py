"""The plan as Prefect tasks: one `dvc repro --single-item` process per stage."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from prefect import allow_failure, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from stages.core import processes
from stages.core.errors import TRY_AGAIN
from stages.flow.plan import read_plan

# The stage that uses the network, and the waits between its tries. Its source tries
# for half a minute by itself: an outage that lasts longer usually lasts for minutes.
NETWORK_STAGE = "ingest"
RETRY_DELAYS = [timedelta(minutes=minutes).total_seconds() for minutes in (1, 5, 15)]
NETWORK_FAILED = "Network failed"
SKIPPED = "Skipped"
JUDGE = "gate"
SCORER = "evaluate"
# Exit codes after Ctrl-C and SIGTERM; -2 and -15 of a stage that was still importing.
INTERRUPTED = (128 + 2, 128 + 15, -2, -15)

# What `dvc repro` prints about a stage; the last match counts.
OUTCOMES = {
    "Cached": re.compile(r"Stage '.+' didn't change, skipping"),
    "Restored": re.compile(r"Stage '.+' is cached - skipping run"),
    "Executed": re.compile(r"Running stage '.+'"),
}
# What `dvc repro` says about Git after each stage.
DVC_HINT = re.compile(r"(Generat|Updat)ing lock|To (track|enable)|\s+(git|dvc)|Use `")
EXITED = re.compile(r"exited with (-?\d+)")
# A stage's sentence, with the table that may follow it, and DVC's.
OWN_SENTENCE = re.compile(r"^error: (.*?)(?=^ERROR: |\Z)", re.MULTILINE | re.DOTALL)
DVC_SENTENCE = re.compile(r"^ERROR: (.*)", re.MULTILINE)
EPOCH = re.compile(r"after epoch (\d+) of \d+")


@dataclass(frozen=True)
class StageResult:
    """What became of a stage: `Cached`, `Restored` from the run-cache, `Executed`."""

    stage: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class PlanResult:
    """What became of a run of the whole plan."""

    completed: dict[str, StageResult]
    failed: dict[str, str]  # why, by stage; stages behind them were skipped

    @property
    def is_judged(self) -> bool:
        """Whether there are metrics to look at, good or bad."""
        return set(self.failed) <= {JUDGE}

    def state(self, where: str = "") -> State[Any]:
        """The run's final state; `where` says what is kept where."""
        message = f"{where}; {self._message()}" if where else self._message()
        if self.failed:
            return Failed(message=message)
        return Completed(message=message, data=self.completed)

    def _message(self) -> str:
        if self.failed:
            return "\n".join(self.failed.values())
        outcomes = [result.outcome for result in self.completed.values()]
        counts = [f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes)]
        seconds = sum(result.seconds for result in self.completed.values())
        return (
            f"{len(outcomes)} stages up to date: {', '.join(counts)}; {seconds:.0f} s"
        )


def run_plan(root: Path) -> PlanResult:
    """Runs every stage of the plan in a DVC repository, independent ones at once."""
    futures: dict[str, Any] = {}

    def unfinished(stages: list[str]) -> Callable[[], list[str]]:
        return lambda: [name for name in stages if not _is_up_to_date(futures[name])]

    try:
        with processes.end_with_block():
            for stage, upstream in read_plan(root).items():
                retried = stage == NETWORK_STAGE
                runner = run_stage.with_options(
                    name=stage,
                    task_run_name=stage,
                    retries=len(RETRY_DELAYS) if retried else 0,
                    retry_delay_seconds=RETRY_DELAYS if retried else 0,
                )
                futures[stage] = runner.submit(
                    stage,
                    str(root),
                    unfinished(upstream),
                    wait_for=[allow_failure(futures[name]) for name in upstream],
                    return_state=False,
                )
            for future in futures.values():
                future.wait()
    finally:
        # After a cancellation, too: what waits for the interrupted stage is skipped.
        for future in futures.values():
            future.wait()
    return PlanResult(
        completed={
            stage: future.state.result()
            for stage, future in futures.items()
            if _is_up_to_date(future)
        },
        failed={
            stage: future.state.message or future.state.name
            for stage, future in futures.items()
            if not future.state.is_completed()
        },
    )


def _is_up_to_date(future: Any) -> bool:
    return bool(future.state.is_completed() and future.state.name != SKIPPED)


def _is_network(_task: Any, _run: Any, state: State[Any]) -> bool:
    return state.name == NETWORK_FAILED


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_network)
def run_stage(stage: str, root: str, unfinished: Callable[[], list[str]]) -> State[Any]:
    """Brings one stage up to date; its outcome is the name of the task's state.

    `unfinished` names the stages before it that did not complete.
    """
    if missing := unfinished():
        return Completed(name=SKIPPED, message=f"{missing[0]} did not complete")
    logger = get_run_logger()
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.strip() and not DVC_HINT.match(line):
            logger.info("%s", line)

    begin = monotonic()
    words = processes.dvc("repro", "--single-item", stage)
    code = processes.run(words, cwd=Path(root), on_line=on_line)
    seconds = round(monotonic() - begin, 1)
    printed = "\n".join(lines)
    if code:
        return _failure(stage, printed, code)
    matches = [name for name, pattern in OUTCOMES.items() if pattern.search(printed)]
    outcome = matches[-1] if matches else "Completed"
    return Completed(
        name=outcome,
        message=f"{outcome.lower()}, {seconds} s",
        data=StageResult(stage, outcome.lower(), seconds),
    )


def _failure(stage: str, printed: str, code: int) -> State[Any]:
    """Why a stage did not complete, by its own sentence or else DVC's."""
    exited = EXITED.search(printed)
    code = int(exited[1]) if exited else code
    if code in INTERRUPTED:
        epochs = EPOCH.findall(printed)
        then = f"the next run goes on from epoch {epochs[-1]}" if epochs else ""
        message = f"{stage}: interrupted; {then or 'the next run repeats it'}"
        return Failed(name="Interrupted", message=message)
    found = OWN_SENTENCE.search(printed) or DVC_SENTENCE.search(printed)
    reason = found[1].strip() if found else f"ended with {code}"
    name = NETWORK_FAILED if code == TRY_AGAIN else "Failed"
    return Failed(name=name, message=f"{stage}: {reason.removeprefix(f'{stage}: ')}")

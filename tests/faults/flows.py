"""Faults done to served flows: processes killed or frozen, a full disk.

A small plan runs under the real `lungfield schedule`. After each fault, what a
supervisor would do is done, and the next run must complete with the right result,
nothing may run on unseen, and no run may hold its slot. One fault follows another in
the same repository, on the same server's database.
"""

import contextlib
import json
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime
from prefect.states import Cancelling

from stages.core import paths
from tests.conftest import ROOT
from tests.faults.cases import Case
from tests.faults.kinds import can_mount, mount, unmount
from tests.plan import Plan
from tests.served import SCHEDULE, Served, processes_in, wait_for

STEP = """
import json, sys, time
from pathlib import Path
from ruamel.yaml import YAML

name = sys.argv[1]
epochs = YAML(typ="safe").load(Path("params.yaml").read_text())["train"]["epochs"]


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def main():
    if name == "train":
        checkpoint = Path("data/.work/checkpoint")
        done = int(checkpoint.read_text() or 0) if checkpoint.exists() else 0
        for epoch in range(done, 4):
            print(f"epoch {epoch + 1} of 4", flush=True)
            time.sleep(0.7)
            write(checkpoint, str(epoch + 1))
        checkpoint.unlink()
        write("model.txt", f"{epochs} epochs")
    elif name == "evaluate":
        time.sleep(2)  # so that a busy machine sees it
        rows = "pair_id,class_name,dice,iou,hd95_px,assd_px\\na,A,0.9,0.8,1,1\\n"
        write("data/evaluation/per_image.csv", rows)
        write("data/evaluation/metrics.json", json.dumps({"dice": {"mean": epochs}}))
    else:
        time.sleep(2)
        check = {"metric": "dice.mean", "kind": "min", "bound": 0, "value": 1}
        verdict = {"passed": True, "checks": [check | {"passed": True}]}
        write("data/gate/verdict.json", json.dumps(verdict))


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
except OSError as error:
    sys.exit(f"error: {error}")
"""
METRICS = str(paths.METRICS)
IN_GIT = {"cache": False}
PLAN = {
    "train": {"params": ["train.epochs"], "outs": ["model.txt"]},
    "evaluate": {
        "deps": ["model.txt"],
        "metrics": [{METRICS: IN_GIT}, {str(paths.PER_IMAGE): IN_GIT}],
    },
    "gate": {"deps": [METRICS], "metrics": [{str(paths.VERDICT): IN_GIT}]},
}
DEPLOYMENT = "pipeline/nightly"
ENGINE = "prefect.engine"
FAULT_S = 12  # how long a process is frozen, a database locked, a disk full
DISK = "200m"
BAD_WORDS = re.compile(r"Traceback|temporary server|NoneType: None|never awaited")


def lay(root: Path) -> Served:
    """A repository with the small plan, committed."""
    root.mkdir(parents=True)
    if can_mount():
        mount("-t", "tmpfs", "-o", f"size={DISK}", "none", str(root))
    (root / "step.py").write_text(STEP)
    for name in ("params.yaml", "prefect.yaml"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    (root / ".gitignore").write_text("/data/.work/\n__pycache__/\n/prefect/\n")
    stages = {
        name: {"cmd": f"python step.py {name}"}
        | values
        | {"deps": ["step.py", *values.get("deps", [])]}
        for name, values in PLAN.items()
    }
    served = Served(Plan.small(root, stages))
    served.home = root / "prefect"
    return served


def remove(served: Served) -> None:
    """Kills what is left and removes the repository."""
    served.signal("")
    if can_mount():
        unmount(served.plan.root)
    shutil.rmtree(served.plan.root)


def server_killed(served: Served) -> None:
    served.signal("uvicorn")
    served.signal("prefect server")


def serving_killed(served: Served) -> None:
    served.signal(SCHEDULE)


def engine_killed(served: Served) -> None:
    served.signal(ENGINE)


def machine_restarted(served: Served) -> None:
    served.signal("")


def server_frozen(served: Served) -> None:
    for words in ("uvicorn", "prefect server"):
        served.signal(words, signal.SIGSTOP)
    time.sleep(FAULT_S)
    for words in ("uvicorn", "prefect server"):
        served.signal(words, signal.SIGCONT)


def database_locked(served: Served) -> None:
    with contextlib.closing(sqlite3.connect(served.home / "prefect.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(FAULT_S)


def disk_full(served: Served) -> None:
    """Of the repository, DVC's cache and the server's database alike."""
    filler = served.plan.root / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    time.sleep(FAULT_S)
    filler.unlink()


def cancelled_unserved(served: Served) -> None:
    """By a user, just after the serving process died."""
    serving_killed(served)
    with contextlib.suppress(Exception), served.api() as api:
        for run in started(served):
            if run.state.is_running():
                api.set_flow_run_state(run.id, Cancelling())


def off_when_due(served: Served) -> None:
    """The machine is off at the time for which the next run is scheduled."""
    machine_restarted(served)
    time.sleep(3)


KINDS: dict[str, Callable[[Served], None]] = {
    "server killed": server_killed,
    "serving killed": serving_killed,
    "engine killed": engine_killed,
    "machine restarted": machine_restarted,
    "server frozen": server_frozen,
    "database locked": database_locked,
    "disk full": disk_full,
    "cancelled unserved": cancelled_unserved,
    "off when due": off_when_due,
}


def kinds() -> list[str]:
    """Those that this user may do here."""
    return [kind for kind in KINDS if kind != "disk full" or can_mount()]


def started(served: Served) -> list[Any]:
    """The runs that have begun."""
    begun = FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False))
    with served.api() as api:
        return api.read_flow_runs(flow_run_filter=begun)


def do(served: Served, case: Case) -> tuple[str, list[str]]:
    """Does one fault, and judges what came of it.

    Returns:
        What was done, and what went wrong.
    """
    dice = case.dice(0)
    epochs = 1000 + case.number  # other params each time, so that every stage runs
    params = dice.choice([{}, {"train.epochs": epochs}])
    point = dice.choice([ENGINE, "step.py train", "step.py evaluate", "step.py gate"])
    delay = dice.uniform(0, 2)
    what = f"{point} + {delay:.1f} s, {'with' if params else 'no'} params"
    before = len(served.log.read_text()) if served.log.exists() else 0
    try:
        if served.has_ended:
            served.start()
        if not params:
            text = (ROOT / paths.PARAMS).read_text("utf-8")
            text = re.sub(r"(?m)^  epochs: \d+", f"  epochs: {epochs}", text)
            (served.plan.root / paths.PARAMS).write_text(text)
        served.schedule(DEPLOYMENT, params=params)
        wait_for(lambda: processes_in(served.plan.root, point), f"{point} starts")
        time.sleep(delay)
        due = None
        if case.kind == "off when due":
            at = datetime.now(UTC) + timedelta(seconds=2)
            due = served.schedule(DEPLOYMENT, at=at, params=params)
        KINDS[case.kind](served)
        time.sleep(2)
        if served.has_ended:  # as a supervisor does
            served.start()
        wrong = _judge(served, params, epochs, due)
    except Exception as error:
        wrong = [f"{type(error).__name__}: {error}"]
    said = served.log.read_text()[before:]
    if found := BAD_WORDS.search(said):
        wrong.append(f"{found[0]} in the log")
    return what, [*wrong, "the log:", said[-8000:]] if wrong else []


def _judge(
    served: Served, params: dict[str, Any], epochs: int, due: Any = None
) -> list[str]:
    """The next run completes; nothing is left of the former."""

    def schedule() -> Any:
        with contextlib.suppress(Exception):  # its server is starting
            return served.schedule(DEPLOYMENT, params=params)
        return None

    def final() -> Any:
        state = served.state(run_id)
        return state if state and state.is_final() else None

    wrong = []
    run_id = due or wait_for(schedule, "the server answers again")
    state = wait_for(final, "the next run ends")
    if not state.is_completed():
        wrong.append(f"the next run ended as {state.name}: {state.message}")
    metrics = (served.plan.root / METRICS).read_text() if not params else ""
    if params and (name := re.search(r"dvc exp apply (\S+)`", state.message or "")):
        head = served.plan.git("rev-parse", "HEAD")
        kept = f"refs/exps/{head[:2]}/{head[2:]}/{name[1]}"
        metrics = served.plan.git("show", f"{kept}:{METRICS}")
    if metrics != json.dumps({"dice": {"mean": epochs}}):
        wrong.append(f"the metrics should be of {epochs} epochs: {metrics!r}")
    wait_for(
        lambda: all(run.state.is_final() for run in started(served)), "all runs end"
    )
    wait_for(lambda: not processes_in(served.plan.root, "step.py"), "stages end")
    return wrong

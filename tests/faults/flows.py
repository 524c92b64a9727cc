"""Faults done to served flows: processes killed or frozen, a locked database.

A small plan runs under the real `lungfield schedule`. After each fault, what a
supervisor would do is done, and the next run must complete with the right result,
nothing may run on unseen, and no run may hold its slot.
"""

import contextlib
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tests.plan import Plan

STEP = """
import json, sys, time
from pathlib import Path
from ruamel.yaml import YAML

name = sys.argv[1]
epochs = YAML(typ="safe").load(Path("params.yaml").read_text())["train"]["epochs"]


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


if name == "train":
    checkpoint = Path("data/.work/checkpoint")
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    try:
        for epoch in range(done, 4):
            print(f"epoch {epoch + 1} of 4", flush=True)
            time.sleep(0.7)
            write(checkpoint, str(epoch + 1))
    except KeyboardInterrupt:
        sys.exit(130)
    checkpoint.unlink()
    write("model.txt", f"{epochs} epochs")
elif name == "evaluate":
    time.sleep(0.7)
    rows = "pair_id,class_name,dice,iou,hd95_px,assd_px\\na,A,0.9,0.8,1,1\\n"
    write("data/evaluation/per_image.csv", rows)
    write("data/evaluation/metrics.json", json.dumps({"dice": {"mean": epochs}}))
else:
    time.sleep(0.7)
    check = {"metric": "dice.mean", "kind": "min", "bound": 0, "value": 1}
    verdict = {"passed": True, "checks": [check | {"passed": True}]}
    write("data/gate/verdict.json", json.dumps(verdict))
"""
PLAN = {
    "train": ({"params": ["train.epochs"], "outs": ["model.txt"]}, []),
    "evaluate": (
        {
            "metrics": [
                {f"data/evaluation/{name}": {"cache": False}}
                for name in ("metrics.json", "per_image.csv")
            ]
        },
        ["model.txt"],
    ),
    "gate": (
        {"metrics": [{"data/gate/verdict.json": {"cache": False}}]},
        ["data/evaluation/metrics.json"],
    ),
}
METRICS = "data/evaluation/metrics.json"
DEPLOYMENT = "pipeline/nightly"
FREEZE_S = 12
WAIT_S = 240
BAD_WORDS = re.compile(r"Traceback|temporary server|NoneType: None|never awaited")


@dataclass
class Served:
    """A repository whose flows are served, and the ways to disturb that."""

    root: Path
    dice: random.Random
    port: int
    logs: list[Path] = field(default_factory=list)
    serving: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def home(self) -> Path:
        return self.root.with_suffix(".prefect")

    def start(self) -> None:
        """Serves, as a supervisor starts it, and waits until it does."""
        log = self.root.with_suffix(f".{len(self.logs)}.log")
        self.logs.append(log)
        env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
        env |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with log.open("wb") as file:
            self.serving = subprocess.Popen(
                [sys.executable, "-m", "stages.cli", "schedule"],
                cwd=self.root,
                env=env,
                stdout=file,
                stderr=file,
            )
        self.wait(lambda: "Ctrl-C ends" in log.read_text() or self.has_ended)
        assert not self.has_ended, log.read_text()[-3000:]

    @property
    def has_ended(self) -> bool:
        return self.serving is None or self.serving.poll() is not None

    def wait(self, condition: Callable[[], Any], what: str = "") -> Any:
        end = time.monotonic() + WAIT_S
        while not (found := condition()):
            if time.monotonic() > end:
                raise TimeoutError(what or "waited too long")
            time.sleep(0.1)
        return found

    def processes(self, words: str) -> list[psutil.Process]:
        """Processes of this repository with these words in their command."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                here = process.environ().get("PREFECT_HOME") == str(self.home)
                if here and words in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill(self, words: str, number: int = signal.SIGKILL) -> None:
        for process in self.processes(words):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    @contextlib.contextmanager
    def api(self) -> Iterator[Any]:
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with (
            temporary_settings({PREFECT_API_URL: self.url}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def schedule(self, params: dict[str, Any]) -> Any:
        """A run that is due now; its id."""
        with self.api() as api:
            deployment = api.read_deployment_by_name(DEPLOYMENT)
            run = api.create_flow_run_from_deployment(
                deployment.id, parameters={"params": params}
            )
        return run.id

    def states(self) -> dict[Any, Any]:
        """States of the runs that are due, by id."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime

        with self.api() as api:
            started = FlowRunFilterStartTime(is_null_=False)
            runs = api.read_flow_runs(flow_run_filter=FlowRunFilter(start_time=started))
            return {run.id: run.state for run in runs}

    def state_of(self, run_id: Any) -> Any:
        with self.api() as api:
            return api.read_flow_run(run_id).state


def lay(root: Path) -> None:
    """A repository with the small plan, committed."""
    root.mkdir(parents=True)
    (root / "step.py").write_text(STEP)
    for name in ("params.yaml", "prefect.yaml"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    (root / ".gitignore").write_text("/data/.work/\n__pycache__/\n")
    stages = {
        name: {"cmd": f"python step.py {name}", "deps": ["step.py", *deps], **outs}
        for name, (outs, deps) in PLAN.items()
    }
    Plan.small(root, stages)


SCHEDULE = "stages.cli schedule"
ENGINES = ("flow-run execute", "prefect.engine")


def server_killed(served: Served) -> None:
    served.kill("uvicorn")
    served.kill("prefect server")


def serving_killed(served: Served) -> None:
    served.kill(SCHEDULE)


def engine_killed(served: Served) -> None:
    for words in ENGINES:
        served.kill(words)


def machine_restarted(served: Served) -> None:
    served.kill("")


def server_frozen(served: Served) -> None:
    some = [*served.processes("uvicorn"), *served.processes("prefect server")]
    for process in some:
        process.suspend()
    time.sleep(FREEZE_S)
    for process in some:
        process.resume()


def database_locked(served: Served) -> None:
    with contextlib.closing(sqlite3.connect(served.home / "prefect.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(FREEZE_S)


def cancelled_with_nobody_serving(served: Served) -> None:
    from prefect.states import Cancelling

    serving_killed(served)
    with contextlib.suppress(Exception), served.api() as api:
        for run_id, state in served.states().items():
            if state.is_running():
                api.set_flow_run_state(run_id, Cancelling())


KINDS: dict[str, Callable[[Served], None]] = {
    "server killed": server_killed,
    "serving killed": serving_killed,
    "engine killed": engine_killed,
    "machine restarted": machine_restarted,
    "server frozen": server_frozen,
    "database locked": database_locked,
    "cancelled unseen": cancelled_with_nobody_serving,
}


def do(number: int, kind: str, seed: int, folder: Path) -> tuple[str, list[str]]:
    """Does one fault.

    Args:
        number: Of the fault in its sequence.
        kind: One of `KINDS`.
        seed: Of the sequence.
        folder: Where to work.

    Returns:
        What was done, and what went wrong.
    """
    dice = random.Random(seed * 100_003 + number)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = Served(folder / f"flow{number}", dice, port)
    lay(served.root)
    params = dice.choice([{}, {"train.epochs": 7}])
    stage = dice.choice(["train", "train", "evaluate", "gate"])
    delay = dice.uniform(0, 2)
    what = f"{kind}, {stage} + {delay:.1f} s, {'with' if params else 'no'} params"
    try:
        served.start()
        served.schedule(params)
        served.wait(lambda: served.processes(f"step.py {stage}"), f"{stage} starts")
        time.sleep(delay)
        KINDS[kind](served)
        time.sleep(2)
        if served.has_ended:  # as a supervisor does
            served.start()
        return what, _judge(served, params)
    except Exception as error:
        tail = served.logs[-1].read_text()[-3000:] if served.logs else ""
        return what, [f"{type(error).__name__}: {error}", tail]
    finally:
        if not served.has_ended:
            assert served.serving is not None
            served.serving.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                served.serving.wait(60)
        served.kill("")


def _judge(served: Served, params: dict[str, Any]) -> list[str]:
    """The next run completes; nothing is left of the former."""
    wrong = []

    def schedule() -> Any:
        with contextlib.suppress(Exception):  # its server is starting
            return served.schedule(params)
        return None

    run_id = served.wait(schedule, "the server answers again")

    def final() -> Any:
        with contextlib.suppress(Exception):
            state = served.state_of(run_id)
            return state if state.is_final() else None
        return None

    state = served.wait(final, "the next run ends")
    if not state.is_completed():
        wrong.append(f"the next run ended as {state.name}: {state.message}")
    expected = str(params.get("train.epochs", _shipped_epochs()))
    if params:
        name = re.search(r"dvc exp apply (\S+)`", state.message or "")
        revision = f"refs/exps/{_base(served)}/{name[1]}" if name else "HEAD"
        shown = _git(served, "show", f"{revision}:{METRICS}")
    else:
        shown = (served.root / METRICS).read_text()
    if f'"mean": {expected}' not in shown:
        wrong.append(f"the metrics should be of {expected} epochs: {shown!r}")

    def all_final() -> bool:
        return all(state.is_final() for state in served.states().values())

    try:
        served.wait(all_final, "all runs end")
        served.wait(lambda: not served.processes("step.py"), "stages end")
    except TimeoutError as error:
        wrong.append(f"{error}: {served.states()}")
    for log in served.logs:
        if found := BAD_WORDS.search(text := log.read_text()):
            wrong.append(f"{found[0]} in the log: {text[found.start() - 500 :][:3000]}")
    return wrong


def _shipped_epochs() -> int:
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
    return int(values["train"]["epochs"])


def _base(served: Served) -> str:
    head = _git(served, "rev-parse", "HEAD").strip()
    return f"{head[:2]}/{head[2:]}"


def _git(served: Served, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=served.root, capture_output=True, text=True
    )
    return done.stdout


def sequence(seed: int, count: int) -> list[tuple[int, str]]:
    """Numbers and kinds; each kind once before any comes again."""
    dice = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += dice.sample(list(KINDS), len(KINDS))
    return list(enumerate(kinds[:count]))


def run(seed: int, count: int, *, only: list[int] | None = None, jobs: int = 2) -> int:
    """Does the first faults of a sequence; prints each and the number of survivors.

    Args:
        seed: Of the sequence.
        count: How many to do.
        only: Numbers to do; None does all.
        jobs: How many at a time.

    Returns:
        1 if a fault was not survived.
    """
    some = [(n, k) for n, k in sequence(seed, count) if only is None or n in only]
    with (
        tempfile.TemporaryDirectory(prefix="flow-faults-") as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def one(case: tuple[int, str]) -> bool:
            what, wrong = do(*case, seed, Path(folder))
            word = "LOST" if wrong else "survived"
            print(
                "\n      ".join([f"{case[0]:>4} {word:<9}{what}", *wrong]), flush=True
            )
            return not wrong

        survived = sum(pool.map(one, some))
    print(f"{survived} of {len(some)} faults to flows survived, seed {seed}")
    return int(survived < len(some))

"""A finished run of the plan, and copies of it in which one stage is to be done."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import dvc_files, files
from tests.conftest import ROOT, TINY, with_overrides
from tests.faults import watch
from tests.plan import Plan

TINIER = TINY | {
    "ingest.phantom.pairs": 16,
    "train.epochs": 3,
    "train.gradient_log_interval": 2,
}
LONGEST_S = 900.0  # a run that takes longer hangs
HEARD_S = 3.0  # for the last words of what the fault left running


@dataclass
class Cost:
    """What a stage took, undisturbed."""

    cpu_s: float = 0.0
    writes: int = 0
    largest_bytes: int = 0  # of the files that it wrote
    total_bytes: int = 0


@dataclass
class Base:
    """The finished run."""

    plan: Plan
    outputs: dict[str, list[str]]  # stage to paths, in the plan's order
    inputs: dict[str, list[str]]  # stage to what it reads below data/
    hashes: dict[str, str]  # output to SHA-256
    lock: dict[str, Any]
    costs: dict[str, Cost]

    @property
    def root(self) -> Path:
        return self.plan.root


def read(root: Path) -> Base:
    """The finished run that `prepare` left in a folder."""
    costs = json.loads(_costs(root).read_text("utf-8"))
    lock = YAML(typ="safe", pure=True).load((root / "dvc.lock").read_text("utf-8"))
    entries = {name: lock["stages"][name] for name in costs}
    outputs = {n: [*dvc_files.recorded(e, "outs")] for n, e in entries.items()}
    made = {path for some in outputs.values() for path in some}
    return Base(
        plan=Plan.at(root),
        outputs=outputs,
        inputs={
            name: [dep for dep in dvc_files.recorded(entry, "deps") if dep in made]
            for name, entry in entries.items()
        },
        hashes={out: files.sha256(root / out) for out in sorted(made)},
        lock=lock,
        costs={name: Cost(**cost) for name, cost in costs.items()},
    )


def prepare(root: Path, overrides: dict[str, Any] | None = None) -> Base:
    """Runs the plan, and measures it.

    Args:
        root: A folder to make; what was measured is written beside it.
        overrides: Params besides `TINIER`.
    """
    values = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text("utf-8"))
    root.mkdir(parents=True)
    plan = Plan(root, with_overrides(values, TINIER | (overrides or {})))
    costs = {}
    for stage in YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]:
        run = Run(root, ["repro", "--single-item", stage], site=logs(root))
        cost = measure(run, stage)
        if run.process.returncode:
            raise SystemExit(f"undisturbed, {stage} failed:\n{run.output()[-3000:]}")
        entry = YAML(typ="safe", pure=True).load(root / "dvc.lock")["stages"][stage]
        sizes = [
            path.stat().st_size
            for out in dvc_files.recorded(entry, "outs")
            for path in [root / out, *(root / out).rglob("*")]
            if path.is_file()
        ]
        cost.largest_bytes, cost.total_bytes = max(sizes), sum(sizes)
        print(f"undisturbed {stage}: {cost.cpu_s:.1f} CPU s, {cost.writes} writes")
        costs[stage] = asdict(cost)
    plan.commit("done")
    _costs(root).write_text(json.dumps(costs))
    return read(root)


def logs(root: Path) -> Path:
    """The folder of what the undisturbed stages printed, one file per stage."""
    return root.with_suffix(".logs")


def _costs(root: Path) -> Path:
    return root.with_suffix(".costs.json")


def measure(run: "Run", stage: str) -> Cost:
    """Lets a run end, and counts what its stage did."""
    cost, process = Cost(), None
    while run.process.poll() is None:
        if process is None:
            process = watch.stage_process(run.process.pid, stage)
        elif (used := watch.used(process)) is not None:
            cost.cpu_s, cost.writes = used
        time.sleep(0.02)
    return cost


class Run:
    """A `dvc` command in a clone, as leader of a process group of its own."""

    def __init__(self, root: Path, words: list[str], *, site: Path) -> None:
        # TensorFlow may say what it likes; DVC's memory of hashes is this clone's own.
        ours = {
            name: value
            for name, value in Plan.at(root).environment().items()
            if not name.startswith("TF_")
        }
        site.mkdir(exist_ok=True)
        self.log = site / f"{len(list(site.glob('*.log')))}.log"
        self.log.touch()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dvc", *words],
            cwd=root,
            env=ours | {"DVC_SITE_CACHE_DIR": str(site)},
            stdin=subprocess.DEVNULL,
            # No file: a limit on the size of files would silence who meets it.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("wb", buffering=0) as file, self.process.stdout as printed:
            while part := printed.read1():
                file.write(part)

    def output(self) -> str:
        self._hearing.join(HEARD_S)
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> int:
        """Waits for the leader; kills what hangs."""
        try:
            return self.process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            return -99


def lay(base: Base, stage: str, root: Path) -> None:
    """A copy in which the stage and what follows is to be done.

    What follows may come from the run-cache; the stage itself may not.
    """
    base.plan.copy(root)
    done = list(base.costs)
    undone = done[done.index(stage) :]
    for name in undone:
        for out in base.outputs[name]:
            files.remove(root / out)
    files.remove(root / "data" / ".work")
    stages = {k: v for k, v in base.lock["stages"].items() if k not in undone}
    lock = root / "dvc.lock"
    if stages:
        with lock.open("w", encoding="utf-8") as file:
            YAML().dump(base.lock | {"stages": stages}, file)
    else:
        lock.unlink()
    for entry in (root / ".dvc" / "cache" / "runs").glob("*/*/*"):
        if entry.read_text("utf-8").startswith(f"cmd: python -m stages.{stage}\n"):
            # The folder is the key: DVC falls over one that is empty.
            files.remove(entry.parent)
    for md5 in dvc_files.recorded(base.lock["stages"][stage], "outs").values():
        for path in cache_objects(root, md5):
            path.unlink(missing_ok=True)


def cache_objects(root: Path, md5: str) -> list[Path]:
    """The cache's files for an output, those of its members first."""
    cache = root / ".dvc" / "cache" / "files" / "md5"
    own = dvc_files.stored(cache, md5)
    if not own.is_file():
        return []
    if not md5.endswith(".dir"):
        return [own]
    members = {dvc_files.stored(cache, e["md5"]) for e in json.loads(own.read_text())}
    return [*sorted(path for path in members if path.is_file()), own]


def digest(path: Path) -> str:
    """SHA-256 of an output; "" where there is none."""
    return files.sha256(path) if path.exists() else ""

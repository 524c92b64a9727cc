"""A finished run of the plan, and copies of it in which one stage is to be done."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import files
from tests.conftest import ROOT, TINY, with_overrides
from tests.faults import watch
from tests.plan import Plan

KINDS = ("outs", "metrics", "plots")
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
    events: int = 0
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
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    outputs = {
        name: [
            out if isinstance(out, str) else next(iter(out))
            for kind in KINDS
            for out in stage.get(kind, [])
        ]
        for name, stage in stages.items()
    }
    made = {path for some in outputs.values() for path in some}
    inputs = {
        name: [dep for dep in stage["deps"] if dep in made]
        for name, stage in stages.items()
    }
    costs = json.loads(_costs(root).read_text("utf-8"))
    return Base(
        plan=Plan.at(root),
        outputs=outputs,
        inputs=inputs,
        hashes={
            out: files.sha256(root / out) for name in costs for out in outputs[name]
        },
        lock=YAML(typ="safe", pure=True).load(root / "dvc.lock"),
        costs={name: Cost(**cost) for name, cost in costs.items()},
    )


def prepare(
    root: Path, *, say: Callable[[str], None], overrides: dict[str, Any] | None = None
) -> Base:
    """Runs the plan, and measures it.

    Args:
        root: A folder to make; what was measured is written beside it.
        say: Told of each stage.
        overrides: Params besides `TINIER`.
    """
    values = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text("utf-8"))
    root.mkdir(parents=True)
    plan = Plan(root, with_overrides(values, TINIER | (overrides or {})))
    _costs(root).write_text("{}")
    costs: dict[str, Cost] = {}
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    for stage in stages:
        run = Run(root, ["repro", "--single-item", stage], site=logs(root))
        cost = costs[stage] = measure(run, stage)
        if run.process.returncode:
            raise SystemExit(f"undisturbed, {stage} failed:\n{run.output()[-3000:]}")
        say(f"undisturbed {stage}: {cost.cpu_s:.1f} CPU s, {cost.events} file events")
    for stage, outputs in read(root).outputs.items():
        sizes = [
            p.stat().st_size
            for out in outputs
            for p in [root / out, *(root / out).rglob("*")]
            if p.is_file()
        ]
        costs[stage].largest_bytes, costs[stage].total_bytes = max(sizes), sum(sizes)
    plan.commit("done")
    values = {name: asdict(cost) for name, cost in costs.items()}
    _costs(root).write_text(json.dumps(values), "utf-8")
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
        elif (used := watch.cpu_seconds(process)) is not None:
            cost.cpu_s = used
        cost.events = run.watch.events()
        time.sleep(0.02)
    return cost


class Run:
    """A `dvc` command in a clone, as leader of a process group of its own."""

    def __init__(
        self,
        root: Path,
        words: list[str],
        *,
        site: Path,
        env: dict[str, str] | None = None,
    ) -> None:
        self.root = root
        (root / "data" / ".work" / "partial").mkdir(parents=True, exist_ok=True)
        self.watch = watch.Watch(root / "data" / ".work")
        number = len(list(site.glob("*.log"))) if site.is_dir() else 0
        site.mkdir(exist_ok=True)
        self.log = site / f"{number}.log"
        self.log.touch()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dvc", *words],
            cwd=root,
            env=environment(site) | (env or {}),
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
        finally:
            self.watch.close()


def environment(site: Path) -> dict[str, str]:
    ours = ("PYTHON", "DVC_", "TF_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    search = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept | {
        "PATH": search,
        "DVC_NO_ANALYTICS": "1",
        # DVC's memory of hashes, not shared with any other clone.
        "DVC_SITE_CACHE_DIR": str(site),
    }


def lay(base: Base, stage: str, root: Path) -> None:
    """A copy in which the stage and what follows is to be done.

    What follows may come from the run-cache; the stage itself may not.
    """
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(base.root, root, symlinks=True)
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
    for out in base.lock["stages"][stage]["outs"]:
        for path in cache_objects(root, out["md5"]):
            path.unlink(missing_ok=True)


def cache_objects(root: Path, md5: str) -> list[Path]:
    """The cache's files for an output, those of its members first."""
    top = root / ".dvc" / "cache" / "files" / "md5"
    own = top / md5[:2] / md5[2:]
    if not own.is_file():
        return []
    if not md5.endswith(".dir"):
        return [own]
    entries = YAML(typ="safe", pure=True).load(own.read_text("utf-8"))
    members = [top / e["md5"][:2] / e["md5"][2:] for e in entries]
    return [*sorted({p for p in members if p.is_file()}), own]


def digest(path: Path) -> str:
    """SHA-256 of an output; "" where there is none."""
    return files.sha256(path) if path.exists() else ""


def seed_of(*words: object) -> int:
    """A number for words, the same on every machine."""
    text = " ".join(map(str, words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

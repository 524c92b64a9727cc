"""What can go wrong while a stage runs: one function a kind of fault.

Each disturbs the run of one stage in a laid clone and returns what it did, in words,
or None where the stage ended before the fault came.
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stages.core import dvc_files, files
from tests.faults import clones, watch
from tests.faults.clones import Base, Run

DAY_S = 86_400
ROOMY = "256m"  # a file system with room for all that a stage writes


@dataclass
class Scene:
    """One fault in the making."""

    base: Base
    root: Path
    stage: str
    dice: random.Random
    runs: list[Run] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # outputs that the fault spoilt
    mend: list[Callable[[], object]] = field(default_factory=list)  # ends the fault
    clear: list[Callable[[], object]] = field(default_factory=list)  # when all is done
    may_be_silent: bool = False  # nobody is left to say a word

    def start(self, *, single: bool = True) -> Run:
        # As a flow's task runs it, or as a person does.
        single = single and self.dice.random() < 0.5
        words = ["repro", *(["--single-item"] if single else []), self.stage]
        run = Run(self.root, words, site=self.root.with_suffix(".site"))
        self.runs.append(run)
        return run

    def end(self) -> None:
        self.codes = [run.end() for run in self.runs]

    def begun(self, run: Run) -> int | None:
        """The stage's process, as soon as there is one."""
        while run.process.poll() is None:
            process = watch.stage_process(run.process.pid, self.stage)
            if process is not None:
                return process
            time.sleep(0.003)
        return None


def wait_for_point(scene: Scene, run: Run) -> tuple[int, str] | None:
    """Waits for a seeded point inside the stage; returns its process and the point.

    Every other time a share of the processor time that the stage takes, which spreads
    over its imports and its work alike; else one of its writes.
    """
    cost = scene.base.costs[scene.stage]
    by_write = scene.dice.random() < 0.5
    share = scene.dice.uniform(0.02, 0.95)
    write = scene.dice.randint(1, max(cost.writes, 1))
    if (process := scene.begun(run)) is None:
        return None
    while (used := watch.used(process)) is not None:
        cpu_s, writes = used
        if by_write and writes >= write:
            return process, f"at write {write} of {cost.writes}"
        if not by_write and cpu_s >= share * cost.cpu_s:
            return process, f"after {share:.0%} of its processor time"
        time.sleep(0.001 if by_write else 0.004)
    return None


def _signal(number: signal.Signals) -> Callable[[Scene], str | None]:
    def disturb(scene: Scene) -> str | None:
        # Ctrl-C reaches the whole foreground group; a kill may reach one of them.
        whom = "group"
        if number != signal.SIGINT:
            whom = scene.dice.choice(["group", "stage", "dvc"])
        run = scene.start()
        if (point := wait_for_point(scene, run)) is None:
            scene.end()
            return None
        process, where = point
        scene.may_be_silent = number == signal.SIGKILL or whom == "dvc"
        with contextlib.suppress(ProcessLookupError):
            if whom == "group":
                os.killpg(run.process.pid, number)
            else:
                os.kill(process if whom == "stage" else run.process.pid, number)
        scene.end()
        return f"{number.name} to the {whom} {where}"

    return disturb


def disk_full(scene: Scene) -> str | None:
    """A small file system under data/, or a limit on the size of a file."""
    cost = scene.base.costs[scene.stage]
    data = scene.root / "data"
    share = scene.dice.uniform(0.0, 0.9)
    if scene.dice.random() < 0.5 and can_mount():
        held = scene.root / "data.held"
        data.rename(held)
        data.mkdir()
        mount("-t", "tmpfs", "-o", f"size={ROOMY}", "none", str(data))
        scene.clear.append(lambda: unmount(data))
        shutil.copytree(held, data, dirs_exist_ok=True)
        shutil.rmtree(held)
        # What is there already takes whole pages, and folders take none.
        disk = os.statvfs(data)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        free = int(share * cost.total_bytes) // disk.f_frsize * disk.f_frsize
        mount("-o", f"remount,size={used + free}", str(data))
        scene.start()
        scene.mend.append(lambda: mount("-o", f"remount,size={ROOMY}", str(data)))
        what = f"a disk with {free} bytes free"
    else:
        run = scene.start()
        limit = int(share * cost.largest_bytes)
        if (process := scene.begun(run)) is not None:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process, resource.RLIMIT_FSIZE, (limit, limit))
        what = f"no file above {limit} bytes"
    scene.end()
    return what if any(scene.codes) else None


def read_only(scene: Scene) -> str | None:
    """data/ mounted read-only, or without the right to write for who may not anyway."""
    data = scene.root / "data"
    (data / ".work" / "partial").mkdir(parents=True, exist_ok=True)
    if can_mount():
        mount("--bind", str(data), str(data))
        mount("-o", "remount,bind,ro", str(data))
        scene.mend.append(lambda: unmount(data))
        what = "data/ mounted read-only"
    else:
        folders = [data, *(p for p in data.rglob("*") if p.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        scene.mend.append(lambda: [folder.chmod(0o755) for folder in folders])
        what = "data/ without write permission"
    scene.start()
    scene.end()
    return what


def flip(path: Path, dice: random.Random) -> str:
    """Turns one bit of a file over in place; the file keeps its time."""
    data = bytearray(path.read_bytes())
    bit = dice.randrange(len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"bit {bit}"


def _spoilt(
    spoil: Callable[[Path, random.Random], str],
) -> Callable[[Scene], str | None]:
    """A fault to a file of an input: before DVC looks, or behind its back."""

    def disturb(scene: Scene) -> str | None:
        name = scene.dice.choice(scene.base.inputs[scene.stage])
        path = scene.root / name
        if path.is_dir():
            path = scene.dice.choice(sorted(p for p in path.rglob("*") if p.is_file()))
        scene.damaged.append(name)
        where = path.relative_to(scene.root)
        if scene.dice.random() < 0.3:
            what = spoil(path, scene.dice)
            if path.exists():
                os.utime(path)
            scene.start()
            scene.end()
            return f"{what} of {where} before the run"
        run = scene.start()
        process = scene.begun(run)
        what = spoil(path, scene.dice)
        scene.end()
        return process and f"{what} of {where} behind DVC's back"

    return disturb


def _remove(path: Path, _: random.Random) -> str:
    path.unlink()
    return "all"


def cache_object(scene: Scene) -> str | None:
    """An input's object in DVC's cache, altered, from which DVC then restores it.

    With its mode, as a failing disk alters it; or writable, as an editor leaves it.
    """
    name = scene.dice.choice(_cached(scene.base, scene.stage))
    scene.damaged.append(name)
    md5 = dvc_files.recorded_outs(scene.base.lock["stages"])[name]
    path = scene.dice.choice(clones.cache_objects(scene.root, md5))
    bit = flip(path, scene.dice)
    edited = scene.dice.random() < 0.3
    if edited:
        path.chmod(0o644)
    files.remove(scene.root / name)
    # Not a single item: DVC is to restore the input.
    scene.start(single=False)
    scene.end()
    return f"{bit} of {name}'s cache object, {'writable' if edited else 'read-only'}"


def _cached(base: Base, stage: str) -> list[str]:
    """Inputs of a stage that DVC's cache holds."""
    ignored = (base.root / name for name in base.inputs[stage])
    return [
        str(path.relative_to(base.root))
        for path in ignored
        if not base.plan.git("ls-files", str(path))
    ]


def checkpoint(scene: Scene) -> str | None:
    """A training killed after an epoch, and its checkpoint spoilt."""
    epoch = scene.dice.randint(1, 3)
    path = scene.root / "data" / ".work" / "train" / "checkpoint.npz"
    run = scene.start()
    if scene.begun(run) is None:
        scene.end()
        return None
    seen, last = 0, None
    while run.process.poll() is None and seen < epoch:
        with contextlib.suppress(FileNotFoundError):
            if (now := path.stat().st_ino, path.stat().st_mtime_ns) and now != last:
                seen, last = seen + 1, now
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGKILL)
    scene.end()
    scene.may_be_silent = True
    if not path.is_file():
        return None
    how = scene.dice.choice(["flipped", "cut", "empty", "noise", "text"])
    data = path.read_bytes()
    match how:
        case "flipped":
            how = f"{flip(path, scene.dice)} flipped"
        case "cut":
            path.write_bytes(data[: scene.dice.randrange(1, len(data))])
        case "empty":
            path.write_bytes(b"")
        case "noise":
            path.write_bytes(scene.dice.randbytes(len(data)))
        case _:
            path.write_text('{"epoch": 9}')
    return f"SIGKILL after epoch {seen}, then its checkpoint {how}"


def two_at_once(scene: Scene) -> str | None:
    """A second `dvc repro` while one runs, or the stage by hand beside it."""
    first = scene.start()
    if (point := wait_for_point(scene, first)) is None:
        scene.end()
        return None
    scene.start()
    scene.end()
    # Whoever came second says so, or finds the work done.
    return f"a second dvc repro {point[1]}"


def clock_back(scene: Scene) -> str | None:
    """All files are of the future, as after a clock that was ahead was set right."""
    days = scene.dice.choice([1, 30, 20_000])
    ahead = time.time() + days * DAY_S
    for path in scene.root.rglob("*"):
        if ".git" not in path.parts and not path.is_symlink():
            os.utime(path, (ahead, ahead))
    scene.start()
    scene.end()
    return f"the clock {days} days behind the files"


def can_mount() -> bool:
    """Whether this process has a mount namespace of its own to mount in."""
    return os.environ.get("FAULTS_CAN_MOUNT") == "1"


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


KINDS: dict[str, Callable[[Scene], str | None]] = {
    "kill": _signal(signal.SIGKILL),
    "term": _signal(signal.SIGTERM),
    "interrupt": _signal(signal.SIGINT),
    "disk full": disk_full,
    "read-only": read_only,
    "flipped bit": _spoilt(flip),
    "missing file": _spoilt(_remove),
    "cache object": cache_object,
    "checkpoint": checkpoint,
    "two at once": two_at_once,
    "clock back": clock_back,
}


def applicable(base_inputs: dict[str, list[str]], stage: str) -> Iterator[str]:
    """Kinds of fault that a stage can meet."""
    for kind in KINDS:
        if kind in ("flipped bit", "missing file") and not base_inputs[stage]:
            continue
        # gate reads what Git holds, not the cache.
        if kind == "cache object" and stage in ("ingest", "gate"):
            continue
        if kind == "checkpoint" and stage != "train":
            continue
        yield kind

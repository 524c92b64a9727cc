"""The machine: interpreter, packages, GPU, memory, disk."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from stages.core import paths
from stages.core.params import TrainParams
from stages.tools.doctor.finding import BROKEN, NOTE, OK, Finding

WANTED = (3, 11)
SETUP = "run `make setup` (it makes .venv), then use .venv/bin/python"
GIB = 2**30
# What TensorFlow takes before the first image, measured on Linux.
TENSORFLOW_BYTES = 1 * GIB
# Floats kept for the backward pass, a pixel and a filter of a level: convolution, batch
# norm and activation twice on the way down and twice on the way up, and the skip.
ACTIVATIONS = 14
FLOAT_BYTES = 4
RESERVE_BYTES = 1 * GIB  # outputs other than data: model, pages, exports
NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"))


def python() -> Finding:
    """The version that everything is locked for."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == WANTED:
        return Finding(OK, "python", f"{found}, {sys.executable}")
    wanted = ".".join(map(str, WANTED))
    return Finding(BROKEN, "python", f"{found} instead of {wanted}", SETUP)


def bytecode() -> Finding:
    """Whether the second start of TensorFlow is faster than the first."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return Finding(
            NOTE,
            "bytecode",
            "PYTHONDONTWRITEBYTECODE is set: every start of TensorFlow takes longer",
            "unset PYTHONDONTWRITEBYTECODE",
        )
    return Finding(OK, "bytecode", "is kept")


def locked(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of what a lock file wants on this machine.

    Args:
        text: Lines of name, version and perhaps a marker; hashes between them.
    """
    for line in text.splitlines():
        found = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;\s*([^\\]+))?", line)
        if found and (not found[3] or Marker(found[3].strip()).evaluate()):
            yield canonicalize_name(found[1]), found[2]


def packages(lock: Path = paths.LOCK) -> Finding:
    """What is installed against what the lock says."""
    try:
        wanted = dict(locked(lock.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Finding(
            BROKEN, "packages", f"{lock} is missing", f"run `git checkout {lock}`"
        )
    wrong = []
    for name, version in wanted.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "not installed"
        if installed != version:
            wrong.append(f"{name} {installed} instead of {version}")
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        found = f"{len(wrong)} of {len(wanted)} differ: {'; '.join(wrong[:3])}{rest}"
        return Finding(BROKEN, "packages", found, SETUP)
    return Finding(OK, "packages", f"all {len(wanted)} are those of {lock}")


def devices() -> Finding:
    """A GPU, by its driver; TensorFlow is not started."""
    if not any(path.exists() for path in NVIDIA):
        return Finding(OK, "gpu", "none: everything runs on the CPU")
    named = "an NVIDIA driver is loaded"
    tool = shutil.which("nvidia-smi")
    if tool:
        done = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        named = "; ".join(done.stdout.strip().splitlines()) or named
    if any(name.startswith("nvidia-cudnn") for name in _installed()):
        return Finding(OK, "gpu", named)
    return Finding(
        NOTE,
        "gpu",
        f"{named}, but TensorFlow has no CUDA libraries here",
        "remove .venv and run `make setup GPU=1` to train on it",
    )


def _installed() -> Iterator[str]:
    for distribution in metadata.distributions():
        if name := distribution.metadata["Name"]:
            yield canonicalize_name(name)


def devices_by_tensorflow() -> Finding:
    """What TensorFlow sees, asked in a process of its own."""
    code = (
        "import tensorflow as tf\n"
        "print('seen', len(tf.config.list_physical_devices('GPU')), tf.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    answer = re.search(r"^seen (\d+) (\S+)$", done.stdout, re.M)
    if answer is None:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Finding(BROKEN, "gpu", f"TensorFlow does not start: {last}", SETUP)
    driver = devices()
    if answer[1] == "0" and not driver.found.startswith("none"):
        return Finding(
            NOTE,
            "gpu",
            f"TensorFlow {answer[2]} sees none, though there is one ({driver.found})",
            "remove .venv and run `make setup GPU=1` to train on it",
        )
    return Finding(OK, "gpu", f"TensorFlow {answer[2]} sees {answer[1]}")


def training_bytes(train: TrainParams) -> int:
    """About what a training step holds: activations of a batch, and TensorFlow.

    An upper estimate: a GPU may need half of it with mixed precision.
    """
    floats = sum(
        (train.image_size >> level) ** 2 * width
        for level, width in enumerate(train.filters)
    )
    batch = floats * ACTIVATIONS * FLOAT_BYTES * train.batch_size
    return batch + TENSORFLOW_BYTES


def memory(train: TrainParams) -> Finding:
    """Free memory against what a training step holds."""
    need, free = training_bytes(train), psutil.virtual_memory().available
    found = f"{free / GIB:.1f} GiB free, training takes about {need / GIB:.1f}"
    if free >= need:
        return Finding(OK, "memory", found)
    if devices().state == OK and not devices().found.startswith("none"):
        return Finding(OK, "memory", f"{found}, on the GPU")
    return Finding(
        NOTE, "memory", found, "lower train.batch_size, train.image_size or filters"
    )


def disk(need: int) -> Finding:
    """Free disk against what the data take.

    Args:
        need: Bytes of all outputs and their copies in the cache.
    """
    free, need = shutil.disk_usage(Path()).free, need + RESERVE_BYTES
    found = f"{free / GIB:.1f} GiB free, a first run takes about {need / GIB:.1f}"
    if free >= need:
        return Finding(OK, "disk", found)
    return Finding(
        BROKEN, "disk", found, "free some, or lower ingest.limit; `dvc gc -w` helps"
    )

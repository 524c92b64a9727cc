"""Checks at the start of a stage, before it does any work.

DVC trusts a file by its time and size, and an object of its cache by its mode. A
corrupt file or cache would go into training unnoticed, so each stage compares the
hashes of its inputs with `dvc.lock`.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from stages.core import dvc_files, paths
from stages.core.errors import PipelineError

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def by_dvc() -> None:
    """Checks the inputs, ends the stage if DVC dies, and notes its start.

    Does nothing if DVC did not start the stage; raises as `check_inputs`.
    """
    address = os.environ.get("DVC_STAGE")
    if not address:
        return
    _end_with_parent()
    stage = address.rpartition(":")[2]
    _note_start(stage)
    check_inputs(stage)


def _note_start(stage: str) -> None:
    """Writes one line for the summary of `make repro`."""
    with contextlib.suppress(OSError):  # a full or read-only disk has its own error
        paths.STAGE_TIMES.parent.mkdir(parents=True, exist_ok=True)
        with paths.STAGE_TIMES.open("a", encoding="utf-8") as times:
            times.write(f"{stage},{psutil.Process().create_time():.1f}\n")


def check_inputs(stage: str) -> None:
    """Compares the inputs of a stage with the hashes in `dvc.lock`.

    If they differ, DVC's next run hashes the bytes, restores them from an intact cache
    or rebuilds them.

    Raises:
        PipelineError: If they differ.
    """
    plan, lock = _yaml(paths.PLAN), _yaml(paths.DVC_LOCK)
    recorded = dvc_files.recorded_outs(lock.get("stages", {}))
    for name in plan.get("stages", {}).get(stage, {}).get("deps", []):
        if not isinstance(name, str) or name not in recorded:
            continue
        path, expected = Path(name), recorded[name]
        if not path.exists():
            raise PipelineError(
                f"{path}, which {stage} reads, is missing; run the same command again: "
                "DVC restores or rebuilds it"
            )
        found = dvc_files.md5(path)
        if found != expected:
            _distrust(path, expected)
            raise PipelineError(
                f"{path}, which {stage} reads, should have the MD5 {expected} of "
                f"dvc.lock but has {found}: its bytes changed on the disk or in the "
                "DVC cache; run the same command again: DVC restores or rebuilds it"
            )


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {}


def _distrust(path: Path, expected: str) -> None:
    """Makes DVC hash bytes again: files by a new time, cache objects by their mode."""
    children = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    for child in children:
        with contextlib.suppress(OSError):
            os.utime(child)
    for found in _cache_objects(expected):
        with contextlib.suppress(OSError):
            if dvc_files.md5(found) != dvc_files.name_of(found).removesuffix(".dir"):
                found.chmod(0o644)


def _cache_objects(md5: str) -> list[Path]:
    """The cache object of an output, and those of its files if it is a folder."""
    cache = dvc_files.cache()
    names = [md5]
    if md5.endswith(".dir"):
        names += (dvc_files.listing(dvc_files.stored(cache, md5)) or {}).values()
    objects = [dvc_files.stored(cache, name) for name in names]
    return [path for path in objects if path.is_file()]


def _end_with_parent() -> None:
    """Lets Linux terminate this process when DVC dies.

    A training whose `dvc repro` was killed would run beside the next one.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    except (OSError, AttributeError):
        logger.debug("prctl is missing; if DVC is killed, this stage runs on")
        return
    if os.getppid() != parent:  # it died between the two
        os.kill(os.getpid(), signal.SIGTERM)

"""Stages and DVC in processes of their own, timed from outside."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.params import Params

ROOT = Path(__file__).resolve().parents[1]  # of the checkout that is measured
_LAST = 12
_MADE = ("data/", "dvc.lock")


@dataclass(frozen=True)
class Measured:
    """What a stage took, from inside its process."""

    import_s: float
    work_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Line:
    """A line that a process wrote, and when, in seconds from its start."""

    at: float
    text: str


def environment() -> dict[str, str]:
    """This interpreter and this checkout first; no telemetry, no buffering."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DVC_"))}
    search = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept | {
        "PATH": search,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run(words: list[str], folder: Path, **env: str) -> list[Line]:
    """Runs a command to its end.

    Returns:
        What it wrote, both streams, by time.

    Raises:
        PipelineError: If it fails.
    """
    start = time.perf_counter()
    lines = []
    with subprocess.Popen(
        words,
        cwd=folder,
        env=environment() | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            lines.append(Line(time.perf_counter() - start, text.rstrip("\n")))
    if process.returncode:
        print("\n".join(line.text for line in lines[-_LAST:]), file=sys.stderr)
        raise PipelineError(
            f"`{' '.join(words[-3:])}` ended with {process.returncode} while it was "
            "measured; its last lines are above"
        )
    return lines


def dvc(folder: Path, *words: str) -> list[Line]:
    """Runs DVC in a repository, on that repository's own code."""
    # Its stages are `python -m stages.NAME` and find the code in their own folder.
    return run([sys.executable, "-m", "dvc", *words], folder, PYTHONPATH="")


def stage(name: str, folder: Path) -> Measured:
    """Runs one stage in a folder with a `params.yaml` and, perhaps, a `data/`."""
    out = folder / "measured.json"
    words = [sys.executable, "-m", "benchmarks.measured", str(out), name]
    run(words, folder)
    return Measured(**json.loads(out.read_text()))


def write_params(params: Params, folder: Path) -> None:
    """Writes `params.yaml`."""
    values: dict[str, Any] = params.model_dump(by_alias=True)
    with (folder / paths.PARAMS).open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder that is removed at the end, measured things and all."""
    with TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder)


def checkout(folder: Path) -> Path:
    """The working tree, without outputs, as a repository with an empty cache.

    Raises:
        PipelineError: If the code that is measured is in no Git repository.
    """
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        raise PipelineError(
            "only a Git checkout can be measured as DVC runs it, but Git lists no "
            f"files of {ROOT.name}: {listed.stderr.strip()}"
        )
    for name in filter(None, listed.stdout.split("\0")):
        kept = not name.startswith(_MADE) or name.endswith(".gitignore")
        if kept and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run(["git", "init", "--quiet"], folder)
    return folder

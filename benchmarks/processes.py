"""Stages and DVC in processes of their own, timed from outside."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import paths, processes
from stages.core.errors import PipelineError
from stages.core.params import text_with_values

ROOT = Path(__file__).resolve().parents[1]  # of the checkout that is measured
_LAST = 12


@dataclass(frozen=True)
class Measured:
    """Time and memory of a stage, measured inside its process."""

    import_s: float
    work_s: float
    peak_bytes: int


def run(words: list[str], folder: Path, **env: str) -> str:
    """Runs a command on this checkout's code; returns both of its streams.

    Raises:
        PipelineError: If it fails.
    """
    done = subprocess.run(
        words,
        cwd=folder,
        env=processes.environment() | {"PYTHONPATH": str(ROOT)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-_LAST:]), file=sys.stderr)
        raise PipelineError(
            f"`{' '.join(words[-3:])}` ended with {done.returncode} while it was "
            "measured; its last lines are above"
        )
    return done.stdout


def dvc(folder: Path, *words: str) -> str:
    """Runs DVC in a repository, on that repository's own code."""
    # Its stages are `python -m stages.NAME` and find the code in their own folder.
    return run([sys.executable, "-m", "dvc", *words], folder, PYTHONPATH="")


def stage(name: str, folder: Path) -> Measured:
    """Runs one stage in a folder with a `params.yaml` and, perhaps, a `data/`."""
    out = folder / "measured.json"
    words = [sys.executable, "-m", "benchmarks.measured", str(out), name]
    run(words, folder)
    return Measured(**json.loads(out.read_text()))


def write_params(values: dict[str, Any], folder: Path) -> None:
    """Writes the shipped `params.yaml` with other values, by dotted name."""
    text = text_with_values((ROOT / paths.PARAMS).read_text("utf-8"), values)
    (folder / paths.PARAMS).write_text(text, "utf-8")

"""Stages and DVC in processes of their own, timed from outside."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from stages.core import paths, processes
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


def run(words: list[str], folder: Path, **env: str) -> str:
    """Runs a command to its end, on this checkout's code.

    Returns:
        Its output, both streams.

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


def checkout(folder: Path) -> None:
    """Copies the working tree without outputs, as a new repository."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, run(words, ROOT).split("\0")):
        kept = not name.startswith(_MADE) or name.endswith(".gitignore")
        if kept and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run(["git", "init", "--quiet"], folder)

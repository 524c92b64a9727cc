"""Several runs of the plan, each kept as a DVC experiment.

Runs happen beside the working tree, on the last commit, and share its cache: the data
stages run once, and a run that exists is not repeated. `dvc exp run --queue` would lose
the checkpoints of an interrupted run, and would run on uncommitted changes.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from stages.core import git, processes, worktree
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.datasets import layouts
from stages.review.revision import Revision, resolve
from stages.review.run_results import RunResults, load

TARGET = "evaluate"  # the last stage that runs
REASON = re.compile(r"(?:error|ERROR): (.*)")


@dataclass(frozen=True)
class Planned:
    """A run to make: its name, and the params that it changes."""

    name: str
    values: dict[str, Any]  # by dotted name


@dataclass(frozen=True)
class Swept:
    """Results and reasons of failures, by the name of the run."""

    done: dict[str, RunResults]
    failed: dict[str, str]

    def require_all(self) -> None:
        """Raises PipelineError with the first failed run and its reason, if any."""
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            raise PipelineError(
                f"{len(self.failed)} of {len(self.failed) + len(self.done)} runs "
                f"failed, the first is {name} ({reason}); correct that and run the "
                "same command again: finished runs are kept"
            )


def data_values(
    data: Path | None, classes: list[str], *, layout: str = ""
) -> dict[str, Any]:
    """The params that read a folder or a zip instead of the source in `params.yaml`.

    An empty list reads all classes, and the layout "" is detected.

    Raises:
        PipelineError: If the data are missing or have no known layout.
    """
    values: dict[str, Any] = {"ingest.classes": classes} if classes else {}
    if data is None:
        return values
    return values | {
        "ingest.source": "folder",
        "ingest.folder": str(data.resolve()),  # runs happen in another folder
        "ingest.layout": layout or layouts.detect(data, load_params().ingest),
        "ingest.classes": classes,
    }


def sweep(planned: Iterable[Planned]) -> Swept:
    """Makes the missing runs one after the other on the last commit; reads all results.

    A failed run does not stop the next one. Progress goes to standard output.

    Raises:
        PipelineError: If there is no commit, or the params are invalid.
    """
    root = Path.cwd()
    head = resolve("HEAD")
    if git.output("status", "--porcelain", "--untracked-files=no"):
        print("uncommitted changes are left out: runs start from the last commit")
    runs = list(planned)
    texts = [worktree.committed_params(root, run.values) for run in runs]
    done: dict[str, RunResults] = {}
    failed: dict[str, str] = {}
    with processes.end_with_block():
        for index, (run, params) in enumerate(zip(runs, texts, strict=True), start=1):
            name = f"{run.name}-{hashlib.sha256(params.encode()).hexdigest()[:8]}"
            commit = worktree.experiment(root, head, name)
            verb = "exists" if commit else "starts"
            print(f"{index} of {len(runs)}: {run.name} {verb}", flush=True)
            begin = monotonic()
            try:
                if commit is None:
                    commit = _run(root, run, params, name)
                    print(f"  done in {monotonic() - begin:.0f} s", flush=True)
                done[run.name] = load(Revision(name, commit))
            except PipelineError as error:
                failed[run.name] = str(error)
                print(f"  failed: {error}", flush=True)
    return Swept(done, failed)


def _run(root: Path, run: Planned, params: str, name: str) -> str:
    """Runs the plan up to `TARGET` and keeps the result; returns its commit."""
    lines: list[str] = []
    with worktree.checkout(root, params) as folder:
        words = processes.dvc("repro", TARGET)
        code = processes.run(words, cwd=folder, on_line=lines.append)
        if code:
            found = [m[1] for line in lines if (m := REASON.search(line))]
            raise PipelineError(
                found[0] if found else f"dvc repro {TARGET} ended with {code}"
            )
        settings = ", ".join(f"{key}={value}" for key, value in run.values.items())
        message = f"{run.name}: {settings}"
        return worktree.keep(folder, stages=[TARGET], name=name, message=message)

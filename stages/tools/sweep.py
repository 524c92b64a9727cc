"""Several runs of the plan, each kept as a DVC experiment, and what they gave.

For `ablation` and `folds`. Runs happen beside the working tree, on the last commit, and
share its cache, so data stages run once. A run that is there already is not run again.
"""

import argparse
import hashlib
import logging
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from dvc.repo.experiments.refs import ExpRefInfo

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.flow import experiments, processes
from stages.inference.score import detect_layout
from stages.review.repository import Repository
from stages.review.revision import Revision
from stages.review.run_results import RunResults, load

logger = logging.getLogger(__name__)

TARGET = "evaluate"  # what judges and ships is no business of a sweep
# Of another model than the one that a run has scored.
STALE = (paths.VERDICT, paths.EXPORT_SUMMARY)
REASON = re.compile(r"(?:error|ERROR): (.*)")


@dataclass(frozen=True)
class Planned:
    """A run to make: what it is called, and the params in which it differs."""

    name: str
    values: dict[str, Any]  # by dotted name


@dataclass(frozen=True)
class Swept:
    """What came of the runs, by the planned names."""

    done: dict[str, RunResults]
    failed: dict[str, str]  # why

    def require_all(self) -> None:
        """Ends in one sentence if a run failed.

        Raises:
            PipelineError: It names the first, and why it failed.
        """
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            raise PipelineError(
                f"{len(self.failed)} of {len(self.failed) + len(self.done)} runs "
                f"failed, such as {name} ({reason}); mend that and run the same "
                "command again: the runs that are done are kept"
            )


def add_data(parser: argparse.ArgumentParser) -> None:
    """The arguments that `data_values` takes."""
    parser.add_argument(
        "data",
        type=Path,
        nargs="?",
        help="labelled data: a folder or a zip (default: what params.yaml names)",
    )
    parser.add_argument("--classes", nargs="+", default=[], help="default: all")


def data_values(data: Path | None, classes: list[str]) -> dict[str, Any]:
    """The params that read a folder or a zip instead of what params.yaml names.

    Args:
        data: Labelled data in a layout of `stages/datasets/layouts`; None leaves the
            source as it is.
        classes: Which to read; none reads all.

    Raises:
        PipelineError: If there is nothing, or it has no known layout.
    """
    values: dict[str, Any] = {"ingest.classes": classes} if classes else {}
    if data is None:
        return values
    layout = detect_layout(data, load_params().ingest)
    folder = str(data.resolve())  # runs happen in another folder
    return values | {
        "ingest.source": "folder",
        "ingest.folder": folder,
        "ingest.layout": layout,
        "ingest.classes": classes,
    }


def sweep(planned: Iterable[Planned], *, root: Path | None = None) -> Swept:
    """Makes the runs that are not there yet, one after the other; reads all.

    A run that fails is noted, and the rest goes on. Progress goes to standard output.

    Args:
        planned: The runs.
        root: The repository; None is the working directory, as its root.

    Raises:
        PipelineError: If there is no commit to start from, or params don't fit.
    """
    root = root or Path.cwd()
    repository = Repository()
    head = repository.resolve("HEAD")
    if processes.git(root, "status", "--porcelain", "--untracked-files=no"):
        print("what is not committed takes no part: runs start from the last commit")
    runs = list(planned)
    texts = {r.name: experiments.committed_params(root, r.values) for r in runs}
    done: dict[str, RunResults] = {}
    failed: dict[str, str] = {}
    with processes.ended_with_this():
        for index, run in enumerate(runs, start=1):
            kept = experiment_name(run.name, texts[run.name])
            commit = _commit_of(root, head, kept)
            verb = "is there" if commit else "begins"
            print(f"{index} of {len(runs)}: {run.name} {verb}", flush=True)
            begin = monotonic()
            try:
                if commit is None:
                    commit = _run(root, run, texts[run.name], kept)
                    print(f"  done in {monotonic() - begin:.0f} s", flush=True)
                done[run.name] = load(Revision(repository, kept, commit))
            except PipelineError as error:
                failed[run.name] = str(error)
                print(f"  failed: {error}", flush=True)
    return Swept(done, failed)


def experiment_name(name: str, params: str) -> str:
    """What a run is called in `dvc exp show`: other params are another experiment."""
    return f"{name}-{hashlib.sha256(params.encode()).hexdigest()[:8]}"


def _commit_of(root: Path, head: str, name: str) -> str | None:
    reference = str(ExpRefInfo(head, name))
    found = processes.git(root, "for-each-ref", "--format=%(objectname)", reference)
    return found or None


def _run(root: Path, run: Planned, params: str, name: str) -> str:
    """Runs the plan as far as `TARGET` and keeps what it gave; returns the commit."""
    heard: list[str] = []
    settings = ", ".join(f"{key}={value}" for key, value in run.values.items())
    try:
        with experiments.room(root, params) as room:
            words = processes.dvc("repro", TARGET)
            code = processes.run(words, cwd=room, heard=heard.append)
            if code:
                raise PipelineError(_reason(heard, code))
            for path in STALE:
                files.remove(room / path)
            return experiments.keep(
                root, room, name=name, message=f"{run.name}: {settings}"
            )
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or "").split())[:200]
        raise PipelineError(f"{' '.join(error.cmd[:2])} fails: {said}") from None


def _reason(heard: list[str], code: int) -> str:
    """A stage's own sentence, or else DVC's last word."""
    found = [m[1] for line in heard if (m := REASON.search(line))]
    return found[0] if found else f"dvc repro {TARGET} ended with {code}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the header first, as Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])

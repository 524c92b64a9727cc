"""Where an exported file comes from: `python -m stages.tools.provenance FILE`.

Prints what the file says of itself (data, inputs, params), compares its inputs with
those of the checkout it is run in, and looks through the history for the commits that
recorded this very file. Exit 0 if the file is the checkout's or some commit's; 1 if
there is a checkout that knows nothing of it.
"""

import argparse
import json
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import files, paths, provenance
from stages.core.errors import PipelineError, run

logger = logging.getLogger(__name__)

DVC_LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Commit:
    """A commit, and what it recorded of an exported file."""

    name: str  # short hash, date and subject
    has_file: bool  # data/export.json holds the file's own hash
    has_inputs: bool  # dvc.lock holds the hashes of all its inputs


def inputs_here(facts: provenance.Facts) -> dict[str, str]:
    """Each input against the checkout: `same`, `differs` or `missing`."""
    states = {}
    for name, hashes in sorted(facts.get("inputs", {}).items()):
        path = provenance.INPUTS.get(name)
        if path is None or not path.is_file():
            states[name] = "missing"
        else:
            same = files.sha256(path) == hashes.get("sha256")
            states[name] = "same" if same else "differs"
    return states


def is_recorded(summary: Any, sha256: str) -> bool:
    """Whether a `data/export.json` holds a file of that hash."""
    formats = summary.get("formats", {}) if isinstance(summary, dict) else {}
    return any(row.get("sha256") == sha256 for row in formats.values())


def commits(facts: provenance.Facts, sha256: str) -> Iterator[Commit]:
    """Commits of all branches that recorded the file or its inputs, newest first."""
    # Files of earlier versions carry fewer inputs.
    inputs = facts.get("inputs", {})
    wanted = {
        str(path): inputs[name].get("md5")
        for name, path in provenance.INPUTS.items()
        if name in inputs
    }
    listed = _git(
        "log", "--all", "--date=short", "--format=%H%x00%h %ad %s",
        "--", str(DVC_LOCK), str(paths.EXPORT_SUMMARY),
    )  # fmt: skip
    for line in listed.splitlines():
        commit, _, name = line.partition("\0")
        summary = _parsed(_show(commit, paths.EXPORT_SUMMARY))
        has_file = is_recorded(summary, sha256)
        has_inputs = _export_deps(_parsed(_show(commit, DVC_LOCK))) == wanted
        if has_file or has_inputs:
            yield Commit(name, has_file, has_inputs)


def _export_deps(lock: Any) -> dict[str, str | None]:
    """MD5 of the inputs of export, as a `dvc.lock` has them."""
    try:
        deps = lock["stages"]["export"]["deps"]
        found = {dep["path"]: dep["md5"] for dep in deps}
    except (KeyError, TypeError):
        return {}
    known = {str(path) for path in provenance.INPUTS.values()}
    return {path: md5 for path, md5 in found.items() if path in known}


def _show(commit: str, path: Path) -> str:
    try:
        return _git("show", f"{commit}:{path.as_posix()}")
    except subprocess.CalledProcessError:  # not in that commit
        return ""


def _parsed(text: str) -> Any:
    """YAML, and so JSON; None where it is neither."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-pager", *arguments], check=True, capture_output=True
    )
    return done.stdout.decode("utf-8", errors="replace")


def _in_checkout() -> bool:
    try:
        _git("rev-parse", "--verify", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return False
    return paths.PLAN.is_file()


def check(path: Path) -> None:
    """Prints a file's provenance and what the checkout knows of it.

    Args:
        path: `*.onnx`, `*.tflite` or a SavedModel's folder.

    Raises:
        PipelineError: If the file carries none, or this checkout does not know it.
    """
    facts = provenance.read(path)
    sha256 = files.sha256(path)
    # Escaped, since a foreign file may hold what moves a terminal's cursor.
    print(json.dumps(facts, indent=2, sort_keys=True))
    print(f"\n{path}\nSHA-256 {sha256}\n")
    if not _in_checkout():
        print("no checkout of the pipeline here to compare it with")
        return
    for name, state in inputs_here(facts).items():
        print(f"  {state:<8} {provenance.INPUTS.get(name, ascii(name))}")
    summary = paths.EXPORT_SUMMARY
    is_here = summary.is_file() and is_recorded(files.read_json(summary), sha256)
    print(f"\nthis checkout's {summary} {'has' if is_here else 'has not'} this file")
    found = list(commits(facts, sha256))
    for commit in found:
        what = "this file" if commit.has_file else "its inputs, but another file"
        print(f"  {commit.name}: {what}")
    if not is_here and not any(commit.has_file for commit in found):
        raise PipelineError(
            f"{path} is neither this checkout's nor any commit's: it was altered, "
            "built elsewhere, or its commit is not fetched (try `git fetch --all`)"
        )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.provenance", description=__doc__
    )
    parser.add_argument("file", type=Path, help=".onnx, .tflite or SavedModel folder")
    check(parser.parse_args().file)


if __name__ == "__main__":
    run(main)

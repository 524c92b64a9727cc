"""The origin of an exported model, and the commits that know the file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import dvc_files, files, git, paths, provenance
from stages.core.errors import PipelineError
from stages.review.revision import Revision

STATES = {
    True: "this file",
    False: "its inputs, but another file",
    None: "its inputs; the DVC cache lacks its list of files",
}


@dataclass(frozen=True)
class Commit:
    """A commit, and what it recorded of an exported file."""

    name: str  # short hash, date and subject
    has_file: bool | None  # its data/export.json lists the file; None if not cached
    has_inputs: bool  # dvc.lock holds the hashes of all its inputs


def check(path: Path) -> None:
    """Prints the provenance of an exported file and what the checkout knows of it.

    Raises:
        PipelineError: If the file carries none, or this checkout does not know it.
    """
    facts = provenance.read(path)
    sha256 = files.sha256(path)
    # ASCII: an untrusted file may hold characters that move a terminal's cursor.
    print(json.dumps(facts, indent=2, sort_keys=True))
    print(f"\n{path}\nSHA-256 {sha256}\n")
    if not _in_checkout():
        print("there is no checkout of the pipeline here to compare it with")
        return
    for name, state in inputs_here(facts).items():
        print(f"  {state:<8} {provenance.INPUTS.get(name, ascii(name))}")
    summary = paths.EXPORT_SUMMARY
    is_here = summary.is_file() and is_recorded(files.read_json(summary), sha256)
    print(f"\n{summary} of this checkout {'lists' if is_here else 'lacks'} this file")
    found = list(commits(facts, sha256))
    for commit in found:
        print(f"  {commit.name}: {STATES[commit.has_file]}")
    if not is_here and all(commit.has_file is False for commit in found):
        raise PipelineError(
            f"neither this checkout nor any commit knows {path}: it was altered, "
            "built elsewhere, or its commit is not fetched (try `git fetch --all`)"
        )


def inputs_here(facts: provenance.Facts) -> dict[str, str]:
    """Compares each input with the checkout's: `same`, `differs` or `missing`."""
    states = {}
    for name, hashes in sorted(facts["inputs"].items()):
        path = provenance.INPUTS.get(name)
        if path is None or not path.is_file():
            states[name] = "missing"
        else:
            same = files.sha256(path) == hashes.get("sha256")
            states[name] = "same" if same else "differs"
    return states


def is_recorded(summary: Any, sha256: str) -> bool:
    """Whether a `data/export.json` lists a file of that hash."""
    formats = summary.get("formats", {}) if isinstance(summary, dict) else {}
    return any(row.get("sha256") == sha256 for row in formats.values())


def commits(facts: provenance.Facts, sha256: str) -> Iterator[Commit]:
    """Commits of all branches that recorded the file or its inputs, newest first.

    Commits whose `dvc.lock` is corrupt are left out.
    """
    # Files of earlier versions carry fewer inputs.
    wanted = {
        str(provenance.INPUTS[name]): hashes.get("md5")
        for name, hashes in facts["inputs"].items()
        if name in provenance.INPUTS
    }
    log = ("log", "--all", "--date=short", "--format=%H%x00%h %ad %s", "--")
    for line in git.output(*log, str(paths.DVC_LOCK)).splitlines():
        commit, _, name = line.partition("\0")
        revision = Revision(commit, commit)
        try:
            deps = dvc_files.recorded(revision.lock.get("export", {}), "deps")
            listed = revision.json(paths.EXPORT_SUMMARY, is_cached=True)
        except PipelineError:
            continue
        has_file = None if listed is None else is_recorded(listed, sha256)
        has_inputs = {path: deps.get(path) for path in wanted} == wanted
        if has_file or has_inputs:
            yield Commit(name, has_file, has_inputs)


def _in_checkout() -> bool:
    try:
        return paths.PLAN.is_file() and not git.run("rev-parse", "HEAD").returncode
    except PipelineError:  # git is not installed
        return False

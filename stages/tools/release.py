"""Releases a model version: a section of the changelog, a commit, and GTO's tags.

`unet@v1.2.0` names the version and `unet#prod#1` assigns it to a stage.
"""

import datetime
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gto.api
from dvc.repo import Repo

from stages.core import files, git, paths
from stages.core.errors import PipelineError
from stages.scoring.scores import headline

MODEL = "unet"  # under `artifacts:` in dvc.yaml
CHANGELOG = Path("CHANGELOG.md")
_UNRELEASED = re.compile(r"^## Unreleased[ \t]*\n(.*?)(?=^## |\Z)", re.M | re.S)
_ENTRY = re.compile(r"^[-*] \S", re.M)


@dataclass(frozen=True)
class Released:
    """A release that is not pushed yet."""

    branch: str
    tags: list[str]

    def next_steps(self) -> str:
        """Tells the commands that publish it."""
        remote = git.run("config", f"branch.{self.branch}.remote").stdout.decode()
        tags = " ".join(f"'{tag}'" for tag in self.tags)
        with Repo() as repo:
            has_remote = bool(repo.config["core"].get("remote"))
        missing = "" if has_remote else "  # after `dvc remote add -d NAME URL`"
        return (
            f"tagged {' and '.join(self.tags)}; nothing is pushed yet:\n\n"
            f"  dvc push{missing}\n"
            f"  git push --atomic {remote.strip() or 'origin'} {self.branch} {tags}\n\n"
            f"Then anyone fetches it: dvc artifacts get REPOSITORY {MODEL} "
            f"--rev v{self.tags[0].partition('@v')[2]}"
        )


def release(
    version: str, *, stage: str | None = None, today: datetime.date
) -> Released:
    """Commits the changelog and tags the commit; an error undoes both.

    `stage`, such as prod, is assigned to the version.

    Raises:
        PipelineError: If anything is uncommitted or out of date, the gate has not
            passed, the changelog lists nothing new, or GTO refuses the version.
    """
    branch = _committed_branch()
    metrics = _judged_metrics()
    former = _read_changelog()
    _require_fresh()
    dataset = files.read_json(paths.INGESTED_SUMMARY)["dataset"]
    line = f"Model `{MODEL}@v{version}`, trained on {dataset}: {headline(metrics)}."
    head = git.output("rev-parse", "HEAD")
    tags: list[str] = []
    files.write_text(CHANGELOG, released(former, version, line, today))
    try:
        words = ("-m", f"release: {MODEL}@v{version}", "--", str(CHANGELOG))
        git.output("commit", "--quiet", *words)
        message = f"{MODEL} v{version}\n\n{line}"
        made = gto.api.register(".", MODEL, "HEAD", f"v{version}", message=message)
        tags.append(made.tag)
        if stage:
            made = gto.api.assign(".", MODEL, stage, f"v{version}", message=message)
            tags.append(made.tag)
    except Exception as error:  # GTO passes on exceptions of its Git library
        for tag in tags:
            git.run("tag", "--delete", tag)
        git.run("reset", "--quiet", head)
        files.write_text(CHANGELOG, former)
        raise PipelineError(f"nothing was released: {error}") from None
    return Released(branch, tags)


def _committed_branch() -> str:
    """The current branch; requires that everything is committed."""
    git.require_root()
    status = git.run("status", "--porcelain", "-z", "--untracked-files=all").stdout
    changed = [entry[3:] for entry in status.decode("utf-8", "replace").split("\0")]
    if changed := [name for name in changed if name]:
        raise PipelineError(
            f"the working tree should be committed but {changed[0]} is not "
            f"({len(changed)} in all); commit or remove what differs"
        )
    done = git.run("symbolic-ref", "--quiet", "--short", "HEAD")
    if done.returncode:
        raise PipelineError(
            "HEAD should be a branch, which the changelog's commit needs, but is "
            "detached; check one out with `git switch`"
        )
    return done.stdout.decode().strip()


def _judged_metrics() -> dict[str, Any]:
    """The metrics; requires a passed gate."""
    metrics, judged = files.read_json(paths.METRICS), files.read_json(paths.VERDICT)
    if judged.get("passed") is not True:
        failed = [c["metric"] for c in judged.get("checks", []) if not c["passed"]]
        raise PipelineError(
            f"the gate should have passed but has not ({', '.join(failed)} out of "
            "bounds); improve the model and run `dvc repro`"
        )
    return dict(metrics)


def _require_fresh() -> None:
    """Checks that outputs, code, params and data match `dvc.lock`."""
    with Repo() as repo:
        changed = repo.status()
    if changed:
        raise PipelineError(
            "the outputs should be those of this commit, but `dvc status` finds "
            f"{', '.join(changed)} changed; run `dvc repro` (or `dvc pull`) and commit"
        )


def _read_changelog() -> str:
    """The changelog.

    Raises:
        PipelineError: If it lists no change under *Unreleased*.
    """
    text = CHANGELOG.read_text(encoding="utf-8") if CHANGELOG.is_file() else ""
    section = _UNRELEASED.search(text)
    if section is None or not _ENTRY.search(section[1]):
        raise PipelineError(
            f"{CHANGELOG} should list changes under `## Unreleased` but lists none; "
            "write a line that a user understands, and commit it"
        )
    return text


def released(text: str, version: str, line: str, today: datetime.date) -> str:
    """Inserts the version with its metrics below a new, empty *Unreleased*."""
    section = _UNRELEASED.search(text)
    assert section is not None
    heading = f"## Unreleased\n\n## {version} - {today.isoformat()}"
    wrapped = textwrap.fill(line, width=88, break_on_hyphens=False)
    body = section[1].strip("\n")
    rest = text[section.end() :]
    gap = "\n" if rest else ""
    return f"{text[: section.start()]}{heading}\n\n{wrapped}\n\n{body}\n{gap}{rest}"

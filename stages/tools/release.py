"""Tags a model version: `python -m stages.tools.release 1.2.0 [--stage prod]`.

Refuses unless the working tree is committed, its outputs are those of `dvc.lock`, the
gate has passed and `CHANGELOG.md` has something to tell. Then moves what is under
*Unreleased* under the version, commits that, and tags it as GTO does: `unet@v1.2.0` for
the version, `unet#prod#1` for a stage. Nothing is pushed; it prints what to push.
"""

import argparse
import contextlib
import datetime
import logging
import re
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import semver
from dvc.repo import Repo
from gto.constants import COUNTER, NAME, VERSION
from gto.tag import parse_name

from stages.core import files, paths
from stages.core.errors import PipelineError, run
from stages.core.git import run as run_git
from stages.core.params import load_params
from stages.gate import gate
from stages.inference import segmenter
from stages.review.repository import Repository

logger = logging.getLogger(__name__)

MODEL = "unet"  # under `artifacts:` in dvc.yaml
STAGES = ("dev", "prod")
CHANGELOG = Path("CHANGELOG.md")
_UNRELEASED = re.compile(r"^## Unreleased[ \t]*\n(.*?)(?=^## |\Z)", re.M | re.S)
_ENTRY = re.compile(r"^[-*] \S", re.M)


@dataclass(frozen=True)
class Released:
    """What a release made."""

    branch: str
    tags: list[str]


def release(
    version: str, *, stage: str | None = None, today: datetime.date
) -> Released:
    """Commits the changelog and tags the commit, or does nothing.

    Args:
        version: Such as 1.2.0.
        stage: One of `STAGES` that this version is assigned to; None assigns none.
        today: The date for the changelog.

    Raises:
        PipelineError: If something speaks against a release.
    """
    Repository()
    branch = _committed_branch()
    tags = _new_tags(version, stage)
    metrics = _judged_metrics()
    former = _read_changelog()
    _require_fresh()
    line = _metrics_line(tags[0], metrics)
    files.write_text(CHANGELOG, released(former, version, line, today))
    made: list[str] = []
    committed = False
    try:
        _git("commit", "--quiet", "-m", f"release: {tags[0]}", "--", str(CHANGELOG))
        committed = True
        for tag in tags:
            _git("tag", "--annotate", "-m", f"{tag}\n\n{line}", tag)
            made.append(tag)
    except PipelineError:
        for tag in made:
            run_git("tag", "--delete", tag)
        if committed:
            run_git("reset", "--quiet", "HEAD~1")
        files.write_text(CHANGELOG, former)
        raise
    return Released(branch, tags)


def _committed_branch() -> str:
    """The branch that is checked out, with nothing left to commit."""
    status = _git("status", "--porcelain", "-z", "--untracked-files=all")
    changed = [entry[3:] for entry in status.split("\0") if entry]
    if changed:
        raise PipelineError(
            f"the working tree should be committed but {changed[0]} is not "
            f"({len(changed)} in all); commit or remove what differs"
        )
    done = run_git("symbolic-ref", "--quiet", "--short", "HEAD")
    if done.returncode:
        raise PipelineError(
            "HEAD should be a branch, to hold the changelog's commit, but is detached; "
            "check one out with `git switch`"
        )
    return done.stdout.decode().strip()


def _new_tags(version: str, stage: str | None) -> list[str]:
    """Names of the tags to make: GTO counts the assignments of an artifact."""
    try:
        wanted = semver.Version.parse(version)
    except ValueError:
        raise PipelineError(
            f"{version!r} should be a version like 1.2.0 (https://semver.org)"
        ) from None
    parsed = [parse_name(tag, raise_on_fail=False) for tag in _git("tag").splitlines()]
    own = [tag for tag in parsed if tag and tag[NAME] == MODEL]
    former = [semver.Version.parse(tag[VERSION][1:]) for tag in own if VERSION in tag]
    if former and wanted <= max(former):
        promote = f"`gto assign {MODEL} --version v{max(former)} --stage prod`"
        raise PipelineError(
            f"{version} should be greater than the last version, {max(former)}; choose "
            f"a greater one (to give that one a stage: {promote})"
        )
    tags = [f"{MODEL}@v{version}"]
    if stage:
        count = max((tag.get(COUNTER, 0) for tag in own), default=0)
        tags.append(f"{MODEL}#{stage}#{count + 1}")
    return tags


def _judged_metrics() -> dict[str, Any]:
    """The metrics, once it is sure that the gate and the export are theirs.

    Raises:
        PipelineError: If the gate has not passed, or judged something else.
    """
    metrics, judged = files.read_json(paths.METRICS), files.read_json(paths.VERDICT)
    if judged.get("passed") is not True:
        short = [c["metric"] for c in judged.get("checks", []) if not c["passed"]]
        raise PipelineError(
            f"the gate should have passed but has not ({', '.join(short)} fell short); "
            "mend the model and run `dvc repro`"
        )
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / paths.VERDICT.name
        with contextlib.suppress(PipelineError):
            gate(load_params().gate, verdict=again)
        is_same = files.read_json(again) == judged
    if not is_same:
        raise PipelineError(
            f"{paths.VERDICT} should judge {paths.METRICS} by the bounds in "
            f"{paths.PARAMS} but is of others; run `dvc repro`"
        )
    model = paths.EXPORT / "unet.onnx"
    inputs = segmenter.load(model).facts.get("inputs", {})
    for name, path in (("metrics", paths.METRICS), ("verdict", paths.VERDICT)):
        if inputs.get(name, {}).get("sha256") != files.sha256(path):
            raise PipelineError(
                f"{model} should be exported behind {path} but is behind another; "
                "run `dvc repro`"
            )
    assert isinstance(metrics, dict)
    return metrics


def _require_fresh() -> None:
    """Every output is that of dvc.lock, which is that of the code, params and data."""
    with Repo() as repo:
        known = {
            (name, artifact.path)
            for found in repo.artifacts.read().values()
            for name, artifact in found.items()
        }
        changed = repo.status()
    wanted = (paths.EXPORT / "unet.onnx").as_posix()
    if (MODEL, wanted) not in known:
        raise PipelineError(
            f"{paths.PLAN} should have an artifact {MODEL} with path {wanted} but has "
            "not; add it under `artifacts:`"
        )
    if changed:
        name = next(iter(changed))
        raise PipelineError(
            "the outputs should be those of this commit, but `dvc status` says of "
            f"{name}: {_reason(changed[name])}; run `dvc repro` (or `dvc pull`), then "
            "commit"
        )


def _reason(changes: list[Any]) -> str:
    """The first thing that `dvc status` says of a stage."""
    first = changes[0]
    if isinstance(first, dict):
        kind, found = next(iter(first.items()))
        path = next(iter(found), "") if isinstance(found, dict) else found
        return f"{kind}: {path}"
    return str(first)


def _read_changelog() -> str:
    """The changelog, if it has something to tell.

    Raises:
        PipelineError: If nothing is listed under *Unreleased*.
    """
    text = CHANGELOG.read_text(encoding="utf-8") if CHANGELOG.is_file() else ""
    section = _UNRELEASED.search(text)
    if section is None or not _ENTRY.search(section[1]):
        raise PipelineError(
            f"{CHANGELOG} should list under `## Unreleased` what is new but lists "
            "nothing; write a line a user would understand, and commit it"
        )
    return text


def released(text: str, version: str, line: str, today: datetime.date) -> str:
    """The changelog with a new, empty *Unreleased* over the version.

    Args:
        text: The changelog.
        version: Such as 1.2.0.
        line: What the model reaches.
        today: When.
    """
    section = _UNRELEASED.search(text)
    assert section is not None
    heading = f"## Unreleased\n\n## {version} - {today.isoformat()}"
    told = textwrap.fill(line, width=88, break_on_hyphens=False)
    body = section[1].strip("\n")
    rest = text[section.end() :]
    gap = "\n" if rest else ""
    return f"{text[: section.start()]}{heading}\n\n{told}\n\n{body}\n{gap}{rest}"


def _metrics_line(tag: str, metrics: dict[str, Any]) -> str:
    dice = metrics["dice"]
    data = files.read_json(paths.INGESTED_SUMMARY)
    return (
        f"Model `{tag}`: Dice {dice['mean']:.4f} (95 % interval {dice['ci_low']:.4f} "
        f"to {dice['ci_high']:.4f}) on {metrics['num_images']} held-out images of "
        f"{data['dataset']}; the gate is passed."
    )


def _git(*words: str) -> str:
    done = run_git(*words)
    if done.returncode:
        lines = (done.stderr or done.stdout).decode("utf-8", "replace").split("\n")
        reason = next((line for line in lines if line.strip()), "it says no more")
        raise PipelineError(
            f"`git {words[0]}` fails ({reason.strip()}), so nothing is released; mend "
            "that and run the same command again"
        )
    return done.stdout.decode("utf-8", "replace")


def _to_push(made: Released) -> str:
    """What is left to do by hand."""
    named = run_git("config", f"branch.{made.branch}.remote").stdout.decode().strip()
    tags = " ".join(f"'{tag}'" for tag in made.tags)
    with Repo() as repo:
        has_remote = bool(repo.config["core"].get("remote"))
    missing = "" if has_remote else "  # after `dvc remote add -d NAME URL`"
    return (
        f"tagged {' and '.join(made.tags)}; nothing is pushed yet:\n\n"
        f"  dvc push{missing}\n"
        f"  git push --atomic {named or 'origin'} {made.branch} {tags}\n\n"
        f"Then anyone fetches it: dvc artifacts get REPOSITORY {MODEL} "
        f"--rev v{made.tags[0].partition('@v')[2]}"
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("version", help="such as 1.2.0, greater than the last")
    parser.add_argument("--stage", choices=STAGES, help="assign it to a stage, too")
    given = parser.parse_args()
    today = datetime.datetime.now(datetime.UTC).date()
    made = release(given.version, stage=given.stage, today=today)
    print(_to_push(made))


if __name__ == "__main__":
    run(main)

"""One side of a comparison, read through Git and the DVC cache; nothing is run."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import paths
from stages.core.errors import PipelineError

DVC_LOCK = Path("dvc.lock")
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_MAX_BYTES = 8 * 1024 * 1024  # of a YAML file: a larger one is nobody's settings


class Repository:
    """The Git repository in the working directory, and its DVC cache."""

    def __init__(self) -> None:
        """Finds the repository.

        Raises:
            PipelineError: If the working directory is not the root of one.
        """
        done = _git("rev-parse", "--show-toplevel")
        if done.returncode:
            reason = _last_line(done.stderr) or "git says no more"
            raise PipelineError(
                f"{Path.cwd()} should be a Git repository but is not ({reason}); "
                "run from the root of a clone"
            )
        top = Path(os.fsdecode(done.stdout.rstrip(b"\n")))
        if top.resolve() != Path.cwd().resolve():
            raise PipelineError(
                f"{Path.cwd()} is inside the repository {top} but should be its root; "
                f"run the same command in {top}"
            )

    def resolve(self, revision: str) -> str:
        """The commit a revision names, as 40 hexadecimal digits.

        Raises:
            PipelineError: If there is no such commit here.
        """
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options")
        done = _git(*words, f"{revision}^{{commit}}")
        if done.returncode == 0:
            return done.stdout.decode().strip()
        if _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
            raise PipelineError(
                f"Git revision {revision!r} is not in this clone, which is shallow; "
                "fetch the whole history with `git fetch --unshallow` (on a forge: "
                "`fetch-depth: 0`)"
            )
        raise PipelineError(
            f"Git revision {revision!r} is unknown here; `git branch --all` and "
            "`git log --oneline` list those that are (a branch that only the remote "
            "has is called like origin/main)"
        )

    def only_in(self, here: str, there: str) -> int:
        """Number of commits that `here` has and `there` has not."""
        done = _git("rev-list", "--count", f"{there}..{here}")
        return int(done.stdout or 0)

    def changed_files(self, base: str, head: str | None) -> dict[str, tuple[int, int]]:
        """Files that differ, with lines added and removed; -1 where they are binary.

        Args:
            base: A commit.
            head: A commit; None for the working tree, untracked files included.
        """
        plain = ("--no-renames", "--no-ext-diff", "--no-textconv")
        sides = [base] if head is None else [base, head]
        done = _git("diff", "--numstat", "-z", *plain, *sides, "--")
        changed: dict[str, tuple[int, int]] = {}
        for line in done.stdout.decode("utf-8", "replace").split("\0"):
            if line:
                added, removed, name = line.split("\t", 2)
                is_binary = added == "-"
                changed[name] = (-1, -1) if is_binary else (int(added), int(removed))
        if head is None:
            for name in self._untracked():
                lines = (
                    Path(name).read_bytes().count(b"\n") if Path(name).is_file() else 0
                )
                changed[name] = (lines, 0)
        return dict(sorted(changed.items()))

    @staticmethod
    def _untracked() -> list[str]:
        done = _git("ls-files", "-z", "--others", "--exclude-standard")
        return [name for name in done.stdout.decode().split("\0") if name]

    @cached_property
    def cache(self) -> Path:
        """Where DVC keeps contents, wherever its configuration puts it.

        Raises:
            PipelineError: If this is no DVC repository.
        """
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "cache", "dir"],
            capture_output=True,
            text=True,
            env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        )
        if done.returncode:
            raise PipelineError(
                f"`dvc cache dir` should name DVC's cache but fails "
                f"({_last_line(done.stderr.encode())}); see .dvc/config"
            )
        return Path(done.stdout.strip()) / "files" / "md5"


@dataclass(frozen=True)
class Side:
    """A commit, or the working tree, as a place to read from."""

    repository: Repository
    name: str  # as the user calls it
    commit: str | None  # None for the working tree
    _read: dict[str, bytes | None] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """`main (0123456789)`, or `the working tree`."""
        if self.commit is None:
            return "the working tree"
        short = self.commit[:10]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"

    def read(self, path: Path | str) -> bytes | None:
        """A file's content as Git holds it, or as it lies in the working tree."""
        name = PurePosixPath(path).as_posix()
        if name not in self._read:
            self._read[name] = self._content(name)
        return self._read[name]

    def _content(self, name: str) -> bytes | None:
        if self.commit is None:
            return Path(name).read_bytes() if Path(name).is_file() else None
        done = _git("cat-file", "blob", f"{self.commit}:{name}")
        return None if done.returncode else done.stdout

    def files_under(self, folder: str) -> list[str]:
        """Names of the files in a folder that Git holds or would hold."""
        if self.commit is None:
            words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
            done = _git(*words, "--", folder)
        else:
            done = _git("ls-tree", "-r", "-z", "--name-only", self.commit, "--", folder)
        names = {name for name in done.stdout.decode().split("\0") if name}
        if self.commit is None:
            names = {name for name in names if Path(name).is_file()}
        return sorted(names)

    def yaml(self, path: Path) -> dict[str, Any] | None:
        """A YAML file of this side; None if there is none.

        Raises:
            PipelineError: If it is no YAML mapping.
        """
        content = self.read(path)
        if content is None:
            return None
        try:
            if len(content) > _MAX_BYTES:
                raise ValueError(f"it has {len(content)} bytes")
            values = YAML(typ="safe", pure=True).load(content.decode("utf-8"))
        except (YAMLError, ValueError, RecursionError) as error:
            raise self.corrupt(path, "YAML", error) from None
        if values is None:
            return {}
        if not isinstance(values, dict):
            raise self.corrupt(path, "a YAML mapping", type(values).__name__)
        return values

    def json(self, path: Path) -> dict[str, Any] | None:
        """A JSON object of this side; None if there is none.

        Raises:
            PipelineError: If it is no JSON object.
        """
        content = self.read(path)
        if content is None:
            return None
        try:
            values = json.loads(content)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise self.corrupt(path, "JSON", error) from None
        if not isinstance(values, dict):
            raise self.corrupt(path, "a JSON object", type(values).__name__)
        return values

    def corrupt(self, path: Path, wanted: str, found: object) -> PipelineError:
        """The sentence for a file that is not what a stage wrote."""
        reason = " ".join(str(found).split())[:160]
        return PipelineError(
            f"{path} of {self} should be {wanted} but is not ({reason}); "
            "restore it from Git, or run `dvc repro` there and commit what it wrote"
        )

    @cached_property
    def lock(self) -> dict[str, Any]:
        """Stages of dvc.lock by name; empty where there is none."""
        stages = (self.yaml(DVC_LOCK) or {}).get("stages")
        if stages is None:
            return {}
        if not isinstance(stages, dict) or not all(
            isinstance(entry, dict) for entry in stages.values()
        ):
            raise self.corrupt(DVC_LOCK, "a lock of stages", "no mapping")
        return stages

    @cached_property
    def outs(self) -> dict[str, str]:
        """MD5 of every output that dvc.lock records, by path; `.dir` marks folders."""
        return {
            str(out.get("path")): str(out.get("md5"))
            for entry in self.lock.values()
            for out in entry.get("outs") or []
            if isinstance(out, dict) and _MD5.fullmatch(str(out.get("md5")))
        }

    def file(self, path: Path) -> Path | None:
        """Where an output that is a file can be read; None if it is in no cache."""
        if self.commit is None and path.is_file():
            return path
        return self._cached(self.outs.get(path.as_posix()))

    def folder(self, path: Path) -> dict[str, Path] | None:
        """Where an output folder's files can be read, by name inside it.

        None if the folder, or one of its files, is in no cache.
        """
        if self.commit is None and path.is_dir():
            return {
                child.relative_to(path).as_posix(): child
                for child in sorted(path.rglob("*"))
                if child.is_file()
            }
        listing = self._cached(self.outs.get(path.as_posix()))
        if listing is None:
            return None
        try:
            entries = json.loads(listing.read_bytes())
            found = {entry["relpath"]: self._cached(entry["md5"]) for entry in entries}
        except (OSError, ValueError, TypeError, KeyError):
            return None
        whole = {name: place for name, place in found.items() if place is not None}
        return whole if len(whole) == len(found) else None

    def _cached(self, md5: str | None) -> Path | None:
        if md5 is None or not _MD5.fullmatch(md5):
            return None
        place = self.repository.cache / md5[:2] / md5[2:]
        return place if place.is_file() else None


def pull(sides: list[Side], outputs: list[Path]) -> None:
    """Fetches outputs of commits from the DVC remote into the cache.

    Raises:
        PipelineError: If there is no remote, or it does not answer.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    for side in sides:
        targets = [path.as_posix() for path in outputs if path.as_posix() in side.outs]
        if not targets:
            continue
        try:
            with Repo(os.curdir) as repo:
                repo.fetch(
                    targets,
                    revs=None if side.commit is None else [side.commit],
                    workspace=side.commit is None,
                )
        except DvcException as error:
            reason = " ".join(str(error).split())[:200]
            raise PipelineError(
                f"the outputs of {side} should come from the DVC remote but do not "
                f"({reason}); see `dvc remote list`, or leave out --pull"
            ) from None


def sides_of(base: str, head: str | None) -> tuple[Side, Side]:
    """Base and head, each as a place to read from.

    Args:
        base: A Git revision.
        head: A Git revision; None is the working tree.

    Raises:
        PipelineError: If there is no repository or no such revision, or if it is
            from before the pipeline existed.
    """
    repository = Repository()
    sides = [Side(repository, base, repository.resolve(base))]
    if head is None:
        sides.append(Side(repository, "the working tree", None))
    else:
        sides.append(Side(repository, head, repository.resolve(head)))
    for side in sides:
        if side.read(paths.PLAN) is None:
            raise PipelineError(
                f"{side} holds no {paths.PLAN}, so it is from before the pipeline "
                "existed; choose a later revision"
            )
    return sides[0], sides[1]


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Runs git; literal paths, English messages, and never a question asked."""
    env = os.environ | {
        "LC_ALL": "C",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    try:
        return subprocess.run(["git", *words], capture_output=True, env=env)
    except FileNotFoundError:
        raise PipelineError(
            "git is needed to compare revisions and was not found; install it"
        ) from None


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""

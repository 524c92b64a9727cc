"""A Git revision or the working tree, read through Git and the DVC cache."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import dvc_files, git, paths
from stages.core.errors import PipelineError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree, as a place to read from."""

    name: str  # as the user calls it
    commit: str | None  # None for the working tree
    results: Path | None = None  # of a rebuilt commit: `data/` and `dvc.lock` lie here
    _read: dict[str, bytes | None] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """`main (0123456789)`, or `the working tree`."""
        if self.commit is None:
            return "the working tree"
        short = self.commit[:10]
        name = short if self.commit.startswith(self.name) else f"{self.name} ({short})"
        return f"{name}, built here" if self.results else name

    def read(self, path: Path | str) -> bytes | None:
        """A file's content as Git holds it, or as it lies in the working tree."""
        name = PurePosixPath(path).as_posix()
        return self.read_all([name])[name]

    def read_all(self, names: list[str]) -> dict[str, bytes | None]:
        """Contents by name, as `read`; many at the price of one."""
        in_commit = []
        for name in names:
            if name in self._read:
                continue
            if (folder := self._folder(name)) is None:
                in_commit.append(name)
            else:
                path = folder / name
                self._read[name] = path.read_bytes() if path.is_file() else None
        if in_commit and self.commit is not None:
            self._read.update(git.files_at(self.commit, in_commit))
        return {name: self._read[name] for name in names}

    def _folder(self, name: str) -> Path | None:
        """The folder that a file is read from; None for the commit."""
        if self.commit is None:
            return Path()
        is_result = name == paths.DVC_LOCK.name or name.startswith(f"{paths.DATA}/")
        return self.results if is_result else None

    def files_under(self, folder: str) -> list[str]:
        """Names of the files in a folder that Git holds or would hold."""
        if self.commit is not None:
            words = ("ls-tree", "-r", "-z", "--name-only", self.commit)
            return _names(*words, "--", folder)
        return _names(*_LISTED, "--cached", "--", folder)

    def yaml(self, path: Path) -> dict[str, Any]:
        """A YAML file of this revision; empty if there is none.

        Raises:
            PipelineError: If it is no YAML mapping.
        """
        content = self.read(path)
        if content is None:
            return {}
        try:
            values = _parsed(content)
        except (YAMLError, ValueError) as error:
            raise self.corrupt(path, "YAML", error) from None
        if not isinstance(values, dict | None):
            raise self.corrupt(path, "a YAML mapping", type(values).__name__)
        return values or {}

    def json(self, path: Path, *, is_cached: bool = False) -> dict[str, Any] | None:
        """A JSON object that a stage wrote; None if there is none here.

        Args:
            path: The file.
            is_cached: Whether DVC's cache holds it, not Git.

        Raises:
            PipelineError: If it is no JSON object.
        """
        if is_cached:
            place = self.file(path)
            content = None if place is None else place.read_bytes()
        else:
            content = self.read(path)
        if content is None:
            return None
        try:
            values = json.loads(content)
        except ValueError as error:
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
        return self.yaml(paths.DVC_LOCK).get("stages") or {}

    @cached_property
    def outs(self) -> dict[str, str]:
        """MD5 of every output that dvc.lock records, by path; `.dir` marks folders."""
        return dvc_files.recorded_outs(self.lock)

    def file(self, path: Path) -> Path | None:
        """Where an output that is a file can be read; None if it is not cached.

        From the cache even for the working tree, which may still hold the outputs of
        the commit it was on before.
        """
        return self._cached(self.outs.get(path.as_posix()))

    def folder(self, path: Path) -> dict[str, Path] | None:
        """Where an output folder's files can be read, by name inside it.

        None if the folder, or one of its files, is not cached.
        """
        listing = self._cached(self.outs.get(path.as_posix()))
        names = None if listing is None else dvc_files.listing(listing)
        if names is None:
            return None
        found = {name: self._cached(md5) for name, md5 in names.items()}
        cached = {name: place for name, place in found.items() if place is not None}
        return cached if len(cached) == len(found) else None

    def _cached(self, md5: str | None) -> Path | None:
        if not dvc_files.is_md5(md5):
            return None
        place = dvc_files.stored(self._cache, md5)
        return place if place.is_file() else None

    @cached_property
    def _cache(self) -> Path:
        return dvc_files.cache()


def pull(revisions: Sequence[Revision], outputs: Iterable[Path]) -> None:
    """Fetches outputs from the DVC remote of the working tree into the cache.

    What the remote lacks is left out, with a warning.

    Raises:
        PipelineError: If no remote is configured.
    """
    from dvc.exceptions import DownloadError
    from dvc.repo import Repo

    with Repo(os.curdir) as repo:
        if not repo.config["core"].get("remote"):
            raise PipelineError(
                "a default DVC remote should be configured for --pull but is not; see "
                "`dvc remote list`, or leave out --pull"
            )
        try:
            repo.fetch(
                [path.as_posix() for path in outputs],
                revs=[r.commit for r in revisions if r.commit],
                workspace=any(r.commit is None for r in revisions),
                # A commit from before the remote was configured is there all the same.
                config={key: repo.config[key] for key in ("core", "remote")},
            )
        except DownloadError as error:
            logger.warning("the DVC remote lacks outputs: %s", error)


def revisions(base: str, head: str | None) -> tuple[Revision, Revision]:
    """Base and head, each a Git revision; a head of None is the working tree.

    Raises:
        PipelineError: If there is no repository or no such revision.
    """
    before = Revision(base, resolve(base))
    if head is None:
        return before, Revision("the working tree", None)
    return before, Revision(head, resolve(head))


def resolve(revision: str) -> str:
    """The commit that a revision of the repository here names, as 40 digits.

    Raises:
        PipelineError: If the working directory is not the root of a repository, or
            there is no such commit in it.
    """
    git.require_root()
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options")
    done = git.run(*words, f"{revision}^{{commit}}")
    if done.returncode == 0:
        return done.stdout.decode().strip()
    if git.output("rev-parse", "--is-shallow-repository") == "true":
        raise PipelineError(
            f"Git revision {revision!r} is not in this clone, which is shallow; "
            "fetch the whole history with `git fetch --unshallow` (on a forge: "
            "`fetch-depth: 0`)"
        )
    raise PipelineError(
        f"Git revision {revision!r} is unknown here; `git branch --all` and "
        "`git log --oneline` list the known ones (a branch that only the remote "
        "has is called like origin/main)"
    )


def num_commits_only_in(here: Revision, there: Revision) -> int:
    """Number of commits that `here` has and `there` lacks."""
    commits = f"{there.commit or 'HEAD'}..{here.commit or 'HEAD'}"
    return int(git.output("rev-list", "--count", commits))


def changed_files(base: Revision, head: Revision) -> list[str]:
    """Names of the files that differ; of the working tree, untracked ones too."""
    commits = [revision.commit for revision in (base, head) if revision.commit]
    names = _names("diff", "--name-only", "-z", "--no-renames", *commits, "--")
    return names if head.commit else sorted({*names, *_names(*_LISTED)})


_LISTED = ("ls-files", "-z", "--others", "--exclude-standard")


def _names(*words: str) -> list[str]:
    """The names that a git command prints, sorted."""
    return sorted(filter(None, git.run(*words).stdout.decode().split("\0")))


@lru_cache(maxsize=32)
def _parsed(content: bytes) -> Any:
    """YAML as DVC reads it; both sides often hold the same file."""
    return YAML(typ="safe", pure=True).load(content.decode("utf-8"))

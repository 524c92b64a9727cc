"""A Git revision or the working tree, read through Git and the DVC cache."""

import json
import os
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import dvc_files, git, paths
from stages.core.errors import PipelineError
from stages.review.repository import Repository


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree, as a place to read from.

    What stages wrote (`data/` and `dvc.lock`) may lie in a folder instead of in the
    commit, where the commit was built again.
    """

    repository: Repository
    name: str  # as the user calls it
    commit: str | None  # None for the working tree
    results: Path | None = None  # holds what stages wrote; None reads the commit
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
        new = [name for name in names if name not in self._read]
        in_commit = [name for name in new if self._folder(name) is None]
        if in_commit and self.commit is not None:
            self._read.update(git.files_at(self.commit, in_commit))
        for name in new:
            folder = self._folder(name)
            if folder is not None:
                path = folder / name
                self._read[name] = path.read_bytes() if path.is_file() else None
        return {name: self._read[name] for name in names}

    def _folder(self, name: str) -> Path | None:
        """The folder that a file is read from; None for the commit."""
        if self.commit is None:
            return Path()
        is_result = name == paths.DVC_LOCK.name or name.startswith(f"{paths.DATA}/")
        return self.results if is_result else None

    def files_under(self, folder: str) -> list[str]:
        """Names of the files in a folder that Git holds or would hold."""
        if self.commit is None:
            words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
            done = git.run(*words, "--", folder)
        else:
            words = ("ls-tree", "-r", "-z", "--name-only", self.commit)
            done = git.run(*words, "--", folder)
        names = {name for name in done.stdout.decode().split("\0") if name}
        if self.commit is None:
            names = {name for name in names if Path(name).is_file()}
        return sorted(names)

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

    def json(self, path: Path) -> dict[str, Any] | None:
        """A JSON object that a stage wrote; None if it is neither in Git nor cached.

        Raises:
            PipelineError: If it is no JSON object.
        """
        content = self.read(path)
        if content is None and (place := self.file(path)) is not None:
            content = place.read_bytes()
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
        stages = self.yaml(paths.DVC_LOCK).get("stages") or {}
        if not isinstance(stages, dict) or not all(
            isinstance(entry, dict) for entry in stages.values()
        ):
            raise self.corrupt(paths.DVC_LOCK, "a lock of stages", "no mapping")
        return stages

    @cached_property
    def outs(self) -> dict[str, str]:
        """MD5 of every output that dvc.lock records, by path; `.dir` marks folders."""
        return dvc_files.recorded_outs(self.lock)

    def file(self, path: Path) -> Path | None:
        """Where an output that is a file can be read; None if it is not cached.

        What the lock names comes first: a working tree may still hold the outputs of
        the commit it was on before.
        """
        found = self._cached(self.outs.get(path.as_posix()))
        folder = self._folder(path.as_posix())
        if found is None and folder is not None and (folder / path).is_file():
            return folder / path
        return found

    def folder(self, path: Path) -> dict[str, Path] | None:
        """Where an output folder's files can be read, by name inside it.

        None if the folder, or one of its files, is not cached.
        """
        listing = self._listing(path)
        if listing is None:
            if self.commit is not None or not path.is_dir():
                return None
            children = [p for p in sorted(path.rglob("*")) if p.is_file()]
            return {child.relative_to(path).as_posix(): child for child in children}
        found = {name: self._cached(md5) for name, md5 in listing.items()}
        whole = {name: place for name, place in found.items() if place is not None}
        return whole if len(whole) == len(found) else None

    def listed(self, path: Path) -> list[str]:
        """MD5s of an output folder's files, if its listing is cached."""
        hashes = (self._listing(path) or {}).values()
        return [md5 for md5 in hashes if dvc_files.is_md5(md5)]

    def _listing(self, path: Path) -> dict[str, str] | None:
        md5 = self.outs.get(path.as_posix(), "")
        place = self._cached(md5) if md5.endswith(".dir") else None
        return None if place is None else dvc_files.listing(place)

    def _cached(self, md5: str | None) -> Path | None:
        if not dvc_files.is_md5(md5):
            return None
        place = dvc_files.stored(self.repository.cache, md5)
        return place if place.is_file() else None


def pull(revisions: list[Revision], outputs: list[Path]) -> None:
    """Fetches outputs from the DVC remote of the working tree into the cache.

    By their hashes, not by `dvc fetch`: a commit from before the remote was configured
    has them there all the same.

    Raises:
        PipelineError: If there is no remote, or it does not answer.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    def fetch(hashes: set[str]) -> None:
        objects = [HashInfo("md5", md5) for md5 in sorted(hashes)]
        with Repo(os.curdir) as repo:
            repo.cloud.pull(objects)

    wanted = {
        revision.outs[path.as_posix()]
        for revision in revisions
        for path in outputs
        if path.as_posix() in revision.outs
    }
    try:
        fetch(wanted)
        # A folder comes as its listing; its files are fetched then.
        fetch({md5 for r in revisions for path in outputs for md5 in r.listed(path)})
    except (DvcException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            "the outputs of both sides should come from the DVC remote but do not "
            f"({reason}); see `dvc remote list`, or leave out --pull"
        ) from None


def revisions(base: str, head: str | None) -> tuple[Revision, Revision]:
    """Base and head, each as a place to read from.

    Args:
        base: A Git revision.
        head: A Git revision; None is the working tree.

    Raises:
        PipelineError: If there is no repository or no such revision, or if it is
            from before the pipeline existed.
    """
    repository = Repository()
    before = Revision(repository, base, repository.resolve(base))
    if head is None:
        after = Revision(repository, "the working tree", None)
    else:
        after = Revision(repository, head, repository.resolve(head))
    for revision in (before, after):
        if revision.read(paths.PLAN) is None:
            raise PipelineError(
                f"{revision} holds no {paths.PLAN}, so it is from before the pipeline "
                "existed; choose a later revision"
            )
    return before, after


@lru_cache(maxsize=32)
def _parsed(content: bytes) -> Any:
    """YAML as DVC reads it; both sides often hold the same file."""
    return YAML(typ="safe", pure=True).load(content.decode("utf-8"))

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

_MAX_BYTES = 8 * 1024 * 1024  # of a YAML file: a larger one is nobody's settings


@dataclass(frozen=True)
class Revision:
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
        return self.read_all([name])[name]

    def read_all(self, names: list[str]) -> dict[str, bytes | None]:
        """Contents by name, as `read`; many at the price of one."""
        new = [name for name in names if name not in self._read]
        if new and self.commit is not None:
            self._read.update(git.files_at(self.commit, new))
        for name in new if self.commit is None else ():
            is_file = Path(name).is_file()
            self._read[name] = Path(name).read_bytes() if is_file else None
        return {name: self._read[name] for name in names}

    def files_under(self, folder: str) -> list[str]:
        """Names of the files in a folder that Git holds or would hold."""
        if self.commit is None:
            words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
            done = git.run(*words, "--", folder)
        else:
            done = git.run(
                "ls-tree", "-r", "-z", "--name-only", self.commit, "--", folder
            )
        names = {name for name in done.stdout.decode().split("\0") if name}
        if self.commit is None:
            names = {name for name in names if Path(name).is_file()}
        return sorted(names)

    def yaml(self, path: Path) -> dict[str, Any] | None:
        """A YAML file of this revision; None if there is none.

        Raises:
            PipelineError: If it is no YAML mapping.
        """
        content = self.read(path)
        if content is None:
            return None
        try:
            if len(content) > _MAX_BYTES:
                raise ValueError(f"it has {len(content)} bytes")
            values = _parsed(content)
        except (YAMLError, ValueError, RecursionError) as error:
            raise self.corrupt(path, "YAML", error) from None
        if values is None:
            return {}
        if not isinstance(values, dict):
            raise self.corrupt(path, "a YAML mapping", type(values).__name__)
        return values

    def json(self, path: Path) -> dict[str, Any] | None:
        """A JSON object of this revision; None if there is none.

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
        stages = (self.yaml(paths.DVC_LOCK) or {}).get("stages")
        if stages is None:
            return {}
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
        """Where an output that is a file can be read; None if it is in no cache.

        What the lock names comes first: a working tree may still hold the outputs of
        the commit it was on before.
        """
        found = self._cached(self.outs.get(path.as_posix()))
        if found is None and self.commit is None and path.is_file():
            return path
        return found

    def folder(self, path: Path) -> dict[str, Path] | None:
        """Where an output folder's files can be read, by name inside it.

        None if the folder, or one of its files, is in no cache.
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
        """MD5s of an output folder's files, if its listing is in the cache."""
        hashes = (self._listing(path) or {}).values()
        return [md5 for md5 in hashes if dvc_files.is_md5(md5)]

    def _listing(self, path: Path) -> dict[str, str] | None:
        """An output folder's names and MD5s; None if that is in no cache."""
        md5 = self.outs.get(path.as_posix(), "")
        place = self._cached(md5) if md5.endswith(".dir") else None
        return None if place is None else dvc_files.listing(place)

    def _cached(self, md5: str | None) -> Path | None:
        if not dvc_files.is_md5(md5):
            return None
        place = dvc_files.stored(self.repository.cache, md5)
        return place if place.is_file() else None


def pull(sides: list[Revision], outputs: list[Path]) -> None:
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
        side.outs[path.as_posix()]
        for side in sides
        for path in outputs
        if path.as_posix() in side.outs
    }
    try:
        fetch(wanted)
        # A folder comes as its listing; what it lists is fetched then.
        fetch({md5 for side in sides for path in outputs for md5 in side.listed(path)})
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
    sides = [Revision(repository, base, repository.resolve(base))]
    if head is None:
        sides.append(Revision(repository, "the working tree", None))
    else:
        sides.append(Revision(repository, head, repository.resolve(head)))
    for side in sides:
        if side.read(paths.PLAN) is None:
            raise PipelineError(
                f"{side} holds no {paths.PLAN}, so it is from before the pipeline "
                "existed; choose a later revision"
            )
    return sides[0], sides[1]


@lru_cache(maxsize=32)
def _parsed(content: bytes) -> Any:
    """YAML as DVC reads it; both sides often hold the same file."""
    return YAML(typ="safe", pure=True).load(content.decode("utf-8"))

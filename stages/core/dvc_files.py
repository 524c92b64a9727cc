"""DVC's hashes: how it counts a file or a folder, records it, and stores it.

DVC names contents by their MD5, a folder by the MD5 of its listing and the suffix
`.dir` (as in dvc_data.hashfile.tree). DVC is imported only to find its cache, since
that takes a second.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from stages.core.errors import PipelineError

Lock = Mapping[str, Any]  # the `stages` of a dvc.lock, by name
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


def is_md5(value: object) -> TypeGuard[str]:
    """Whether a value is an MD5 as DVC writes it, of a file or of a folder."""
    return isinstance(value, str) and _MD5.fullmatch(value) is not None


def md5(path: Path) -> str:
    """MD5 of a file or a folder."""
    if path.is_dir():
        children = (p for p in path.rglob("*") if p.is_file())
        return md5_of_folder({p.relative_to(path).as_posix(): md5(p) for p in children})
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def md5_of_folder(files: Mapping[str, str]) -> str:
    """MD5 of a folder.

    Args:
        files: MD5 of each file, by its name relative to the folder.
    """
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    text = json.dumps(listing, sort_keys=True)
    return f"{hashlib.md5(text.encode()).hexdigest()}.dir"


def recorded(entry: Mapping[str, Any], kind: str) -> dict[str, str]:
    """MD5s that one stage's entry in dvc.lock records, by path.

    Args:
        entry: The stage's entry.
        kind: `deps` or `outs`.
    """
    return {
        str(item["path"]): item["md5"]
        for item in entry.get(kind) or []
        if isinstance(item, dict) and "path" in item and is_md5(item.get("md5"))
    }


def recorded_outs(lock: Lock) -> dict[str, str]:
    """MD5s of all outputs that dvc.lock records, by path."""
    return {
        path: found
        for entry in lock.values()
        for path, found in recorded(entry, "outs").items()
    }


def stored(cache: Path, name: str) -> Path:
    """Where a cache keeps the content with this MD5.

    Args:
        cache: The folder `files/md5` of a DVC cache.
        name: An MD5.
    """
    return cache / name[:2] / name[2:]


def name_of(path: Path) -> str:
    """The MD5 under which a cache keeps this object."""
    return path.parent.name + path.name


def cache() -> Path:
    """The folder `files/md5` of the DVC cache of the working directory.

    Raises:
        PipelineError: If this is no DVC repository, or its configuration is broken.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return Path(repo.cache.local.path)
    except DvcException as error:
        raise PipelineError(
            f"DVC cannot name its cache ({error}); see .dvc/config"
        ) from None


def listing(path: Path) -> dict[str, str] | None:
    """MD5 of each file of a cached folder, by name; None if the listing is corrupt.

    Args:
        path: The stored listing, an object whose name ends in `.dir`.
    """
    try:
        entries = json.loads(path.read_bytes())
        return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return None

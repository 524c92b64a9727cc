"""DVC's hashes, in `dvc.lock` and in its cache.

DVC names contents by their MD5, a folder by the MD5 of its listing and the suffix
`.dir` (as in dvc_data.hashfile.tree). Only `cache` imports DVC, which takes a second.
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
    """Whether a value is an MD5 of a file or a folder, as DVC writes it."""
    return isinstance(value, str) and _MD5.fullmatch(value) is not None


def md5(path: Path) -> str:
    """MD5 of a file or a folder."""
    if path.is_dir():
        children = (p for p in path.rglob("*") if p.is_file())
        return md5_of_folder({p.relative_to(path).as_posix(): md5(p) for p in children})
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def md5_of_folder(files: Mapping[str, str]) -> str:
    """MD5 of a folder, from the MD5 of each file by its name in the folder."""
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    text = json.dumps(listing, sort_keys=True)
    return f"{hashlib.md5(text.encode()).hexdigest()}.dir"


def recorded(entry: Mapping[str, Any], kind: str) -> dict[str, str]:
    """MD5s in one stage's entry of dvc.lock, by path; `kind` is `deps` or `outs`."""
    return {
        str(item["path"]): item["md5"]
        for item in entry.get(kind) or []
        if isinstance(item, dict) and "path" in item and is_md5(item.get("md5"))
    }


def recorded_outs(lock: Lock) -> dict[str, str]:
    """MD5s of all outputs in dvc.lock, by path."""
    return {
        path: found
        for entry in lock.values()
        for path, found in recorded(entry, "outs").items()
    }


def stored(cache: Path, name: str) -> Path:
    """The path of the content with an MD5 in a cache's folder `files/md5`."""
    return cache / name[:2] / name[2:]


def name_of(path: Path) -> str:
    """The MD5 of a cache object, by its path."""
    return path.parent.name + path.name


def cache() -> Path:
    """The folder `files/md5` of the DVC cache of the working directory.

    Raises:
        PipelineError: If this is not a DVC repository, or its configuration is broken.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return Path(repo.cache.local.path)
    except DvcException as error:
        raise PipelineError(
            f"DVC cannot find its cache ({error}); see .dvc/config"
        ) from None


def listing(path: Path) -> dict[str, str] | None:
    """MD5 of each file of a cached folder, by name; None if the listing is corrupt."""
    try:
        entries = json.loads(path.read_bytes())
        return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return None

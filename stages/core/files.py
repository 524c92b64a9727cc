"""Writes outputs atomically; JSON and CSV are canonical."""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import paths
from stages.core.errors import PipelineError

if TYPE_CHECKING:  # its import would be half of what predict takes to start
    import pandas as pd

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a new path to write a file or folder to; moves it to `target` at the end.

    An exception or a kill leaves `target` as it was. Leftovers of a killed run are
    removed first. If another process writes the same target, this one waits for it.
    The path is in `data/.work` for targets below `data/`, else it is a hidden file or
    folder beside the target.
    """
    if target.absolute().is_relative_to(paths.DATA.absolute()):
        flat = target.as_posix().replace("/", "__").lstrip(".")
        partial = paths.WORK / "partial" / flat
    else:
        partial = target.with_name(f".{target.name}.partial")
    former = partial.with_name(f"{partial.name}.former")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with _alone(partial.with_name(f"{partial.name}.lock"), target):
        remove(partial)
        remove(former)
        try:
            yield partial
            target.parent.mkdir(parents=True, exist_ok=True)
            if partial.is_dir() and target.exists():
                # A folder cannot be renamed over a full one, and removing that one
                # takes time in which a kill would leave half of it.
                target.replace(former)
            partial.replace(target)
        finally:
            remove(partial)
            remove(former)


@contextlib.contextmanager
def _alone(lock: Path, target: Path) -> Iterator[None]:
    """Waits until no other process writes the target; a kill releases the lock."""
    while True:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another process writes %s; waiting for its end", target)
                fcntl.flock(file, fcntl.LOCK_EX)
            # The former holder may have removed the file.
            if not _is_at(lock, file.fileno()):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def is_hidden(name: str) -> bool:
    """Whether a part of a POSIX path belongs to the system, not to the user's data.

    Such parts start with a dot (`.Trash-1000`, `._scan.png`), with `$`
    (`$RECYCLE.BIN`), `@` or `#` (`@eaDir` and `#recycle` of NAS boxes), `~`
    (`~$notes.png`) or with two underscores (`__MACOSX`).
    """
    return any(
        part.startswith((".", "$", "@", "#", "~", "__")) and part not in (".", "..")
        for part in name.split("/")
    )


def remove(path: Path) -> None:
    """Removes a file or a whole folder; does nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text whole, with Unix line ends."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    """Writes JSON, floats with 6 digits; NaN and infinities become `null`."""
    plain = _plain(value)
    text = json.dumps(plain, indent=2, sort_keys=sort_keys, ensure_ascii=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON that a stage wrote.

    Raises:
        PipelineError: If the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing; run `dvc repro` (or `dvc pull`) to make it"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PipelineError(
            f"{path} should be JSON but is not ({error}); remove it and run `dvc repro`"
        ) from None


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Writes a CSV whole; floats with 6 digits, so that equal means equal."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, float_format="%.6f", lineterminator="\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and contents, as hex."""
    if path.is_dir():
        digest = hashlib.sha256()
        for child in sorted(p for p in path.rglob("*") if p.is_file()):
            name = child.relative_to(path).as_posix()
            digest.update(f"{name}\0{sha256(child)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """JSON's own types; floats rounded to 6 digits, NaN and infinities to None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value

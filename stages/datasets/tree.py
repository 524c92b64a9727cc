"""Files by name, from a directory or from a zip that is never unpacked.

Both refuse unsafe input in one sentence: names and links that point outside, encrypted
or damaged zips, zips beyond the limits. A single bad file raises `UnreadableError` and
affects no other.
"""

import errno
import os
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.files import is_hidden
from stages.core.params import IngestParams

# Both decompress in small steps, so that a bomb takes no memory; bzip2 and LZMA do not.
READ_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
ENCRYPTED = 0x1
MISSING = "is named by a table but does not exist"
LONGEST_NAME = 1024  # a zip allows 65,535
# The errors of `zipfile` on a damaged archive, depending on which bytes are bad.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class UnreadableError(Exception):
    """One file cannot be read; the text goes into the quality report."""


class Tree(Protocol):
    """Files by name: a directory or a zip, read in place."""

    @property
    def label(self) -> str:
        """The name of the tree in messages."""

    @property
    def names(self) -> Sequence[str]:
        """POSIX names of all visible files, relative to the top, without duplicates."""

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            UnreadableError: If this file, and only this file, cannot be read.
        """


def open_tree(path: Path, params: IngestParams) -> "Directory | Archive":
    """Opens `ingest.folder`: a directory or a zip.

    Args:
        path: The directory or zip.
        params: The limits on files and zips.

    Raises:
        PipelineError: If it does not exist or is neither a directory nor a usable zip.
    """
    found = "is neither"
    try:
        path.stat()
    except FileNotFoundError:
        found = "does not exist"
    except OSError as error:
        found = f"cannot be opened ({error.strerror})"
    else:
        if path.is_dir():
            return Directory(path, max_file_bytes=params.max_file_bytes)
        if path.is_file():
            return Archive(
                path,
                max_file_bytes=params.max_file_bytes,
                max_members=params.max_zip_members,
                max_bytes=params.max_zip_bytes,
            )
    raise PipelineError(
        f"the data should be a directory or a zip, but {str(path)[:200]!r} {found}; "
        "correct ingest.folder, or the path that you gave to this command"
    )


def check_for_dvc(folder: Path) -> None:
    """Checks that DVC can hash a source folder, which it does before ingest starts.

    DVC ignores hidden entries in `data/incoming` (`.dvcignore`). Elsewhere it stops at
    a link to nothing and at a name that is not UTF-8, and waits for a pipe.

    Raises:
        PipelineError: If there is such an entry; the sentence names the first one.
    """
    has_ignored = folder.absolute().is_relative_to(paths.INCOMING.absolute())
    for where, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(where, name)
            if has_ignored and is_hidden(name):
                continue
            if _is_not_utf8(name):
                problem = "has a name that is not UTF-8; rename it"
            elif not path.exists():
                problem = "is a link to a file that does not exist; remove it"
            elif not (path.is_file() or path.is_dir()):
                problem = "is neither a file nor a folder; remove it"
            else:
                continue
            raise PipelineError(f"{str(path)!r} in ingest.folder {problem}")
        if has_ignored:
            folders[:] = [name for name in folders if not is_hidden(name)]


class Directory:
    """The visible regular files below a directory."""

    def __init__(self, path: Path, *, max_file_bytes: int) -> None:
        self.label = str(path)
        self._top = path.resolve()
        self._max_file_bytes = max_file_bytes
        self._paths = {
            file.relative_to(path).as_posix(): file
            for file in _walk(path, top=self._top, parents=())
        }
        self.names = list(self._paths)

    def read(self, name: str) -> bytes:
        """The bytes of one file; `UnreadableError` if it is too large or missing."""
        path = self._paths.get(name)
        if path is None:
            raise UnreadableError(MISSING)
        if path.is_symlink() and not path.resolve().is_relative_to(self._top):
            raise UnreadableError("is a link that leaves ingest.folder; copy the file")
        try:
            with path.open("rb") as file:
                # One byte more than allowed shows that a file is too large, even while
                # it grows.
                data = file.read(self._max_file_bytes + 1)
        except FileNotFoundError:
            raise UnreadableError("is a link to a file that does not exist") from None
        if len(data) > self._max_file_bytes:
            raise UnreadableError(_too_large(path.stat().st_size, self._max_file_bytes))
        return data


class Archive:
    """The members of a zip, in place."""

    def __init__(
        self,
        path: Path,
        *,
        max_file_bytes: int,
        max_members: int,
        max_bytes: int,
    ) -> None:
        self.label = str(path)
        self._max_file_bytes = max_file_bytes
        try:
            with _damage():
                self._file = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise PipelineError(_no_zip(path, error)) from None
        members = self._file.infolist()
        if len(members) > max_members:
            raise PipelineError(
                f"{path} lists {len(members)} files, more than ingest.max_zip_members "
                f"({max_members}) allows; raise it if you trust the zip"
            )
        for member in members:
            reason = _refusal(member)
            if reason:
                raise PipelineError(
                    f"{path} holds {member.orig_filename[:200]!r}, {reason}"
                )
        total = sum(member.file_size for member in members)
        if total > max_bytes:
            raise PipelineError(
                f"{path} unpacks to {total} bytes, more than ingest.max_zip_bytes "
                f"({max_bytes}); raise it if you trust the zip"
            )
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._ambiguous: set[str] = set()
        for member in members:
            name = posixpath.normpath(member.filename)
            if member.is_dir() or is_hidden(name):
                continue
            earlier = self._members.setdefault(name, member)
            if (earlier.CRC, earlier.file_size) != (member.CRC, member.file_size):
                self._ambiguous.add(name)
        self.names = list(self._members)

    def read(self, name: str) -> bytes:
        """The bytes of one member; `UnreadableError` if it is too large or damaged."""
        member = self._members.get(name)
        if member is None:
            raise UnreadableError(MISSING)
        if name in self._ambiguous:
            raise UnreadableError("is in the zip twice, with different contents")
        if member.file_size > self._max_file_bytes:
            raise UnreadableError(_too_large(member.file_size, self._max_file_bytes))
        try:
            # Stops at the declared size; the checksum of a larger member fails.
            with _damage():
                return self._file.read(member)
        except zipfile.BadZipFile as error:
            raise UnreadableError(f"is damaged in the zip ({error})") from None


@contextmanager
def _damage() -> Iterator[None]:
    """Turns all errors of `zipfile` on a damaged archive into `BadZipFile`."""
    try:
        yield
    except DAMAGE as error:
        raise zipfile.BadZipFile(" ".join(str(error).split())[:200]) from None
    except OSError as error:
        # EINVAL: an offset before the start. The disk causes any other error.
        if error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile("an offset points outside the file") from None


def _walk(folder: Path, *, top: Path, parents: tuple[Path, ...]) -> Iterator[Path]:
    """Visible regular files, and links to files, below a folder, in any order.

    Links to folders inside `top` are followed, except back up.
    """
    real = folder.resolve()
    if not real.is_relative_to(top):
        raise PipelineError(
            f"{str(folder)!r} is a link to a folder outside {str(top)!r}; "
            "set ingest.folder to where the files are"
        )
    if real in parents:
        return
    with os.scandir(folder) as children:
        for child in children:
            path = folder / child.name
            if is_hidden(child.name):
                continue
            if _is_not_utf8(child.name):
                raise PipelineError(
                    f"{str(folder)!r} holds a name that is not UTF-8 "
                    f"({os.fsencode(child.name)!r}), which DVC cannot store; rename it"
                )
            if child.is_dir():
                yield from _walk(path, top=top, parents=(*parents, real))
            elif child.is_file() or child.is_symlink():
                yield path


def _is_not_utf8(name: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in name)


def _refusal(member: zipfile.ZipInfo) -> str:
    """The reason not to read a zip with this member at all, or ""."""
    name = member.orig_filename
    parts = name.replace("\\", "/").split("/")
    drive = len(parts[0]) == 2 and parts[0][1] == ":"
    if ".." in parts or parts[0] == "" or drive:
        return "a name that points outside the zip; nothing was read from it"
    if "\\" in name or "\0" in name or len(name) > LONGEST_NAME:
        return "a name that is not portable; pack the folder again"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link; pack the folder again with the files themselves"
    if member.flag_bits & ENCRYPTED:
        return "which is encrypted; unpack the zip and set ingest.folder to the folder"
    if member.compress_type not in READ_METHODS:
        return (
            f"compressed by an unsupported method (zip method {member.compress_type}); "
            "pack the folder again with deflate, or set ingest.folder to the folder"
        )
    return ""


def _no_zip(path: Path, error: zipfile.BadZipFile) -> str:
    """The error for a file that is not a zip, or a damaged one."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return (
            f"{path} is a zip that is cut short or damaged ({error}); "
            "copy or download it again"
        )
    kind = "is empty" if not start else f"starts with {start!r}"
    return (
        f"ingest.folder {str(path)!r} should be a directory or a zip, but {kind}; "
        "name a directory or a zip"
    )


def _too_large(size: int, bound: int) -> str:
    return f"has {size} bytes, more than ingest.max_file_bytes ({bound})"

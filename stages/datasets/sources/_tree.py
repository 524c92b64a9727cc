"""Files by name, from a directory or from a zip that is never unpacked.

Both refuse in one sentence what nobody should read: names that point outside,
links, encrypted or damaged zips, zips that unpack to more than the bounds. A single
bad file is `UnreadableError` and spoils nothing else.
"""

import errno
import io
import os
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.core.errors import PipelineError
from stages.core.params import IngestParams
from stages.datasets.layouts import UnreadableError

# Both inflate in small steps, so that a bomb costs no memory; bzip2 and LZMA do not.
READ_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
ENCRYPTED = 0x1
MISSING = "is named by a table but is not there"
LONGEST_NAME = 1024  # a zip allows 65,535, and as many folders as there is room for
LISTED_BYTES = 512  # of a zip's list, for each member on average; 46 and a name
# What `zipfile` raises on a damaged archive, depending on which bytes are bad.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def open_tree(path: Path, params: IngestParams) -> "Directory | Archive":
    """Opens `ingest.folder`: a directory, or a zip.

    Args:
        path: Where it is.
        params: The bounds on files and zips.

    Raises:
        PipelineError: If there is none, or it is no directory and no usable zip.
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
        f"ingest.folder should name a directory or a zip, but {str(path)[:200]!r} "
        f"{found}; give a path relative to the repository's root, or an absolute one"
    )


class Directory:
    """The regular files below a directory."""

    def __init__(self, path: Path, *, max_file_bytes: int) -> None:
        self.label = str(path)
        self._max_file_bytes = max_file_bytes
        self._paths = {
            _text(file.relative_to(path).as_posix()): file
            for file in _walk(path, top=path.resolve(), chain=())
        }
        self.names = list(self._paths)

    def read(self, name: str) -> bytes:
        """The bytes of one file; `UnreadableError` if it is too large or gone."""
        path = self._paths.get(name)
        if path is None:
            raise UnreadableError(MISSING)
        try:
            with path.open("rb") as file:
                # One byte more than allowed tells too large from just allowed, even
                # for a file that grows.
                data = file.read(self._max_file_bytes + 1)
        except FileNotFoundError:
            raise UnreadableError("is a link to a file that does not exist") from None
        if len(data) > self._max_file_bytes:
            raise UnreadableError(_too_large(path.stat().st_size, self._max_file_bytes))
        return data


class _Counted(io.BufferedReader):
    """A zip file whose list is counted before `zipfile` makes objects of it."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(io.FileIO(path))
        self._path = path
        self.most: int | None = most

    def read(self, size: int | None = -1, /) -> bytes:
        if self.most is None:
            return super().read(size)
        # The list is read in one go; its marks are as many as its members.
        if size is not None and size > self.most * LISTED_BYTES + 2**16:
            raise PipelineError(_too_long(self._path, "long names", self.most))
        data = super().read(size)
        count = data.count(b"PK\1\2")
        if count > self.most:
            raise PipelineError(_too_long(self._path, f"{count} files", self.most))
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
                file = _Counted(path, max_members)
                self._file = zipfile.ZipFile(file)
                file.most = None
        except zipfile.BadZipFile as error:
            raise PipelineError(_no_zip(path, error)) from None
        members = self._file.infolist()
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
            if member.is_dir():
                continue
            name = posixpath.normpath(member.filename)  # no ".." is left here
            if name == member.filename:
                name = member.filename  # one text, not two, for each of 100,000s
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
            # Stops at the declared size; a member that holds more fails its checksum.
            with _damage():
                return self._file.read(member)
        except zipfile.BadZipFile as error:
            raise UnreadableError(f"is damaged in the zip ({error})") from None


@contextmanager
def _damage() -> Iterator[None]:
    """Turns whatever `zipfile` raises on a damaged archive into `BadZipFile`."""
    try:
        yield
    except DAMAGE as error:
        raise zipfile.BadZipFile(" ".join(str(error).split())[:200]) from None
    except OSError as error:
        # An offset before the start; all else is the disk's fault, not the zip's.
        if error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile("an offset points outside the file") from None


def _walk(folder: Path, *, top: Path, chain: tuple[Path, ...]) -> Iterator[Path]:
    """Regular files, and links to files, below a folder, in no particular order.

    Links to folders are followed inside `top`, once: a link back up ends there.
    """
    real = folder.resolve()
    if not real.is_relative_to(top):
        raise PipelineError(
            f"{str(folder)!r} is a link to a folder outside {str(top)!r}; "
            "set ingest.folder to where the files are"
        )
    if real in chain:
        return
    with os.scandir(folder) as children:
        for child in children:
            path = folder / child.name
            if child.is_dir():
                yield from _walk(path, top=top, chain=(*chain, real))
            elif child.is_file() or (child.is_symlink() and not path.exists()):
                yield path


def _refusal(member: zipfile.ZipInfo) -> str:
    """Why a zip with this member is not read at all, or ""."""
    name = member.orig_filename
    parts = name.replace("\\", "/").split("/")
    drive = len(parts[0]) == 2 and parts[0][1] == ":"
    if ".." in parts or parts[0] == "" or drive:
        return "a name that points outside the zip; nothing was read from it"
    if "\\" in name or "\0" in name or len(name) > LONGEST_NAME:
        return "a name that no zip should have; pack the folder again"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link; pack the folder again with the files themselves"
    if member.flag_bits & ENCRYPTED:
        return "which is encrypted; unpack the zip and set ingest.folder to the folder"
    if member.compress_type not in READ_METHODS:
        return (
            f"packed by a method that is not read (zip method {member.compress_type}); "
            "pack the folder again with deflate, or set ingest.folder to the folder"
        )
    return ""


def _no_zip(path: Path, error: zipfile.BadZipFile) -> str:
    """Tells a zip that is cut short or damaged from a file of another kind."""
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


def _too_long(path: object, what: str, most: int) -> str:
    return (
        f"{path} lists {what}, more than ingest.max_zip_members ({most}) allows; "
        "raise it if you trust the zip"
    )


def _too_large(size: int, bound: int) -> str:
    return f"has {size} bytes, more than ingest.max_file_bytes ({bound})"


def _text(name: str) -> str:
    """A name that can be stored as UTF-8, whatever bytes the file system holds."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

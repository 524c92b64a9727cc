"""Files by name, from a directory or from a zip that is never unpacked.

A tree that cannot be read safely is refused in one sentence. A single bad file raises
`UnreadableError` and affects no other.
"""

import errno
import functools
import os
import posixpath
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.files import is_hidden
from stages.core.params import IngestParams

# Both decompress in small steps, so that a bomb takes no memory; bzip2 and LZMA do not.
READ_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
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


@dataclass(frozen=True)
class Tree:
    """Files by name: a directory or a zip, read in place.

    Attributes:
        label: The name of the tree in messages.
        readers: For each visible file, by its POSIX name relative to the top, a
            function that returns its bytes or raises `UnreadableError`.
        left_out: Names of what is hidden, or neither a file nor a folder.
    """

    label: str
    readers: Mapping[str, Callable[[], bytes]]
    left_out: Sequence[str] = ()

    @property
    def names(self) -> Sequence[str]:
        """POSIX names of all visible files, relative to the top."""
        return list(self.readers)

    def read(self, name: str) -> bytes:
        """The bytes of one file; UnreadableError if it cannot be read."""
        if name not in self.readers:
            raise UnreadableError("is named by a table but does not exist")
        return self.readers[name]()


def open_tree(path: Path, params: IngestParams) -> Tree:
    """Opens a directory or a zip, within the limits of params.

    Raises:
        PipelineError: If it does not exist or is neither a directory nor a usable zip.
    """
    if path.is_dir():
        return _directory(path, params)
    if path.is_file():
        return _archive(path, params)
    found = "is neither" if path.exists() else "does not exist"
    raise PipelineError(
        f"the data should be a directory or a zip, but {str(path)!r} {found}; "
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


def _directory(top: Path, params: IngestParams) -> Tree:
    """The visible regular files below a directory."""

    def read(file: Path) -> bytes:
        if file.is_symlink() and not file.resolve().is_relative_to(top.resolve()):
            raise UnreadableError("is a link that leaves ingest.folder; copy the file")
        try:
            _check_size(file.stat().st_size, params)
            return file.read_bytes()
        except FileNotFoundError:
            raise UnreadableError("is a link to a file that does not exist") from None

    left_out: list[str] = []
    found = _walk(top, top=top.resolve(), parents=(), left_out=left_out)
    readers = {
        file.relative_to(top).as_posix(): functools.partial(read, file)
        for file in found
    }
    return Tree(str(top), readers, left_out)


def _walk(
    folder: Path, *, top: Path, parents: tuple[Path, ...], left_out: list[str]
) -> Iterator[Path]:
    """Visible regular files, and links to files, below a folder, in any order.

    Links to folders inside `top` are followed, except back up. The names of other
    entries are added to `left_out`.
    """
    real = folder.resolve()
    if not real.is_relative_to(top):
        raise PipelineError(
            f"{str(folder)!r} is a link to a folder outside {str(top)!r}; "
            "set ingest.folder to the folder that holds the files"
        )
    if real in parents:
        return
    for path in folder.iterdir():
        if is_hidden(path.name):
            left_out.append(path.name)
            continue
        if _is_not_utf8(path.name):
            raise PipelineError(
                f"{str(path)!r} has a name that is not UTF-8, which DVC cannot store; "
                "rename it"
            )
        if path.is_dir():
            yield from _walk(path, top=top, parents=(*parents, real), left_out=left_out)
        elif path.is_file() or path.is_symlink():
            yield path
        else:
            left_out.append(path.name)


def _archive(path: Path, params: IngestParams) -> Tree:
    """The members of a zip, in place; their names are never used as paths on disk."""
    try:
        with _damage():
            file = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise PipelineError(
            f"{str(path)!r} should be a directory or a zip, but is not a zip or is "
            f"damaged ({error}); copy or download it again, or correct ingest.folder"
        ) from None
    members = file.infolist()
    if len(members) > params.max_zip_members:
        raise PipelineError(
            f"{path} lists {len(members)} files, more than ingest.max_zip_members "
            f"({params.max_zip_members}) allows; raise it if you trust the zip"
        )
    total = sum(member.file_size for member in members)
    if total > params.max_zip_bytes:
        raise PipelineError(
            f"{path} unpacks to {total} bytes, more than ingest.max_zip_bytes "
            f"({params.max_zip_bytes}); raise it if you trust the zip"
        )
    by_name: defaultdict[str, list[zipfile.ZipInfo]] = defaultdict(list)
    left_out = []
    for member in members:
        name = posixpath.normpath(member.filename.replace("\\", "/"))
        if name.startswith(("/", "..")):
            raise PipelineError(
                f"{path} holds {name[:200]!r}, a name that points outside the zip; "
                "nothing was read from it"
            )
        if member.filename.endswith("/") or not member.filename:
            continue
        if is_hidden(name):
            left_out.append(name)
        else:
            by_name[name].append(member)

    def read(name: str) -> bytes:
        member, *others = by_name[name]
        if any((m.CRC, m.file_size) != (member.CRC, member.file_size) for m in others):
            raise UnreadableError("is in the zip twice, with different contents")
        _check_size(member.file_size, params)
        if member.compress_type not in READ_METHODS:
            raise UnreadableError(
                "is compressed by an unsupported method (zip method "
                f"{member.compress_type}); pack the folder again with deflate"
            )
        try:
            # Stops at the declared size; the checksum of a larger member fails.
            with _damage():
                return file.read(member)
        except zipfile.BadZipFile as error:
            raise UnreadableError(f"cannot be read from the zip ({error})") from None

    readers = {name: functools.partial(read, name) for name in by_name}
    return Tree(str(path), readers, left_out)


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


def _is_not_utf8(name: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in name)


def _check_size(size: int, params: IngestParams) -> None:
    if size > params.max_file_bytes:
        raise UnreadableError(
            f"has {size} bytes, more than ingest.max_file_bytes "
            f"({params.max_file_bytes})"
        )

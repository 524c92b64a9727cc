"""Where a stage is: the processor time it has used, and what it did to files."""

import ctypes
import os
import struct
import time
from pathlib import Path

_EVENTS = 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200  # modify, close, move, create, delete
_MODIFY = 0x2
_CREATE = 0x100
_IS_FOLDER = 0x40000000
_NONBLOCK = 0x800
_HEAD = struct.Struct("iIII")


class Watch:
    """Counts what happens below a folder, by Linux's inotify."""

    def __init__(self, top: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(_NONBLOCK)
        self._folders: dict[int, Path] = {}
        self.count = 0
        self._add(top)

    def _add(self, folder: Path) -> None:
        number = self._libc.inotify_add_watch(
            self._descriptor, os.fsencode(folder), _EVENTS
        )
        if number < 0:
            return
        self._folders[number] = folder
        for child in folder.iterdir():
            if child.is_dir():
                self._add(child)

    def events(self) -> int:
        """How many there were so far; writes to one file in a row count once."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return self.count
        place = 0
        while place < len(data):
            number, mask, _, length = _HEAD.unpack_from(data, place)
            name = data[place + _HEAD.size : place + _HEAD.size + length].rstrip(b"\0")
            place += _HEAD.size + length
            if not mask & _MODIFY:
                self.count += 1
            if mask & _CREATE and mask & _IS_FOLDER and number in self._folders:
                try:
                    self._add(self._folders[number] / os.fsdecode(name))
                except OSError:
                    continue
        return self.count

    def close(self) -> None:
        os.close(self._descriptor)


def stage_process(dvc: int, stage: str) -> int | None:
    """The process `python -m stages.STAGE` that a `dvc` process started."""
    try:
        children = Path(f"/proc/{dvc}/task/{dvc}/children").read_text().split()
        for child in children:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if f"stages.{stage}".encode() in words and b"-c" not in words:
                return int(child)
            if (found := stage_process(int(child), stage)) is not None:
                return found
    except OSError:
        return None
    return None


def cpu_seconds(process: int) -> float | None:
    """Processor time a process has used, all threads; None once it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_gone(group: int, seconds: float) -> bool:
    """Whether all processes of a group end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False

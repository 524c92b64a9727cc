"""Where a stage is: the processor time that it has used, and its writes."""

import os
import re
import time
from pathlib import Path


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


def used(process: int) -> tuple[float, int] | None:
    """Processor seconds and writes of all its threads; None once it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        writes = re.search(r"syscw: (\d+)", Path(f"/proc/{process}/io").read_text())
    except OSError:
        return None
    if fields[0] in "ZX" or writes is None:
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(writes[1])


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

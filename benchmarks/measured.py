"""Runs a stage and says what it took: `python -m benchmarks.measured OUT NAME`.

OUT gets JSON: seconds to import the stage, seconds of its work, and the most memory
the process held, in bytes; what other processes held is not in it.
"""

import importlib
import json
import sys
import time
from pathlib import Path


def peak_bytes() -> int:
    """The most memory this process held so far; 0 where the system does not say."""
    # Not getrusage: after a fork that counts what the parent held.
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    for line in status.read_text("ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Imports, runs, writes."""
    out, name = Path(sys.argv[1]), sys.argv[2]
    start = time.perf_counter()
    package = importlib.import_module(f"stages.{name}")
    if hasattr(package, "__path__"):
        package = importlib.import_module(f"stages.{name}.__main__")
    imported = time.perf_counter()
    package.main()
    values = {
        "import_s": imported - start,
        "work_s": time.perf_counter() - imported,
        "peak_bytes": peak_bytes(),
    }
    out.write_text(json.dumps(values), "utf-8")


if __name__ == "__main__":
    from stages.core.errors import run

    run(main)

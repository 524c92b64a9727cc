"""Runs a stage and says what it took: `python -m benchmarks.measured OUT NAME`.

OUT gets JSON: seconds to import the stage, seconds of its work, and the most memory
the process held, in bytes; what other processes held is not in it.
"""

import importlib
import json
import re
import sys
import time
from pathlib import Path


def main() -> None:
    """Imports, runs, writes."""
    out, name = Path(sys.argv[1]), sys.argv[2]
    start = time.perf_counter()
    package = importlib.import_module(f"stages.{name}")
    if hasattr(package, "__path__"):
        package = importlib.import_module(f"stages.{name}.__main__")
    imported = time.perf_counter()
    package.main()
    work_s = time.perf_counter() - imported
    status = Path("/proc/self/status").read_text()
    values = {
        "import_s": imported - start,
        "work_s": work_s,
        # Not getrusage: after a fork that counts what the parent held.
        "peak_bytes": int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024,
    }
    out.write_text(json.dumps(values), "utf-8")


if __name__ == "__main__":
    from stages.core.errors import run

    run(main)

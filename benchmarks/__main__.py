"""Measures: `python -m benchmarks [NAME...]`; without names, the short ones.

Each figure stands beside a limit or a peer measured in the same run, with their ratio
and what is to be reached. Several benchmarks run one after the other, each in a
process of its own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import harness
from stages.core import processor
from stages.core.errors import PipelineError, run

LIBRARIES = (
    "tensorflow",
    "keras",
    "opencv-python-headless",
    "numpy",
    "onnxruntime",
    "dvc",
)


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "processor": processor.describe(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(_about(name) for name in harness.names()),
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="benchmarks; see below")
    add("--json", action="store_true", help="print JSON instead of the table")
    add("--quick", action="store_true", help="tiny sizes, to see that it works")
    add("--data", type=Path, help="labelled pairs, folder or zip; default: phantoms")
    add("--pairs", type=int, help="pairs to measure on")
    add("--sizes", type=int, nargs="+", help="numbers of pairs")
    add("--model", type=Path, help=".onnx or .keras; default: data/export/unet.onnx")
    add("--out", type=Path, help="folder for pictures and tables")
    return parser


def _about(name: str) -> str:
    module = harness.load(name)
    first = (module.__doc__ or "").split("\n", 1)[0]
    uses = " ".join(f"--{option}" for option in module.OPTIONS)
    return f"  {name:<13} {'(long) ' if module.LONG else ''}{first} {uses}".rstrip()


def options(given: argparse.Namespace, names: list[str]) -> harness.Options:
    """Options of the named benchmarks.

    Raises:
        PipelineError: If none of them uses an option that was given.
    """
    values = {key: v for key, v in vars(given).items() if key not in ("names", "json")}
    if values["sizes"] is not None:
        values["sizes"] = tuple(values["sizes"])
    used = {option for name in names for option in harness.load(name).OPTIONS}
    for key, value in values.items():
        if key != "quick" and value is not None and key not in used:
            raise PipelineError(
                f"--{key} is used by none of {', '.join(names)}; leave it out or name "
                "a benchmark that uses it (see --help)"
            )
    return harness.Options(**values)


def apart(name: str, chosen: harness.Options) -> dict[str, Any]:
    """A benchmark's rows, measured in a process of its own.

    Raises:
        PipelineError: If it fails; what it said is on standard error.
    """
    words = [sys.executable, "-m", "benchmarks", name, "--json"]
    words += ["--quick"] if chosen.quick else []
    for option in harness.load(name).OPTIONS:
        value = getattr(chosen, option)
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{option}", *map(str, values)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise PipelineError(
            f"the benchmark {name} ended with {done.returncode}, see above; the others "
            "can be named without it"
        )
    found: dict[str, Any] = json.loads(done.stdout)["benches"][name]
    return found


def main() -> None:
    """Reads the command line, measures, prints."""
    given = parser().parse_args()
    names = given.names or [n for n in harness.names() if not harness.load(n).LONG]
    chosen = options(given, names)
    where = machine()
    benches: dict[str, Any] = {}
    if not given.json:
        print(
            f"{where['processor']['model']}, {where['cores']} cores, "
            f"load before {where['load_before']}"
        )
    for name in names:
        if len(names) == 1:
            rows = harness.load(name).bench(chosen)
            text, table = harness.render(name, rows), [row.table() for row in rows]
            benches[name] = {"rows": table, "text": text}
        else:
            benches[name] = apart(name, chosen)
        if not given.json:
            print(f"\n{benches[name]['text']}", flush=True)
    if given.json:
        print(json.dumps({"machine": where, "benches": benches}, indent=2))


if __name__ == "__main__":
    run(main)

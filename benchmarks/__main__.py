"""Measures speed and accuracy: `python -m benchmarks [NAME...]`.

Each figure stands beside a limit or a peer that is measured in the same run. Without
names, all short benchmarks run, each in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import harness
from stages.core import processor
from stages.core.errors import PipelineError, run


def about() -> str:
    """The first sentence of every benchmark."""
    lines = []
    for name in harness.names():
        module = harness.load(name)
        first = (module.__doc__ or "").split("\n", 1)[0]
        lines.append(f"{name}{' (long)' if module.LONG else ''}: {first}")
    return "\n\n".join(lines)


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks (default: the short ones).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes: shows that it works.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Labelled pairs, a folder or zip; not phantoms.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Number of pairs.")] = None,
) -> None:
    """Measures, and prints a figure per line."""
    chosen = names or [n for n in harness.names() if not harness.load(n).LONG]
    if len(chosen) == 1:
        rows = harness.load(chosen[0]).bench(harness.Options(quick, data, pairs))
        machine = processor.describe()["model"]
        print(f"{machine}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
        print(harness.render(chosen[0], rows), flush=True)
        return
    options = ["--quick"] if quick else []
    options += ["--data", str(data)] if data else []
    options += ["--pairs", str(pairs)] if pairs else []
    for name in chosen:
        words = [sys.executable, "-m", "benchmarks", name, *options]
        if code := subprocess.run(words).returncode:
            raise PipelineError(f"the benchmark {name} ended with {code}, see above")


if __name__ == "__main__":
    main.__doc__ = f"{main.__doc__}\n\n{about()}"
    run(lambda: typer.run(main))

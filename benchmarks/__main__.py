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
    """The first sentence of every benchmark, and the options that it takes."""
    lines = []
    for name in harness.names():
        module = harness.load(name)
        first = (module.__doc__ or "").split("\n", 1)[0]
        options = " ".join(f"--{option}" for option in module.OPTIONS)
        lines.append(f"{name}{' (long)' if module.LONG else ''}: {first} {options}")
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
    pairs: Annotated[int | None, typer.Option(help="Number of pairs.")] = None,
    sizes: Annotated[
        list[int] | None, typer.Option(help="Numbers of pairs; repeatable.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="An .onnx or .keras file; not the exported one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for pictures.")] = None,
) -> None:
    """Measures, and prints a figure per line."""
    options = harness.Options(quick, data, pairs, tuple(sizes or ()), model, out)
    chosen = names or [n for n in harness.names() if not harness.load(n).LONG]
    used = {option for name in chosen for option in harness.load(name).OPTIONS}
    for option in ("data", "pairs", "sizes", "model", "out"):
        if getattr(options, option) and option not in used:
            raise PipelineError(
                f"--{option} is used by none of {', '.join(chosen)}; leave it out or "
                "name a benchmark that uses it (see --help)"
            )
    if len(chosen) == 1:
        machine = processor.describe()["model"]
        load = os.getloadavg()[0]
        print(f"{machine}, {os.cpu_count()} cores, load before {load:.2f}")
        rows = harness.load(chosen[0]).bench(options)
        print(harness.render(chosen[0], rows), flush=True)
        return
    for name in chosen:
        module = harness.load(name)
        words = [sys.executable, "-m", "benchmarks", name, *["--quick"] * quick]
        for option in module.OPTIONS:
            value = getattr(options, option)
            for one in value if isinstance(value, tuple) else filter(None, [value]):
                words += [f"--{option}", str(one)]
        if code := subprocess.run(words).returncode:
            raise PipelineError(f"the benchmark {name} ended with {code}, see above")


if __name__ == "__main__":
    main.__doc__ = f"{main.__doc__}\n\n{about()}"
    run(lambda: typer.run(main))

"""Reads the command line: `python -m benchmarks.ablation [DATA] --out FOLDER`."""

import argparse
from pathlib import Path

from benchmarks import ablation
from benchmarks.ablation.grid import planned
from stages.core import arguments, paths
from stages.core.errors import PipelineError, run
from stages.tools.sweep import add_data, data_values, sweep


def main() -> None:
    """Makes the runs that are missing, then writes the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=ablation.__doc__
    )
    add_data(parser)
    parser.add_argument("--epochs", type=arguments.positive, default=20)
    parser.add_argument(
        "-o", "--out", type=Path, default=paths.WORK / "ablation", help="folder"
    )
    given = parser.parse_args()
    values = data_values(given.data, given.classes)
    swept = sweep(planned(values, epochs=given.epochs))
    if swept.done:
        found = ablation.find(swept.done, epochs=given.epochs)
        name = given.data.name if given.data else found.dataset
        page = ablation.write(found, given.out, data=name, epochs=given.epochs)
        print("\n".join(ablation.sentences(found)))
        print(f"{page} has the tables and the curves")
    swept.require_all()
    if not swept.done:
        raise PipelineError("no run is done")


if __name__ == "__main__":
    run(main)

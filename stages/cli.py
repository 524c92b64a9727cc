"""`lungfield`: one command over the tools.

A command's options stand here; its work is a function of a room, imported when the
command runs, so that `lungfield --help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.core import errors

app = typer.Typer(
    help="Train, judge and ship a lung-segmentation model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _commands() -> None:
    """Makes each function below a command, even where there is only one."""


@app.command()
def provenance(
    file: Annotated[
        Path, typer.Argument(help=".onnx, .tflite or the folder of a SavedModel")
    ],
) -> None:
    """Show what a model was made from, and which commit made it.

    Exit code 1 where neither this checkout nor any commit knows the file.
    """
    from stages.tools.provenance import check

    check(file)


def main() -> None:
    """Runs the command line; errors end in one sentence."""
    errors.run(lambda: app(prog_name="lungfield"))


if __name__ == "__main__":
    main()

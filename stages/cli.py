"""`lungfield`: one command over the tools.

A command's options stand here; its work is a function of a room, imported when the
command runs, so that `lungfield --help` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

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


Model = Annotated[Path, typer.Argument(help="An exported unet.onnx.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="FRACTION",
        help="Pixels at least this probable are foreground [default: the model's own]",
        show_default=False,
    ),
]


@app.command()
def predict(
    model: Model,
    images: Annotated[
        list[str], typer.Argument(help="Files, folders or quoted globs.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    threshold: Threshold = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Number of images in memory at a time.")
    ] = 16,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse images that declare more.")
    ] = 4096 * 4096,
    force: Annotated[
        bool, typer.Option("--force", help="Predict again where there is a result.")
    ] = False,
    overlays: Annotated[
        bool, typer.Option(help="Write pictures with the outline.")
    ] = True,
) -> None:
    """Find the foreground in images: masks, pictures and a table.

    Reads PNG, JPEG, TIFF, BMP and DICOM. OUT gets masks/NAME.png (white is foreground,
    the image's own size), overlays/NAME.png (the outline over the image) and
    predictions.csv (one row per image, with a warning for an unusual one).

    Images that have a result of the same model and threshold are skipped. Exit code 1
    where an image cannot be read; the others are done.
    """
    from stages.inference.predict import run

    run(
        model,
        images,
        out,
        threshold=threshold,
        batch_size=batch_size,
        max_pixels=max_pixels,
        force=force,
        overlays=overlays,
    )


@app.command()
def score(
    model: Annotated[
        Path,
        typer.Argument(help="Any file or folder of data/export, or a .keras file."),
    ],
    data: Annotated[Path, typer.Argument(help="Labelled data: a folder or a zip.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="[default: data/.work/scores/DATA]"),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Layout of the data [default: the one that fits].")
    ] = "",
    target: Annotated[
        str, typer.Option(help="What the masks show [default: the layout's first].")
    ] = "",
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class to score, repeatable [default: all]."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of pairs per class; 0 takes all.")
    ] = 0,
    threshold: Threshold = None,
) -> None:
    """Score a model on labelled data, by the metrics of evaluate.

    OUT gets metrics.json, per_image.csv and overlays/. Exit code 1 where a pair cannot
    be scored; the others are.
    """
    from stages.inference.score import run

    run(
        model,
        data,
        out,
        layout=layout,
        target=target,
        classes=classes,
        limit=limit,
        threshold=threshold,
    )


@app.command()
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    threshold: Threshold = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Images predicted at a time [default: one per core]."),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, help="Images that may wait beside those.")
    ] = 256,
    timeout: Annotated[
        int,
        typer.Option(min=1, help="Seconds to send an image, and again to answer it."),
    ] = 30,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Largest image file, bytes.")
    ] = 2**25,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse images that declare more.")
    ] = 2**25,
) -> None:
    """Serve a page and an HTTP interface over a model.

    The page takes an image and shows the outline; POST /predict takes the bytes of an
    image and answers with the mask as PNG, or as JSON with Accept: application/json.
    GET /docs describes the interface. No image is stored or logged.
    """
    from stages.inference.serve import server
    from stages.inference.serve.engine import Limits

    limits = Limits(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        seconds=timeout,
        threads=threads or os.cpu_count() or 1,
        queue=queue,
    )
    server.run(model, limits, host=host, port=port, threshold=threshold)


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
    if "_LUNGFIELD_COMPLETE" in os.environ:  # the shell asks for completions
        app(prog_name="lungfield")
    errors.run(_run)


def _run() -> None:
    """Runs a command; `app()` itself would end every signal with exit code 130."""
    command = get_command(app)
    try:
        with command.make_context("lungfield", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except typer.TyperException as error:  # wrong usage, or none
        error.show()  # type: ignore[attr-defined]
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

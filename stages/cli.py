"""The command line, `lungfield`.

Only options are defined here. A command imports its function when it runs, so that
`lungfield --help` is fast.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

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
    """Makes Typer treat each function below as a command."""


Model = Annotated[Path, typer.Argument(help="An exported unet.onnx.")]
Data = Annotated[
    Path | None,
    typer.Argument(
        help="Labelled data: a folder or a zip [default: the source in params.yaml].",
        show_default=False,
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="A class to read, repeatable [default: all]."),
]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse images that declare more pixels.")
]
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
    max_pixels: MaxPixels = 4096 * 4096,
    force: Annotated[
        bool, typer.Option("--force", help="Predict again even if a result exists.")
    ] = False,
    overlays: Annotated[
        bool, typer.Option(help="Write images with the outline.")
    ] = True,
) -> None:
    """Segment images: masks, overlays and a table.

    Reads PNG, JPEG, TIFF, BMP and DICOM. OUT gets masks/NAME.png (white is foreground,
    the image's own size), overlays/NAME.png (the outline over the image) and
    predictions.csv (one row per image, with a warning for an unusual one).

    Skips images that have a result of the same model and threshold. Exit code 1 if an
    image cannot be read; the others are predicted.
    """
    from stages.inference import predict as room

    room.predict(
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
    classes: Classes = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of pairs per class; 0 takes all.")
    ] = 0,
    threshold: Threshold = None,
) -> None:
    """Score a model on labelled data, by the metrics of evaluate.

    OUT gets metrics.json, per_image.csv and overlays/. Exit code 1 if a pair cannot be
    scored; the others are scored.
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
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    threshold: Threshold = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Images to predict at once [default: one per core]."),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, help="Maximum number of waiting images.")
    ] = 256,
    timeout: Annotated[
        int,
        typer.Option(min=1, help="Seconds to receive an image, and to answer it."),
    ] = 30,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Largest image file, bytes.")
    ] = 2**25,
    max_pixels: MaxPixels = 2**25,
) -> None:
    """Serve a page and an HTTP interface over a model.

    The page takes an image and shows the outline. POST /predict takes the bytes of an
    image and returns the mask as PNG, or as JSON with Accept: application/json. GET
    /docs describes the interface. The server stores and logs no image.
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
def review(
    base: Annotated[str, typer.Argument(help="Git revision to compare with.")],
    head: Annotated[
        str | None,
        typer.Argument(help="Git revision to judge [default: the working tree]."),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for both reports.")
    ] = Path(),
    pull: Annotated[
        bool, typer.Option("--pull", help="Fetch missing outputs from the DVC remote.")
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Run BASE here if another machine built it."),
    ] = False,
    fail_on_drift: Annotated[
        bool,
        typer.Option(
            "--fail-on-drift", help="Exit code 1 if results differ or the gate fails."
        ),
    ] = False,
) -> None:
    """Compare two revisions: metrics, images, data, params and code.

    Reads Git and the DVC cache; runs no stage without --rebuild. OUT gets review.md and
    review.png, for a comment, and review.html, one page with pictures.
    """
    from stages.review import run

    run(
        base,
        head,
        out,
        fetch=pull,
        rebuild=rebuild,
        fail_on_drift=fail_on_drift,
    )


@app.command()
def provenance(
    file: Annotated[
        Path, typer.Argument(help=".onnx, .tflite or the folder of a SavedModel")
    ],
) -> None:
    """Show what a model was built from, and which commit built it.

    Exit code 1 if neither this checkout nor any commit knows the file.
    """
    from stages.tools.provenance import check

    check(file)


@app.command()
def study(
    name: Annotated[
        str | None, typer.Argument(help="A study [default: list all studies].")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A param to change, too."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="A folder or a zip to read instead of the study's source."
        ),
    ] = None,
) -> None:
    """Run a study, such as the article's, as a named DVC experiment.

    It sets the study's values in params.yaml and runs `dvc exp run`.
    Example: lungfield study lungs --data set.zip --set train.epochs=20
    """
    from stages.tools import study as room

    if name is None:
        room.list_studies()
    else:
        raise typer.Exit(room.study(name, settings or [], data))


@app.command()
def folds(
    data: Data = None,
    classes: Classes = None,
    count: Annotated[int, typer.Option("--folds", min=2, help="Number of folds.")] = 5,
    by: Annotated[
        Literal["fold", "site"],
        typer.Option(help="With site, hold out each site of the data in turn."),
    ] = "fold",
    seeds: Annotated[
        int | None,
        typer.Option(min=2, help="Instead of folds: train with this many seeds."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder.")] = Path(
        "data/.work/folds"
    ),
) -> None:
    """Cross-validate: score every image by a model that was not trained on it.

    Each fold runs on the last commit and is kept as a DVC experiment; existing folds
    are not repeated. OUT gets folds.md, the table, and per_image.csv.

    --seeds measures how much the seed of the training alone changes Dice, and writes
    data/seed_noise.json, which the review reads; commit that file.
    """
    from stages.tools import folds as room

    if seeds is None:
        room.run(data, classes or [], count, out, part=by)
    else:
        room.run_seeds(data, classes or [], seeds, out)


@app.command()
def experiments(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="The picture.")
    ] = Path("experiments.svg"),
    num: Annotated[
        int | None,
        typer.Option("-n", "--num", min=1, help="Include runs of the last N commits."),
    ] = None,
    all_commits: Annotated[
        bool, typer.Option("--all-commits", help="Include runs of every commit.")
    ] = False,
) -> None:
    """Compare `dvc exp` runs: Dice with its interval, params that differ.

    A star marks the runs that no other run beats in both Dice and multiply-adds; the
    picture shows them. `dvc exp save` keeps a run that failed at the gate.
    """
    from stages.tools.experiments import run

    run(out, num=num, all_commits=all_commits)


@app.command()
def release(
    version: Annotated[str, typer.Argument(help="Such as 1.2.0.")],
    stage: Annotated[
        str | None,
        typer.Option(help="A stage to assign the version to, such as prod."),
    ] = None,
) -> None:
    """Tag a model version: changelog, commit and GTO tags; nothing is pushed.

    Requires that everything is committed, the outputs match dvc.lock, the gate has
    passed and CHANGELOG.md lists a change.
    """
    import datetime

    from stages.tools.release import release

    today = datetime.datetime.now(datetime.UTC).date()
    typer.echo(release(version, stage=stage, today=today).next_steps())


@app.command()
def verify(
    keep: Annotated[
        Path | None, typer.Option(help="A new folder that keeps both builds.")
    ] = None,
) -> None:
    """Build the last commit twice in clean clones and compare every output.

    Exit code 1 if the two builds differ, or if they differ from a dvc.lock of the same
    processor and libraries.
    """
    from stages.tools.verify import run

    run(keep)


@app.command()
def doctor() -> None:
    """Check this machine and this checkout, and tell how to solve each problem.

    Reads only, and uses no network. Exit code 1 if something is broken.
    """
    from stages.tools.doctor import run

    run()


@app.command()
def schedule() -> None:
    """Serve the Prefect flows on the schedules in prefect.yaml."""
    from stages.flow.serving import serve

    serve()


def main() -> None:
    """Runs the command line; errors end in one sentence."""
    if "_LUNGFIELD_COMPLETE" in os.environ:  # the shell asks for completions
        app(prog_name="lungfield")
    errors.run(_run)


def _run() -> None:
    """Runs a command; Typer's own runner ends every signal with exit code 130."""
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

"""Dice on radiographs the model never saw, beside figures published across sets.

A model and a labelled folder or zip of another hospital, both given; counted as
`evaluate` counts. To be reached: a mean of 0.965.
"""

from pathlib import Path

from benchmarks import data, processes
from benchmarks.frame import Options, Reach, Row
from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.inference import score

OPTIONS = ("data", "model", "out")
LONG = True
PUBLISHED = (0.942, 0.973)  # between data sets of adults


def bench(options: Options) -> list[Row]:
    """Scores the data set.

    Raises:
        PipelineError: If no data set is named: phantoms are no other hospital.
    """
    if options.data is None and not options.quick:
        raise PipelineError(
            "across needs a labelled data set of another hospital, and none is part of "
            "this project; name a folder or a zip with --data"
        )
    model = options.model or paths.EXPORT / "unet.onnx"
    params = load_params()
    with processes.workspace() as folder:
        ingest, source = data.ingest_params(options), options.data
        if source is None:
            pairs = data.encoded(options, 3)
            source = folder / "all.zip"
            data.write_zip(pairs, source)
            ingest = data.params_for(pairs, source, params).ingest
        metrics = score.score(
            model,
            source,
            options.out or folder / "scores",
            ingest=ingest,
            evaluate=params.evaluate,
        )
    dice = metrics["dice"]
    return [
        Row(
            Path(source).name,
            dice["mean"],
            "Dice",
            PUBLISHED[0],
            f"published across sets, to {PUBLISHED[1]}; lowest",
            dice["mean"] / PUBLISHED[0],
            Reach(0.965, of="figure"),
            {
                "5th percentile": dice["p05"],
                "interval": f"{dice['ci_low']:.4f} to {dice['ci_high']:.4f}",
                "images": metrics["num_images"],
                "skipped": metrics["num_skipped"],
            },
        )
    ]

"""The best held-out Dice within so many minutes of training a fold, over all folds.

The pipeline's own stages on the given data, each fold held out once; as many epochs as
MINUTES hold by the measured time of a step. Beside: figures published on this
database. To be reached: a mean of 0.975 and 0.94 at the 5th percentile.
"""

import contextlib
import statistics
from pathlib import Path

import pandas as pd

from benchmarks import data, processes
from benchmarks.frame import Options, Reach, Row, seconds
from stages.core import files, paths
from stages.core.params import Params, TrainParams, load_params
from stages.datasets.pairs import Pair, read_splits
from stages.ingest import ingest
from stages.split import split
from stages.validate import validate

OPTIONS = ("data", "pairs", "minutes", "folds", "out")
LONG = True
FOLDS = 5
MINUTES = 10.0
PUBLISHED = (0.963, 0.987)
TIMED_STEPS = 20


def bench(options: Options) -> list[Row]:
    """Trains and scores fold by fold; quick leaves it at the first."""
    folds = options.folds or FOLDS
    pairs = data.all_pairs(options)
    tables, epochs = [], 0
    with processes.workspace() as folder:
        params = _data_stages(options, pairs, folder)
        for fold in range(1 if options.quick else folds):
            with contextlib.chdir(folder):
                table, epochs = _fold(options, params, pairs, fold, folds)
            tables.append(table)
    scores = pd.concat(tables, ignore_index=True)
    if options.out is not None:
        files.write_csv(options.out / "final_dice.csv", scores)
    low = float(scores["dice"].quantile(0.05))
    mean = float(scores["dice"].mean())
    return [
        Row(
            f"mean over {len(scores)} images, each held out once",
            mean,
            "Dice",
            PUBLISHED[0],
            f"published, to {PUBLISHED[1]}; lowest",
            mean / PUBLISHED[0],
            Reach(0.975, of="figure"),
            {"folds": folds, "images": len(scores), "epochs": epochs},
        ),
        Row("5th percentile", low, "Dice", reach=Reach(0.94, of="figure")),
    ]


def _data_stages(options: Options, pairs: list[Pair], folder: Path) -> Params:
    """Ingests and validates once; all folds read the same."""
    source = folder / "all.zip"
    data.write_zip(pairs, source)
    params = data.params_for(pairs, source, load_params())
    if options.quick:
        few = params.validate_.model_copy(update={"min_pairs": 1})
        params = params.model_copy(update={"validate_": few})
    with contextlib.chdir(folder):
        ingest(params.ingest)
        validate(params.validate_)
    return params


def _fold(
    options: Options, params: Params, pairs: list[Pair], fold: int, folds: int
) -> tuple[pd.DataFrame, int]:
    """One fold's held-out images and their scores, and the epochs it trained."""
    from benchmarks import training
    from stages.evaluate import evaluate
    from stages.train import train

    split(params.split.model_copy(update={"folds": folds, "fold": fold}))
    settings = training.params_of(params.train, options)
    if not options.quick:
        num_pairs = int((read_splits()["split"] == "train").sum())
        epochs = _epochs(settings, options, pairs, num_pairs)
        settings = settings.model_copy(update={"epochs": epochs})
    train(settings)
    evaluate(params.evaluate)
    return pd.read_csv(paths.PER_IMAGE).assign(fold=fold), settings.epochs


def _epochs(
    settings: TrainParams, options: Options, pairs: list[Pair], num_pairs: int
) -> int:
    """How many fit into the minutes, by the measured times of steps."""
    half = settings.half_size_fraction
    step_s = (1 - half) * _step_s(settings, settings.image_size, pairs)
    if half:
        step_s += half * _step_s(settings, settings.image_size // 2, pairs)
    epoch_s = step_s * -(-num_pairs // settings.batch_size)
    return max(1, int(60 * (options.minutes or MINUTES) / epoch_s))


def _step_s(settings: TrainParams, size: int, pairs: list[Pair]) -> float:
    """Median seconds of a real step, input included, on pictures of one size."""
    from benchmarks import training

    even = settings.model_copy(update={"image_size": size, "half_size_fraction": 0.0})
    few = pairs[: 4 * settings.batch_size]
    steps = training.steps(training.trainer_of(even), few)
    next(steps)
    return statistics.median(seconds(lambda: next(steps)) for _ in range(TIMED_STEPS))

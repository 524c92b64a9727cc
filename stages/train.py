"""Trains a deeply supervised U-Net on the training side of the split.

Reads   data/ingested, data/splits/pairs.csv (its train rows alone)
Writes  data/model/unet.keras, history.csv, gradients.csv, build.json
        (of several hosts the chief alone writes)
Why     so that one command, one seed and one data set give one model, bit for bit,
        and an interrupted training goes on from its last finished epoch
"""

import hashlib
import json
import logging
import os
import platform
import sys
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from stages.core import canonical, files, input_check, paths, processor
from stages.core.errors import PipelineError, run
from stages.core.params import TrainParams, load_params
from stages.datasets.pairs import read_splits, seeded_rank
from stages.nn import dataset, models
from stages.nn.cluster import Cluster, connect
from stages.nn.training import (
    Checkpoint,
    GradientProbe,
    Trainer,
    configure_runtime,
    fingerprint,
    learning_rate_at,
    precision,
    seed_everything,
)

logger = logging.getLogger(__name__)

PROBE_PAIRS = 4
LIBRARIES = ("keras", "numpy", "opencv-python-headless", "tensorflow")


def train(
    params: TrainParams,
    *,
    ingested: Path = paths.INGESTED,
    splits: Path = paths.SPLIT_PAIRS,
    model_path: Path = paths.MODEL,
    history_path: Path = paths.HISTORY,
    gradients_path: Path = paths.GRADIENTS,
    build_path: Path = paths.BUILD,
    checkpoints: Path = paths.CHECKPOINTS,
) -> Path:
    """Trains and saves the model.

    Args:
        params: The `train` section.
        ingested: Shards of pairs.
        splits: Split table; its validation rows are never read.
        model_path: Where the model goes; loads with Keras alone.
        history_path: One row an epoch: loss and Dice, trained and monitored.
        gradients_path: Gradient norm of each part of the network from each head.
        build_path: What it was built with: versions, processor, devices, params.
        checkpoints: Where the state after each epoch is kept until the end; several
            hosts must see the same folder.

    Returns:
        `model_path`.

    Raises:
        PipelineError: If there is nothing to train on, a pair cannot be decoded, or
            another host is lost.
    """
    # First of all: while the chief's plan still makes the data, the others wait here.
    cluster = connect()
    cluster.share(params.batch_size)  # before anything is read: does it divide?
    with cluster.watched():
        arrays, monitor = _load(params, ingested, splits)
        mark = fingerprint(
            params.model_dump_json().encode(),
            _code_and_libraries(),
            arrays.images,
            arrays.masks,
            monitor.images,
            monitor.masks,
        )
        _agree(cluster, mark)
        seed_everything(params.seed, deterministic=not params.jit_compile)
        trainer = Trainer(
            lambda: models.build(params, any_size=True),
            params,
            strategy=cluster.strategy,
        )
        logger.info(
            "%s: %s parameters",
            params.architecture,
            f"{trainer.model.count_params():,}",
        )
        progress = _fit(
            cluster, trainer, arrays, monitor, Checkpoint(checkpoints, mark)
        )
        weights = progress.best or trainer.weights()
        if cluster.is_chief:
            _save_model(params, weights, model_path)
            files.write_csv(history_path, pd.DataFrame(progress.history))
            columns = ["step", "head", "part", "gradient_norm"]
            files.write_csv(
                gradients_path, pd.DataFrame(progress.gradients, columns=columns)
            )
            files.write_json(build_path, _build_facts(params, cluster))
            files.remove(checkpoints)
        cluster.gather()  # a host that left sooner would look lost to the others
    return model_path


def _load(
    params: TrainParams, ingested: Path, splits: Path
) -> tuple[dataset.Arrays, dataset.Arrays]:
    """The pairs to train on and those to monitor."""
    train_ids, monitor_ids = monitored(read_splits(splits), params)
    logger.info("%d pairs to train, %d to monitor", len(train_ids), len(monitor_ids))
    arrays, monitor = (
        dataset.load_arrays(
            ids,
            image_size=params.image_size,
            channels=params.image_channels,
            ingested=ingested,
        )
        for ids in (train_ids, monitor_ids)
    )
    return arrays, monitor


def _agree(cluster: Cluster, mark: str) -> None:
    """Refuses hosts that would train on something else than the chief does."""
    marks = cluster.gather(int(mark[:15], 16))
    if len(set(marks)) > 1:
        others = sum(other != marks[0] for other in marks)
        raise PipelineError(
            f"train: all {cluster.num_hosts} hosts should have the same params, code, "
            f"libraries and data, but {others} differ from the chief; have them share "
            "its checkout, data/ included, and start all of them again"
        )


def monitored(table: pd.DataFrame, params: TrainParams) -> tuple[list[str], list[str]]:
    """Training and monitored pair ids; whole groups, drawn by seed.

    Args:
        table: The split table.
        params: monitor_fraction, seed.

    Raises:
        PipelineError: If there are no training rows, or too few to monitor some.
    """
    rows = table[table["split"] == "train"]
    if rows.empty:
        raise PipelineError(
            f"{paths.SPLIT_PAIRS} should have train rows but has none; "
            "lower split.validation_fraction and run `dvc repro`"
        )
    groups = sorted(rows["group"].unique(), key=lambda g: seeded_rank(g, params.seed))
    count = round(params.monitor_fraction * len(groups))
    if params.monitor_fraction and not 0 < count < len(groups):
        raise PipelineError(
            f"train.monitor_fraction {params.monitor_fraction} of {len(groups)} "
            f"training groups is {count}, which leaves one side empty; change it "
            "or set it to 0"
        )
    is_monitored = rows["group"].isin(groups[:count])
    return list(rows.loc[~is_monitored, "pair_id"]), list(
        rows.loc[is_monitored, "pair_id"]
    )


class Progress:
    """How far a training has come, in what a checkpoint holds besides the state."""

    def __init__(self) -> None:
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.gradients: list[tuple[int, int, str, float]] = []
        self.best: list[np.ndarray] = []  # weights of the best monitored Dice
        self.best_dice = -1.0
        self.best_epoch = 0

    def table(self) -> dict[str, Any]:
        """All but the arrays."""
        return {k: v for k, v in vars(self).items() if k != "best"}


def _fit(
    cluster: Cluster,
    trainer: Trainer,
    arrays: dataset.Arrays,
    monitor: dataset.Arrays,
    checkpoint: Checkpoint,
) -> Progress:
    """Runs the epochs that are left."""
    params = trainer.params
    progress = Progress()
    if (saved := checkpoint.load()) is not None:
        states, table = saved
        trainer.set_state(states["state"])
        vars(progress).update(table, best=states.get("best", []))
        logger.info("going on after epoch %d of %d", progress.epoch, params.epochs)
    finished = cluster.gather(progress.epoch)
    if len(set(finished)) > 1:
        raise PipelineError(
            f"train: every host should see the same checkpoint, found some after the "
            f"epochs {finished}; have them share {paths.CHECKPOINTS} and start all of "
            "them again"
        )
    steps_per_epoch = dataset.steps_an_epoch(len(arrays), params.batch_size)
    batches = dataset.training_batches(
        arrays,
        params,
        first=progress.epoch,
        share=cluster.share(params.batch_size),
    )
    probe = GradientProbe(
        trainer, arrays.images[:PROBE_PAIRS], arrays.masks[:PROBE_PAIRS]
    )

    while progress.epoch < params.epochs and not _is_stalled(progress, params):
        epoch = progress.epoch
        logger.info("epoch %d of %d", epoch + 1, params.epochs)
        bar = keras.utils.Progbar(
            steps_per_epoch,
            verbose=(1 if sys.stdout.isatty() else 2) if cluster.is_chief else 0,
        )
        sums = np.zeros(2)
        rate, side = 0.0, 0
        for index, batch in enumerate(islice(batches, steps_per_epoch)):
            side = batch[0].shape[1]
            step = epoch * steps_per_epoch + index
            if (
                params.gradient_log_interval
                and step % params.gradient_log_interval == 0
            ):
                progress.gradients += [(step, *row) for row in probe.norms()]
            rate = learning_rate_at(step, steps_per_epoch * params.epochs, params)
            loss, dice = (float(v) for v in trainer.train_step(batch, rate))
            if not np.isfinite(loss):
                raise PipelineError(
                    f"train: the loss is {loss} at step {step}; lower "
                    f"train.learning_rate ({params.learning_rate}) and run `dvc repro`"
                )
            sums += (loss, dice)
            bar.update(index + 1, [("loss", loss), ("dice", dice)])
        row = {
            "epoch": epoch + 1,
            "image_size": side,
            "loss": sums[0] / steps_per_epoch,
            "dice": sums[1] / steps_per_epoch,
            "learning_rate": rate,
        }
        progress.epoch = epoch + 1
        if len(monitor):
            row["monitor_loss"], row["monitor_dice"] = trainer.evaluate(
                monitor.images, monitor.masks
            )
            logger.info(
                "monitored Dice %.4f, loss %.4f",
                row["monitor_dice"],
                row["monitor_loss"],
            )
            if row["monitor_dice"] > progress.best_dice:
                progress.best_dice = row["monitor_dice"]
                progress.best_epoch = progress.epoch
                progress.best = trainer.weights()
        progress.history.append(row)
        if cluster.is_chief:
            checkpoint.save(
                {"state": trainer.state(), "best": progress.best}, progress.table()
            )
    if progress.best:
        logger.info(
            "epoch %d is kept: monitored Dice %.4f",
            progress.best_epoch,
            progress.best_dice,
        )
    return progress


def _is_stalled(progress: Progress, params: TrainParams) -> bool:
    patience = params.early_stopping_patience
    if not patience or progress.epoch - progress.best_epoch < patience:
        return False
    logger.info("no better monitored Dice for %d epochs; stopping early", patience)
    return True


def _save_model(params: TrainParams, weights: list[np.ndarray], path: Path) -> None:
    """Saves a float32 model without a trace of when or where."""
    with precision("float32"):
        model = models.build(params)
    model.set_weights(weights)
    with files.replacing(path) as partial:
        model.save(partial)
        canonical.keras_archive(partial)


def _code_and_libraries() -> bytes:
    """What besides params and data decides the weights."""
    digest = hashlib.sha256()
    folder = Path(dataset.__file__).parent
    for source in [Path(__file__), *sorted(folder.rglob("*.py"))]:
        digest.update(source.read_bytes())
    versions = [version(name) for name in LIBRARIES]
    digest.update(json.dumps([*versions, _onednn()]).encode())
    return digest.digest()


def _build_facts(params: TrainParams, cluster: Cluster) -> dict[str, Any]:
    """What the weights depend on beyond params and data, for a reader."""
    return {
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": processor.describe(),
        "threads": params.threads,
        "onednn": _onednn(),
        **cluster.facts(),
        "params": params.model_dump(),
    }


def _onednn() -> bool:
    """Whether oneDNN's kernels may be taken; `stages/__init__.py` asks for them."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def main() -> None:
    """Trains with the `train` section of `params.yaml`."""
    input_check.by_dvc()
    params = load_params().train
    configure_runtime(params.threads)
    train(params)


if __name__ == "__main__":
    run(main)

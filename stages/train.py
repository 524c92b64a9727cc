"""Trains a deeply supervised U-Net on the training side of the split.

Reads:  data/ingested, data/splits/pairs.csv (its train rows alone), and the model that
        train.initial_weights names, if any
Writes: data/model/unet.keras, history.csv, gradients.csv, build.json; of several
        hosts, the chief alone
Why:    the same seed and data give the same model, bit for bit, and an interrupted
        training goes on after its last saved epoch.
"""

import hashlib
import json
import logging
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.core import canonical, files, input_check, paths, processor
from stages.core.errors import PipelineError, run
from stages.core.params import TrainParams, load_params
from stages.datasets.pairs import read_splits, seeded_rank
from stages.nn import dataset, initial, models
from stages.nn.checkpoint import Checkpoint, fingerprint
from stages.nn.cluster import Cluster, connect
from stages.nn.fit import fit
from stages.nn.runtime import configure_runtime, precision

logger = logging.getLogger(__name__)

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
    curves: Path = paths.TENSORBOARD,
) -> Path:
    """Trains and saves the model, which loads with Keras alone.

    `history_path` gets loss and Dice per epoch, `gradients_path` the gradient norm of
    each part of the network from each head, `build_path` the versions, processor and
    devices. `checkpoints` holds the state after some epochs until the end; several
    hosts must see the same folder. `curves` is TensorBoard's.

    Returns:
        `model_path`.

    Raises:
        PipelineError: If a pair cannot be decoded, or another host is lost.
    """
    # The other hosts wait here until the chief's `dvc repro` has made the data.
    cluster = connect(params.batch_size)
    cluster.share(params.batch_size)  # before anything is read: does it divide?
    with cluster.watched():
        weights = initial.read(params)
        pairs, monitor = _load(params, ingested, splits)
        mark = fingerprint(
            params.model_dump_json().encode(),
            _code_and_libraries(),
            *(pairs.images, pairs.masks, monitor.images, monitor.masks),
            *weights,
        )
        progress = fit(
            params,
            pairs,
            monitor,
            cluster=cluster,
            checkpoint=Checkpoint(checkpoints, mark),
            initial=weights,
            curves=curves / f"{params.architecture}-{mark[:8]}",
        )
        if cluster.is_chief:
            _save_model(params, progress.weights, model_path)
            files.write_csv(history_path, pd.DataFrame(progress.history))
            columns = ["step", "head", "part", "gradient_norm"]
            files.write_csv(
                gradients_path, pd.DataFrame(progress.gradients, columns=columns)
            )
            files.write_json(build_path, _build_facts(params, cluster))
            files.remove(checkpoints)
        cluster.agree()  # a host that left sooner would look lost to the others
    return model_path


def _load(
    params: TrainParams, ingested: Path, splits: Path
) -> tuple[dataset.Arrays, dataset.Arrays]:
    """The pairs to train on and those to monitor."""
    train_ids, monitor_ids = monitored(read_splits(splits), params)
    logger.info("%d pairs to train, %d to monitor", len(train_ids), len(monitor_ids))
    pairs, monitor = (
        dataset.load_arrays(
            ids,
            image_size=params.image_size,
            channels=params.image_channels,
            ingested=ingested,
        )
        for ids in (train_ids, monitor_ids)
    )
    return pairs, monitor


def monitored(table: pd.DataFrame, params: TrainParams) -> tuple[list[str], list[str]]:
    """Draws the training and the monitored pair ids, whole groups, by seed.

    Raises:
        PipelineError: If there are too few to monitor some.
    """
    rows = table[table["split"] == "train"]
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


def _save_model(params: TrainParams, weights: list[np.ndarray], path: Path) -> None:
    """Saves a float32 model, free of time and place."""
    with precision("float32"):
        model = models.build(params)
    model.set_weights(weights)
    with files.replacing(path) as partial:
        model.save(partial)
        canonical.keras_archive(partial)


def _code_and_libraries() -> bytes:
    """A hash of what decides the weights besides params and data."""
    digest = hashlib.sha256()
    folder = Path(dataset.__file__).parent
    for source in [Path(__file__), *sorted(folder.rglob("*.py"))]:
        digest.update(source.read_bytes())
    versions = [version(name) for name in LIBRARIES]
    digest.update(json.dumps([*versions, _onednn()]).encode())
    return digest.digest()


def _build_facts(params: TrainParams, cluster: Cluster) -> dict[str, Any]:
    """The contents of `build.json`: what decides bits beside data, params and code.

    Nothing else is in it, so that its hash tells machines apart.
    """
    return {
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": processor.describe(),
        "threads": params.threads,
        "onednn": _onednn(),
        **cluster.facts(),
    }


def _onednn() -> bool:
    """Whether oneDNN's kernels are on, as `stages/__init__.py` sets them."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def main() -> None:
    """Runs the stage with its section of `params.yaml`."""
    input_check.by_dvc()
    params = load_params().train
    configure_runtime(params.threads, deterministic=not params.jit_compile)
    train(params)


if __name__ == "__main__":
    run(main)

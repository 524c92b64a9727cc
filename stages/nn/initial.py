"""Weights of an earlier training to go on from."""

import logging
from pathlib import Path

import numpy as np

from stages.core.errors import PipelineError
from stages.core.params import TrainParams
from stages.nn import models
from stages.nn.inference import load_model

logger = logging.getLogger(__name__)


def find(place: Path) -> Path | None:
    """The file that `train.initial_weights` names; None for a folder without one.

    Raises:
        PipelineError: If it does not exist, or a folder holds several.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise PipelineError(
            f"train.initial_weights names {str(place)!r}, which does not exist; "
            "correct it, or make an empty folder there for random weights"
        )
    found = sorted(place.glob("*.keras"))
    if len(found) > 1:
        raise PipelineError(
            f"train.initial_weights {str(place)!r} should hold one .keras file, but "
            f"holds {len(found)}; name the file itself"
        )
    return found[0] if found else None


def read(params: TrainParams) -> list[np.ndarray]:
    """The weights to begin with, in the order of the network's; [] for random ones.

    Raises:
        PipelineError: If the file cannot be read, or is of another network.
    """
    path = find(Path(params.initial_weights))
    if path is None:
        return []
    given = load_model(path, "correct train.initial_weights").get_weights()
    wanted = models.build(params).weights
    if [w.shape for w in given] != [tuple(w.shape) for w in wanted]:
        differing = (
            f"{tuple(own.shape)} at {own.path} but has {other.shape}"
            for own, other in zip(wanted, given, strict=False)
            if tuple(own.shape) != other.shape
        )
        more = f"{len(wanted)} arrays of weights but has {len(given)}"
        raise PipelineError(
            f"train.initial_weights {path} should fit the network {params.architecture}"
            f" of params.yaml, with {next(differing, more)}; set train.architecture, "
            "train.filters, train.image_channels and train.supervision_weights as in "
            "the training that made it"
        )
    logger.info("initial weights: those of %s", path)
    return given

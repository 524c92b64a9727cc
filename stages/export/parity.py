"""Whether an exported file answers as Keras does, on validation images."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.imaging import (
    Float,
    Mask,
    Predictor,
    UnreadableImageError,
    decode_image,
    decode_mask,
    preprocess,
    resize_prob,
    to_input,
)
from stages.core.params import ExportParams
from stages.datasets.pairs import read_pairs
from stages.scoring.metrics import Masks, dice

logger = logging.getLogger(__name__)

TIMED_RUNS = 9
TIMED_S = 2.0  # a large network is timed less often


@dataclass(frozen=True)
class Reference:
    """Validation images and Keras's answers to them."""

    images: Float  # (N, S, S, C) in [0, 1]
    masks: list[Mask]  # each at its own size
    prob: Float  # (N, S, S, 1)
    threshold: float


@dataclass(frozen=True)
class Differences:
    """Largest differences of one format to Keras, over images."""

    probability: float
    dice: float


def chosen(table: pd.DataFrame, count: int) -> list[str]:
    """At most `count` validation pairs, spread over the table and so over classes.

    Raises:
        PipelineError: If there are no validation rows.
    """
    ids = list(table.loc[table["split"] == "validation", "pair_id"])
    if not ids:
        raise PipelineError(
            f"{paths.SPLIT_PAIRS} should have validation rows but has none; raise "
            "split.validation_fraction and run `dvc repro`"
        )
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return [ids[place] for place in places]


def reference(
    pair_ids: list[str],
    predict: Predictor,
    *,
    size: int,
    channels: int,
    threshold: float,
    ingested: Path,
) -> Reference:
    """Reads the images and asks Keras.

    Args:
        pair_ids: Which.
        predict: The Keras model.
        size: Side of the network's input, pixels.
        channels: 1 or 3.
        threshold: A pixel at least this probable is foreground.
        ingested: The shards.

    Raises:
        PipelineError: If a pair is missing or cannot be decoded.
    """
    images, masks = [], []
    for pair in read_pairs(pair_ids, ingested):
        try:
            image, mask = pair.content()
            images.append(preprocess(decode_image(image, channels), size))
            masks.append(decode_mask(mask))
        except UnreadableImageError as error:
            raise PipelineError(
                f"{pair.pair_id}: accepted by validate but cannot be decoded "
                f"({error}); run `dvc repro` so that both see the same data"
            ) from None
    batch = to_input(np.stack(images))
    prob = np.concatenate([predict(one[None]) for one in batch])
    return Reference(batch, masks, prob, threshold)


def compare(
    name: str, predict: Predictor, wanted: Reference, params: ExportParams
) -> Differences:
    """Runs a format on the reference's images, one at a time.

    Args:
        name: Of the format, for messages.
        predict: The format.
        wanted: What Keras answered.
        params: The bounds.

    Raises:
        PipelineError: If a difference is over its bound, or not a number.
    """
    prob = np.concatenate([predict(one[None]) for one in wanted.images])
    found = Differences(
        probability=float(np.abs(prob - wanted.prob).max()),
        dice=max(
            _dice_difference(mask, here[:, :, 0], there[:, :, 0], wanted.threshold)
            for mask, here, there in zip(wanted.masks, prob, wanted.prob, strict=True)
        ),
    )
    for what, value, bound, key in (
        (
            "probability",
            found.probability,
            params.max_probability_difference,
            "max_probability_difference",
        ),
        ("Dice", found.dice, params.max_dice_difference, "max_dice_difference"),
    ):
        if not value <= bound:
            raise PipelineError(
                f"export: {name} differs from Keras by {value:.6f} in {what}, more "
                f"than export.{key} ({bound:g}); nothing was exported"
            )
    return found


def _dice_difference(mask: Mask, prob: Float, wanted: Float, threshold: float) -> float:
    """How far two probability maps' Dice are apart, at the mask's own size."""
    masks = [resize_prob(each, *mask.shape) >= threshold for each in (prob, wanted)]
    scores = [dice(Masks(mask_true=mask, mask_pred=each)) for each in masks]
    if np.isnan(scores).all():  # both empty, as the mask is
        return 0.0
    return abs(scores[0] - scores[1])


def log_latency(predictors: dict[str, Predictor], image: Float) -> None:
    """Logs the median time of one image in each format; times are no output.

    Args:
        predictors: By name.
        image: (S, S, C) in [0, 1].
    """
    for name, predict in predictors.items():
        logger.info("%s: %.1f ms an image", name, 1000 * _median_s(predict, image))


def _median_s(predict: Predictor, image: Float) -> float:
    predict(image[None])  # the first call is not like the others
    times: list[float] = []
    while len(times) < TIMED_RUNS and sum(times) < TIMED_S:
        start = time.perf_counter()
        predict(image[None])
        times.append(time.perf_counter() - start)
    return float(np.median(times))

"""Compares an exported file with Keras, on held-out images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.core import imaging
from stages.core.errors import PipelineError
from stages.core.imaging import Float, Mask, Predictor
from stages.core.params import ExportParams
from stages.datasets.pairs import read_pairs
from stages.scoring.metrics import Masks, dice


@dataclass(frozen=True)
class Reference:
    """Held-out images and the probabilities that Keras gives for them."""

    images: Float  # (N, S, S, C) in [0, 1]
    masks: list[Mask]  # each at its own size
    prob: Float  # (N, S, S, 1)
    threshold: float


@dataclass(frozen=True)
class Differences:
    """Largest differences of one format to Keras, over images."""

    probability: float
    dice: float


def spread(table: pd.DataFrame, side: str, count: int) -> list[str]:
    """At most `count` ids of one side, spread over the split table and its classes."""
    ids = list(table.loc[table["split"] == side, "pair_id"])
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return [ids[place] for place in places]


def read(
    pair_ids: Iterable[str], *, size: int, channels: int
) -> Iterator[tuple[Float, Mask]]:
    """Yields the network's input (1, S, S, C) and the mask at its own size.

    Raises:
        PipelineError: If a pair is missing or cannot be decoded.
    """
    for pair in read_pairs(pair_ids):
        image, mask = pair.decoded(channels)
        yield imaging.to_input(imaging.preprocess(image, size)[None]), mask


def reference(
    pair_ids: list[str],
    predict: Predictor,
    *,
    size: int,
    channels: int,
    threshold: float,
) -> Reference:
    """Reads the images and predicts them with Keras; arguments as in `read`."""
    found = list(read(pair_ids, size=size, channels=channels))
    return Reference(
        np.concatenate([image for image, _ in found]),
        [mask for _, mask in found],
        np.concatenate([predict(image) for image, _ in found]),
        threshold,
    )


def compare(
    name: str,
    predict: Predictor,
    wanted: Reference,
    params: ExportParams,
    batches: Iterable[int] = (1,),
) -> Differences:
    """Runs a format on the reference's images, in batches of several sizes.

    Raises:
        PipelineError: If a difference is over its bound, or not a number.
    """
    found = Differences(0, 0)
    for size in batches:
        starts = range(0, len(wanted.images), size)
        prob = np.concatenate([predict(wanted.images[i : i + size]) for i in starts])
        losses = [
            score(mask, here[:, :, 0], wanted.threshold)
            - score(mask, there[:, :, 0], wanted.threshold)
            for mask, here, there in zip(wanted.masks, prob, wanted.prob, strict=True)
        ]
        difference = np.abs(prob - wanted.prob).max(initial=found.probability)
        loss = np.abs(losses).max(initial=found.dice)
        found = Differences(float(difference), float(loss))
        for title, value in (("probability", difference), ("Dice", loss)):
            key = f"max_{title.lower()}_difference"
            if not value <= (bound := getattr(params, key)):
                raise PipelineError(
                    f"export: {name} differs from Keras by {value:.6f} in {title} at "
                    f"batches of {size}, more than export.{key} ({bound:g}); nothing "
                    "was exported"
                )
    return found


def score(mask: Mask, prob: Float, threshold: float) -> float:
    """Dice of a probability map (S, S) at the mask's own size; 1 if both are empty."""
    found = imaging.resize_prob(prob, *mask.shape) >= threshold
    value = dice(Masks(mask_true=mask, mask_pred=found))
    return 1.0 if np.isnan(value) else value

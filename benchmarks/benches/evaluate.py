"""Images per second of metrics and surface distances, beside Dice alone in NumPy.

At 256x256, as `evaluate` scores: probabilities resized, thresholded, all metrics, the
threshold curve and the kept mask. Target: 200 images per second.
"""

import cv2
import numpy as np

from benchmarks import data
from benchmarks.harness import Options, Row, alternate
from stages.core import imaging
from stages.core.imaging import Float, Mask
from stages.scoring.metrics import METRICS, Masks, dice
from stages.scoring.scores import Predicted, Scores

LONG = False
SIDE = 256  # of the masks
NETWORK_SIDE = 128  # of the probability maps
THRESHOLD = 0.5


def bench(options: Options) -> list[Row]:
    """Scores the same images in both ways."""
    count = options.size(64, 2)
    cases = [
        (mask, _imperfect(mask, seed))
        for seed, mask in enumerate(_masks(options, count))
    ]
    at_size = [(m, imaging.resize_prob(p, SIDE, SIDE) >= THRESHOLD) for m, p in cases]

    def whole() -> None:
        scores = Scores(THRESHOLD)
        for number, (mask, prob) in enumerate(cases):
            scores.add(Predicted(str(number), mask, prob))

    def metrics() -> None:
        for true, pred in at_size:
            masks = Masks(mask_true=true, mask_pred=pred)
            for metric in METRICS.values():
                metric.score(masks)

    def plain() -> None:
        for true, pred in at_size:
            2 * (true & pred).sum() / (true.sum() + pred.sum())

    took = alternate(
        {"whole": whole, "metrics": metrics, "plain": plain},
        repeats=2 if options.quick else 9,
    )
    mean = float(np.mean([dice(Masks(mask_true=t, mask_pred=p)) for t, p in at_size]))
    return [
        Row(
            what,
            count / took[name],
            "images/s",
            at_least=200,
            notes={
                "Dice alone in NumPy, images/s": count / took["plain"],
                "Dice": mean,
                "images": count,
            },
        )
        for name, what in (
            ("whole", "all that evaluate does to a prediction"),
            ("metrics", "the metrics alone"),
        )
    ]


def _masks(options: Options, count: int) -> list[Mask]:
    return [
        imaging.resize_mask(imaging.decode_mask(pair.mask or b""), SIDE, SIDE)
        for pair in data.encoded(options, count)
    ]


def _imperfect(mask: Mask, seed: int) -> Float:
    """A probability map as a network gives: soft edges, an outline that wanders."""
    draw = np.random.default_rng(seed)
    coarse = draw.normal(0, 0.3, (9, 9)).astype(np.float32)
    size = (NETWORK_SIDE, NETWORK_SIDE)
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(soft, (0, 0), 2)
    wander = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(soft + wander * soft * (1 - soft), 0, 1).astype(np.float32)

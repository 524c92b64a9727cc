"""Seconds of training until validation Dice at mask size is 0.96, beside the article's.

The article's own method (see `article.py`) on the same pairs, at the same width and
size, by the same clock: training alone counts, decoding and tracing included, scoring
does not. Where it never gets there within MINUTES, its Dice at the time this project
needed is reported, and the ratio is the least that it can be. This project's schedule
is as long as EPOCHS: the shipped one goes on to more than 0.96. To be reached: 10 times
faster.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.frame import Options, Reach, Row
from stages.core import imaging
from stages.core.params import TrainParams, load_params
from stages.datasets.pairs import Pair, seeded_rank
from stages.scoring.metrics import dice

logger = logging.getLogger(__name__)

OPTIONS = ("data", "pairs", "minutes", "epochs")
LONG = True
GOAL = 0.96
EPOCHS = 45
THRESHOLD = 0.5
MINUTES = 20.0  # the article's, at least; ten times what this project took, if more
HELD_OUT = 0.2
SCORED_EVERY_S = 10.0


@dataclass
class Race:
    """Validation Dice by seconds of training."""

    curve: list[tuple[float, float]] = field(default_factory=list)

    def reached(self, goal: float) -> float:
        """When; NaN if never."""
        return next((at for at, value in self.curve if value >= goal), math.nan)

    def at(self, seconds: float) -> float:
        """Dice when so much time had passed; 0 before the first scoring."""
        return max(((at, v) for at, v in self.curve if at <= seconds), default=(0, 0))[
            1
        ]

    @property
    def best(self) -> float:
        """The highest."""
        return max((value for _, value in self.curve), default=0.0)

    @property
    def lasted(self) -> float:
        """Seconds trained."""
        return self.curve[-1][0] if self.curve else 0.0


def bench(options: Options) -> list[Row]:
    """This project first, then the article for at least ten times as long."""
    from benchmarks import training
    from benchmarks.article import Article

    params = training.params_of(load_params().train, options)
    epochs = options.epochs or (params.epochs if options.quick else EPOCHS)
    params = params.model_copy(update={"epochs": epochs})
    goal = 0.0 if options.quick else GOAL
    pairs = data.all_pairs(options)
    train, held_out = _sides(pairs, params.seed)
    every = 0.0 if options.quick else SCORED_EVERY_S

    trainer = training.trainer_of(params)
    plain = _scorer(trainer.model, held_out, params)

    def averaged() -> float:
        with trainer.averaged_weights():
            return plain()

    ours = training.steps(trainer, train)
    first = run("this", ours, averaged, goal=goal, every=every, most=math.inf)
    article = Article(train, params)
    theirs_by_now = _scorer(article.model, held_out, params)
    limit = 60 * (options.minutes or MINUTES)
    most = 0.1 if options.quick else max(limit, 10 * first.lasted)
    trained = article.forever()
    second = run("article", trained, theirs_by_now, goal=goal, every=every, most=most)
    needed = first.reached(goal)
    theirs = second.reached(goal)
    never = math.isnan(theirs)
    return [
        Row(
            f"training until Dice {goal:g}" + ("" if needed == needed else ", never"),
            needed,
            "s",
            second.lasted if never else theirs,
            "the article, not there after" if never else "the article",
            (second.lasted if never else theirs) / needed,
            Reach(10),
            {
                "epochs": params.epochs,
                "Dice then": first.at(needed),
                "the article's Dice at that time": second.at(needed),
                "the article's best": second.best,
                "best": first.best,
                "pairs": len(train),
                "held out": len(held_out),
            },
        )
    ]


def run(
    name: str,
    steps: Iterator[float],
    score: Callable[[], float],
    *,
    goal: float,
    every: float,
    most: float,
) -> Race:
    """Trains until the goal or the end, and scores now and then, off the clock.

    Args:
        name: Of what is trained, for the log.
        steps: Trains a step at each `next`.
        score: Validation Dice.
        goal: Dice to stop at.
        every: Seconds of training between two scorings.
        most: Seconds of training.
    """
    race = Race()
    elapsed = scored = 0.0
    while True:
        start = time.perf_counter()
        over = next(steps, None) is None
        elapsed += time.perf_counter() - start
        over = over or elapsed >= most
        if over or elapsed - scored >= every:
            scored = elapsed
            race.curve.append((elapsed, score()))
            logger.info("%s, %.0f s: Dice %.4f", name, *race.curve[-1])
            over = over or race.curve[-1][1] >= goal
        if over:
            return race


def _sides(pairs: list[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs; equal pictures on one side."""

    def rank(pair: Pair) -> str:
        return seeded_rank(hashlib.sha256(pair.image or b"").hexdigest(), seed)

    ranked = sorted(pairs, key=rank)
    cut = max(1, round(HELD_OUT * len(ranked)))
    while cut < len(ranked) and rank(ranked[cut]) == rank(ranked[cut - 1]):
        cut += 1
    return ranked[cut:], ranked[:cut]


def _scorer(model: Any, pairs: list[Pair], params: TrainParams) -> Callable[[], float]:
    """Mean Dice of the model as it then is, at the masks' own size."""
    from stages.nn.inference import predictor

    predict = predictor(model)

    def score() -> float:
        scores = []
        for pair in pairs:
            mask = imaging.decode_mask(pair.mask or b"")
            image = imaging.decode_image(pair.image or b"", params.image_channels)
            pixels = imaging.to_input(imaging.preprocess(image, params.image_size))
            prob = imaging.resize_prob(predict(pixels[None])[0, :, :, 0], *mask.shape)
            scores.append(dice(mask_true=mask, mask_pred=prob >= THRESHOLD))
        return float(np.nanmean(scores))

    return score

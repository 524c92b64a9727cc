"""Which fault comes when: a sequence that a seed gives, as long as one likes."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from tests.faults.clones import seed_of
from tests.faults.kinds import applicable

STAGES = ("ingest", "validate", "split", "train", "evaluate", "gate", "export")
# What comes more often than once in a stage's turn.
OFTEN = {"kill": 2, "interrupt": 2, "disk full": 2, "checkpoint": 3}
# `make test`: what is quick, and a killed training.
SAMPLE = (
    ("train", "checkpoint"),
    ("split", "flipped bit"),
    ("ingest", "kill"),
    ("ingest", "interrupt"),
    ("ingest", "disk full"),
    ("ingest", "two at once"),
    ("ingest", "clock back"),
    ("gate", "term"),
    ("gate", "read-only"),
    ("gate", "kill"),
)


@dataclass(frozen=True)
class Case:
    """One fault to be done."""

    number: int
    stage: str
    kind: str
    seed: int

    def dice(self, attempt: int) -> random.Random:
        """What decides of points and bits; another attempt gets other ones."""
        return random.Random(seed_of(self.seed, self.number, attempt))


def cases(seed: int, count: int, inputs: dict[str, list[str]]) -> list[Case]:
    """The first faults of a seed's sequence; more of them change none of the first."""
    return list(islice(_sequence(seed, inputs), count))


def _sequence(seed: int, inputs: dict[str, list[str]]) -> Iterator[Case]:
    """Rounds in which every stage comes once, in an order of its own."""
    dice = random.Random(seed)
    turns = {stage: _kinds(dice, stage, inputs) for stage in STAGES}
    number = 0
    while True:
        for stage in dice.sample(STAGES, len(STAGES)):
            yield Case(number, stage, next(turns[stage]), seed)
            number += 1


def _kinds(
    dice: random.Random, stage: str, inputs: dict[str, list[str]]
) -> Iterator[str]:
    """Turns in which every kind comes that a stage can meet, some of them often."""
    own = random.Random(dice.random())
    while True:
        kinds = [k for k in applicable(inputs, stage) for _ in range(OFTEN.get(k, 1))]
        own.shuffle(kinds)
        yield from kinds


def sample(seed: int) -> list[Case]:
    """Ten faults that take about a minute of a processor."""
    return [Case(n, stage, kind, seed) for n, (stage, kind) in enumerate(SAMPLE)]

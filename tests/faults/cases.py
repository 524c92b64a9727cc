"""Which fault comes when: a sequence that a seed gives, as long as one likes."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tests.faults.kinds import applicable

STAGES = ("ingest", "validate", "split", "train", "evaluate", "gate", "export")
FLOW = "flow"
# What comes more often than once in a stage's turn.
OFTEN = {"kill": 2, "interrupt": 2, "disk full": 2, "checkpoint": 3}


@dataclass(frozen=True)
class Case:
    """One fault to be done, to a stage or to `FLOW`."""

    number: int
    stage: str
    kind: str
    seed: int

    def dice(self, attempt: int) -> random.Random:
        """What decides of points and bits, on every machine; others per attempt."""
        words = f"{self.seed} {self.number} {attempt}"
        return random.Random(hashlib.sha256(words.encode()).digest())


def of_stages(seed: int, count: int, inputs: dict[str, list[str]]) -> list[Case]:
    """Rounds in which every stage comes once; more of them change none of the first."""
    dice = random.Random(seed)
    turns = {
        stage: _turns(
            [k for k in applicable(inputs, stage) for _ in range(OFTEN.get(k, 1))],
            dice.random(),
        )
        for stage in STAGES
    }
    stages = _turns(STAGES, dice.random())
    return [
        Case(number, stage, next(turns[stage]), seed)
        for number, stage in enumerate(islice(stages, count))
    ]


def of_flows(seed: int, count: int, kinds: Sequence[str]) -> list[Case]:
    """Each kind once before any comes again."""
    turns = islice(_turns(kinds, seed), count)
    return [Case(number, FLOW, kind, seed) for number, kind in enumerate(turns)]


def _turns(words: Sequence[str], seed: float) -> Iterator[str]:
    """All words in one order, then in another, without an end."""
    dice = random.Random(seed)
    while True:
        yield from dice.sample(words, len(words))

"""The runs of the ablation: every arm with every seed."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from stages.tools.sweep import Planned

# Finest first: half as much each level down, as in arXiv 2110.03352.
WEIGHTS = {1: [1.0], 2: [1.0, 0.5], 3: [1.0, 0.5, 0.25]}
MOMENTA = (0.9, 0.99)
SEEDS = (1, 2, 3)
# Small, so that 18 runs take minutes; one fifth of the training groups is watched, for
# a Dice at every epoch on images that were not trained on.
SIZE: dict[str, Any] = {
    "train.image_size": 64,
    "train.filters": [4, 8, 16, 32],
    "train.low_resolution_fraction": 0.0,
    "train.monitor_fraction": 0.2,
    "evaluate.overlays_best": 0,
    "evaluate.overlays_median": 0,
    "evaluate.overlays_worst": 0,
}
GRADIENT_STEPS = 10  # between two looks at the gradients


@dataclass(frozen=True, order=True)
class Arm:
    """What is varied besides the seed."""

    momentum: float
    levels: int

    def __str__(self) -> str:
        """Such as `2 levels, batch norm 0.9`."""
        return f"{levels_text(self.levels)}, batch norm {self.momentum:g}"


def levels_text(levels: int) -> str:
    """How a table calls a number of supervised levels.

    Example:
        >>> levels_text(1), levels_text(3)
        ('no supervision', '3 levels')
    """
    return "no supervision" if levels == 1 else f"{levels} levels"


ARMS = [Arm(*pair) for pair in product(MOMENTA, WEIGHTS)]


def run_name(arm: Arm, seed: int) -> str:
    """Of one run, and so of its experiment."""
    return f"ablation-levels{arm.levels}-bn{arm.momentum:g}-seed{seed}"


def planned(data: dict[str, Any], *, epochs: int) -> list[Planned]:
    """All runs, a seed after the other: an early end leaves whole comparisons.

    Args:
        data: The params that name the data.
        epochs: Of each run.
    """
    return [
        Planned(
            run_name(arm, seed),
            data
            | SIZE
            | {
                "train.epochs": epochs,
                "train.gradient_log_interval": gradient_log_interval(epochs),
                "train.supervision_weights": WEIGHTS[arm.levels],
                "train.batch_norm_momentum": arm.momentum,
                "train.seed": seed,
            },
        )
        for seed in SEEDS
        for arm in ARMS
    ]


def gradient_log_interval(epochs: int) -> int:
    """Never more than epochs: `findings` counts an epoch's steps by it."""
    return min(GRADIENT_STEPS, epochs)

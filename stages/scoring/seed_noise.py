"""The effect of the training's random seed alone on the mean Dice.

`lungfield folds --seeds N` measures it and writes `data/seed_noise.json`, which Git
holds; the review reads it beside the interval.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from scipy import stats

from stages.core import files, paths

CONFIDENCE = 0.95


@dataclass(frozen=True)
class SeedNoise:
    """Mean Dice of runs that differ in `train.seed` alone."""

    dataset: str
    num_images: int  # held out in each run
    dice: dict[str, float]  # mean Dice by seed

    @property
    def standard_deviation(self) -> float:
        """Of one run's mean Dice."""
        return stdev(self.dice.values())

    @property
    def largest_difference(self) -> float:
        """The bound of 95 % of differences between two runs that differ in the seed.

        A Student's t bound: few seeds give a wide one.
        """
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, df=len(self.dice) - 1)
        return float(quantile * math.sqrt(2) * self.standard_deviation)

    def sentence(self) -> str:
        """The result for readers."""
        average = mean(self.dice.values())
        return (
            f"Dice {average:.4f} over {len(self.dice)} seeds, standard deviation "
            f"{self.standard_deviation:.4f}: the seed alone makes differences of up "
            f"to {self.largest_difference:.4f} between two runs (95 %)"
        )


def write(noise: SeedNoise, path: Path = paths.SEED_NOISE) -> None:
    """Writes the file that the review reads."""
    files.write_json(path, asdict(noise))


def read(path: Path = paths.SEED_NOISE) -> SeedNoise | None:
    """Reads what `write` wrote; None where nothing was measured."""
    return SeedNoise(**files.read_json(path)) if path.is_file() else None

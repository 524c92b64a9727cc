"""Does a loss at several decoder levels help? `python -m benchmarks.ablation [DATA]`.

Trains a small network with 1, 2 and 3 supervised levels, with two momenta of batch norm
and three seeds. Each run is a DVC experiment; the result is one table.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from tabulate import tabulate

from stages.core import files, paths
from stages.core.errors import run
from stages.scoring.metrics import confidence_interval
from stages.tools.sweep import Planned, data_values, sweep

# Finest first, half the weight per level down, as in arXiv 2110.03352.
WEIGHTS = {1: [1.0], 2: [1.0, 0.5], 3: [1.0, 0.5, 0.25]}
MOMENTA = (0.9, 0.99)
SEEDS = (1, 2, 3)
# 18 runs of this size take minutes. A fifth of the training groups is monitored.
SIZE: dict[str, Any] = {
    "train.architecture": "unet",
    "train.image_size": 64,
    "train.filters": [4, 8, 16, 32],
    "train.low_resolution_fraction": 0.0,
    "train.monitor_fraction": 0.2,
    "evaluate.overlays_best": 0,
    "evaluate.overlays_median": 0,
    "evaluate.overlays_worst": 0,
}
RESAMPLES, RESAMPLING_SEED = 10_000, 20

Runs = Mapping[str, Any]  # of `sweep`: results by run name


def run_name(levels: int, momentum: float, seed: int) -> str:
    """The name of a run, and so of its experiment."""
    return f"ablation-levels{levels}-bn{momentum:g}-seed{seed}"


def planned(data: dict[str, Any], *, epochs: int) -> list[Planned]:
    """All runs, one seed after the other: an early end leaves whole comparisons."""
    return [
        Planned(
            run_name(levels, momentum, seed),
            data
            | SIZE
            | {
                "train.epochs": epochs,
                "train.supervision_weights": WEIGHTS[levels],
                "train.batch_norm_momentum": momentum,
                "train.seed": seed,
            },
        )
        for seed, momentum, levels in product(SEEDS, MOMENTA, WEIGHTS)
    ]


def table(done: Runs) -> str:
    """The result as Markdown, one row per number of levels and momentum.

    The difference is to one level with the same momentum, paired by image and seed,
    with a 95 % bootstrap interval over groups.
    """
    rows = []
    for momentum, levels in product(MOMENTA, WEIGHTS):
        dice = _dice(done, levels, momentum)
        difference = dice - _dice(done, 1, momentum)
        rows.append(
            {
                "levels": levels,
                "batch norm": momentum,
                "Dice": f"{dice.mean(axis=1).mean():.4f}" if len(dice) else "-",
                "by seed": ", ".join(f"{dice[seed].mean():.4f}" for seed in dice),
                "minus 1 level": "" if levels == 1 else _shown(difference, done),
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _dice(done: Runs, levels: int, momentum: float) -> pd.DataFrame:
    """Dice of held-out images, one row per image and one column per seed."""
    names = {seed: run_name(levels, momentum, seed) for seed in SEEDS}
    return pd.DataFrame(
        {
            seed: done[name].per_image.set_index("pair_id")["dice"]
            for seed, name in names.items()
            if name in done
        }
    )


def _shown(difference: pd.DataFrame, done: Runs) -> str:
    """Mean difference with its interval."""
    difference = difference.dropna(axis=1, how="all")
    if difference.empty:
        return "-"
    splits = next(iter(done.values())).splits
    ids = difference.index.to_numpy(object)
    # Without the split table in the cache, each image is a group.
    if splits is not None:
        ids = splits.set_index("pair_id")["group"].reindex(ids).to_numpy(object)
    pooled = difference.mean(axis=1).to_numpy(np.float64)
    low, high = confidence_interval(
        pooled, ids, resamples=RESAMPLES, seed=RESAMPLING_SEED
    )
    return f"{np.nanmean(pooled):+.4f} ({low:+.4f} to {high:+.4f})"


def main(
    data: Annotated[
        Path | None, typer.Argument(help="Labelled pairs, a folder or zip.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="Classes to read (default: all).")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs per run.")] = 20,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for ablation.md.")
    ] = paths.WORK / "ablation",
) -> None:
    """Does a loss at several decoder levels help? 18 runs, one table."""
    swept = sweep(planned(data_values(data, classes or []), epochs=epochs))
    if swept.done:
        text = table(swept.done)
        files.write_text(out / "ablation.md", f"{text}\n")
        print(text)
    swept.require_all()


if __name__ == "__main__":
    run(lambda: typer.run(main))

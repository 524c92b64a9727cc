"""Cross-validation, every image scored once: `python -m stages.tools.folds [DATA]`.

Each fold is a run with the params of the last commit, kept as a DVC experiment; gate
and export are left alone. Writes `folds.md`, the table, and `per_image.csv`, every
image with its fold and its scores.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.core import arguments, files, paths
from stages.core.errors import PipelineError, run
from stages.review.comparison import RESAMPLES, SEED
from stages.review.run_results import RunResults
from stages.scoring.metrics import METRICS, bootstrap_interval
from stages.tools.sweep import Planned, add_data, data_values, markdown_table, sweep

NAME = "folds.md"
TABLE = "per_image.csv"


@dataclass(frozen=True)
class Row:
    """Dice of some held-out images."""

    name: str
    num_images: int
    mean: float
    low: float
    high: float
    p05: float
    lowest: float


def planned(data: dict[str, Any], folds: int) -> list[Planned]:
    """A run a fold.

    Args:
        data: The params that name the data.
        folds: How many, 2 or more.
    """
    return [
        Planned(
            run_name(fold, folds), data | {"split.folds": folds, "split.fold": fold}
        )
        for fold in range(folds)
    ]


def run_name(fold: int, folds: int) -> str:
    """Of one fold's run; folds are counted from 1 where a person reads them."""
    return f"fold-{fold + 1}-of-{folds}"


def gather(done: Mapping[str, RunResults], folds: int) -> pd.DataFrame:
    """Every image once.

    Args:
        done: Runs by name.
        folds: How many there should be.

    Returns:
        pair_id, class_name, METRICS, fold (from 1) and group; folds in order.

    Raises:
        PipelineError: If an image is held out in two folds: they are not of one split.
    """
    tables = []
    for fold in range(folds):
        found = done.get(run_name(fold, folds))
        if found is None:
            continue
        table = found.per_image[["pair_id", "class_name", *METRICS]].copy()
        if found.splits is None:
            raise PipelineError(
                f"{paths.SPLIT_PAIRS} of {found.revision} is in no cache here, so its "
                "groups are unknown; run `dvc fetch` (or remove that experiment with "
                "`dvc exp remove`, and run this again)"
            )
        groups = found.splits.set_index("pair_id")["group"]
        table["fold"] = fold + 1
        table["group"] = table["pair_id"].map(groups)
        tables.append(table)
    if not tables:
        raise PipelineError("no fold is done, so there is nothing to report")
    images = pd.concat(tables, ignore_index=True)
    twice = images["pair_id"].duplicated()
    if twice.any():
        raise PipelineError(
            f"{images.loc[twice, 'pair_id'].iloc[0]} should be held out in one fold "
            "but is in two; the data have changed between runs: run this again"
        )
    return images


def rows_of(images: pd.DataFrame, folds: int) -> list[Row]:
    """All images, then each fold, then each class where there are several."""
    rows = []
    num_done = images["fold"].nunique()
    everything = "all" if num_done == folds else f"{num_done} of {folds} folds"
    rows.append(_row(everything, images))
    rows += [_row(f"fold {fold}", some) for fold, some in images.groupby("fold")]
    if images["class_name"].nunique() > 1:
        rows += [_row(str(name), some) for name, some in images.groupby("class_name")]
    return rows


def _row(name: str, images: pd.DataFrame) -> Row:
    dice = images["dice"]
    low, high = bootstrap_interval(
        dice.to_numpy(np.float64),
        images["group"].to_numpy(object),
        resamples=RESAMPLES,
        seed=SEED,
    )
    return Row(
        name,
        len(images),
        float(dice.mean()),
        low,
        high,
        float(dice.quantile(0.05)),
        float(dice.min()),
    )


def page(images: pd.DataFrame, rows: list[Row], *, data: str) -> str:
    """The table as Markdown."""
    cells = [["images", "n", "Dice", "95 % interval", "5th percentile", "lowest"]]
    for row in rows:
        cells.append(
            [
                row.name,
                str(row.num_images),
                f"{row.mean:.4f}",
                f"{row.low:.4f} to {row.high:.4f}",
                f"{row.p05:.4f}",
                f"{row.lowest:.4f}",
            ]
        )
    spread = images.groupby("fold")["dice"].mean().std()
    undefined = int(images[list(METRICS)].isna().any(axis=1).sum())
    parts = [
        "# Cross-validation",
        f"{data}: every image scored once, at its mask's own size, by a model that was "
        "not trained on its group.",
        markdown_table(cells),
        "Interval: 95 % bootstrap of the mean over groups. "
        + (
            f"Standard deviation of the folds' means: {spread:.4f}. "
            if np.isfinite(spread)
            else ""
        )
        + f"{undefined} images have an undefined metric.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Runs the folds that are missing, then writes the table."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.folds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data(parser)
    parser.add_argument("--folds", type=_folds, default=5, help="2 or more")
    parser.add_argument(
        "-o", "--out", type=Path, default=paths.WORK / "folds", help="folder"
    )
    given = parser.parse_args()
    swept = sweep(planned(data_values(given.data, given.classes), given.folds))
    if swept.done:
        images = gather(swept.done, given.folds)
        rows = rows_of(images, given.folds)
        first = next(iter(swept.done.values()))
        known = str((first.ingested or {}).get("dataset", ""))
        name = given.data.name if given.data else known
        files.write_csv(given.out / TABLE, images.drop(columns="group"))
        text = page(images, rows, data=name)
        files.write_text(given.out / NAME, text)
        print(text)
        print(f"{given.out / NAME} holds this, {given.out / TABLE} every image")
    swept.require_all()


def _folds(text: str) -> int:
    value = arguments.positive(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"should be at least 2, found {text}")
    return value


if __name__ == "__main__":
    run(main)

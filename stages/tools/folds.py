"""Cross-validation: every image is scored by a model that never saw it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.core.params import SITES, load_params, parse_params, with_values
from stages.core.tables import markdown
from stages.datasets import sites
from stages.review.comparison import RESAMPLES, SEED
from stages.review.run_results import RunResults
from stages.scoring import seed_noise
from stages.scoring.metrics import confidence_interval, present
from stages.scoring.scores import num_undefined
from stages.scoring.seed_noise import SeedNoise
from stages.tools.sweep import Planned, data_values, sweep

NAME = "folds.md"
TABLE = "per_image.csv"


def by_fold(data: dict[str, Any], folds: int) -> dict[int, Planned]:
    """One run per fold, counted from 1; `data` are params that name the data."""
    return {
        fold + 1: Planned(
            f"fold-{fold + 1}-of-{folds}",
            data | {"split.folds": folds, "split.fold": fold},
        )
        for fold in range(folds)
    }


def by_site(data: dict[str, Any]) -> dict[str, Planned]:
    """One run per held-out site; `data` are params that name the data.

    Raises:
        PipelineError: If the data are not several sites.
    """
    params = with_values(load_params().model_dump(by_alias=True), data)
    ingest = parse_params(params).ingest
    names = sites.names(ingest) if ingest.layout == SITES else []
    if len(names) < 2:
        raise PipelineError(
            f"folds by site need ingest.layout {SITES} and several sites, found the "
            f"layout {ingest.layout} and {len(names)}"
        )
    return {
        name: Planned(
            f"site-{number}-{re.sub(r'[^A-Za-z0-9]+', '-', name)}",
            data | {"split.hold_out_sites": [name]},
        )
        for number, name in enumerate(names, start=1)
    }


def gather(
    done: Mapping[str, RunResults], runs: Mapping[Any, Planned], part: str
) -> pd.DataFrame:
    """The scores of every held-out image, with its group and its fold or site.

    Near-duplicates of several folds are held out in each of them. If `part` is `site`,
    a run counts only the images of its site.

    Raises:
        PipelineError: If the data have changed between runs.
    """
    tables = []
    for label, run in runs.items():
        found = done.get(run.name)
        if found is None:
            continue
        table = found.per_image
        counts = table["site"] == label if part == "site" else table["is_headline"]
        names = ["pair_id", "class_name", *present(table)]
        table = table.loc[counts, names].copy()
        if found.splits is None:
            raise PipelineError(
                f"{paths.SPLIT_PAIRS} of {found.revision} is missing in the DVC cache, "
                "so its groups are unknown; run `dvc fetch` (or remove that experiment "
                "with `dvc exp remove`, and run this again)"
            )
        groups = found.splits.set_index("pair_id")["group"]
        table[part] = label
        table["group"] = table["pair_id"].map(groups)
        tables.append(table)
    if not tables:
        raise PipelineError(f"no {part} has finished")
    data = {r.revision.outs.get(str(paths.INGESTED_SUMMARY)) for r in done.values()}
    if len(data) > 1:
        raise PipelineError(
            "all runs should read the same data, but these changed between them; "
            "remove the experiments with `dvc exp remove` and run this again"
        )
    return pd.concat(tables, ignore_index=True)


def _cells(name: str, images: pd.DataFrame) -> tuple[str, ...]:
    """A row of the table: Dice of some held-out images."""
    dice = images["dice"]
    low, high = confidence_interval(
        dice.to_numpy(np.float64),
        images["group"].to_numpy(object),
        resamples=RESAMPLES,
        seed=SEED,
    )
    return (
        name,
        str(len(images)),
        f"{dice.mean():.4f}",
        f"{low:.4f} to {high:.4f}" if np.isfinite(low) else "undefined",
        f"{dice.quantile(0.05):.4f}",
        f"{dice.min():.4f}",
    )


def page(images: pd.DataFrame, num_runs: int, part: str, *, data: str) -> str:
    """The table as Markdown: all images, then each fold or site, then each class."""
    once = images.groupby(["pair_id", "class_name", "group"], as_index=False)[
        present(images)
    ].mean()
    num_done = images[part].nunique()
    everything = "all" if num_done == num_runs else f"{num_done} of {num_runs} {part}s"
    rows = [_cells(everything, once)]
    rows += [_cells(f"{part} {label}", some) for label, some in images.groupby(part)]
    if images["class_name"].nunique() > 1:
        rows += [_cells(str(name), some) for name, some in once.groupby("class_name")]
    spread = images.groupby(part)["dice"].mean().std()
    undefined = num_undefined(once)
    parts = [
        "# Cross-validation",
        f"{data}: every image scored at its mask's own size by a model that was not "
        "trained on its group. Near-duplicates of several folds are held out in each "
        "of them, and count once, with the mean of their scores.",
        markdown(
            ("images", "n", "Dice", "95 % interval", "5th percentile", "lowest"), rows
        ),
        "Interval: 95 % bootstrap of the mean over groups. "
        + (
            f"Standard deviation of the {part}s' means: {spread:.4f}. "
            if np.isfinite(spread)
            else ""
        )
        + f"{undefined} images have an undefined metric.",
    ]
    return "\n\n".join(parts) + "\n"


def run(
    data: Path | None, classes: list[str], folds: int, out: Path, *, part: str = "fold"
) -> None:
    """Runs the missing folds, then writes the table and every image's scores to `out`.

    The data are None for the source in `params.yaml`, and the classes empty for all.
    With the part `site`, each site is held out in turn instead of folds.

    Raises:
        PipelineError: If a fold fails; the others are reported first.
    """
    is_site = part == "site"
    values = data_values(data, classes, layout=SITES if is_site else "")
    runs: Mapping[Any, Planned] = by_site(values) if is_site else by_fold(values, folds)
    swept = sweep(runs.values())
    if swept.done:
        images = gather(swept.done, runs, part)
        first = next(iter(swept.done.values()))
        known = str((first.ingested or {}).get("dataset", ""))
        text = page(images, len(runs), part, data=data.name if data else known)
        files.write_csv(out / TABLE, images.drop(columns="group"))
        files.write_text(out / NAME, text)
        print(text)
        print(f"{out / NAME} holds this, {out / TABLE} every image")
    swept.require_all()


def run_seeds(data: Path | None, classes: list[str], num_seeds: int, out: Path) -> None:
    """Trains with several seeds and writes how much the seed alone changes mean Dice.

    Arguments as in `run`. Without data, it writes `data/seed_noise.json`, which the
    review reads.

    Raises:
        PipelineError: If a run fails.
    """
    first = load_params().train.seed
    values = data_values(data, classes)
    swept = sweep(
        Planned(f"seed-{seed}", values | {"train.seed": seed})
        for seed in range(first, first + num_seeds)
    )
    swept.require_all()
    results = list(swept.done.values())
    noise = SeedNoise(
        dataset=str((results[0].ingested or {}).get("dataset", "")),
        num_images=len(results[0].per_image),
        dice={
            name.removeprefix("seed-"): float(result.metrics["dice"]["mean"])
            for name, result in swept.done.items()
        },
    )
    path = paths.SEED_NOISE if data is None else out / paths.SEED_NOISE.name
    seed_noise.write(noise, path)
    print(noise.sentence())
    print(f"{path} holds this")

"""What the runs of an ablation say: contrasts with intervals, starts, gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from benchmarks.ablation.grid import (
    ARMS,
    SEEDS,
    Arm,
    gradient_log_interval,
    levels_text,
    run_name,
)
from stages.core.errors import PipelineError
from stages.review.comparison import RESAMPLES, SEED
from stages.review.evidence import Evidence
from stages.scoring.metrics import bootstrap_interval

START_DICE = 0.9  # a run has started when images it does not train on score this
EARLY = 0.25  # of the steps

Curve = pd.Series  # values by training step


@dataclass(frozen=True)
class Result:
    """Held-out Dice of one arm."""

    arm: Arm
    mean: float
    low: float
    high: float
    by_seed: dict[int, float]
    start: dict[int, int | None]  # steps until START_DICE; None if it never got there
    early: dict[int, float]  # monitored Dice after the EARLY share of the steps


@dataclass(frozen=True)
class Contrast:
    """One arm minus another, image by image, seeds averaged."""

    name: str
    mean: float
    low: float
    high: float
    by_seed: dict[int, float]

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0, and every seed was run and agrees.

        The interval holds the choice of patients, not that of seeds; three of those
        are too few for an interval of their own.
        """
        signs = {np.sign(value) for value in self.by_seed.values()}
        is_whole = len(self.by_seed) == len(SEEDS)
        return (self.low > 0 or self.high < 0) and is_whole and len(signs) == 1


@dataclass(frozen=True)
class Findings:
    """All that the report says."""

    results: list[Result]
    contrasts: list[Contrast]
    curves: dict[Arm, dict[int, Curve]]  # monitored Dice, by seed
    gradients: dict[Arm, dict[int, dict[str, Curve]]]  # by head and part
    num_runs: int
    num_images: int
    num_groups: int
    num_steps: int
    dataset: str


def find(done: Mapping[str, Evidence], *, epochs: int) -> Findings:
    """Reads the numbers off finished runs.

    Args:
        done: Runs by their names; those that failed are missing.
        epochs: Of each.

    Raises:
        PipelineError: If there is none.
    """
    if not done:
        raise PipelineError("no run is done, so there is nothing to report")
    by_arm = {
        arm: {
            seed: done[run_name(arm, seed)]
            for seed in SEEDS
            if run_name(arm, seed) in done
        }
        for arm in ARMS
    }
    by_arm = {arm: runs for arm, runs in by_arm.items() if runs}
    first = next(iter(done.values()))
    groups = _groups(first)
    curves = {
        arm: {seed: _monitored(run, epochs) for seed, run in runs.items()}
        for arm, runs in by_arm.items()
    }
    return Findings(
        results=[
            _result(arm, runs, curves[arm], groups) for arm, runs in by_arm.items()
        ],
        contrasts=_contrasts(by_arm, groups),
        curves=curves,
        gradients={arm: _gradients(runs) for arm, runs in by_arm.items()},
        num_runs=len(done),
        num_images=len(first.per_image),
        num_groups=groups.nunique(),
        num_steps=_num_steps(first, epochs),
        dataset=str((first.ingested or {}).get("dataset", "")),
    )


def _groups(run: Evidence) -> pd.Series:
    """Group by pair id; each its own where the split table is in no cache."""
    ids = list(run.per_image["pair_id"])
    if run.splits is None:
        return pd.Series(ids, index=ids)
    return run.splits.set_index("pair_id")["group"].reindex(ids)


def _dice(runs: Mapping[int, Evidence]) -> pd.DataFrame:
    """Held-out Dice: a row an image, a column a seed."""
    return pd.DataFrame(
        {seed: run.per_image.set_index("pair_id")["dice"] for seed, run in runs.items()}
    )


def _interval(values: pd.Series, groups: pd.Series) -> tuple[float, float]:
    return bootstrap_interval(
        values.to_numpy(np.float64),
        groups.reindex(values.index).to_numpy(object),
        resamples=RESAMPLES,
        seed=SEED,
    )


def _result(
    arm: Arm, runs: Mapping[int, Evidence], curves: dict[int, Curve], groups: pd.Series
) -> Result:
    dice = _dice(runs)
    low, high = _interval(dice.mean(axis=1), groups)
    return Result(
        arm,
        float(dice.mean(axis=1).mean()),
        low,
        high,
        {seed: float(dice[seed].mean()) for seed in runs},
        {seed: _started(curve) for seed, curve in curves.items()},
        {seed: _early(curve) for seed, curve in curves.items()},
    )


def _started(curve: Curve) -> int | None:
    reached = curve.index[curve >= START_DICE]
    return int(reached[0]) if len(reached) else None


def _early(curve: Curve) -> float:
    """The value at the first epoch's end past the EARLY share of all steps."""
    return float(curve[curve.index >= EARLY * curve.index[-1]].iloc[0])


def _contrasts(
    by_arm: Mapping[Arm, Mapping[int, Evidence]], groups: pd.Series
) -> list[Contrast]:
    """Levels against fewer at equal momentum, then momenta at equal levels."""
    pairs = [
        (fewer, more)
        for fewer, more in combinations(by_arm, 2)
        if fewer.momentum == more.momentum
    ]
    pairs += [
        (a, b) for a, b in combinations(by_arm, 2) if a.levels == b.levels and a != b
    ]
    found = []
    for base, head in pairs:
        # Seeds that both have: the same seed draws the same order and augmentation.
        difference = (_dice(by_arm[head]) - _dice(by_arm[base])).dropna(
            axis=1, how="all"
        )
        if difference.empty:
            continue
        pooled = difference.mean(axis=1)
        by_seed = {
            seed: float(difference[seed].mean()) for seed in SEEDS if seed in difference
        }
        name = (
            f"{levels_text(head.levels)} against {levels_text(base.levels)}, "
            f"batch norm {base.momentum:g}"
            if base.momentum == head.momentum
            else f"batch norm {head.momentum:g} against {base.momentum:g}, "
            f"{levels_text(base.levels)}"
        )
        low, high = _interval(pooled, groups)
        found.append(Contrast(name, float(pooled.mean()), low, high, by_seed))
    return found


def _num_steps(run: Evidence, epochs: int) -> int:
    """Steps of a whole training.

    The last step that was looked at is less than one look away from the end, and looks
    are no more than `epochs` steps apart: one number of steps an epoch alone fits.
    """
    assert run.gradients is not None
    last = int(run.gradients["step"].max())
    return (last + gradient_log_interval(epochs)) // epochs * epochs


def _monitored(run: Evidence, epochs: int) -> Curve:
    assert run.history is not None
    steps = run.history["epoch"].astype(int) * (_num_steps(run, epochs) // epochs)
    values = pd.to_numeric(run.history["monitor_dice"])
    return pd.Series(values.to_numpy(float), index=steps.to_numpy())


def _gradients(runs: Mapping[int, Evidence]) -> dict[int, dict[str, Curve]]:
    """By head and part: geometric mean over seeds, by step."""
    tables = [run.gradients for run in runs.values() if run.gradients is not None]
    table = pd.concat(tables)
    table = table[table["part"].str.match("encoder|middle")]
    table = table[table["gradient_norm"] > 0]
    logs = np.log(table["gradient_norm"])
    means = np.exp(logs.groupby([table["head"], table["part"], table["step"]]).mean())
    parts = list(dict.fromkeys(table["part"]))
    return {
        int(head): {part: means[head][part] for part in parts}
        for head in sorted(set(table["head"]))
    }


def gradient_ratios(
    found: Findings, arm: Arm, head: int
) -> dict[str, tuple[float, float]]:
    """A head's gradient over that of the only head without supervision.

    Returns:
        By part of the network: median ratio over the EARLY share of the steps, and
        over the last share of that length; NaN without the runs to compare with.
    """
    plain = found.gradients.get(Arm(arm.momentum, 1))
    ratios = {}
    for part, curve in found.gradients[arm][head].items():
        if plain is None:
            ratios[part] = (float("nan"), float("nan"))
            continue
        quotient = (curve / plain[0][part]).dropna()
        share = EARLY * found.num_steps
        early = quotient[quotient.index <= share]
        late = quotient[quotient.index >= found.num_steps - share]
        ratios[part] = (float(early.median()), float(late.median()))
    return ratios

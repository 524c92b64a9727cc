"""Many `dvc exp` runs, best Dice first: `python -m stages.tools.experiments`.

Prints what DVC's own table cannot: the interval beside the mean, only the params in
which the runs differ, and which runs no other beats in both Dice and work. Writes the
picture of that, `experiments.svg`: Dice against multiply-adds.

A run that fails at the gate is not kept by `dvc exp run`; `dvc exp save` right after
it keeps it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import paths
from stages.core.charts import SERIES, figure, short_numbers, standalone
from stages.core.errors import PipelineError, run
from stages.core.tables import flatten


@dataclass(frozen=True)
class Run:
    """One commit or experiment, as `dvc exp show` tells of it."""

    name: str
    params: dict[str, Any]
    dice: float  # NaN if nothing was evaluated
    low: float
    high: float
    passed: bool | None  # the gate's verdict
    multiply_adds: float  # NaN if nothing was exported

    @property
    def has_point(self) -> bool:
        """Whether it has a place in the picture."""
        return math.isfinite(self.dice) and math.isfinite(self.multiply_adds)


def runs(shown: list[dict[str, Any]]) -> list[Run]:
    """Runs in what `dvc exp show --json` printed, best Dice first; no queued ones."""
    entries = []
    for commit in shown:
        entries.append(commit)
        for experiment in commit.get("experiments") or []:
            # The last revision of one with checkpoints.
            entries += (experiment.get("revs") or [])[:1]
    found: dict[str, Run] = {}
    for entry in entries:
        if entry.get("data"):
            name = str(entry.get("name") or str(entry["rev"])[:10])
            found.setdefault(name, _run(name, entry["data"]))
    return sorted(
        found.values(),
        key=lambda r: (-r.dice if math.isfinite(r.dice) else math.inf, r.name),
    )


def _run(name: str, data: dict[str, Any]) -> Run:
    metrics = {
        path: flatten(found.get("data") or {})
        for path, found in (data.get("metrics") or {}).items()
    }
    params = {
        name: value
        for found in (data.get("params") or {}).values()
        for name, value in flatten(found.get("data") or {}).items()
    }
    dice = metrics.get(str(paths.METRICS), {})
    passed = metrics.get(str(paths.VERDICT), {}).get("passed")
    exported = metrics.get(str(paths.EXPORT_SUMMARY), {})
    return Run(
        name=name,
        params=params,
        dice=_number(dice.get("dice.mean")),
        low=_number(dice.get("dice.ci_low")),
        high=_number(dice.get("dice.ci_high")),
        passed=passed if isinstance(passed, bool) else None,
        # Behind a failed gate lies the export of an earlier run.
        multiply_adds=_number(exported.get("multiply_adds") if passed else None),
    )


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def differing(found: list[Run]) -> list[str]:
    """Names of params in which not all runs agree, in the order of params.yaml."""
    names = dict.fromkeys(name for one in found for name in one.params)
    return [
        name
        for name in names
        if len({json.dumps(one.params.get(name), sort_keys=True) for one in found}) > 1
    ]


def front(found: list[Run]) -> set[str]:
    """Names of the runs that no other beats: none is as good for less work.

    Example:
        >>> small = Run("small", {}, 0.95, 0.94, 0.96, True, 1e6)
        >>> large = Run("large", {}, 0.96, 0.95, 0.97, True, 9e6)
        >>> waste = Run("waste", {}, 0.94, 0.93, 0.95, True, 5e6)
        >>> sorted(front([small, large, waste]))
        ['large', 'small']
    """
    placed = [one for one in found if one.has_point]
    return {
        one.name
        for one in placed
        if not any(
            other.dice >= one.dice
            and other.multiply_adds <= one.multiply_adds
            and (other.dice, other.multiply_adds) != (one.dice, one.multiply_adds)
            for other in placed
        )
    }


def table(found: list[Run]) -> str:
    """Aligned text: a star marks runs that no other beats."""
    names, best = differing(found), front(found)
    rows = [["", "run", "Dice", "95 % interval", "gate", "multiply-adds", *names]]
    gates = {True: "passed", False: "FAILED", None: "-"}
    for one in found:
        rows.append(
            [
                "*" if one.name in best else "",
                one.name,
                _text(one.dice, ".4f"),
                f"{_text(one.low, '.4f')} to {_text(one.high, '.4f')}"
                if math.isfinite(one.low)
                else "-",
                gates[one.passed],
                _text(one.multiply_adds, ",.0f"),
                *(json.dumps(one.params.get(name)) for name in names),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _text(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else "-"


def picture(found: list[Run]) -> str:
    """SVG of Dice, with intervals, against multiply-adds; the front is joined.

    Raises:
        PipelineError: If no run has both numbers.
    """
    placed = [one for one in found if one.has_point]
    if not placed:
        raise PipelineError(
            "no run has both a Dice and an exported model, so there is no picture to "
            "draw; run `dvc exp run` with a model that passes the gate"
        )
    drawn, axes = figure(width=5.0, height=3.5)
    best = front(placed)
    for one in placed:
        colour = SERIES[one.name in best]
        axes.plot([one.multiply_adds] * 2, [one.low, one.high], color=colour)
        axes.plot([one.multiply_adds], [one.dice], "D", color=colour)
        if len(placed) <= 20:
            at = (one.multiply_adds, one.dice)
            axes.annotate(one.name, at, (5, 3), textcoords="offset points")
    line = sorted((r.multiply_adds, r.dice) for r in placed if r.name in best)
    axes.plot(*zip(*line, strict=True), "--", color=SERIES[1], linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(short_numbers())
    axes.set_xlabel("multiply-adds per image")
    axes.set_ylabel("mean Dice, 95 % interval")
    return standalone(drawn, "Dice against multiply-adds")


def show(words: list[str]) -> list[dict[str, Any]]:
    """What `dvc exp show --json` prints.

    Raises:
        PipelineError: If DVC fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "show", "--json", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says no more"]
        raise PipelineError(
            f"`dvc exp show` fails ({lines[-1].strip()}); run from the root of the "
            "repository"
        )
    shown = json.loads(done.stdout)
    return [entry for entry in shown if isinstance(entry, dict)]


def main() -> None:
    """Prints the table and writes the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.experiments",
        description="Compare dvc exp runs: Dice with intervals, params that differ.",
    )
    parser.add_argument(
        "-A", "--all-commits", action="store_true", help="runs of every commit"
    )
    parser.add_argument(
        "-n", "--num", type=int, help="runs of the last N commits (default: of HEAD)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("experiments.svg"),
        metavar="FILE",
        help="where to draw Dice against multiply-adds",
    )
    words = parser.parse_args()
    passed_on = ["--all-commits"] if words.all_commits else []
    if words.num is not None:
        passed_on += ["--num", str(words.num)]
    found = runs(show(passed_on))
    print(table(found))
    drawing = picture(found)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(drawing, encoding="utf-8", newline="\n")
    print(f"\n* no other run is as good for less work; see {words.out}")


if __name__ == "__main__":
    run(main)

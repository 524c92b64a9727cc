"""Compares many `dvc exp` runs in a table and a picture, best Dice first.

It shows what DVC's own table cannot: the interval beside the mean, only the params in
which the runs differ, and the runs that no other beats in both Dice and computation.
"""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.core import dvc_files, files, git, paths, processes
from stages.core.charts import SERIES, figure, short_numbers, standalone
from stages.core.errors import PipelineError
from stages.core.params import GateParams
from stages.core.tables import flatten, text
from stages.gate import checks


@dataclass(frozen=True)
class Run:
    """One commit or experiment of `dvc exp show`."""

    name: str
    params: dict[str, Any]
    dice: float  # NaN if nothing was evaluated
    low: float
    high: float
    passed: bool | None  # the gate's verdict
    multiply_adds: float  # per image; NaN if nothing was exported

    @property
    def has_point(self) -> bool:
        """Whether it can be drawn."""
        return math.isfinite(self.dice) and math.isfinite(self.multiply_adds)


def run(out: Path, *, num: int | None, all_commits: bool) -> None:
    """Prints the table and draws the picture, an SVG file.

    Raises:
        PipelineError: If DVC fails, or no run can be drawn.
    """
    words = ["--all-commits"] if all_commits else []
    words += [] if num is None else ["--num", str(num)]
    found = read(show(words))
    print(table(found))
    draw(found, out)
    print(f"\n* no other run is as good for less computation; see {out}")


def show(words: list[str]) -> list[dict[str, Any]]:
    """The records that `dvc exp show --json` prints.

    Raises:
        PipelineError: If DVC fails.
    """
    done = subprocess.run(
        processes.dvc("exp", "show", "--json", *words),
        capture_output=True,
        env=processes.environment(),
    )
    if done.returncode:
        reason = git.last_line(done.stderr) or "no reason given"
        raise PipelineError(
            f"`dvc exp show` failed ({reason}); run from the root of the repository"
        )
    return [entry for entry in json.loads(done.stdout) if isinstance(entry, dict)]


def read(shown: list[dict[str, Any]]) -> list[Run]:
    """The finished runs among the records of `show`, best Dice first."""
    found: dict[str, Run] = {}
    for commit in shown:
        experiments = commit.get("experiments") or []
        # Of an experiment, the last revision.
        for entry in (commit, *(e["revs"][0] for e in experiments if e.get("revs"))):
            if entry.get("data"):
                name = str(entry.get("name") or str(entry["rev"])[:10])
                found.setdefault(name, _run(name, entry["data"]))
    return sorted(
        found.values(),
        key=lambda r: (-r.dice if math.isfinite(r.dice) else math.inf, r.name),
    )


def _run(name: str, data: dict[str, Any]) -> Run:
    def read(kind: str, path: Path) -> dict[str, Any]:
        return dict(((data.get(kind) or {}).get(str(path)) or {}).get("data") or {})

    metrics, params = read("metrics", paths.METRICS), read("params", paths.PARAMS)
    passed = _passed(metrics, params)
    summary = (data.get("outs") or {}).get(str(paths.EXPORT_SUMMARY), {}).get("hash")
    place = dvc_files.stored(dvc_files.cache(), summary) if summary else None
    exported = files.read_json(place) if place is not None and place.is_file() else {}
    dice = metrics.get("dice") or {}
    return Run(
        name=name,
        params=flatten(params),
        dice=_number(dice.get("mean")),
        low=_number(dice.get("ci_low")),
        high=_number(dice.get("ci_high")),
        passed=passed,
        # After a failed gate, the export is that of an earlier run.
        multiply_adds=_number(exported.get("multiply_adds") if passed else None),
    )


def _passed(metrics: dict[str, Any], params: dict[str, Any]) -> bool | None:
    """Whether a run's metrics pass its own gate; None if it has none."""
    try:
        found = checks(metrics, GateParams.model_validate(params.get("gate")))
    except ValidationError:
        return None
    return all(check.passed for check in found) if metrics else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def differing(found: list[Run]) -> list[str]:
    """Names of the params in which runs differ, in the order of `params.yaml`."""
    names = dict.fromkeys(name for one in found for name in one.params)
    return [
        name
        for name in names
        if len({json.dumps(one.params.get(name), sort_keys=True) for one in found}) > 1
    ]


def front(found: list[Run]) -> set[str]:
    """Names of the runs that no other beats: none is as good for less computation.

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
    """The runs as aligned text; a star marks those of `front`."""
    names, best = differing(found), front(found)
    gates = {True: "passed", False: "FAILED", None: "-"}
    rows = [
        (
            "*" if one.name in best else "",
            one.name,
            _text(one.dice, ".4f"),
            f"{_text(one.low, '.4f')} to {_text(one.high, '.4f')}",
            gates[one.passed],
            _text(one.multiply_adds, ",.0f"),
            *(json.dumps(one.params.get(name)) for name in names),
        )
        for one in found
    ]
    head = ("", "run", "Dice", "95 % interval", "gate", "multiply-adds", *names)
    return text(head, rows)


def _text(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else "-"


def draw(found: list[Run], out: Path) -> None:
    """Draws Dice with its interval against multiply-adds; joins the front.

    Raises:
        PipelineError: If no run has both numbers.
    """
    placed = sorted((r for r in found if r.has_point), key=lambda r: r.multiply_adds)
    if not placed:
        raise PipelineError(
            "no run has both a Dice and an exported model, so there is nothing to "
            "draw; run `dvc exp run` with a model that passes the gate"
        )
    drawn, axes = figure(width=5.0, height=3.5)
    best = front(placed)
    for one in placed:
        colour = SERIES[one.name in best]
        axes.plot([one.multiply_adds] * 2, [one.low, one.high], color=colour)
        axes.plot([one.multiply_adds], [one.dice], "D", color=colour)
        at = (one.multiply_adds, one.dice)
        # A pair of "$" would make a formula.
        label = one.name.replace("$", r"\$")
        axes.annotate(label, at, (5, 3), textcoords="offset points")
    line = [(r.multiply_adds, r.dice) for r in placed if r.name in best]
    axes.plot(*zip(*line, strict=True), "--", color=SERIES[1], linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(short_numbers())
    axes.set_xlabel("multiply-adds per image")
    axes.set_ylabel("mean Dice, 95 % interval")
    files.write_text(out, standalone(drawn, "Dice against multiply-adds"))

"""Compares many `dvc exp` runs in a table and a picture, best Dice first.

It shows what DVC's own table lacks: the interval beside the mean, only the params in
which the runs differ, and the runs that no other run beats in both Dice and
computation.
"""

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.ticker import EngFormatter

from stages.core import files, git
from stages.core.charts import SERIES, figure, standalone
from stages.core.errors import PipelineError
from stages.core.params import flatten
from stages.core.tables import text
from stages.review.revision import Revision, resolve
from stages.review.run_results import load


@dataclass(frozen=True)
class Run:
    """The results of a commit or of an experiment."""

    name: str
    params: dict[str, Any]  # by dotted name
    dice: float
    low: float  # of the interval; NaN if undefined
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
        PipelineError: If this is not a repository, or no run can be drawn.
    """
    found = read(num or 1, all_commits=all_commits)
    print(table(found))
    draw(found, out)
    print(f"\n* no other run is as good for less computation; see {out}")


def read(num: int, *, all_commits: bool) -> list[Run]:
    """The last `num` commits, or all, and their experiments, best Dice first.

    Commits and experiments without an evaluated model are left out.
    """
    resolve("HEAD")
    words = ["--branches", "--tags"] if all_commits else [f"--max-count={num}"]
    commits = git.output("log", "--format=%H %h", *words, "HEAD").splitlines()
    names = dict(line.split() for line in commits)
    words = ["--format=%(objectname) %(refname)", "refs/heads", "refs/exps"]
    for line in git.output("for-each-ref", *words).splitlines():
        commit, _, reference = line.partition(" ")
        _, kind, start, *rest = reference.split("/", 4)
        if kind == "heads" and commit in names:
            names[commit] = reference.removeprefix("refs/heads/")
        # Two digits of the commit that it starts from, the other 38, and its name.
        elif kind == "exps" and len(rest) == 2 and start + rest[0] in names:
            names[commit] = rest[1]
    found = []
    for commit, name in names.items():
        with contextlib.suppress(PipelineError):  # nothing was evaluated there
            found.append(_run(name, Revision(name, commit)))
    return sorted(found, key=lambda r: (math.isnan(r.dice), -r.dice, r.name))


def _run(name: str, revision: Revision) -> Run:
    results = load(revision)
    dice = results.metrics["dice"]
    found = [dice.get(name) for name in ("mean", "ci_low", "ci_high")]
    found.append((results.export or {}).get("multiply_adds"))
    mean, low, high, cost = (math.nan if value is None else value for value in found)
    return Run(name, flatten(results.params), mean, low, high, results.gate, cost)


def differing(found: list[Run]) -> list[str]:
    """Names of the params in which runs differ, in the order of `params.yaml`."""
    names = dict.fromkeys(name for one in found for name in one.params)
    return [
        name
        for name in names
        if len({json.dumps(one.params.get(name), sort_keys=True) for one in found}) > 1
    ]


def front(found: list[Run]) -> set[str]:
    """Names of the runs that no other beats: none is as good for less computation."""
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
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 2M, 500k
    axes.set_xlabel("multiply-adds per image")
    axes.set_ylabel("mean Dice, 95 % interval")
    files.write_text(out, standalone(drawn, "Dice against multiply-adds"))

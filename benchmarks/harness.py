"""Options, rows and side-by-side timing, shared by all benchmarks."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from stages.core import plugins

FOLDER = Path(__file__).parent / "benches"


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    quick: bool = False  # tiny sizes: shows that it works, measures nothing
    data: Path | None = None  # labelled pairs, folder or zip; None draws phantoms
    pairs: int | None = None

    def size(self, usual: int, tiny: int) -> int:
        """The number of pairs: as asked for, else the usual, or tiny when quick."""
        return self.pairs or (tiny if self.quick else usual)


@dataclass(frozen=True)
class Row:
    """A figure beside its peer; a bound is of their ratio, or of a lone figure."""

    name: str
    figure: float
    unit: str
    peer: float = math.nan
    peer_name: str = ""
    at_least: float = -math.inf
    at_most: float = math.inf
    notes: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The figure in units of its peer; NaN without one."""
        return self.figure / self.peer if self.peer else math.nan

    @property
    def reached(self) -> bool:
        """Whether the bounds are met."""
        value = self.figure if math.isnan(self.peer) else self.ratio
        return self.at_least <= value <= self.at_most


def names() -> list[str]:
    """All benchmarks, as the command line spells them."""
    return [name.replace("_", "-") for name in plugins.names(FOLDER)]


def load(name: str) -> ModuleType:
    """The module of a benchmark; PipelineError if there is none of that name."""
    plugins.check("benchmark", name, names())
    return plugins.load(f"{__package__}.benches", name.replace("-", "_"))


def alternate(
    functions: Mapping[str, Callable[[], object]], *, repeats: int
) -> dict[str, float]:
    """Median seconds of each function, called in turns after one call to warm up.

    Other work of the machine then slows all of them alike. Without repeats, the
    warm-up counts.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            elapsed = seconds(function)
            if turn or not repeats:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def seconds(function: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a straight line through log(values) over log(sizes), least squares.

    Example:
        >>> round(exponent([1, 10, 100], [2, 20, 200]), 6)
        1.0
    """
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope


def render(name: str, rows: Sequence[Row]) -> str:
    """The rows of a benchmark as lines of text."""
    lines = [name]
    for row in rows:
        told = f"  {row.name}: {number(row.figure)} {row.unit}"
        if math.isfinite(row.ratio):
            told += f"; {row.peer_name} {number(row.peer)} {row.unit}"
            told += f"; ratio {row.ratio:.3g}"
        for sign, bound in ((">=", row.at_least), ("<=", row.at_most)):
            if math.isfinite(bound):
                word = "reached" if row.reached else "NOT reached"
                told += f"  [{sign} {bound:g}: {word}]"
        lines.append(told)
        if row.notes:
            notes = (f"{key} {number(value)}" for key, value in row.notes.items())
            lines.append(f"      {', '.join(notes)}")
    return "\n".join(lines)


def number(value: float | str) -> str:
    """A measurement with four digits."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

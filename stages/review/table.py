"""Metrics of both sides as rows: values, difference, which way is better, bounds."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.datasets.pairs import natural_key
from stages.gate import flatten
from stages.review.comparison import Comparison, Difference
from stages.review.run_results import METRICS, RunResults

# 1: more is better; -1: less is better. By the first part of a metric's name.
DIRECTIONS = {"dice": 1, "iou": 1, "hd95_px": -1, "assd_px": -1, "num_undefined": -1}
ABSENT = "\N{EN DASH}"  # where a side has no such value
_STATISTICS = ("mean", "ci_low", "ci_high", "median", "p05", "min")


@dataclass(frozen=True)
class Row:
    """One metric; texts are ready to be shown."""

    name: str
    base: str
    head: str
    difference: str  # "" where none may be given
    interval: str  # of the mean of paired differences
    mark: str  # "better", "worse", "same" or ""
    is_shown: bool  # whether the interval leaves out 0
    bound: str
    passed: bool | None  # head's check; None without a bound


@dataclass(frozen=True)
class ClassRow:
    """Dice of one class."""

    name: str
    num_base: int
    num_head: int
    row: Row


def metric_rows(
    base: RunResults, head: RunResults, comparison: Comparison
) -> list[Row]:
    """Rows of `metrics.json`, most important first; classes are left to `class_rows`.

    Differences are given only where both sides scored the same images.
    """
    values = [_scalars(e.metrics) for e in (base, head)]
    names = sorted(set(values[0]) | set(values[1]), key=_order)
    bounded = [n for e in (base, head) for n in _bounds(e) if "by_class." not in n]
    return [
        _row(
            name,
            values[0].get(name),
            values[1].get(name),
            comparison.differences.get(name.removesuffix(".mean"))
            if name.endswith(".mean") and comparison.same_images
            else None,
            with_difference=comparison.same_images,
            bound=_bound(name, base, head),
            passed=_passed(name, head),
        )
        for name in dict.fromkeys([*names, *bounded])
    ]


def common_rows(comparison: Comparison) -> list[Row]:
    """Rows over the images that both sides scored, for sides that scored others too."""
    common = comparison.images[comparison.images["in_both"]]
    rows = []
    for name in METRICS:
        pair = common[[f"{name}_base", f"{name}_head"]].dropna()
        if pair.empty:
            continue
        sides = [_statistics(pair[column], name) for column in pair]
        for statistic in sides[0]:
            is_mean = statistic == "mean"
            rows.append(
                _row(
                    f"{name}.{statistic}",
                    sides[0][statistic],
                    sides[1][statistic],
                    comparison.differences.get(name) if is_mean else None,
                    with_difference=True,
                    bound="",
                    passed=None,
                )
            )
    return rows


def class_rows(
    base: RunResults, head: RunResults, comparison: Comparison
) -> list[ClassRow]:
    """Dice by class, over the images that both sides scored."""
    counts = [e.per_image["class_name"].value_counts() for e in (base, head)]
    names = sorted(set(counts[0].index) | set(counts[1].index), key=natural_key)
    rows = []
    for name in names:
        found = comparison.by_class.get(name)
        row = _row(
            "dice.mean",
            found.base if found else None,
            found.head if found else None,
            found,
            with_difference=found is not None,
            bound=_bound(f"by_class.{name}.dice.mean", base, head),
            passed=_passed(f"by_class.{name}.dice.mean", head),
        )
        num_base, num_head = (int(count.get(name, 0)) for count in counts)
        rows.append(ClassRow(name, num_base, num_head, row))
    return rows


def number(name: str, value: Any) -> str:
    """A metric as people read it: 4 digits of overlap, 2 of pixels, counts whole."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "undefined"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not a number"
    return f"{value:.{_digits(name)}f}" if _digits(name) else f"{value:,.0f}"


def signed(name: str, value: float) -> str:
    """A difference, with its sign; 0 has none."""
    text = f"{value:+,.{_digits(name)}f}"
    return text.lstrip("+-") if not float(text.replace(",", "")) else minus(text)


def minus(text: str) -> str:
    """A true minus sign, as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def interval(name: str, difference: Difference) -> str:
    """`-0.0123 to +0.0045`, or why there is none."""
    if math.isnan(difference.low):
        return "one group only"
    return f"{signed(name, difference.low)} to {signed(name, difference.high)}"


def _scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    return flatten({k: v for k, v in metrics.items() if k != "by_class"})


def _statistics(values: "pd.Series[float]", name: str) -> dict[str, float]:
    found = {"mean": float(values.mean())}
    if DIRECTIONS[name] > 0:
        found |= {
            "median": float(values.median()),
            "p05": float(values.quantile(0.05)),
            "min": float(values.min()),
        }
    return found


def _order(name: str) -> tuple[int, int, str]:
    head, _, last = name.partition(".")
    heads, statistics = list(DIRECTIONS), list(_STATISTICS)
    return (
        heads.index(head) if head in heads else len(heads),
        statistics.index(last) if last in statistics else len(statistics),
        name,
    )


def _digits(name: str) -> int:
    head = name.split(".")[0]
    if head.endswith("_px"):
        return 2
    return 0 if head.startswith("num_") else 4


def _row(
    name: str,
    base: Any,
    head: Any,
    paired: Difference | None,
    *,
    with_difference: bool,
    bound: str,
    passed: bool | None,
) -> Row:
    numbers = [v if isinstance(v, int | float) else math.nan for v in (base, head)]
    difference = numbers[1] - numbers[0]
    given = with_difference and math.isfinite(difference)
    text = signed(name, difference) if given else ""
    direction = DIRECTIONS.get(name.split(".")[0], 0)
    mark = ""
    if given and direction:
        is_same = not any(digit in "123456789" for digit in text)
        mark = (
            "same" if is_same else "better" if difference * direction > 0 else "worse"
        )
    return Row(
        name=name,
        base=number(name, base),
        head=number(name, head),
        difference=text,
        interval=interval(name, paired) if paired else "",
        mark=mark,
        is_shown=paired is not None and paired.is_shown,
        bound=bound,
        passed=passed,
    )


def _bound(name: str, base: RunResults, head: RunResults) -> str:
    """The head's bound; the base's too where it was another."""
    was, now = (_bounds(e).get(name, "") for e in (base, head))
    if was == now or base.verdict is None:
        return now
    return f"{now or 'none'} (was {was or 'none'})"


def _bounds(results: RunResults) -> dict[str, str]:
    bounds: dict[str, str] = {}
    for check in results.checks:
        sign = "≥" if check["kind"] == "min" else "≤"
        text = f"{sign} {check['bound']:g}"
        name = str(check["metric"])
        bounds[name] = f"{bounds[name]}, {text}" if name in bounds else text
    return bounds


def _passed(name: str, results: RunResults) -> bool | None:
    found = [c["passed"] is True for c in results.checks if c["metric"] == name]
    return all(found) if found else None

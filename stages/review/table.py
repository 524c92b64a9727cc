"""Metrics of both sides as rows: values, difference, which way is better, bounds."""

import math
from dataclasses import dataclass
from typing import Any

from stages.core.tables import flatten
from stages.datasets.pairs import natural_key
from stages.review.comparison import Comparison, Difference
from stages.review.run_results import RunResults
from stages.scoring.metrics import (
    METRICS,
    STATISTICS,
    higher_is_better,
    number,
    order,
    signed,
)

ABSENT = "\N{EN DASH}"  # where a side has no such value
NEW, GONE = "new", "removed"  # a metric that the base, or the head, lacks


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
    names = sorted(set(values[0]) | set(values[1]), key=order)
    bounded = [n for e in (base, head) for n in _bounds(e) if "by_class." not in n]
    return [
        _row(
            name,
            values[0].get(name, ABSENT),
            values[1].get(name, ABSENT),
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
    for name, difference in comparison.differences.items():
        pair = common[[f"{name}_base", f"{name}_head"]].dropna()
        for statistic, of in STATISTICS.items():
            if statistic not in METRICS[name].statistics:
                continue
            base, head = (of(pair[column]) for column in pair)
            paired = difference if statistic == "mean" else None
            rows.append(_row(f"{name}.{statistic}", base, head, paired))
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


def _row(
    name: str,
    base: Any,
    head: Any,
    paired: Difference | None,
    *,
    with_difference: bool = True,
    bound: str = "",
    passed: bool | None = None,
) -> Row:
    numbers = [v if isinstance(v, int | float) else math.nan for v in (base, head)]
    difference = numbers[1] - numbers[0]
    given = with_difference and math.isfinite(difference)
    text = signed(name, difference) if given else ""
    rises = higher_is_better(name)
    mark = ""
    if given and rises is not None:
        is_same = not any(digit in "123456789" for digit in text)
        mark = "same" if is_same else "better" if (difference > 0) == rises else "worse"
    return Row(
        name=name,
        base=NEW if base is ABSENT and head is not ABSENT else number(name, base),
        head=GONE if head is ABSENT and base is not ABSENT else number(name, head),
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

"""Metrics of both sides as rows: values, difference, which way is better, bounds."""

import math
from dataclasses import dataclass
from typing import Any

from stages.core.tables import flatten
from stages.datasets.pairs import natural_key
from stages.review.comparison import Comparison, Difference
from stages.review.run_results import RunResults
from stages.scoring.metrics import (
    HEADLINE,
    METRICS,
    STATISTICS,
    higher_is_better,
    number,
    order,
    signed,
)

ABSENT = "\N{EN DASH}"  # where a side has no such value
FEW_GROUPS = 10  # an interval of fewer is marked


@dataclass(frozen=True)
class Row:
    """One metric; texts are ready to be shown."""

    name: str
    base: str
    head: str
    difference: str  # "" where none may be given
    interval: str  # of the mean of paired differences
    mark: str  # "better", "worse", "same", "new", "removed" or ""
    is_shown: bool  # whether the interval leaves out 0
    bound: str
    passed: bool | None  # head's check; None without a bound

    @property
    def has_changed(self) -> bool:
        """Whether a reviewer of changes wants to see it."""
        return self.base != self.head or self.passed is False or "was" in self.bound


@dataclass(frozen=True)
class PartRow:
    """Dice of one class or site."""

    name: str
    num_base: int
    num_head: int
    row: Row


def metric_rows(
    base: RunResults, head: RunResults, comparison: Comparison
) -> list[Row]:
    """Rows of `metrics.json`, headline first, without those of `part_rows`.

    Differences are given only where both sides scored the same images.
    """
    values = [_scalars(e.metrics) for e in (base, head)]
    names = sorted(set(values[0]) | set(values[1]), key=order)
    bounded = [n for e in (base, head) for n in _bounds(e) if not _is_of_part(n)]
    is_same = comparison.same_images
    return [
        _row(
            name,
            values[0].get(name, ABSENT),
            values[1].get(name, ABSENT),
            comparison.differences.get(name.removesuffix(".mean"))
            if name.endswith(".mean") and is_same
            else None,
            with_difference=is_same,
            bound=_bound(name, base, head),
            passed=_passed(name, head),
        )
        for name in dict.fromkeys([*names, *bounded])
    ]


def common_rows(comparison: Comparison) -> list[Row]:
    """Rows over the images that both sides scored, for sides that scored others too."""
    images = comparison.images
    common = images[images["in_both"] & images["is_headline"]]
    rows = []
    for name, difference in comparison.differences.items():
        pair = common[[f"{name}_base", f"{name}_head"]].dropna()
        for statistic, of in STATISTICS.items():
            if statistic in METRICS[name].statistics:
                base, head = (of(pair[column]) for column in pair)
                paired = difference if statistic == "mean" else None
                rows.append(_row(f"{name}.{statistic}", base, head, paired))
    return rows


def part_rows(
    part: str, base: RunResults, head: RunResults, comparison: Comparison
) -> list[PartRow]:
    """Dice by class or by site, over the images that both sides scored."""
    tables = [e.per_image for e in (base, head)]
    if part == "class":
        counts = [t.loc[t["is_headline"], "class_name"].value_counts() for t in tables]
    else:
        counts = [t.loc[t["site"] != "", "site"].value_counts() for t in tables]
    names = sorted(set(counts[0].index) | set(counts[1].index), key=natural_key)
    rows = []
    for name in names:
        found = comparison.parts[part].get(name)
        metric = f"by_{part}.{name}.dice.mean"
        row = _row(
            metric,
            found.base if found else None,
            found.head if found else None,
            found,
            bound=_bound(metric, base, head),
            passed=_passed(metric, head),
        )
        num_base, num_head = (int(count.get(name, 0)) for count in counts)
        rows.append(PartRow(name, num_base, num_head, row))
    return rows


def minus(text: str) -> str:
    """A true minus sign, as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def interval(name: str, difference: Difference) -> str:
    """`-0.0123 to +0.0045`, or why there is none; few groups are marked."""
    if math.isnan(difference.low):
        return "one group only"
    text = f"{signed(name, difference.low)} to {signed(name, difference.high)}"
    few = difference.num_groups < FEW_GROUPS
    return f"{text} ({difference.num_groups} groups)" if few else text


def _scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in flatten(metrics).items() if not _is_of_part(k)}


def _is_of_part(name: str) -> bool:
    return name.startswith("by_") and name.endswith(f".{HEADLINE.name}.mean")


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
    if (base is ABSENT) != (head is ABSENT):
        mark = "new" if base is ABSENT else "removed"
    elif given and rises is not None:
        is_same = not any(digit in "123456789" for digit in text)
        mark = "same" if is_same else "better" if (difference > 0) == rises else "worse"
    both = base is ABSENT and head is ABSENT  # a bound on an unknown metric
    return Row(
        name=name,
        base=ABSENT if base is ABSENT and not both else number(name, _value(base)),
        head=ABSENT if head is ABSENT and not both else number(name, _value(head)),
        difference=text,
        interval=interval(name, paired) if paired else "",
        mark=mark,
        is_shown=paired is not None and paired.is_shown,
        bound=bound,
        passed=passed,
    )


def _value(value: Any) -> Any:
    return None if value is ABSENT else value


def _bound(name: str, base: RunResults, head: RunResults) -> str:
    """The head's bound; the base's too where it was another."""
    was, now = (_bounds(e).get(name, "") for e in (base, head))
    if was == now or base.checks is None:
        return now
    return f"{now or 'none'} (was {was or 'none'})"


def _bounds(results: RunResults) -> dict[str, str]:
    bounds: dict[str, str] = {}
    for check in results.checks or []:
        text = f"{'≥' if check.kind == 'min' else '≤'} {check.bound:g}"
        known = bounds.get(check.metric)
        bounds[check.metric] = f"{known}, {text}" if known else text
    return bounds


def _passed(name: str, results: RunResults) -> bool | None:
    found = [check.passed for check in results.checks or [] if check.metric == name]
    return all(found) if found else None

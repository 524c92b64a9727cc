"""Metrics of both sides as rows: values, difference, which way is better, bounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.core.params import flatten
from stages.datasets.pairs import natural_key
from stages.gate import Check
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
    is_shown: bool  # whether the interval excludes 0
    checks: Sequence[Check]  # the head's, of this metric
    num_images: str = ""  # of a class or site

    @property
    def bound(self) -> str:
        """The gate's bounds of the head; "" without one."""
        signs = {"min": "≥", "max": "≤"}
        return ", ".join(f"{signs[c.kind]} {c.bound:g}" for c in self.checks)

    @property
    def passed(self) -> bool | None:
        """Whether the head meets its bounds; None without one."""
        return all(check.passed for check in self.checks) if self.checks else None

    @property
    def has_changed(self) -> bool:
        """Whether a reviewer of changes wants to see it."""
        return self.base != self.head or self.passed is False


def metric_rows(
    base: RunResults, head: RunResults, comparison: Comparison
) -> list[Row]:
    """Rows of `metrics.json`, headline first, without those of `part_rows`.

    Differences are given only where both sides scored the same images.
    """
    values = [flatten(e.metrics) for e in (base, head)]
    checked = [check.metric for check in head.checks or []]
    names = sorted({*values[0], *values[1], *checked}, key=order)
    paired = comparison.differences if comparison.same_images else {}
    return [
        _row(
            name,
            values[0].get(name, ABSENT),
            values[1].get(name, ABSENT),
            paired.get(name.removesuffix(".mean")) if name.endswith(".mean") else None,
            with_difference=comparison.same_images,
            checks=_checks(head, name),
        )
        for name in names
        if not (name.startswith("by_") and name.endswith(f".{HEADLINE.name}.mean"))
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
) -> list[Row]:
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
            checks=_checks(head, metric),
        )
        nums = dict.fromkeys(str(count.get(name, 0)) for count in counts)
        rows.append(replace(row, name=name, num_images=" → ".join(nums)))
    return rows


def unmarked(rows: Sequence[Row]) -> list[Row]:
    """The rows without a word of better or worse, where the headline judges neither."""
    words = ("better", "worse")
    return [
        replace(row, mark="", is_shown=False) if row.mark in words else row
        for row in rows
    ]


def model_rows(base: RunResults, head: RunResults) -> list[list[str]]:
    """Name, base and head of the last epoch's numbers and of the exported files'."""
    sides = []
    for results in (base, head):
        texts = {}
        if results.history is not None and len(results.history):
            last = results.history.iloc[-1]
            texts["epochs"] = f"{last['epoch']:.0f}"
            texts["training loss"] = f"{last['loss']:.4f}"
            texts["training Dice"] = number("dice", float(last["dice"]))
        for name, value in flatten(results.export or {}).items():
            if isinstance(value, int | float):
                form = ",.1e" if isinstance(value, float) else ","
                texts[f"export.{name}"] = format(value, form)
        sides.append(texts)
    names = dict.fromkeys([*sides[1], *sides[0]])
    return [[name, *(texts.get(name, ABSENT) for texts in sides)] for name in names]


def ends(name: str, difference: Difference) -> str:
    """The interval in words."""
    return f"{signed(name, difference.low)} to {signed(name, difference.high)}"


def _interval(name: str, difference: Difference) -> str:
    """The interval, marked where few groups gave it; or why there is none."""
    if math.isnan(difference.low):
        return "undefined (1 group)"
    text, num = ends(name, difference), difference.num_groups
    return f"{text} ({num} groups)" if num < FEW_GROUPS else text


def _row(
    name: str,
    base: Any,
    head: Any,
    paired: Difference | None,
    *,
    with_difference: bool = True,
    checks: Sequence[Check] = (),
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
    return Row(
        name=name,
        base=ABSENT if base is ABSENT else number(name, base),
        head=ABSENT if head is ABSENT else number(name, head),
        difference=text,
        interval=_interval(name, paired) if paired else "",
        mark=mark,
        is_shown=paired is not None and paired.is_shown,
        checks=checks,
    )


def _checks(results: RunResults, name: str) -> list[Check]:
    return [check for check in results.checks or [] if check.metric == name]

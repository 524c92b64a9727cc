"""Charts of both sides on one axis: training, images against images, gradients."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from markupsafe import Markup

from stages.core.charts import (
    Axis,
    Series,
    fitted,
    histogram,
    line_chart,
    nice_step,
    scatter_chart,
)
from stages.review.comparison import BETTER, EQUAL, TOLERANCE, WORSE, Comparison
from stages.review.evidence import Evidence
from stages.review.table import ABSENT, number

_KINDS = {BETTER: "better", WORSE: "worse", EQUAL: "equal"}


@dataclass(frozen=True)
class Chart:
    """A drawing, what it shows, and what to make of it."""

    title: str
    remark: str
    svg: Markup
    has_sides: bool  # whether base and head are its lines; else better and worse


def charts(
    base: Evidence, head: Evidence, comparison: Comparison, links: dict[str, str]
) -> list[Chart]:
    """All charts that the sides hold numbers for.

    Args:
        base: One side.
        head: The other.
        comparison: Their images.
        links: Where each pair id's point leads, inside the page.
    """
    found = [*_images(comparison, links)]
    for column, title in (("loss", "Training loss"), ("dice", "Training Dice")):
        found += _history(base, head, column, title)
    return found + _gradients(base, head)


def training_rows(base: Evidence, head: Evidence) -> list[list[str]]:
    """Name, base and head of the last epoch's numbers."""
    tables = [e.history for e in (base, head)]
    if all(table is None or table.empty for table in tables):
        return []
    rows = []
    for name in ("epoch", "loss", "dice"):
        row = [f"training {name}" if name != "epoch" else "epochs"]
        for table in tables:
            if table is None or table.empty:
                row.append(ABSENT)
            else:
                value = float(table[name].iloc[-1])
                row.append(f"{value:.0f}" if name == "epoch" else number("dice", value))
        rows.append(row)
    return rows


def _history(base: Evidence, head: Evidence, column: str, title: str) -> list[Chart]:
    series = [
        Series(role, list(zip(table["epoch"], table[column], strict=True)), role)
        for role, table in (("base", base.history), ("head", head.history))
        if table is not None and len(table)
    ]
    if not series:
        return []
    remark = "On augmented training images, an epoch a point."
    if column == "loss" and _loss_differs(base, head):
        remark = (
            "The loss, or the weights of its levels, differ between the sides: the "
            "lines are not on one scale."
        )
    remark += _same(series)
    points = [point for one in series for point in one.points]
    x = fitted("epoch", [a for a, _ in points], is_whole=True)
    y = fitted(column if column == "loss" else "Dice", [b for _, b in points])
    return [Chart(title, remark, line_chart(title, series, x, y), True)]


def _same(series: list[Series]) -> str:
    """Says so where one line hides the other."""
    is_same = len(series) == 2 and series[0].points == series[1].points
    return " Both sides are the same." if is_same else ""


def _loss_differs(base: Evidence, head: Evidence) -> bool:
    sections = [e.params.get("train") for e in (base, head)]
    keys = ("loss", "supervision_weights")
    values = [
        [section.get(key) for key in keys] if isinstance(section, dict) else []
        for section in sections
    ]
    return values[0] != values[1]


def _images(comparison: Comparison, links: dict[str, str]) -> list[Chart]:
    images = comparison.images
    rows = images[images["became"].isin(_KINDS)]
    if rows.empty:
        return []
    values = [*rows["dice_base"], *rows["dice_head"]]
    x, y = fitted("Dice, base", values), fitted("Dice, head", values)
    series = []
    for word, kind in _KINDS.items():
        some = rows[rows["became"] == word]
        names = list(some["pair_id"])
        series.append(
            Series(
                word,
                list(zip(some["dice_base"], some["dice_head"], strict=True)),
                kind,
                titles=[
                    f"{name}: {number('dice', a)} to {number('dice', b)}"
                    for name, a, b in zip(
                        names, some["dice_base"], some["dice_head"], strict=True
                    )
                ],
                links=[links[name] for name in names],
            )
        )
    title = "Dice of every image"
    scatter = scatter_chart(title, series, x, y, diagonal=True)
    return [
        Chart(
            title,
            "Under the line the head is worse. A point leads to its image.",
            scatter,
            False,
        ),
        _histogram(rows),
    ]


def _histogram(rows: pd.DataFrame) -> Chart:
    differences = rows["dice_difference"].to_numpy(float)
    reach = max(float(np.abs(differences).max()), 2 * TOLERANCE)
    width = nice_step(2 * reach / 24)
    # Bins stand around 0, so that one of them is "no difference".
    half = int(np.ceil(reach / width - 0.5))
    edges = (np.arange(-half, half + 2) - 0.5) * width
    counts, _ = np.histogram(differences, edges)
    bars = [
        (float(a), float(b), int(count), _bar_kind(float(a), float(b)))
        for (a, b), count in zip(pairwise(edges), counts, strict=True)
        if count
    ]
    x = Axis("Dice, head minus base", float(edges[0]), float(edges[-1]))
    title = "Differences of Dice"
    return Chart(
        title,
        f"{len(rows)} images that both sides scored; the grey bar stands around 0.",
        histogram(title, bars, x, "images"),
        False,
    )


def _bar_kind(low: float, high: float) -> str:
    if low < 0 < high:
        return "equal"
    return "better" if low > 0 else "worse"


def _gradients(base: Evidence, head: Evidence) -> list[Chart]:
    """A chart for each supervised head: which parts its gradient reaches."""
    tables = {
        role: table
        for role, table in (("base", base.gradients), ("head", head.gradients))
        if table is not None and len(table)
    }
    if not tables:
        return []
    parts = list(
        dict.fromkeys(
            part
            for table in reversed(tables.values())
            for part in table["part"]
            if not part.startswith("head")
        )
    )
    heads = sorted({int(h) for table in tables.values() for h in table["head"]})
    found = []
    for level in heads:
        series = []
        for role, table in tables.items():
            rows = table[table["head"] == level]
            medians = rows.groupby("part")["gradient_norm"].median()
            points = [
                (float(place), float(medians[part]))
                for place, part in enumerate(parts)
                if part in medians.index and medians[part] > 0
            ]
            if points:
                series.append(Series(role, points, role))
        if not series:
            continue
        finest = " (the finest, which ships)" if level == 0 else ""
        title = f"Gradient from head {level}"
        x = Axis("part of the network", -0.4, len(parts) - 0.6, names=parts)
        y = fitted("norm", [b for s in series for _, b in s.points], is_log=True)
        remark = (
            f"Median over training of what head {level}{finest} sends to each part."
            f"{_same(series)}"
        )
        found.append(Chart(title, remark, line_chart(title, series, x, y), True))
    return found

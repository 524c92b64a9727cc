"""Charts of both sides on one axis: training, images against images, gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from stages.core.charts import COLOURS, figure, svg
from stages.review.comparison import (
    EQUAL,
    HIGHER,
    LOWER,
    Comparison,
    Difference,
)
from stages.review.history import Point
from stages.review.run_results import RunResults
from stages.scoring.metrics import HEADLINE, number

_IMAGES = {EQUAL: "even", HIGHER: "better", LOWER: "worse"}
# Told apart by dash and marker too, not by colour alone.
_SIDES: dict[str, dict[str, Any]] = {
    "base": {"linestyle": "--", "marker": "o"},
    "head": {"marker": "D"},
}
_MARKED = 30  # points; a longer line shows none of them


@dataclass(frozen=True)
class Chart:
    """A drawing, its title, and how to read it."""

    title: str
    remark: str
    svg: Markup


def charts(
    base: RunResults, head: RunResults, comparison: Comparison, links: Mapping[str, str]
) -> list[Chart]:
    """All charts that the sides hold numbers for; links are by pair id."""
    images = comparison.images
    rows = images[images["became"].isin(_IMAGES)]
    found = [] if rows.empty else [_scatter(rows, links)]
    for column, title in (("loss", "Training loss"), ("dice", "Training Dice")):
        lines = {
            role: table.set_index("epoch")[column]
            for role, table in (("base", base.history), ("head", head.history))
            if table is not None and len(table)
        }
        remark = "On augmented training images, one point per epoch."
        if base.params.get("train") != head.params.get("train"):
            remark += " The sides differ in params of the training."
        if lines:
            found.append(_lines(title, remark, lines))
    return found + _gradients(base, head)


def interval_bar(difference: Difference) -> Markup:
    """The interval of a difference against 0, as a small picture."""
    kind = "even"
    if difference.is_shown:
        kind = "better" if difference.mean > 0 else "worse"
    drawn, axes = figure(width=4.6, height=0.6)
    ends = (difference.low, difference.high)
    reach = 1.15 * max(*map(abs, ends), 1e-6)
    axes.axhline(0, color=COLOURS["soft"], linewidth=0.8)
    axes.axvline(0, color=COLOURS["soft"], linestyle="--", linewidth=0.8)
    axes.plot(ends, (0, 0), color=COLOURS[kind], linewidth=6, alpha=0.45)
    axes.plot([difference.mean], [0], "o", color=COLOURS[kind], markersize=8)
    axes.set_xlim(-reach, reach)
    axes.set_xticks([-reach, 0, reach], ["worse", "0", "better"])
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[2].set_horizontalalignment("right")
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    label = (
        f"difference {difference.mean:+.4f}, interval {ends[0]:+.4f} to {ends[1]:+.4f}"
    )
    return svg(drawn, label)


def history_chart(points: Sequence[Point], head: float | None) -> Chart:
    """The headline metric over the last commits of the base, and the head's."""
    title = f"{HEADLINE.title} over the last commits"
    drawn, axes = figure()
    places = range(len(points))
    means = [point.mean for point in points]
    low = [point.low or point.mean for point in points]
    high = [point.high or point.mean for point in points]
    axes.fill_between(places, low, high, color=COLOURS["base"], alpha=0.2)
    axes.plot(places, means, color=COLOURS["base"], **_SIDES["base"])
    if head is not None:
        axes.plot([len(points)], [head], color=COLOURS["head"], **_SIDES["head"])
    axes.set_xticks([0, len(points) - 1], [points[0].date, points[-1].date])
    axes.set_ylabel(HEADLINE.title)
    remark = "With 95 % intervals; the head last."
    return Chart(title, remark, svg(drawn, title))


def _lines(
    title: str,
    remark: str,
    lines: "Mapping[str, pd.Series[float]]",
    parts: Sequence[str] = (),
) -> Chart:
    """A line per side over epochs, or over parts of the network on a log scale."""
    drawn, axes = figure()
    for role, line in lines.items():
        style = _SIDES[role] if len(line) <= _MARKED else _SIDES[role] | {"marker": ""}
        axes.plot(line.index, line, color=COLOURS[role], markersize=4, **style)
    if parts:
        axes.set_yscale("log")
        axes.set_ylabel("norm")
        axes.set_xticks(range(len(parts)), parts, rotation=32, ha="right")
    else:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(lines) == 2 and lines["base"].equals(lines["head"]):
        remark += " Both sides are the same."
    return Chart(title, remark, svg(drawn, title))


def _scatter(rows: pd.DataFrame, links: Mapping[str, str]) -> Chart:
    """A point per image."""
    title = "Dice of every image"
    drawn, axes = figure()
    titles = {}
    for word, colour in _IMAGES.items():
        some = rows[rows["became"] == word]
        urls = [links[name] for name in some["pair_id"]]
        before, after = some["dice_base"], some["dice_head"]
        axes.scatter(
            before,
            after,
            s=18,
            color=COLOURS[colour],
            alpha=0.75,
            marker="D",
            urls=urls,
        )
        for url, name, a, b in zip(urls, some["pair_id"], before, after, strict=True):
            titles[url] = f"{name}: {number('dice', a)} to {number('dice', b)}"
    low = float(rows[["dice_base", "dice_head"]].min().min())
    axes.axline((low, low), slope=1, color=COLOURS["soft"], linestyle="--", linewidth=1)
    axes.set_xlabel("Dice, base")
    axes.set_ylabel("Dice, head")
    remark = "Below the line the head is worse. A point leads to its image."
    return Chart(title, remark, svg(drawn, title, titles))


def _gradients(base: RunResults, head: RunResults) -> list[Chart]:
    """A chart per supervised head: which parts of the network its gradient reaches."""
    tables = {
        role: table[
            ~table["part"].str.startswith("head") & (table["gradient_norm"] > 0)
        ]
        for role, table in (("base", base.gradients), ("head", head.gradients))
        if table is not None and len(table)
    }
    found = []
    for level in sorted({int(h) for table in tables.values() for h in table["head"]}):
        medians = {
            role: table[table["head"] == level]
            .groupby("part", sort=False)["gradient_norm"]
            .median()
            for role, table in tables.items()
        }
        parts = list(dict.fromkeys([p for m in medians.values() for p in m.index]))
        lines = {role: line.rename(parts.index) for role, line in medians.items()}
        finest = " (the finest, which ships)" if level == 0 else ""
        remark = (
            f"Median over training of what head {level}{finest} sends to each part."
        )
        found.append(_lines(f"Gradient from head {level}", remark, lines, parts))
    return found

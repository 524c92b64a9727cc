"""Small charts as SVG text: lines, points, bars; coloured by the page around them.

Series are told apart by dash and marker too, not by colour alone. Same numbers, same
bytes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 50
LETTER = 7.5  # width of a letter, about, with the space to the next label

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points under one name; `kind` is a CSS class, such as base, head or plain."""

    label: str
    points: Sequence[Point]
    kind: str
    titles: Sequence[str] = ()  # what a point says when pointed at
    links: Sequence[str] = ()  # where a point leads, inside the page
    spans: Sequence[Point] = ()  # low and high end of each point's interval
    labels: Sequence[str] = ()  # text beside each point
    joined: bool = False  # by a line, from left to right


@dataclass(frozen=True)
class Axis:
    """A scale from numbers to the drawing's units, with its ticks."""

    label: str
    low: float
    high: float
    is_log: bool = False
    names: Sequence[str] = ()  # instead of numbers, at 0, 1, 2
    is_whole: bool = False  # of things that are counted: no tick between two

    def share(self, value: float) -> float:
        """Where a value stands between both ends, 0 to 1."""
        if self.is_log:
            value, low, high = (math.log10(v) for v in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their labels."""
        if self.names:
            return [(float(place), name) for place, name in enumerate(self.names)]
        if self.is_log:
            return self._log_ticks()
        step = nice_step((self.high - self.low) / 5)
        step = max(step, 1.0) if self.is_whole else step
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [(n * step, _number(n * step, places)) for n in range(first, last + 1)]

    def _log_ticks(self) -> list[tuple[float, str]]:
        first = math.floor(math.log10(self.low))
        last = math.ceil(math.log10(self.high))
        # Over few decades, 1, 2 and 5 of each; over many, some powers alone.
        factors = (1, 2, 5) if last - first <= 3 else (1,)
        step = max(1, (last - first) // 6)
        values = [f * 10.0**e for e in range(first, last + 1, step) for f in factors]
        return [(v, _short(v)) for v in values if self.low <= v <= self.high]


def nice_step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten.

    Example:
        >>> nice_step(0.13), nice_step(3)
        (0.2, 5.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    for factor in (1, 2, 5, 10):
        if factor * power >= least * (1 - 1e-9):
            return factor * power
    return 10 * power


def fitted(
    label: str,
    values: Iterable[float],
    *,
    is_log: bool = False,
    zero: bool = False,
    is_whole: bool = False,
) -> Axis:
    """An axis that holds all values, a little wider.

    Args:
        label: Its name.
        values: What it must hold; not finite ones, and with `is_log` those that are
            not positive, are left out.
        is_log: Whether equal factors are equal distances.
        zero: Whether it must hold 0 too.
        is_whole: Whether only whole numbers have a meaning.
    """
    kept = [v for v in values if math.isfinite(v) and (v > 0 or not is_log)]
    if zero:
        kept.append(0.0)
    if not kept:
        kept = [1.0]
    low, high = min(kept), max(kept)
    if is_log:
        return Axis(label, low / 1.5, max(high * 1.5, low * 15), is_log=True)
    margin = 0.05 * (high - low) or max(abs(high) * 0.05, 0.01)
    low = 0.0 if zero and low >= 0 else low - margin
    return Axis(label, low, high + margin, is_whole=is_whole)


def line_chart(
    title: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    legend: Literal["", "top", "bottom"] = "",
) -> Markup:
    """Lines through points; a series of one point shows as its marker.

    Args:
        title: What it shows.
        series: The lines.
        x: Across.
        y: Upwards.
        legend: The right corner in which labels stand, or none; a series without a
            label is not in it.
    """
    marks = []
    for one in series:
        places = [
            (_x(x, a), _y(y, b))
            for a, b in one.points
            if math.isfinite(b) and (b > 0 or not y.is_log)
        ]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        marks.append(_tag("polyline", {"points": path, "class": f"line {one.kind}"}))
        if len(places) <= 30:
            marks += [_marker(one.kind, px, py) for px, py in places]
    if legend:
        marks += _legend([one for one in series if one.label], legend)
    return _frame(title, x, y, marks)


def _legend(series: Sequence[Series], corner: str) -> list[Markup]:
    """A piece of each line, with its label to the left."""
    right, height = WIDTH - RIGHT - 6, 16
    first = TOP + 10 if corner == "top" else HEIGHT - BOTTOM - height * len(series) + 6
    marks = []
    for index, one in enumerate(series):
        place = first + index * height
        path = f"{right - 36},{place} {right},{place}"
        marks.append(_tag("polyline", {"points": path, "class": f"line {one.kind}"}))
        marks.append(_text(right - 42, place + 4, one.label, "end"))
    return marks


def scatter_chart(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, diagonal: bool = False
) -> Markup:
    """Points; `diagonal` draws the line of equal values."""
    marks = []
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        ends = {
            "x1": _x(x, low),
            "y1": _y(y, low),
            "x2": _x(x, high),
            "y2": _y(y, high),
        }
        marks.append(_tag("line", {**ends, "class": "guide"}))
    for one in series:
        if one.joined:
            places = sorted((_x(x, a), _y(y, b)) for a, b in one.points)
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
            marks.append(_tag("polyline", {"points": path, "class": "line"}))
        for index, (a, b) in enumerate(one.points):
            if one.spans and all(map(math.isfinite, one.spans[index])):
                low, high = (_y(y, value) for value in one.spans[index])
                place = {"x1": _x(x, a), "x2": _x(x, a), "y1": low, "y2": high}
                marks.append(_tag("line", {**place, "class": f"span {one.kind}"}))
            if one.labels:
                marks.append(_text(_x(x, a) + 8, _y(y, b) + 4, one.labels[index]))
            title_ = one.titles[index] if one.titles else ""
            mark = _marker(one.kind, _x(x, a), _y(y, b), title_)
            if one.links:
                link = escape(one.links[index])
                mark = Markup('<a href="{}" tabindex="-1">{}</a>').format(link, mark)
            marks.append(mark)
    return _frame(title, x, y, marks)


def histogram(
    title: str, bars: Sequence[tuple[float, float, int, str]], x: Axis, y_label: str
) -> Markup:
    """Bars of (from, to, count, kind) over one axis, with a line at 0."""
    y = fitted(y_label, [count for *_, count, _ in bars], zero=True, is_whole=True)
    marks = []
    for low, high, count, kind in bars:
        left, right, top = _x(x, low), _x(x, high), _y(y, count)
        box: dict[str, str | float] = {
            "x": left + 0.5,
            "y": top,
            "width": max(right - left - 1, 1),
            "height": HEIGHT - BOTTOM - top,
            "class": f"bar {kind}",
        }
        label = f"{low:+.4g} to {high:+.4g}: {count}"
        marks.append(_tag("rect", box, Markup("<title>{}</title>").format(label)))
    if x.low < 0 < x.high:
        marks.append(_vertical(_x(x, 0), "guide"))
    return _frame(title, x, y, marks)


def interval_bar(mean: float, low: float, high: float, kind: str) -> Markup:
    """One interval against 0, as a small picture beside the verdict."""
    width, height = 440, 62
    reach = 1.15 * max(abs(low), abs(high), abs(mean), 1e-6)
    axis = Axis("", -reach, reach)

    def at(value: float) -> float:
        return 10 + axis.share(value) * (width - 20)

    marks = [
        _tag("line", {"x1": 10, "x2": width - 10, "y1": 30, "y2": 30, "class": "axis"}),
        _tag("line", {"x1": at(0), "x2": at(0), "y1": 10, "y2": 42, "class": "guide"}),
        _tag(
            "line",
            {
                "x1": at(low),
                "x2": at(high),
                "y1": 30,
                "y2": 30,
                "class": f"span {kind}",
            },
        ),
        _tag("circle", {"cx": at(mean), "cy": 30, "r": 6, "class": f"dot {kind}"}),
        _text(10, 56, "worse", "start"),
        _text(at(0), 56, "0", "middle"),
        _text(width - 10, 56, "better", "end"),
    ]
    label = f"difference {mean:+.4f}, interval {low:+.4f} to {high:+.4f}"
    return _svg(label, width, height, marks)


def standalone(svg: Markup, style: str) -> str:
    """An SVG file of its own, with the style that a page would give it."""
    opening, rest = str(svg).split(">", 1)
    named = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{named}><style>{style}</style>{rest}\n"


def _frame(title: str, x: Axis, y: Axis, marks: Sequence[Markup]) -> Markup:
    """Axes, ticks and labels around the marks."""
    parts = []
    for value, label in y.ticks():
        place = _y(y, value)
        ends = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": place, "y2": place}
        parts.append(_tag("line", {**ends, "class": "grid"}))
        parts.append(_text(LEFT - 6, place + 4, label, "end"))
    width = (WIDTH - LEFT - RIGHT) / max(len(x.names), 1)
    slanted = any(len(name) * LETTER > width for name in x.names)
    for value, label in x.ticks():
        place = _x(x, value)
        if slanted:
            turn = f"rotate(-32 {place:.1f} {HEIGHT - BOTTOM + 14})"
            parts.append(_text(place, HEIGHT - BOTTOM + 14, label, "end", turn))
        else:
            parts.append(_text(place, HEIGHT - BOTTOM + 18, label, "middle"))
    base = HEIGHT - BOTTOM
    parts.append(
        _tag(
            "line",
            {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": base, "y2": base, "class": "axis"},
        )
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    if not slanted:
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x.label, "middle"))
    parts.append(_text(12, middle, y.label, "middle", f"rotate(-90 12 {middle:.1f})"))
    return _svg(title, WIDTH, HEIGHT, [*parts, *marks])


def _svg(title: str, width: int, height: int, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">{}</svg>'
    ).format(width, height, title, Markup("").join(parts))


def _marker(kind: str, x: float, y: float, title: str = "") -> Markup:
    """A circle for the base, a diamond for anything else."""
    inner = Markup("<title>{}</title>").format(title) if title else Markup("")
    if kind == "base":
        return _tag("circle", {"cx": x, "cy": y, "r": 3, "class": f"dot {kind}"}, inner)
    path = f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5-4.5 4.5-4.5-4.5z"
    return _tag("path", {"d": path, "class": f"dot {kind}"}, inner)


def _vertical(x: float, kind: str) -> Markup:
    ends = {"x1": x, "x2": x, "y1": TOP, "y2": HEIGHT - BOTTOM}
    return _tag("line", {**ends, "class": kind})


def _text(
    x: float, y: float, text: str, anchor: str = "start", turn: str = ""
) -> Markup:
    where: dict[str, str | float] = {"x": x, "y": y, "text-anchor": anchor}
    if turn:
        where["transform"] = turn
    return _tag("text", where, escape(text))


def _tag(
    name: str, attributes: dict[str, str | float], inner: Markup | None = None
) -> Markup:
    pairs = Markup(" ").join(
        Markup('{}="{}"').format(
            key, value if isinstance(value, str) else f"{value:.4g}"
        )
        for key, value in attributes.items()
    )
    # Names are this module's own.
    return Markup("<{0} {1}>{2}</{0}>").format(name, pairs, inner or Markup(""))


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def _short(value: float) -> str:
    """2000000 as `2M`; small numbers as they are."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * (1 - 1e-9):
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _number(value: float, places: int) -> str:
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("-") and not float(text) else text

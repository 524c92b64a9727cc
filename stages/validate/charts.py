"""Distributions by class, as plain numbers for the page to draw."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.params import ValidateParams
from stages.validate.outcome import DISTRIBUTIONS

WIDTH, HEIGHT = 400, 56  # of one class's strip, in the drawing's units
_COMPONENTS = 12  # more separate regions than this share the last bar


@dataclass(frozen=True)
class Bar:
    """One bar: accepted below, rejected on top."""

    x: float
    width: float
    accepted_height: float
    rejected_height: float
    label: str


@dataclass(frozen=True)
class Strip:
    """One class's histogram; heights are shares of its own tallest bar."""

    class_name: str
    bars: list[Bar]
    count: int  # measured pairs
    median: str
    median_x: float | None


@dataclass(frozen=True)
class Chart:
    """One fact: a strip a class, on one axis."""

    title: str
    strips: list[Strip]
    bounds: list[tuple[float, str]]  # x and label
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class _Axis:
    """Where a fact's bars, labels and bounds stand."""

    edges: NDArray[np.float64]
    ticks: list[float]
    bounds: dict[float, str]  # value to label

    def x(self, value: float) -> float:
        """A value's place in the drawing."""
        low, high = self.edges[0], self.edges[-1]
        return round(float(np.clip((value - low) / (high - low), 0, 1)) * WIDTH, 2)


def charts(
    table: pd.DataFrame, params: ValidateParams, class_names: list[str]
) -> list[Chart]:
    """One chart for each of `DISTRIBUTIONS`.

    Args:
        table: Facts, with `accepted`.
        params: For the bounds.
        class_names: A strip each, in this order.
    """
    return [
        Chart(
            title=title,
            strips=[
                _strip(class_name, table[table["class_name"] == class_name], name, axis)
                for class_name in class_names
            ],
            bounds=[(axis.x(value), label) for value, label in axis.bounds.items()],
            ticks=[(axis.x(tick), f"{tick:g}") for tick in axis.ticks],
        )
        for (name, title), axis in zip(
            DISTRIBUTIONS.items(), _axes(params), strict=True
        )
    ]


def _axes(params: ValidateParams) -> list[_Axis]:
    """Fixed, not fitted to the data: two runs can be laid side by side."""
    low, high = params.foreground_min, params.foreground_max
    most = params.num_components_max
    last = max(_COMPONENTS, most + 2)
    return [
        _Axis(
            np.linspace(0, 1, 51),
            [0, 0.25, 0.5, 0.75, 1],
            {low: f"{low:g}", high: f"{high:g}"},
        ),
        _Axis(np.linspace(0, 255, 52), [0, 64, 128, 192, 255], {}),
        _Axis(
            np.linspace(0, 128, 65),
            [0, 32, 64, 96, 128],
            {params.contrast_min: f"{params.contrast_min:g}"},
        ),
        _Axis(
            np.arange(last + 2, dtype=np.float64) - 0.5,
            [float(value) for value in range(0, last + 1, 2)],
            {most + 0.5: f"{most}"},
        ),
    ]


def _strip(class_name: str, rows: pd.DataFrame, name: str, axis: _Axis) -> Strip:
    rows = rows[rows[name].notna()]
    values = rows[name].to_numpy(float)
    accepted = rows["accepted"].to_numpy(bool)
    # What lies beyond the axis is counted at its end.
    inside = values.clip(axis.edges[0], np.nextafter(axis.edges[-1], 0))
    good, _ = np.histogram(inside[accepted], axis.edges)
    bad, _ = np.histogram(inside[~accepted], axis.edges)
    tallest = max(int((good + bad).max()), 1)
    median = float(np.median(values)) if len(values) else None
    return Strip(
        class_name=class_name,
        bars=[
            _bar(low, high, int(good[i]), int(bad[i]), tallest, name, axis)
            for i, (low, high) in enumerate(pairwise(axis.edges.tolist()))
            if good[i] + bad[i]
        ],
        count=len(values),
        median="" if median is None else f"{median:.3g}",
        median_x=None if median is None else axis.x(median),
    )


def _bar(
    low: float, high: float, good: int, bad: int, tallest: int, name: str, axis: _Axis
) -> Bar:
    whole = name == "num_components"
    span = f"{(low + high) / 2:g}" if whole else f"{low:g} to {high:g}"
    return Bar(
        x=axis.x(low),
        width=round(axis.x(high) - axis.x(low), 2),
        accepted_height=round(HEIGHT * good / tallest, 2),
        rejected_height=round(HEIGHT * bad / tallest, 2),
        label=f"{span}: {good} accepted" + (f", {bad} rejected" if bad else ""),
    )

"""Distributions of the facts by class, as SVG for the page."""

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from stages.core.charts import COLOURS, figure, svg
from stages.core.params import ValidateParams
from stages.validate.outcome import DISTRIBUTIONS

_COMPONENTS = 12  # masks with more regions share the last bar


def charts(
    table: pd.DataFrame, params: ValidateParams, class_names: list[str]
) -> list[Markup]:
    """One chart per fact of `DISTRIBUTIONS`: a histogram per class, on one axis."""
    return [
        _chart(table, name, title, *_axis(name, params), class_names)
        for name, title in DISTRIBUTIONS.items()
    ]


def _axis(name: str, params: ValidateParams) -> tuple[NDArray[np.float64], list[float]]:
    """Edges of the bars and limits; not fitted to the data, so that runs compare."""
    match name:
        case "foreground_fraction":
            limits = [params.foreground_min, params.foreground_max]
            return np.linspace(0, 1, 51), limits
        case "image_mean":
            return np.linspace(0, 255, 52), []
        case "image_contrast":
            return np.linspace(0, 128, 65), [params.contrast_min]
        case _:
            most = params.num_components_max
            last = max(_COMPONENTS, most + 2)
            return np.arange(last + 2, dtype=np.float64) - 0.5, [most + 0.5]


def _chart(
    table: pd.DataFrame,
    name: str,
    title: str,
    edges: NDArray[np.float64],
    limits: list[float],
    class_names: list[str],
) -> Markup:
    drawn, _ = figure(width=4.4, height=0.6 + 0.8 * len(class_names))
    drawn.clear()
    rows = drawn.subplots(len(class_names), 1, sharex=True, squeeze=False)
    for axes, class_name in zip(rows[:, 0], class_names, strict=True):
        known = table[(table["class_name"] == class_name) & table[name].notna()]
        # Values beyond the axis count at its end.
        values = known[name].clip(edges[0], np.nextafter(edges[-1], 0))
        accepted = known["accepted"].astype(bool)
        axes.hist(
            [values[accepted], values[~accepted]],
            bins=edges,
            histtype="stepfilled",
            stacked=True,
            color=[COLOURS["series-0"], COLOURS["worse"]],
        )
        for limit in limits:
            axes.axvline(limit, color=COLOURS["none"], linestyle="--")
        median = f", median {known[name].median():.3g}" if len(known) else ""
        label = f"{class_name}: {len(known):,} measured{median}"
        axes.set_title(label.replace("$", r"\$"), loc="left", fontsize=9)
        axes.set_yticks([])
        axes.patch.set_visible(False)
    rows[-1, 0].set_xlabel(title)
    return svg(drawn, f"{title}, by class")

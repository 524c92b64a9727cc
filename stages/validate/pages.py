"""The page that a person opens after validate: one HTML file, nothing outside it."""

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from stages.core.charts import STYLE
from stages.core.params import ValidateParams
from stages.datasets.pairs import natural_key
from stages.validate import charts, thumbnails
from stages.validate.outcome import Outcome, copies, natural

_TEMPLATE = Path(__file__).parent / "report.html.jinja"
_ROWS = 200  # of a list of pairs; the table has them all
# Accepted pairs with extreme values show where a bound is too loose.
_EXTREMES = (
    ("foreground_fraction", "min", "least foreground"),
    ("foreground_fraction", "max", "most foreground"),
    ("image_contrast", "min", "least contrast"),
    ("image_mean", "min", "darkest"),
    ("image_mean", "max", "brightest"),
    ("num_components", "max", "most regions"),
)


def write(
    folder: Path,
    outcome: Outcome,
    values: dict[str, Any],
    *,
    params: ValidateParams,
    ingested: Path,
) -> None:
    """Makes a folder with `index.html`; the same data give the same bytes.

    `values` are the contents of `report.json`; thumbnails are made from the shards in
    `ingested`.
    """
    table = outcome.table.sort_values(
        "pair_id", key=lambda ids: ids.map(natural_key), kind="stable"
    )
    rejected = table[~table["accepted"]]
    noted = table[table["accepted"] & (table["note"] != "")]
    shown = _spread(outcome, rejected.index.tolist())[: params.thumbnails]
    extremes = _extremes(outcome.table) if params.thumbnails else {}
    pictures = thumbnails.make(
        {*shown, *extremes}, ingested, max_image_pixels=params.max_image_pixels
    )
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["count"] = "{:,}".format
    failed = {check.name for check in outcome.failed}
    rows = outcome.table.loc
    html = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        values=values,
        failed=[e for e in values["expectations"] if e["name"] in failed],
        offenders=[{**rows[row], **pictures[row]} for row in shown],
        rejected=rejected[:_ROWS].to_dict("records"),
        noted=noted[:_ROWS].to_dict("records"),
        extremes=[
            {**rows[row], **pictures[row], "why": ", ".join(why)}
            for row, why in extremes.items()
        ],
        charts=charts.charts(table, params, list(values["by_class"])),
        copies=[_copy(frame) for frame in copies(table)],
        params=params,
        chart_style=Markup(STYLE),
    )
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(html, encoding="utf-8", newline="\n")


def _spread(outcome: Outcome, rejected: list[int]) -> list[int]:
    """Rejected rows, one of each reason in turn: a rare reason is not crowded out."""
    place = {row: index for index, row in enumerate(rejected)}
    queues = [
        sorted(verdict.rows, key=place.__getitem__)
        for check, verdict in outcome.pairs
        if check.severity == "critical" and verdict.rows
    ]
    turns = sorted(
        (turn, number, row)
        for number, queue in enumerate(queues)
        for turn, row in enumerate(queue)
    )
    return list(dict.fromkeys(row for _, _, row in turns))


def _extremes(table: pd.DataFrame) -> dict[int, list[str]]:
    """Rows at the ends of the distributions, and which ends."""
    accepted = table[table["accepted"]]
    found: dict[int, list[str]] = {}
    if len(accepted):
        for column, end, why in _EXTREMES:
            row = getattr(accepted[column], f"idx{end}")()
            found.setdefault(int(row), []).append(why)
    return found


def _copy(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "ids": natural(frame["pair_id"]),
        "one_mask": frame["mask_sha256"].nunique() == 1,
        "one_class": frame["class_name"].nunique() == 1,
    }

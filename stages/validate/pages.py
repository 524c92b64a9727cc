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
from stages.validate.outcome import Finding, Outcome, classes, copies, natural

_TEMPLATE = Path(__file__).parent / "report.html.jinja"
_ROWS = 200  # of a list of pairs; the table has them all
_IDS = 200  # of one expectation
_COPIES = 100
# Accepted pairs at the ends of a distribution: where a bound is too loose, it shows.
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
    """Writes `index.html`; same data, same bytes.

    Args:
        folder: Made here.
        outcome: The judged facts.
        values: What `report.json` holds.
        params: For the number of thumbnails, and the bounds drawn.
        ingested: Shards, to make thumbnails from.
    """
    table = outcome.table
    # As lists: to look up one value in a column takes 10 us.
    keys = [natural_key(pair_id) for pair_id in table["pair_id"].tolist()]
    accepted, note = table["accepted"].tolist(), table["note"].tolist()
    in_order = sorted(range(len(table)), key=keys.__getitem__)
    rejected = [i for i in in_order if not accepted[i]]
    noted = [i for i in in_order if accepted[i] and note[i]]
    shown = _spread(outcome.pairs, rejected)[: params.thumbnails]
    extremes = _extremes(table) if params.thumbnails else []
    pictures = thumbnails.make(
        {*shown, *(row for row, _ in extremes)},
        ingested,
        max_image_pixels=params.max_image_pixels,
    )
    html = (
        _environment()
        .get_template("page")
        .render(
            values=values,
            failed=outcome.failed,
            totals=outcome.totals,
            findings=[_finding(finding, table) for finding in outcome.pairs],
            offenders=[_row(table, row) | pictures[row] for row in shown],
            rejected=[_row(table, row) for row in rejected[:_ROWS]],
            noted=[_row(table, row) for row in noted[:_ROWS]],
            extremes=[
                _row(table, row) | pictures[row] | {"why": why} for row, why in extremes
            ],
            charts=charts.charts(table, params, classes(table)),
            copies=[_copy(frame) for frame in copies(table)[:_COPIES]],
            num_copy_groups=len(copies(table)),
            num_noted=len(noted),
            params=params,
            chart_style=Markup(STYLE),
        )
    )
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(html, encoding="utf-8", newline="\n")


def _environment() -> jinja2.Environment:
    """Escapes all that comes from the data; a name that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": _TEMPLATE.read_text(encoding="utf-8")}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment


def _spread(findings: list[Finding], rejected: list[int]) -> list[int]:
    """Rejected rows, one of each reason in turn: a rare reason is not crowded out."""
    place = {row: index for index, row in enumerate(rejected)}
    queues = [
        sorted(finding.verdict.rows, key=place.__getitem__)
        for finding in findings
        if finding.check.severity == "critical" and finding.verdict.rows
    ]
    turns = sorted(
        (turn, number, row)
        for number, queue in enumerate(queues)
        for turn, row in enumerate(queue)
    )
    return list(dict.fromkeys(row for _, _, row in turns))


def _extremes(table: pd.DataFrame) -> list[tuple[int, str]]:
    """Rows at the ends of the distributions and which end; each row once."""
    accepted = table[table["accepted"]]
    found: dict[int, list[str]] = {}
    if len(accepted):
        for column, end, why in _EXTREMES:
            row = getattr(accepted[column], f"idx{end}")()
            found.setdefault(int(row), []).append(why)
    return [(row, ", ".join(whys)) for row, whys in found.items()]


def _finding(finding: Finding, table: pd.DataFrame) -> dict[str, Any]:
    rows = list(finding.verdict.rows)
    ids = natural(set(table["pair_id"].iloc[rows]))
    return {
        "check": finding.check,
        "success": finding.verdict.success,
        "gx_type": finding.verdict.gx_type,
        "count": len(rows),
        "ids": ids[:_IDS],
        "more": max(len(ids) - _IDS, 0),
    }


def _row(table: pd.DataFrame, row: int) -> dict[str, Any]:
    columns = ["pair_id", "class_name", "image_path", "mask_path", "reason", "note"]
    return {name: table[name][row] for name in columns}


def _copy(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "ids": natural(frame["pair_id"]),
        "one_mask": frame["mask_sha256"].nunique() == 1,
        "one_class": frame["class_name"].nunique() == 1,
    }

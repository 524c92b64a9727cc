"""The review as one HTML file that needs nothing else."""

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stages.core.charts import STYLE
from stages.review import Review
from stages.review.comparison import BECAME, RESAMPLES, TOLERANCE
from stages.review.curves import (
    Chart,
    charts,
    history_chart,
    interval_bar,
    training_rows,
)
from stages.review.exported import export_rows
from stages.review.markdown import gate_word, headline
from stages.review.table import ABSENT, interval, minus
from stages.review.text import visible
from stages.scoring.metrics import number, signed

_FOLDER = Path(__file__).parent
_COLUMNS = ("dice", "hd95_px")  # of the table of images


def render(review: Review) -> str:
    """HTML; the same review gives the same bytes."""
    comparison = review.comparison
    rows = _rows(review)
    kind = review.verdict.kind
    links = {row["pair_id"]: f"#{row['anchor']}" for row in rows}
    difference = comparison.differences.get("dice")
    bar = None
    if difference is not None and difference.low == difference.low:
        bar = interval_bar(difference, kind.colour)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page")
        .render(
            review=review,
            what=review.changes,
            data=review.changes.data,
            comparison=comparison,
            counts=comparison.counts,
            difference=difference,
            headline=headline(review),
            kind=kind,
            interval_bar=bar,
            failed=[c for c in review.head.checks or [] if not c.passed],
            galleries=[
                ("Worst regressions", "worse", review.worst),
                ("Best gains", "better", review.best),
            ],
            rows=rows,
            by_id={row["pair_id"]: row for row in rows},
            became=[name for name in BECAME if comparison.counts[name]],
            class_names=list(dict.fromkeys(row["class_name"] for row in rows)),
            charts=_charts(review, links),
            training=training_rows(review.base, review.head),
            exported=export_rows(review.base, review.head),
            resamples=RESAMPLES,
            tolerance=TOLERANCE,
            style=Markup(STYLE + (_FOLDER / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=base64.b64encode(
                hashlib.sha256(script.encode()).digest()
            ).decode(),
        )
    )


def _charts(review: Review, links: dict[str, str]) -> list[Chart]:
    found = charts(review.base, review.head, review.comparison, links)
    if len(review.history) > 1:
        mean = review.head.metrics["dice"].get("mean")
        found.append(history_chart(review.history, mean))
    return found


def _environment() -> jinja2.Environment:
    """Escapes all that comes from data; a name that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(
            {"page": (_FOLDER / "page.html.jinja").read_text(encoding="utf-8")}
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "count": lambda value: f"{value:,}",
        "number": number,
        "signed": signed,
        "interval": interval,
        "minus": minus,
        "gate": gate_word,
    }
    return environment


def _rows(review: Review) -> list[dict[str, Any]]:
    """The per-image table, worst first; values for sorting beside texts."""
    images = review.comparison.images.sort_values(
        ["dice_difference", "dice_head"], kind="stable"
    )
    rows = []
    for place, image in enumerate(images.to_dict("records")):
        difference = float(image["dice_difference"])
        rows.append(
            {
                "anchor": f"image-{place}",
                "pair_id": image["pair_id"],
                "class_name": image["class_name"],
                "became": image["became"],
                "difference": difference,
                "difference_text": signed("dice", difference)
                if difference == difference
                else "",
                "values": {
                    f"{name}_{role}": _value(name, image, role)
                    for name in _COLUMNS
                    for role in ("base", "head")
                },
                "has_panel": image["pair_id"] in review.panels,
            }
        )
    return rows


def _value(name: str, image: dict[Any, Any], role: str) -> dict[str, str]:
    absent = {"base": "right_only", "head": "left_only"}[role]
    # Without a suffix, only one side has this metric.
    value = image.get(f"{name}_{role}", math.nan)
    if image["place"] == absent:
        return {"key": "", "text": ABSENT}
    if value != value:
        return {"key": "", "text": "undefined"}
    return {"key": f"{value:.6f}", "text": number(name, value)}

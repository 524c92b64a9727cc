"""What the page and the comment share: facts, filters, the headline."""

from pathlib import Path
from typing import Any

import jinja2

from stages.review import Review
from stages.review.comparison import BETTER, EQUAL, RESAMPLES, TOLERANCE, WORSE
from stages.review.curves import training_rows
from stages.review.exported import export_rows
from stages.review.table import interval, minus
from stages.review.text import visible
from stages.scoring.metrics import number, signed

FOLDER = Path(__file__).parent


def headline(review: Review) -> str:
    """The verdict in a line of plain text."""
    counts = review.comparison.counts
    return (
        f"{review.verdict.kind.title}: {review.verdict.sentence}; {counts[WORSE]} "
        f"worse, {counts[BETTER]} better, {counts[EQUAL]} equal"
    )


def values(review: Review) -> dict[str, Any]:
    """What both templates name."""
    return {
        "review": review,
        "kind": review.verdict.kind,
        "what": review.changes,
        "data": review.changes.data,
        "comparison": review.comparison,
        "counts": review.comparison.counts,
        "difference": review.comparison.differences.get("dice"),
        "training": training_rows(review.base, review.head),
        "exported": export_rows(review.base, review.head),
        "resamples": RESAMPLES,
        "tolerance": TOLERANCE,
    }


def environment() -> jinja2.Environment:
    """Templates of this folder; a name that is missing is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    gates = {True: "passed", False: "FAILED", None: "unknown"}
    made.filters |= {
        "visible": visible,
        "count": lambda value: f"{value:,}",
        "number": number,
        "signed": signed,
        "interval": interval,
        "minus": minus,
        "gate": gates.__getitem__,
    }
    return made

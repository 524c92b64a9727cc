"""The reports from Jinja templates: a comment in Markdown, a page in HTML."""

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stages.core.charts import STYLE
from stages.review import Review
from stages.review.comparison import BECAME, EQUAL, HIGHER, LOWER, RESAMPLES, TOLERANCE
from stages.review.curves import charts, history_chart, interval_bar
from stages.review.table import model_rows
from stages.review.text import code, escaped, visible
from stages.scoring.metrics import number, signed

LIMIT = 50_000  # bytes of a comment; GitHub refuses more than 65,536 characters
_FOLDER = Path(__file__).parent


def headline(review: Review) -> str:
    """The verdict in a line of plain text."""
    counts = review.comparison.counts
    return (
        f"{review.verdict.kind.title}: {review.verdict.sentence}; Dice per image: "
        f"{counts[LOWER]} lower, {counts[HIGHER]} higher, {counts[EQUAL]} equal"
    )


def markdown(review: Review) -> str:
    """A comment of at most `LIMIT` bytes: lists are cut before anything else."""
    template = _templates().get_template("comment.md.jinja")
    same = review.comparison.same_images
    compared = review.metrics if same else review.common
    facts = _facts(review) | {
        "images": review.comparison.images.set_index("pair_id").to_dict("index"),
        "changed": [row for row in compared if row.has_changed],
    }
    content = b""
    for most in (60, 15, 4, 1):
        content = template.render(most=most, **facts).encode()
        if len(content) <= LIMIT:
            break
    return content[:LIMIT].decode(errors="ignore")


def page(review: Review) -> str:
    """One HTML file that needs nothing else; the same review gives the same bytes."""
    counts = review.comparison.counts
    difference = review.comparison.differences.get("dice")
    rows = _image_rows(review)
    links = {row["pair_id"]: f"#{row['anchor']}" for row in rows}
    drawn = charts(review.base, review.head, review.comparison, links)
    if len(review.history) > 1:
        mean = review.head.metrics["dice"].get("mean")
        drawn.append(history_chart(review.history, mean))
    bar = None
    if difference is not None and math.isfinite(difference.low):
        bar = interval_bar(difference)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    template = _templates().get_template("page.html.jinja")
    return template.render(
        **_facts(review),
        headline=headline(review),
        interval_bar=bar,
        galleries=[
            ("Largest drops", "lower", review.worst),
            ("Largest gains", "higher", review.best),
        ],
        rows=rows,
        by_id={row["pair_id"]: row for row in rows},
        became=[name for name in BECAME if counts[name]],
        class_names=list(dict.fromkeys(row["class_name"] for row in rows)),
        charts=drawn,
        style=Markup(STYLE + (_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(digest).decode(),
    )


def _facts(review: Review) -> dict[str, Any]:
    """What both templates name."""
    return {
        "review": review,
        "kind": review.verdict.kind,
        "what": review.changes,
        "data": review.changes.data,
        "comparison": review.comparison,
        "counts": review.comparison.counts,
        "difference": review.comparison.differences.get("dice"),
        "model": model_rows(review.base, review.head),
        "resamples": RESAMPLES,
        "tolerance": TOLERANCE,
    }


def _image_rows(review: Review) -> list[dict[Any, Any]]:
    """The rows of `Comparison.images`, worst first, with where the page shows them."""
    images = review.comparison.images.sort_values(
        ["dice_difference", "dice_head"], kind="stable"
    )
    return [
        image
        | {"anchor": f"image-{place}", "has_panel": image["pair_id"] in review.panels}
        for place, image in enumerate(images.to_dict("records"))
    ]


def _templates() -> jinja2.Environment:
    """Templates of this folder; a name that is missing is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "visible": visible,
        "escaped": escaped,
        "code": code,
        "count": "{:,}".format,
        "number": number,
        "signed": signed,
        "gate": {True: "passed", False: "FAILED", None: "unknown"}.__getitem__,
    }
    made.tests["finite"] = lambda value: value is not None and math.isfinite(value)
    return made

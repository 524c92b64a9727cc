"""The review as one HTML file that needs nothing else."""

import base64
import hashlib
import math
from typing import Any

from markupsafe import Markup

from stages.core.charts import STYLE
from stages.review import Review
from stages.review.comparison import BECAME
from stages.review.curves import (
    Chart,
    charts,
    history_chart,
    interval_bar,
)
from stages.review.render import FOLDER, environment, headline, values
from stages.review.table import ABSENT
from stages.scoring.metrics import number, signed

_COLUMNS = ("dice", "hd95_px")  # of the table of images


def render(review: Review) -> str:
    """HTML; the same review gives the same bytes."""
    counts, difference = (
        review.comparison.counts,
        review.comparison.differences.get("dice"),
    )
    rows = _rows(review)
    links = {row["pair_id"]: f"#{row['anchor']}" for row in rows}
    bar = None
    if difference is not None and difference.low == difference.low:
        bar = interval_bar(difference, review.verdict.kind.colour)
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            **values(review),
            headline=headline(review),
            interval_bar=bar,
            failed=[c for c in review.head.checks or [] if not c.passed],
            galleries=[
                ("Worst regressions", "worse", review.worst),
                ("Best gains", "better", review.best),
            ],
            rows=rows,
            by_id={row["pair_id"]: row for row in rows},
            became=[name for name in BECAME if counts[name]],
            class_names=list(dict.fromkeys(row["class_name"] for row in rows)),
            charts=_charts(review, links),
            style=Markup(STYLE + (FOLDER / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=base64.b64encode(digest).decode(),
        )
    )


def _charts(review: Review, links: dict[str, str]) -> list[Chart]:
    found = charts(review.base, review.head, review.comparison, links)
    if len(review.history) > 1:
        mean = review.head.metrics["dice"].get("mean")
        found.append(history_chart(review.history, mean))
    return found


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

"""What a change did to the model, image by image, and whether it is more than noise.

Compares two Git revisions by what Git and the DVC cache hold. `lungfield review` writes
`review.md` and `review.png` for a comment and `review.html` for a reader.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from stages.core import files
from stages.core.errors import PipelineError
from stages.review.changes import Changes, changes
from stages.review.comparison import HIGHER, LOWER, Comparison, compare
from stages.review.history import Point, history
from stages.review.notes import Note, notes
from stages.review.panels import Panel, draw, montage
from stages.review.revision import Revision, pull, revisions
from stages.review.run_results import CACHED, RunResults, load
from stages.review.table import Row, common_rows, metric_rows, part_rows, unmarked
from stages.review.verdict import Verdict, verdict

LISTED = 6  # largest drops of Dice, and gains
PICTURED = 200  # changed images, the most changed first


@dataclass(frozen=True)
class Review:
    """All that the reports tell."""

    base: RunResults
    head: RunResults
    comparison: Comparison
    changes: Changes
    verdict: Verdict
    notes: list[Note]
    metrics: list[Row]
    common: list[Row]  # only where the sides scored different images
    parts: dict[str, list[Row]]  # by class and by site
    worst: list[str]  # pair ids, largest drop of Dice first
    best: list[str]
    panels: dict[str, Panel]
    num_unpictured: int  # changed images left without a panel
    history: list[Point]


def run(
    base: str,
    head: str | None,
    out: Path,
    *,
    fetch: bool,
    rebuild: bool,
    fail_on_drift: bool,
) -> None:
    """Writes the reports and prints the verdict.

    Args:
        base: A Git revision.
        head: A Git revision; None is the working tree.
        out: Folder for the reports.
        fetch: Whether to fetch missing outputs from the DVC remote.
        rebuild: Whether to build the base again where another machine made it.
        fail_on_drift: Whether to fail if the gate fails or the results differ.

    Raises:
        PipelineError: If a revision is unknown or holds nothing to compare, if `out`
            cannot be a folder, or on drift.
    """
    from stages.review import render
    from stages.review.rebuild import rebuilt

    before, after = revisions(base, head)
    if fetch:
        pull([before, after], CACHED)
    with rebuilt(before, after) if rebuild else contextlib.nullcontext(before) as built:
        found = review(built, after)
    try:
        files.write_text(out / "review.md", render.markdown(found))
        files.write_text(out / "review.html", render.page(found))
    except (FileExistsError, NotADirectoryError):
        raise PipelineError(
            f"--out {out} should be a folder, but a file is in its way; choose another"
        ) from None
    picture = montage(found.panels[name] for name in (*found.worst, *found.best))
    if picture is None:
        files.remove(out / "review.png")
    else:
        with files.replacing(out / "review.png") as partial:
            partial.write_bytes(picture)
    print(f"{render.headline(found)}\n{out / 'review.html'}")
    if fail_on_drift and found.verdict.has_drifted:
        raise PipelineError(f"results have drifted: {render.headline(found)}")


def review(base: Revision, head: Revision) -> Review:
    """Judges the head against the base.

    Raises:
        PipelineError: If one of them holds nothing to compare.
    """
    before, after = load(base), load(head)
    comparison = compare(before, after)
    what = changes(before, after)
    judged = verdict(after, comparison, what)
    rows = list if judged.judges else unmarked
    images = comparison.images[comparison.images["became"].isin([LOWER, HIGHER])]
    ranked = images.sort_values("dice_difference", kind="stable")
    worst = list(ranked.loc[ranked["became"] == LOWER, "pair_id"][:LISTED])
    best = list(ranked.loc[ranked["became"] == HIGHER, "pair_id"][::-1][:LISTED])
    by_size = ranked["dice_difference"].abs().sort_values(kind="stable").index[::-1]
    changed = images.loc[by_size, "pair_id"]
    pictured = list(dict.fromkeys([*worst, *best, *changed]))[:PICTURED]
    return Review(
        base=before,
        head=after,
        comparison=comparison,
        changes=what,
        verdict=judged,
        notes=notes(before, after, comparison, what),
        metrics=rows(metric_rows(before, after, comparison)),
        common=[] if comparison.same_images else rows(common_rows(comparison)),
        parts={
            part: rows(part_rows(part, before, after, comparison))
            for part in comparison.parts
        },
        worst=worst,
        best=best,
        panels=draw(before, after, pictured),
        num_unpictured=len(images) - len(pictured),
        history=history(base),
    )

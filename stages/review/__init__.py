"""What a change did to the model, image by image, and whether it is more than noise.

Compares two Git revisions by what Git and the DVC cache hold, and runs no stage.
`lungfield review` writes `review.md` for a comment and `review.html` for a reader.
"""

from dataclasses import dataclass
from pathlib import Path

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.review.changes import Changes, changes
from stages.review.comparison import (
    BETTER,
    FEW_GROUPS,
    NOT_COMPARABLE,
    OTHER_IMAGE,
    WORSE,
    Comparison,
    compare,
)
from stages.review.panels import Picture, pictures
from stages.review.revision import pull as fetch
from stages.review.revision import revisions
from stages.review.run_results import CACHED, RunResults, load
from stages.review.table import ClassRow, Row, class_rows, common_rows, metric_rows

# A change of these changes what a score means, not only how high it is.
_SCORING = (
    "stages/scoring/metrics.py",
    "stages/scoring/scores.py",
    "stages/evaluate.py",
)


@dataclass(frozen=True)
class Note:
    """A sentence that a reader must know before trusting a number."""

    text: str
    is_warning: bool


@dataclass(frozen=True)
class Panel:
    """One changed image as each side saw it."""

    pair_id: str
    base: Picture
    head: Picture


@dataclass(frozen=True)
class Review:
    """All that both reports tell."""

    base: RunResults
    head: RunResults
    comparison: Comparison
    changes: Changes
    notes: list[Note]
    metrics: list[Row]
    common: list[Row]  # only where the sides scored different images
    classes: list[ClassRow]
    worst: list[str]  # pair ids, worst regression first
    best: list[str]
    panels: dict[str, Panel]
    num_unpictured: int  # changed images left without a panel


def run(
    base: str, head: str | None, out: Path, *, listed: int, num_panels: int, pull: bool
) -> None:
    """Writes `review.md` and `review.html` and prints the verdict.

    Args:
        base: A Git revision.
        head: A Git revision; None is the working tree.
        out: Folder for both.
        listed: Number of regressions, and of gains, to list.
        num_panels: Number of changed images to picture, most changed first.
        pull: Whether to fetch missing outputs from the DVC remote.

    Raises:
        PipelineError: If a revision is unknown or holds nothing to compare, or if
            `out` cannot be a folder.
    """
    from stages.review import markdown, page

    found = review(base, head, k=listed, num_panels=num_panels, pull=pull)
    reports = {"review.md": markdown.render(found), "review.html": page.render(found)}
    for name, text in reports.items():
        try:
            files.write_text(out / name, text)
        except (FileExistsError, NotADirectoryError):
            raise PipelineError(
                f"--out {out} should be a folder, but a file is in its way; choose "
                "another"
            ) from None
    print(f"{markdown.headline(found)}\n{out / 'review.html'}")


def review(
    base: str, head: str | None, *, k: int, num_panels: int, pull: bool = False
) -> Review:
    """Compares two revisions.

    Args:
        base: A Git revision.
        head: A Git revision; None is the working tree.
        k: How many regressions, and how many gains, are listed.
        num_panels: How many changed images get pictures, most changed first.
        pull: Whether to fetch what the cache lacks from the DVC remote.

    Raises:
        PipelineError: If a revision is unknown or holds nothing to compare.
    """
    sides = revisions(base, head)
    if pull:
        fetch(list(sides), CACHED)
    before, after = (load(side) for side in sides)
    comparison = compare(before, after)
    what = changes(before, after)
    worst, best = (_extremes(comparison, word, k) for word in (WORSE, BETTER))
    changed = _most_changed(comparison)
    pictured = list(dict.fromkeys([*worst, *best, *changed[:num_panels]]))
    return Review(
        base=before,
        head=after,
        comparison=comparison,
        changes=what,
        notes=_notes(before, after, comparison, what),
        metrics=metric_rows(before, after, comparison),
        common=[] if comparison.same_images else common_rows(comparison),
        classes=class_rows(before, after, comparison),
        worst=worst,
        best=best,
        panels=_panels(before, after, pictured),
        num_unpictured=len(changed) - len(pictured),
    )


def _most_changed(comparison: Comparison) -> list[str]:
    images = comparison.images
    rows = images[images["became"].isin([BETTER, WORSE])]
    order = rows["dice_difference"].abs().sort_values(ascending=False, kind="stable")
    return list(rows.loc[order.index, "pair_id"])


def _extremes(comparison: Comparison, word: str, k: int) -> list[str]:
    images = comparison.images
    rows = images[images["became"] == word]
    ranked = rows.sort_values("dice_difference", ascending=word == WORSE, kind="stable")
    return list(ranked["pair_id"].head(k))


def _panels(
    base: RunResults, head: RunResults, pair_ids: list[str]
) -> dict[str, Panel]:
    before = pictures(base, pair_ids, role="base")
    after = pictures(head, pair_ids, role="head")
    return {name: Panel(name, before[name], after[name]) for name in pair_ids}


def _notes(
    base: RunResults, head: RunResults, comparison: Comparison, what: Changes
) -> list[Note]:
    """What qualifies the verdict, the gravest first."""
    warnings, remarks = _images_notes(base, head, comparison)
    for role in ("base", "head"):
        if stale := what.stale[role]:
            reasons = "; ".join(
                f"{stage} ({', '.join(why[:3])}{', …' if len(why) > 3 else ''})"
                for stage, why in stale.items()
            )
            warnings.append(
                f"The results of the {role} are not those of its code and params: "
                f"{reasons}. Run `dvc repro` there and commit what it writes."
            )
    scoring = [file.name for file in what.code if file.name in _SCORING]
    if scoring:
        warnings.append(
            f"The code that scores was changed ({', '.join(scoring)}): a difference "
            "may come from the scoring, not from the model."
        )
    data = [e.ingested or {} for e in (base, head)]
    has_ids = all("mask_definition_id" in facts for facts in data)
    key = "mask_definition_id" if has_ids else "mask_definition"
    if data[0].get(key) != data[1].get(key):
        warnings.append(
            "The definition of the mask differs between the sides: scores against "
            "different truths say nothing about the model."
        )
    repo = base.revision.repository
    behind = repo.only_in(
        base.revision.commit or "HEAD", head.revision.commit or "HEAD"
    )
    if behind:
        remarks.append(
            f"The base has {behind} commit{'s' if behind > 1 else ''} that the head "
            "lacks: their effect is in the difference, with its sign turned. Merge the "
            "base first, or compare with `git merge-base`."
        )
    for role, side in (("base", base), ("head", head)):
        if lacks := side.lacks:
            remarks.append(
                f"The DVC cache here lacks {', '.join(map(str, lacks))} of the {role}; "
                "`--pull` fetches what a DVC remote has."
            )
    return [Note(text, True) for text in warnings] + [
        Note(text, False) for text in remarks
    ]


def _other_pictures(comparison: Comparison) -> str:
    """Why ids that both sides have may count as none."""
    num = comparison.counts[OTHER_IMAGE]
    if not num:
        return ""
    plural = "s" * (num > 1)
    return f" Under {num} id{plural} that both have lies another image or mask."


def _images_notes(
    base: RunResults, head: RunResults, comparison: Comparison
) -> tuple[list[str], list[str]]:
    warnings, remarks = [], []
    totals = len(base.per_image), len(head.per_image)
    if comparison.word == NOT_COMPARABLE:
        warnings.append(
            f"The base scored {totals[0]} images, the head {totals[1]}, and none of "
            "them with a Dice on both sides: there is nothing to compare."
            f"{_other_pictures(comparison)}"
        )
    elif not comparison.same_images:
        warnings.append(
            f"The validation sets differ: the base scored {totals[0]} images, the head "
            f"{totals[1]}. All differences are over the {comparison.num_common} images "
            f"that both scored.{_other_pictures(comparison)}"
        )
    difference = comparison.differences.get("dice")
    if difference and difference.num_groups < FEW_GROUPS:
        warnings.append(
            f"Only {difference.num_groups} group{'s' * (difference.num_groups > 1)} of "
            "images: an interval from so few is too narrow to lean on."
        )
    if num := comparison.counts["undefined"]:
        remarks.append(
            f"{num} image{'s' * (num > 1)} without a Dice on one side (both masks "
            "empty) count neither as better nor as worse."
        )
    if not comparison.groups_known:
        remarks.append(
            f"{paths.SPLIT_PAIRS} is in no cache here, so each image counts as a group "
            "of its own; with copies among them the interval is too narrow."
        )
    if not comparison.pictures_checked:
        remarks.append(
            "The ingested data differ and their hashes are in no cache here: images of "
            "one id are taken to be the same picture."
        )
    return warnings, remarks

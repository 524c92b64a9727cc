"""What a reader must know before trusting the numbers, the gravest first."""

from dataclasses import dataclass

from stages.core import paths
from stages.review.changes import Changes
from stages.review.comparison import OTHER_IMAGE, Comparison
from stages.review.revision import num_commits_only_in
from stages.review.run_results import RunResults
from stages.review.table import ABSENT


@dataclass(frozen=True)
class Note:
    """One sentence; `commands` in it stand in backticks."""

    text: str
    is_warning: bool


def notes(
    base: RunResults,
    head: RunResults,
    comparison: Comparison,
    changes: Changes,
) -> list[Note]:
    """All notes on a review; warnings first."""
    warnings, remarks = _on_images(base, head, comparison), []
    for role, stages in changes.stale.items():
        if stages:
            reasons = "; ".join(
                f"{stage} ({', '.join(why[:3])}{', …' if len(why) > 3 else ''})"
                for stage, why in stages.items()
            )
            warnings.append(
                f"The results of the {role} are not those of its code and params: "
                f"{reasons}. Run `dvc repro` there and commit what it writes."
            )
    scoring = [name for name, stages in changes.code.items() if "evaluate" in stages]
    if scoring and not comparison.is_same:
        warnings.append(
            f"Code that evaluate depends on changed ({', '.join(scoring[:6])}"
            f"{', …' if len(scoring) > 6 else ''}): a difference may come from the "
            "scoring, not from the model."
        )
    definitions = [(e.ingested or {}).get("mask_definition") for e in (base, head)]
    if all(definitions) and definitions[0] != definitions[1]:
        warnings.append(
            "The definition of the mask differs between the sides: scores against "
            "different truths say nothing about the model."
        )
    if not changes.same_model and not changes.same_machine:
        facts = ", ".join(
            f"{c.name} {c.base or ABSENT} → {c.head or ABSENT}"
            for c in changes.machine[:6]
        ) or (f"{paths.BUILD} differs")
        warnings.append(
            f"The models were trained on different machines ({facts}), which alone "
            "changes their last digits. `lungfield review --rebuild` builds the base "
            "here."
        )
    if behind := num_commits_only_in(base.revision, head.revision):
        remarks.append(
            f"The base has {behind} commit{'s' * (behind > 1)} that the head lacks: "
            "their effect is in the difference, with its sign turned. Merge the base "
            "first, or compare with `git merge-base`."
        )
    for role, results in (("base", base), ("head", head)):
        if lacks := results.lacks:
            text = (
                f"The DVC cache here lacks {', '.join(map(str, lacks))} of the {role}; "
                "`--pull` fetches what a DVC remote has."
            )
            if paths.SPLIT_PAIRS in lacks:
                text += " Where groups are unknown, each image counts as one, and the"
                text += " interval may be too narrow."
            if paths.QUALITY_PAIRS in lacks:
                text += " Images with the same id are taken to be the same picture."
            remarks.append(text)
    return [Note(text, True) for text in warnings] + [
        Note(text, False) for text in remarks
    ]


def _on_images(base: RunResults, head: RunResults, comparison: Comparison) -> list[str]:
    warnings = []
    totals = len(base.per_image), len(head.per_image)
    num = comparison.counts[OTHER_IMAGE]
    ids = f"{num} ids exist" if num > 1 else "1 id exists"
    others = f" {ids} on both sides but name different images or masks." * bool(num)
    if "dice" not in comparison.differences:
        warnings.append(
            f"The base scored {totals[0]} images, the head {totals[1]}, and none of "
            f"them with a Dice on both sides: there is nothing to compare.{others}"
        )
    elif not comparison.same_images:
        warnings.append(
            f"The validation sets differ: the base scored {totals[0]} images, the head "
            f"{totals[1]}. All differences are over the {comparison.num_common} images "
            f"that both scored.{others}"
        )
    return warnings

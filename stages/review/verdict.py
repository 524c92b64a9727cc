"""The headline: the first of nine statements that holds, with one glyph and colour."""

import math
from dataclasses import dataclass
from enum import Enum

from stages.core import paths
from stages.review.changes import Changes
from stages.review.comparison import Comparison, Difference
from stages.review.run_results import RunResults
from stages.review.table import ends
from stages.scoring.metrics import HEADLINE, number, signed
from stages.scoring.seed_noise import SeedNoise

MIN_GROUPS = 5  # the least for which the interval's coverage was simulated


class Kind(Enum):
    """What the headline states, the gravest first: title, glyph and colour."""

    GATE_FAILED = ("The gate failed", "❌", "worse")
    STALE = ("Stale results", "⚠️", "none")
    NOT_COMPARABLE = ("Nothing to compare", "⚪", "none")
    FEW_GROUPS = ("Too few groups to say", "⚪", "none")
    SAME_MODEL = ("The same model", "⚪", "even")
    SAME_INPUTS = ("The same inputs", "⚪", "even")
    BETTER = ("Better", "🟢", "better")
    WORSE = ("Worse", "🔴", "worse")
    NO_DIFFERENCE = ("No difference shown", "⚪", "even")

    def __init__(self, title: str, glyph: str, colour: str) -> None:
        """Takes the words of each member."""
        self.title, self.glyph, self.colour = title, glyph, colour


@dataclass(frozen=True)
class Verdict:
    """The headline, and how far training alone moves the headline metric."""

    kind: Kind
    sentence: str
    noise: float | None  # None where it was not measured on data like these

    @property
    def has_drifted(self) -> bool:
        """Whether a rebuild of the same inputs should alarm somebody."""
        return self.kind in (Kind.GATE_FAILED, Kind.BETTER, Kind.WORSE)


def verdict(head: RunResults, comparison: Comparison, changes: Changes) -> Verdict:
    """States what a reviewer must know first."""
    noise = _noise(head)
    kind, sentence = _statement(head, comparison, changes, noise)
    return Verdict(kind, sentence, noise)


def _statement(
    head: RunResults,
    comparison: Comparison,
    changes: Changes,
    noise: float | None,
) -> tuple[Kind, str]:
    difference = comparison.differences.get(HEADLINE.name)
    moved = _moved(difference)
    for name, of_site in comparison.parts["site"].items():
        if of_site.is_shown:
            moved += f"; site {name}: {_moved(of_site)}"
    failed = [check for check in head.checks or [] if not check.passed]
    if failed:
        signs = {"min": "<", "max": ">"}
        bounds = [
            f"{c.metric} {number(c.metric, c.value)} {signs[c.kind]} {c.bound:g}"
            for c in failed[:3]
        ]
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        return Kind.GATE_FAILED, f"{', '.join(bounds)}{more}; {moved}"
    for role in ("head", "base"):
        for stage, reasons in changes.stale[role].items():
            return Kind.STALE, f"{stage} of the {role}: {reasons[0]}"
    if difference is None:
        return Kind.NOT_COMPARABLE, "no image was scored by both sides"
    num = difference.num_groups
    if num < MIN_GROUPS:
        groups = f"{num} group{'s' * (num > 1)} of images"
        return Kind.FEW_GROUPS, f"{groups}, at least {MIN_GROUPS} are needed; {moved}"
    if changes.same_model and comparison.is_same:
        return Kind.SAME_MODEL, "byte for byte, and so are all scores"
    within_noise = noise is not None and abs(difference.mean) <= noise
    is_rebuild = changes.same_inputs and not changes.same_model
    if is_rebuild and (noise is None or within_noise):
        where = "here again" if changes.same_machine else "on another machine"
        return Kind.SAME_INPUTS, f"built {where}, which is no change; {moved}"
    if not difference.is_shown:
        return Kind.NO_DIFFERENCE, f"{moved}: the interval holds 0"
    if within_noise:
        return Kind.NO_DIFFERENCE, (
            f"{moved}: another seed alone moves it by up to {number('dice', noise)}"
        )
    if not changes.same_model and not changes.same_machine and noise is None:
        return Kind.NO_DIFFERENCE, (
            f"{moved}: the sides were built on different machines, and how far that "
            "moves it is not measured; --rebuild compares like with like"
        )
    return (Kind.BETTER if difference.mean > 0 else Kind.WORSE), moved


def _moved(difference: Difference | None) -> str:
    """`mean Dice +0.0043 (95 % interval +0.0010 to +0.0086)`."""
    if difference is None:
        return f"no {HEADLINE.title} to compare"
    text = f"mean {HEADLINE.title} {signed(HEADLINE.name, difference.mean)}"
    if math.isnan(difference.low):
        return text
    return f"{text} (95 % interval {ends(HEADLINE.name, difference)})"


def _noise(head: RunResults) -> float | None:
    """How far the training's seed moves the headline metric, by a file in Git.

    None where it was not measured, or on another number of images.
    """
    facts = head.revision.json(paths.SEED_NOISE)
    try:
        noise = SeedNoise(**facts) if facts else None
        if noise is None or noise.num_images != head.metrics.get("num_images"):
            return None
        return noise.largest_difference
    except (TypeError, ValueError) as error:
        raise head.revision.corrupt(paths.SEED_NOISE, "its summary", error) from None

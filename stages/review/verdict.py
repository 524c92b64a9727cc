"""The headline: the first statement that holds, with one glyph and one colour."""

import math
from dataclasses import dataclass
from enum import Enum

from stages.core import paths
from stages.gate import Check
from stages.review.changes import Changes
from stages.review.comparison import Comparison, Difference
from stages.review.run_results import RunResults
from stages.review.table import ends
from stages.scoring.metrics import HEADLINE, number, order, signed
from stages.scoring.seed_noise import SeedNoise

MIN_GROUPS = 5  # the least for which the interval's coverage was simulated
LISTED = 6  # bounds that are not met


class Kind(Enum):
    """What the headline states, the gravest first.

    Title, glyph, colour, and whether the metrics and images below may be called better
    or worse.
    """

    GATE_FAILED = ("The gate failed", "❌", "worse", False)
    STALE = ("Stale results", "⚠️", "none", False)
    NOT_COMPARABLE = ("Nothing to compare", "⚪", "none", False)
    FEW_GROUPS = ("Too few groups to say", "⚪", "none", False)
    SAME_MODEL = ("The same model", "⚪", "even", False)
    SAME_INPUTS = ("The same inputs", "⚪", "even", False)
    WITHIN_NOISE = ("No difference shown", "⚪", "even", False)
    BETTER = ("Better", "🟢", "better", True)
    WORSE = ("Worse", "🔴", "worse", True)
    NO_DIFFERENCE = ("No difference shown", "⚪", "even", True)

    def __init__(self, title: str, glyph: str, colour: str, judges: bool) -> None:
        """Takes the words of each member."""
        self.title, self.glyph, self.colour, self.judges = title, glyph, colour, judges


@dataclass(frozen=True)
class Verdict:
    """The headline, and how far training alone moves the headline metric."""

    kind: Kind
    sentence: str
    noise: float | None  # None where it was not measured on data like these
    judges: bool  # whether differences may be called better or worse
    has_drifted: bool  # whether a rebuild of the same inputs should alarm somebody


def verdict(head: RunResults, comparison: Comparison, changes: Changes) -> Verdict:
    """States what a reviewer must know first."""
    noise = _noise(head)
    kind, sentence = _statement(comparison, changes, noise)
    judges = kind.judges
    if failed := [check for check in head.checks or [] if not check.passed]:
        kind, sentence = Kind.GATE_FAILED, f"{_bounds(failed)}; {_moved(comparison)}"
    has_drifted = kind in (Kind.GATE_FAILED, Kind.BETTER, Kind.WORSE)
    if kind is Kind.SAME_INPUTS and noise is not None:
        difference = comparison.differences[HEADLINE.name]
        has_drifted = difference.is_shown and abs(difference.mean) > noise
        if has_drifted:
            sentence += f", more than another seed moves it ({number('dice', noise)})"
    return Verdict(kind, sentence, noise, judges, has_drifted)


def _statement(
    comparison: Comparison, changes: Changes, noise: float | None
) -> tuple[Kind, str]:
    """The statement behind a gate that passed."""
    moved, difference = _moved(comparison), comparison.differences.get(HEADLINE.name)
    for role in ("head", "base"):
        for stage, reasons in changes.stale[role].items():
            return Kind.STALE, f"{stage} of the {role}, because {reasons[0]}"
    if difference is None:
        return Kind.NOT_COMPARABLE, "no image was scored by both sides"
    num = difference.num_groups
    if num < MIN_GROUPS:
        groups = f"{num} group{'s' * (num > 1)} of images"
        return Kind.FEW_GROUPS, f"{groups}, at least {MIN_GROUPS} are needed; {moved}"
    if changes.same_model and comparison.is_same:
        whose = "" if comparison.same_images else " of the images that both scored"
        return Kind.SAME_MODEL, f"byte for byte, and so are all scores{whose}"
    within_noise = noise is not None and abs(difference.mean) <= noise
    if changes.same_inputs and not changes.same_model:
        where = "here again" if changes.same_machine else "on another machine"
        return Kind.SAME_INPUTS, f"built {where}, not a change; {moved}"
    if not changes.same_model and not changes.same_machine and noise is None:
        return Kind.WITHIN_NOISE, (
            f"{moved}: different machines built the two sides, and how far that moves "
            "Dice is not measured; --rebuild builds the base here"
        )
    if not difference.is_shown:
        return Kind.NO_DIFFERENCE, f"{moved}: the interval includes 0"
    if within_noise:
        return Kind.WITHIN_NOISE, (
            f"{moved}: another seed alone moves it by up to {number('dice', noise)}"
        )
    return (Kind.BETTER if difference.mean > 0 else Kind.WORSE), moved


def _bounds(failed: list[Check]) -> str:
    """The bounds that are not met, as `dice.mean 0.9123 < 0.95`."""
    signs = {"min": "<", "max": ">"}
    texts = [
        f"{c.metric} {number(c.metric, c.value)} {signs[c.kind]} {c.bound:g}"
        for c in sorted(failed, key=lambda check: order(check.metric))
    ]
    more = [f"{len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return ", ".join(texts[:LISTED] + more)


def _moved(comparison: Comparison) -> str:
    """`mean Dice +0.0043 (95 % interval +0.0010 to +0.0086)`, and sites that moved."""
    difference = comparison.differences.get(HEADLINE.name)
    if difference is None:
        return f"no {HEADLINE.title} to compare"
    sites = [
        f"; site {name}: {_text(of_site)}"
        for name, of_site in comparison.parts["site"].items()
        if of_site.is_shown
    ]
    return "".join([_text(difference), *sites])


def _text(difference: Difference) -> str:
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

"""The ablation's page: tables and sentences in Markdown, curves as SVG beside it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation.findings import (
    EARLY,
    START_DICE,
    Contrast,
    Findings,
    Result,
    gradient_ratios,
)
from benchmarks.ablation.grid import MOMENTA, WEIGHTS, Arm, levels_text
from stages.core import files
from stages.core.charts import SERIES, figure, standalone
from stages.tools.sweep import markdown_table

NAME = "ablation.md"
# Told apart by dash as well as by colour.
_LINES: list[dict[str, Any]] = [
    {"color": colour, "linestyle": dash}
    for colour, dash in zip(SERIES, ("-", "--", ":", "-."), strict=False)
]


def write(found: Findings, out: Path, *, data: str, epochs: int) -> Path:
    """Writes the page and its pictures.

    Args:
        found: What to say.
        out: Folder; what else is in it stays.
        data: What the data are called.
        epochs: Of each run.

    Returns:
        The page.
    """
    pictures: dict[str, str] = {}
    for momentum in MOMENTA:
        svg = _dice_curves(found, momentum)
        if svg:
            pictures[f"dice-bn{momentum:g}.svg"] = svg
    pictures |= _gradient_curves(found)
    for name, svg in pictures.items():
        files.write_text(out / name, svg)
    text = _page(found, list(pictures), data=data, epochs=epochs)
    files.write_text(out / NAME, text)
    return out / NAME


def _page(found: Findings, pictures: list[str], *, data: str, epochs: int) -> str:
    parts = [
        "# Does a loss at several levels help?",
        f"{found.num_runs} runs, {len(found.results)} arms, on {data}; {epochs} epochs "
        f"({found.num_steps} steps) each. Dice of {found.num_images} held-out images "
        f"in {found.num_groups} groups, at the masks' own size. The checkpoint is the "
        "best on watched training groups, which no arm trains on.",
        "## Findings",
        "\n".join(f"- {sentence}" for sentence in sentences(found)),
        "## Held-out Dice",
        _results_table(found.results),
        f"Interval: 95 % bootstrap over groups, seeds averaged. Start: steps until the "
        f"watched images reach a Dice of {START_DICE:g}. Early: their Dice after "
        f"{EARLY:.0%} of the steps.",
        "## Differences, image by image",
        _contrasts_table(found.contrasts),
        "The interval holds the choice of patients. A difference is called shown "
        "where it leaves out 0 and all three seeds have the same sign.",
        "## Gradient against that without supervision",
        _gradients_table(found),
        f"Norm of the gradient of one head's weighted loss in a part of the network, "
        f"over the norm that the only head sends there in a run without supervision: "
        f"median over the first and over the last {EARLY:.0%} of the steps.",
        "\n".join(f"![{Path(name).stem}]({name})" for name in pictures),
    ]
    return "\n\n".join(parts) + "\n"


def sentences(found: Findings) -> list[str]:
    """The findings in words, as they are."""
    said = []
    for one in found.contrasts:
        what = f"{one.name}: {one.mean:+.4f} Dice ({one.low:+.4f} to {one.high:+.4f})"
        word = ("better" if one.mean > 0 else "worse") if one.is_shown else ""
        said.append(f"{what}: {word}" if word else f"{what}: no difference shown")
    by_arm = {one.arm: one for one in found.results}
    for momentum in MOMENTA:
        starts = [
            f"{levels_text(levels)} {_mean_start(by_arm[Arm(momentum, levels)])}"
            for levels in WEIGHTS
            if Arm(momentum, levels) in by_arm
        ]
        if starts:
            said.append(
                f"steps until a watched Dice of {START_DICE:g}, batch norm "
                f"{momentum:g}: {', '.join(starts)}"
            )
    return said


def _mean_start(result: Result) -> str:
    reached = [step for step in result.start.values() if step is not None]
    if len(reached) < len(result.start):
        return f"not reached by {len(result.start) - len(reached)} of the seeds"
    return f"{sum(reached) / len(reached):.0f}"


def _results_table(results: Sequence[Result]) -> str:
    rows = [["arm", "Dice", "95 % interval", "by seed", "start", "early"]]
    for one in results:
        rows.append(
            [
                str(one.arm),
                f"{one.mean:.4f}",
                f"{one.low:.4f} to {one.high:.4f}",
                ", ".join(f"{value:.4f}" for value in one.by_seed.values()),
                ", ".join("-" if s is None else str(s) for s in one.start.values()),
                ", ".join(f"{value:.3f}" for value in one.early.values()),
            ]
        )
    return markdown_table(rows)


def _contrasts_table(contrasts: Sequence[Contrast]) -> str:
    rows = [["difference", "Dice", "95 % interval", "by seed", "shown"]]
    for one in contrasts:
        rows.append(
            [
                one.name,
                f"{one.mean:+.4f}",
                f"{one.low:+.4f} to {one.high:+.4f}",
                ", ".join(f"{value:+.4f}" for value in one.by_seed.values()),
                "yes" if one.is_shown else "no",
            ]
        )
    return markdown_table(rows)


def _gradients_table(found: Findings) -> str:
    rows: list[list[str]] = []
    for arm, heads in found.gradients.items():
        for head in heads:
            if arm.levels == 1:
                continue
            ratios = gradient_ratios(found, arm, head)
            if not rows:
                rows.append(["arm", "head", *ratios])
            cells = [
                f"{early:.2f}, {late:.2f}" if math.isfinite(early) else "-"
                for early, late in ratios.values()
            ]
            rows.append([str(arm), str(head), *cells])
    return markdown_table(rows) if rows else "No run with supervision is done."


def _dice_curves(found: Findings, momentum: float) -> str:
    """1 minus watched Dice against steps: the mean over seeds, each seed faint.

    On a logarithmic scale, which keeps the end of training readable.
    """
    drawn, axes = figure(width=5.0, height=3.4)
    for levels, style in zip(WEIGHTS, _LINES, strict=False):
        runs = list(found.curves.get(Arm(momentum, levels), {}).values())
        if not runs:
            continue
        for run in runs:
            axes.plot(1 - run, color=style["color"], linewidth=0.8, alpha=0.3)
        # An epoch has a step more or less where other groups are watched.
        steps = np.mean([run.index for run in runs], axis=0)
        means = 1 - np.mean([run.to_numpy() for run in runs], axis=0)
        axes.plot(steps, means, label=levels_text(levels), **style)
    if not axes.lines:
        return ""
    axes.set_yscale("log")
    axes.set_xlabel("training step")
    axes.set_ylabel(f"1 - watched Dice, batch norm {momentum:g}")
    axes.legend()
    return standalone(drawn, f"Dice against steps, batch norm {momentum:g}")


def _gradient_curves(found: Findings) -> dict[str, str]:
    """A picture per head of each arm, all on one scale."""
    every = [
        value
        for heads in found.gradients.values()
        for parts in heads.values()
        for curve in parts.values()
        for value in curve
        if value > 0
    ]
    pictures = {}
    for arm, heads in found.gradients.items():
        for head, parts in heads.items():
            drawn, axes = figure(width=5.0, height=3.4)
            for (part, curve), style in zip(parts.items(), _LINES, strict=False):
                axes.plot(curve, label=part, **style)
            axes.set_yscale("log")
            axes.set_ylim(min(every) / 1.5, max(every) * 1.5)
            axes.set_xlabel("training step")
            axes.set_ylabel(f"gradient norm from head {head}")
            axes.legend()
            name = f"gradient-bn{arm.momentum:g}-levels{arm.levels}-head{head}.svg"
            pictures[name] = standalone(drawn, f"Gradient from head {head}, {arm}")
    return pictures

"""The review as Markdown: a comment that reads well without pictures."""

from collections.abc import Iterable, Sequence
from typing import Any

from stages.review import Review
from stages.review.comparison import (
    BETTER,
    EQUAL,
    NOT_COMPARABLE,
    RESAMPLES,
    TOLERANCE,
    WORSE,
)
from stages.review.curves import training_rows
from stages.review.exported import export_rows
from stages.review.table import ABSENT, Row, interval, minus
from stages.review.text import code, escaped
from stages.scoring.metrics import number, signed

LIMIT = 65_000  # characters; GitHub refuses a comment of more than 65,536
# Metrics that a reader sees without unfolding anything, beside those with a bound.
_FIRST = (
    *("dice.mean", "dice.p05", "dice.min", "iou.mean", "hd95_px.mean", "assd_px.mean"),
    *("num_undefined", "num_images"),
)
_SIGNS = {BETTER: "🟢", WORSE: "🔴", NOT_COMPARABLE: "⚪"}


def render(review: Review) -> str:
    """Markdown of at most `LIMIT` characters: lists are cut before anything else."""
    text = ""
    for most in (60, 30, 15, 8, 4, 2, 1):
        text = "\n".join(_lines(review, most)).rstrip() + "\n"
        if len(text) <= LIMIT:
            return text
    return text[: LIMIT - 1] + "\n"


def headline(review: Review) -> str:
    """The verdict in a line of plain text."""
    comparison = review.comparison
    gates = f"gate {gate_word(review.base.gate)} -> {gate_word(review.head.gate)}"
    difference = comparison.differences.get("dice")
    if difference is None:
        return f"{comparison.word}; {gates}"
    counts = comparison.counts
    return (
        f"{comparison.word}: mean Dice {signed('dice', difference.mean)} "
        f"(95 % interval {interval('dice', difference)}) over {difference.num_images} "
        f"images; {counts[WORSE]} worse, {counts[BETTER]} better, {counts[EQUAL]} "
        f"equal; {gates}"
    )


def gate_word(passed: bool | None) -> str:
    """`passed`, `FAILED` or `not asked`."""
    return {True: "passed", False: "FAILED", None: "not asked"}[passed]


def _lines(review: Review, most: int) -> list[str]:
    return [
        *_verdict(review),
        *_what_changed(review, most),
        *_metrics(review, most),
        *_images(review, most),
        *_training(review),
        *_exported(review),
    ]


def _verdict(review: Review) -> list[str]:
    comparison, counts = review.comparison, review.comparison.counts
    word = comparison.word
    lines = [
        f"## {_SIGNS.get(word, '🟡')} {word.capitalize()}",
        "",
        f"`base` {escaped(review.base.revision)} → "
        f"`head` {escaped(review.head.revision)}",
        "",
    ]
    difference = comparison.differences.get("dice")
    if difference is not None:
        lines += [
            f"**Mean Dice {signed('dice', difference.mean)}** (95 % interval "
            f"{interval('dice', difference)}): {number('dice', difference.base)} → "
            f"{number('dice', difference.head)} over {difference.num_images} images in "
            f"{difference.num_groups} groups.  ",
            f"**{counts[WORSE]} worse, {counts[BETTER]} better, {counts[EQUAL]} "
            f"equal** (within {TOLERANCE} of Dice).",
            "",
        ]
    lines += [
        f"Gate: base **{gate_word(review.base.gate)}**, head "
        f"**{gate_word(review.head.gate)}**",
        "",
    ]
    short = [check for check in review.head.checks if not check["passed"]]
    if short:
        lines += _table(
            ["Head falls short of", "Value", "Bound"],
            [
                [
                    code(check["metric"]),
                    number(check["metric"], check["value"]),
                    f"{'≥' if check['kind'] == 'min' else '≤'} {check['bound']:g}",
                ]
                for check in short[:60]
            ],
        )
    for note in review.notes:
        lines.append(f"> {'⚠️ ' if note.is_warning else ''}{escaped(note.text, 1500)}")
        lines.append(">")
    return [*lines[:-1], ""] if review.notes else lines


def _what_changed(review: Review, most: int) -> list[str]:
    what = review.changes
    lines = ["### What changed", ""]
    if what.params:
        lines += _table(
            ["Param", "Base", "Head"],
            [[code(c.name), _code(c.base), _code(c.head)] for c in what.params[:most]],
            len(what.params) - most,
        )
    else:
        lines += ["No param.", ""]
    lines += [f"- {sentence}" for sentence in data_sentences(review, most)]
    if what.reruns:
        lines.append("- Stages rerun:")
        for rerun in what.reruns:
            why = ", ".join(escaped(name) for name in rerun.why[:6])
            more = f" and {len(rerun.why) - 6} more" if len(rerun.why) > 6 else ""
            tail = "" if rerun.outputs_differ else "; same outputs"
            lines.append(
                f"    - **{escaped(rerun.stage)}** because of {why}{more}{tail}"
            )
    else:
        lines.append("- No stage has another result recorded.")
    if what.code:
        shown = [
            f"{escaped(file.name)} ({_lines_of(file.added, file.removed)})"
            for file in what.code[:most]
        ]
        lines.append(
            f"- Code that stages read: {_joined(shown, len(what.code) - most)}"
        )
    if what.other_files:
        lines.append(f"- {what.other_files} other files, which no stage reads")
    return [*lines, ""]


def data_sentences(review: Review, most: int) -> list[str]:
    """What became of the data, as escaped sentences."""
    data = review.changes.data
    if data.same:
        sentences = ["Data: not a byte differs."]
    elif not data.pairs_known:
        sentences = ["Data: they differ; which pairs cannot be told without the cache."]
    else:
        sentences = []
        for title, names in (
            ("added", data.added),
            ("removed", data.removed),
            ("with other pixels or another class", data.changed),
            ("newly accepted", data.accepted),
        ):
            if names:
                sentences.append(f"Pairs {title}: {_ids(names, most)}")
        if data.rejected:
            shown = [
                f"{escaped(name)} ({escaped(reason)})"
                for name, reason in list(data.rejected.items())[:most]
            ]
            more = len(data.rejected) - most
            sentences.append(
                f"Pairs newly rejected: {len(data.rejected)}: {_joined(shown, more)}"
            )
        if not sentences:
            sentences = ["Data: the same pairs, stored otherwise."]
    for change in data.facts[:12]:
        if change.name != "sha256":
            sentences.append(
                f"Data, {escaped(change.name)}: {_code(change.base)} → "
                f"{_code(change.head)}"
            )
    for title, names in (
        ("from training to validation", data.to_validation),
        ("from validation to training", data.to_train),
    ):
        if names:
            sentences.append(f"Pairs moved {title}: {_ids(names, most)}")
    return sentences


def _metrics(review: Review, most: int) -> list[str]:
    lines = ["### Metrics", ""]
    if review.common:
        num = review.comparison.num_common
        lines += [f"Over the {num} images that both sides scored:", ""]
        lines += _metric_table(review.common)
        lines += ["Each side over its own images:", ""]
    elif not review.comparison.same_images:
        lines += ["Each side over its own images, so without a difference:", ""]
    first = [row for row in review.metrics if row.bound or row.name in _FIRST]
    rest = [row for row in review.metrics if row not in first]
    lines += _metric_table(first[: 20 + most])
    if rest:
        lines += ["<details><summary>Other metrics</summary>", ""]
        lines += [*_metric_table(rest[: 20 + most]), "</details>", ""]
    if review.classes:
        rows = [
            [
                escaped(c.name, 60),
                f"{c.num_base}"
                if c.num_base == c.num_head
                else f"{c.num_base} → {c.num_head}",
                *_cells(c.row),
            ]
            for c in review.classes[:most]
        ]
        names = ["Dice of class", "Images", "Base", "Head", "Difference", "95 %", ""]
        lines += _table(names, rows, len(review.classes) - most)
    return lines


def _metric_table(rows: Iterable[Row]) -> list[str]:
    names = ["Metric", "Base", "Head", "Difference", "95 % interval", "", "Gate"]
    return _table(
        names,
        [
            [
                code(row.name),
                *_cells(row),
                row.bound + (" ❌" if row.passed is False else ""),
            ]
            for row in rows
        ],
    )


def _cells(row: Row) -> list[str]:
    mark = f"**{row.mark}**" if row.is_shown else row.mark
    return [row.base, row.head, row.difference, row.interval, mark]


def _images(review: Review, most: int) -> list[str]:
    table = review.comparison.images.set_index("pair_id")
    images: dict[str, dict[str, Any]] = table.to_dict("index")  # type: ignore[assignment]
    lines = ["### Images", ""]
    for title, names in (
        ("Worst regressions", review.worst),
        ("Best gains", review.best),
    ):
        if not names:
            continue
        rows = [
            [
                escaped(name),
                escaped(images[name]["class_name"], 60),
                number("dice", images[name]["dice_base"]),
                number("dice", images[name]["dice_head"]),
                signed("dice", images[name]["dice_difference"]),
            ]
            for name in names[:most]
        ]
        header = [title, "Class", "Base", "Head", "Difference"]
        lines += _table(header, rows, len(names) - most)
    if len(lines) == 2:
        lines += [
            f"No image that both sides scored changed by more than {TOLERANCE}.",
            "",
        ]
    else:
        lines += ["`review.html` shows both overlays of each.", ""]
    return lines


def _training(review: Review) -> list[str]:
    rows = training_rows(review.base, review.head)
    if not rows:
        return []
    return ["### Training", "", *_table(["Last epoch", "Base", "Head"], rows)]


def _exported(review: Review) -> list[str]:
    rows = [
        [escaped(row.name), row.base, row.head, row.difference]
        for row in export_rows(review.base, review.head)
    ]
    lines = ["### Exported model", ""]
    lines += _table(["", "Base", "Head", "Difference"], rows) if rows else ["None.", ""]
    return [
        *lines,
        f"<sub>Interval: percentiles of {RESAMPLES:,} paired resamples of whole groups "
        "of images, fixed seed.</sub>",
    ]


def _table(header: Sequence[str], rows: list[list[str]], more: int = 0) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    if more > 0:
        lines.append(f"| and {more} more {'| ' * len(header)}".rstrip())
    return [*lines, ""]


def _ids(names: Sequence[str], most: int) -> str:
    shown = [escaped(name, 60) for name in names[:most]]
    return f"{len(names)}: {_joined(shown, len(names) - most)}"


def _joined(shown: Sequence[str], more: int) -> str:
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _code(value: str | None) -> str:
    return ABSENT if value is None else code(value)


def _lines_of(added: int, removed: int) -> str:
    return "binary" if added < 0 else minus(f"+{added} -{removed}")

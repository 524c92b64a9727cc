"""The review as Markdown: a comment that reads well without pictures."""

from collections.abc import Iterable, Sequence

from stages.core import tables
from stages.review import Review
from stages.review.comparison import BETTER, EQUAL, RESAMPLES, TOLERANCE, WORSE
from stages.review.curves import training_rows
from stages.review.exported import export_rows
from stages.review.freshness import Change
from stages.review.table import ABSENT, Row, minus
from stages.review.text import code, escaped
from stages.scoring.metrics import number, signed

LIMIT = 50_000  # bytes; GitHub refuses a comment of more than 65,536 characters


def render(review: Review) -> str:
    """Markdown of at most `LIMIT` bytes: lists are cut before anything else."""
    text = ""
    for most in (60, 30, 15, 8, 4, 2, 1):
        text = "\n".join(_lines(review, most)).rstrip() + "\n"
        if len(text.encode()) <= LIMIT:
            return text
    return text.encode()[: LIMIT - 1].decode(errors="ignore") + "\n"


def headline(review: Review) -> str:
    """The verdict in a line of plain text."""
    counts = review.comparison.counts
    return (
        f"{review.verdict.kind.title}: {review.verdict.sentence}; {counts[WORSE]} "
        f"worse, {counts[BETTER]} better, {counts[EQUAL]} equal"
    )


def gate_word(passed: bool | None) -> str:
    """`passed`, `FAILED` or `unknown`."""
    return {True: "passed", False: "FAILED", None: "unknown"}[passed]


def _lines(review: Review, most: int) -> list[str]:
    return [
        *_verdict(review),
        *_changed_metrics(review, most),
        *_notes(review),
        *_fold("What changed", _what_changed(review, most)),
        *_fold("All metrics", _all_metrics(review, most)),
        *_fold("Images", _images(review, most)),
        *_fold("Training and exported model", _model(review)),
        *_fold("History of the base", _history(review)),
        "",
        f"<sub>Interval: Student's t and {RESAMPLES:,} bootstrap-t resamples of whole "
        "groups of images, paired, fixed seed; the outer ends.</sub>",
    ]


def _verdict(review: Review) -> list[str]:
    kind, counts = review.verdict.kind, review.comparison.counts
    difference = review.comparison.differences.get("dice")
    noise = review.verdict.noise
    moved = "not measured" if noise is None else f"up to {number('dice', noise)}"
    lines = [
        f"## {kind.glyph} {kind.title}: {escaped(review.verdict.sentence, 300)}",
        "",
    ]
    if difference is not None:
        lines.append(
            f"Mean Dice {number('dice', difference.base)} → "
            f"**{number('dice', difference.head)}** over {difference.num_images} "
            f"images in {difference.num_groups} groups; another seed alone: {moved}.  "
        )
    return [
        *lines,
        f"{counts[WORSE]} images worse, {counts[BETTER]} better, {counts[EQUAL]} equal "
        f"(within {TOLERANCE} of Dice). Gate: base {gate_word(review.base.gate)}, head "
        f"**{gate_word(review.head.gate)}**.",
        "",
        f"`base` {escaped(review.base.revision)} → "
        f"`head` {escaped(review.head.revision)}",
        "",
    ]


def _changed_metrics(review: Review, most: int) -> list[str]:
    rows = review.common or [row for row in review.metrics if row.has_changed]
    if not rows:
        return ["No metric changed.", ""]
    num = review.comparison.num_common
    over = f"Over the {num} images that both sides scored:"
    return [*([over, ""] if review.common else []), *_metric_table(rows, 20 + most)]


def _notes(review: Review) -> list[str]:
    lines = []
    for note in review.notes:
        parts = [
            code(part) if place % 2 else escaped(part, 1500)
            for place, part in enumerate(note.text.split("`"))
        ]
        lines += [f"> {'⚠️ ' if note.is_warning else ''}{''.join(parts)}", ">"]
    return [*lines[:-1], ""] if lines else []


def _fold(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    return [f"<details><summary>{title}</summary>", "", *lines, "</details>", ""]


def _what_changed(review: Review, most: int) -> list[str]:
    what = review.changes
    lines = []
    if what.params:
        rows = [_change_cells(change) for change in what.params[:most]]
        lines += _table(["Param", "Base", "Head"], rows, len(what.params) - most)
    else:
        lines += ["No param.", ""]
    lines += [f"- {line}" for line in _data_lines(review, most)]
    for rerun in what.reruns:
        why = ", ".join(escaped(name) for name in rerun.why[:6])
        more = f" and {len(rerun.why) - 6} more" if len(rerun.why) > 6 else ""
        tail = "" if rerun.outputs_differ else "; same outputs"
        lines.append(f"- **{escaped(rerun.stage)}** ran: {why}{more}{tail}")
    if not what.reruns:
        lines.append("- No stage has another result recorded.")
    if what.code:
        shown = [
            f"{escaped(file.name)} ({_lines_of(file.added, file.removed)})"
            for file in what.code[:most]
        ]
        lines.append(
            f"- Code that stages read: {_joined(shown, len(what.code) - most)}"
        )
    if what.machine:
        rows = [_change_cells(change) for change in what.machine[:most]]
        lines += ["", *_table(["Machine", "Base", "Head"], rows)]
    if what.other_files:
        lines.append(f"- {what.other_files} other files, which no stage reads")
    return [*lines, ""]


def _data_lines(review: Review, most: int) -> list[str]:
    data = review.changes.data
    if data.same:
        lines = ["Data: not a byte differs."]
    elif not data.pairs_known:
        lines = ["Data: they differ; the cache lacks which pairs."]
    else:
        lines = ["Data: they differ."]
    for title, names in (
        ("Pairs added", data.added),
        ("Pairs removed", data.removed),
        ("Pairs with other pixels or another class", data.changed),
        ("Pairs newly accepted", data.accepted),
        ("Pairs moved from training to validation", data.to_validation),
        ("Pairs moved from validation to training", data.to_train),
    ):
        if names:
            shown = [escaped(name, 60) for name in names[:most]]
            lines.append(f"{title}: {len(names)}: {_joined(shown, len(names) - most)}")
    if data.rejected:
        shown = [
            f"{escaped(name)} ({escaped(reason)})"
            for name, reason in list(data.rejected.items())[:most]
        ]
        more = len(data.rejected) - most
        lines.append(
            f"Pairs newly rejected: {len(data.rejected)}: {_joined(shown, more)}"
        )
    lines += [
        f"Data, {escaped(change.name)}: {_code(change.base)} → {_code(change.head)}"
        for change in data.facts[:12]
        if change.name != "sha256"
    ]
    return lines


def _all_metrics(review: Review, most: int) -> list[str]:
    lines = []
    if not review.comparison.same_images:
        lines += ["Each side over its own images, so without a difference:", ""]
    lines += _metric_table(review.metrics, 20 + most)
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
    return [*lines, *_table(names, rows, len(review.classes) - most)]


def _metric_table(rows: Sequence[Row], most: int) -> list[str]:
    names = ["Metric", "Base", "Head", "Difference", "95 % interval", "", "Gate"]
    cells = [
        [
            code(row.name),
            *_cells(row),
            row.bound + (" ❌" if row.passed is False else ""),
        ]
        for row in rows[:most]
    ]
    return _table(names, cells, len(rows) - most)


def _cells(row: Row) -> list[str]:
    mark = f"**{row.mark}**" if row.is_shown else row.mark
    return [row.base, row.head, row.difference, row.interval, mark]


def _images(review: Review, most: int) -> list[str]:
    images = review.comparison.images.set_index("pair_id").to_dict("index")
    lines = []
    for title, names in (
        ("Worst regressions", review.worst),
        ("Best gains", review.best),
    ):
        rows = [
            [
                escaped(name),
                escaped(images[name]["class_name"], 60),
                number("dice", images[name]["dice_base"]),
                number("dice", images[name]["dice_head"]),
                signed("dice", float(images[name]["dice_difference"])),
            ]
            for name in names[:most]
        ]
        header = [title, "Class", "Base", "Head", "Difference"]
        lines += _table(header, rows, len(names) - most) if rows else []
    return lines


def _model(review: Review) -> list[str]:
    lines = []
    if rows := training_rows(review.base, review.head):
        lines += _table(["Last epoch", "Base", "Head"], rows)
    exported = [
        [escaped(row.name), row.base, row.head, row.difference]
        for row in export_rows(review.base, review.head)
    ]
    if exported:
        lines += _table(["Exported model", "Base", "Head", "Difference"], exported)
    return lines


def _history(review: Review) -> list[str]:
    rows = [
        [
            point.commit,
            point.date,
            number("dice", point.mean),
            f"{number('dice', point.low)} to {number('dice', point.high)}",
        ]
        for point in reversed(review.history)
    ]
    return _table(["Commit", "Date", "Dice", "95 % interval"], rows) if rows else []


def _table(header: Sequence[str], rows: list[list[str]], more: int = 0) -> list[str]:
    lines = [tables.markdown(header, rows)]
    if more > 0:
        lines.append(f"| and {more} more {'| ' * len(header)}".rstrip())
    return [*lines, ""]


def _change_cells(change: Change) -> list[str]:
    return [code(change.name), _code(change.base), _code(change.head)]


def _joined(shown: Iterable[str], more: int) -> str:
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _code(value: str | None) -> str:
    return ABSENT if value is None else code(value)


def _lines_of(added: int, removed: int) -> str:
    return "binary" if added < 0 else minus(f"+{added} -{removed}")

"""The exported model of both sides: size, work and parity."""

from dataclasses import dataclass
from typing import Any

from stages.core.tables import flatten
from stages.review.run_results import RunResults
from stages.review.table import ABSENT, minus

# What becomes of the last part of a name in export.json.
_TITLES = {
    "parameters": "Parameters",
    "multiply_adds": "Multiply-adds per image",
    "bytes": "bytes",
    "max_probability_difference": "largest difference to Keras, probability",
    "max_dice_difference": "largest difference to Keras, Dice",
}


@dataclass(frozen=True)
class ExportRow:
    """One number of the exported model."""

    name: str
    base: str
    head: str
    difference: str


def export_rows(base: RunResults, head: RunResults) -> list[ExportRow]:
    """Rows of both sides; a side whose gate failed exported nothing."""
    values = [_values(base), _values(head)]
    rows = []
    for name in dict.fromkeys([*values[1], *values[0]]):
        pair = [value.get(name) for value in values]
        before, after = _text(name, pair[0], base), _text(name, pair[1], head)
        rows.append(ExportRow(name, before, after, _difference(name, *pair)))
    return rows


def _values(results: RunResults) -> dict[str, float]:
    found = {}
    for name, value in flatten(results.export or {}).items():
        *parents, last = name.split(".")
        if last in _TITLES and isinstance(value, int | float):
            found[", ".join([*parents[1:], _TITLES[last]])] = value
    return dict(sorted(found.items(), key=lambda item: "," in item[0]))


def _text(name: str, value: Any, results: RunResults) -> str:
    if value is None:
        return "not exported: gate" if results.gate is False else ABSENT
    return f"{value:.1e}" if "difference" in name else f"{value:,}"


def _difference(name: str, base: float | None, head: float | None) -> str:
    if base is None or head is None or "difference" in name:
        return ""
    if base == head:
        return "same"
    share = f" ({(head - base) / base:+.1%})" if base else ""
    return minus(f"{head - base:+,}{share}")

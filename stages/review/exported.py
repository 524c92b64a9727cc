"""The exported model of both sides: size, work and parity."""

from dataclasses import dataclass
from typing import Any

from stages.review.run_results import RunResults
from stages.review.table import ABSENT, minus

_TITLES = {"parameters": "Parameters", "multiply_adds": "Multiply-adds per image"}


@dataclass(frozen=True)
class ExportRow:
    """One number of the exported model."""

    name: str
    base: str
    head: str
    difference: str


def export_rows(base: RunResults, head: RunResults) -> list[ExportRow]:
    """Rows of both sides; a side whose gate was not passed exported nothing."""
    values = [_values(base), _values(head)]
    names = dict.fromkeys([*values[1], *values[0]])
    return [
        ExportRow(
            name,
            _text(name, values[0].get(name), base),
            _text(name, values[1].get(name), head),
            _difference(name, values[0].get(name), values[1].get(name)),
        )
        for name in names
    ]


def _values(results: RunResults) -> dict[str, Any]:
    formats = (results.export or {}).get("formats")
    if results.export is None or not isinstance(formats, dict):
        return {}
    values: dict[str, Any] = {
        title: results.export.get(key) for key, title in _TITLES.items()
    }
    for name, found in sorted(formats.items()):
        values[f"{name}, bytes"] = found.get("bytes")
        for key, title in (
            (
                "max_probability_difference",
                "largest difference to Keras, probability",
            ),
            ("max_dice_difference", "largest difference to Keras, Dice"),
        ):
            values[f"{name}, {title}"] = found.get(key)
    return values


def _text(name: str, value: Any, results: RunResults) -> str:
    if not isinstance(value, int | float):
        return "not exported: gate" if results.gate is False else ABSENT
    return f"{value:.1e}" if "difference" in name else f"{value:,}"


def _difference(name: str, base: Any, head: Any) -> str:
    if not (isinstance(base, int | float) and isinstance(head, int | float)):
        return ""
    if "difference" in name:
        return ""
    if base == head:
        return "same"
    share = f" ({(head - base) / base:+.1%})" if base else ""
    return minus(f"{head - base:+,}{share}")

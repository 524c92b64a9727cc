"""Nested values as flat ones; rows as text or Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """`{"dice": {"mean": 0.9}}` as `{"dice.mean": 0.9}`.

    Example:
        >>> flatten({"dice": {"mean": 0.9}, "num_images": 3})
        {'dice.mean': 0.9, 'num_images': 3}
    """
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns for a terminal."""
    table = tabulate([*rows], [*header], tablefmt="plain", disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.splitlines())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; cells are taken as Markdown."""
    return tabulate([*rows], [*header], tablefmt="pipe", disable_numparse=True)

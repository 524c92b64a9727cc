"""Tables as text or Markdown."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns for a terminal."""
    table = tabulate([*rows], [*header], tablefmt="plain", disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.splitlines())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; cells are taken as Markdown."""
    return tabulate([*rows], [*header], tablefmt="pipe", disable_numparse=True)

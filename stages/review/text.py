"""Foreign text made harmless: it is shown, and does nothing else."""

import re

_ZERO_WIDTH = "\N{ZERO WIDTH SPACE}"
# An underscore between letters is only an underscore.
_MARKUP = re.compile(r"([\\`*{}\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def visible(text: object) -> str:
    """Text of one line in which nothing is hidden: no control, no bidi character."""
    line = re.sub(r"\s+", " ", str(text))
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in line
    )


def escaped(text: object, most: int = 120) -> str:
    """Foreign text as Markdown that shows it and does nothing else.

    No markup, no table cell, no link, and no mention that would call a person.
    """
    line = _cut(visible(text), most)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _MARKUP.sub(r"\\\1", line)
    line = re.sub(r"([@#])", rf"\1{_ZERO_WIDTH}", line)
    return re.sub(r"(?i)(:)(?=//)|(www)(?=\.)", rf"\1\2{_ZERO_WIDTH}", line)


def code(text: object, most: int = 120) -> str:
    """Foreign text as a code span of one line for a table's cell; "" for None."""
    if text is None:
        return ""
    line = _cut(visible(text).replace("`", "'"), most)
    return f"`{line.replace('|', chr(92) + '|')}`" if line else ""


def _cut(line: str, most: int) -> str:
    return line if len(line) <= most else line[: most - 1] + "…"

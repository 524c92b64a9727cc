"""Foreign text made harmless: it is shown, and does nothing else."""

import re

_ZERO_WIDTH = "\N{ZERO WIDTH SPACE}"
# An underscore between letters is only an underscore.
_MARKUP = re.compile(r"[\\`*{}\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def visible(text: object) -> str:
    """Text of one line in which nothing is hidden: no control, no bidi character."""
    line = " ".join(str(text).split())
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in line
    )


def escaped(text: object, most: int = 120) -> str:
    """Foreign text as Markdown that shows it and does nothing else.

    No markup, no table cell, no link, and no mention that would call a person.
    """
    line = visible(text)
    if len(line) > most:
        line = line[: most - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(
        r"([\\`*{}\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", line
    )
    line = re.sub(r"([@#])", rf"\1{_ZERO_WIDTH}", line)
    return re.sub(r"(?i)(:)(?=//)|(www)(?=\.)", rf"\1\2{_ZERO_WIDTH}", line)


def code(text: object, most: int = 120) -> str:
    """Foreign text as a code span of one line, which a table's cell may hold."""
    line = visible(text).replace("`", "'")
    if len(line) > most:
        line = line[: most - 1] + "…"
    return f"`{line.replace('|', chr(92) + '|')}`" if line else ""

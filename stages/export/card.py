"""The model card: intended use, training data, accuracy, use."""

import math
import re
from pathlib import Path
from typing import Any

import jinja2

from stages.scoring.metrics import METRICS

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
SNIPPETS = Path(__file__).with_name("snippets")
# Characters of Markdown and HTML, escaped in untrusted text.
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$])")


def render(**values: Any) -> str:
    """Fills `model_card.md.jinja`."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: untrusted text goes through `plain`
    )
    environment.filters |= {"plain": plain, "number": number, "count": "{:,}".format}

    def snippet(name: str) -> str:
        sizes = {key: values[f"image_{key.lower()}"] for key in ("SIZE", "CHANNELS")}
        return with_constants(
            (SNIPPETS / name).read_text("utf-8"),
            {**sizes, "THRESHOLD": values["threshold"]},
        ).strip()

    environment.globals["snippet"] = snippet
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(registry=METRICS, **values)


def with_constants(code: str, values: dict[str, float]) -> str:
    """Sets `NAME = number` in a snippet.

    Example:
        >>> with_constants("const int SIZE = 128;", {"SIZE": 64})
        'const int SIZE = 64;'
    """
    return re.sub(
        rf"\b({'|'.join(values)}) = [\d.]+",
        lambda found: f"{found[1]} = {values[found[1]]}",
        code,
    )


def plain(text: Any) -> str:
    r"""Untrusted text on one line of Markdown, with markup escaped.

    Example:
        >>> print(plain("a|b\n<i>"))
        a\|b \<i\>
    """
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def number(value: float | None, digits: int = 4) -> str:
    """A metric, or `undefined`."""
    if value is None or not math.isfinite(value):
        return "undefined"
    return f"{value:.{digits}f}"

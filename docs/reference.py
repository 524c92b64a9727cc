"""Writes the generated pages of docs/reference: `python docs/reference.py`.

`params.md` comes from `params.yaml` and the models in `stages/core/params.py`, the
table of `metrics.md` from the registry in `stages/scoring/metrics.py`, and `cli.md`
from the Typer app.
`tests/test_docs.py` checks that the files are up to date.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT))

from stages.core.params import Params  # noqa: E402

NOTE = "<!-- Written by docs/reference.py; `make docs` updates it. -->\n\n"


def params_page() -> str:
    """One table per section of `params.yaml`."""
    text = (ROOT / "params.yaml").read_text("utf-8")
    values = YAML(typ="safe", pure=True).load(text)
    meanings = comments(text)
    lines = [
        "# Params",
        "",
        "`params.yaml` holds every param with its default. Each stage checks types and",
        "bounds when it starts. Change a param for one run: "
        "`dvc exp run -S train.epochs=5`.",
    ]
    for name, section, defaults in sections(Params, values):
        lines += ["", f"## {name}", "", f"{section.__doc__.splitlines()[0]}", ""]
        lines += ["| param | default | allowed | meaning |", "|---|---|---|---|"]
        for key, field in section.model_fields.items():
            if not is_section(field.annotation):
                cells = (
                    f"`{name}.{key}`",
                    f"`{json.dumps(defaults[key])}`",
                    allowed(section, key),
                    meanings[f"{name}.{key}"],
                )
                lines.append(f"| {' | '.join(cells)} |")
    return NOTE + "\n".join(lines) + "\n"


def comments(text: str) -> dict[str, str]:
    """The comment behind each key of a YAML text, by dotted name."""
    found, parents = {}, []
    for line in text.splitlines():
        if match := re.match(r"( *)(\w+):.*?(?:  # (.*))?$", line):
            indent, key, comment = match.groups()
            parents = [*parents[: len(indent) // 2], key]
            if comment:
                found[".".join(parents)] = comment
    return found


def is_section(annotation: Any) -> bool:
    """Whether a field holds params of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def sections(
    model: type[BaseModel], values: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, type[BaseModel], dict[str, Any]]]:
    """Yields the dotted name, model and shipped values of each section."""
    for key, field in model.model_fields.items():
        name = field.alias or key
        inner = field.annotation
        if is_section(inner):
            yield f"{prefix}{name}", inner, values[name]
            yield from sections(inner, values[name], f"{prefix}{name}.")


def allowed(section: type[BaseModel], key: str) -> str:
    """The type and bounds of a field, such as `integer, > 0`."""
    schema = section.model_json_schema()["properties"][key]
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    bounds = (
        ("exclusiveMinimum", ">"),
        ("minimum", ">="),
        ("exclusiveMaximum", "<"),
        ("maximum", "<="),
    )
    found = [f"{sign} {schema[name]}" for name, sign in bounds if name in schema]
    kind = {"array": "list", "object": "mapping"}.get(schema["type"], schema["type"])
    return ", ".join([kind, *found])


def metrics_page() -> str:
    """The page as it is, with the table of the registry between its two comments."""
    from stages.scoring.metrics import METRICS

    rows = ["| metric | meaning | unit | better | values |", "|---|---|---|---|---|"]
    for metric in METRICS.values():
        meaning = str(metric.score.__doc__).splitlines()[0]
        cells = (
            f"`{metric.name}`",
            # A bar ends a cell, even inside code: another sign that looks like it.
            meaning.removesuffix(".").replace("|", "\N{DIVIDES}"),
            metric.unit or "0 to 1",
            "higher" if metric.higher_is_better else "lower",
            ", ".join(f"`.{name}`" for name in metric.statistics),
        )
        rows.append(f"| {' | '.join(cells)} |")
    text = (REFERENCE / "metrics.md").read_text("utf-8")
    before, mark, rest = text.partition("by docs/reference.py -->\n")
    return "\n".join([before + mark, *rows, "", rest[rest.index("<!-- end") :]])


def cli_page() -> str:
    """The help of every command of `lungfield`."""
    import typer.cli
    from typer.main import get_command

    from stages.cli import app

    command = get_command(app)
    with command.make_context("lungfield", [], resilient_parsing=True) as context:
        return NOTE + typer.cli.get_docs_for_click(
            obj=command, ctx=context, name="lungfield", title="Command line"
        )


PAGES = {"params.md": params_page, "metrics.md": metrics_page, "cli.md": cli_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")

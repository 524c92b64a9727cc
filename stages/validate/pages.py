"""The page that a person opens after validate: one HTML file, nothing outside it."""

from pathlib import Path
from typing import Any

import jinja2

from stages.core.params import ValidateParams
from stages.validate.outcome import Outcome

_TEMPLATE = Path(__file__).parent / "report.html.jinja"


def write(
    folder: Path,
    outcome: Outcome,
    values: dict[str, Any],
    *,
    params: ValidateParams,
    ingested: Path,
) -> None:
    """Writes `index.html`.

    Args:
        folder: Made here.
        outcome: The judged facts.
        values: What `report.json` holds.
        params: For the number of thumbnails, and the bounds drawn.
        ingested: Shards, to make thumbnails from.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    rejected = outcome.table[~outcome.table["accepted"]]
    html = template.render(values=values, rejected=rejected.to_dict("records"))
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(html, encoding="utf-8", newline="\n")

"""Studies: named sets of params for a data set and a question, one file per study.

`NAME.yaml` holds `about`, a one-line description, and `params`, values by dotted name.
Other values stay as in `params.yaml`. `lungfield study NAME` runs one; the Prefect
flows take the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import plugins

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Study:
    """One file of this folder."""

    name: str
    about: str
    params: Mapping[str, Any]  # by dotted name


def names() -> list[str]:
    """All studies, in alphabetical order."""
    return plugins.names(FOLDER, ".yaml")


def load(name: str) -> Study:
    """Reads a study.

    Raises:
        PipelineError: If the name is unknown.
    """
    plugins.check("study", name, names())
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    return Study(name, **YAML(typ="safe", pure=True).load(text))

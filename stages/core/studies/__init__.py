"""Studies: what to set for a data set and a question, one file each, found by name.

`NAME.yaml` holds `about`, one line for people, and `params`: values by dotted name, as
`dvc exp run -S` takes them. What a file leaves out stays as `params.yaml` has it.
`python -m stages.tools.study NAME` runs one; the Prefect flows take the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import plugins
from stages.core.errors import PipelineError

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
        PipelineError: If there is none of that name.
    """
    plugins.check("study", name, names())
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    return Study(name, **YAML(typ="safe", pure=True).load(text))


def applied(values: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of what `params.yaml` holds, with params by dotted name set in it.

    Raises:
        PipelineError: If a name is not there.
    """
    copy: dict[str, Any] = {**values}
    for name, value in params.items():
        *parents, last = name.split(".")
        section = copy
        for parent in parents:
            inner = section.get(parent)
            if not isinstance(inner, dict):
                raise PipelineError(
                    f"params.yaml has no {name}; correct the name (dvc params diff "
                    "shows what is there)"
                )
            section[parent] = section = {**inner}
        section[last] = value
    return copy

"""Params by their dotted names, as `dvc exp run -S` sets them, checked before use."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.errors import PipelineError
from stages.core.params import Params, parse_params


def override(text: str, values: dict[str, Any]) -> str:
    """Sets values in the text of a `params.yaml`; what is not named stays as it is.

    Args:
        text: The file's text; its comments are kept.
        values: Dotted names, such as `train.epochs`, to values.

    Returns:
        The new text; without values, the old one.

    Raises:
        PipelineError: If a name is unknown, or a value is of the wrong type or out
            of bounds.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = _read(yaml, text)
    for name, value in values.items():
        *parents, last = name.split(".")
        section = document
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise PipelineError(
                    f"params.yaml has no {name}: {parent} is a value, not a section; "
                    "correct the name in the run's params"
                )
        section[last] = value
    stream = io.StringIO()
    yaml.dump(document, stream)
    parse(stream.getvalue())
    return stream.getvalue() if values else text


def parse(text: str) -> Params:
    """The params in the text of a `params.yaml`; errors as in `override`."""
    return parse_params(_read(YAML(typ="safe", pure=True), text))


def _read(yaml: YAML, text: str) -> Any:
    try:
        return yaml.load(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise PipelineError(
            f"the committed params.yaml should be YAML but is not: {reason}"
        ) from None

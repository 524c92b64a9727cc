"""Runs a study of `stages/core/studies` as a DVC experiment."""

import itertools
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import files, git, paths, studies
from stages.core.errors import PipelineError
from stages.core.params import load_params, text_with_values

logger = logging.getLogger(__name__)


def list_studies() -> None:
    """Prints the name and the description of every study."""
    for name in studies.names():
        print(f"{name:<13} {studies.load(name).about}")


def study(name: str, settings: Sequence[str] = (), data: Path | None = None) -> int:
    """Sets a study's params in `params.yaml` and runs `dvc exp run`, named after it.

    `settings` are `key=value` texts; `data` is a folder or zip to read instead of the
    study's source.

    Returns:
        The exit code of `dvc exp run`.

    Raises:
        PipelineError: If there is no such study, or a setting does not fit.
    """
    found = studies.load(name)
    place = {}
    if data:  # absolute: DVC may run it in another folder
        place = {"ingest.source": "folder", "ingest.folder": str(data.resolve())}
    values = {**found.params, **place, **parse_settings(settings)}
    git.require_author()
    load_params()  # errors of the file itself come first
    text = text_with_values(paths.PARAMS.read_text("utf-8"), values)
    experiment = free_name(name)
    logger.info("%s: %s", name, found.about)
    for key, value in values.items():
        logger.info("%s = %s", key, value)
    # `dvc exp run -S` would expand `${oc.env:NAME}` in a value.
    files.write_text(paths.PARAMS, text)
    words = [sys.executable, "-m", "dvc", "exp", "run", "--name", experiment]
    return subprocess.run(words, check=False).returncode


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as params by dotted name, values in YAML.

    Raises:
        PipelineError: If a text has another form.
    """
    params: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            params[key.strip()] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            equals = ""
        if not (key.strip() and equals):
            raise PipelineError(
                f"--set {setting!r} should be key=value, such as train.epochs=5"
            )
    return params


def free_name(name: str) -> str:
    """The name, with a number if an experiment already has it."""
    references = git.output("for-each-ref", "--format=%(refname)", "refs/exps")
    taken = {reference.rpartition("/")[2] for reference in references.splitlines()}
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)

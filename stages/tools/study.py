"""Runs a study of `stages/core/studies`: `python -m stages.tools.study NAME`.

It is one `dvc exp run` with a list of `-S` and the study's name, printed first. What
`--set` names is set on top: `--set ingest.source=folder --set ingest.folder=set.zip`.
"""

import argparse
import itertools
import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import paths, studies
from stages.core.errors import PipelineError, run
from stages.core.params import load_params, parse_params

logger = logging.getLogger(__name__)


def words(name: str, params: Mapping[str, Any]) -> list[str]:
    """The arguments of `dvc` for an experiment with these params, by dotted name."""
    flags = [f"-S{key}={as_override(value)}" for key, value in params.items()]
    return ["exp", "run", "--name", name, *flags]


def as_override(value: Any) -> str:
    """A value as the overrides of `dvc exp run -S` are written (Hydra's grammar).

    Raises:
        PipelineError: If it is a mapping; its keys are set one by one.
    """
    match value:
        case bool() | None:
            return json.dumps(value)
        case str():
            # Only before a quote does a backslash mean anything but itself.
            return "'" + re.sub(r"(\\*)('|$)", _escaped, value) + "'"
        case list():
            return f"[{','.join(as_override(item) for item in value)}]"
        case int() | float():
            return repr(value)
    raise PipelineError(
        f"{value!r} should be a value or a list; set its keys one by one"
    )


def _escaped(found: re.Match[str]) -> str:
    return found[1] * 2 + ("\\'" if found[2] else "")


def given(settings: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as params by dotted name, values as YAML has them.

    Raises:
        PipelineError: If one is no such text.
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
    """The name, or with a number after it where an experiment has it already."""
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout.split()
    taken = {ref.rpartition("/")[2] for ref in listed}
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)


def study(name: str, settings: Sequence[str] = ()) -> int:
    """Runs a study as a named DVC experiment.

    Args:
        name: A file of `stages/core/studies`.
        settings: `key=value` texts, set on top of what the study sets.

    Returns:
        The exit code of `dvc exp run`.

    Raises:
        PipelineError: If there is no such study, or a setting does not fit.
    """
    found = studies.load(name)
    params = {**found.params, **given(settings)}
    load_params()  # what is wrong with the file itself is said first
    values = YAML(typ="safe", pure=True).load(paths.PARAMS.read_text("utf-8"))
    parse_params(studies.applied(values, params), name=f"study {name}")
    command = words(free_name(name), params)
    logger.info("%s: %s", name, found.about)
    logger.info("dvc %s", shlex.join(command))
    return subprocess.run(
        [sys.executable, "-m", "dvc", *command], check=False
    ).returncode


def main() -> None:
    """Reads the command line."""
    about = [f"  {name:<13} {studies.load(name).about}" for name in studies.names()]
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.study",
        description="\n".join([__doc__ or "", "studies:", *about]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="one of the studies above")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="on top of it"
    )
    options = parser.parse_args()
    sys.exit(study(options.name, options.set))


if __name__ == "__main__":
    run(main)

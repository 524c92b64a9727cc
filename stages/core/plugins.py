"""Parts that are found by their name in a folder: a source, a layout, a model, a study.

Adding a file to the folder adds the part.
"""

import ast
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from stages.core.errors import PipelineError


def names(folder: Path, suffix: str = "") -> list[str]:
    """The names of the parts in a folder, sorted; imports nothing.

    Parts are modules, or files with a suffix such as `.yaml`; a leading underscore
    hides a module.
    """
    if suffix:
        return sorted(path.stem for path in folder.glob(f"*{suffix}"))
    found = (module.name for module in iter_modules([str(folder)]))
    return sorted(name for name in found if not name.startswith("_"))


def functions(file: Path) -> list[str]:
    """The names of a module's public functions, such as losses; imports nothing."""
    body = ast.parse(file.read_text("utf-8")).body
    found = (item.name for item in body if isinstance(item, ast.FunctionDef))
    return [name for name in found if not name.startswith("_")]


def check(kind: str, name: str, choices: list[str]) -> None:
    """Raises a `PipelineError` that lists the choices if the name is not among them."""
    if name not in choices:
        raise PipelineError(
            f"there is no {kind} {name!r}; choose one of {', '.join(choices)}"
        )


def load(package: str, name: str) -> Any:
    """The module of a part; `package` is the folder's dotted name."""
    return import_module(f"{package}.{name}")

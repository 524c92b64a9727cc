"""What dvc.yaml declares and dvc.lock records, and how two tables of values differ."""

import json
from dataclasses import dataclass
from typing import Any

from stages.core.tables import flatten


@dataclass(frozen=True)
class Change:
    """One name with two values; None stands for "not there"."""

    name: str
    base: str | None
    head: str | None


def stages_of(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Stages that a plan declares, in its order."""
    stages = plan.get("stages")
    if not isinstance(stages, dict):
        return {}
    return {
        str(name): entry for name, entry in stages.items() if isinstance(entry, dict)
    }


def recorded(entry: dict[str, Any]) -> dict[str, Any]:
    """The params that a stage's entry in dvc.lock remembers."""
    tables = entry.get("params")
    values = tables.get("params.yaml") if isinstance(tables, dict) else None
    return values if isinstance(values, dict) else {}


def differing(base: dict[str, Any], head: dict[str, Any]) -> list[Change]:
    """Names, dotted, under which two nested tables hold different values."""
    flat = [
        {name: _text(value) for name, value in flatten(values).items()}
        for values in (base, head)
    ]
    return [
        Change(name, flat[0].get(name), flat[1].get(name))
        for name in dict.fromkeys([*flat[1], *flat[0]])
        if flat[0].get(name) != flat[1].get(name)
    ]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)

"""Whether results are those of the code, params and data beside them."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from stages.core import dvc_files
from stages.core.tables import flatten
from stages.review.revision import Revision
from stages.review.run_results import RunResults

_MISSING = object()


@dataclass(frozen=True)
class Change:
    """One name with two values; None where a side lacks it."""

    name: str
    base: str | None
    head: str | None


def differing(base: dict[str, Any], head: dict[str, Any]) -> list[Change]:
    """Names, dotted, under which two nested tables hold different values."""
    flat = [
        {
            name: json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
            for name, value in flatten(values).items()
        }
        for values in (base, head)
    ]
    return [
        Change(name, flat[0].get(name), flat[1].get(name))
        for name in dict.fromkeys([*flat[1], *flat[0]])
        if flat[0].get(name) != flat[1].get(name)
    ]


def recorded_params(entry: dict[str, Any]) -> dict[str, Any]:
    """The params that a stage's entry in dvc.lock records."""
    tables = entry.get("params")
    values = tables.get("params.yaml") if isinstance(tables, dict) else None
    return values if isinstance(values, dict) else {}


def stale(results: RunResults) -> dict[str, list[str]]:
    """Stages whose recorded result is not that of the code, params and data beside it.

    As `dvc status` for the working tree, but for any commit. Behind a failed gate, gate
    and export cannot be fresh and are left out.

    Returns:
        Stage to reasons, in the plan's order.
    """
    revision = results.revision
    found: dict[str, list[str]] = {}
    in_git = _in_git(results.plan)
    for stage, declared in results.plan.items():
        if results.gate is False and stage in ("gate", "export"):
            continue
        entry = revision.lock.get(stage)
        if entry is None:
            found[stage] = ["it never ran"]
            continue
        reasons = []
        if entry.get("cmd") != declared.get("cmd"):
            reasons.append("its command changed")
        reasons += _stale_params(entry, results.params)
        for path, then in dvc_files.recorded(entry, "deps").items():
            now = revision.outs.get(path) or _md5(revision, path)
            if now is not None and now != then:
                reasons.append(f"{path} changed since")
        for path, then in dvc_files.recorded(entry, "outs").items():
            content = revision.read(path) if path in in_git else None
            if content is not None and hashlib.md5(content).hexdigest() != then:
                reasons.append(f"{path} is not what it wrote")
        if reasons:
            found[stage] = reasons
    return found


def _in_git(plan: dict[str, dict[str, Any]]) -> set[str]:
    """Outputs that Git holds: those under `metrics` and `plots` with `cache: false`."""
    return {
        str(name)
        for declared in plan.values()
        for kind in ("metrics", "plots")
        for out in declared.get(kind) or []
        if isinstance(out, dict)
        for name, how in out.items()
        if isinstance(how, dict) and how.get("cache") is False
    }


def _stale_params(entry: dict[str, Any], values: dict[str, Any]) -> list[str]:
    reasons = []
    for name, then in recorded_params(entry).items():
        now: Any = values
        for part in str(name).split("."):
            now = now.get(part, _MISSING) if isinstance(now, dict) else _MISSING
        if now is _MISSING:
            reasons.append(f"{name} is no longer in params.yaml")
        elif now != then:
            changes = differing({str(name): then}, {str(name): now})
            # None where the same values are only written otherwise, as by nesting.
            names = ", ".join(change.name for change in changes[:3]) or str(name)
            reasons.append(f"{names} changed since")
    return reasons


def _md5(revision: Revision, path: str) -> str | None:
    """MD5 of a file or a folder of code as DVC counts it.

    None if Git does not hold it: then this revision cannot say, and a data set that
    lies there is not read. A folder of data may hold files that Git ignores.
    """
    names = revision.files_under(path)
    if names == [path]:
        content = revision.read(path)
        return None if content is None else hashlib.md5(content).hexdigest()
    if not names or not path.startswith("stages/"):
        return None
    contents = revision.read_all(names).items()
    return dvc_files.md5_of_folder(
        {
            name.removeprefix(f"{path}/"): hashlib.md5(content or b"").hexdigest()
            for name, content in contents
        }
    )

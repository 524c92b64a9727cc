"""Whether results are those of the code, params and data beside them."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from stages.core import dvc_files, paths
from stages.core.params import flatten
from stages.review.revision import Revision
from stages.review.run_results import RunResults


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
    return (entry.get("params") or {}).get("params.yaml") or {}


def stale(results: RunResults) -> dict[str, list[str]]:
    """Stages whose recorded result is not that of the code, params and data beside it.

    As `dvc status` for the working tree, but for any commit. Behind a failed gate, gate
    and export cannot be fresh and are left out.

    Returns:
        Stage to reasons, in the plan's order.
    """
    revision = results.revision
    found: dict[str, list[str]] = {}
    in_git = revision.files_under(paths.DATA.as_posix())
    for stage, declared in results.plan.items():
        if results.gate is False and stage in ("gate", "export"):
            continue
        entry = revision.lock.get(stage)
        if entry is None:
            found[stage] = ["it never ran"]
            continue
        reasons = []
        if entry.get("cmd") != declared.get("cmd"):
            reasons.append("its command changed after it ran")
        reasons += _stale_params(entry, results.params)
        for path, then in dvc_files.recorded(entry, "deps").items():
            now = revision.outs.get(path) or _md5(revision, path)
            if now is not None and now != then:
                reasons.append(f"{path} changed after it ran")
        for path, then in dvc_files.recorded(entry, "outs").items():
            if path in in_git and _md5(revision, path) != then:
                reasons.append(f"{path} is not what it wrote")
        if reasons:
            found[stage] = reasons
    return found


def _stale_params(entry: dict[str, Any], values: dict[str, Any]) -> list[str]:
    tracked = tuple(f"{name}." for name in recorded_params(entry))
    now = {k: v for k, v in flatten(values).items() if f"{k}.".startswith(tracked)}
    changes = differing(recorded_params(entry), now)
    return [f"{change.name} changed after it ran" for change in changes]


def _md5(revision: Revision, path: str) -> str | None:
    """MD5 of a file or a folder of code as DVC counts it.

    None if Git does not hold it: then this revision cannot say, and a data set that
    lies there is not read. A folder of data may hold files that Git ignores.
    """
    names = revision.files_under(path)
    if names != [path] and not path.startswith("stages/"):
        return None
    hashes = {
        name.removeprefix(f"{path}/"): hashlib.md5(content).hexdigest()
        for name, content in revision.read_all(names).items()
        if content is not None  # deleted in the working tree
    }
    if names == [path]:
        return hashes.get(path)
    return dvc_files.md5_of_folder(hashes) if hashes else None

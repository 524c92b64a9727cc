"""What was changed between two sides: params, data, code, stages; and what is stale."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from stages.core import paths
from stages.core.pairs import natural_key
from stages.gate import flatten
from stages.tools.review.evidence import Evidence
from stages.tools.review.repository import Side

_MISSING = object()


@dataclass(frozen=True)
class Change:
    """One name with two values; None stands for "not there"."""

    name: str
    base: str | None
    head: str | None


@dataclass(frozen=True)
class CodeFile:
    """One changed file that stages read."""

    name: str
    added: int  # -1 for a binary file
    removed: int
    stages: list[str]


@dataclass(frozen=True)
class Rerun:
    """One stage that does not stand in both locks alike."""

    stage: str
    why: list[str]
    outputs_differ: bool


@dataclass(frozen=True)
class DataChange:
    """What became of the pairs; lists of ids in natural order."""

    facts: list[Change]  # of ingested.json
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # same id, other pixels
    rejected: dict[str, str] = field(default_factory=dict)  # newly; id to reason
    accepted: list[str] = field(default_factory=list)  # newly
    to_validation: list[str] = field(default_factory=list)
    to_train: list[str] = field(default_factory=list)
    same: bool = False  # not a byte of the ingested data differs
    pairs_known: bool = True
    sides_known: bool = True


@dataclass(frozen=True)
class Changes:
    """All that was changed."""

    params: list[Change]
    data: DataChange
    code: list[CodeFile]
    other_files: int  # changed files that no stage reads and no stage wrote
    reruns: list[Rerun]
    stale: dict[str, dict[str, list[str]]]  # "base" or "head": stage to reasons


def changes(base: Evidence, head: Evidence) -> Changes:
    """Compares what the sides were made from."""
    reads = _reads(base) + _reads(head)
    wrote = set(base.side.outs) | set(head.side.outs)
    known = {"params.yaml", "dvc.lock"} | wrote
    code, others = [], 0
    differing = base.side.repository.changed_files(
        base.side.commit or "HEAD", head.side.commit
    )
    for name, (added, removed) in differing.items():
        readers = [stage for stage, dep in reads if _covers(dep, name)]
        if name == "dvc.yaml" or (readers and name not in wrote):
            stages = list(dict.fromkeys(readers))
            code.append(CodeFile(name, added, removed, stages))
        elif name not in known:
            others += 1
    return Changes(
        params=_params(base.params, head.params),
        data=_data(base, head),
        code=code,
        other_files=others,
        reruns=_reruns(base.side, head.side, list(_stages(head.plan))),
        stale={"base": stale(base), "head": stale(head)},
    )


def stale(evidence: Evidence) -> dict[str, list[str]]:
    """Stages whose recorded result is not that of the code, params and data beside it.

    What `dvc status` says of the working tree, said of any commit. Behind a gate that
    was not passed, gate and export cannot be fresh and are left out.

    Returns:
        Stage to reasons, in the plan's order.
    """
    side = evidence.side
    found: dict[str, list[str]] = {}
    for stage, declared in _stages(evidence.plan).items():
        if evidence.gate is False and stage in ("gate", "export"):
            continue
        entry = side.lock.get(stage)
        if entry is None:
            found[stage] = ["it never ran"]
            continue
        reasons = []
        if entry.get("cmd") != declared.get("cmd"):
            reasons.append("its command changed")
        reasons += _stale_params(entry, evidence.params)
        for dep in _entries(entry, "deps"):
            now = side.outs.get(dep["path"]) or _md5(side, dep["path"])
            if now is not None and now != dep["md5"]:
                reasons.append(f"{dep['path']} changed since")
        for out in _entries(entry, "outs"):
            content = side.read(out["path"])
            if content is not None and hashlib.md5(content).hexdigest() != out["md5"]:
                reasons.append(f"{out['path']} is not what it wrote")
        if reasons:
            found[stage] = reasons
    return found


def _stages(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    stages = plan.get("stages")
    if not isinstance(stages, dict):
        return {}
    return {
        str(name): entry for name, entry in stages.items() if isinstance(entry, dict)
    }


def _entries(entry: dict[str, Any], kind: str) -> list[dict[str, str]]:
    return [
        {"path": str(item["path"]), "md5": str(item["md5"])}
        for item in entry.get(kind) or []
        if isinstance(item, dict) and "path" in item and "md5" in item
    ]


def _hashes(entry: dict[str, Any], kind: str) -> dict[str, str]:
    return {item["path"]: item["md5"] for item in _entries(entry, kind)}


def _stale_params(entry: dict[str, Any], values: dict[str, Any]) -> list[str]:
    reasons = []
    for name, then in _recorded(entry).items():
        now: Any = values
        for part in str(name).split("."):
            now = now.get(part, _MISSING) if isinstance(now, dict) else _MISSING
        if now is _MISSING:
            reasons.append(f"{name} is no longer in params.yaml")
        elif now != then:
            differing = _params({str(name): then}, {str(name): now})
            names = ", ".join(change.name for change in differing[:3])
            reasons.append(f"{names} changed since")
    return reasons


def _md5(side: Side, path: str) -> str | None:
    """MD5 of a file or folder as DVC counts it; None if this side does not hold it."""
    content = side.read(path)
    if content is not None:
        return hashlib.md5(content).hexdigest()
    listing = [
        {
            "md5": hashlib.md5(side.read(name) or b"").hexdigest(),
            "relpath": name.removeprefix(f"{path}/"),
        }
        for name in side.files_under(path)
    ]
    if not listing:
        return None
    listing.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest() + ".dir"


def _params(base: dict[str, Any], head: dict[str, Any]) -> list[Change]:
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


def _reads(evidence: Evidence) -> list[tuple[str, str]]:
    """Stage and dependency, as the locks and the plan have them."""
    reads = []
    for stage, declared in _stages(evidence.plan).items():
        entry = evidence.side.lock.get(stage) or {}
        deps = [dep["path"] for dep in _entries(entry, "deps")]
        deps += [dep for dep in declared.get("deps") or [] if isinstance(dep, str)]
        reads += [(stage, dep) for dep in dict.fromkeys(deps)]
    return reads


def _covers(dep: str, name: str) -> bool:
    return name == dep or name.startswith(f"{dep}/")


def _reruns(base: Side, head: Side, order: list[str]) -> list[Rerun]:
    """Stages whose entry in dvc.lock differs, with what differs in it."""
    found = []
    for stage in dict.fromkeys([*order, *base.lock, *head.lock]):
        before, after = base.lock.get(stage), head.lock.get(stage)
        if before is None or after is None:
            if before is not after:
                word = "new" if before is None else "no longer there"
                found.append(Rerun(stage, [word], outputs_differ=True))
            continue
        why = ["command"] if before.get("cmd") != after.get("cmd") else []
        why += [c.name for c in _params(_recorded(before), _recorded(after))]
        deps = [_hashes(entry, "deps") for entry in (before, after)]
        outs = [_hashes(entry, "outs") for entry in (before, after)]
        names = dict.fromkeys([*deps[0], *deps[1]])
        why += [name for name in names if deps[0].get(name) != deps[1].get(name)]
        differs = outs[0] != outs[1]
        if why or differs:
            found.append(Rerun(stage, why or ["outputs alone"], outputs_differ=differs))
    return found


def _recorded(entry: dict[str, Any]) -> dict[str, Any]:
    """The params that a stage's entry in dvc.lock remembers."""
    tables = entry.get("params")
    values = tables.get("params.yaml") if isinstance(tables, dict) else None
    return values if isinstance(values, dict) else {}


def _data(base: Evidence, head: Evidence) -> DataChange:
    flat = [flatten(e.ingested or {}) for e in (base, head)]
    facts = _params(*flat)
    hashes = [e.side.outs.get(paths.INGESTED.as_posix()) for e in (base, head)]
    same = hashes[0] is not None and hashes[0] == hashes[1]
    pairs: dict[str, Any] = {}
    if base.facts is not None and head.facts is not None:
        pairs = _pairs(base.facts, head.facts)
    sides: dict[str, Any] = {}
    if base.splits is not None and head.splits is not None:
        sides = _sides(base.splits, head.splits)
    return DataChange(
        facts=facts,
        same=same,
        pairs_known=bool(pairs) or same,
        sides_known=bool(sides),
        **pairs,
        **sides,
    )


def _pairs(base: pd.DataFrame, head: pd.DataFrame) -> dict[str, Any]:
    """What became of every pair of the ingested data."""
    merged = base.merge(head, on="pair_id", how="outer", indicator="place")
    both = merged[merged["place"] == "both"]
    accepted = [both[f"accepted_{s}"].astype(bool) for s in "xy"]
    differs = both["class_name_x"] != both["class_name_y"]
    for name in ("image_sha256", "mask_sha256"):
        sides = [both[f"{name}_{s}"].fillna("") for s in "xy"]
        differs |= sides[0] != sides[1]
    lost = both[accepted[0] & ~accepted[1]]
    # A pair that is new and at once rejected matters to the reviewer as well.
    added = merged[merged["place"] == "right_only"]
    lost = pd.concat([lost, added[~added["accepted_y"].astype(bool)]])
    reasons = dict(zip(lost["pair_id"], lost["reason_y"], strict=True))
    return {
        "added": _natural(added["pair_id"]),
        "removed": _natural(merged.loc[merged["place"] == "left_only", "pair_id"]),
        "changed": _natural(both.loc[differs, "pair_id"]),
        "rejected": {name: str(reasons[name]) for name in _natural(reasons)},
        "accepted": _natural(both.loc[~accepted[0] & accepted[1], "pair_id"]),
    }


def _sides(base: pd.DataFrame, head: pd.DataFrame) -> dict[str, Any]:
    """Pairs that changed from training to validation, or back."""
    merged = base.merge(head, on="pair_id")
    moved = merged[merged["split_x"] != merged["split_y"]]
    return {
        "to_validation": _natural(
            moved.loc[moved["split_y"] == "validation", "pair_id"]
        ),
        "to_train": _natural(moved.loc[moved["split_y"] == "train", "pair_id"]),
    }


def _natural(names: Any) -> list[str]:
    return sorted((str(name) for name in names), key=natural_key)

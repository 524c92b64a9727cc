"""What was changed between two sides: params, data, code, stages; and what is stale."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from stages.core import dvc_files, paths
from stages.core.tables import flatten
from stages.datasets.pairs import natural_key
from stages.review.freshness import stale
from stages.review.lock import Change, differing, recorded, stages_of
from stages.review.revision import Revision
from stages.review.run_results import RunResults


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


def changes(base: RunResults, head: RunResults) -> Changes:
    """Compares what the sides were made from."""
    reads = _reads(base) + _reads(head)
    wrote = set(base.revision.outs) | set(head.revision.outs)
    known = {"params.yaml", "dvc.lock"} | wrote
    code, others = [], 0
    files = base.revision.repository.changed_files(
        base.revision.commit or "HEAD", head.revision.commit
    )
    for name, (added, removed) in files.items():
        readers = [stage for stage, dep in reads if _covers(dep, name)]
        if name == "dvc.yaml" or (readers and name not in wrote):
            stages = list(dict.fromkeys(readers))
            code.append(CodeFile(name, added, removed, stages))
        elif name not in known:
            others += 1
    return Changes(
        params=differing(base.params, head.params),
        data=_data(base, head),
        code=code,
        other_files=others,
        reruns=_with_gate(base, head),
        stale={"base": stale(base), "head": stale(head)},
    )


def _reads(results: RunResults) -> list[tuple[str, str]]:
    """Stage and dependency, as the locks and the plan have them."""
    reads = []
    for stage, declared in stages_of(results.plan).items():
        entry = results.revision.lock.get(stage) or {}
        deps = list(dvc_files.recorded(entry, "deps"))
        deps += [dep for dep in declared.get("deps") or [] if isinstance(dep, str)]
        reads += [(stage, dep) for dep in dict.fromkeys(deps)]
    return reads


def _covers(dep: str, name: str) -> bool:
    return name == dep or name.startswith(f"{dep}/")


def _reruns(base: Revision, head: Revision, order: list[str]) -> list[Rerun]:
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
        why += [c.name for c in differing(recorded(before), recorded(after))]
        deps = [dvc_files.recorded(entry, "deps") for entry in (before, after)]
        outs = [dvc_files.recorded(entry, "outs") for entry in (before, after)]
        names = dict.fromkeys([*deps[0], *deps[1]])
        why += [name for name in names if deps[0].get(name) != deps[1].get(name)]
        differs = outs[0] != outs[1]
        if why or differs:
            found.append(Rerun(stage, why or ["outputs alone"], outputs_differ=differs))
    return found


def _with_gate(base: RunResults, head: RunResults) -> list[Rerun]:
    """Stages that ran again; DVC locks none that failed, as a gate does."""
    order = list(stages_of(head.plan))
    found = _reruns(base.revision, head.revision, order)
    if base.verdict == head.verdict or any(rerun.stage == "gate" for rerun in found):
        return found
    params = differing(*({"gate": e.params.get("gate", {})} for e in (base, head)))
    why = [change.name for change in params]
    if base.revision.read(paths.METRICS) != head.revision.read(paths.METRICS):
        why.append(paths.METRICS.as_posix())
    found.append(Rerun("gate", why or ["outputs alone"], outputs_differ=True))
    places = {stage: place for place, stage in enumerate(order)}
    return sorted(found, key=lambda rerun: places.get(rerun.stage, len(places)))


def _data(base: RunResults, head: RunResults) -> DataChange:
    flat = [flatten(e.ingested or {}) for e in (base, head)]
    facts = differing(*flat)
    hashes = [e.revision.outs.get(paths.INGESTED.as_posix()) for e in (base, head)]
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

"""What changed between two revisions, and what is stale."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from stages.core import dvc_files, paths
from stages.datasets.pairs import natural_key
from stages.review.freshness import Change, differing, recorded_params, stale
from stages.review.run_results import RunResults


@dataclass(frozen=True)
class CodeFile:
    """One changed file that stages read."""

    name: str
    added: int  # lines; -1 for a binary file
    removed: int
    stages: list[str]


@dataclass(frozen=True)
class Rerun:
    """One stage whose entries in both locks differ."""

    stage: str
    why: list[str]
    outputs_differ: bool


@dataclass(frozen=True)
class DataChange:
    """What became of the pairs; lists of ids in natural order."""

    facts: list[Change]  # of ingested.json
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # same id, other pixels or class
    rejected: dict[str, str] = field(default_factory=dict)  # newly; id to reason
    accepted: list[str] = field(default_factory=list)  # newly
    to_validation: list[str] = field(default_factory=list)
    to_train: list[str] = field(default_factory=list)
    same: bool = False  # not a byte of the ingested data differs
    pairs_known: bool = True

    @property
    def lists(self) -> dict[str, list[str]]:
        """Ids by what became of their pairs."""
        return {
            "Pairs added": self.added,
            "Pairs removed": self.removed,
            "Pairs with other pixels or another class": self.changed,
            "Pairs newly accepted": self.accepted,
            "Pairs moved from training to validation": self.to_validation,
            "Pairs moved from validation to training": self.to_train,
        }


@dataclass(frozen=True)
class Changes:
    """All that changed."""

    params: list[Change]
    data: DataChange
    code: list[CodeFile]
    other_files: int  # changed files that no stage reads and no stage wrote
    reruns: list[Rerun]
    stale: dict[str, dict[str, list[str]]]  # "base" or "head": stage to reasons
    same_inputs: bool  # of all stages up to evaluate
    same_model: bool  # byte for byte
    same_machine: bool  # as far as it decides bits
    machine: list[Change]  # facts of build.json, where both are cached


def changes(base: RunResults, head: RunResults) -> Changes:
    """Compares what the results of both sides were made from."""
    reads = _reads(base) + _reads(head)
    outs = [e.revision.outs for e in (base, head)]
    wrote = {*outs[0], *outs[1]}
    known = {"params.yaml", "dvc.lock"} | wrote
    code, others = [], 0
    commits = base.revision.commit or "HEAD", head.revision.commit
    files = base.revision.repository.changed_files(*commits)
    for name, (added, removed) in files.items():
        readers = [stage for stage, dep in reads if _covers(dep, name)]
        if name == "dvc.yaml" or (readers and name not in wrote):
            stages = list(dict.fromkeys(readers))
            code.append(CodeFile(name, added, removed, stages))
        elif name not in known:
            others += 1
    models, builds = (
        [of.get(path.as_posix()) for of in outs] for path in (paths.MODEL, paths.BUILD)
    )
    inputs = [_inputs(e) for e in (base, head)]
    return Changes(
        params=differing(base.params, head.params),
        data=_data(base, head),
        code=code,
        other_files=others,
        reruns=_reruns(base, head),
        stale={"base": stale(base), "head": stale(head)},
        same_inputs=bool(inputs[0]) and inputs[0] == inputs[1],
        same_model=models[0] is not None and models[0] == models[1],
        same_machine=builds[0] is not None and builds[0] == builds[1],
        machine=differing(base.build, head.build) if base.build and head.build else [],
    )


def _inputs(results: RunResults) -> dict[str, Any]:
    """Command, params and dependencies of each stage up to evaluate.

    Without what another stage wrote: its inputs are compared instead.
    """
    found: dict[str, Any] = {}
    for stage in results.plan:
        if entry := results.revision.lock.get(stage):
            deps = dvc_files.recorded(entry, "deps")
            own = {p: md5 for p, md5 in deps.items() if p not in results.revision.outs}
            found[stage] = entry.get("cmd"), recorded_params(entry), own
        if stage == "evaluate":
            break
    return found


def _reads(results: RunResults) -> list[tuple[str, str]]:
    """Stage and dependency, as the lock and the plan have them."""
    reads = []
    for stage, declared in results.plan.items():
        deps = list(dvc_files.recorded(results.revision.lock.get(stage) or {}, "deps"))
        deps += [dep for dep in declared.get("deps") or [] if isinstance(dep, str)]
        reads += [(stage, dep) for dep in dict.fromkeys(deps)]
    return reads


def _covers(dep: str, name: str) -> bool:
    return name == dep or name.startswith(f"{dep}/")


def _reruns(base: RunResults, head: RunResults) -> list[Rerun]:
    """Stages whose entry in dvc.lock differs, with what differs in it."""
    locks = [e.revision.lock for e in (base, head)]
    found = []
    for stage in dict.fromkeys([*head.plan, *locks[0], *locks[1]]):
        before, after = (lock.get(stage) for lock in locks)
        if before is None or after is None:
            if before is not after:
                word = "new" if before is None else "no longer there"
                found.append(Rerun(stage, [word], outputs_differ=True))
            continue
        why = ["command"] if before.get("cmd") != after.get("cmd") else []
        params = recorded_params(before), recorded_params(after)
        why += [change.name for change in differing(*params)]
        deps, outs = (
            [dvc_files.recorded(entry, kind) for entry in (before, after)]
            for kind in ("deps", "outs")
        )
        names = dict.fromkeys([*deps[0], *deps[1]])
        why += [name for name in names if deps[0].get(name) != deps[1].get(name)]
        differs = outs[0] != outs[1]
        if why or differs:
            found.append(Rerun(stage, why or ["outputs alone"], outputs_differ=differs))
    return found


def _data(base: RunResults, head: RunResults) -> DataChange:
    hashes = [e.revision.outs.get(paths.INGESTED.as_posix()) for e in (base, head)]
    same = hashes[0] is not None and hashes[0] == hashes[1]
    found: dict[str, Any] = {}
    if base.facts is not None and head.facts is not None:
        found |= _pairs(base.facts, head.facts)
    if base.splits is not None and head.splits is not None:
        found |= _moved(base.splits, head.splits)
    known = base.ingested is not None and head.ingested is not None
    return DataChange(
        facts=differing(base.ingested or {}, head.ingested or {}) if known else [],
        same=same,
        pairs_known="added" in found or same,
        **found,
    )


def _pairs(base: pd.DataFrame, head: pd.DataFrame) -> dict[str, Any]:
    """What became of every pair of the ingested data."""
    merged = base.merge(head, on="pair_id", how="outer", indicator="place")
    both = merged[merged["place"] == "both"]
    accepted = [both[f"accepted_{s}"].astype(bool) for s in "xy"]
    differs = both["class_name_x"] != both["class_name_y"]
    for name in ("image_sha256", "mask_sha256"):
        hashes = [both[f"{name}_{s}"].fillna("") for s in "xy"]
        differs |= hashes[0] != hashes[1]
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


def _moved(base: pd.DataFrame, head: pd.DataFrame) -> dict[str, Any]:
    """Pairs that changed from training to validation, or back."""
    merged = base.merge(head, on="pair_id")
    moved = merged[merged["split_x"] != merged["split_y"]]
    return {
        f"to_{split}": _natural(moved.loc[moved["split_y"] == split, "pair_id"])
        for split in ("validation", "train")
    }


def _natural(names: Any) -> list[str]:
    return sorted((str(name) for name in names), key=natural_key)

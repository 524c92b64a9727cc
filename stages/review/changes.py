"""What changed between two revisions, and what is stale."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from stages.core import dvc_files, paths
from stages.datasets.pairs import natural_key
from stages.review.freshness import Change, differing, recorded_params, stale
from stages.review.revision import changed_files
from stages.review.run_results import RunResults, same_out


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
    code: dict[str, list[str]]  # changed file that stages read, to those stages
    reruns: list[Rerun]
    stale: dict[str, dict[str, list[str]]]  # "base" or "head": stage to reasons
    same_inputs: bool  # of all stages up to evaluate
    same_model: bool  # byte for byte
    same_machine: bool  # as far as it decides bits
    machine: list[Change]  # facts of build.json, where both are cached


def changes(base: RunResults, head: RunResults) -> Changes:
    """Compares what the results of both sides were made from."""
    outs = [e.revision.outs for e in (base, head)]
    reads = _reads(base) + _reads(head)
    code = {}
    for name in changed_files(base.revision, head.revision):
        readers = [
            stage for stage, dep in reads if name == dep or name.startswith(f"{dep}/")
        ]
        made = name == paths.PARAMS.name or name in outs[0] or name in outs[1]
        if name == paths.PLAN.name or (readers and not made):
            code[name] = list(dict.fromkeys(readers))
    inputs = [_own_inputs(e) for e in (base, head)]
    return Changes(
        params=differing(base.params, head.params),
        data=_data(base, head),
        code=code,
        reruns=_reruns(base, head),
        stale={"base": stale(base), "head": stale(head)},
        same_inputs=bool(inputs[0]) and inputs[0] == inputs[1],
        same_model=same_out(base, head, paths.MODEL),
        same_machine=same_out(base, head, paths.BUILD),
        machine=differing(base.build, head.build) if base.build and head.build else [],
    )


def _inputs(entry: dict[str, Any]) -> dict[str, Any]:
    """Command, params and dependencies that a stage's entry in dvc.lock records."""
    deps = dvc_files.recorded(entry, "deps")
    return {"command": entry.get("cmd")} | recorded_params(entry) | deps


def _own_inputs(results: RunResults) -> dict[str, dict[str, Any]]:
    """Inputs of each stage up to evaluate, without what another stage wrote."""
    lock, outs = results.revision.lock, results.revision.outs
    stages = [*results.plan]
    if "evaluate" in stages:
        stages = stages[: stages.index("evaluate") + 1]
    return {
        stage: {k: v for k, v in _inputs(lock[stage]).items() if k not in outs}
        for stage in stages
        if stage in lock
    }


def _reads(results: RunResults) -> list[tuple[str, str]]:
    """Stage and dependency, as the lock and the plan have them."""
    reads = []
    for stage, declared in results.plan.items():
        deps = list(dvc_files.recorded(results.revision.lock.get(stage) or {}, "deps"))
        deps += [dep for dep in declared.get("deps") or [] if isinstance(dep, str)]
        reads += [(stage, dep) for dep in dict.fromkeys(deps)]
    return reads


def _reruns(base: RunResults, head: RunResults) -> list[Rerun]:
    """Stages whose entry in dvc.lock differs, with what differs in it."""
    locks = [e.revision.lock for e in (base, head)]
    found = []
    for stage in dict.fromkeys([*head.plan, *locks[0], *locks[1]]):
        if (stage in locks[0]) != (stage in locks[1]):
            word = "new" if stage in locks[1] else "no longer there"
            found.append(Rerun(stage, [word], outputs_differ=True))
        elif stage in locks[0]:
            entries = [lock[stage] for lock in locks]
            why = [change.name for change in differing(*map(_inputs, entries))]
            outs = [dvc_files.recorded(entry, "outs") for entry in entries]
            differs = outs[0] != outs[1]
            if why or differs:
                found.append(Rerun(stage, why or ["outputs alone"], differs))
    return found


def _data(base: RunResults, head: RunResults) -> DataChange:
    same = same_out(base, head, paths.INGESTED)
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

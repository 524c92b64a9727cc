"""What changed between two revisions, and what is stale."""

from collections.abc import Iterable
from dataclasses import dataclass
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
    """What became of the pairs."""

    facts: list[Change]  # of ingested.json
    pairs: dict[str, list[str]]  # ids in natural order, by what became of them
    rejected: dict[str, str]  # newly; id to reason
    same: bool  # not a byte of the ingested data differs
    pairs_known: bool


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
    same_data = same_out(base, head, paths.INGESTED)
    return Changes(
        params=differing(base.params, head.params),
        data=_data(base, head),
        code=code,
        reruns=_reruns(base, head),
        stale={"base": stale(base), "head": stale(head)},
        same_inputs=same_data and bool(inputs[0]) and inputs[0] == inputs[1],
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
    # Behind a failed gate, a lock keeps a former run of these.
    former = ("gate", "export") if False in (base.gate, head.gate) else ()
    found = []
    for stage in dict.fromkeys([*head.plan, *locks[0], *locks[1]]):
        if stage in former:
            continue
        if (stage in locks[0]) != (stage in locks[1]):
            word = "new" if stage in locks[1] else "no longer there"
            found.append(Rerun(stage, [word], outputs_differ=True))
        elif stage in locks[0]:
            entries = [lock[stage] for lock in locks]
            why = [change.name for change in differing(*map(_inputs, entries))]
            outs = [dvc_files.recorded(entry, "outs") for entry in entries]
            differs = outs[0] != outs[1]
            if why or differs:
                found.append(Rerun(stage, why or ["no input changed"], differs))
    return found


def _data(base: RunResults, head: RunResults) -> DataChange:
    same = same_out(base, head, paths.INGESTED)
    known = base.ingested is not None and head.ingested is not None
    pairs: dict[str, pd.Series[str]] = {}
    rejected: dict[str, str] = {}
    if base.facts is not None and head.facts is not None:
        merged = base.facts.merge(
            head.facts, on="pair_id", how="outer", indicator="place"
        )
        names = merged["pair_id"]
        both, is_new = (merged["place"] == place for place in ("both", "right_only"))
        before, after = (merged[f"accepted_{s}"].eq(True) for s in "xy")
        # Missing hashes are equal.
        facts = ("class_name", "image_sha256", "mask_sha256")
        left, right = (merged[[f"{name}_{s}" for name in facts]] for s in "xy")
        differs = (left.fillna("").to_numpy() != right.fillna("").to_numpy()).any(1)
        pairs = {
            "added": names[is_new],
            "removed": names[merged["place"] == "left_only"],
            "with other pixels or another class": names[both & differs],
            "newly accepted": names[both & ~before & after],
        }
        # A pair that is new and at once rejected matters to the reviewer as well.
        lost = merged[(is_new | (both & before)) & ~after]
        reasons = dict(zip(lost["pair_id"], lost["reason_y"], strict=True))
        rejected = {name: str(reasons[name]) for name in _natural(reasons)}
    if base.splits is not None and head.splits is not None:
        merged = base.splits.merge(head.splits, on="pair_id")
        moved = merged[merged["split_x"] != merged["split_y"]]
        for title, split in (
            ("moved from training to validation", "validation"),
            ("moved from validation to training", "train"),
        ):
            pairs[title] = moved.loc[moved["split_y"] == split, "pair_id"]
    return DataChange(
        facts=differing(base.ingested or {}, head.ingested or {}) if known else [],
        pairs={title: _natural(names) for title, names in pairs.items()},
        rejected=rejected,
        same=same,
        pairs_known=same or "added" in pairs,
    )


def _natural(names: Iterable[str]) -> list[str]:
    return sorted(map(str, names), key=natural_key)

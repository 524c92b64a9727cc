"""The facts, judged: which pairs are accepted, and the report of how that came."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from stages.core.expectations import Verdict, judge
from stages.core.params import ValidateParams
from stages.datasets.pairs import natural_key
from stages.validate.checks import Check, like, pair_checks, total_checks, with_judged

_BLOCK = 4096  # rows opened at a time: as dictionaries they are large
REPORTED = ("num_pairs", "num_accepted", "num_rejected", "rejected_fraction")
EXAMPLES = 20  # pair ids listed for an expectation
DISTRIBUTIONS = {
    "foreground_fraction": "Foreground, share of the mask",
    "image_mean": "Mean grey value, of 255",
    "image_contrast": "Standard deviation of the grey values",
    "num_components": "Separate regions in the mask",
}


@dataclass(frozen=True)
class Finding:
    """A check, and what came of it."""

    check: Check
    verdict: Verdict
    found: str = ""  # for a check of the whole data set that failed


@dataclass(frozen=True)
class Outcome:
    """All that validate knows."""

    table: pd.DataFrame  # facts, accepted, reason, note; in shard order
    pairs: list[Finding]
    totals: list[Finding]

    @property
    def failed(self) -> list[Finding]:
        """The findings that fail the stage."""
        return [
            finding
            for finding in self.totals
            if finding.check.severity == "critical" and not finding.verdict.success
        ]


def judge_facts(table: pd.DataFrame, params: ValidateParams) -> Outcome:
    """Has Great Expectations judge the pairs, then the data set that is left of them.

    Args:
        table: What `workers.measure` returned.
        params: The bounds.
    """
    checks = pair_checks(params, has_sites=bool(table["site"].any()))
    expectations = {check.name: check.expectation for check in checks}
    verdicts = judge(with_judged(table, params), expectations, title="pairs")
    shapes = verdicts["shapes"]
    verdicts["shapes"] = replace(shapes, rows=like(table, shapes.rows))
    table = _explained(table, checks, verdicts)
    totals = _totals(table)
    checks_of_all = total_checks(params)
    judged = judge(
        pd.DataFrame([totals]),
        {check.name: check.expectation for check in checks_of_all},
        title="data set",
    )
    return Outcome(
        table=table,
        pairs=[Finding(check, verdicts[check.name]) for check in checks],
        totals=[
            Finding(
                check,
                judged[check.name],
                "" if judged[check.name].success else check.found(totals),
            )
            for check in checks_of_all
        ],
    )


def _explained(
    table: pd.DataFrame, checks: list[Check], verdicts: Mapping[str, Verdict]
) -> pd.DataFrame:
    """Facts with `accepted`, `reason` and `note`."""
    broken: dict[int, list[Check]] = {}
    for check in checks:
        for index in verdicts[check.name].rows:
            broken.setdefault(index, []).append(check)
    texts = {severity: [""] * len(table) for severity in ("critical", "warning")}
    for start in range(0, len(table), _BLOCK):
        indices = [i for i in range(start, start + _BLOCK) if i in broken]
        rows: list[dict[str, Any]] = table.iloc[indices].to_dict("records")  # type: ignore[assignment]
        for index, row in zip(indices, rows, strict=True):
            for severity, lines in texts.items():
                lines[index] = "; ".join(
                    check.reason(row)
                    for check in broken[index]
                    if check.severity == severity
                )
    return table.assign(
        accepted=[not reason for reason in texts["critical"]],
        reason=texts["critical"],
        note=texts["warning"],
    )


def report(outcome: Outcome) -> dict[str, Any]:
    """What `report.json` holds; scalars outside lists are metrics to DVC."""
    table, totals = outcome.table, _totals(outcome.table)
    accepted = table[table["accepted"]]
    return {
        **{name: totals[name] for name in REPORTED},
        "num_noted": int((accepted["note"] != "").sum()),
        "num_exact_copies": int(accepted["image_sha256"].duplicated().sum()),
        "success": not outcome.failed,
        "by_class": _by("class_name", table),
        **({"by_site": _by("site", table)} if table["site"].any() else {}),
        "rejected_by": _counts(outcome, "critical"),
        "noted_by": _counts(outcome, "warning"),
        "accepted_statistics": {
            name: _statistics(accepted[name]) for name in DISTRIBUTIONS
        },
        "expectations": [
            {
                "name": finding.check.name,
                "scope": scope,
                "severity": finding.check.severity,
                "expectation": finding.verdict.gx_type,
                "expected": finding.check.expected,
                "success": finding.verdict.success,
                **_unexpected(finding, scope, table),
            }
            for scope, findings in (("pair", outcome.pairs), ("all", outcome.totals))
            for finding in findings
        ],
    }


def copies(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Accepted pairs whose images have the same pixels, a frame for each image."""
    accepted = table[table["accepted"]]
    repeated = accepted[accepted["image_sha256"].duplicated(keep=False)]
    frames = [frame for _, frame in repeated.groupby("image_sha256", sort=False)]
    return sorted(frames, key=lambda frame: natural_key(frame["pair_id"].iloc[0]))


def classes(table: pd.DataFrame) -> list[str]:
    """Class names in natural order."""
    return natural(table["class_name"].unique())


def natural(names: Iterable[str]) -> list[str]:
    """Names in natural order."""
    return sorted(names, key=natural_key)


def _totals(table: pd.DataFrame) -> dict[str, Any]:
    accepted = int(table["accepted"].sum())
    filled = set(table.loc[table["accepted"], "class_name"])
    parts = (~table["accepted"]).groupby(table["site"])
    worst = str(parts.mean().idxmax())
    rejected = parts.get_group(worst)
    where = f" of {worst!r}" if worst else ""
    return {
        "num_pairs": len(table),
        "num_accepted": accepted,
        "num_rejected": len(table) - accepted,
        "rejected_fraction": (len(table) - accepted) / len(table),
        "empty_classes": ", ".join(c for c in classes(table) if c not in filled),
        "inverted_sites": ", ".join(map(repr, _inverted_sites(table))),
        "worst": f"{rejected.sum()} of {len(rejected)} pairs{where}",
        "worst_fraction": float(rejected.mean()),
    }


def _inverted_sites(table: pd.DataFrame) -> list[str]:
    """Sites whose foreground is about what other sites have as background."""
    share = table["foreground_fraction"]
    found = []
    for name in natural(table["site"].unique()):
        is_here = table["site"] == name
        here, elsewhere = share[is_here].median(), share[~is_here].median()
        if here > 0.5 and abs(here + elsewhere - 1) < abs(here - elsewhere):
            found.append(name)
    return found


def _by(column: str, table: pd.DataFrame) -> dict[str, dict[str, int]]:
    grouped = table.groupby(column)["accepted"]
    return {
        str(name): {
            "num_pairs": len(accepted),
            "num_accepted": int(accepted.sum()),
            "num_rejected": int((~accepted).sum()),
        }
        for name, accepted in grouped
    }


def _counts(outcome: Outcome, severity: str) -> dict[str, int]:
    return {
        finding.check.name: len(finding.verdict.rows)
        for finding in outcome.pairs
        if finding.check.severity == severity and finding.verdict.rows
    }


def _unexpected(finding: Finding, scope: str, table: pd.DataFrame) -> dict[str, Any]:
    if scope == "all":
        return {"found": finding.found}
    rows = finding.verdict.rows
    return {
        "num_unexpected": len(rows),
        "examples": natural(set(table["pair_id"].iloc[list(rows)]))[:EXAMPLES],
    }


def _statistics(values: pd.Series) -> dict[str, float | None]:
    known = values.dropna().to_numpy(float)
    if not len(known):
        return dict.fromkeys(("min", "p05", "median", "mean", "p95", "max"))
    low, p05, median, p95, high = np.percentile(known, [0, 5, 50, 95, 100])
    return {
        "min": float(low),
        "p05": float(p05),
        "median": float(median),
        "mean": float(known.mean()),
        "p95": float(p95),
        "max": float(high),
    }

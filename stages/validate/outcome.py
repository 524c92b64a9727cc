"""Which pairs are accepted, and the report of the reasons."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.core.expectations import Verdict, judge
from stages.core.params import ValidateParams
from stages.datasets.pairs import natural_key
from stages.validate.checks import Check, pair_checks, total_checks, with_judged

REPORTED = ("num_pairs", "num_accepted", "num_rejected", "rejected_fraction")
EXAMPLES = 20  # pair ids listed for an expectation
DISTRIBUTIONS = {
    "foreground_fraction": "Foreground, share of the mask",
    "image_mean": "Mean grey value, of 255",
    "image_contrast": "Standard deviation of the grey values",
    "num_components": "Separate regions in the mask",
}


@dataclass(frozen=True)
class Outcome:
    """The judged pairs and checks."""

    table: pd.DataFrame  # facts with `accepted`, `reason`, `note`; in shard order
    totals: dict[str, Any]  # counts of the whole data set
    pairs: list[tuple[Check, Verdict]]
    all: list[tuple[Check, Verdict]]  # of the data set as a whole

    @property
    def failed(self) -> list[Check]:
        """The checks that fail the stage."""
        return [
            check
            for check, verdict in self.all
            if check.severity == "critical" and not verdict.success
        ]


def judge_facts(table: pd.DataFrame, params: ValidateParams) -> Outcome:
    """Has Great Expectations judge measured pairs, then the whole data set."""
    checks = pair_checks(params, has_sites=bool(table["site"].any()))
    pairs = _judged(checks, with_judged(table, params), "pairs")
    table = _explained(table, pairs)
    totals = _totals(table)
    found = _judged(total_checks(params), pd.DataFrame([totals]), "data set")
    return Outcome(table, totals, pairs, found)


def _judged(
    checks: list[Check], table: pd.DataFrame, title: str
) -> list[tuple[Check, Verdict]]:
    expectations = {check.name: check.expectation for check in checks}
    verdicts = judge(table, expectations, title=title)
    return [(check, verdicts[check.name]) for check in checks]


def _explained(
    table: pd.DataFrame, judged: list[tuple[Check, Verdict]]
) -> pd.DataFrame:
    """Facts with `accepted`, `reason` and `note`."""
    broken: dict[int, list[Check]] = {}
    for check, verdict in judged:
        for index in verdict.rows:
            broken.setdefault(index, []).append(check)
    texts = {severity: [""] * len(table) for severity in ("critical", "warning")}
    for index, checks in broken.items():
        row: dict[str, Any] = table.iloc[index].to_dict()  # type: ignore[assignment]
        for severity, lines in texts.items():
            lines[index] = "; ".join(
                check.reason(row) for check in checks if check.severity == severity
            )
    return table.assign(
        accepted=[not reason for reason in texts["critical"]],
        reason=texts["critical"],
        note=texts["warning"],
    )


def report(outcome: Outcome) -> dict[str, Any]:
    """The contents of `report.json`, from which the page is made, too."""
    table, totals = outcome.table, outcome.totals
    accepted = table[table["accepted"]]
    return {
        **{name: totals[name] for name in REPORTED},
        "num_noted": int((accepted["note"] != "").sum()),
        "num_exact_copies": int(accepted["image_sha256"].duplicated().sum()),
        "success": not outcome.failed,
        "by_class": _by("class_name", table),
        **({"by_site": _by_site(table)} if table["site"].any() else {}),
        "accepted_statistics": _distributions(accepted),
        "expectations": [
            _entry("pair", check, verdict)
            | {
                "num_unexpected": len(verdict.rows),
                "examples": natural(table["pair_id"].iloc[list(verdict.rows)].unique())[
                    :EXAMPLES
                ],
            }
            for check, verdict in outcome.pairs
        ]
        + [
            _entry("all", check, verdict)
            | {"found": "" if verdict.success else check.found(totals)}
            for check, verdict in outcome.all
        ],
    }


def copies(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Accepted pairs whose images have the same pixels, a frame for each image."""
    accepted = table[table["accepted"]]
    repeated = accepted[accepted["image_sha256"].duplicated(keep=False)]
    frames = [frame for _, frame in repeated.groupby("image_sha256", sort=False)]
    return sorted(frames, key=lambda frame: natural_key(frame["pair_id"].iloc[0]))


def natural(names: Iterable[str]) -> list[str]:
    """Names in natural order."""
    return sorted(names, key=natural_key)


def _totals(table: pd.DataFrame) -> dict[str, Any]:
    accepted = int(table["accepted"].sum())
    filled = set(table.loc[table["accepted"], "class_name"])
    classes = natural(table["class_name"].unique())
    parts = (~table["accepted"]).groupby(table["site"])
    worst = str(parts.mean().idxmax())
    rejected = parts.get_group(worst)
    where = f" of {worst!r}" if worst else ""
    return {
        "num_pairs": len(table),
        "num_accepted": accepted,
        "num_rejected": len(table) - accepted,
        "rejected_fraction": (len(table) - accepted) / len(table),
        "empty_classes": ", ".join(c for c in classes if c not in filled),
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


def _by(column: str, table: pd.DataFrame) -> dict[Hashable, dict[Hashable, Any]]:
    counts = table.groupby(column).agg(
        num_pairs=("accepted", "size"), num_accepted=("accepted", "sum")
    )
    counts["num_rejected"] = counts["num_pairs"] - counts["num_accepted"]
    return counts.to_dict("index")


def _by_site(table: pd.DataFrame) -> dict[Hashable, dict[Hashable, Any]]:
    """As `_by`, with statistics: a model's ranges are those of its own sites."""
    accepted = table[table["accepted"]]
    return {
        name: counts
        | {"accepted_statistics": _distributions(accepted[accepted["site"] == name])}
        for name, counts in _by("site", table).items()
    }


def _distributions(accepted: pd.DataFrame) -> dict[Hashable, dict[str, float]]:
    places = {"min": 0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1}
    found = accepted[[*DISTRIBUTIONS]].astype(float).quantile([*places.values()])
    return found.set_axis([*places]).to_dict()


def _entry(scope: str, check: Check, verdict: Verdict) -> dict[str, Any]:
    return {
        "name": check.name,
        "scope": scope,
        "severity": check.severity,
        "expectation": verdict.gx_type,
        "expected": check.expected,
        "success": verdict.success,
    }

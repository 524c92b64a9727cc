"""Judges the metrics against their bounds.

Reads:  data/evaluation/metrics.json
Writes: data/gate/verdict.json
Why:    a model below its bounds can be reviewed, but is never exported.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.core import files, input_check, paths, tables
from stages.core.errors import PipelineError, run
from stages.core.params import GateParams, flatten, load_params
from stages.scoring.metrics import INTERVAL, number

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """A bound and the metric's value."""

    metric: str
    value: float | None  # None where the metric is missing or undefined
    kind: str  # "min" or "max"
    bound: float
    passed: bool


def gate(
    params: GateParams,
    *,
    metrics: Path = paths.METRICS,
    verdict: Path = paths.VERDICT,
) -> list[Check]:
    """Writes the verdict, passed or failed.

    Returns:
        One check per bound.

    Raises:
        PipelineError: If a check failed; holds the table of checks.
    """
    found = checks(files.read_json(metrics), params)
    failed = [check for check in found if not check.passed]
    facts = [asdict(check) for check in found]
    files.write_json(verdict, {"passed": not failed, "checks": facts})
    if failed:
        no_interval = [
            c.metric for c in failed if c.value is None and c.metric.endswith(INTERVAL)
        ]
        reason = f" ({no_interval[0]} needs 2 groups of images)" if no_interval else ""
        raise PipelineError(
            f"gate: {len(failed)} of {len(found)} bounds in params.yaml are not met"
            f"{reason}, so nothing is exported ({paths.EXPORT}, if it exists, holds "
            f"the former model); see {paths.OVERLAYS} for why",
            details=table(found),
        )
    logger.info("gate passed\n%s", table(found))
    return found


def checks(metrics: dict[str, Any], params: GateParams) -> list[Check]:
    """Compares nested metrics with bounds; a missing or undefined metric fails."""
    values = flatten(metrics)
    found = []
    for kind, bounds in (("min", params.min), ("max", params.max)):
        for name, bound in sorted(bounds.items()):
            value = values.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                value = None
            # JSON has no NaN: evaluate writes null where a metric is undefined.
            met = value is not None and (
                value >= bound if kind == "min" else value <= bound
            )
            found.append(Check(name, value, kind, bound, met))
    return found


def table(found: list[Check]) -> str:
    """The checks as aligned text: metric, value, bound, verdict."""
    signs = {"min": ">=", "max": "<="}
    rows = [
        (
            check.metric,
            number(check.metric, check.value),
            f"{signs[check.kind]} {check.bound:g}",
            "passed" if check.passed else "FAILED",
        )
        for check in found
    ]
    return tables.text(("metric", "value", "bound", "verdict"), rows)


def main() -> None:
    """Judges with the `gate` section of `params.yaml`."""
    input_check.by_dvc()
    gate(load_params().gate)


if __name__ == "__main__":
    run(main)

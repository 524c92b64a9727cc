"""Judges the metrics against their bounds.

Reads   data/evaluation/metrics.json
Writes  data/gate/verdict.json
Why     so that a model below its bounds can be reviewed but never exported
"""

import logging
import math
from pathlib import Path
from typing import Any

from stages.core import files, input_check, paths, tables
from stages.core.errors import PipelineError, run
from stages.core.params import GateParams, load_params
from stages.scoring.metrics import number

logger = logging.getLogger(__name__)


def gate(
    params: GateParams,
    *,
    metrics: Path = paths.METRICS,
    verdict: Path = paths.VERDICT,
) -> dict[str, Any]:
    """Writes the verdict, and raises it if a bound is not met.

    Args:
        params: The `gate` section: bounds by metric name, such as `dice.mean`.
        metrics: What evaluate wrote.
        verdict: Where the verdict goes; written whether it is good or bad.

    Returns:
        `{"passed": True, "checks": [...]}`, one check per bound.

    Raises:
        PipelineError: The table of checks, if any fell short. A metric that is
            missing or undefined falls short.
    """
    values = tables.flatten(files.read_json(metrics))
    checks = [
        _check(name, values.get(name), bound, kind)
        for kind, bounds in (("min", params.min), ("max", params.max))
        for name, bound in sorted(bounds.items())
    ]
    passed = all(check["passed"] for check in checks)
    result = {"passed": passed, "num_checks": len(checks), "checks": checks}
    files.write_json(verdict, result)
    if not passed:
        short = [check for check in checks if not check["passed"]]
        raise PipelineError(
            f"gate: {len(short)} of {len(checks)} bounds in params.yaml are not met, "
            f"so nothing is exported; see {paths.OVERLAYS} for why",
            details=table(checks),
        )
    logger.info("gate passed\n%s", table(checks))
    return result


def table(checks: list[dict[str, Any]]) -> str:
    """The checks as aligned text: metric, value, bound, verdict."""
    signs = {"min": ">=", "max": "<="}
    rows = [
        (
            check["metric"],
            number(check["metric"], check["value"]),
            f"{signs[check['kind']]} {check['bound']:g}",
            "passed" if check["passed"] else "FAILED",
        )
        for check in checks
    ]
    return tables.text(("metric", "value", "bound", "verdict"), rows)


def _check(name: str, value: Any, bound: float, kind: str) -> dict[str, Any]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    defined = is_number and math.isfinite(value)
    met = defined and (value >= bound if kind == "min" else value <= bound)
    return {
        "metric": name,
        "value": value if defined else None,
        "kind": kind,
        "bound": bound,
        "passed": bool(met),
    }


def main() -> None:
    """Judges with the `gate` section of `params.yaml`."""
    input_check.by_dvc()
    gate(load_params().gate)


if __name__ == "__main__":
    run(main)

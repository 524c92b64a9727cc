"""The headline metric over the last commits, from Git alone."""

import json
from dataclasses import dataclass
from typing import Any

from stages.core import git, paths
from stages.review.revision import Revision
from stages.scoring.metrics import HEADLINE, INTERVAL

COMMITS = 20


@dataclass(frozen=True)
class Point:
    """The committed headline metric of one commit."""

    commit: str  # short
    date: str
    mean: float
    low: float | None
    high: float | None


def history(base: Revision) -> list[Point]:
    """The last commits of the base's first parents that changed metrics, oldest first.

    Args:
        base: A commit.
    """
    log = git.output(
        *("log", "--first-parent", f"--max-count={COMMITS}", "--format=%H %cs"),
        *(base.commit or "HEAD", "--", paths.METRICS.as_posix()),
    )
    points = []
    for line in reversed(log.splitlines()):
        commit, date = line.split()
        content = git.files_at(commit, [paths.METRICS.as_posix()])
        values = _headline(content[paths.METRICS.as_posix()])
        if isinstance(mean := values.get("mean"), int | float):
            low, high = (values.get(name) for name in INTERVAL)
            points.append(Point(commit[:10], date, mean, low, high))
    return points


def _headline(content: bytes | None) -> dict[str, Any]:
    try:
        values = json.loads(content or b"{}")[HEADLINE.name]
    except (ValueError, KeyError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}

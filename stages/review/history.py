"""The headline metric over the last commits, from Git alone."""

import json
from dataclasses import dataclass

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
    """The base's last commits that changed metrics, oldest first."""
    log = git.output(
        *("log", "--first-parent", f"--max-count={COMMITS}", "--format=%H %cs"),
        *(base.commit or "HEAD", "--", paths.METRICS.as_posix()),
    )
    points = []
    for line in reversed(log.splitlines()):
        commit, date = line.split()
        [content] = git.files_at(commit, [paths.METRICS.as_posix()]).values()
        try:
            values = json.loads(content or b"{}")[HEADLINE.name]
            ends = [values.get(name) for name in INTERVAL]
            points.append(Point(commit[:10], date, values["mean"], *ends))
        except (ValueError, KeyError, TypeError):
            continue  # of another shape
    return points

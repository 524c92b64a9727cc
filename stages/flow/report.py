"""What a run leaves on Prefect's pages: metrics, verdict, the worst overlays."""

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from stages.core import files, paths
from stages.core.tables import flatten
from stages.flow.experiments import committed
from stages.gate import table

WORST = 4
JPEG_QUALITY = 80  # some 25 kB a picture: an artifact is a row of a database


def publish_metrics(root: Path) -> None:
    """The metrics beside those of the last commit, and pictures of the worst images."""
    now = flatten(files.read_json(root / paths.METRICS))
    text = committed(root, paths.METRICS)
    before = flatten(json.loads(text)) if text else {}
    create_table_artifact(
        table=compare(now, before),
        key="metrics",
        description=f"{paths.METRICS}, against the last commit",
    )
    create_markdown_artifact(
        markdown=_overlays(root),
        key="worst-overlays",
        description=f"The {WORST} validation images of the lowest Dice",
    )


def publish_verdict(root: Path) -> None:
    """The gate's table."""
    create_markdown_artifact(
        markdown=f"```\n{verdict(root)}\n```",
        key="verdict",
        description=f"{paths.VERDICT}: metrics against the bounds in params.yaml",
    )


def verdict(root: Path) -> str:
    """The gate's table as text, its outcome first."""
    found = files.read_json(root / paths.VERDICT)
    short = sum(not check["passed"] for check in found["checks"])
    count = len(found["checks"])
    if found["passed"]:
        head = f"gate passed: all {count} bounds are met"
    else:
        head = f"gate FAILED: {short} of {count} bounds are not met"
    return f"{head}\n{table(found['checks'])}"


def compare(now: dict[str, Any], before: dict[str, Any]) -> list[dict[str, str]]:
    """Metrics now and before, a row each, with the difference.

    Example:
        >>> compare({"dice.mean": 0.96}, {"dice.mean": 0.95})[0]["difference"]
        '+0.0100'
    """
    rows = []
    # The whole first, its classes after it.
    for name in sorted({*now, *before}, key=lambda n: (n.startswith("by_class"), n)):
        new, old = now.get(name), before.get(name)
        difference = ""
        if isinstance(new, int | float) and isinstance(old, int | float):
            difference = f"{new - old:+.4f}"
        rows.append(
            {
                "metric": name,
                "value": _number(new),
                "last commit": _number(old),
                "difference": difference,
            }
        )
    return rows


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _overlays(root: Path) -> str:
    """Markdown with the pictures inside, so that no server has to hand them out."""
    scores = pd.read_csv(root / paths.PER_IMAGE, dtype={"pair_id": str})
    scores = scores.sort_values(["dice", "pair_id"], na_position="first")
    parts = []
    for row in scores.itertuples():
        path = root / paths.OVERLAYS / f"{paths.slug(str(row.pair_id))}.png"
        picture = cv2.imread(str(path)) if path.is_file() else None
        if picture is None:
            continue
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, jpeg = cv2.imencode(".jpg", picture, quality)
        data = base64.b64encode(jpeg.tobytes()).decode()
        title = str(row.pair_id).replace("`", "'")
        parts.append(
            f"`{title}`: Dice {row.dice:.4f}\n\n"
            f"![overlay](data:image/jpeg;base64,{data})\n"
        )
        if len(parts) == WORST:
            break
    return "\n".join(parts) or "No picture was asked for (`evaluate.overlays_worst`)."

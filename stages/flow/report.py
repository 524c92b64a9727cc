"""What a run publishes on Prefect's pages: metrics, verdict, review, overlays."""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import pandas as pd
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from stages.core import files, paths
from stages.core.params import flatten
from stages.core.worktree import committed
from stages.flow.running import JUDGE, SCORER, PlanResult
from stages.gate import Check, table
from stages.scoring.metrics import HEADLINE, higher_is_better, number, order, signed

RETRY_S = 5
WORST = 4
JPEG_QUALITY = 80  # about 25 kB per picture: an artifact is a row of a database


def publish(root: Path, result: PlanResult, *, kept: str = "") -> None:
    """Publishes what the plan gave; `kept` says what holds the result."""
    wait_for_server(kept)
    with _or_a_warning():
        if SCORER in result.completed:
            create_table_artifact(
                table=_metrics(root),
                key="metrics",
                # Prefect's page shows 70 characters of it.
                description=". ".join(filter(None, (kept, "Against the last commit"))),
            )
            create_markdown_artifact(
                markdown=_overlays(root),
                key="worst-overlays",
                description=f"The {WORST} validation images with the lowest Dice",
            )
        if JUDGE in {*result.completed, *result.failed}:
            create_markdown_artifact(
                markdown=f"```\n{verdict(root)}\n```",
                key="verdict",
                description=f"{paths.VERDICT}: metrics against their bounds",
            )


def publish_review(root: Path) -> None:
    """Publishes the review in this folder, as a pull request's comment shows it."""
    headline, _, text = (root / "review.md").read_text("utf-8").partition("\n")
    picture = root / "review.png"
    if picture.is_file():
        headline += f"\n\n{_embedded('png', picture.read_bytes())}"
    with _or_a_warning():
        create_markdown_artifact(
            markdown=f"{headline}\n{text}",
            key="review",
            description="What the new data changed, image by image",
        )


def wait_for_server(message: str) -> None:
    """Waits until the server answers: else Prefect fails the run when it ends."""
    if not PREFECT_API_URL.value():  # a server within this process
        return
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is None:
            return
        get_run_logger().warning(
            "Prefect's server does not answer; waiting for it to report: %s", message
        )
        while client.api_healthcheck() is not None:
            time.sleep(RETRY_S)


@contextlib.contextmanager
def _or_a_warning() -> Iterator[None]:
    """A server that is gone only costs a warning: the results are kept already."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("Prefect's server does not answer: %s", error)


def verdict(root: Path) -> str:
    """The gate's table as text, its outcome first."""
    found = [Check(**c) for c in files.read_json(root / paths.VERDICT)["checks"]]
    num_met = sum(check.passed for check in found)
    word = "passed" if num_met == len(found) else "FAILED"
    return f"gate {word}: {num_met} of {len(found)} bounds are met\n{table(found)}"


def _metrics(root: Path) -> list[dict[str, str]]:
    now = flatten(files.read_json(root / paths.METRICS))
    text = committed(root, paths.METRICS)
    return list(compare(now, flatten(json.loads(text)) if text else {}))


def compare(now: dict[str, Any], before: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Metrics now and before: the headline metric, and every other that changed."""
    for name in sorted({*now, *before}, key=order):
        new, old = now.get(name), before.get(name)
        if new == old and name != f"{HEADLINE.name}.mean":
            continue
        difference, change = "", ""
        if isinstance(new, int | float) and isinstance(old, int | float):
            difference = signed(name, new - old)
            direction = higher_is_better(name)
            if new != old and direction is not None:
                change = "better" if (new > old) == direction else "worse"
        yield {
            "metric": name,
            "value": "" if new is None else number(name, new),
            "last commit": "" if old is None else number(name, old),
            "difference": difference,
            "change": change,
        }


def _overlays(root: Path) -> str:
    """The worst images, in Markdown."""
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
        title = str(row.pair_id).replace("`", "'")
        parts.append(
            f"`{title}`: Dice {row.dice:.4f}\n\n{_embedded('jpeg', jpeg.tobytes())}\n"
        )
        if len(parts) == WORST:
            break
    return "\n".join(parts) or "No overlays were made (`evaluate.overlays_worst`)."


def _embedded(kind: str, data: bytes) -> str:
    """Markdown that holds a picture, so that no server has to hand it out."""
    text = base64.b64encode(data).decode()
    return f"![overlays](data:image/{kind};base64,{text})"

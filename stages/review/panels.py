"""Pictures of an image as each side saw it, from what the caches hold."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.imaging import (
    Grey,
    UnreadableImageError,
    decode_image,
    decode_mask,
)
from stages.datasets.pairs import read_shard
from stages.review.run_results import RunResults
from stages.scoring.overlays import overlay

_QUALITY = 82  # of WebP: a fifth of a PNG's bytes, and the outlines stay sharp


@dataclass(frozen=True)
class Picture:
    """One side's overlay as a data URI, or why there is none."""

    source: str
    missing: str


def pictures(
    results: RunResults, pair_ids: Iterable[str], *, role: str
) -> dict[str, Picture]:
    """Draws the overlay of each pair.

    From the predicted masks and the ingested images, so that any image can be shown;
    where these are in no cache, from the pictures that evaluate drew of some.

    Args:
        results: The side.
        pair_ids: Which pairs.
        role: base or head, for the caption.
    """
    wanted = list(dict.fromkeys(pair_ids))
    masks = _predictions(results.revision.file(paths.PREDICTIONS), wanted)
    pairs = _pairs(results.revision.folder(paths.INGESTED), wanted) if masks else {}
    drawn = results.revision.folder(paths.OVERLAYS) or {}
    scores = results.per_image.set_index("pair_id")[["dice", "hd95_px"]]
    found = {}
    for pair_id in wanted:
        pixels = None
        if pair_id in masks and pair_id in pairs:
            caption = f"{role}  {_scores(scores.loc[pair_id].to_dict())}"
            pixels = _overlay(pairs[pair_id], masks[pair_id], caption)
        if pixels is None:
            pixels = _drawn(drawn.get(f"{paths.slug(pair_id)}.png"))
        if pixels is None:
            found[pair_id] = Picture(
                "", f"the {role}'s overlay is not in the DVC cache"
            )
        else:
            found[pair_id] = Picture(_data_uri(pixels), "")
    return found


def _scores(row: dict[Any, Any]) -> str:
    words = [f"Dice {row['dice']:.4f}"]
    if np.isfinite(row["hd95_px"]):
        words.append(f"hd95 {row['hd95_px']:.1f} px")
    return "  ".join(words)


def _predictions(place: Path | None, pair_ids: list[str]) -> dict[str, bytes]:
    if place is None:
        return {}
    try:
        table = pq.read_table(place, filters=[("pair_id", "in", pair_ids)])
        return dict(
            zip(table["pair_id"].to_pylist(), table["mask"].to_pylist(), strict=True)
        )
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return {}


def _pairs(
    shards: dict[str, Path] | None, pair_ids: list[str]
) -> dict[str, tuple[bytes, bytes]]:
    """Image and mask of each pair; a shard is read whole only if it holds one."""
    wanted, found = set(pair_ids), {}
    for _, place in sorted((shards or {}).items()):
        try:
            for pair in read_shard(place, pair_ids=wanted):
                found[pair.pair_id] = pair.content()
        except PipelineError:
            continue
    return found


def _overlay(pair: tuple[bytes, bytes], mask: bytes, caption: str) -> Grey | None:
    try:
        return overlay(
            decode_image(pair[0]),
            mask_true=decode_mask(pair[1]),
            mask_pred=decode_mask(mask),
            caption=caption,
        )
    except (UnreadableImageError, TypeError):
        return None


def _drawn(place: Path | None) -> Grey | None:
    if place is None:
        return None
    try:
        return decode_image(place.read_bytes(), channels=3)
    except (UnreadableImageError, OSError):
        return None


def _data_uri(pixels: Grey) -> str:
    quality = [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    ok, encoded = cv2.imencode(".webp", pixels, quality)
    if not ok:
        raise ValueError(f"OpenCV cannot encode pixels of shape {pixels.shape}")
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()

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
from numpy.typing import NDArray

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.imaging import (
    Grey,
    UnreadableImageError,
    decode_image,
    decode_mask,
    encode_png,
)
from stages.datasets.pairs import read_shard
from stages.review.run_results import RunResults
from stages.scoring.overlays import overlay

_QUALITY = 82  # of WebP: a fifth of a PNG's bytes, and the outlines stay sharp
_SHOWN = 4  # images in a comment


@dataclass(frozen=True)
class Picture:
    """One side's overlay, or why there is none."""

    pixels: NDArray[np.uint8] | None  # (H, W, 3), blue first
    missing: str

    @property
    def source(self) -> str:
        """The overlay as a data URI; "" if there is none."""
        if self.pixels is None:
            return ""
        quality = [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
        _, encoded = cv2.imencode(".webp", self.pixels, quality)
        data = base64.b64encode(encoded.tobytes()).decode()
        return f"data:image/webp;base64,{data}"


@dataclass(frozen=True)
class Panel:
    """One changed image as each side saw it."""

    pair_id: str
    base: Picture
    head: Picture


def draw(base: RunResults, head: RunResults, pair_ids: list[str]) -> dict[str, Panel]:
    """The overlays of both sides, by pair id."""
    before = pictures(base, pair_ids, role="base")
    after = pictures(head, pair_ids, role="head")
    return {name: Panel(name, before[name], after[name]) for name in pair_ids}


def montage(found: Iterable[Panel]) -> bytes | None:
    """A PNG of the first panels with both pictures, two in a row; None without any."""
    whole = [
        np.hstack([p.base.pixels, p.head.pixels])
        for p in found
        if p.base.pixels is not None and p.head.pixels is not None
    ][:_SHOWN]
    if not whole:
        return None
    height, width = (side * 2 // 3 for side in whole[0].shape[:2])
    small = [
        cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in whole
    ]
    if len(small) % 2 and len(small) > 1:
        small.append(np.zeros_like(small[0]))
    rows = [np.hstack(small[place : place + 2]) for place in range(0, len(small), 2)]
    return encode_png(np.vstack(rows))


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
    scores = results.per_image.set_index("pair_id")
    found = {}
    for pair_id in wanted:
        pixels = None
        if pair_id in masks and pair_id in pairs:
            caption = f"{role}  {_scores(scores.loc[pair_id].to_dict())}  {pair_id}"
            pixels = _overlay(pairs[pair_id], masks[pair_id], caption)
        if pixels is None:
            pixels = _drawn(drawn.get(f"{paths.slug(pair_id)}.png"))
        if pixels is None:
            missing = f"the {role}'s overlay is not in the DVC cache"
            found[pair_id] = Picture(None, missing)
        else:
            found[pair_id] = Picture(pixels, "")
    return found


def _scores(row: dict[Any, Any]) -> str:
    words = [f"Dice {row['dice']:.4f}"]
    if np.isfinite(row.get("hd95_px", np.nan)):
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

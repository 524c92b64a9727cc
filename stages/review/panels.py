"""Pictures of an image as each side saw it, from what the caches hold."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.core import paths
from stages.core.imaging import decode_image, decode_mask, encode_png
from stages.datasets.pairs import read_shard
from stages.review.run_results import RunResults
from stages.scoring.overlays import overlay

_QUALITY = 82  # of WebP: a fifth of a PNG's bytes, and the outlines stay sharp
_SHOWN = 4  # images in a comment


@dataclass(frozen=True)
class Panel:
    """One changed image as each side saw it: overlays, (H, W, 3), blue first.

    None where the cache lacks the side's prediction or the image.
    """

    base: NDArray[np.uint8] | None
    head: NDArray[np.uint8] | None

    @property
    def sources(self) -> dict[str, str]:
        """Each side's overlay as a data URI; "" if there is none."""
        return {"base": _data_uri(self.base), "head": _data_uri(self.head)}


def draw(base: RunResults, head: RunResults, pair_ids: list[str]) -> dict[str, Panel]:
    """The overlays of both sides, by pair id."""
    before = _overlays(base, pair_ids, role="base")
    after = _overlays(head, pair_ids, role="head")
    return {name: Panel(before.get(name), after.get(name)) for name in pair_ids}


def montage(found: Iterable[Panel]) -> bytes | None:
    """A PNG of the first panels with both pictures, two in a row; None without any."""
    whole = [
        np.hstack([panel.base, panel.head])
        for panel in found
        if panel.base is not None and panel.head is not None
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


def _data_uri(pixels: NDArray[np.uint8] | None) -> str:
    if pixels is None:
        return ""
    _, encoded = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    data = base64.b64encode(encoded.tobytes()).decode()
    return f"data:image/webp;base64,{data}"


def _overlays(
    results: RunResults, pair_ids: list[str], *, role: str
) -> dict[str, NDArray[np.uint8]]:
    """The overlay of each pair, from predicted masks and ingested images."""
    masks = _predictions(results.revision.file(paths.PREDICTIONS), pair_ids)
    pairs = _pairs(results.revision.folder(paths.INGESTED), [*masks]) if masks else {}
    scores = results.per_image.set_index("pair_id").to_dict("index")
    return {
        pair_id: overlay(
            decode_image(image),
            mask_true=decode_mask(mask),
            mask_pred=decode_mask(masks[pair_id]),
            caption=f"{role}  {_scores(scores[pair_id])}  {pair_id}",
        )
        for pair_id, (image, mask) in pairs.items()
    }


def _scores(row: dict[Any, Any]) -> str:
    text = f"Dice {row['dice']:.4f}"
    distance = row.get("hd95_px", np.nan)
    return f"{text}  hd95 {distance:.1f} px" if np.isfinite(distance) else text


def _predictions(place: Path | None, pair_ids: list[str]) -> dict[str, bytes]:
    if place is None or not pair_ids:
        return {}
    table = pq.read_table(place, filters=[("pair_id", "in", pair_ids)])
    names, masks = table["pair_id"].to_pylist(), table["mask"].to_pylist()
    return dict(zip(names, masks, strict=True))


def _pairs(
    shards: dict[str, Path] | None, pair_ids: list[str]
) -> dict[str, tuple[bytes, bytes]]:
    """Image and mask of each pair; a shard is read whole only if it holds one."""
    wanted = set(pair_ids)
    return {
        pair.pair_id: pair.content()
        for _, place in sorted((shards or {}).items())
        for pair in read_shard(place, pair_ids=wanted)
    }

"""Pairs to measure on: a given data set's, or phantoms and variations on them."""

import itertools
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.harness import Options
from stages.core import imaging, paths
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.datasets import layouts
from stages.datasets.pairs import Pair
from stages.datasets.sources import phantom
from stages.datasets.sources.folder import pairs_in

TOP = "COVID-19_Radiography_Dataset"
DRAWN = 16  # phantoms that variations start from
OTHER_SEED = 1000
TINY_SIDE = 48  # pixels of a phantom that is quickly drawn


def phantoms(
    count: int, *, side: int | None = None, seed: int = OTHER_SEED
) -> list[Pair]:
    """Phantoms that the embedded model was not trained on.

    The side is in pixels, and the seed is added to that in `params.yaml`.
    """
    params = load_params().ingest
    update = {"pairs": count, "seed": params.phantom.seed + seed}
    if side is not None:
        update |= {"image_size": side, "mask_size": side}
    drawn = params.phantom.model_copy(update=update)
    return list(
        phantom.pairs(
            params.model_copy(update={"classes": [], "limit": 0, "phantom": drawn})
        )
    )


def encoded(options: Options, count: int) -> list[Pair]:
    """Complete pairs: the first of the given data, or phantoms; varied if too few."""
    if options.data is None:
        found = phantoms(min(count, DRAWN), side=TINY_SIDE if options.quick else None)
    else:
        found = given(options.data, count)
    return list(varied(found, count))


def given(folder: Path, count: int | None) -> list[Pair]:
    """The first complete pairs of a data set; all for None.

    Raises:
        PipelineError: If it holds no complete pair.
    """
    params = load_params().ingest
    read = {
        "source": "folder",
        "folder": str(folder.absolute()),
        "layout": layouts.detect(folder, params),
        "classes": [],
        "limit": 0,
    }
    pairs = pairs_in(folder, params.model_copy(update=read))
    complete = (p for p in pairs if p.image and p.mask and not p.problem)
    found = list(itertools.islice(complete, count))
    if not found:
        raise PipelineError(
            f"{folder} holds no complete pair; name another folder with --data"
        )
    return found


def inputs(pairs: list[Pair], side: int, channels: int) -> imaging.Float:
    """The network's inputs, (N, side, side, channels) in [0, 1]."""
    images = [imaging.decode_image(pair.content()[0], channels) for pair in pairs]
    return imaging.to_input(np.stack([imaging.preprocess(x, side) for x in images]))


def varied(pairs: list[Pair], count: int) -> Iterator[Pair]:
    """Yields `count` pairs: the given ones, then moved, turned and brightened copies.

    Drawing takes half a second per pair, moving some milliseconds. No two have the
    same pixels, so that nothing finds copies among them.
    """
    yield from pairs[:count]
    draw = np.random.default_rng(5)
    for number in range(len(pairs), count):
        pair = pairs[number % len(pairs)]
        image, mask = pair.content()
        angle, zoom = draw.uniform(-20, 20), draw.uniform(0.8, 1.2)
        shift = draw.uniform(-0.1, 0.1, 2)
        sides = []
        for content, method in (
            (image, cv2.INTER_LINEAR),
            (mask, cv2.INTER_NEAREST),
        ):
            pixels = np.asarray(imaging.decode(content), np.uint8)
            height, width = pixels.shape[:2]
            turn = np.asarray(
                cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom),
                np.float64,
            )
            turn[:, 2] += shift * np.array([width, height])
            moved = cv2.warpAffine(pixels, turn, (width, height), flags=method)
            sides.append(np.asarray(moved, np.uint8))
        name = f"{pair.class_name}-{100_000 + number}"
        yield replace(
            pair,
            pair_id=name,
            group="",
            image_path=f"{pair.class_name}/images/{name}.png",
            mask_path=f"{pair.class_name}/masks/{name}.png",
            image=imaging.encode_png(_brighter(sides[0], int(draw.integers(1, 12)))),
            mask=imaging.encode_png(sides[1]),
        )


def _brighter(pixels: imaging.Grey, grey: int) -> imaging.Grey:
    return np.asarray(np.clip(pixels.astype(np.int16) + grey, 0, 255), np.uint8)


def write_folder(pairs: Iterable[Pair], folder: Path) -> list[Path]:
    """Writes pairs as the COVID-19 Radiography Database's folder; returns all files."""
    written = []
    for pair in pairs:
        name = f"{paths.slug(pair.pair_id)}.png"
        for side, content in zip(("images", "masks"), pair.content(), strict=True):
            path = folder / TOP / paths.slug(pair.class_name) / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written.append(path)
    return written


def zip_folder(folder: Path, path: Path) -> None:
    """Packs the files of `write_folder`, without compression, as Kaggle does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.glob(f"{TOP}/*/*/*")):
            archive.write(file, file.relative_to(folder))


def settings(pairs: Iterable[Pair], source: Path) -> dict[str, Any]:
    """Params, by dotted name, that read written pairs and accept their shapes."""
    shapes = set()
    for pair in pairs:
        sides = (imaging.decode(side).shape for side in pair.content())
        shapes.add(tuple(f"{height}x{width}" for height, width, *_ in sides))
    return {
        "ingest.source": "folder",
        "ingest.folder": str(source),
        "ingest.layout": "covid19_radiography",
        "ingest.classes": [],
        "ingest.limit": 0,
        "validate.image_mask_shapes": [list(pair) for pair in sorted(shapes)],
        "validate.classes": [],
        "validate.max_rejected_fraction": 1.0,
    }

"""Pairs to measure on: a given data set's, or phantoms and variations on them."""

import itertools
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.harness import Options
from stages.core import imaging, paths
from stages.core.errors import PipelineError
from stages.core.params import IngestParams, Params, load_params
from stages.datasets.pairs import Pair
from stages.datasets.sources import phantom
from stages.datasets.sources.folder import pairs_in
from stages.inference import score

TOP = "COVID-19_Radiography_Dataset"
DRAWN = 16  # phantoms that variations start from
OTHER_SEED = 1000
TINY_SIDE = 48  # pixels of a phantom that is quickly drawn


def ingest_params(options: Options) -> IngestParams:
    """The `ingest` section for the given data, or for phantoms."""
    params = load_params().ingest
    if options.data is None:
        if options.quick:
            params = phantoms_of(params, pairs=params.phantom.pairs, side=TINY_SIDE)
        # Other ones than the embedded model was trained on.
        others = {"seed": params.phantom.seed + OTHER_SEED}
        phantoms = params.phantom.model_copy(update=others)
        return params.model_copy(
            update={"source": "phantom", "classes": [], "phantom": phantoms}
        )
    return params.model_copy(
        update={
            "source": "folder",
            "folder": str(options.data.absolute()),
            "layout": score.detect_layout(options.data, params),
            "classes": [],
            "limit": 0,
        }
    )


def phantoms_of(params: IngestParams, *, pairs: int, side: int) -> IngestParams:
    """Params that draw `pairs` phantoms with images and masks of `side` pixels."""
    drawn = {"pairs": pairs, "image_size": side, "mask_size": side}
    return params.model_copy(
        update={
            "source": "phantom",
            "classes": [],
            "limit": 0,
            "phantom": params.phantom.model_copy(update=drawn),
        }
    )


def drawn(params: IngestParams) -> list[Pair]:
    """Phantoms, all of them."""
    return list(phantom.pairs(params))


def encoded(options: Options, count: int) -> list[Pair]:
    """Complete pairs: the first of the given data, or phantoms; varied if too few.

    Args:
        options: data, quick.
        count: How many.

    Raises:
        PipelineError: If the given data holds no complete pair.
    """
    params = ingest_params(options)
    if params.source == "phantom":
        few = params.phantom.model_copy(update={"pairs": min(count, DRAWN)})
        found = drawn(params.model_copy(update={"phantom": few}))
    else:
        found = all_pairs(replace(options, pairs=count))
    if not found:
        raise PipelineError(
            f"{options.data} holds no complete pair; name another folder with --data"
        )
    return list(varied(found, count))


def all_pairs(options: Options) -> list[Pair]:
    """Every complete pair of the given data, at most `pairs`, or as many phantoms."""
    params = ingest_params(options)
    if params.source == "phantom":
        count = options.size(params.phantom.pairs, 6)
        few = params.phantom.model_copy(update={"pairs": count})
        return drawn(params.model_copy(update={"phantom": few}))
    found = pairs_in(Path(params.folder), params)
    complete = (p for p in found if p.image and p.mask and not p.problem)
    return list(itertools.islice(complete, options.pairs))


def varied(pairs: list[Pair], count: int) -> Iterator[Pair]:
    """`count` pairs: the given ones, then moved, turned and brightened copies.

    Drawing takes half a second a pair, moving some milliseconds. Each has pixels of
    its own, so that nothing finds copies among them.
    """
    yield from pairs[:count]
    draw = np.random.default_rng(5)
    for number in range(len(pairs), count):
        pair = pairs[number % len(pairs)]
        assert pair.image is not None
        assert pair.mask is not None
        angle, zoom = draw.uniform(-20, 20), draw.uniform(0.8, 1.2)
        shift = draw.uniform(-0.1, 0.1, 2)
        sides = []
        for content, method in (
            (pair.image, cv2.INTER_LINEAR),
            (pair.mask, cv2.INTER_NEAREST),
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


def write_zip(pairs: Iterable[Pair], path: Path) -> int:
    """Writes pairs as the COVID-19 Radiography Database's zip; returns their bytes."""
    total = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in _files(pairs):
            archive.writestr(f"{TOP}/{name}", content)
            total += len(content)
    return total


def write_folder(pairs: Iterable[Pair], folder: Path) -> list[Path]:
    """Writes pairs as that database's folder; returns all files."""
    written = []
    for name, content in _files(pairs):
        path = folder / TOP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.append(path)
    return written


def zip_folder(folder: Path, path: Path) -> None:
    """Packs what `write_folder` wrote as `write_zip` would have: nothing anew."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.glob(f"{TOP}/*/*/*")):
            archive.write(file, file.relative_to(folder))


def _files(pairs: Iterable[Pair]) -> Iterator[tuple[str, bytes]]:
    for pair in pairs:
        for side, content in (("images", pair.image), ("masks", pair.mask)):
            assert content is not None
            name = f"{paths.slug(pair.pair_id)}.png"
            yield f"{paths.slug(pair.class_name)}/{side}/{name}", content


def params_for(pairs: Iterable[Pair], source: Path, params: Params) -> Params:
    """Params whose data are the written pairs; their shapes, whatever, are right.

    Args:
        pairs: Some of what was written.
        source: The zip or the folder.
        params: All else.
    """
    shapes = set()
    for pair in pairs:
        sides = (imaging.decode(side or b"").shape for side in (pair.image, pair.mask))
        shapes.add(tuple(f"{height}x{width}" for height, width, *_ in sides))
    read = {
        "source": "folder",
        "folder": str(source),
        "layout": "covid19_radiography",
        "classes": [],
        "limit": 0,
    }
    judged = {
        "image_mask_shapes": [list(pair) for pair in sorted(shapes)],
        "classes": [],
        "max_rejected_fraction": 1.0,
    }
    return params.model_copy(
        update={
            "ingest": params.ingest.model_copy(update=read),
            "validate_": params.validate_.model_copy(update=judged),
        }
    )

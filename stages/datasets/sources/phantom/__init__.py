"""The embedded data set: drawn chest radiographs with known lungs.

It has the form of the target data: classes, names, sizes, channels, and a few copies.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import PipelineError
from stages.core.imaging import encode_png
from stages.core.params import IngestParams, PhantomParams
from stages.datasets.layouts import Facts
from stages.datasets.masks import LUNG_WITHOUT_HEART
from stages.datasets.pairs import Pair
from stages.datasets.sources.phantom.anatomy import draw_anatomy, draw_pose, random_for
from stages.datasets.sources.phantom.render import draw_image, draw_mask

# Share of children in each class: the target's Viral Pneumonia class is theirs.
CHILD_SHARE = {
    "COVID": 0.1,
    "Lung_Opacity": 0.25,
    "Normal": 0.4,
    "Viral Pneumonia": 0.9,
}
CLASSES = tuple(CHILD_SHARE)
TARGET = "lung"
BLOCK = 20  # numbers among which there is one exact copy, one near copy, one patient
COLOUR_SHARE = 0.12  # images stored with three equal channels, as in the target data


def pairs(params: IngestParams) -> Iterator[Pair]:
    """Draws the pairs one at a time, in class order, then by number.

    A pair depends only on the seed, its class and its number: more pairs do not change
    the earlier ones.

    Raises:
        PipelineError: If a class or the target is unknown.
    """
    if params.target not in ("", TARGET):
        raise PipelineError(
            f"ingest.target should be {TARGET} or '' for phantoms, found "
            f"{params.target!r}"
        )
    unknown = [name for name in params.classes if name not in CLASSES]
    if unknown:
        raise PipelineError(
            f"ingest.classes should name classes of the phantoms "
            f"({', '.join(CLASSES)}), found {unknown[0]!r}"
        )
    chosen = [name for name in CLASSES if not params.classes or name in params.classes]
    return _draw(chosen, params)


def describe(params: IngestParams) -> Facts:
    """The facts of the drawn pairs."""
    return Facts(
        dataset="phantom chest radiographs, drawn by this pipeline",
        version=f"seed {params.phantom.seed}",
        page="",
        licence="the pipeline's own; no person's image is in it",
        citation="",
        target=TARGET,
        mask_definition_id=LUNG_WITHOUT_HEART.id,
        mask_definition=LUNG_WITHOUT_HEART.text,
    )


def _draw(chosen: list[str], params: IngestParams) -> Iterator[Pair]:
    each, extra = divmod(params.phantom.pairs, len(chosen))
    for index, class_name in enumerate(chosen):
        count = each + (index < extra)
        if params.limit:
            count = min(count, params.limit)
        for number in range(1, count + 1):
            yield _pair(class_name, number, params.phantom)


def _pair(class_name: str, number: int, params: PhantomParams) -> Pair:
    """One pair: new, a copy of an earlier one, or another film of a patient."""
    index = CLASSES.index(class_name)
    block, slot = divmod(number - 1, BLOCK)
    first = block * BLOCK + 1
    cast = random_for(params.seed, index, block, 0).permutation(BLOCK).tolist()
    (a, b), (c, d), (e, f) = (sorted(cast[i : i + 2]) for i in (0, 2, 4))
    source = patient = number
    if slot == b:
        source = patient = first + a
    elif slot == d:
        source = patient = first + c
    elif slot == f:
        patient = first + e
    group = f"patient-{class_name}-{first + e}" if slot in (e, f) else ""

    draw = random_for(params.seed, index, source, 1)
    anatomy = draw_anatomy(
        random_for(params.seed, index, patient, 2), CHILD_SHARE[class_name]
    )
    pose = draw_pose(draw, anatomy)
    image = draw_image(draw, anatomy, pose, class_name, params.image_size)
    mask = draw_mask(anatomy, pose, params.mask_size)
    pixels: NDArray[np.generic] = image
    if slot == d:
        pixels = _developed_again(image)
    if draw.random() < COLOUR_SHARE:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    pair_id = f"{class_name}-{number}"
    return Pair(
        pair_id=pair_id,
        class_name=class_name,
        group=group,
        image_path=f"{class_name}/images/{pair_id}.png",
        mask_path=f"{class_name}/masks/{pair_id}.png",
        image=encode_png(pixels),
        mask=encode_png(np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)),
    )


def _developed_again(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A near copy: the same picture, slightly brighter and flatter."""
    return ((image.astype(np.uint16) * 244 + 1280) >> 8).astype(np.uint8)

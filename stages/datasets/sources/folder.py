"""Your own folder: a directory or the data set's zip itself, read in place."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

from stages.core.errors import visible
from stages.core.imaging import encode_png, format_of
from stages.core.params import IngestParams
from stages.datasets import dicom, layouts
from stages.datasets.pairs import Pair
from stages.datasets.tree import Tree, UnreadableError, open_tree

logger = logging.getLogger(__name__)


class Pairs:
    """The selected pairs of a tree; iterating reads their bytes, one pair at a time.

    Bytes are unaltered, except for DICOM images: they become PNG, because their files
    identify patients. Pairs of one such patient share a group, named after the first.
    """

    def __init__(self, tree: Tree, params: IngestParams) -> None:
        self._tree = tree
        self._found = layouts.find_pairs(
            params.layout,
            tree,
            target=params.target,
            classes=params.classes,
            limit=params.limit,
        )
        definition = layouts.load(params.layout).ABOUT.definition(params.target)
        self._may_be_empty = definition.may_be_empty

    def __len__(self) -> int:
        return len(self._found)

    @property
    def class_names(self) -> set[str]:
        """The classes of the pairs, without reading them."""
        return {pair.class_name for pair in self._found}

    def __iter__(self) -> Iterator[Pair]:
        groups: dict[str, str] = {}  # a patient's key to the id of the first pair
        for pair in self._found:
            image, image_problem = self._read(pair.image_path, "image")
            mask, mask_problem = self._read(pair.mask_path, "mask")
            region, region_problem = self._read(pair.region_path, "region")
            group, spacing = pair.group, None
            if image is not None and format_of(image) == "dicom":
                try:
                    film = dicom.read(image)
                except UnreadableError as reason:
                    image, image_problem = None, f"image {reason}"
                else:
                    image, spacing = encode_png(film.pixels), film.spacing
                    if film.patient and not group:
                        group = groups.setdefault(film.patient, pair.pair_id)
            if mask is not None and format_of(mask) == "dicom":
                mask = None
                mask_problem = "mask is a DICOM file; store it as PNG or TIFF"
            problems = (image_problem, mask_problem, region_problem)
            yield dataclasses.replace(
                pair,
                group=group,
                spacing=spacing,
                image=image,
                mask=mask,
                region=region,
                problem="; ".join(filter(None, problems)),
                may_be_empty=self._may_be_empty,
            )

    def _read(self, path: str, side: str) -> tuple[bytes | None, str]:
        """Bytes and "", or None and the problem; None and "" for an orphan's side."""
        if not path:
            return None, ""
        try:
            return self._tree.read(path), ""
        except UnreadableError as reason:
            return None, f"{side} {reason}"


def pairs(params: IngestParams) -> Pairs:
    """The pairs of `ingest.folder` in class order, then natural order.

    Raises:
        PipelineError: If the folder, its layout or a class does not match the params.
    """
    tree = open_tree(Path(params.folder), params)
    if tree.left_out:
        logger.info(
            "%s: left out %d entries that are hidden, or neither a file nor a folder, "
            "such as %s",
            tree.label,
            len(tree.left_out),
            visible(min(tree.left_out)),
        )
    return Pairs(tree, params)


def pairs_in(folder: Path, params: IngestParams) -> Pairs:
    """The pairs of any directory or zip, by the layout that the params name."""
    return Pairs(open_tree(folder, params), params)


def describe(params: IngestParams) -> layouts.Facts:
    """The facts of the layout's data set."""
    return dataclasses.replace(
        layouts.load(params.layout).ABOUT.facts(params.target),
        layout=params.layout,
        folder=Path(params.folder).name,
    )

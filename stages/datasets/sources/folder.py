"""Your own folder: a directory, or the data set's zip itself, read in place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.core.params import IngestParams
from stages.datasets import layouts
from stages.datasets.layouts import Entry, Target, Tree, UnreadableError
from stages.datasets.pairs import Pair
from stages.datasets.sources import _dicom
from stages.datasets.sources._tree import open_tree


class Pairs(Iterator[Pair]):
    """Pairs one at a time, read when asked for; `len` is how many are left.

    Bytes are as they lie there, but for DICOM images, which become PNG: their files
    name patients. Pairs of one such patient share a group, named after the first.
    """

    def __init__(self, tree: Tree, entries: list[Entry], target: Target) -> None:
        self._tree = tree
        self._entries = entries
        self._target = target
        self._done = 0
        self._first_of: dict[str, str] = {}  # a patient's key to its first pair's id

    def __len__(self) -> int:
        return len(self._entries) - self._done

    def __next__(self) -> Pair:
        if self._done == len(self._entries):
            raise StopIteration
        entry = self._entries[self._done]
        self._done += 1
        image, image_problem = _read(self._tree, entry.image_path, "image")
        mask, mask_problem = _read(self._tree, entry.mask_path, "mask")
        group = entry.group
        if image is not None and _dicom.is_dicom(image):
            image, image_problem, patient = _picture(image, entry.image_path)
            if patient and not group:
                group = self._first_of.setdefault(patient, entry.pair_id)
        if mask is not None and _dicom.is_dicom(mask):
            mask, mask_problem = None, "mask is a DICOM file; store it as PNG or TIFF"
        return Pair(
            pair_id=entry.pair_id,
            class_name=entry.class_name,
            group=group,
            given_split=entry.given_split,
            image_path=entry.image_path,
            mask_path=entry.mask_path,
            image=image,
            mask=mask,
            problem="; ".join(filter(None, [image_problem, mask_problem])),
            may_be_empty=self._target.may_be_absent,
        )


def pairs(params: IngestParams) -> Pairs:
    """The pairs of `ingest.folder` in class order, then natural order.

    Raises:
        PipelineError: If the folder, its layout or a class is not what params say.
    """
    return pairs_in(Path(params.folder), params)


def pairs_in(folder: Path, params: IngestParams) -> Pairs:
    """The pairs of any directory or zip, by the layout that params name."""
    tree = open_tree(folder, params)
    entries = layouts.entries(
        params.layout,
        tree,
        target=params.target,
        classes=params.classes,
        limit=params.limit,
    )
    return Pairs(tree, entries, layouts.target_of(params.layout, params.target))


def describe(params: IngestParams) -> dict[str, Any]:
    """What the pairs are: the facts of the layout's data set, no machine's path."""
    return {
        "layout": params.layout,
        "folder": Path(params.folder).name,
        "version": None,
        **layouts.load(params.layout).ABOUT.facts(params.target),
    }


def _read(tree: Tree, path: str, side: str) -> tuple[bytes | None, str]:
    """Bytes and "", or None and why there are none; an orphan's side has no why."""
    if not path:
        return None, ""
    try:
        return tree.read(path), ""
    except UnreadableError as reason:
        return None, f"{side} {reason}"


def _picture(encoded: bytes, path: str) -> tuple[bytes | None, str, str]:
    """A DICOM image as PNG, why there is none, and its patient's key."""
    try:
        png, patient = _dicom.to_png(encoded, path)
    except UnreadableError as reason:
        return None, f"image {reason}", ""
    return png, "", patient

"""Your own folder: a directory, or the data set's zip itself, read in place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.core import layouts
from stages.core.layouts import Entry, Tree, UnreadableError
from stages.core.pairs import Pair
from stages.core.params import IngestParams
from stages.core.sources._tree import open_tree


class Pairs(Iterator[Pair]):
    """Pairs one at a time, read when asked for; `len` is how many are left."""

    def __init__(self, tree: Tree, entries: list[Entry]) -> None:
        self._tree = tree
        self._entries = entries
        self._done = 0

    def __len__(self) -> int:
        return len(self._entries) - self._done

    def __next__(self) -> Pair:
        if self._done == len(self._entries):
            raise StopIteration
        entry = self._entries[self._done]
        self._done += 1
        image, image_problem = _read(self._tree, entry.image_path, "image")
        mask, mask_problem = _read(self._tree, entry.mask_path, "mask")
        return Pair(
            pair_id=entry.pair_id,
            class_name=entry.class_name,
            group=entry.group,
            given_split=entry.given_split,
            image_path=entry.image_path,
            mask_path=entry.mask_path,
            image=image,
            mask=mask,
            problem="; ".join(filter(None, [image_problem, mask_problem])),
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
        params.layout, tree, classes=params.classes, limit=params.limit
    )
    return Pairs(tree, entries)


def describe(params: IngestParams) -> dict[str, Any]:
    """What the pairs are: the facts of the layout's data set, no machine's path."""
    return {
        "layout": params.layout,
        "folder": Path(params.folder).name,
        "version": None,
        **layouts.load(params.layout).ABOUT.facts(),
    }


def _read(tree: Tree, path: str, side: str) -> tuple[bytes | None, str]:
    """Bytes and "", or None and why there are none; an orphan's side has no why."""
    if not path:
        return None, ""
    try:
        return tree.read(path), ""
    except UnreadableError as reason:
        return None, f"{side} {reason}"

"""How a data set lies on disk: one file a layout, found by name.

A layout module has

- `ABOUT`: an `About`, the facts that end up in the model card;
- `TREE`: one line that shows the expected names;
- `find(tree)`: the pairs, in any order, from the names alone. Its small text
  files (a table of pairs) may be read; images never are.

To add a data set is to add one such file.
"""

import importlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Protocol, cast

from stages.core.errors import PipelineError
from stages.core.imaging import IMAGE_SUFFIXES
from stages.core.pairs import natural_key
from stages.core.params import names_in

JUNK_FOLDERS = {"__MACOSX", "$RECYCLE.BIN", ".Trashes", ".git"}


class UnreadableError(Exception):
    """One file cannot be taken; the words go into the quality report."""


class Tree(Protocol):
    """Files by name: a directory or a zip, read in place."""

    @property
    def label(self) -> str:
        """What messages call it."""

    @property
    def names(self) -> Sequence[str]:
        """POSIX names of all files, relative to the top, without duplicates."""

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            UnreadableError: If this file, and this file alone, cannot be taken.
        """


@dataclass(frozen=True)
class About:
    """The facts of the data set that a layout is known for.

    Licence and citation are as the data set's page states them.
    """

    dataset: str
    page: str
    licence: str
    citation: str
    mask_definition: str  # data sets whose masks mean different things never mix

    def facts(self) -> dict[str, str]:
        """As `data/ingested.json` holds them."""
        return asdict(self)


@dataclass(frozen=True)
class Entry:
    """One pair by name: `Pair` before its bytes are read."""

    pair_id: str
    class_name: str
    image_path: str  # "" for a mask without an image
    mask_path: str  # "" for an image without a mask
    group: str = ""
    given_split: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether neither side is missing."""
        return bool(self.image_path and self.mask_path)


class Layout(Protocol):
    """What a layout module offers."""

    ABOUT: About
    TREE: str

    def find(self, tree: Tree) -> list[Entry]:
        """All pairs and orphans of a tree, in any order."""


def load(name: str) -> Layout:
    """The layout module of that name."""
    return cast(Layout, importlib.import_module(f"{__name__}.{name}"))


def entries(
    name: str, tree: Tree, *, classes: Sequence[str], limit: int
) -> list[Entry]:
    """The wanted pairs of a tree: classes in natural order, pairs in natural order.

    Args:
        name: The layout.
        tree: Where the files are.
        classes: Class names to keep; none keeps all.
        limit: At most so many a class; 0 keeps all.

    Raises:
        PipelineError: If nothing pairs, or a wanted class has nothing.
    """
    layout = load(name)
    found = layout.find(tree)
    if not any(entry.is_complete for entry in found):
        raise PipelineError(_nothing_pairs(name, tree, found))
    by_class: dict[str, list[Entry]] = {}
    for entry in found:
        by_class.setdefault(entry.class_name, []).append(entry)
    known = sorted(by_class, key=natural_key)
    for wanted in classes:
        if wanted not in by_class:
            raise PipelineError(
                f"ingest.classes names {wanted!r}, of which {tree.label} holds no "
                f"image; it holds {', '.join(map(repr, known))}"
            )
    kept = [class_name for class_name in known if not classes or class_name in classes]
    return [
        entry
        for class_name in kept
        for entry in sorted(by_class[class_name], key=_order)[: limit or None]
    ]


def images(names: Iterable[str]) -> list[PurePosixPath]:
    """The names that look like images; what file managers leave behind does not."""
    return [
        path
        for path in map(PurePosixPath, names)
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not JUNK_FOLDERS.intersection(path.parts)
    ]


def match(
    image_paths: Iterable[tuple[str, PurePosixPath]],
    mask_paths: Iterable[tuple[str, PurePosixPath]],
) -> list[tuple[str, str, str]]:
    """Pairs two lists of (key, file) by key.

    Keys are compared in one Unicode form, since macOS writes another than the
    rest. A key that occurs twice on one side gives two results with that key, of
    which one lacks its other side: nobody can know which of the two was meant.

    Returns:
        (key, image path, mask path), a missing side as "".
    """
    sides: dict[str, tuple[list[str], list[str]]] = {}
    for index, side in enumerate((image_paths, mask_paths)):
        for key, path in side:
            key = unicodedata.normalize("NFC", key)
            sides.setdefault(key, ([], []))[index].append(str(path))
    return [
        (key, image, mask)
        for key, (left, right) in sides.items()
        for image, mask in zip_longest(sorted(left), sorted(right), fillvalue="")
    ]


def told_by(folder: str, stem: str) -> str:
    """A file's stem, after its folder's name unless it starts with that."""
    return stem if not folder or stem.startswith(folder) else f"{folder}-{stem}"


def _order(entry: Entry) -> tuple[tuple[list[tuple[int, int, str]], str], str, str]:
    return natural_key(entry.pair_id), entry.image_path, entry.mask_path


def _nothing_pairs(name: str, tree: Tree, found: list[Entry]) -> str:
    """Why nothing pairs: what was expected, what is there, what to try."""
    there = f"it holds {len(tree.names)} files"
    if tree.names:
        example = min(tree.names, key=natural_key)
        there += f", named like {example[:120]!r}"
    if found:
        there += f", and {len(found)} images or masks without their other half"
    return (
        f"{tree.label} holds no pair in the layout {name} ({load(name).TREE}); "
        f"{there}; {_advice(name, tree)}"
    )


def _advice(name: str, tree: Tree) -> str:
    """What to set instead: another layout that pairs something, or a zip inside."""
    for other in names_in(Path(__file__).parent):
        if other == name:
            continue
        try:
            pairs = sum(entry.is_complete for entry in load(other).find(tree))
        except PipelineError:
            continue
        if pairs:
            return f"set ingest.layout to {other}, by which {pairs} pairs are found"
    zips = [path for path in tree.names if path.lower().endswith(".zip")]
    if zips:
        return f"set ingest.folder to the zip itself ({zips[0]!r})"
    return "correct ingest.layout, or name another folder or data set"

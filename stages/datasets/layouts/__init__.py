"""How a data set lies on disk: one file a layout, found by name.

A layout module has

- `ABOUT`: an `About`, the facts that end up in the model card, and the targets: what
  its masks show, one kind of mask each;
- `TREE`: one line that shows the expected names;
- `find(tree, target)`: the pairs, in any order, from the names alone. Its small text
  files (a table of pairs) may be read; images never are.

To add a data set is to add one such file.
"""

import importlib
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Protocol, cast

from stages.core.errors import PipelineError
from stages.core.imaging import IMAGE_SUFFIXES
from stages.core.params import names_in
from stages.datasets.pairs import natural_key

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
class Target:
    """What one kind of mask shows."""

    mask_definition: str  # data sets whose masks mean different things never mix
    # Whether an image may show none of it, so that an empty mask is no mistake.
    may_be_absent: bool = False


@dataclass(frozen=True)
class About:
    """The facts of the data set that a layout is known for.

    Licence and citation are as the data set's page states them; the source `kaggle`
    reports the licence that Kaggle gives at the download.
    """

    dataset: str
    page: str
    licence: str
    citation: str
    targets: Mapping[str, Target]  # by name, the one taken by default first

    @property
    def mask_definition(self) -> str:
        """What the masks of the first target show."""
        return next(iter(self.targets.values())).mask_definition

    def facts(self, target: str = "") -> dict[str, str]:
        """As `data/ingested.json` holds them."""
        target = target or next(iter(self.targets))
        return {
            "dataset": self.dataset,
            "page": self.page,
            "licence": self.licence,
            "citation": self.citation,
            "target": target,
            "mask_definition": self.targets[target].mask_definition,
        }


@dataclass(frozen=True, slots=True)
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

    def find(self, tree: Tree, target: str = "", /) -> list[Entry]:
        """All pairs and orphans of a tree, in any order; "" is the first target."""


def load(name: str) -> Layout:
    """The layout module of that name."""
    return cast(Layout, importlib.import_module(f"{__name__}.{name}"))


def target_of(name: str, target: str) -> Target:
    """What the wanted masks of a layout show; "" wants its first kind.

    Raises:
        PipelineError: If the layout has no masks of that kind.
    """
    targets = load(name).ABOUT.targets
    if target and target not in targets:
        raise PipelineError(
            f"ingest.target {target!r} is not what the masks of the layout {name} "
            f"show; set it to {' or '.join(targets)}, or to '' for its first"
        )
    return targets[target or next(iter(targets))]


def entries(
    name: str, tree: Tree, *, target: str = "", classes: Sequence[str], limit: int
) -> list[Entry]:
    """The wanted pairs of a tree: classes in natural order, pairs in natural order.

    Args:
        name: The layout.
        tree: Where the files are.
        target: Which of the layout's kinds of masks; "" is its first.
        classes: Class names to keep; none keeps all.
        limit: At most so many a class; 0 keeps all.

    Raises:
        PipelineError: If nothing pairs, or a wanted class or target has nothing.
    """
    target_of(name, target)
    found = load(name).find(tree, target)
    if not any(entry.is_complete for entry in found):
        raise PipelineError(_nothing_pairs(name, target, tree, found))
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


def images(
    names: Iterable[str], *, also: Collection[str] = ()
) -> Iterator[PurePosixPath]:
    """The names that look like images; what file managers leave behind does not.

    One at a time: a path takes several times the memory of its name.

    Args:
        names: Of all files.
        also: Suffixes in lower case that are taken besides `IMAGE_SUFFIXES`.
    """
    for path in map(PurePosixPath, names):
        if (
            (path.suffix.lower() in IMAGE_SUFFIXES or path.suffix.lower() in also)
            and not path.name.startswith(".")
            and not JUNK_FOLDERS.intersection(path.parts)
        ):
            yield path


def match(
    image_paths: Iterable[tuple[str, str]],
    mask_paths: Iterable[tuple[str, str]],
) -> list[tuple[str, str, str]]:
    """Pairs two lists of (key, file's name) by key.

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
            sides.setdefault(key, ([], []))[index].append(path)
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


def _nothing_pairs(name: str, target: str, tree: Tree, found: list[Entry]) -> str:
    """Why nothing pairs: what was expected, what is there, what to try."""
    there = f"it holds {len(tree.names)} files"
    if tree.names:
        example = min(tree.names, key=natural_key)
        there += f", named like {example[:120]!r}"
    if found:
        there += f", and {len(found)} images or masks without their other half"
    masks = f" with masks of {target}" if target else ""
    return (
        f"{tree.label} holds no pair in the layout {name}{masks} ({load(name).TREE}); "
        f"{there}; {_advice(name, target, tree)}"
    )


def _advice(name: str, target: str, tree: Tree) -> str:
    """What to set instead: what does pair something, or a zip inside."""
    for other in names_in(Path(__file__).parent):
        for kind in load(other).ABOUT.targets:
            if (other, kind) == (name, target):
                continue
            try:
                pairs = sum(entry.is_complete for entry in load(other).find(tree, kind))
            except PipelineError:
                continue
            if pairs:
                setting = f"layout to {other}" if other != name else f"target to {kind}"
                return f"set ingest.{setting}, by which {pairs} pairs are found"
    zips = [path for path in tree.names if path.lower().endswith(".zip")]
    if zips:
        return f"set ingest.folder to the zip itself ({zips[0]!r})"
    return "correct ingest.layout, or name another folder or data set"

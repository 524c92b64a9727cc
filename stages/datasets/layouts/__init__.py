"""Arrangements of data sets on disk: one module per layout, found by its name.

A layout module has

- `ABOUT`: an `About`, with the facts for the model card and the targets;
- `TREE`: one line that shows the expected names;
- `find(tree, target)`: the pairs, in any order, from the names alone. It may read small
  text files (a table of pairs) but no images.

To add a data set, add one such file.
"""

import contextlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from stages.core import plugins
from stages.core.errors import PipelineError
from stages.core.imaging import DICOM_SUFFIXES, IMAGE_SUFFIXES
from stages.core.params import IngestParams
from stages.datasets.masks import MaskDefinition
from stages.datasets.pairs import Pair, natural_key
from stages.datasets.tree import Tree, open_tree

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Facts:
    """The facts of a data set, as `data/ingested.json` holds them."""

    dataset: str
    page: str
    licence: str
    citation: str
    target: str
    mask_definition_id: str
    mask_definition: str
    layout: str | None = None
    folder: str | None = None  # its name, without the path on this machine
    version: int | str | None = None


@dataclass(frozen=True)
class About:
    """The facts of the data set that a layout is known for.

    Licence and citation are quoted from the data set's page.
    """

    dataset: str
    page: str
    licence: str
    citation: str
    targets: Mapping[str, MaskDefinition]  # by name; the first is the default
    # All of the data set; files of this layout with another are of other origin.
    classes: frozenset[str] = frozenset()

    def definition(self, target: str = "") -> MaskDefinition:
        """The meaning of the masks of a target; "" is the first.

        Raises:
            PipelineError: If there is no such target.
        """
        if target and target not in self.targets:
            raise PipelineError(
                f"ingest.target should be {' or '.join(self.targets)} for the data set "
                f"{self.dataset} (or '' for its first), found {target!r}"
            )
        return self.targets[target or next(iter(self.targets))]

    def facts(self, target: str = "") -> Facts:
        """The facts of the data set with the masks of a target; "" is the first."""
        definition = self.definition(target)
        return Facts(
            dataset=self.dataset,
            page=self.page,
            licence=self.licence,
            citation=self.citation,
            target=target or next(iter(self.targets)),
            mask_definition_id=definition.id,
            mask_definition=definition.text,
        )


class Layout(Protocol):
    """The contents of a layout module."""

    ABOUT: About
    TREE: str

    def find(self, tree: Tree, target: str, /) -> list[Pair]:
        """All pairs and orphans of a tree, in any order; "" is the first target."""


def names() -> list[str]:
    """All layouts."""
    return plugins.names(FOLDER)


def load(name: str) -> Layout:
    """The layout module of that name; `PipelineError` if there is none."""
    plugins.check("layout", name, names())
    return cast(Layout, plugins.load(__name__, name))


def detect(folder: Path, params: IngestParams) -> str:
    """The layout that finds most pairs in a directory or zip; on a tie that in params.

    Raises:
        PipelineError: If no layout finds a pair, or several find as many.
    """
    tree = open_tree(folder, params)
    counts: Counter[str] = Counter()
    for name, _, count in _counts(tree):
        counts[name] = max(counts[name], count)
    most = max(counts.values(), default=0)
    # `pairs` matches most trees; a more specific layout wins.
    best = [name for name, count in counts.items() if count == most and most]
    best = [name for name in best if name != "pairs"] or best
    if params.layout in best:
        return params.layout
    if len(best) == 1:
        return best[0]
    fits = (
        f"fits {' and '.join(best)} alike"
        if best
        else f"holds {len(tree.names)} files but no image with its mask in any layout"
    )
    raise PipelineError(f"{folder} {fits}; name its layout: {', '.join(names())}")


def _counts(tree: Tree) -> Iterator[tuple[str, str, int]]:
    """Yields each layout, each of its targets and the number of pairs it finds."""
    for name in names():
        layout = load(name)
        for target in layout.ABOUT.targets:
            with contextlib.suppress(PipelineError):
                found = layout.find(tree, target)
                yield name, target, sum(pair.is_complete for pair in found)


def find_pairs(
    name: str, tree: Tree, *, target: str = "", classes: Sequence[str], limit: int
) -> list[Pair]:
    """The selected pairs of a tree, without bytes: classes, then ids in natural order.

    [] keeps all classes, and 0 all pairs per class; the target "" is the first.

    Raises:
        PipelineError: If nothing pairs, or the layout lacks the target or the tree a
            class.
    """
    layout = load(name)
    layout.ABOUT.definition(target)
    found = layout.find(tree, target)
    if not any(pair.is_complete for pair in found):
        raise PipelineError(_nothing_pairs(name, target, tree, found))
    by_class: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in found:
        by_class[pair.class_name].append(pair)
    known = sorted(by_class, key=natural_key)
    for wanted in classes:
        if wanted not in by_class:
            raise PipelineError(
                f"ingest.classes names {wanted!r}, of which {tree.label} holds no "
                f"image; it holds {', '.join(map(repr, known))}"
            )
    kept = [class_name for class_name in known if not classes or class_name in classes]
    return [
        pair
        for class_name in kept
        for pair in sorted(by_class[class_name], key=_order)[: limit or None]
    ]


def images(names: Iterable[str]) -> Iterator[PurePosixPath]:
    """The names that end like images, one at a time: paths take much memory.

    DICOM files often have no suffix, or are named by a number such as `1.2.840.7`.
    """
    for path in map(PurePosixPath, names):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES | DICOM_SUFFIXES or _has_no_suffix(path):
            yield path


def without_suffix(path: PurePosixPath) -> PurePosixPath:
    """A path without the suffix of an image; the end of a number is none."""
    return path if _has_no_suffix(path) else path.with_suffix("")


def _has_no_suffix(path: PurePosixPath) -> bool:
    return not path.suffix or path.suffix[1:].isdecimal()


@dataclass(frozen=True, slots=True)
class File:
    """An image or mask; files of one folder and key belong together."""

    path: PurePosixPath
    folder: PurePosixPath
    key: str
    is_mask: bool


def match(
    files: Iterable[File], describe: Callable[[PurePosixPath, str], dict[str, Any]]
) -> list[Pair]:
    """Pairs images with masks by folder and key.

    `describe` maps both to the pair's fields, paths aside. Keys are compared in
    Unicode's form NFC, because macOS writes names in another. A key that occurs twice
    on one side gives two pairs of which one lacks the other side, because the names do
    not decide which of the two belongs to it.
    """
    sides: defaultdict[tuple[PurePosixPath, str], tuple[list[str], list[str]]]
    sides = defaultdict(lambda: ([], []))
    for file in files:
        key = unicodedata.normalize("NFC", file.key)
        sides[file.folder, key][file.is_mask].append(str(file.path))
    return [
        Pair(**describe(folder, key), image_path=image, mask_path=mask)
        for (folder, key), paths in sides.items()
        for image, mask in zip_longest(*map(sorted, paths), fillvalue="")
    ]


def id_in(folder: str, stem: str) -> str:
    """A file's stem, with the folder's name in front unless it starts with that."""
    return stem if not folder or stem.startswith(folder) else f"{folder}-{stem}"


def _order(pair: Pair) -> tuple[tuple[list[tuple[int, int, str]], str], str, str]:
    return natural_key(pair.pair_id), pair.image_path, pair.mask_path


def _nothing_pairs(name: str, target: str, tree: Tree, found: list[Pair]) -> str:
    """The error if nothing pairs: the expected names, the found names, and advice."""
    there = f"it holds {len(tree.names)} files"
    if tree.names:
        example = min(tree.names, key=natural_key)
        there += f", named like {example[:120]!r}"
    if found:
        there += f", and {len(found)} images or masks without a partner"
    masks = f" with masks of {target}" if target else ""
    return (
        f"{tree.label} holds no pair in the layout {name}{masks} ({load(name).TREE}); "
        f"{there}; {_advice(name, target, tree)}"
    )


def _advice(name: str, target: str, tree: Tree) -> str:
    """A layout or target that does pair something, or a zip inside the folder."""
    for other, kind, pairs in _counts(tree):
        if pairs and (other, kind) != (name, target):
            setting = f"layout to {other}" if other != name else f"target to {kind}"
            return f"set ingest.{setting}, which finds {pairs} pairs"
    zips = [path for path in tree.names if path.lower().endswith(".zip")]
    if zips:
        return f"set ingest.folder to the zip itself ({zips[0]!r})"
    return "correct ingest.layout, or name another folder or data set"

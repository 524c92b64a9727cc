"""Your own pairs: `images` and `masks` side by side, or a table that lists them.

Side by side: `images/NAME` has its mask in `masks/NAME`, subfolders included; the
folder that holds both is the class. A table is `pairs.csv` with the columns `image`
and `mask` (paths relative to the table) and optionally `group` (patient) and
`class_name`; it replaces the folders.

Images are PNG, JPEG, TIFF, BMP or DICOM; masks all of these but DICOM. Only the grey
values of a DICOM file are stored (`stages/datasets/dicom.py`): no name, date or number
of a patient. Files of one patient still stay on one side of the split. Names of files
and folders are stored, so they should not identify anybody.
"""

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath
from unicodedata import normalize

from stages.core.errors import PipelineError
from stages.datasets.layouts import (
    About,
    File,
    id_in,
    images,
    match,
    without_suffix,
)
from stages.datasets.masks import MaskDefinition
from stages.datasets.pairs import Pair
from stages.datasets.tree import Tree, UnreadableError

ABOUT = About(
    dataset="own pairs",
    page="",
    licence="not stated; ask the owner of the images",
    citation="",
    targets={
        "organ": MaskDefinition(
            "organ-as-drawn", "as the masks were drawn: what is not 0 is the organ"
        ),
        "lesion": MaskDefinition(
            "lesion-as-drawn",
            "as the masks were drawn: what is not 0 is the lesion; none where all is 0",
            may_be_empty=True,
        ),
    },
)
TREE = "images/NAME.png with masks/NAME.png, or pairs.csv with the columns image,mask"
TABLE = "pairs.csv"
REQUIRED = {"image", "mask"}
COLUMNS = {*REQUIRED, "group", "class_name"}
MAX_ROWS = 400_000  # of a table; as many files as ingest.max_zip_members allows
CLASS_NAME = "all"  # if the data name no class


def find(tree: Tree, _target: str, /) -> list[Pair]:
    """Reads the topmost table; without one, pairs `images/NAME` with `masks/NAME`."""
    tables = [path for path in map(PurePosixPath, tree.names) if path.name == TABLE]
    if tables:
        return _from_table(tree, min(tables, key=lambda path: (len(path.parts), path)))
    return match(
        _in_folders(tree),
        lambda folder, key: {
            "pair_id": id_in(folder.name, key),
            "class_name": folder.name or CLASS_NAME,
        },
    )


def _in_folders(tree: Tree) -> Iterator[File]:
    """The files below a folder `images` or `masks`, keyed by their path in it."""
    for path in images(tree.names):
        for index, part in enumerate(path.parts[:-1]):
            kind = part.lower()
            if kind in ("images", "masks"):
                key = without_suffix(PurePosixPath(*path.parts[index + 1 :]))
                folder = PurePosixPath(*path.parts[:index])
                yield File(path, folder, str(key), kind == "masks")
                break  # the topmost one counts: `images/masks/1.png` is an image


def _from_table(tree: Tree, table: PurePosixPath) -> list[Pair]:
    where = f"{str(table)!r} in {tree.label}"
    names = {normalize("NFC", name): name for name in tree.names}
    pairs = []
    there = set(names.values())
    for number, row in enumerate(_rows(tree, table, where), start=2):
        image, mask = row["image"].strip(), row["mask"].strip()
        if not image and not mask:
            raise PipelineError(
                f"{where} names neither an image nor a mask in row {number}; fill it in"
            )
        # A path without a file stays: `validate` rejects its pair with that reason.
        image_path, mask_path = (
            names.get(path, path) for path in (_path(table, image), _path(table, mask))
        )
        own = PurePosixPath(image_path or mask_path)
        pairs.append(
            Pair(
                pair_id=str(without_suffix(own)),
                class_name=row.get("class_name", "").strip() or CLASS_NAME,
                group=row.get("group", "").strip(),
                image_path=image_path,
                mask_path=mask_path,
            )
        )
    if not any(pair.image_path in there for pair in pairs):
        raise PipelineError(
            f"{where} names no image that exists, such as "
            f"{pairs[0].image_path!r}; paths are relative to the table"
        )
    return pairs


def _path(table: PurePosixPath, cell: str) -> str:
    """A cell as a path in the tree; an empty cell is a missing side."""
    path = str(table.parent / cell.replace("\\", "/")) if cell else ""
    return normalize("NFC", path)


def _rows(tree: Tree, table: PurePosixPath, where: str) -> list[dict[str, str]]:
    """The rows of the table, each with every column."""
    try:
        text = tree.read(str(table)).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = list(islice(reader, MAX_ROWS + 1))
    except UnreadableError as reason:
        raise PipelineError(f"{where} {reason}; make it readable") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise PipelineError(
            f"{where} should be a table in UTF-8, separated by commas ({error}); "
            "save it again"
        ) from None
    if len(lines) > MAX_ROWS:
        raise PipelineError(
            f"{where} has more than {MAX_ROWS} rows; split the data set in several"
        )
    first, *rest = [line for line in lines if line] or [[]]
    if not (REQUIRED <= set(first) <= COLUMNS and rest):
        raise PipelineError(
            f"{where} should have a first line with image and mask (and optionally "
            f"group and class_name) and rows below, but has {len(rest)} rows and the "
            f"columns {', '.join(map(repr, first)) or 'none'}; correct it"
        )
    for number, row in enumerate(rest, start=2):
        if len(row) != len(first):
            raise PipelineError(
                f"{where} has {len(row)} cells in row {number} but {len(first)} "
                "columns; put quotes around a name that holds a comma"
            )
    return [dict(zip(first, row, strict=True)) for row in rest]

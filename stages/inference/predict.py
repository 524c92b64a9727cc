"""Predicts masks for files, folders and globs: `lungfield predict`.

OUT gets `masks/NAME.png` (white is foreground, the image's own size),
`overlays/NAME.png` (the outline over the image) and `predictions.csv` (one row per
image). An image whose bytes, model and threshold are those of an earlier run, and whose
pictures are still there, is skipped. TensorFlow is not needed.
"""

import csv
import glob
import hashlib
import io
import itertools
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stages.core import files, imaging
from stages.core.errors import PipelineError, visible
from stages.inference.segmenter import (
    MAX_PIXELS,
    Prepared,
    Segmentation,
    Segmenter,
    read_file,
)
from stages.scoring.overlays import overlay

logger = logging.getLogger(__name__)

SUFFIXES = imaging.IMAGE_SUFFIXES | imaging.DICOM_SUFFIXES


@dataclass(frozen=True)
class Row:
    """A row of `predictions.csv`, as text; empty cells for an unreadable image."""

    image: str
    height: str = ""
    width: str = ""
    lung_area_fraction: str = ""
    components: str = ""
    mean_confidence: str = ""
    warning: str = ""
    problem: str = ""
    sha256: str = ""
    model_sha256: str = ""
    threshold: str = ""
    lung_area_cm2: str = ""  # of DICOM files that state the spacing of their pixels


COLUMNS = [field.name for field in fields(Row)]


def predict(
    model: Path,
    images: list[str],
    out: Path,
    *,
    threshold: float | None = None,
    batch_size: int = 16,
    max_pixels: int = MAX_PIXELS,
    force: bool = False,
    overlays: bool = True,
) -> list[Row]:
    """Predicts all images that have no result yet, and prints a summary.

    Args:
        model: An exported ONNX file.
        images: Files, folders and globs, see `sources`.
        out: Folder to write to; other files in it are kept.
        threshold: As for `Segmenter`.
        batch_size: Number of images in memory at a time.
        max_pixels: As for `Segmenter`.
        force: Whether to predict again those that have a result.
        overlays: Whether to write pictures with the outline.

    Returns:
        The rows of these images, as in `predictions.csv`.

    Raises:
        PipelineError: If the model cannot be used, an argument names no image, or
            `predictions.csv` was not written by this function; and at the end, if an
            image could not be read.
    """
    segment = Segmenter(model, threshold=threshold, max_pixels=max_pixels)
    marks = {
        "model_sha256": files.sha256(model),
        "threshold": f"{segment.threshold:g}",
    }
    found = sources(images, out)
    table = _Table(out, overlays=overlays)
    skipped = 0
    waiting: list[tuple[str, str, Prepared]] = []  # name, hash, image

    def flush() -> None:
        if waiting:
            results = segment.batch([prepared for *_, prepared in waiting])
            for (name, sha256, _), one in zip(waiting, results, strict=True):
                _write_pictures(out, name, one, overlays=overlays)
                table.add(_row(name, one, marks | {"sha256": sha256}))
        waiting.clear()
        table.write()

    for path, name in tqdm(found.items(), "predict", unit="image", disable=None):
        try:
            encoded = read_file(path)
            sha256 = hashlib.sha256(encoded).hexdigest()
            if not force and table.has(name, marks | {"sha256": sha256}):
                skipped += 1
                continue
            waiting.append((name, sha256, segment.prepare(encoded)))
        except (imaging.UnreadableImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            table.add(Row(_cell(name), problem=visible(str(reason)), **marks))
            files.remove(_picture(out, "masks", name))
            tqdm.write(visible(f"skipped {path}: {reason}"), file=sys.stderr)
        if len(waiting) == batch_size:
            flush()
    flush()
    if skipped:
        logger.info("%d of %d images had a result already", skipped, len(found))
    rows = [table.rows[_cell(name)] for name in found.values()]
    bad = [row for row in rows if row.problem]
    print(
        f"{len(rows) - len(bad)} of {len(rows)} images have a mask in {out}; "
        f"{sum(bool(row.warning) for row in rows)} with a warning in predictions.csv"
    )
    if bad:
        raise PipelineError(
            f"{len(bad)} of {len(rows)} images could not be read, the first is "
            f"{bad[0].image} ({bad[0].problem}); repair or remove them and run the "
            "same command again"
        )
    return rows


def sources(wanted: Iterable[str], out: Path) -> dict[Path, str]:
    """Finds the images that files, folders and globs name, each with its own name.

    Names are relative to the given folder, or to the common folder of all arguments;
    the suffix is kept where two images would share a name. Hidden files and folders,
    and the results in `out`, are skipped.

    Raises:
        PipelineError: If an argument names no image.
    """
    found: dict[Path, None] = {}
    roots = []
    for argument in wanted:
        path = Path(argument)
        root, matches = path.parent, [path]
        if path.is_dir():
            root, matches = path, sorted(path.rglob("*"))
        elif not path.exists():
            parts = itertools.takewhile(lambda p: not glob.has_magic(p), path.parts)
            root, matches = Path(*parts), []
            if glob.has_magic(argument):
                matches = sorted(root.glob(path.relative_to(root).as_posix()))
        if path not in matches:
            matches = [
                p
                for p in matches
                if _is_image(p)
                and not any(n.startswith(".") for n in p.relative_to(root).parts)
                and not p.absolute().is_relative_to(out.absolute())
            ]
        if not matches:
            raise PipelineError(
                f"{argument!r} should name an image, a folder of images or a glob, "
                f"but no image is there; give {', '.join(sorted(SUFFIXES))} files"
            )
        roots.append(root.absolute())
        found |= dict.fromkeys(p.absolute() for p in matches)
    top = Path(os.path.commonpath(roots))
    names = {path: path.relative_to(top) for path in found}
    stems = {path: name.with_suffix("") for path, name in names.items()}
    uses = Counter([*names.values(), *stems.values()])
    return {
        path: _text(name if uses[stems[path]] > 1 else stems[path])
        for path, name in names.items()
    }


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return path.is_file()
    if not path.is_file():
        return False
    with path.open("rb") as file:  # DICOM often has no suffix
        return imaging.format_of(file.read(132)) == "dicom"


class _Table:
    """`predictions.csv`: rows of earlier runs are kept until they are replaced."""

    def __init__(self, out: Path, *, overlays: bool) -> None:
        self._path = out / "predictions.csv"
        self._kinds = ("masks", "overlays") if overlays else ("masks",)
        self.rows: dict[str, Row] = {}
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except UnicodeDecodeError:
            text = ""
        reader = csv.DictReader(io.StringIO(text))
        if reader.fieldnames != COLUMNS:
            raise PipelineError(
                f"{self._path} should be a table that this command wrote but is not; "
                "move it away, or choose another folder with -o"
            )
        self.rows = {row["image"]: Row(**row) for row in reader}

    def add(self, row: Row) -> None:
        self.rows[row.image] = row

    def has(self, name: str, marks: dict[str, str]) -> bool:
        """Whether an image has a row with these values, and its pictures."""
        row = self.rows.get(_cell(name))
        return (
            row is not None
            and not row.problem
            and marks.items() <= asdict(row).items()
            and all(_picture(self._path.parent, k, name).is_file() for k in self._kinds)
        )

    def write(self) -> None:
        """Replaces the file, rows in order of name."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(self.rows[name]) for name in sorted(self.rows))
        files.write_text(self._path, text.getvalue())


def _row(name: str, found: Segmentation, marks: dict[str, str]) -> Row:
    cells = {
        key: f"{value:.6f}" if isinstance(value, float) else str(value)
        for key, value in found.measures().items()
        if value is not None
    }
    cells["warning"] = "; ".join(found.warnings)
    del cells["warnings"]
    return Row(image=_cell(name), **cells, **marks)


def _write_pictures(
    out: Path, name: str, found: Segmentation, *, overlays: bool
) -> None:
    if overlays:
        caption = f"{name}  {found.area_fraction:.1%} lung"
        if found.warnings:
            caption += "  unusual image: see predictions.csv"
        picture = overlay(
            found.image, mask_true=None, mask_pred=found.mask, caption=caption
        )
        _write_png(_picture(out, "overlays", name), picture)
    _write_png(_picture(out, "masks", name), found.mask.astype(np.uint8) * 255)


def _picture(out: Path, kind: str, name: str) -> Path:
    return out / kind / f"{name}.png"


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    with files.replacing(path) as partial:
        partial.write_bytes(imaging.encode_png(pixels))


def _text(name: Path) -> str:
    """A name as UTF-8 text, whatever bytes the file system has."""
    return os.fsencode(name.as_posix()).decode("utf-8", "backslashreplace")


def _cell(name: str) -> str:
    """A name without control characters, which no spreadsheet takes for a formula."""
    shown = visible(name).replace("\n", "\\n").replace("\t", "\\t")
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown

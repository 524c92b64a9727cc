"""Finds lungs in images: `python -m stages.inference.predict MODEL IMAGE... -o OUT`.

MODEL is the exported `unet.onnx`; IMAGE is a file, a folder or a quoted glob. OUT gets

- `masks/NAME.png`: white is lung, at the image's own size;
- `overlays/NAME.png`: the outline over the image, to look at;
- `predictions.csv`: a row an image, with a warning where it is unlike a radiograph
  that the model can know.

An image whose bytes, model and threshold are those of an earlier run, and whose mask is
still there, is skipped; --force does it again. Files that are no images are named, with
the reason, and make the exit code 1. Needs neither TensorFlow nor a checkout.
"""

import argparse
import csv
import hashlib
import io
import itertools
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stages.core import arguments, files, imaging
from stages.core.errors import PipelineError, run
from stages.core.imaging import Float, Grey, Mask
from stages.datasets import headers
from stages.inference import reference_ranges, segmenter
from stages.inference.segmenter import Exported
from stages.scoring.overlays import overlay
from stages.scoring.postprocess import mask_of

logger = logging.getLogger(__name__)

COLUMNS = (
    "image",
    "height",
    "width",
    "lung_area_fraction",
    "components",
    "mean_confidence",
    "warning",
    "problem",
    "sha256",
    "model_sha256",
    "threshold",
)
GLOB = set("*?[")
# An image that declares more is left undecoded: a few kilobytes can declare a billion.
MAX_PIXELS = 4096 * 4096
MAX_BYTES = 2**28  # of a file: what so many pixels take unpacked, and room to spare

Row = dict[str, str]


@dataclass(frozen=True)
class Source:
    """An image to look at, and what its results are called."""

    path: Path
    name: str  # relative, POSIX, without a suffix


@dataclass(frozen=True)
class Prepared:
    """A decoded image, what is odd about it, and what the network takes of it."""

    image: Grey  # (H, W) or (H, W, 3)
    pixels: Grey  # (S, S, C)
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """What a model found in an image."""

    mask: Mask  # (H, W), the image's own size
    area_fraction: float
    components: int
    mean_confidence: float  # of the pixels in the mask; NaN if there are none
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Waiting:
    """An image on its way into a batch."""

    source: Source
    prepared: Prepared
    sha256: str


def sources(wanted: Iterable[str], out: Path) -> list[Source]:
    """The images that the command line names, each once.

    Names are relative to the folder given, or to what all arguments have in common;
    a suffix stays where two images would else share a name.

    Args:
        wanted: Files, folders and globs.
        out: Where results go: what is in it is no image to predict.

    Raises:
        PipelineError: If an argument names nothing, or no image.
    """
    found: dict[Path, None] = {}
    roots = []
    for argument in wanted:
        path = Path(argument)
        if path.is_dir():
            below = [
                p
                for p in sorted(path.rglob("*"))
                if _is_image(p.relative_to(path), p)
                and not p.absolute().is_relative_to(out.absolute())
            ]
            roots.append(path.absolute())
        elif path.exists():
            below = [path]
            roots.append(path.absolute().parent)
        else:
            fixed = list(itertools.takewhile(lambda p: not GLOB & set(p), path.parts))
            root = Path(*fixed)
            pattern = "/".join(path.parts[len(fixed) :])
            matches = sorted(root.glob(pattern)) if pattern else []
            below = [p for p in matches if _is_image(Path(p.name), p)]
            roots.append(root.absolute())
        if not below:
            raise PipelineError(
                f"{argument!r} should name an image, a folder of images or a glob, "
                "but no image is there; give "
                f"{', '.join(sorted(imaging.IMAGE_SUFFIXES))} files"
            )
        found |= dict.fromkeys(p.absolute() for p in below)
    top = Path(os.path.commonpath(roots))
    names = {path: path.relative_to(top).as_posix() for path in found}
    stems: dict[str, list[Path]] = {}
    for path, name in names.items():
        stems.setdefault(_stem(name), []).append(path)
    taken = set(names.values()) | {stem for stem in stems if len(stems[stem]) > 1}
    return [
        Source(path, name if _stem(name) in taken else _stem(name))
        for path, name in names.items()
    ]


def _stem(name: str) -> str:
    return name.removesuffix(Path(name).suffix)


def _is_image(shown: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in shown.parts)
    return (
        not hidden and path.suffix.lower() in imaging.IMAGE_SUFFIXES and path.is_file()
    )


def predict(
    model_path: Path,
    images: list[Source],
    out: Path,
    *,
    threshold: float | None = None,
    batch_size: int = 16,
    max_pixels: int = MAX_PIXELS,
    force: bool = False,
    overlays: bool = True,
) -> list[Row]:
    """Predicts all images that have no result yet.

    Args:
        model_path: An exported ONNX file.
        images: What `sources` found.
        out: Folder to write to; what else is in it stays.
        threshold: A pixel at least this probable is lung; None takes the model's own.
        batch_size: Images in memory at a time.
        max_pixels: An image that declares more is a bad file.
        force: Predict those again that have a result.
        overlays: Whether to write pictures.

    Returns:
        The rows of this run's images, as `predictions.csv` holds them.

    Raises:
        PipelineError: If the model cannot be used.
    """
    model = segmenter.load(model_path)
    threshold = chosen_threshold(model, threshold)
    marks = {"model_sha256": files.sha256(model_path), "threshold": f"{threshold:g}"}
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    table = Table(out, overlays=overlays)
    skipped = 0
    batch: list[Waiting] = []

    def flush() -> None:
        if batch:
            for row in _predict_batch(model, batch, out, threshold, overlays=overlays):
                table.rows[row["image"]] = row | marks
        batch.clear()
        table.write()

    for source in tqdm(images, desc="predict", unit="image", disable=None):
        name = _text(source.name)
        try:
            encoded = _read(source.path)
            sha256 = hashlib.sha256(encoded).hexdigest()
            if not force and table.has(name, marks | {"sha256": sha256}):
                skipped += 1
                continue
            batch.append(Waiting(source, prepare(encoded, model, max_pixels), sha256))
        except (imaging.UnreadableImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            row = dict.fromkeys(COLUMNS, "")
            table.rows[name] = row | {"image": name, "problem": str(reason)} | marks
            files.remove(_mask_path(out, name))
            tqdm.write(f"skipped {source.path}: {reason}", file=sys.stderr)
        if len(batch) == batch_size:
            flush()
    flush()
    if skipped:
        logger.info("%d of %d images had a result already", skipped, len(images))
    return [table.rows[_text(source.name)] for source in images]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        encoded = file.read(MAX_BYTES + 1)
    if len(encoded) > MAX_BYTES:
        raise imaging.UnreadableImageError(f"it has more than {MAX_BYTES} bytes")
    return encoded


class Table:
    """`predictions.csv`: what is in it survives, row by row, until it is replaced."""

    def __init__(self, out: Path, *, overlays: bool) -> None:
        self._path = out / "predictions.csv"
        self._overlays = overlays
        self._out = out
        self.rows: dict[str, Row] = {}
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except UnicodeDecodeError:
            text = ""
        reader = csv.DictReader(io.StringIO(text))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise PipelineError(
                f"{self._path} should be a table that this tool wrote but is not; "
                "move it away, or choose another folder with -o"
            )
        self.rows = {row["image"]: row for row in reader}

    def has(self, name: str, marks: Row) -> bool:
        """Whether an image has a row with these values, and its pictures."""
        row = self.rows.get(name, {})
        same = all(row.get(key) == value for key, value in marks.items())
        pictures = [_mask_path(self._out, name)]
        pictures += [_overlay_path(self._out, name)] if self._overlays else []
        return same and not row["problem"] and all(p.is_file() for p in pictures)

    def write(self) -> None:
        """Replaces the file, rows in order of name."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[name] for name in sorted(self.rows))
        files.write_text(self._path, text.getvalue())


def chosen_threshold(model: Exported, wanted: float | None) -> float:
    """The threshold that is asked for, or else the one the model was judged at."""
    if wanted is not None:
        return wanted
    return model.threshold if model.threshold is not None else 0.5


def prepare(encoded: bytes, model: Exported, max_pixels: int) -> Prepared:
    """Decodes an image file for a model.

    Args:
        encoded: The file.
        model: Which takes so many pixels and channels, and knows what is usual.
        max_pixels: An image that declares more is not decoded.

    Raises:
        UnreadableImageError: If it is no image that can be decoded.
    """
    headers.inspect(encoded, max_pixels, "--max-pixels")
    pixels = imaging.decode(encoded)
    image = imaging.to_channels(pixels, model.image_channels)
    usual = model.usual
    return Prepared(
        image,
        imaging.preprocess(image, model.image_size),
        tuple(reference_ranges.image(pixels, image, usual) if usual else ()),
    )


def found(
    prepared: Prepared, prob: Float, model: Exported, threshold: float
) -> Finding:
    """Measures what the network says of an image, at the image's own size.

    Args:
        prepared: The image.
        prob: The network's probabilities, (S, S).
        model: The network.
        threshold: A pixel at least this probable is in the mask.
    """
    height, width = prepared.image.shape[:2]
    prob = imaging.resize_prob(prob, height, width)
    keep = model.keep_components or 0
    mask = mask_of(prob, threshold=threshold, keep_components=keep)
    confidence = float(prob[mask].mean()) if mask.any() else math.nan
    usual = model.usual
    # Of all that it found: to cut an odd mask to size must not silence the warning.
    warnings = (
        reference_ranges.mask(prob >= threshold, confidence, usual) if usual else []
    )
    return Finding(
        mask,
        float(mask.mean()),
        imaging.num_components(mask),
        confidence,
        (*prepared.warnings, *warnings),
    )


def _predict_batch(
    model: Exported,
    batch: list[Waiting],
    out: Path,
    threshold: float,
    *,
    overlays: bool,
) -> Iterator[Row]:
    """Predicts a batch, writes its pictures, yields its rows."""
    inputs = imaging.to_input(np.stack([one.prepared.pixels for one in batch]))
    for one, prob in zip(batch, model.predict(inputs), strict=True):
        finding = found(one.prepared, prob[:, :, 0], model, threshold)
        height, width = finding.mask.shape
        confidence = finding.mean_confidence
        name = _text(one.source.name)
        row = {
            "image": name,
            "height": str(height),
            "width": str(width),
            "lung_area_fraction": f"{finding.area_fraction:.6f}",
            "components": str(finding.components),
            "mean_confidence": "" if math.isnan(confidence) else f"{confidence:.6f}",
            "warning": "; ".join(finding.warnings),
            "problem": "",
            "sha256": one.sha256,
        }
        if overlays:
            caption = f"{name}  {finding.area_fraction:.1%} lung"
            if finding.warnings:
                caption += "  UNLIKE, see table"
            picture = overlay(
                one.prepared.image,
                mask_true=None,
                mask_pred=finding.mask,
                caption=caption,
            )
            _write_png(_overlay_path(out, name), picture)
        _write_png(_mask_path(out, name), finding.mask.astype(np.uint8) * 255)
        yield row


def _mask_path(out: Path, name: str) -> Path:
    return out / "masks" / f"{name}.png"


def _overlay_path(out: Path, name: str) -> Path:
    return out / "overlays" / f"{name}.png"


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    with files.replacing(path) as partial:
        partial.write_bytes(imaging.encode_png(pixels))


def _text(name: str) -> str:
    """A name that a table can hold, whatever bytes the file system has."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.inference.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="an exported unet.onnx")
    parser.add_argument("images", nargs="+", help="file, folder or quoted glob")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--threshold", type=arguments.fraction, help="instead of the model's own"
    )
    parser.add_argument("--batch-size", type=arguments.positive, default=16)
    parser.add_argument(
        "--max-pixels",
        type=arguments.positive,
        default=MAX_PIXELS,
        help="an image that declares more is a bad file (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="predict again")
    parser.add_argument(
        "--no-overlays", action="store_true", help="masks and table only"
    )
    given = parser.parse_args()
    rows = predict(
        given.model,
        sources(given.images, given.out),
        given.out,
        threshold=given.threshold,
        batch_size=given.batch_size,
        max_pixels=given.max_pixels,
        force=given.force,
        overlays=not given.no_overlays,
    )
    bad = [row for row in rows if row["problem"]]
    odd = [row for row in rows if row["warning"]]
    print(
        f"{len(rows) - len(bad)} of {len(rows)} images have a mask in {given.out}; "
        f"{len(odd)} with a warning in predictions.csv"
    )
    if bad:
        raise PipelineError(
            f"{len(bad)} of {len(rows)} images could not be read, such as "
            f"{bad[0]['image']} ({bad[0]['problem']}); mend or remove them and run the "
            "same command again"
        )


if __name__ == "__main__":
    run(main)

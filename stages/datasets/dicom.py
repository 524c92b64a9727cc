"""Reads the picture of a DICOM file, and nothing that identifies the patient.

A DICOM file names its patient in dozens of tags. Everything that is stored, cached,
pushed and reviewed starts from the output of ingest, so the tags are dropped here. A
hash that lives only as long as the run still shows which files belong to one patient.

The picture is what a viewer shows: rescaled, windowed (VOI LUT, or the first valid
window), inverted if the file says so, 8 bits. Without a window its values are
stretched; padding is left out of that and becomes black. The spacing of its pixels is
kept beside it.
"""

import hashlib
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.imaging import MAX_SCANS, Grey, Spacing
from stages.datasets.tree import UnreadableError

MAX_PIXELS = 2**24  # a decoder allocates the declared Rows x Columns
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")  # decoded to RGB
REQUIRED = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
# Distances in the patient, if calibrated; at the detector; on a scanned film.
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
PLAUSIBLE_MM = (0.001, 10.0)
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # its inflation has no bound in pydicom


@dataclass(frozen=True)
class Film:
    """The contents of a DICOM file that are kept.

    Attributes:
        pixels: (H, W), or (H, W, 3) blue first, uint8.
        spacing: Of its pixels; None if the file states none that is plausible.
        patient: A key that all files of a patient share, "" if the file names none. It
            must not be stored: it can be guessed.
    """

    pixels: Grey
    spacing: Spacing | None
    patient: str


def read(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Film:
    """Decodes the picture of a DICOM file and drops everything else.

    Raises:
        UnreadableError: If it cannot be read, or declares more than `max_pixels`.
    """
    import pydicom
    from pydicom.pixels import pixel_array

    # Messages of pydicom may quote the patient.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    if _DEFLATED in encoded[:4096]:
        raise UnreadableError("is a deflated DICOM file; store it uncompressed")
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            file = pydicom.dcmread(io.BytesIO(encoded))
            _refuse(file, max_pixels)
            raw = pixel_array(file)
            samples = int(file.SamplesPerPixel)
            size = (file.Rows, file.Columns)
            # pydicom returns frames that the file holds but does not declare.
            if raw.shape != (size if samples == 1 else (*size, samples)):
                raise UnreadableError("is a DICOM file of more frames than it declares")
            return Film(_shown(raw, file), _spacing(file), _patient_key(file))
    except UnreadableError:
        raise
    except Exception as error:  # its parsers raise many types
        raise UnreadableError(
            f"is a DICOM file that cannot be decoded ({type(error).__name__})"
        ) from None


def _refuse(file: Any, max_pixels: int) -> None:
    """Raises `UnreadableError` for a file that is not one readable picture."""
    from pydicom.pixels import get_decoder

    def refuse(reason: str) -> None:
        raise UnreadableError(f"is a DICOM file {reason}")

    if "PixelData" not in file:
        refuse("without a picture")
    missing = [name for name in REQUIRED if file.get(name) in (None, "")]
    if "TransferSyntaxUID" not in file.file_meta:
        missing.append("TransferSyntaxUID")
    if missing:
        refuse(f"without {', '.join(missing)}")
    if int(file.get("NumberOfFrames") or 1) > 1:
        refuse(
            f"of {int(file.NumberOfFrames)} frames; store each frame that has a mask "
            "as a file of its own"
        )
    kind = str(file.PhotometricInterpretation)
    if kind not in (*GREY, *COLOUR):
        known = ", ".join((*GREY, *COLOUR))
        refuse(f"of kind {kind:.20}, of which only {known} are read; convert it")
    if file.Rows * file.Columns > max_pixels:
        refuse(
            f"that declares {file.Columns} x {file.Rows} pixels, more than "
            f"{max_pixels}, and was not decoded"
        )
    high_bit = file.get("HighBit", file.BitsStored - 1)
    if high_bit != file.BitsStored - 1:
        refuse(f"with HighBit {high_bit}, expected {file.BitsStored - 1}")
    shape = str(file.get("PresentationLUTShape") or "")
    expected = "INVERSE" if kind == "MONOCHROME1" else "IDENTITY"
    if shape not in ("", expected) or file.get("PresentationLUTSequence"):
        refuse(f"with a presentation LUT, expected none or {expected} for {kind}")
    if str(file.get("BurnedInAnnotation", "")).upper() == "YES":
        refuse(
            "that declares names burnt into its picture; black them out and set Burned "
            "In Annotation to NO"
        )
    syntax = file.file_meta.TransferSyntaxUID
    try:
        is_readable = get_decoder(syntax).is_available
    except NotImplementedError:
        is_readable = False
    if not is_readable:
        refuse(
            f"compressed by {syntax.name}, which no installed decoder reads; "
            "decompress it (`gdcmconv --raw` or `dcmdjpeg`), or install pylibjpeg"
        )
    if syntax.is_compressed and file.PixelData.count(b"\xff\xda") > MAX_SCANS:
        refuse("of too many scans, and was not decoded")


def _shown(raw: NDArray[Any], file: Any) -> Grey:
    """Values as a viewer shows them, 0 to 255; colours in OpenCV's order."""
    from pydicom.pixels import apply_modality_lut

    if raw.ndim == 3:
        return np.ascontiguousarray(_stretched(raw[:, :, ::-1], file))
    padding = _padding(raw, file)
    if padding.all():
        raise UnreadableError("is a DICOM file that shows nothing but padding")
    values = apply_modality_lut(raw, file)
    windowed = _windowed(values, file)
    if windowed is not None:
        picture = _scaled(*windowed)
    elif np.array_equal(values, raw):
        picture = _stretched(raw, file, padding)
    else:
        picture = _scaled(values, values[~padding].min(), values[~padding].max())
    if file.PhotometricInterpretation == "MONOCHROME1":
        picture = 255 - picture
    picture[padding] = 0
    return picture


def _padding(raw: NDArray[Any], file: Any) -> NDArray[np.bool_]:
    """Where stored values are padding: one value, or a range (PS3.3 C.7.5.1.1.2)."""
    value = file.get("PixelPaddingValue")
    if value is None:
        return np.zeros(raw.shape, bool)
    limit = file.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((raw >= low) & (raw <= high), bool)


def _windowed(
    values: NDArray[Any], file: Any
) -> tuple[NDArray[Any], float, float] | None:
    """Values after the file's VOI LUT or first valid window, and their full range."""
    from pydicom.pixels import apply_voi, apply_windowing

    if file.get("VOILUTSequence"):
        bits = file.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi(values, file), 0.0, 2.0**bits - 1
    centers = np.atleast_1d(file.get("WindowCenter") or [])
    widths = np.atleast_1d(file.get("WindowWidth") or [])
    is_linear = str(file.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    for index, (_, width) in enumerate(zip(centers, widths, strict=False)):
        if float(width) >= (1 if is_linear else 1e-9):
            ends = np.array([-1e15, 1e15])
            low, high = apply_windowing(ends, file, index)
            return apply_windowing(values, file, index), float(low), float(high)
    return None


def _stretched(
    raw: NDArray[Any], file: Any, padding: NDArray[np.bool_] | None = None
) -> Grey:
    """8 bits as they are; others from their least value to their greatest."""
    if raw.dtype == np.uint8 and file.BitsStored == 8:
        return np.array(raw)
    kept = raw if padding is None else raw[~padding]
    return _scaled(raw, float(kept.min()), float(kept.max()))


def _scaled(values: NDArray[Any], low: float, high: float) -> Grey:
    shares = (values.astype(np.float64) - low) / (high - low or 1.0)
    return np.round(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _spacing(file: Any) -> Spacing | None:
    """The first of `SPACINGS` that is two plausible numbers."""
    low, high = PLAUSIBLE_MM
    for name in SPACINGS:
        try:
            found = [float(value) for value in np.atleast_1d(file.get(name) or [])]
        except (TypeError, ValueError):  # empty, or text
            continue
        if len(found) == 2 and all(low <= value <= high for value in found):
            return found[0], found[1]
    return None


def _patient_key(file: Any) -> str:
    """A hash that all files of a patient share, or ""."""
    if not str(file.get("PatientID") or "").strip():
        return ""
    patient = f"{file.get('IssuerOfPatientID')}|{file.PatientID}"
    return hashlib.sha256(patient.encode()).hexdigest()

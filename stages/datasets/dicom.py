"""DICOM images to PNG: grey values only, nothing that identifies the patient.

A DICOM file names its patient in dozens of tags. Everything that is stored, cached,
pushed and reviewed starts from the output of ingest, so the tags are dropped here. A
hash that lives only as long as the run still shows which files belong to one patient.

The stored picture is what a viewer shows: rescaled, windowed (by the file's first
window), inverted if the file says so (`MONOCHROME1`), stretched to 8 bits.
"""

import hashlib
import io
import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import PipelineError
from stages.core.imaging import encode_png
from stages.datasets.tree import UnreadableError

MAX_PIXELS = 2**24  # a decoder allocates the declared Rows x Columns
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")  # decoded to RGB


def is_dicom(encoded: bytes) -> bool:
    """Whether bytes are a DICOM file, by content."""
    return encoded[128:132] == b"DICM"


def to_png(encoded: bytes, name: str) -> tuple[bytes, str]:
    """Keeps the picture of a DICOM file and drops everything else.

    Args:
        encoded: The whole file.
        name: The name of the file, for messages.

    Returns:
        PNG bytes with 8 bits per sample, and a key that all files of a patient share
        ("" if the file names none). The key must not be stored: it can be guessed.

    Raises:
        UnreadableError: If this file cannot be read.
        PipelineError: If pydicom is not installed.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
    except ImportError:
        raise PipelineError(
            f"{name!r} is a DICOM file, and reading it needs pydicom, which is not "
            "installed; install the extra with `pip install '.[dicom]'`, or bring PNG"
        ) from None
    # Messages of pydicom may quote the patient.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = pydicom.dcmread(io.BytesIO(encoded))
            _refuse(file)
            values = pixel_array(file)
            if file.PhotometricInterpretation in GREY:
                values = apply_voi_lut(apply_modality_lut(values, file), file)
            picture = encode_png(_to_8_bits(values, file))
    except UnreadableError:
        raise
    except Exception as error:  # its parsers raise many types
        raise UnreadableError(
            f"is a DICOM file that cannot be decoded ({type(error).__name__})"
        ) from None
    return picture, _patient_key(file)


def _refuse(file: Any) -> None:
    """Raises `UnreadableError` for a file that is not one readable picture."""
    from pydicom.pixels import get_decoder

    if "PixelData" not in file:
        raise UnreadableError("is a DICOM file without a picture")
    if int(file.get("NumberOfFrames") or 1) > 1:
        raise UnreadableError(
            f"is a DICOM file of {int(file.NumberOfFrames)} frames; store each frame "
            "that has a mask as a file of its own"
        )
    if file.PhotometricInterpretation not in (*GREY, *COLOUR):
        raise UnreadableError(
            f"is a DICOM file of kind {file.PhotometricInterpretation!s:.20}, of which "
            f"only {', '.join((*GREY, *COLOUR))} are read; convert it"
        )
    if file.Rows * file.Columns > MAX_PIXELS:
        raise UnreadableError(
            f"is a DICOM file that declares {file.Columns} x {file.Rows} pixels, more "
            f"than {MAX_PIXELS}, and was not decoded"
        )
    if str(file.get("BurnedInAnnotation", "")).upper() == "YES":
        raise UnreadableError(
            "is a DICOM file that declares names burnt into its "
            "picture; black them out and set Burned In Annotation to NO"
        )
    syntax = file.file_meta.TransferSyntaxUID
    try:
        readable = get_decoder(syntax).is_available
    except NotImplementedError:
        readable = False
    if not readable:
        raise UnreadableError(
            f"is a DICOM file compressed by {syntax.name}, which no installed "
            "decoder reads; decompress it (`gdcmconv --raw` or `dcmdjpeg`), or install "
            "pylibjpeg"
        )


def _to_8_bits(values: NDArray[Any], file: Any) -> NDArray[np.uint8]:
    """(H, W), or (H, W, 3) in OpenCV's order (blue first), stretched to 0 to 255."""
    if values.ndim == 3:
        values = values[:, :, ::-1]
    if values.dtype != np.uint8 or file.BitsStored != 8:
        values = values.astype(np.float64)
        low, high = float(values.min()), float(values.max())
        values = np.round((values - low) * (255 / max(high - low, 1e-9)))
    if file.PhotometricInterpretation == "MONOCHROME1":
        values = 255 - values
    return np.ascontiguousarray(values, np.uint8)


def _patient_key(file: Any) -> str:
    """A hash that all files of a patient share, or ""."""
    if not str(file.get("PatientID") or "").strip():
        return ""
    patient = f"{file.get('IssuerOfPatientID')}|{file.PatientID}"
    return hashlib.sha256(patient.encode()).hexdigest()

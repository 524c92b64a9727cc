"""DICOM images to PNG: grey values alone, and nothing that says whose they are.

A DICOM file names its patient in dozens of tags. What is stored, cached, pushed and
reviewed later begins with what ingest writes, so it is here that they are left behind:
no tag goes any further. Which files show one patient is still told, by a hash that
lives no longer than the run.

What a viewer would show is what is stored: rescaled, windowed (by the file's first
window), inverted where the file says so (`MONOCHROME1`), stretched to 8 bits.
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
from stages.datasets.layouts import UnreadableError

MAX_PIXELS = 2**24  # Rows x Columns are only declared; a decoder takes memory for them
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")  # the decoder turns the latter into RGB


def is_dicom(encoded: bytes) -> bool:
    """Whether bytes are a DICOM file, whatever its name says."""
    return encoded[128:132] == b"DICM"


def to_png(encoded: bytes, name: str) -> tuple[bytes, str]:
    """Keeps the picture of a DICOM file and forgets the rest.

    Args:
        encoded: The whole file.
        name: Of the file, for a message.

    Returns:
        PNG bytes, 8 bits a sample; and a key that files of one patient share, which
        must not be stored: "" where the file names none.

    Raises:
        UnreadableError: If this file cannot be taken.
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
    # What pydicom has to say may quote the patient.
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
    except Exception as error:  # pydicom raises whatever its parsers raise
        raise UnreadableError(
            f"is a DICOM file that cannot be decoded ({type(error).__name__})"
        ) from None
    return picture, _patient_key(file)


def _refuse(file: Any) -> None:
    """Raises what keeps a file from being a picture of its own, in one phrase."""
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
            "is a DICOM file that says of itself that names may be burnt into its "
            "picture; black them out and set Burned In Annotation to NO"
        )
    syntax = file.file_meta.TransferSyntaxUID
    try:
        readable = get_decoder(syntax).is_available
    except NotImplementedError:
        readable = False
    if not readable:
        raise UnreadableError(
            f"is a DICOM file compressed by {syntax.name}, which nothing here decodes; "
            "decompress it (`gdcmconv --raw` or `dcmdjpeg`), or install pylibjpeg"
        )


def _to_8_bits(values: NDArray[Any], file: Any) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) as OpenCV has it: blue first, dark where the film is dark."""
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
    """The same for all files of a patient; never stored, since it could be guessed."""
    if not str(file.get("PatientID") or "").strip():
        return ""
    patient = f"{file.get('IssuerOfPatientID')}|{file.PatientID}"
    return hashlib.sha256(patient.encode()).hexdigest()

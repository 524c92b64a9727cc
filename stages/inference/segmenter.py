"""`Segmenter`: the one way from an image to its mask, by an exported ONNX model.

`predict`, `score` and `serve` are built on it. It needs ONNX Runtime, OpenCV, Pillow
and NumPy; pydicom is imported when the first DICOM file comes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike

from stages.core import imaging, provenance
from stages.core.errors import PipelineError
from stages.core.imaging import Float, Grey, Mask, Pixels, Predictor, Spacing
from stages.inference.reference_ranges import ReferenceRanges
from stages.scoring.postprocess import largest_components

# A few kilobytes can declare a billion pixels.
MAX_PIXELS = 4096 * 4096
MAX_BYTES = 2**28  # of a file: MAX_PIXELS uncompressed, and room to spare
MAX_SIDE = 4096  # of a network's input, pixels

Image = str | Path | bytes | ArrayLike


@dataclass(frozen=True)
class Segmentation:
    """The result of one image.

    Attributes:
        mask: (H, W) bool, the image's own size; True is foreground.
        probability: (H, W) float32 in [0, 1].
        area_fraction: Foreground, as a share of the image.
        components: Number of 8-connected regions in the mask.
        mean_confidence: Mean probability in the mask; NaN if the mask is empty.
        warnings: How the image or its mask differs from the training data.
        image: (H, W) or (H, W, 3) uint8, the image as the model saw it, blue first.
        spacing: Of its pixels, if the file states it: DICOM alone does.
    """

    mask: Mask
    probability: Float
    area_fraction: float
    components: int
    mean_confidence: float
    warnings: tuple[str, ...]
    image: Grey
    spacing: Spacing | None = None

    @property
    def area_cm2(self) -> float | None:
        """Foreground in square centimetres; None without a spacing."""
        if self.spacing is None:
            return None
        return int(self.mask.sum()) * math.prod(self.spacing) / 100

    def measures(self) -> dict[str, Any]:
        """The measures by the names of `predictions.csv`, fractions with six digits."""
        height, width = self.mask.shape
        confidence, area = self.mean_confidence, self.area_cm2
        return {
            "height": height,
            "width": width,
            "lung_area_fraction": round(self.area_fraction, 6),
            "lung_area_cm2": None if area is None else round(area, 6),
            "components": self.components,
            "mean_confidence": None if math.isnan(confidence) else round(confidence, 6),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Prepared:
    """A decoded image: 8 bits at its own size, the network's input, warnings."""

    image: Grey  # (H, W) or (H, W, 3)
    pixels: Grey  # (S, S, C)
    warnings: tuple[str, ...]
    spacing: Spacing | None = None


@dataclass(frozen=True)
class Exported:
    """A network from images to probabilities, and the provenance in its file."""

    predict: Predictor
    image_size: int
    image_channels: int
    facts: Mapping[str, Any]  # provenance; empty if the file carries none

    @property
    def data(self) -> Mapping[str, Any]:
        """Facts about its training data; empty if unknown."""
        found = self.facts.get("data")
        return found if isinstance(found, Mapping) else {}

    @property
    def threshold(self) -> float | None:
        """The probability threshold of its evaluation; None if unknown."""
        return _number(self.facts, "params", "evaluate", "threshold")

    @property
    def keep_components(self) -> int | None:
        """The number of regions kept in its evaluation, 0 for all; None if unknown."""
        found = _number(self.facts, "params", "evaluate", "keep_components")
        return None if found is None else int(found)

    @property
    def mask_definition(self) -> str:
        """The meaning of the masks that it was trained on; "" if unknown."""
        return _text(self.data.get("mask_definition"))

    @property
    def mask_definition_id(self) -> str:
        """The id of that meaning, to compare with other data; "" if unknown."""
        return _text(self.data.get("mask_definition_id"))

    @property
    def is_of_lungs(self) -> bool:
        """Whether it finds lungs; assumed if unknown."""
        return not self.mask_definition or "lung" in self.mask_definition

    @property
    def reference_ranges(self) -> ReferenceRanges | None:
        """The ranges of its training data; None if unknown."""
        ranges = self.data.get("usual")
        return ReferenceRanges.of(
            ranges if isinstance(ranges, Mapping) else {},
            is_of_lungs=self.is_of_lungs,
            is_grey=self.image_channels == 1,
        )


class Segmenter:
    """Segments images with an exported model, on the CPU."""

    def __init__(
        self,
        model: str | Path | Exported,
        *,
        threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
        threads: int = 0,
    ) -> None:
        """Loads a model.

        Args:
            model: An ONNX file that `export` wrote, or an opened model.
            threshold: Pixels at least this probable are foreground; None takes the
                threshold of the model's evaluation, or 0.5.
            max_pixels: An image that declares more is refused before it is decoded.
            threads: Threads per prediction; 0 takes one per core. 1 suits a caller
                that predicts in several threads at once.

        Raises:
            PipelineError: If the file is missing or not such a model.
        """
        self.model = (
            model if isinstance(model, Exported) else load(Path(model), threads=threads)
        )
        default = 0.5 if self.model.threshold is None else self.model.threshold
        self.threshold = default if threshold is None else threshold
        self.keep_components = self.model.keep_components or 0
        self.max_pixels = max_pixels
        self._ranges = self.model.reference_ranges

    def __call__(self, image: Image) -> Segmentation:
        """Segments one image.

        Args:
            image: A path or the bytes of a PNG, JPEG, TIFF, BMP or DICOM file, or an
                array (H, W) or (H, W, 3) of uint8 or uint16, red first.

        Raises:
            UnreadableImageError: If the image cannot be read; a ValueError.
            OSError: If the file cannot be opened.
        """
        return self.batch([self.prepare(image)])[0]

    def prepare(self, image: Image) -> Prepared:
        """Decodes an image and resizes it for the network; see `__call__`."""
        if isinstance(image, str | Path):
            try:
                return self.prepare(read_file(Path(image)))
            except imaging.UnreadableImageError as error:
                raise imaging.UnreadableImageError(f"{image}: {error}") from None
        if isinstance(image, bytes):
            pixels, spacing = _decode(image, self.max_pixels)
        else:
            pixels, spacing = _from_array(image), None
        seen = imaging.to_channels(pixels, self.model.image_channels)
        return Prepared(
            seen,
            imaging.preprocess(seen, self.model.image_size),
            tuple(self._ranges.of_image(pixels, seen)) if self._ranges else (),
            spacing,
        )

    def batch(self, prepared: Sequence[Prepared]) -> list[Segmentation]:
        """Segments prepared images in one call of the network."""
        inputs = imaging.to_input(np.stack([one.pixels for one in prepared]))
        probs = self.model.predict(inputs)
        return [
            self._measure(one, prob[:, :, 0])
            for one, prob in zip(prepared, probs, strict=True)
        ]

    def _measure(self, prepared: Prepared, prob: Float) -> Segmentation:
        height, width = prepared.image.shape[:2]
        prob = imaging.resize_prob(prob, height, width)
        whole = prob >= self.threshold
        mask = largest_components(whole, self.keep_components)
        confidence = float(prob[mask].mean()) if mask.any() else math.nan
        # Of all regions: removing some must not silence the warning.
        warnings = self._ranges.of_mask(whole, confidence) if self._ranges else []
        return Segmentation(
            mask=mask,
            probability=prob,
            area_fraction=float(mask.mean()),
            components=imaging.num_components(mask),
            mean_confidence=confidence,
            warnings=(*prepared.warnings, *warnings),
            image=prepared.image,
            spacing=prepared.spacing,
        )


def read_file(path: Path) -> bytes:
    """Reads an image file of a sane size.

    Raises:
        UnreadableImageError: If it has more than `MAX_BYTES`.
        OSError: If it cannot be opened.
    """
    with path.open("rb") as file:
        encoded = file.read(MAX_BYTES + 1)
    if len(encoded) > MAX_BYTES:
        raise imaging.UnreadableImageError(f"it has more than {MAX_BYTES} bytes")
    return encoded


def _decode(encoded: bytes, max_pixels: int) -> tuple[Pixels, Spacing | None]:
    """Decodes a file; DICOM, which alone has a spacing, as ingest does."""
    if imaging.format_of(encoded) == "dicom":
        from stages.datasets import dicom
        from stages.datasets.tree import UnreadableError

        try:
            film = dicom.read(encoded, max_pixels=max_pixels)
        except UnreadableError as error:
            raise imaging.UnreadableImageError(f"it {error}") from None
        return film.pixels, film.spacing
    return imaging.read(encoded, max_pixels=max_pixels).pixels, None


def _from_array(image: ArrayLike) -> Pixels:
    """Checks an array, and turns red first into blue first."""
    pixels = np.asarray(image)
    if (
        pixels.dtype not in (np.uint8, np.uint16)
        or pixels.ndim not in (2, 3)
        or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3))
        or not pixels.size
    ):
        raise imaging.UnreadableImageError(
            "an array should have shape (H, W) or (H, W, 3) and type uint8 or uint16, "
            f"found {pixels.dtype} of shape {pixels.shape}"
        )
    return np.ascontiguousarray(pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)


def load(path: Path, *, threads: int = 0) -> Exported:
    """Opens a file that `export` wrote with ONNX Runtime, on the CPU.

    `threads` is per prediction; 0 takes one per core.

    Raises:
        PipelineError: If it is missing, not an ONNX model, or not a network from
            square images to probability maps.
    """
    if not path.is_file():
        raise PipelineError(
            f"{path} is missing; name the exported unet.onnx (`dvc repro` or "
            "`dvc pull` makes data/export/unet.onnx)"
        )
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        # Names in the file may be bytes that are not text.
        metadata = session.get_modelmeta().custom_metadata_map
        inputs = [(value.name, value.shape) for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
    except OSError:
        raise
    except Exception as error:  # what ONNX Runtime raises has no common base
        reason = " ".join(str(error).split())[:160]
        raise PipelineError(
            f"{path} should be an exported ONNX model but cannot be loaded ({reason}); "
            "export it again with `dvc repro export`"
        ) from None
    shape = inputs[0][1] if len(inputs) == 1 else []
    if (
        [name for name, _ in inputs] != ["image"]
        or outputs != ["probability"]
        or len(shape) != 4
        or not isinstance(shape[1], int)
        or not 0 < shape[1] <= MAX_SIDE
        or shape[1] != shape[2]
        or shape[3] not in (1, 3)
    ):
        raise PipelineError(
            f"{path} should take `image` (B, S, S, C) with 1 or 3 channels and give "
            f"`probability`, but takes {inputs} and gives {outputs}; name an ONNX file "
            "that this pipeline exported"
        )

    def predict(images: Float) -> Float:
        try:
            prob = np.asarray(session.run(["probability"], {"image": images})[0])
        except Exception as error:  # what ONNX Runtime raises has no common base
            raise PipelineError(_unfit(path, error)) from None
        if prob.shape != (*images.shape[:3], 1) or prob.dtype != np.float32:
            raise PipelineError(_unfit(path, f"{prob.dtype} of shape {prob.shape}"))
        return prob

    return Exported(predict, shape[1], shape[3], _facts(metadata))


def _unfit(path: Path, found: object) -> str:
    reason = " ".join(str(found).split())[:160]
    return (
        f"{path} should give a probability for each pixel but does not ({reason}); "
        "name an ONNX file that this pipeline exported"
    )


def _facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(provenance.KEY, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(facts: Mapping[str, Any], *names: str) -> float | None:
    value: Any = facts
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None

"""An exported ONNX file as what it says it is; needs neither TensorFlow nor onnx."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from stages.core import provenance
from stages.core.errors import PipelineError
from stages.core.imaging import Float, Predictor
from stages.inference import reference_ranges

MAX_SIDE = 4096  # of an input, pixels; a file can claim what no memory holds


@dataclass(frozen=True)
class Exported:
    """A network from images to probabilities, and what its file says of it."""

    predict: Predictor
    image_size: int
    image_channels: int
    facts: Mapping[str, Any]  # provenance; empty where the file carries none

    @property
    def threshold(self) -> float | None:
        """The probability threshold it was judged at; None where it does not say."""
        return _number(self.facts, "params", "evaluate", "threshold")

    @property
    def keep_components(self) -> int | None:
        """How many regions of a mask it was judged with; None where it does not say."""
        found = _number(self.facts, "params", "evaluate", "keep_components")
        return None if found is None else int(found)

    @property
    def mask_definition(self) -> str:
        """What the masks mean that it was trained on; "" where it does not say."""
        data = self.facts.get("data")
        found = data.get("mask_definition") if isinstance(data, dict) else None
        return found if isinstance(found, str) else ""

    @property
    def is_of_lungs(self) -> bool:
        """Whether it finds lungs; taken for granted where it does not say."""
        return not self.mask_definition or "lung" in self.mask_definition

    @property
    def usual(self) -> reference_ranges.Usual | None:
        """What is usual in the data that it learnt from; None where nobody knows."""
        data = self.facts.get("data")
        ranges = data.get("usual") if isinstance(data, dict) else None
        return reference_ranges.usual(
            ranges if isinstance(ranges, dict) else {},
            is_of_lungs=self.is_of_lungs,
            is_grey=self.image_channels == 1,
        )


def load(path: Path, *, threads: int = 0) -> Exported:
    """Opens a file that `export` wrote with ONNX Runtime, on the CPU.

    Args:
        path: The file.
        threads: Threads for one prediction; 0 takes as many as there are cores, 1
            suits a caller that predicts in several threads at once.

    Raises:
        PipelineError: If it is missing, no ONNX model, or takes or gives something
            else than square images and probability maps.
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
        # Text of the file, and not all of it need be text.
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


def _number(facts: Mapping[str, Any], *names: str) -> float | None:
    value: Any = facts
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None

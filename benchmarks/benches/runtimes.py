"""The exported network in other runtimes and versions, beside Keras.

uv installs each version into an environment below data/.work/runtimes (this needs the
package index). Every image is predicted in batches of 1 and of 3, and 50 are timed one
at a time, on all processors. The figure is the largest difference of a probability to
Keras; it must be at most 0.005 (some runtimes compute convolutions by a faster, less
exact algorithm).
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.harness import Options, Row
from stages.core import imaging, paths
from stages.core.errors import PipelineError
from stages.core.imaging import Float, Mask

LONG = True
BATCHES = (1, 3)
THRESHOLD = 0.5

# How to load a file as `run`, images to probabilities.
ONNX_RUNTIME = """
import onnxruntime
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
run = lambda x: session.run(None, {"image": x})[0]
"""
OPENCV = """
import cv2
network = cv2.dnn.readNetFromONNX(file)
run = lambda x: (network.setInput(x), network.forward())[1]
"""
OPENVINO = """
import openvino
hints = {"INFERENCE_PRECISION_HINT": "f32"}
model = openvino.Core().compile_model(file, "CPU", hints)
run = lambda x: model(x)[0]
"""
KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import keras
model = keras.models.load_model(file, compile=False)
logits = lambda y: y[0] if isinstance(y, list | tuple) else y
run = lambda x: 1 / (1 + np.exp(-np.asarray(logits(model(x)))))
"""
SCRIPT = """
import sys
import time
import numpy as np
file, images, out, *batches = sys.argv[1:]
images = np.load(images)
{code}
answers = []
for size in map(int, batches):
    parts = [images[i : i + size] for i in range(0, len(images), size)]
    answers.append(np.concatenate([np.array(run(part)) for part in parts]))
times = []
for image in np.resize(images, (50, *images.shape[1:])):
    start = time.perf_counter()
    run(image[None])
    times.append(time.perf_counter() - start)
np.savez(out, answers=np.stack(answers), milliseconds=1000 * np.median(times))
"""
# Code, and what to install.
RUNTIMES: dict[str, tuple[str, list[str]]] = {
    "onnxruntime 1.15.1": (ONNX_RUNTIME, ["numpy<2"]),
    "onnxruntime 1.19.2": (ONNX_RUNTIME, ["numpy<2"]),
    "onnxruntime 1.32.0": (ONNX_RUNTIME, []),
    "opencv-python-headless 4.5.5.64": (OPENCV, ["numpy<2"]),
    "opencv-python-headless 4.8.1.78": (OPENCV, ["numpy<2"]),
    "opencv-python-headless 4.10.0.84": (OPENCV, ["numpy<2"]),
    "opencv-python-headless 5.0.0.93": (OPENCV, []),
    "openvino 2023.3.0": (OPENVINO, ["numpy<2"]),
    "openvino 2026.4.1": (OPENVINO, []),
    "keras 3.5.0": (KERAS, ["jax[cpu]==0.4.30", "numpy<2"]),
}


class NotInstalledError(PipelineError):
    """A runtime that the package index does not give to this Python."""


def bench(options: Options) -> list[Row]:
    """Every runtime on the same images."""
    from stages.nn.inference import load_model, predictor

    model = load_model(paths.MODEL)
    _, side, _, channels = model.input_shape
    pairs = data.encoded(options, options.size(48, 3))
    images = data.inputs(pairs, side, channels)
    masks = [imaging.decode_mask(pair.content()[1]) for pair in pairs]
    wanted = predictor(model)(images)
    rows = []
    for name in list(RUNTIMES)[: 1 if options.quick else None]:
        try:
            answers, milliseconds = ask(name, images)
        except PipelineError as error:
            print(f"  {name}: {error}", file=sys.stderr)
            continue
        for size, prob in zip(BATCHES, answers, strict=True):
            rows.append(
                Row(
                    f"{name}, batches of {size}",
                    float(np.abs(prob - wanted).max()),
                    "largest difference of a probability",
                    at_most=0.005,
                    notes={
                        "Dice": _mean_dice(prob, masks),
                        "of Keras": _mean_dice(wanted, masks),
                        "images": len(masks),
                        "ms per image alone": milliseconds,
                    },
                )
            )
    return rows


def ask(
    name: str, images: Float, *, export: Path = paths.EXPORT, model: Path = paths.MODEL
) -> tuple[Float, float]:
    """The probabilities of a runtime, by its name in `RUNTIMES`.

    Returns:
        Of images (N, S, S, C) in [0, 1], (len(BATCHES), N, S, S, 1); and the median
        milliseconds that it takes for one image.

    Raises:
        PipelineError: If it cannot be installed, or refuses the file.
    """
    code, needs = RUNTIMES[name]
    package, version = name.split()
    folder = paths.WORK.absolute() / "runtimes" / f"{package}-{version}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = [sys.executable, "-m", "uv", "--quiet"]
        wanted = [f"{package}=={version}", *needs]
        try:
            _run([*uv, "venv", "--clear", "-p", sys.executable, str(folder)])
            _run([*uv, "pip", "install", "-p", str(python), *wanted])
        except PipelineError as error:
            raise NotInstalledError(str(error)) from None
        (folder / "complete").touch()
    np.save(folder / "images.npy", images)
    file = model if code == KERAS else export / "unet.onnx"
    words = [file, folder / "images.npy", folder / "answers.npz", *BATCHES]
    _run([str(python), "-c", SCRIPT.format(code=code), *map(str, words)])
    found = np.load(folder / "answers.npz")
    return found["answers"], float(found["milliseconds"])


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PipelineError(f"`{words[0]} {words[1]}` fails: {last[:200]}")


def _mean_dice(probs: Float, masks: list[Mask]) -> float:
    from stages.export import parity

    pairs = zip(masks, probs[..., 0], strict=True)
    return float(np.mean([parity.score(mask, p, THRESHOLD) for mask, p in pairs]))

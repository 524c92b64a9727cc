"""A saved model as a function from images to probabilities."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from stages.core.errors import PipelineError
from stages.core.imaging import Float, Predictor

# Layers that run code, or read files by name.
HOSTILE = {
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer",
    "StringLookup", "IntegerLookup", "TextVectorization",
}  # fmt: skip

REMEDY = "remove it and run `dvc repro train`"


def load_model(path: Path, remedy: str = REMEDY) -> keras.Model:
    """Loads a `.keras` file; nothing in it is executed (safe mode).

    Raises:
        PipelineError: If it is missing, corrupt, unsafe, or not a segmentation network.
    """
    if not path.is_file():
        raise PipelineError(
            f"{path} is missing; run `dvc repro train` (or `dvc pull`) to make it"
        )
    try:
        _refuse_hostile(path)
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parsers raise
        reason = " ".join(str(error).split())[:160]
        raise PipelineError(
            f"{path} should be a Keras model but cannot be loaded ({reason}); {remedy}"
        ) from None
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != shape[2]:
        raise PipelineError(
            f"{path} should take square images (B, S, S, C), found input {shape}"
        )
    return model


def _refuse_hostile(path: Path) -> None:
    """Raises ValueError for archives that Keras's safe mode has let through before.

    They unpack to more than their size, or name layers that run code or read files, or
    objects outside Keras.
    """
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError("it is not a .keras archive")
    with zipfile.ZipFile(path) as archive:
        # Keras stores members uncompressed; a compressed one can be a zip bomb.
        total = sum(member.file_size for member in archive.infolist())
        if total > path.stat().st_size:
            raise ValueError(f"it unpacks to {total} bytes")
        waiting = [json.loads(archive.read("config.json"))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            name, module = value.get("class_name"), value.get("module") or "keras"
            if name in HOSTILE or str(module).partition(".")[0] != "keras":
                raise ValueError(f"it holds {module}.{name}")


def probabilities(model: keras.Model, *, flip_tta: bool = False) -> keras.Model:
    """The network that ships: the finest head, as probabilities in [0, 1].

    With `flip_tta`, they are averaged with those of the image flipped left to right,
    flipped back. It is part of the network, so every exported file does it.
    """
    outputs = model.outputs if isinstance(model.outputs, list) else [model.outputs]
    prob = keras.layers.Activation("sigmoid", dtype="float32", name="probability")(
        outputs[0]
    )
    network = keras.Model(model.inputs, prob, name=model.name)
    if not flip_tta:
        return network
    image = model.inputs[0]

    def flip(x: keras.KerasTensor) -> keras.KerasTensor:
        # By columns of (B, S, S, C): small runtimes lack the operator of `ops.flip`.
        columns = np.arange(x.shape[2])[::-1].copy()
        return keras.ops.take(x, columns, axis=2)

    mean = (prob + flip(network(flip(image)))) / 2
    return keras.Model(image, mean, name=model.name)


def predictor(model: keras.Model, *, flip_tta: bool = False) -> Predictor:
    """Compiles images (B, S, S, C) in [0, 1] to probabilities (B, S, S, 1)."""
    network = probabilities(model, flip_tta=flip_tta)
    compiled = tf.function(
        lambda images: network(images, training=False), reduce_retracing=True
    )

    def predict(images: Float) -> Float:
        return np.asarray(compiled(tf.constant(images)).numpy(), np.float32)

    return predict

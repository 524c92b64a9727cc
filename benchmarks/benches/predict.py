"""Latency at batch 1 and 256x256 of each exported format, beside `keras.Model.predict`.

And the multiply-adds a second of ONNX Runtime and LiteRT beside those of a matrix
multiplication
on this machine. To be reached: ONNX 4 times faster than `predict`, half that rate.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, processes
from benchmarks.harness import Options, Row, Target, alternate
from stages.core.imaging import decode_image, preprocess, to_input
from stages.core.params import TrainParams, load_params

OPTIONS = ("data", "model")
LONG = False
SIDE = 256
MATRIX = 2048  # rows and columns


def bench(options: Options) -> list[Row]:
    """Exports the network at 256x256 and calls every format in turns."""
    import keras

    from benchmarks import training
    from stages.export import litert, onnx_file, saved_model, size
    from stages.inference import segmenter
    from stages.nn.inference import probabilities

    side = 32 if options.quick else SIDE
    params = training.params_of(load_params().train, options)
    network = probabilities(_network(params, side, options.model))
    images = _images(options, side, params.image_channels)
    facts: dict[str, Any] = {}
    with processes.workspace() as folder:
        onnx_file.write(network, folder / "unet.onnx", facts=facts)
        saved_model.write(network, folder / "saved", facts=facts)
        litert.write(network, folder / "unet.tflite", facts=facts)
        predictors = {
            "ONNX Runtime": segmenter.load(folder / "unet.onnx").predict,
            "ONNX Runtime, one thread": onnx_file.load(folder / "unet.onnx"),
            "SavedModel": saved_model.load(folder / "saved"),
            "LiteRT": litert.load(folder / "unet.tflite"),
        }
        draw = np.random.default_rng(1)
        matrix = 64 if options.quick else MATRIX
        left, right = (draw.random((matrix, matrix), np.float32) for _ in range(2))
        image = images[:1]
        calls: dict[str, Any] = {"predict": lambda: network.predict(image, verbose=0)}
        for name, predict in predictors.items():
            calls[name] = lambda predict=predict: predict(image)
        calls["matrix"] = lambda: left @ right
        took = alternate(calls, repeats=3 if options.quick else 25)
        wanted = network.predict(images, verbose=0)
        apart = {
            name: _differences(
                np.concatenate([call(one[None]) for one in images]), wanted
            )
            for name, call in predictors.items()
        }
    keras.backend.clear_session()
    rows = [
        Row(
            name,
            1000 * took[name],
            "ms",
            1000 * took["predict"],
            "keras.Model.predict",
            took["predict"] / took[name],
            Target(4) if name.startswith("ONNX") else None,
            apart[name],
        )
        for name in predictors
    ]
    adds = size.multiply_adds(network)
    rate = matrix**3 / took["matrix"]
    fastest = min((name for name in predictors if "ONNX" in name), key=took.__getitem__)
    rows += [
        Row(
            f"{name}, multiply-adds",
            adds / took[name] / 1e9,
            "G/s",
            rate / 1e9,
            "matrix multiplication",
            adds / took[name] / rate,
            Target(0.5),
            {"multiply-adds an image, G": adds / 1e9, "side": side},
        )
        for name in (fastest, "LiteRT")
    ]
    return rows


def _network(params: TrainParams, side: int, path: Path | None) -> Any:
    """The network of params.yaml at this size, with a given model's weights."""
    from stages.nn import models
    from stages.nn.inference import load_model

    network = models.build(params.model_copy(update={"image_size": side}))
    if path is not None:
        network.set_weights(load_model(path).get_weights())
    return network


def _images(options: Options, side: int, channels: int) -> np.ndarray:
    pairs = data.encoded(options, 2 if options.quick else 8)
    pixels = [preprocess(decode_image(p.image or b"", channels), side) for p in pairs]
    return to_input(np.stack(pixels))


def _differences(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """How far from Keras: the largest probability, and Dice of mask with mask."""
    a, b = found >= 0.5, wanted >= 0.5
    total = a.sum() + b.sum()
    return {
        "largest difference": float(np.abs(found - wanted).max()),
        "Dice with Keras's masks": 2 * int((a & b).sum()) / int(total)
        if total
        else 1.0,
    }

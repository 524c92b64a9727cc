"""Images per second of each exported format, beside `keras.Model.predict`.

At 256x256, batch 1, with the largest difference to Keras. Target: ONNX Runtime is 4
times faster than `predict`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.harness import Options, Row, alternate
from stages.core.params import load_params

LONG = False
SIDE = 256


def bench(options: Options) -> list[Row]:
    """Exports an untrained network and calls every format in turns."""
    from benchmarks import training
    from stages.export import litert, onnx_file, saved_model, size
    from stages.export.network import folded, without_standardisation
    from stages.inference import segmenter
    from stages.nn import models
    from stages.nn.inference import probabilities

    side = 32 if options.quick else SIDE
    params = training.params_of(load_params().train, options)
    model = models.build(params.model_copy(update={"image_size": side}))
    network = probabilities(model)
    images = data.inputs(
        data.encoded(options, options.size(8, 2)), side, params.image_channels
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        core, epsilon = without_standardisation(folded(model))
        core = probabilities(core)
        onnx_file.write(core, folder / "unet.onnx", facts={}, epsilon=epsilon)
        saved_model.write(network, folder / "saved", facts={})
        litert.write(network, folder / "unet.tflite", facts={})
        predictors = {
            "ONNX Runtime": segmenter.load(folder / "unet.onnx").predict,
            "ONNX Runtime, one thread": onnx_file.load(folder / "unet.onnx"),
            "SavedModel": saved_model.load(folder / "saved"),
            "LiteRT, one thread": litert.load(folder / "unet.tflite"),
        }
        image = images[:1]
        calls: dict[str, Any] = {"predict": lambda: network.predict(image, verbose=0)}
        for name, predict in predictors.items():
            calls[name] = lambda predict=predict: predict(image)
        took = alternate(calls, repeats=3 if options.quick else 25)
        wanted = network.predict(images, verbose=0)
        found = {
            name: np.concatenate([predict(one[None]) for one in images])
            for name, predict in predictors.items()
        }
    return [
        Row(
            name,
            1 / took[name],
            "images/s",
            1 / took["predict"],
            "keras.Model.predict",
            at_least=4 if name.startswith("ONNX") else 0,
            notes={
                "largest difference": float(np.abs(found[name] - wanted).max()),
                "multiply-adds, G": size.multiply_adds(network) / 1e9,
            },
        )
        for name in predictors
    ]

"""Pairs per second out of the training pipeline, beside decoding the same bytes.

Augmentation on, beside `cv2.imdecode` of image and mask in two threads. Target:
0.7 of that, and less time per batch than the step that consumes it.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np

from benchmarks import data
from benchmarks.harness import Options, Row, alternate
from stages.core.params import load_params

LONG = False


def bench(options: Options) -> list[Row]:
    """One epoch of batches, all files decoded, and as many bare steps, in turns."""
    from benchmarks import training
    from stages.nn import dataset

    params = training.params_of(load_params().train, options)
    pairs = data.encoded(options, options.size(272, 4))
    arrays = training.arrays_of(pairs, params)
    step = training.bare_step(params, arrays)
    contents = [
        np.frombuffer(side or b"", np.uint8)
        for pair in pairs
        for side in (pair.image, pair.mask)
    ]
    steps = dataset.steps_per_epoch(len(pairs), params.batch_size)
    even = params.model_copy(
        update={"low_resolution_fraction": 0.0, "epochs": 1_000_000}
    )
    batches = dataset.training_batches(arrays, even)

    def pipeline() -> None:
        for batch in islice(batches, steps):
            batch[0].numpy()

    def decoding() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda b: cv2.imdecode(b, cv2.IMREAD_UNCHANGED), contents))

    few = min(4, steps)

    def stepping() -> None:
        for _ in range(few):
            step()

    took = alternate(
        {"pipeline": pipeline, "decoding": decoding, "stepping": stepping},
        repeats=1 if options.quick else 7,
    )
    pipeline_ms = 1000 * took["pipeline"] / steps
    step_ms = 1000 * took["stepping"] / few
    return [
        Row(
            "training batches, augmented",
            len(pairs) / took["pipeline"],
            "pairs/s",
            len(pairs) / took["decoding"],
            "cv2.imdecode in two threads",
            at_least=0.7,
            notes={"side": params.image_size, "batch": params.batch_size},
        ),
        Row(
            "one batch, alone on both cores",
            pipeline_ms,
            "ms",
            step_ms,
            "the step that consumes it",
            at_most=1,
        ),
    ]

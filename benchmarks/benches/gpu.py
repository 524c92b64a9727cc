"""Images per second of the article's network on a GPU, beside its bare compiled step.

With XLA, batches of 16 and 64 in both half precisions: steps on resident pairs, with
augmentation, beside the same network's step on one resident batch (target 0.9), and the
multiplications of that step beside those of a plain product of matrices (target 0.5).
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks import data
from benchmarks.harness import Options, Row, alternate
from stages.core.errors import PipelineError
from stages.core.params import TrainParams, load_params

if TYPE_CHECKING:  # its import would import TensorFlow
    from stages.nn.dataset import Arrays

LONG = True
STEPS = 20
SIDE = 8192  # of the matrices
ARTICLE: dict[str, Any] = {
    "architecture": "unet",
    "image_size": 256,
    "filters": [64, 128, 256, 512, 1024],
    "supervision_weights": [1.0, 0.5],
    "optimizer": "adam",
    "jit_compile": True,
}


def bench(options: Options) -> list[Row]:
    """Two rows per batch and precision.

    Raises:
        PipelineError: If there is no GPU; quick sizes run without one.
    """
    import tensorflow as tf

    if not options.quick and not tf.config.list_physical_devices("GPU"):
        raise PipelineError(
            "the benchmark gpu needs a GPU, and TensorFlow sees none; run `make gpu` "
            "on a machine with one, or see that it works with --quick"
        )
    from benchmarks import training

    shipped = load_params().train.model_copy(update=ARTICLE)
    pairs = data.encoded(options, options.size(128, 4))
    rows = []
    for precision, batch in product(("mixed_float16", "mixed_bfloat16"), (16, 64)):
        changes = {"precision": precision, "batch_size": batch}
        params = training.params_of(shipped.model_copy(update=changes), options)
        rows += _rows(params, training.arrays_of(pairs, params), options)
    return rows


def _rows(params: TrainParams, arrays: "Arrays", options: Options) -> list[Row]:
    import numpy as np
    import tensorflow as tf

    from benchmarks import training
    from stages.export.size import multiply_adds
    from stages.nn import dataset, models
    from stages.nn.trainer import Trainer

    trainer = Trainer(params)
    steps = trainer.steps_on_device(arrays)
    order = np.random.default_rng(0).integers(
        len(arrays), size=(STEPS, params.batch_size), dtype=np.int32
    )
    _, draws = dataset.step_plan(STEPS * params.batch_size, params, 0, slice(0, STEPS))
    plan = order, draws, np.full(STEPS, params.learning_rate, np.float32)
    bare = training.bare_step(params, arrays)
    dtype = params.precision.removeprefix("mixed_")
    side = 64 if options.quick else SIDE
    matrix = tf.cast(tf.random.stateless_uniform((side, side), (1, 2)), dtype)
    multiply = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    took = alternate(
        {
            "steps": lambda: steps(*plan).numpy(),
            "bare": bare,
            "matrices": lambda: multiply().numpy(),
        },
        repeats=1 if options.quick else 5,
    )
    name = f"{params.precision}, batch {params.batch_size}"
    # Forward, and backward to weights and to inputs.
    per_step = 2 * 3 * params.batch_size * multiply_adds(models.build(params))
    return [
        Row(
            f"steps on resident pairs, {name}",
            STEPS * params.batch_size / took["steps"],
            "images/s",
            params.batch_size / took["bare"],
            "bare compiled step",
            at_least=0.9,
            notes={
                "kernels per step": _kernels(lambda: steps(*plan).numpy()) / STEPS,
                "bytes sent per step": sum(part.nbytes for part in plan) / STEPS,
            },
        ),
        Row(
            f"bare step, {name}",
            per_step / took["bare"] / 1e12,
            "TFLOP/s",
            2 * side**3 / took["matrices"] / 1e12,
            "product of matrices",
            at_least=0.5,
        ),
    ]


def _kernels(function: Callable[[], object]) -> int:
    """Kernels and copies that GPUs ran in a call, by TensorFlow's profiler."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            function()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    return sum(
        len(line.events)
        for plane in space.planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        if line.name.startswith("Stream")
    )

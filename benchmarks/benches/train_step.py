"""Images per second of train's own loop, beside a bare compiled step on one batch.

The loop with all that is in it: input pipeline, augmentation, schedule, progress bar,
gradient probe, a checkpoint per epoch. Target: 0.95 of the bare step's rate.
"""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks import data
from benchmarks.harness import Options, Row, seconds
from stages.core.params import TrainParams, load_params

if TYPE_CHECKING:  # its import would import TensorFlow
    from stages.nn.dataset import Arrays

LONG = False
BARE_STEPS = 6  # after each epoch


def bench(options: Options) -> list[Row]:
    """The loop as params.yaml has it, then without the gradient probe."""
    from benchmarks import training

    # At one size throughout, that of the bare step.
    even = {
        "epochs": 2 if options.quick else 4,
        "monitor_fraction": 0.0,
        "low_resolution_fraction": 0.0,
    }
    params = training.params_of(load_params().train, options).model_copy(update=even)
    pairs = data.encoded(options, options.size(160, 4))
    arrays = training.arrays_of(pairs, params)
    rows = [_row("train's loop", arrays, params)]
    if params.gradient_log_interval and not options.quick:
        bare = params.model_copy(update={"gradient_log_interval": 0})
        rows.append(_row("without the gradient probe", arrays, bare))
    return rows


def _row(what: str, arrays: "Arrays", params: TrainParams) -> Row:
    """Epochs of the real loop, with bare steps between them."""
    from benchmarks import training
    from stages.nn import dataset
    from stages.nn.checkpoint import Checkpoint
    from stages.nn.cluster import connect
    from stages.nn.fit import fit

    step = training.bare_step(params, arrays)
    step()
    epoch_s: list[float] = []
    step_s: list[float] = []

    class Clock(Checkpoint):
        """Stops the clock after each epoch's checkpoint, for some bare steps."""

        started = time.perf_counter()

        def save(self, arrays: dict[str, Any], table: dict[str, Any]) -> None:
            super().save(arrays, table)
            epoch_s.append(time.perf_counter() - self.started)
            step_s.extend(seconds(step) for _ in range(BARE_STEPS))
            self.started = time.perf_counter()

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        progress = fit(
            params,
            arrays,
            dataset.Arrays(arrays.images[:0], arrays.masks[:0]),  # no monitoring
            cluster=connect(),
            checkpoint=Clock(folder, "bench"),
        )
    # The first epoch traces the graph.
    steps = dataset.steps_per_epoch(len(arrays), params.batch_size)
    rate = params.batch_size * steps / statistics.median(epoch_s[1:])
    limit = params.batch_size / statistics.median(step_s)
    return Row(
        what,
        rate,
        "images/s",
        limit,
        "bare compiled step",
        at_least=0.95,
        notes={
            "training Dice of the last epoch": progress.history[-1]["dice"],
            "epochs": params.epochs,
            "steps per epoch": steps,
            "side": params.image_size,
            "batch": params.batch_size,
        },
    )

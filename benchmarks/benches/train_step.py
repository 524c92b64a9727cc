"""Images per second of train's own loop, beside a bare compiled step on one batch.

The loop with all that is in it: input pipeline, augmentation, schedule, progress bar,
checkpoints. Target: 0.95 of the bare step's rate. And beside Keras' `fit` of the same
network and loss on a `tf.data` pipeline by the book, and beside the article's eager
loop, as published and with its two errors corrected; these do not augment.
"""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import data
from benchmarks.harness import Options, Row, seconds
from stages.core.params import load_params

LONG = False
BARE_STEPS = 6  # after each epoch


def bench(options: Options) -> list[Row]:
    """Epochs of the loop, with bare steps and an epoch of `fit` between them."""
    from benchmarks import training
    from stages.nn import dataset
    from stages.nn.checkpoint import Checkpoint
    from stages.nn.cluster import connect
    from stages.nn.fit import fit

    even = {
        "epochs": 2 if options.quick else 4,
        "monitor_fraction": 0.0,
        "low_resolution_fraction": 0.0,  # one size throughout, that of the bare step
        "gradient_log_interval": 0,  # 100 steps by default, more than are timed here
    }
    params = training.params_of(load_params().train, options).model_copy(update=even)
    pairs = data.encoded(options, options.size(160, 4))
    arrays = training.arrays_of(pairs, params)
    step = training.bare_step(params, arrays)
    peers = {
        "Keras' fit": training.keras_epoch(params, arrays),
        "the article's loop": training.article_epoch(params, arrays, corrected=False),
        "the article's loop, errors corrected": training.article_epoch(
            params, arrays, corrected=True
        ),
    }
    for function in (step, *peers.values()):
        function()  # the first call traces
    epoch_s: list[float] = []
    step_s: list[float] = []
    peer_s: dict[str, list[float]] = {name: [] for name in peers}

    class Clock(Checkpoint):
        """Stops the clock after each epoch, for the others."""

        started = time.perf_counter()

        def is_due(self) -> bool:
            epoch_s.append(time.perf_counter() - self.started)
            step_s.extend(seconds(step) for _ in range(BARE_STEPS))
            for name, epoch in peers.items():
                peer_s[name].append(seconds(epoch))
            self.started = time.perf_counter()
            return super().is_due()

    with TemporaryDirectory() as scratch:
        progress = fit(
            params,
            arrays,
            dataset.Arrays(arrays.images[:0], arrays.masks[:0]),  # no monitoring
            cluster=connect(params.batch_size),
            checkpoint=Clock(Path(scratch), "bench"),
        )
    # The first epoch traces the graph.
    steps = dataset.steps_per_epoch(len(arrays), params.batch_size)
    rate = params.batch_size * steps / statistics.median(epoch_s[1:])
    limit = params.batch_size / statistics.median(step_s)
    return [
        Row(
            "train's loop",
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
        ),
        *(
            Row(
                "train's loop",
                rate,
                "images/s",
                len(arrays) / statistics.median(times),
                f"{name} (no augmentation)",
            )
            for name, times in peer_s.items()
        ),
    ]

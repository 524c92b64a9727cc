"""The training loop, from arrays of pairs to weights."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.errors import PipelineError
from stages.core.params import TrainParams
from stages.nn import dataset
from stages.nn.checkpoint import Checkpoint
from stages.nn.cluster import Cluster
from stages.nn.gradients import GradientProbe
from stages.nn.report import Report
from stages.nn.runtime import seed_everything
from stages.nn.trainer import Trainer, learning_rate_at

logger = logging.getLogger(__name__)

PROBE_PAIRS = 4
STEPS_PER_CALL = 50  # at most, on one GPU: the bar moves, and Ctrl+C is heard
RESIDENT_BYTES = 6 * 2**30  # of uint8 pixels that a GPU holds for a whole training

# Epoch, the places of steps in it, their learning rates; loss and Dice of each, (K, 2).
Advance = Callable[[int, slice, list[float]], Any]


@dataclass
class Progress:
    """A training after some epochs; with the trainer's state, a checkpoint."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    # Rows of step, head, part, norm.
    gradients: list[tuple[int, int, str, float]] = field(default_factory=list)
    best_dice: float = -1.0
    best_epoch: int = 0
    # Of the best monitored epoch; at the end of the last one, if none is monitored.
    weights: list[np.ndarray] = field(default_factory=list)


def fit(
    params: TrainParams,
    pairs: dataset.Arrays,
    monitor: dataset.Arrays,
    *,
    cluster: Cluster,
    checkpoint: Checkpoint,
    initial: Sequence[np.ndarray] = (),
    curves: Path | None = None,
) -> Progress:
    """Trains a network, from its last checkpoint if there is one.

    Args:
        params: The `train` section.
        pairs: To train on; all of them on every host.
        monitor: Their Dice chooses the epoch whose weights are kept; may be empty.
        cluster: The devices.
        checkpoint: Where the state after some epochs is kept.
        initial: Weights to begin with, in the network's order; random ones if empty.
        curves: A folder for TensorBoard, or None.

    Returns:
        Weights, history and gradient norms, the same bytes whether it was interrupted
        or not.

    Raises:
        PipelineError: If the loss is not finite, or the hosts differ.
    """
    seed_everything(params.seed, deterministic=not params.jit_compile)
    trainer = Trainer(params, cluster.strategy)
    if initial:
        trainer.model.set_weights(initial)
    progress = _resumed(trainer, checkpoint)
    cluster.agree(f"{checkpoint.fingerprint} after epoch {progress.epoch}")
    probe = GradientProbe(
        trainer, pairs.images[:PROBE_PAIRS], pairs.masks[:PROBE_PAIRS]
    )
    is_resident = (
        cluster.is_one_gpu
        and pairs.images.nbytes + pairs.masks.nbytes <= RESIDENT_BYTES
    )
    if is_resident:
        advance = _on_device(trainer, pairs)
    else:
        share = cluster.share(params.batch_size)
        advance = _streamed(trainer, pairs, progress.epoch, share)
    steps_per_epoch = dataset.steps_per_epoch(len(pairs), params.batch_size)
    steps = steps_per_epoch * params.epochs
    logger.info(
        "%s: %s parameters; %d epochs of %d steps",
        params.architecture,
        f"{trainer.model.count_params():,}",
        params.epochs,
        steps_per_epoch,
    )
    sizes = dataset.image_sizes(params)
    costs = [size**2 for size in sizes]
    curves = curves if cluster.is_chief else None
    with (
        _naming_the_saved_epoch(checkpoint, params.epochs),
        closing(Report(costs, progress.history, curves)) as report,
    ):
        while progress.epoch < params.epochs and not _is_stalled(progress, params):
            found, rates = [], [0.0]
            first = progress.epoch * steps_per_epoch
            interval = params.gradient_log_interval
            longest = STEPS_PER_CALL if is_resident else 1
            for part in _parts(first, steps_per_epoch, interval, longest):
                step = first + part.start
                if interval and step % interval == 0:
                    progress.gradients += [(step, *row) for row in probe.norms()]
                rates = [
                    learning_rate_at(first + place, steps, params)
                    for place in range(part.start, part.stop)
                ]
                # Read at the end of the epoch, so that a GPU never waits for Python.
                found.append(advance(progress.epoch, part, rates))
                report.step(progress.epoch, steps_per_epoch, len(rates))
            values = np.concatenate([np.array(part, np.float64) for part in found])
            _require_finite(values[:, 0], first, params)
            size = sizes[progress.epoch]
            progress.epoch += 1
            loss, dice = values.mean(axis=0)
            row = {
                "epoch": progress.epoch,
                "image_size": size,
                "loss": loss,
                "dice": dice,
                "learning_rate": rates[-1],
            }
            if len(monitor):
                loss, dice = trainer.evaluate(monitor.images, monitor.masks)
                row |= {"monitor_loss": loss, "monitor_dice": dice}
                if dice > progress.best_dice:
                    progress.best_dice, progress.best_epoch = dice, progress.epoch
                    progress.weights = trainer.weights()
            progress.history.append(row)
            if cluster.is_chief and checkpoint.is_due():
                _save(checkpoint, trainer, progress)
            report.epoch(row)
    if not len(monitor):
        progress.weights = trainer.weights()
        return progress
    logger.info(
        "the weights of epoch %d are kept: monitored Dice %.4f",
        progress.best_epoch,
        progress.best_dice,
    )
    return progress


@contextmanager
def _naming_the_saved_epoch(checkpoint: Checkpoint, epochs: int) -> Iterator[None]:
    """Logs the epoch that an interrupted training can go on from."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint.table:
            saved = checkpoint.table["epoch"]
            logger.info("the state after epoch %d of %d is kept", saved, epochs)
        raise


def _streamed(
    trainer: Trainer, pairs: dataset.Arrays, epoch: int, share: slice
) -> Advance:
    """Steps whose batches the host makes, from an epoch on, one per call."""
    batches = iter(
        dataset.training_batches(pairs, trainer.params, first=epoch, share=share)
    )
    return lambda _epoch, _part, rates: [
        trainer.train_step(next(batches), rate) for rate in rates
    ]


def _on_device(trainer: Trainer, pairs: dataset.Arrays) -> Advance:
    """Steps that gather, augment and learn from pairs on the device."""
    params, sizes = trainer.params, dataset.image_sizes(trainer.params)

    @lru_cache(1)  # the small images leave the device before the large ones come
    def steps_at(size: int) -> Callable[..., Any]:
        return trainer.steps_on_device(
            pairs if size == params.image_size else pairs.halved()
        )

    def advance(epoch: int, part: slice, rates: list[float]) -> Any:
        plan = dataset.step_plan(len(pairs), params, epoch, part)
        return steps_at(sizes[epoch])(*plan, np.array(rates, np.float32))

    return advance


def _parts(first: int, count: int, interval: int, longest: int) -> Iterator[slice]:
    """Cuts an epoch's `count` steps into calls of at most `longest` steps.

    A call ends where the gradients are probed, every `interval` steps of the training,
    in which the epoch's first step is `first`.
    """
    start = 0
    while start < count:
        to_probe = interval - (first + start) % interval if interval else count
        stop = min(start + min(to_probe, longest), count)
        yield slice(start, stop)
        start = stop


def _resumed(trainer: Trainer, checkpoint: Checkpoint) -> Progress:
    """Restores a trainer and its progress from a checkpoint, if there is one."""
    if (saved := checkpoint.load()) is None:
        return Progress()
    arrays, table = saved
    trainer.set_state(arrays["state"])
    progress = Progress(**table, weights=arrays.get("weights", []))
    logger.info("going on after epoch %d of %d", progress.epoch, trainer.params.epochs)
    return progress


def _require_finite(losses: np.ndarray, first: int, params: TrainParams) -> None:
    """Raises PipelineError with the first step whose loss is not finite."""
    (steps,) = np.nonzero(~np.isfinite(losses))
    if len(steps):
        raise PipelineError(
            f"train: the loss is {losses[steps[0]]} at step {first + steps[0]}; lower "
            f"train.learning_rate ({params.learning_rate}) and run `dvc repro`"
        )


def _save(checkpoint: Checkpoint, trainer: Trainer, progress: Progress) -> None:
    table = asdict(replace(progress, weights=[]))
    del table["weights"]
    checkpoint.save({"state": trainer.state(), "weights": progress.weights}, table)


def _is_stalled(progress: Progress, params: TrainParams) -> bool:
    patience = params.early_stopping_patience
    if not patience or progress.epoch - progress.best_epoch < patience:
        return False
    logger.info("no better monitored Dice for %d epochs; stopping early", patience)
    return True

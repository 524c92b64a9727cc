"""Progress of a training: a bar or log lines, and TensorBoard curves."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from stages.core import files

logger = logging.getLogger(__name__)

LINES = 20  # in the log of a training, besides those of its first and last epoch


class Report:
    """The mean loss and Dice of each epoch, with the time left.

    On a terminal it is one bar for the whole training; elsewhere, a line every few
    epochs. TensorBoard gets every epoch.
    """

    def __init__(
        self,
        costs: Sequence[float],
        history: Sequence[dict[str, float]],
        curves: Path | None,
    ) -> None:
        """Starts after the epochs in `history`.

        `costs` are the relative times of the epochs, and `curves` TensorBoard's folder,
        which is written anew; None for a host that only logs.
        """
        self._costs = costs
        self._bar = tqdm(
            desc="train",
            total=sum(costs),
            initial=sum(costs[: len(history)]),
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
            disable=None if curves else True,  # None: unless this is no terminal
        )
        self._writer = None
        if curves:
            files.remove(curves)
            self._writer = tf.summary.create_file_writer(str(curves))
        for row in history:
            self._write(row)
        self._worked = 0.0
        self._since = 0.0

    def step(self, epoch: int, steps_per_epoch: int, count: int) -> None:
        """Counts steps of an epoch, from 0."""
        work = self._costs[epoch] * count / steps_per_epoch
        self._bar.update(work)
        if self._since:
            self._worked += work
        else:  # the first step compiles, which says nothing about the others
            self._since = time.monotonic()

    def epoch(self, row: dict[str, float]) -> None:
        """Shows a finished epoch: a row of `history.csv`."""
        self._write(row)
        epoch, epochs = int(row["epoch"]), len(self._costs)
        numbers = f"loss {row['loss']:.4f}, Dice {row['dice']:.4f}"
        if "monitor_dice" in row:
            numbers += f", monitored Dice {row['monitor_dice']:.4f}"
        self._bar.set_postfix_str(f"epoch {epoch} of {epochs}: {numbers}")
        if self._bar.disable and (
            epoch in (1, epochs) or epoch % math.ceil(epochs / LINES) == 0
        ):
            speed = (time.monotonic() - self._since) / max(self._worked, 1e-9)
            left = tqdm.format_interval(speed * sum(self._costs[epoch:]))
            logger.info(
                "epoch %d of %d: %s; about %s left", epoch, epochs, numbers, left
            )

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()
        if self._writer:
            self._writer.close()

    def _write(self, row: dict[str, float]) -> None:
        if not self._writer:
            return
        with self._writer.as_default(step=int(row["epoch"])):
            for name in row.keys() - {"epoch"}:
                tf.summary.scalar(name, row[name])
        self._writer.flush()

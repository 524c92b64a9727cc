"""Gradient norms of each part of the network from each supervised head."""

import numpy as np
import tensorflow as tf

from stages.nn.models import levels
from stages.nn.supervision import supervised
from stages.nn.trainer import Trainer


class GradientProbe:
    """Measures gradient norms on a fixed batch, without changing the network.

    They show whether a loss at a coarser level brings more gradient to early layers.
    """

    def __init__(self, trainer: Trainer, images: np.ndarray, masks: np.ndarray) -> None:
        """Fixes the batch: uint8 images (B, S, S, C) and masks (B, S, S, 1)."""
        self._trainer = trainer
        self._batch = [tf.cast(a, tf.float32) / 255 for a in (images, masks)]
        variables = trainer.model.trainable_variables
        self.parts = list(dict.fromkeys(part_of(v.path) for v in variables))
        # Every device takes the whole batch, so that each has the same result.
        self._compiled = tf.function(
            lambda *batch: trainer.strategy.run(self._norms, args=batch)
        )

    def norms(self) -> list[tuple[int, str, float]]:
        """Rows of (head, part, L2 norm), weighted as in the loss."""
        tables = self._trainer.strategy.experimental_local_results(
            self._compiled(*self._batch)
        )
        table = tables[0].numpy()  # (heads, parts)
        return [
            (head, part, float(table[head, place]))
            for head in range(len(table))
            for place, part in enumerate(self.parts)
        ]

    def _norms(self, images: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        model, params = self._trainer.model, self._trainer.params
        variables = model.trainable_variables
        statistics = [tf.identity(v) for v in model.non_trainable_variables]
        # In mixed_float16, small gradients are 0 unless the loss is scaled up.
        scale = self._trainer.optimizer.scale_loss(tf.constant(1.0))
        with tf.GradientTape(persistent=True) as tape:
            losses = [
                scale
                * tf.reduce_mean(
                    supervised(masks, [level], loss=params.loss, weights=[weight])
                )
                for level, weight in zip(
                    levels(model(images, training=True)),
                    params.supervision_weights,
                    strict=True,
                )
            ]
        rows = []
        for loss in losses:
            squares = dict.fromkeys(self.parts, tf.constant(0.0))
            gradients = tape.gradient(loss, variables)
            for variable, gradient in zip(variables, gradients, strict=True):
                if gradient is not None:
                    square = tf.reduce_sum(tf.square(tf.cast(gradient, tf.float32)))
                    squares[part_of(variable.path)] += square
            rows.append(tf.sqrt(tf.stack(list(squares.values()))) / scale)
        # Undo what batch norm learned from this batch.
        for variable, value in zip(
            model.non_trainable_variables, statistics, strict=True
        ):
            variable.assign(value)
        return tf.stack(rows)


def part_of(path: str) -> str:
    """The part of the network of a variable: `encoder_0`, `middle`, `head_1`."""
    words = path.split("/")[-2].split("_")
    return "_".join(words[:2]) if len(words) > 1 and words[1].isdigit() else words[0]

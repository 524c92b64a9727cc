"""A network, its optimiser and its compiled step, on one device or many."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.core.errors import PipelineError
from stages.core.params import TrainParams
from stages.nn import dataset, models, optimizers
from stages.nn.runtime import precision
from stages.nn.supervision import hard_dice, supervised


def learning_rate_at(step: int, steps: int, params: TrainParams) -> float:
    """Learning rate of a step.

    A linear warm-up over `warmup_fraction` of the steps, then by name: `constant`;
    `cosine` down to 0; `polynomial` `(1 - t)^0.9`, as in nnU-Net; `one_cycle`, which
    starts at 1/25 of the peak and ends at 1/10,000 of it (Smith 2018). `step` counts
    from 0, `steps` are those of the whole training.
    """
    peak = params.learning_rate
    warmup = round(params.warmup_fraction * steps)
    one_cycle = params.learning_rate_schedule == "one_cycle"
    if step < warmup:
        low = peak / 25 if one_cycle else 0.0
        return low + (peak - low) * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    match params.learning_rate_schedule:
        case "constant":
            return peak
        case "polynomial":
            return peak * (1 - progress) ** 0.9
        case _:
            low = peak / 10_000 if one_cycle else 0.0
            return low + (peak - low) * (1 + math.cos(math.pi * progress)) / 2


class Trainer:
    """A network and its optimiser, with compiled steps for every device."""

    def __init__(
        self, params: TrainParams, strategy: tf.distribute.Strategy | None = None
    ) -> None:
        """Builds the network, for images of any size, and its optimiser.

        Raises:
            PipelineError: If XLA is asked of several devices.
        """
        self.params = params
        self.strategy = strategy or tf.distribute.get_strategy()
        self._num_replicas = self.strategy.num_replicas_in_sync
        if params.jit_compile and self._num_replicas > 1:
            raise PipelineError(
                "train.jit_compile should be false with several devices, found true: "
                "XLA compiles no sum over them here; set it to false, or let one "
                "device be seen (CUDA_VISIBLE_DEVICES)"
            )
        with self.strategy.scope(), precision(params.precision):
            self.model = models.build(params, any_size=True)
            for layer in self.model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    # Else each device would normalise by its own share of the batch,
                    # and the result would depend on their number.
                    layer.synchronized = self._num_replicas > 1
            optimizer = getattr(optimizers, params.optimizer)(params)
            if params.precision == "mixed_float16":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(self.model.trainable_variables)
            self.optimizer = optimizer
        self._train = tf.function(self._train_step)
        self._evaluate = tf.function(self._evaluate_step, reduce_retracing=True)

    def train_step(
        self, batch: Any, learning_rate: float
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step; returns mean loss and mean Dice over the global batch.

        The batch is images (B, S, S, C) and masks (B, S, S, 1); each of several hosts
        passes its own rows.
        """
        if self._num_replicas > 1:
            images, masks = batch
            local = len(self.strategy.extended.worker_devices)
            size = len(images) // local

            def part(context: tf.distribute.experimental.ValueContext) -> Any:
                place = context.replica_id_in_sync_group % local
                rows = slice(place * size, (place + 1) * size)
                return images[rows], masks[rows]

            spread = self.strategy.experimental_distribute_values_from_function
            batch = spread(part)
        return self._train(batch, tf.constant(learning_rate, tf.float32))

    def steps_on_device(self, pairs: dataset.Arrays) -> Callable[..., tf.Tensor]:
        """Copies pairs to the device, and compiles any number of steps on them.

        Returns:
            A function of rows (K, B) int32 and draws (K, 2) int32, both of
            `dataset.step_plan`, and learning rates (K,) float32. It trains K steps in
            one call that nothing else waits for, and returns the mean loss and Dice
            of each, (K, 2).
        """
        # TensorFlow gathers no uint8 on a GPU, so eight pixels at a time.
        images, masks = (
            tf.constant(pixels.reshape(len(pairs), -1).view(np.int64))
            for pixels in (pairs.images, pairs.masks)
        )

        def step(plan: Any) -> tf.Tensor:
            rows, draw, rate = plan
            taken = (
                tf.reshape(
                    tf.bitcast(tf.gather(held, rows), tf.uint8),
                    (self.params.batch_size, *pixels.shape[1:]),
                )
                for held, pixels in ((images, pairs.images), (masks, pairs.masks))
            )
            batch = dataset.augment(
                *taken,
                seed=draw,
                params=self.params.augmentation,
                warp=dataset.warp_by_ops,
            )
            return tf.stack(self._train_step(batch, rate))

        return tf.function(
            lambda *plan: tf.map_fn(
                step, plan, parallel_iterations=1, fn_output_signature=tf.float32
            ),
            input_signature=[
                tf.TensorSpec((None, self.params.batch_size), tf.int32),
                tf.TensorSpec((None, 2), tf.int32),
                tf.TensorSpec((None,), tf.float32),
            ],
            autograph=False,
        )

    def _train_step(self, batch: Any, learning_rate: tf.Tensor) -> Any:
        self.optimizer.learning_rate.assign(learning_rate)
        sums = self.strategy.run(self._replica_step, args=(batch,))
        return [
            self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            / self.params.batch_size
            for value in sums
        ]

    def _replica_step(self, batch: Any) -> Any:
        update = self._update
        if self.params.jit_compile:
            update = tf.function(update, jit_compile=True)
        return update(*batch)

    def _update(self, images: tf.Tensor, masks: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            losses, dice = self._losses(images, masks, training=True)
            # The mean over the global batch, whatever share this replica holds.
            loss = tf.reduce_sum(losses) / self.params.batch_size
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        if self.params.precision == "mixed_float16" and self._num_replicas > 1:
            gradients = finite_together(gradients)
        # apply() sums the gradients over replicas.
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return tf.reduce_sum(losses), tf.reduce_sum(dice)

    def _losses(self, images: tf.Tensor, masks: tf.Tensor, *, training: bool) -> Any:
        """Loss and Dice per image, each (B,)."""
        params = self.params
        levels = models.levels(self.model(images, training=training))
        losses = supervised(
            masks, levels, loss=params.loss, weights=params.supervision_weights
        )
        return losses, hard_dice(masks, tf.cast(levels[0], tf.float32))

    def evaluate(self, images: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
        """Mean loss and Dice of uint8 arrays at the network's size.

        With averaged weights, if `ema_momentum` is above 0.
        """
        size = self.params.batch_size
        parts = []
        with self.averaged_weights():
            for start in range(0, len(images), size):
                batch = [
                    tf.cast(values[start : start + size], tf.float32) / 255
                    for values in (images, masks)
                ]
                # Every device takes the whole batch: the first one's values are all.
                values = self._evaluate(*batch)
                parts.append(
                    [
                        self.strategy.experimental_local_results(v)[0].numpy()
                        for v in values
                    ]
                )
        loss, dice = np.concatenate(parts, axis=1).mean(axis=1)
        return float(loss), float(dice)

    def _evaluate_step(self, *batch: tf.Tensor) -> Any:
        return self.strategy.run(
            lambda images, masks: self._losses(images, masks, training=False), batch
        )

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts averaged weights in place for a while, if they are averaged."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not optimizer.use_ema:
            yield
            return
        variables = self.model.trainable_variables
        saved = [v.numpy() for v in variables]
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(variables, saved, strict=True):
                variable.assign(value)

    def weights(self) -> list[np.ndarray]:
        """The weights that ship: averaged, with the batch-norm statistics."""
        with self.averaged_weights():
            return self.model.get_weights()

    def state(self) -> list[np.ndarray]:
        """Everything that a resumed training needs, as arrays."""
        variables = [*self.model.variables, *self.optimizer.variables]
        return [variable.numpy() for variable in variables]

    def set_state(self, values: list[np.ndarray]) -> None:
        """Restores a `state` of the same network."""
        variables = [*self.model.variables, *self.optimizer.variables]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def finite_together(gradients: list[Any]) -> list[Any]:
    """Makes gradients finite on every device, or on none.

    A non-finite gradient lowers the loss scale, and Keras has each device look at its
    own gradients alone: their scales would diverge.
    """
    # A sum of zeros, or NaN if a gradient is not finite.
    marks = [tf.reduce_sum(tf.cast(g, tf.float32) * 0) for g in gradients]
    mark = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, tf.add_n(marks)
    )
    return [g + tf.cast(mark, g.dtype) for g in gradients]

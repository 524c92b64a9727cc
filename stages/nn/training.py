"""One train step for one device, many or many hosts; its schedule, state and probe."""

import hashlib
import io
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.core import files
from stages.core.errors import PipelineError
from stages.core.params import TrainParams
from stages.nn.losses import hard_dice, supervised
from stages.nn.models import levels as outputs

logger = logging.getLogger(__name__)


def configure_runtime(threads: int) -> None:
    """Pins CPU threads and deterministic kernels; call before TensorFlow does work.

    Another number of threads sums in another order and gives other bits.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(2)
    except RuntimeError:
        logger.warning("TensorFlow is already running; CPU threads stay as they are")
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def seed_everything(seed: int, *, deterministic: bool = True) -> None:
    """Seeds Python, NumPy and TensorFlow; refuses nondeterministic kernels.

    XLA has no deterministic gradient of max pooling, so that `train.jit_compile`
    trades equal bits for speed: pass `deterministic=False` with it.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def learning_rate_at(step: int, steps: int, params: TrainParams) -> float:
    """Learning rate of a step.

    A linear climb over `warmup_fraction` of the steps, then by name: `constant`;
    `cosine` down to 0; `polynomial` `(1 - t)^0.9`, as nnU-Net decays; `one_cycle`,
    which starts at 1/25 of the highest rate and ends at 1/10,000 of it (Smith 2018).

    Args:
        step: From 0.
        steps: In the whole training.
        params: learning_rate, learning_rate_schedule, warmup_fraction.
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
    """A network, its optimiser and its compiled step, under a distribution strategy."""

    def __init__(
        self,
        build: Callable[[], keras.Model],
        params: TrainParams,
        *,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Builds the network and its optimiser.

        Args:
            build: Makes the network; called under the strategy and precision.
            params: Of the train section.
            strategy: Default is one device.

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
            self.model = build()
            for layer in self.model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    # Else each device would normalise by its own share of the batch,
                    # and the result would depend on how many there are.
                    layer.synchronized = self._num_replicas > 1
            optimizer = keras.optimizers.Adam(
                learning_rate=params.learning_rate,
                beta_1=params.beta_1,
                beta_2=params.beta_2,
                use_ema=params.ema_momentum > 0,
                ema_momentum=params.ema_momentum or 0.99,
                ema_overwrite_frequency=None,
            )
            if params.precision == "mixed_float16":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(self.model.trainable_variables)
            self.optimizer = optimizer
        self._train = tf.function(self._train_step, jit_compile=False)
        self._evaluate = tf.function(self._evaluate_step, reduce_retracing=True)

    def train_step(
        self, batch: Any, learning_rate: float
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step over the global batch.

        Args:
            batch: Images (B, S, S, C) and masks (B, S, S, 1); of several hosts each
                passes its share.
            learning_rate: For this step.

        Returns:
            Mean loss and mean Dice over the global batch.
        """
        if self._num_replicas > 1:
            images, masks = batch
            local = len(self.strategy.extended.worker_devices)
            size = len(images) // local

            def part(replica: int) -> Any:
                mine = slice(replica % local * size, (replica % local + 1) * size)
                return images[mine], masks[mine]

            batch = self._spread(part)
        return self._train(batch, tf.constant(learning_rate, tf.float32))

    def _spread(self, part: Callable[[int], Any]) -> Any:
        """What each device is given, by its place among all of them."""
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: part(context.replica_id_in_sync_group)
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
        images, masks = batch
        compute = self._forward_backward
        if self.params.jit_compile:
            compute = tf.function(compute, jit_compile=True)
        gradients, loss, dice = compute(images, masks)
        if self.params.precision == "mixed_float16" and self._num_replicas > 1:
            gradients = finite_together(gradients)
        # apply() sums the gradients over replicas.
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return loss, dice

    def _forward_backward(self, images: tf.Tensor, masks: tf.Tensor) -> Any:
        params = self.params
        with tf.GradientTape() as tape:
            levels = outputs(self.model(images, training=True))
            losses = supervised(
                masks, levels, loss=params.loss, weights=params.supervision_weights
            )
            # The mean over the global batch, whatever share this replica holds.
            loss = tf.reduce_sum(losses) / params.batch_size
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        dice = tf.reduce_sum(hard_dice(masks, tf.cast(levels[0], tf.float32)))
        return gradients, tf.reduce_sum(losses), dice

    def evaluate(self, images: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
        """Mean loss and Dice of uint8 arrays at the network's size, as in training.

        With the averaged weights, if they are averaged.
        """
        size = self.params.batch_size
        losses, dices = [], []
        with self.averaged_weights():
            for start in range(0, len(images), size):
                rows = np.arange(start, min(start + size, len(images)))
                each = -(-len(rows) // self._num_replicas)
                # Every device takes as many; the last ones take some again.
                taken = np.resize(rows, each * self._num_replicas)

                def part(replica: int, taken: Any = taken, each: int = each) -> Any:
                    mine = taken[replica * each : (replica + 1) * each]
                    return tuple(
                        tf.cast(values[mine], tf.float32) / 255
                        for values in (images, masks)
                    )

                loss, dice = self._evaluate(self._spread(part))
                losses.append(loss.numpy()[: len(rows)])
                dices.append(dice.numpy()[: len(rows)])
        return (
            float(np.concatenate(losses).mean()),
            float(np.concatenate(dices).mean()),
        )

    def _evaluate_step(self, parts: Any) -> Any:
        values = self.strategy.run(self._replica_evaluate, args=parts)
        return [self.strategy.gather(value, axis=0) for value in values]

    def _replica_evaluate(self, images: tf.Tensor, masks: tf.Tensor) -> Any:
        params = self.params
        levels = outputs(self.model(images, training=False))
        losses = supervised(
            masks, levels, loss=params.loss, weights=params.supervision_weights
        )
        return losses, hard_dice(masks, tf.cast(levels[0], tf.float32))

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the averaged weights in place for a while; none, then as they are."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not optimizer.use_ema:
            yield
            return
        variables = self.model.trainable_variables
        saved = [v.numpy() for v in variables]
        for variable, average in zip(
            variables, optimizer._model_variables_moving_average, strict=True
        ):
            variable.assign(average)
        yield
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)

    def weights(self) -> list[np.ndarray]:
        """What ships: the averaged weights and the batch-norm statistics."""
        with self.averaged_weights():
            return self.model.get_weights()

    def state(self) -> list[np.ndarray]:
        """Everything a resumed run needs, as arrays."""
        variables = [*self.model.variables, *self.optimizer.variables]
        return [variable.numpy() for variable in variables]

    def set_state(self, values: list[np.ndarray]) -> None:
        """Undoes `state`.

        Raises:
            ValueError: If the values are of another network.
        """
        variables = [*self.model.variables, *self.optimizer.variables]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


class GradientProbe:
    """Norms of the gradient that reaches each part of the network from each head.

    On a fixed batch, in training mode; what batch norm would remember of it is
    undone. It answers the article's question: does a loss at a coarser level bring
    more gradient to the early layers?
    """

    def __init__(self, trainer: Trainer, images: np.ndarray, masks: np.ndarray) -> None:
        """Fixes the batch: uint8 images (B, S, S, C) and masks (B, S, S, 1)."""
        self._model = trainer.model
        self._strategy = trainer.strategy
        self._loss = trainer.params.loss
        self._weights = trainer.params.supervision_weights
        self._batch = [tf.cast(a, tf.float32) / 255 for a in (images, masks)]
        self.parts = list(
            dict.fromkeys(part_of(v.path) for v in self._model.trainable_variables)
        )
        # Every device is given the whole batch, so that each has the answer.
        self._compiled = tf.function(
            lambda *batch: self._strategy.run(self._norms, args=batch)
        )

    def norms(self) -> list[tuple[int, str, float]]:
        """Rows of (head, part, L2 norm), weighted as in the loss."""
        tables = self._strategy.experimental_local_results(self._compiled(*self._batch))
        table = tables[0].numpy()  # (heads, parts)
        return [
            (head, part, float(table[head, place]))
            for head in range(len(table))
            for place, part in enumerate(self.parts)
        ]

    def _norms(self, images: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        variables = self._model.trainable_variables
        remembered = [tf.identity(v) for v in self._model.non_trainable_variables]
        with tf.GradientTape(persistent=True) as tape:
            levels = outputs(self._model(images, training=True))
            losses = [
                tf.reduce_mean(
                    supervised(masks, [level], loss=self._loss, weights=[weight])
                )
                for level, weight in zip(levels, self._weights, strict=True)
            ]
        rows = []
        for loss in losses:
            squares = dict.fromkeys(self.parts, tf.constant(0.0))
            gradients = tape.gradient(loss, variables)
            for variable, gradient in zip(variables, gradients, strict=True):
                if gradient is not None:
                    square = tf.reduce_sum(tf.square(tf.cast(gradient, tf.float32)))
                    squares[part_of(variable.path)] += square
            rows.append(tf.sqrt(tf.stack(list(squares.values()))))
        for variable, value in zip(
            self._model.non_trainable_variables, remembered, strict=True
        ):
            variable.assign(value)
        return tf.stack(rows)


def finite_together(gradients: list[Any]) -> list[Any]:
    """Gradients that are all finite on every device, or on none.

    The loss scale is lowered where one is not, and Keras has each device look at its
    own alone: they would part.
    """
    # A sum of nothing but 0, or not a number if a gradient is not finite.
    marks = [tf.reduce_sum(tf.cast(g, tf.float32) * 0) for g in gradients]
    mark = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, tf.add_n(marks)
    )
    return [g + tf.cast(mark, g.dtype) for g in gradients]


def part_of(path: str) -> str:
    """The part of the network a variable is in: `encoder_0`, `middle`, `head_1`."""
    words = path.split("/")[-2].split("_")
    return "_".join(words[:2]) if len(words) > 1 and words[1].isdigit() else words[0]


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Builds layers under a Keras dtype policy, then puts the former one back."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


class Checkpoint:
    """The state after an epoch, in one file that is whole or is not believed.

    No pickle: an archive of arrays and a JSON table, each with its CRC, bound by a
    fingerprint to the data, the params and the code that made it.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Keeps its one file under `folder`."""
        self._path = folder / "checkpoint.npz"
        self._fingerprint = fingerprint

    def save(self, arrays: dict[str, list[np.ndarray]], table: dict[str, Any]) -> None:
        """Replaces the checkpoint.

        Args:
            arrays: Named lists of arrays.
            table: What JSON can hold, exactly: floats keep all their digits.
        """
        flat = {
            f"{name}/{index:05d}": value
            for name, values in arrays.items()
            for index, value in enumerate(values)
        }
        head = {"fingerprint": self._fingerprint, "table": table}
        flat["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        with files.replacing(self._path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **flat)

    def load(self) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]] | None:
        """The last state, or None: there is none, it is corrupt or of another run."""
        try:
            with np.load(
                io.BytesIO(self._path.read_bytes()), allow_pickle=False
            ) as archive:
                head = json.loads(archive["head"].tobytes())
                if head["fingerprint"] != self._fingerprint:
                    logger.info("the checkpoint is of another training; starting over")
                    return None
                arrays: dict[str, list[np.ndarray]] = {}
                for key in sorted(archive.files):
                    if "/" in key:
                        arrays.setdefault(key.split("/")[0], []).append(archive[key])
                return arrays, head["table"]
        except FileNotFoundError:
            return None
        except Exception as error:  # spoilt bytes make NumPy raise what it likes
            reason = " ".join(str(error).split())[:160]
            logger.warning(
                "%s is corrupt (%s); training starts over", self._path, reason
            )
            return None


def fingerprint(*parts: bytes | np.ndarray) -> str:
    """One hash of everything a training depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else part)
        digest.update(b"\0")
    return digest.hexdigest()

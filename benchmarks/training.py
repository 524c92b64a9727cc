"""Training pieces that benchmarks time: arrays, batches, a step with nothing around it.

Importing this imports TensorFlow.
"""

from collections.abc import Callable, Sequence
from typing import Any

import stages.nn  # noqa: F401  # before Keras: its start-up notices stay out of the log

# isort: split
import keras
import numpy as np
import tensorflow as tf

from benchmarks.harness import Options
from stages.core.imaging import preprocess, soft_mask
from stages.core.params import TrainParams
from stages.datasets.pairs import Pair
from stages.nn import dataset, losses, models, optimizers
from stages.nn.runtime import configure_runtime, precision, seed_everything
from stages.nn.supervision import supervised

TINY: dict[str, Any] = {
    "image_size": 32,
    "filters": [4, 8],
    "supervision_weights": [1.0],
    "batch_size": 2,
    "epochs": 2,
    "gradient_log_interval": 0,
}


def params_of(params: TrainParams, options: Options) -> TrainParams:
    """The `train` section; tiny when quick. Pins threads and seeds as train does."""
    if options.quick:
        params = params.model_copy(update=TINY)
    configure_runtime(params.threads)
    seed_everything(params.seed, deterministic=not params.jit_compile)
    return params


def arrays_of(pairs: Sequence[Pair], params: TrainParams) -> dataset.Arrays:
    """Pairs as `train` holds them: decoded once, uint8, at the network's size."""
    size = params.image_size
    images, masks = [], []
    for pair in pairs:
        image, mask = pair.decoded(params.image_channels)
        images.append(preprocess(image, size))
        masks.append(soft_mask(mask, size))
    return dataset.Arrays(np.stack(images), np.stack(masks))


def bare_step(params: TrainParams, arrays: dataset.Arrays) -> Callable[[], float]:
    """A compiled step on one constant batch: the limit of any loop around it.

    The same network, loss and optimiser, and nothing else: no schedule, no Dice, no
    distribution strategy, no input.
    """
    with precision(params.precision):
        model = models.build(params)
    optimizer = getattr(optimizers, params.optimizer)(params)
    optimizer.build(model.trainable_variables)
    places = np.resize(np.arange(len(arrays)), params.batch_size)
    images, masks = (
        tf.constant(values[places], tf.float32) / 255
        for values in (arrays.images, arrays.masks)
    )

    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            levels = models.levels(model(images, training=True))
            losses = supervised(
                masks, levels, loss=params.loss, weights=params.supervision_weights
            )
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    compiled = tf.function(step, jit_compile=params.jit_compile)
    return lambda: float(compiled())


def keras_epoch(params: TrainParams, arrays: dataset.Arrays) -> Callable[[], object]:
    """An epoch of Keras' `fit` as in its guides: shuffled, batched, prefetched."""
    model = models.build(params)
    heads = range(len(params.supervision_weights))
    model.compile(
        getattr(optimizers, params.optimizer)(params),
        loss=[getattr(losses, params.loss) for _ in heads],
        loss_weights=params.supervision_weights,
    )

    def floats(image: tf.Tensor, mask: tf.Tensor) -> Any:
        image, mask = (tf.cast(values, tf.float32) / 255 for values in (image, mask))
        targets = (tf.nn.avg_pool2d(mask[None], 2**k, 2**k, "VALID") for k in heads)
        return image, tuple(target[0] for target in targets)

    batches = (
        tf.data.Dataset.from_tensor_slices((arrays.images, arrays.masks))
        .shuffle(len(arrays))
        .map(floats, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(params.batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
    return lambda: model.fit(batches, verbose=0)


def article_epoch(
    params: TrainParams, arrays: dataset.Arrays, *, corrected: bool
) -> Callable[[], None]:
    """An epoch of the article's loop: eager, in file order, the last batch dropped.

    Its cross-entropy takes logits for probabilities, and a `return` inside the loop
    over the supervised levels ends it after the first. `corrected` mends both.
    """
    model = models.build(params)
    optimizer = optimizers.adam(params)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=corrected)
    weights = params.supervision_weights[: None if corrected else 1]
    size = params.batch_size

    def epoch() -> None:
        for start in range(0, len(arrays) - size + 1, size):
            images, masks = (
                tf.constant(values[start : start + size], tf.float32) / 255
                for values in (arrays.images, arrays.masks)
            )
            with tf.GradientTape() as tape:
                loss = 0.0
                for logits, weight in zip(
                    models.levels(model(images, training=True)), weights, strict=False
                ):
                    target = tf.image.resize(masks, logits.shape[1:3])
                    loss += weight * cross_entropy(target, logits)
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)

    return epoch

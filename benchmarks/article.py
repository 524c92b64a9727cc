"""The article's own way to train, written afresh: what a speed-up is measured against.

An eager step, Adam at 1e-4 with betas 0.9 and 0.99, batch norm with momentum 0.99,
batch 16, a loader as `ImageDataGenerator` is one: image files read, resized and divided
by 255 one batch after the other, while nothing else happens. Its cross-entropy takes
linear outputs for probabilities, and its loop returns inside the sum over levels, so
that only the finest counts: both are part of what it took, and are kept.
Importing this imports TensorFlow.
"""

from collections.abc import Iterator, Sequence

import cv2
import keras
import numpy as np
import tensorflow as tf

from stages.core.params import TrainParams
from stages.datasets.pairs import Pair
from stages.nn import models

BATCH = 16
SETTINGS = {
    "batch_norm_momentum": 0.99,
    "input_normalization": "none",
    "supervision_weights": [1.0],
    "batch_size": BATCH,
}


class Article:
    """A network of the same width and size, and one epoch after the other."""

    def __init__(self, pairs: Sequence[Pair], params: TrainParams) -> None:
        """Builds the network.

        Args:
            pairs: To train on.
            params: Architecture, filters, image_size and channels are taken.
        """
        self._pairs = pairs
        self.params = params.model_copy(update=SETTINGS)
        self.model = models.build(self.params)
        self._optimizer = keras.optimizers.Adam(1e-4, beta_1=0.9, beta_2=0.99)
        self._loss = keras.losses.BinaryCrossentropy(from_logits=False)
        self._draw = np.random.default_rng(params.seed)

    def steps(self) -> Iterator[float]:
        """One epoch, a step at a time; the last, partial batch is left out."""
        order = self._draw.permutation(len(self._pairs))
        batch = min(BATCH, len(order))
        for start in range(0, len(order) - batch + 1, batch):
            images, masks = self._read(order[start : start + batch])
            yield self._step(images, masks)

    def forever(self) -> Iterator[float]:
        """One epoch after the other; its rate is constant."""
        while True:
            yield from self.steps()

    def _step(self, images: np.ndarray, masks: np.ndarray) -> float:
        """Eager: nothing is compiled."""
        with tf.GradientTape() as tape:
            finest = models.levels(self.model(images, training=True))[0]
            loss = self._loss(masks, finest)
        variables = self.model.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return float(loss)

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = self.params.image_size
        flag = cv2.IMREAD_GRAYSCALE
        if self.params.image_channels == 3:
            flag = cv2.IMREAD_COLOR
        images, masks = [], []
        for row in rows:
            pair = self._pairs[row]
            images.append(_resized(pair.image, flag, size))
            masks.append(_resized(pair.mask, cv2.IMREAD_GRAYSCALE, size))
        return np.stack(images), np.stack(masks)


def _resized(content: bytes | None, flag: int, size: int) -> np.ndarray:
    """Nearest, `ImageDataGenerator`'s own; in [0, 1]."""
    pixels = cv2.imdecode(np.frombuffer(content or b"", np.uint8), flag)
    assert pixels is not None
    small = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_NEAREST)
    return small.reshape(size, size, -1).astype(np.float32) / 255

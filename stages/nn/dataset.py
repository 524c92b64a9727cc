"""From pairs to training batches: decoded once, shuffled and augmented by seed."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stages.core import paths
from stages.core.imaging import Grey, preprocess, soft_mask
from stages.core.params import AugmentationParams, TrainParams
from stages.datasets.pairs import Pair, read_pairs

ENCODED_PAIRS = 512  # in memory at a time
# Images, masks and transforms (B, 2, 3) to moved images and masks, 0 to 255.
Warp = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class Arrays:
    """Pairs at the network's size, as uint8: a quarter of the size of floats."""

    images: Grey  # (N, S, S, C)
    masks: Grey  # (N, S, S, 1), share of foreground, 0 to 255

    def __len__(self) -> int:
        return len(self.images)

    def halved(self) -> "Arrays":
        """The same pairs at half the size, each pixel the mean of four."""
        return Arrays(_halved(self.images), _halved(self.masks))


def _halved(pixels: Grey) -> Grey:
    """(N, S, S, C) to (N, S/2, S/2, C), rounded."""
    corners = (pixels[:, y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1))
    total = sum(corners, np.uint16(2))
    return np.asarray(total // np.uint16(4), np.uint8)


def load_arrays(
    pair_ids: Sequence[str],
    *,
    image_size: int,
    channels: int,
    ingested: Path = paths.INGESTED,
) -> Arrays:
    """Decodes and preprocesses pairs on all cores; the result is in their order.

    Raises:
        PipelineError: If a pair is missing or cannot be decoded.
    """
    places = {pair_id: place for place, pair_id in enumerate(pair_ids)}
    images = np.empty((len(places), image_size, image_size, channels), np.uint8)
    masks = np.empty((len(places), image_size, image_size, 1), np.uint8)

    def load(pair: Pair) -> None:
        place = places[pair.pair_id]
        image, mask = pair.decoded(channels)
        images[place] = preprocess(image, image_size)
        masks[place] = soft_mask(mask, image_size)

    pairs = read_pairs(places, ingested)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while list(pool.map(load, islice(pairs, ENCODED_PAIRS))):
            pass
    return Arrays(images, masks)


def image_sizes(params: TrainParams) -> list[int]:
    """The side of the images in each epoch, pixels: half of it in the first ones."""
    low = round(params.low_resolution_fraction * params.epochs)
    size = params.image_size
    return [size // 2] * low + [size] * (params.epochs - low)


def steps_per_epoch(num_pairs: int, batch_size: int) -> int:
    """The number of steps that see every pair."""
    return -(-num_pairs // batch_size)


def epoch_order(
    num_pairs: int, *, batch_size: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The pairs of each step of an epoch, (steps, batch_size).

    Every pair once; the epoch's first pairs fill the last batch, so that none is
    dropped and batch norm never sees a batch of one. Drawn from seed and epoch alone,
    so that a resumed run draws the same.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_pairs)
    steps = steps_per_epoch(num_pairs, batch_size)
    return np.resize(order, steps * batch_size).reshape(steps, batch_size)


def step_plan(
    num_pairs: int, params: TrainParams, epoch: int, steps: slice
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The pairs (K, B) and the seeds of the augmentation (K, 2) of an epoch's steps.

    Those of `batches`, for a device that holds all pairs.
    """
    rows = epoch_order(
        num_pairs, batch_size=params.batch_size, seed=params.seed, epoch=epoch
    )
    places = np.arange(len(rows))
    draws = np.stack([np.full_like(places, _draw(params, epoch)), places], axis=1)
    return rows[steps].astype(np.int32), draws[steps].astype(np.int32)


def _draw(params: TrainParams, epoch: Any) -> Any:
    """The first half of the seeds of an epoch's augmentation; the step is the other."""
    return params.seed * 100_003 + epoch


def training_batches(
    arrays: Arrays, params: TrainParams, *, first: int = 0, share: slice = slice(None)
) -> Iterator[Any]:
    """All batches of a training from epoch `first` on, from 0, small images first.

    `arrays` are all training pairs on every host, and `share` the rows of each batch
    that this one makes.

    Yields:
        Images (B, S, S, C) and masks (B, S, S, 1), float32 in [0, 1].
    """
    low = image_sizes(params).count(params.image_size // 2)
    if first < low:
        yield from batches(arrays.halved(), params, range(first, low), share)
    yield from batches(arrays, params, range(max(first, low), params.epochs), share)


def batches(
    arrays: Arrays, params: TrainParams, epochs: range, share: slice = slice(None)
) -> tf.data.Dataset:
    """Batches of some epochs at one size, as in `training_batches`.

    Augmentation is drawn from (seed, epoch, step): neither parallel workers nor a
    resumed epoch can change it. Batches are made ahead of the steps that take them.

    Several hosts draw the same order and the same augmentation of the whole batch, and
    each makes its own rows of it. Sharding by file would put other pairs together in a
    batch than one process does.
    """
    size, seed = params.batch_size, params.seed
    steps = steps_per_epoch(len(arrays), size)
    rows_made = range(size)[share]
    # None for a whole batch, whose graph then has no slices; with slices, TensorFlow
    # merges factors elsewhere, which changes the last bits.
    part = None if len(rows_made) == size else (rows_made, size)

    # A function of its own: tf.data runs it twice as fast as the same ops in `make`.
    augmented = tf.function(
        lambda *batch, seed: augment(
            *batch, seed=seed, params=params.augmentation, part=part
        ),
        autograph=False,
    )

    def order(epoch: np.int64) -> NDArray[np.int64]:
        drawn = epoch_order(len(arrays), batch_size=size, seed=seed, epoch=int(epoch))
        return drawn[:, share]

    def gather(rows: NDArray[np.int64]) -> tuple[Grey, Grey]:
        return arrays.images[rows], arrays.masks[rows]

    # Stateful functions would run within the train step's own time: under determinism,
    # TensorFlow prefetches only where order cannot matter.
    def steps_of(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = tf.numpy_function(order, [epoch], tf.int64, stateful=False)
        rows = tf.ensure_shape(rows, (steps, len(rows_made)))
        columns = (tf.fill([steps], epoch), tf.range(steps), rows)
        return tf.data.Dataset.from_tensor_slices(columns)

    def make(
        epoch: tf.Tensor, step: tf.Tensor, rows: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images, masks = tf.numpy_function(
            gather, [rows], [tf.uint8, tf.uint8], stateful=False
        )
        images = tf.ensure_shape(images, (len(rows_made), *arrays.images.shape[1:]))
        masks = tf.ensure_shape(masks, (len(rows_made), *arrays.masks.shape[1:]))
        draw = tf.stack([_draw(params, tf.cast(epoch, tf.int32)), step])
        return augmented(images, masks, seed=draw)

    dataset = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(steps_of)
    dataset = dataset.map(make, num_parallel_calls=os.cpu_count(), deterministic=True)
    # Nothing is left to tune; the tuner's thread would delay the end by a second.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def augment(
    images: tf.Tensor,
    masks: tf.Tensor,
    *,
    seed: tf.Tensor,
    params: AugmentationParams,
    part: tuple[range, int] | None = None,
    warp: Warp | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves image and mask together and changes the image's greys.

    Args:
        images: (B, S, S, C) uint8.
        masks: (B, S, S, 1) uint8, share of foreground, 0 to 255.
        seed: (2,) int32; the same seed gives the same batch.
        params: The `train.augmentation` section.
        part: These rows' places in a larger batch, and its size; each row draws the
            same on whichever host makes it.
        warp: `warp_by_opencv` by default, `warp_by_ops` on a GPU.

    Returns:
        Images and masks, same shapes, float32 in [0, 1].
    """
    batch, size = tf.shape(images)[0], images.shape[1]
    places, batch = part or (None, batch)
    stream = iter(range(1000))

    def draw(low: float, high: float, shape: Sequence[int] = ()) -> tf.Tensor:
        key = tf.random.experimental.stateless_fold_in(seed, next(stream))
        return mine(tf.random.stateless_uniform([batch, *shape], key, low, high))

    def mine(drawn: tf.Tensor) -> tf.Tensor:
        return drawn if places is None else drawn[places.start : places.stop]

    transform = _affine(draw, float(size), params)
    images, masks = (warp or warp_by_opencv)(images, masks, transform)
    images, masks = (tf.cast(values, tf.float32) / 255 for values in (images, masks))

    def each(value: tf.Tensor) -> tf.Tensor:
        return value[:, None, None, None]

    # x**gamma as exp(gamma * log x): three times faster, and 0 stays 0.
    exponents = each(tf.exp(draw(-params.gamma, params.gamma)))
    images = tf.exp(exponents * tf.math.log(images))
    if params.bias_field:
        # Uneven exposure: a smooth field over the image.
        field = draw(-params.bias_field, params.bias_field, (4, 4, 1))
        finer = tf.image.resize(tf.eye(4)[None, :, :, None], (size, 4), "bicubic")
        images *= 1 + _both_ways(finer[0, :, :, 0], field)
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    contrast = each(tf.exp(draw(-params.contrast, params.contrast)))
    brightness = each(draw(-params.brightness, params.brightness))
    images = (images - mean) * contrast + mean + brightness
    if params.blur:
        # A share of the 3x3 mean applied twice: softer detectors, resampled images.
        soft = _both_ways(tf.constant(_mean_of_neighbours(size)), images)
        images += each(draw(0.0, params.blur)) * (soft - images)
    if params.noise:
        key = tf.random.experimental.stateless_fold_in(seed, next(stream))
        noise = mine(tf.random.stateless_normal([batch, *images.shape[1:]], key))
        images += each(draw(0.0, params.noise)) * noise
    if params.invert_probability:
        # Some archives store inverted films (MONOCHROME1).
        inverted = each(draw(0.0, 1.0)) < params.invert_probability
        images = tf.where(inverted, 1 - images, images)
    return tf.clip_by_value(images, 0, 1), masks


def _both_ways(matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """A matrix (S, R) applied to columns and to rows: (B, R, R, C) to (B, S, S, C).

    Two products are thirty times faster on a CPU than pooling one channel.
    """
    size, rows = matrix.shape
    channels = values.shape[-1]
    planes = tf.reshape(tf.transpose(values, (0, 3, 1, 2)), (-1, rows, rows))
    down = tf.reshape(tf.matmul(matrix, planes), (-1, rows))
    across = tf.matmul(down, matrix, transpose_b=True)
    planes = tf.reshape(across, (-1, channels, size, size))
    return tf.transpose(planes, (0, 2, 3, 1))


def _mean_of_neighbours(size: int) -> NDArray[np.float32]:
    """The matrix (S, S) that averages three neighbours, applied twice."""
    near = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) <= 1
    once = near / near.sum(axis=1, keepdims=True)
    return (once @ once).astype(np.float32)


def _affine(draw, size: float, params: AugmentationParams) -> tf.Tensor:  # type: ignore[no-untyped-def]
    """Output-to-input transforms about the centre, (B, 2, 3)."""
    angle = draw(-1.0, 1.0) * params.rotation_degrees * np.pi / 180
    scale = tf.exp(draw(-1.0, 1.0) * np.log1p(params.scale_fraction))
    aspect = tf.exp(draw(-0.5, 0.5) * np.log1p(params.aspect_fraction))
    flip = tf.where(draw(0.0, 1.0) < params.flip_probability, -1.0, 1.0)
    shift_x, shift_y = (draw(-1.0, 1.0) * params.shift_fraction * size for _ in "xy")
    a = tf.cos(angle) / (scale * aspect) * flip
    b = -tf.sin(angle) / (scale / aspect)
    c = tf.sin(angle) / (scale * aspect) * flip
    d = tf.cos(angle) / (scale / aspect)
    middle = (size - 1) / 2
    x = middle - a * (middle + shift_x) - b * (middle + shift_y)
    y = middle - c * (middle + shift_x) - d * (middle + shift_y)
    return tf.reshape(tf.stack([a, b, x, c, d, y], axis=1), (-1, 2, 3))


def warp_by_ops(
    images: tf.Tensor, masks: tf.Tensor, transforms: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """`warp_by_opencv` on a GPU, without its rounding to 1/32 pixel and to greys."""
    rows = tf.reshape(transforms, (-1, 6))
    return tuple(
        tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(values, tf.float32),
            transforms=tf.pad(rows, [[0, 0], [0, 2]]),
            output_shape=values.shape[1:3],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )
        for values in (images, masks)
    )


def warp_by_opencv(
    images: tf.Tensor, masks: tf.Tensor, transforms: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Bilinear; pixels from outside the image are black background.

    On a CPU, OpenCV on uint8 takes a quarter of the time of TensorFlow's ops.
    """

    def warp(
        images: Grey, masks: Grey, transforms: NDArray[np.float32]
    ) -> tuple[Grey, Grey]:
        moved = np.empty_like(images), np.empty_like(masks)
        for values, into in zip((images, masks), moved, strict=True):
            for value, transform, target in zip(values, transforms, into, strict=True):
                cv2.warpAffine(
                    value,
                    transform,
                    value.shape[1::-1],
                    dst=target,
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_CONSTANT,
                )
        return moved

    moved = tf.numpy_function(
        warp, [images, masks, transforms], [tf.uint8, tf.uint8], stateful=False
    )
    return tuple(
        tf.ensure_shape(values, before.shape)
        for values, before in zip(moved, (images, masks), strict=True)
    )

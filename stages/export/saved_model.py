"""TensorFlow SavedModel with two signatures: arrays, and encoded PNG bytes.

`serving_default`: `image` (B, S, S, C) float32 in [0, 1] to `probability`
(B, S, S, 1).

`png`: `png` (B,) strings, each a PNG of any size, to `probability` (B, S, S, 1) and
`mask_bytes` (B,) strings, each a PNG of 0 and 255 at its image's own size. It is the
twin of `stages.core.imaging` in TensorFlow, and the tests hold the two together. Its
name ends as TensorFlow Serving wants it for bytes: others would not survive its JSON.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2

from stages.core import canonical, provenance
from stages.core.imaging import Float, Predictor

# A few kilobytes can declare gigabytes; the largest detectors have 15 million.
MAX_PIXELS = 4096 * 4096
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Rec. 601 luma as OpenCV computes it: in 1/32768, rounded.
RED, GREEN, BLUE = 9798, 19235, 3735


def write(
    network: keras.Model,
    path: Path,
    *,
    facts: provenance.Facts,
    threshold: float,
    keep_components: int = 0,
) -> None:
    """Writes the folder, the same bytes for the same network.

    Args:
        network: Images (B, S, S, C) in [0, 1] to probabilities (B, S, S, 1).
        path: Folder to make.
        facts: Provenance to lay beside the graph.
        threshold: A pixel at least this probable is foreground in the mask.
        keep_components: So many regions of it are kept, the largest; 0 keeps all.
    """
    _, size, _, channels = network.input_shape
    image = tf.TensorSpec((None, size, size, channels), tf.float32, name="image")
    png = tf.TensorSpec((None,), tf.string, name="png")

    # Both signatures share this one copy of the network.
    forward = tf.function(
        lambda image: network(image, training=False),
        input_signature=[image],
        autograph=False,
    )

    def serving_default(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probability": forward(image)}

    def from_png(png: tf.Tensor) -> dict[str, tf.Tensor]:
        images, sizes = tf.map_fn(
            lambda one: _read(one, size, channels),
            png,
            fn_output_signature=(
                tf.TensorSpec((size, size, channels), tf.float32),
                tf.TensorSpec((2,), tf.int32),
            ),
            parallel_iterations=1,  # one decoded picture in memory at a time
        )
        prob = forward(images)
        masks = tf.map_fn(
            lambda one: _mask_png(one[0], one[1], threshold, keep_components),
            (prob, sizes),
            fn_output_signature=tf.TensorSpec((), tf.string),
            parallel_iterations=1,
        )
        return {"probability": prob, "mask_bytes": masks}

    module = tf.Module()
    module.weights = [variable.value for variable in network.variables]
    signatures = {
        "serving_default": tf.function(
            serving_default, input_signature=[image], autograph=False
        ),
        "png": tf.function(from_png, input_signature=[png], autograph=False),
    }
    tf.saved_model.save(module, str(path), signatures=signatures)
    canonical.saved_model(
        path,
        graph=saved_model_pb2.SavedModel(),
        fingerprint=fingerprint_pb2.FingerprintDef(),
    )
    provenance.write_beside(path, facts)


def load(path: Path) -> Predictor:
    """Reads the folder with TensorFlow, as a server does."""
    # The loaded object owns the variables: the closure keeps it alive.
    module = tf.saved_model.load(str(path))
    signature = module.signatures["serving_default"]

    def predict(images: Float, _owner: object = module) -> Float:
        prob = signature(image=tf.constant(images))["probability"]
        return np.asarray(prob.numpy(), np.float32)

    return predict


def _read(png: tf.Tensor, size: int, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """PNG bytes to the network's (S, S, C) in [0, 1], and the picture's own size."""
    png = _checked(png)
    # 8 bits become 16 by * 257, so / 257 brings back both kinds; palettes are looked
    # up, transparency is dropped.
    pixels = tf.io.decode_png(png, channels=3, dtype=tf.uint16)
    pixels = tf.round(tf.cast(pixels, tf.float32) / 257)  # (H, W, 3), red first
    if channels == 1:
        weights = tf.constant([RED, GREEN, BLUE], tf.float32)
        # Whole numbers below 2^24: exact in float32.
        luma = tf.reduce_sum(pixels * weights, axis=2, keepdims=True)
        pixels = tf.floor((luma + 16384) / 32768)
    else:
        pixels = pixels[:, :, ::-1]  # OpenCV's order, in which the network learnt
    shape = tf.shape(pixels)[:2]
    resized = _resize_grey(pixels, size)
    return tf.ensure_shape(resized, (size, size, channels)) / 255, shape


def _checked(png: tf.Tensor) -> tf.Tensor:
    """The same bytes, once they are known to be a PNG of not too many pixels.

    Checks must come before what they guard: a graph runs in any order it is free to.
    """
    is_png = tf.strings.length(png) > 32
    # Padded, since there is no prefix of what is shorter than it.
    is_png &= tf.strings.substr(png + PNG_MAGIC, 0, 8) == PNG_MAGIC
    with tf.control_dependencies(
        [tf.debugging.Assert(is_png, ["png should be a PNG file's bytes"])]
    ):
        # Width and height, big-endian, behind the magic and the chunk's name.
        header = tf.io.decode_raw(tf.strings.substr(png, 16, 8), tf.uint8)
    places = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    sides = tf.reduce_sum(tf.reshape(tf.cast(header, tf.int64), (2, 4)) * places, 1)
    allowed = (sides > 0) & (sides <= MAX_PIXELS)
    with tf.control_dependencies(
        [
            tf.debugging.Assert(
                tf.reduce_all(allowed) & (tf.reduce_prod(sides) <= MAX_PIXELS),
                [f"png should have 1 to {MAX_PIXELS} pixels, found sides", sides],
            )
        ]
    ):
        return tf.identity(png)


def _resize_grey(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Twin of `imaging.resize_image`: by area when shrinking, else linearly."""
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    shrinks = (height >= size) & (width >= size)
    rows, columns = (
        tf.cond(
            shrinks,
            lambda side=side: _area_weights(side, size),
            lambda side=side: _linear_weights(side, size),
        )
        for side in (height, width)
    )
    resized = _apply(rows, pixels, columns)
    # OpenCV rounds halves up at exactly 2x, else to even.
    halves_up = tf.floor(resized + 0.5)
    is_double = shrinks & (height == 2 * size) & (width == 2 * size)
    return tf.where(is_double, halves_up, tf.round(resized))


def _mask_png(
    prob: tf.Tensor, shape: tf.Tensor, threshold: float, keep_components: int
) -> tf.Tensor:
    """Twin of `imaging.resize_prob` and `masking.mask_of`, then encoded."""
    rows = _linear_weights(prob.shape[0], shape[0])
    columns = _linear_weights(prob.shape[1], shape[1])
    resized = _apply(rows, prob, columns)
    mask = resized >= threshold
    if keep_components:
        mask = largest_components(mask[:, :, 0], keep_components)[:, :, None]
    return tf.io.encode_png(tf.cast(mask, tf.uint8) * 255)


def largest_components(mask: tf.Tensor, count: int) -> tf.Tensor:
    """Twin of `masking.largest_components`: (H, W) bool, to the same.

    Every pixel points to one of its region with a higher number, and what it points to
    is followed and raised until nothing changes: the steps are as the logarithm of a
    region's length.
    """
    shape = tf.shape(mask)
    inside = tf.reshape(mask, [-1])
    own = tf.range(tf.size(mask))

    def step(points: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Numbers are below 2^24 (MAX_PIXELS), so exact in float32.
        grid = tf.where(inside, tf.cast(points, tf.float32), -1.0)
        grid = tf.reshape(grid, tf.concat([[1], shape, [1]], 0))
        around = tf.nn.max_pool2d(grid, 3, 1, "SAME")
        highest = tf.cast(tf.reshape(around, [-1]), tf.int32)
        highest = tf.where(inside, highest, own)
        # What is pointed to points on to the highest that any of its pixels is beside.
        raised = tf.math.unsorted_segment_max(highest, points, tf.size(mask))
        raised = tf.maximum(raised, own)
        raised = tf.gather(raised, raised)
        moved = tf.gather(raised, points)
        return moved, tf.reduce_any(moved != points)

    points, _ = tf.while_loop(
        lambda _, changed: changed, step, (own, tf.reduce_any(inside))
    )
    sizes = tf.math.unsorted_segment_sum(
        tf.cast(inside, tf.int32), points, tf.size(mask)
    )
    largest = tf.math.top_k(sizes, tf.minimum(count, tf.size(sizes))).values
    kept = inside & (tf.gather(sizes, points) >= largest[-1])
    return tf.reshape(kept, shape)


def _apply(rows: tf.Tensor, pixels: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """`rows @ pixels @ columns^T` for each channel: (A, H), (H, W, C), (B, W)."""
    return tf.einsum("ah,hwc,bw->abc", rows, pixels, columns, optimize="optimal")


def _area_weights(old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """(new, old): the share of each old pixel that lies under each new one."""
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    start = tf.cast(tf.range(new), tf.float32)[:, None] * scale
    left = tf.cast(tf.range(old), tf.float32)[None]
    covered = tf.minimum(start + scale, left + 1) - tf.maximum(start, left)
    return tf.maximum(covered, 0) / scale


def _linear_weights(old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """(new, old): linear between pixel centres, the border's value beyond them."""
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    place = (tf.cast(tf.range(new), tf.float32) + 0.5) * scale - 0.5
    place = tf.clip_by_value(place, 0, tf.cast(old - 1, tf.float32))
    distance = tf.abs(place[:, None] - tf.cast(tf.range(old), tf.float32)[None])
    return tf.maximum(1 - distance, 0)

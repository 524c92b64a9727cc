"""TensorFlow's settings for a whole process: threads, seeds, kernels, precision."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

logger = logging.getLogger(__name__)


def configure_runtime(threads: int, *, deterministic: bool = True) -> None:
    """Sets CPU threads and GPU settings; call it before TensorFlow does any work.

    Another number of threads adds in another order, which changes the last bits. On a
    GPU, memory is taken as needed, float32 is not rounded to TF32, and kernels are
    deterministic if asked for; inference on the CPU is so in any case.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(2)
    except RuntimeError:
        logger.warning("TensorFlow is already running; CPU threads stay as they are")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
        if deterministic:
            tf.config.experimental.enable_op_determinism()


def seed_everything(seed: int, *, deterministic: bool = True) -> None:
    """Seeds Python, NumPy and TensorFlow, and requires deterministic kernels.

    With `train.jit_compile` it cannot: XLA has no such gradient of max pooling.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Builds layers under a Keras dtype policy, then restores the former one."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)

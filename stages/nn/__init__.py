"""The TensorFlow room: batches, losses, the training loop, the networks.

Whatever imports Keras or TensorFlow imports this package first: it keeps their start-up
notices out of the log.
"""

from stages.core import native_log

with native_log.without_notices():
    import tensorflow as tf

    tf.config.list_physical_devices()  # its search for a GPU has a notice, too

"""The TensorFlow room: data sets, losses, the train step, the networks."""

import os

# TensorFlow greets every start with pages about hardware that is not there; its
# errors still arrive as exceptions. Set before its first import; yours wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

"""Keeps start-up notices of C++ libraries out of standard error."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

# Printed on every healthy start without a GPU, some of them as errors and all of them
# before TensorFlow and LiteRT read their log level.
NOTICES = (
    r"^WARNING: All log messages before absl::InitializeLog\(\) is called",
    r" oneDNN custom operations are on\.",
    r" Could not find cuda drivers on your machine, GPU will not be used\.",
    r" failed call to cuInit: .*UNKNOWN ERROR \(303\)",  # no driver installed
    r"^INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.",
)


@contextmanager
def without_notices() -> Iterator[None]:
    """Drops `NOTICES` from file descriptor 2 meanwhile; all other lines pass.

    A process of its own filters, so that the last words of a crash pass, too.
    """
    command = ["grep", "-a", "-v", "-E", "|".join(NOTICES)]
    before = os.dup(2)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=before) as grep:
        assert grep.stdin is not None
        os.dup2(grep.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)

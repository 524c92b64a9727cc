"""Drops start-up notices of C++ libraries from standard error."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

# Every start without a GPU prints them, before TensorFlow and LiteRT read their log
# level.
NOTICES = (
    r"^WARNING: All log messages before absl::InitializeLog\(\) is called",
    r" oneDNN custom operations are on\.",
    r" Could not find cuda drivers on your machine, GPU will not be used\.",
    r" failed call to cuInit: .*UNKNOWN ERROR \(303\)",  # no driver installed
    r"^INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.",
)


@contextmanager
def without_notices() -> Iterator[None]:
    """Drops `NOTICES` from file descriptor 2 in the block; all other lines pass.

    A separate process filters, so that the last lines of a crash pass, too.
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

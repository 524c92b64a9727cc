"""Runs a command that ends with the process that started it.

`python process_group.py COMMAND ...` reads standard input until it ends, because the
starter closed the pipe or died, even by SIGKILL. Then the whole process group is
interrupted, as by Ctrl-C: DVC removes its locks and a stage keeps its checkpoints.

It is started by its path and imports nothing of the project, so that it starts fast.
"""

import os
import signal
import subprocess
import sys
import threading

# Signals to send, and seconds to wait after each. Callers wait longer than the sum.
STEPS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0))


def main() -> None:
    """Runs the command in the arguments and exits with its code."""
    # A handler instead of SIG_IGN, which the command would inherit.
    for number, _ in STEPS:
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    code = child.wait()
    os.killpg(0, signal.SIGTERM)  # processes that the command left running
    sys.exit(code if code >= 0 else 128 - code)


def _watch(child: subprocess.Popen[bytes]) -> None:
    """Waits until standard input ends, then ends the process group."""
    while os.read(0, 1):
        pass
    for number, wait_s in STEPS:
        os.killpg(0, number)
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        return
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""Runs a command that may not outlive who started it.

`python leash.py COMMAND ...` holds on to standard input. When its other end closes,
because somebody let go or was killed, the whole process group is interrupted, as by
Ctrl-C: DVC then removes its locks and a stage keeps what it has finished.

It is run by its path and imports nothing of the project, so that it starts at once.
"""

import os
import signal
import subprocess
import sys
import threading

# What to send, and how many seconds to wait for it to help. A caller waits longer.
STEPS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0))


def main() -> None:
    """Runs the words after the file's name; exits as they do."""
    # A handler, not SIG_IGN: the command would inherit that, and never be interrupted.
    for number, _ in STEPS:
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    code = child.wait()
    os.killpg(0, signal.SIGTERM)  # what the command left running
    sys.exit(code if code >= 0 else 128 - code)


def _watch(child: subprocess.Popen[bytes]) -> None:
    """Waits until nobody holds the other end, then ends the group."""
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

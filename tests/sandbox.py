"""Runs one command where only loopback exists, and reports what it asks and leaves.

`python -m tests.sandbox FOLDER COMMAND...`, started by `unshare` in namespaces of its
own: the only name server, on loopback, writes down each name that it is asked for.
"""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

UNSHARE = ("unshare", "--map-root-user", "--net", "--mount")
# Where libraries keep caches that are not the user's; empty inside.
SHARED = ("/var/tmp", "/var/cache")


@dataclass
class Report:
    """How a command ended in the sandbox."""

    returncode: int
    output: str
    asked: list[str]  # names that it looked up
    left: list[str]  # files in HOME and in `SHARED`


def is_allowed() -> bool:
    """Whether this user may make namespaces here."""
    if not shutil.which(UNSHARE[0]):
        return False
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "none", SHARED[0]]
    return subprocess.run(probe, capture_output=True).returncode == 0


def run(command: list[str], *, cwd: Path, folder: Path) -> Report:
    """Runs a command with an empty HOME and with nothing set against telemetry.

    Args:
        command: Its first word is found where this Python's commands are.
        cwd: A checkout.
        folder: An empty folder for HOME and the report.
    """
    (folder / "home").mkdir(parents=True)
    (folder / "tmp").mkdir()
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1\n")
    environment = {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
    }
    inside = [sys.executable, str(Path(__file__)), str(folder), str(cwd), *command]
    done = subprocess.run(
        [*UNSHARE, *inside],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        found = json.loads((folder / "report.json").read_text("utf-8"))
    except FileNotFoundError:
        raise AssertionError(f"the sandbox failed: {done.stdout[-3000:]}") from None
    return Report(output=done.stdout, **found)


def _inside(folder: Path, cwd: str, command: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH", b"lo", 1)  # IFF_UP
        fcntl.ioctl(control, 0x8914, request)  # SIOCSIFFLAGS
    resolver = os.path.realpath("/etc/resolv.conf")
    subprocess.run(["mount", "--bind", folder / "resolv.conf", resolver], check=True)
    for shared in SHARED:
        subprocess.run(["mount", "-t", "tmpfs", "none", shared], check=True)
    asked: list[str] = []
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=_answer, args=(server, asked), daemon=True).start()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = subprocess.run(command, cwd=cwd, env=environment).returncode
    left = [
        str(path)
        for top in (folder / "home", *map(Path, SHARED))
        for path in sorted(top.rglob("*"))
        if "fontconfig" not in path.parts  # the system's own, empty only here
    ]
    report = {"returncode": code, "asked": asked, "left": left}
    (folder / "report.json").write_text(json.dumps(report), "utf-8")


def _answer(server: socket.socket, asked: list[str]) -> None:
    """Says of every name that it does not exist."""
    while True:
        query, client = server.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
            at += 1 + query[at]
        asked.append(".".join(labels))
        question = query[12 : at + 5]
        counts = struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0)
        server.sendto(query[:2] + counts + question, client)


if __name__ == "__main__":
    _inside(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

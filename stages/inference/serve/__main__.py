"""`python -m stages.inference.serve MODEL [--host 127.0.0.1] [--port 8000]`."""

import argparse
import ipaddress
import logging
import os
import socket
from pathlib import Path

import cv2
import uvicorn

from stages.core import arguments
from stages.core.errors import PipelineError, run
from stages.inference.serve.app import build
from stages.inference.serve.engine import Engine
from stages.inference.serve.guard import LOOPBACK
from stages.inference.serve.limits import Limits

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Opens a port, or says why not.

    Raises:
        PipelineError: If the host or the port cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return socket.create_server((address[0], port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", "") or str(error)).lower()
        raise PipelineError(
            f"--host {host} --port {port} cannot be listened on ({reason}); "
            "choose another port, or 0 for any that is free"
        ) from None


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def server_of(engine: Engine, sock: socket.socket, host: str) -> uvicorn.Server:
    """A server for an opened port; it keeps no log of requests."""
    local = is_loopback(sock.getsockname()[0])
    hosts = LOOPBACK | {f"[{host}]" if ":" in host else host.lower()}
    config = uvicorn.Config(
        build(engine, hosts=hosts if local else frozenset()),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(engine.limits.seconds) + 1,
    )
    return uvicorn.Server(config)


def main() -> None:
    """Serves until it is interrupted; requests that were begun are answered first."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.inference.serve",
        description="A page and an HTTP interface over an exported model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="an exported unet.onnx")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--threshold", type=arguments.fraction, help="instead of the model's own"
    )
    numbers = {
        "threads": (os.cpu_count() or 1, "images predicted at a time"),
        "queue": (256, "images that may wait beside those; more are refused"),
        "timeout": (30, "seconds for sending an image, and again for its answer"),
        "max-bytes": (2**25, "of an image file"),
        "max-pixels": (2**25, "of an image"),
    }
    for name, (value, meaning) in numbers.items():
        parser.add_argument(
            f"--{name}", type=arguments.positive, default=value, help=meaning
        )
    given = parser.parse_args()
    limits = Limits(
        max_bytes=given.max_bytes,
        max_pixels=given.max_pixels,
        seconds=given.timeout,
        threads=given.threads,
        queue=given.queue,
    )
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(1)  # the pool's threads are enough
    engine = Engine(given.model, limits, given.threshold)
    with listen(given.host, given.port) as sock:
        address, port = sock.getsockname()[:2]
        if not is_loopback(address):
            logger.warning(
                "%s can be reached from other machines, and asks nobody who they are: "
                "put a proxy with TLS and a log-in before it",
                address,
            )
        shown = f"[{address}]" if ":" in address else address
        print(f"http://{shown}:{port}/ (Ctrl+C ends it)", flush=True)
        try:
            server_of(engine, sock, given.host).run(sockets=[sock])
        except KeyboardInterrupt:  # what was begun is answered by now
            print("ended")


if __name__ == "__main__":
    run(main)

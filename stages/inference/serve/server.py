"""Listens for `lungfield serve`, and ends in order."""

import asyncio
import ipaddress
import logging
import os
import socket
import sys
from pathlib import Path

import cv2
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from stages.core.errors import PipelineError
from stages.inference.serve.app import LOOPBACK, build
from stages.inference.serve.engine import Engine, Limits

logger = logging.getLogger(__name__)

HEAD_SECONDS = 10.0  # for the head of a request, twice at most


class _Connection(H11Protocol):
    """Closes a connection on which no request begins: uvicorn would keep it open."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch(before=self)

    def _watch(self, before: object) -> None:
        """Compares with the last look: the same finished request, or still none."""
        if self.transport.is_closing():
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and before is self.cycle:
            self.transport.close()
        else:
            self.loop.call_later(HEAD_SECONDS, self._watch, self.cycle)


def listen(host: str, port: int) -> socket.socket:
    """Opens a port.

    Raises:
        PipelineError: If it cannot listen on this host and port.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        sock = socket.create_server((address[0], port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", "") or str(error)).lower()
        raise PipelineError(
            f"--host {host} --port {port} cannot be listened on ({reason}); "
            "choose another port, or 0 for any free one"
        ) from None
    # Without it, an answer waits 40 ms for the client's acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def server_of(engine: Engine, sock: socket.socket, host: str) -> uvicorn.Server:
    """Makes a server for an opened port; requests are not logged."""
    name = f"[{host}]" if ":" in host else host.lower()
    is_local = is_loopback(sock.getsockname()[0])
    config = uvicorn.Config(
        build(engine, hosts=[*LOOPBACK, name] if is_local else ["*"]),
        http=_Connection,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(engine.limits.seconds) + 1,
    )
    return uvicorn.Server(config)


def run(
    model: Path, limits: Limits, *, host: str, port: int, threshold: float | None
) -> None:
    """Serves until interrupted; requests that have begun are answered first.

    Raises:
        PipelineError: If the model cannot be used or the port not be opened.
    """
    cv2.setNumThreads(1)  # the pool's threads are enough
    engine = Engine(model, limits, threshold)
    with listen(host, port) as sock:
        address, port = sock.getsockname()[:2]
        if not is_loopback(address):
            logger.warning(
                "%s can be reached from other machines, and no log-in protects it: "
                "put a proxy with TLS and a log-in in front of it",
                address,
            )
        shown = f"[{address}]" if ":" in address else address
        print(f"http://{shown}:{port}/ (Ctrl+C ends it)", flush=True)
        try:
            server_of(engine, sock, host).run(sockets=[sock])
        except KeyboardInterrupt:
            print("ended")
    if engine.is_busy:
        # Python would wait for its threads, however long an image takes.
        sys.stdout.flush()
        os._exit(0)

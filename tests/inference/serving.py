"""A server in a thread, with a network of known answers."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.inference.serve import server
from stages.inference.serve.engine import Engine, Limits
from tests.conftest import lungs, png
from tests.inference.onnx_models import dark_is_lung

SIZE = 32
DATA = {
    "dataset": "drawn <b>lungs</b>",
    "source": "phantom",
    "mask_definition": "white is lung",
}


def picture(seed: int = 0, side: int = 60) -> bytes:
    """A picture whose dark parts are the lungs."""
    mask = lungs(seed, mask_size=side)[1] > 0
    return png(np.where(mask, 40, 200).astype(np.uint8))


class Served:
    """A server of its own, in a thread, and the requests of a client."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        values = {
            **{"max_bytes": 2**16, "max_pixels": 2**16, "seconds": 30.0},
            **{"threads": 2, "queue": 256},
        }
        self.model = dark_is_lung(folder / "unet.onnx", SIZE, facts={"data": DATA})
        self.engine = Engine(self.model, Limits(**(values | limits)), None)
        self.sock = server.listen("127.0.0.1", 0)
        self.address = self.sock.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}/"
        self.server = server.server_of(self.engine, self.sock, "127.0.0.1")
        self.thread = threading.Thread(target=self.server.run, args=([self.sock],))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def ask(self, path: str, body: Any = None, **headers: str) -> Any:
        """Status, headers and content of one answer."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content


@contextlib.contextmanager
def serving(folder: Path, **limits: Any) -> Iterator[Served]:
    served = Served(folder, **limits)
    try:
        yield served
    finally:
        served.stop()

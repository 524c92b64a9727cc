"""A stand-in for Kaggle on loopback: the requests that kagglehub makes, answered.

A process is pointed at it by its environment alone: `KAGGLE_API_ENVIRONMENT=TEST`
makes Kaggle's own client speak to `http://localhost:7777`, and `HTTP_PROXY` sends
that to whatever port was free here. Files are served from another host name, as
Kaggle does, so that a token which followed the redirect would be seen.
"""

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TOKEN = "KGAT_0123456789abcdef-a-token-of-nobody"
API = "/api/v1/datasets.DatasetApiService"
STORAGE = "storage.standin.invalid"
SECRET = "X-Goog-Signature=0badc0de"


@dataclass
class Request:
    """What was asked."""

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class KaggleStandIn:
    """Data sets by handle and version, and what is to go wrong.

    Attributes:
        archives: (`owner/name`, version) to the zip's bytes.
        failures: Answers to give first, in turn: (status, headers).
        cut_after: Bytes after which each next download breaks off, in turn.
        corrupt: How many downloads carry other bytes than their checksum says.
        checksum: Whether downloads carry one.
        silent_s: How long to say nothing before each answer.
        needs_consent: Answer 403 to who is signed in.
        requests: Everything asked so far.
    """

    archives: dict[tuple[str, int], bytes] = field(default_factory=dict)
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    corrupt: int = 0
    checksum: bool = True
    silent_s: float = 0.0
    needs_consent: bool = False
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "KaggleStandIn":
        stand_in = self

        class Handler(_Handler):
            kaggle = stand_in

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, home: Path, *, token: str | None = TOKEN) -> dict[str, str]:
        """What a process needs to be pointed here, with a home of its own."""
        address = f"http://127.0.0.1:{self._server.server_port}"
        signed_in = {} if token is None else {"KAGGLE_API_TOKEN": token}
        return {
            "HOME": str(home),
            "KAGGLEHUB_CACHE": str(home / "cache"),
            "KAGGLE_API_ENVIRONMENT": "TEST",
            "HTTP_PROXY": address,
            "http_proxy": address,
            **signed_in,
        }

    def newest(self, dataset: str) -> int:
        """The newest version of a data set; 0 if there is no such data set."""
        return max((v for name, v in self.archives if name == dataset), default=0)

    def asked(self, last: str) -> list[Request]:
        """The requests whose path ends so."""
        return [request for request in self.requests if request.path.endswith(last)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Says nothing: who breaks off a download closes the connection."""


class _Handler(BaseHTTPRequestHandler):
    kaggle: KaggleStandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        request = self._note(json.loads(self.rfile.read(length) or b"{}"))
        if self.kaggle.failures:
            status, headers = self.kaggle.failures.pop(0)
            return self._answer(status, {"code": status, "message": "no"}, headers)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "Unauthenticated")
        if self.kaggle.needs_consent:
            return self._refuse(403, "Permission 'datasets.get' was denied")
        dataset = f"{request.body['ownerSlug']}/{request.body['datasetSlug']}"
        if not self.kaggle.newest(dataset):
            return self._refuse(404, "Dataset not found")
        if request.path == f"{API}/GetDataset":
            newest = self.kaggle.newest(dataset)
            return self._answer(200, {"currentVersionNumber": newest})
        version = request.body["datasetVersionNumber"]
        if (dataset, version) not in self.kaggle.archives:
            return self._refuse(404, "Version not found")
        place = f"http://{STORAGE}/{dataset}/{version}/archive.zip?{SECRET}"
        return self._answer(302, {}, {"Location": place})

    def do_GET(self) -> None:
        request = self._note({})
        owner, name, version, _ = request.path.strip("/").split("/")
        data = self.kaggle.archives[f"{owner}/{name}", int(version)]
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        start = 0
        if "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        rest = data[start:]
        if self.kaggle.corrupt:
            self.kaggle.corrupt -= 1
            rest = bytes(byte ^ 1 for byte in rest)
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("Accept-Ranges", "bytes")
        if self.kaggle.checksum:
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={digest}")
        self.end_headers()
        if self.kaggle.cut_after:
            rest = rest[: self.kaggle.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(rest)

    def _note(self, body: dict[str, Any]) -> Request:
        time.sleep(self.kaggle.silent_s)
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.netloc, url.path, headers, body)
        self.kaggle.requests.append(request)
        return request

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"code": status, "message": message})

    def _answer(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""

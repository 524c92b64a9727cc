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
from pathlib import Path
from typing import Any

from werkzeug import Request, Response
from werkzeug.serving import make_server

TOKEN = "KGAT_0123456789abcdef-a-token-of-nobody"
API = "/api/v1/datasets.DatasetApiService"
STORAGE = "storage.standin.invalid"
SECRET = "X-Goog-Signature=0badc0de"


@dataclass
class KaggleStandIn:
    """Data sets by handle and version, and what is to go wrong.

    Attributes:
        archives: (`owner/name`, version) to the zip's bytes.
        failures: Status codes to answer first, in turn.
        cut_after: Bytes after which each next download breaks off, in turn.
        corrupt: How many downloads carry other bytes than their checksum says.
        checksum: Whether downloads carry one.
        silent_s: How long to say nothing before each answer.
        needs_consent: Answer 403 to who is signed in.
        requests: Everything asked so far.
    """

    archives: dict[tuple[str, int], bytes] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    corrupt: int = 0
    checksum: bool = True
    silent_s: float = 0.0
    needs_consent: bool = False
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "KaggleStandIn":
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

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

    def asked(self, last: str) -> list[Request]:
        """The requests whose path ends so."""
        return [request for request in self.requests if request.path.endswith(last)]

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = Request(environ)
        request.get_data()
        self.requests.append(request)
        time.sleep(self.silent_s)
        answer = self._file if request.method == "GET" else self._api
        return answer(request)(environ, start_response)

    def _api(self, request: Request) -> Response:
        if self.failures:
            return _json(self.failures.pop(0), message="no")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _json(401, message="Unauthenticated")
        if self.needs_consent:
            return _json(403, message="Permission 'datasets.get' was denied")
        asked = request.get_json()
        dataset = f"{asked['ownerSlug']}/{asked['datasetSlug']}"
        versions = [version for name, version in self.archives if name == dataset]
        if not versions:
            return _json(404, message="Dataset not found")
        if request.path == f"{API}/GetDataset":
            return _json(200, currentVersionNumber=max(versions))
        version = asked["datasetVersionNumber"]
        if version not in versions:
            return _json(404, message="Version not found")
        answer = _json(302)
        place = f"http://{STORAGE}/{dataset}/{version}/archive.zip?{SECRET}"
        answer.headers["Location"] = place
        return answer

    def _file(self, request: Request) -> Response:
        owner, name, version, _ = request.path.strip("/").split("/")
        data = self.archives[f"{owner}/{name}", int(version)]
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        if self.corrupt:
            self.corrupt -= 1
            data = b"damaged" + data[7:]
        answer = Response(data, mimetype="application/zip")
        if self.checksum:
            answer.headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={digest}"
        answer.make_conditional(request, accept_ranges=True, complete_length=len(data))
        if self.cut_after:
            sent = b"".join(answer.iter_encoded())[: self.cut_after.pop(0)]
            answer.response = [sent]
        return answer


def _json(status: int, **content: Any) -> Response:
    text = json.dumps({"code": status, **content})
    return Response(text, status, mimetype="application/json")

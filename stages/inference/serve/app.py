"""The HTTP interface: routes, limits, and errors of one sentence."""

import asyncio
import base64
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from stages.datasets import headers
from stages.inference.serve.counts import CONTENT_TYPE, Counts
from stages.inference.serve.engine import Answer, Engine
from stages.inference.serve.guard import Guard
from stages.inference.serve.limits import Limits, RefusedError, busy

logger = logging.getLogger(__name__)

NOTICE = "Not a medical device: nobody's diagnosis or treatment may depend on it."
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PNG, JSON = "image/png", "application/json"
# A client that has begun to send reads no answer before it is through: so much more
# than what is allowed is read, and thrown away, to tell it.
PATIENCE = 4


def build(engine: Engine, *, hosts: frozenset[str]) -> Starlette:
    """The application.

    Args:
        engine: What predicts.
        hosts: Names it may be called by; empty takes any.
    """
    counts = Counts(engine.sha256, lambda: engine.waiting)
    held = Held(engine.limits.max_held_bytes)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def model(_: Request) -> Response:
        return JSONResponse(describe(engine))

    async def metrics(_: Request) -> Response:
        return Response(counts.text(), headers={"Content-Type": CONTENT_TYPE})

    async def predict(request: Request) -> Response:
        kind = chosen(request.headers.get("accept", "*/*"))
        with_view = kind == JSON and request.query_params.get("view") == "true"
        with held.share() as share:
            encoded = await _body(request, engine.limits, share)
            answer = await _answered(engine, encoded, with_view=with_view)
        counts.seconds.observe(answer.seconds)
        counts.images.labels("yes" if answer.finding.warnings else "no").inc()
        return _reply(engine, answer, kind)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        engine.close()

    routes = [
        *(_page_file(path, name, kind) for path, (name, kind) in PAGE.items()),
        Route("/predict", predict, methods=["POST"]),
        Route("/model", model),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
    ]
    paths = frozenset(route.path for route in routes)
    guard = Middleware(Guard, hosts=hosts, paths=paths, counts=counts)
    app = Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={RefusedError: _refused, HTTPException: _unknown},
        lifespan=lifespan,
    )
    app.state.held = held
    return app


def _page_file(path: str, name: str, kind: str) -> Route:
    async def page_file(_: Request) -> Response:
        return FileResponse(Path(__file__).with_name(name), media_type=kind)

    return Route(path, page_file)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": error.sentence}, error.status, error.headers)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    there = "there are POST /predict and GET /, /model, /healthz, /metrics"
    what = {404: "nothing is here", 405: f"{request.method} does not work here"}
    sentence = f"{what.get(error.status_code, error.detail)}; {there}"
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


def _reply(engine: Engine, answer: Answer, kind: str) -> Response:
    """The mask with its facts as headers, or the facts with the mask in them."""
    facts = describe_answer(engine, answer)
    if kind == PNG:
        return Response(answer.mask_png, media_type=PNG, headers=_as_headers(facts))
    facts["mask"] = base64.b64encode(answer.mask_png).decode()
    if answer.view:
        facts["view"] = base64.b64encode(answer.view.png).decode()
        facts["outline"] = answer.view.outline
    return JSONResponse(facts)


class Held:
    """Bytes of all images in memory; used from the event loop alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = 0

    def share(self) -> "Share":
        """One request's part."""
        return Share(self)


class Share:
    """What one request holds, given back at its end."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._mine = 0

    def take(self, num_bytes: int) -> None:
        """Takes more; refuses what all together would hold too much of."""
        if self._held.now + num_bytes > self._held.most:
            raise busy("too many images are being sent at once; try again later")
        self._held.now += num_bytes
        self._mine += num_bytes

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.now -= self._mine


async def _body(request: Request, limits: Limits, share: Share) -> bytes:
    """Reads an image, no longer and no more than allowed."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise RefusedError(
            415,
            "the body should be the image file itself, not a form; "
            "with curl: --data-binary @image.png",
        )
    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > PATIENCE * limits.max_bytes:
                    break
                if size <= limits.max_bytes:
                    share.take(len(chunk))
                    body += chunk
    except TimeoutError:
        raise RefusedError(
            408, f"the image took more than {limits.seconds:g} s to arrive"
        ) from None
    except ClientDisconnect:
        raise RefusedError(400, "the image was not sent whole") from None
    if size > limits.max_bytes:
        raise RefusedError(
            413, f"the image has more than {limits.max_bytes} bytes; send a smaller one"
        )
    return bytes(body)


async def _answered(engine: Engine, encoded: bytes, *, with_view: bool) -> Answer:
    future = asyncio.wrap_future(engine.submit(encoded, with_view=with_view))
    try:
        return await asyncio.wait_for(future, engine.limits.seconds)
    except TimeoutError:
        raise busy(
            f"no answer within {engine.limits.seconds:g} s; try again later"
        ) from None
    except RefusedError:
        raise
    except Exception:  # a defect: it is logged, and others are served on
        logger.exception("an image could not be predicted")
        raise RefusedError(
            500, "this image could not be predicted; the server's log says why"
        ) from None


def chosen(accept: str) -> str:
    """PNG or JSON, whichever is wanted more; PNG where both are welcome.

    Raises:
        RefusedError: If neither is accepted.
    """
    weights = {PNG: 0.0, JSON: 0.0}
    precision = dict.fromkeys(weights, -1)
    for entry in accept.split(","):
        wanted, *options = (part.strip() for part in entry.lower().split(";"))
        weight = next((o[2:] for o in options if o.startswith("q=")), "1")
        for kind in weights:
            matches = ("*/*", f"{kind.split('/')[0]}/*", kind)
            if wanted in matches and matches.index(wanted) > precision[kind]:
                precision[kind] = matches.index(wanted)
                weights[kind] = _number(weight)
    best = max(weights, key=lambda kind: weights[kind])
    if weights[best] <= 0:
        raise RefusedError(406, f"the answer is {PNG} or {JSON}; accept one of them")
    return best


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def describe(engine: Engine) -> dict[str, Any]:
    """What a model says of itself, and what the server takes."""
    model = engine.model
    data = model.facts.get("data")
    told = data if isinstance(data, dict) else {}
    return {
        "notice": NOTICE,
        "sha256": engine.sha256,
        "image_size": model.image_size,
        "image_channels": model.image_channels,
        "threshold": engine.threshold,
        "is_of_lungs": model.is_of_lungs,
        "mask_definition": model.mask_definition,
        "data": {
            name: told.get(name) for name in ("dataset", "source", "version", "licence")
        },
        "formats": list(headers.FORMATS),
        "max_bytes": engine.limits.max_bytes,
    }


def describe_answer(engine: Engine, answer: Answer) -> dict[str, Any]:
    """What was found, under the names of predict's table."""
    finding = answer.finding
    height, width = finding.mask.shape
    confidence = finding.mean_confidence
    return {
        "height": height,
        "width": width,
        "lung_area_fraction": round(finding.area_fraction, 6),
        "components": finding.components,
        "mean_confidence": None if math.isnan(confidence) else round(confidence, 6),
        "warnings": list(finding.warnings),
        "threshold": engine.threshold,
        "model_sha256": engine.sha256,
        "notice": NOTICE,
    }


def _as_headers(facts: dict[str, Any]) -> dict[str, str]:
    """The facts beside a PNG, which itself carries none: `X-Lung-Area-Fraction`."""
    return {
        "-".join(["X", *(word.capitalize() for word in name.split("_"))]): (
            "; ".join(value) if isinstance(value, list) else str(value)
        )
        for name, value in facts.items()
        if value is not None
    }

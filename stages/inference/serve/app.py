"""The HTTP interface: routes, limits, security headers, and errors of one sentence."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from stages.core import imaging
from stages.inference.serve.counts import CONTENT_TYPE, Counts
from stages.inference.serve.engine import Engine

logger = logging.getLogger(__name__)

NOTICE = "Not a medical device: do not base a diagnosis or a treatment on it."
_PAGE = Path(__file__).with_name("page")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
FORMATS = (*imaging.FORMATS, "dicom")
# The page loads its own files and shows pictures that it has in memory; nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# A client reads no answer before it has sent its whole body: up to this many times the
# limit is read and discarded, so that it receives the error.
PATIENCE = 4
_IMAGE_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
    },
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The image took too long to arrive"},
    413: {"description": "The image has too many bytes"},
    415: {"description": "The body is not an image of a known format"},
    422: {"description": "The image is broken, too large or of a kind not read"},
    503: {"description": "The server is busy; see Retry-After"},
}


class ModelFacts(BaseModel):
    """The model that is served, and what the server takes."""

    notice: str = NOTICE
    sha256: str
    image_size: int = Field(description="Side of the network's input, pixels")
    image_channels: int
    threshold: float = Field(description="Pixels at least this probable are foreground")
    is_of_lungs: bool
    mask_definition: str
    data: dict[str, Any] = Field(description="The training data")
    formats: tuple[str, ...] = FORMATS
    max_bytes: int = Field(description="Of an image file")


class Prediction(BaseModel):
    """The result of an image, under the names of `predictions.csv`."""

    height: int = Field(description="Of the image and of its mask, pixels")
    width: int
    lung_area_fraction: float = Field(description="Foreground, as a share of the image")
    lung_area_cm2: float | None = Field(
        description="null if the file states no pixel spacing"
    )
    components: int = Field(description="Number of separate regions")
    mean_confidence: float | None = Field(description="null if nothing was found")
    warnings: list[str] = Field(description="Differences from the training data")
    threshold: float
    model_sha256: str
    notice: str = NOTICE
    mask: str | None = Field(None, description="PNG, base64")
    view: str | None = Field(None, description="PNG for a screen, base64")
    outline: str | None = Field(None, description="SVG path in pixels of the image")


def build(engine: Engine, *, hosts: list[str]) -> FastAPI:
    """Makes the application.

    `hosts` are the names that the server may be called by, as in
    `TrustedHostMiddleware`. On loopback they keep a foreign page from reading answers
    through a name that it made to point here.
    """
    counts = Counts(engine.sha256, lambda: engine.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    # FastAPI's own /docs loads its scripts from another host.
    app = FastAPI(
        title="Segmentation of images",
        description=NOTICE,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)

    @app.middleware("http")
    async def around(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        path = getattr(request.scope.get("route"), "path", "") or "other"
        counts.requests.labels(path, str(response.status_code)).inc()
        return response

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answers while the server runs."""
        return {"status": "ok"}

    @app.get("/model")
    async def model() -> ModelFacts:
        """Describes the model."""
        network = engine.segmenter.model
        keys = ("dataset", "source", "version", "licence")
        return ModelFacts(
            sha256=engine.sha256,
            image_size=network.image_size,
            image_channels=network.image_channels,
            threshold=engine.segmenter.threshold,
            is_of_lungs=network.is_of_lungs,
            mask_definition=network.mask_definition,
            data={key: network.data.get(key) for key in keys},
            max_bytes=engine.limits.max_bytes,
        )

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(counts.text(), headers={"Content-Type": CONTENT_TYPE})

    @app.post(
        "/predict",
        response_model=Prediction,
        response_model_exclude_unset=True,
        openapi_extra={"requestBody": _IMAGE_BODY},
        responses={
            200: {"content": {"image/png": {}}, "description": "The mask"},
            **_ERRORS,
        },
    )
    async def predict(
        request: Request,
        accept: Annotated[str, Header()] = "image/png",
        view: bool = False,
    ) -> Any:
        """Predicts the mask of an image: PNG, JPEG, TIFF, BMP or DICOM as the body.

        The answer is the mask as PNG with the facts as `X-` headers, or, with
        `Accept: application/json`, the facts with the mask in base64.
        """
        as_json = "application/json" in accept
        with engine.place():
            encoded = await _body(request, engine)
            answer = await engine.answer(encoded, with_view=as_json and view)
        counts.seconds.observe(answer.seconds)
        counts.images.labels("yes" if answer.found.warnings else "no").inc()
        facts = Prediction(
            **answer.found.measures(),
            threshold=engine.segmenter.threshold,
            model_sha256=engine.sha256,
            notice=NOTICE,  # unset fields are left out
        )
        if not as_json:
            headers = _as_headers(facts)
            return Response(answer.mask_png, media_type="image/png", headers=headers)
        facts.mask = base64.b64encode(answer.mask_png).decode()
        if answer.view:
            facts.view = base64.b64encode(answer.view.png).decode()
            facts.outline = answer.view.outline
        return facts

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_PAGE / "docs.html")

    pages = StaticFiles(directory=_PAGE, html=True)
    app.mount("/", pages, name="page")
    return app


async def _body(request: Request, engine: Engine) -> bytes:
    """Reads an image, no longer and no more than allowed."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(
            415,
            "the body should be the image file itself, not a form; "
            "with curl: --data-binary @image.png",
        )
    limits = engine.limits
    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > PATIENCE * limits.max_bytes:
                    break
                if size <= limits.max_bytes:
                    body += chunk
    except TimeoutError:
        raise HTTPException(
            408, f"the image took more than {limits.seconds:g} s to arrive"
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "the image was not sent whole") from None
    if size > limits.max_bytes:
        raise HTTPException(
            413, f"the image has more than {limits.max_bytes} bytes; send a smaller one"
        )
    encoded = bytes(body)
    kind = imaging.format_of(encoded)
    if body and kind not in FORMATS:
        what = "is of no known format" if kind == "unknown" else f"is {kind}"
        known = ", ".join(FORMATS).upper()
        raise HTTPException(
            415, f"the body {what} but should be the bytes of an image: {known}"
        )
    return encoded


def _as_headers(facts: Prediction) -> dict[str, str]:
    """The facts beside a PNG, which itself carries none: `X-Lung-Area-Fraction`."""
    return {
        f"X-{name.replace('_', '-').title()}": (
            "; ".join(value) if isinstance(value, list) else str(value)
        )
        for name, value in facts.model_dump(exclude_none=True).items()
    }

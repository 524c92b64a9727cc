"""Predicts images in a bounded pool of threads that share one ONNX Runtime session."""

import logging
import math
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stages.core import files, imaging
from stages.core.imaging import Grey, Mask, UnreadableImageError
from stages.datasets import headers
from stages.inference import segmenter
from stages.inference.predict import Finding, chosen_threshold, found, prepare
from stages.inference.serve.limits import Limits, RefusedError, busy

logger = logging.getLogger(__name__)

VIEW_PX = 1024  # longest side of the picture that the page shows


@dataclass(frozen=True)
class View:
    """What a page draws: the image as the model saw it, and the mask's outline."""

    png: bytes
    outline: str  # an SVG path, in pixels of the image


@dataclass(frozen=True)
class Answer:
    """What was found in one image."""

    finding: Finding
    mask_png: bytes
    view: View | None
    seconds: float


class Engine:
    """A model, and the threads that use it."""

    def __init__(self, path: Path, limits: Limits, threshold: float | None) -> None:
        """Loads the model and predicts once, so that what fails does so now.

        Raises:
            PipelineError: If the model cannot be used.
        """
        self.model = segmenter.load(path, threads=1)
        self.sha256 = files.sha256(path)
        self.threshold = chosen_threshold(self.model, threshold)
        self.limits = limits
        side, channels = self.model.image_size, self.model.image_channels
        self.model.predict(np.zeros((1, side, side, channels), np.float32))
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="predict")
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Images that are predicted or wait for it."""
        return self._waiting

    def submit(self, encoded: bytes, *, with_view: bool) -> Future[Answer]:
        """Puts an image into the queue.

        Args:
            encoded: An image file.
            with_view: Whether a page wants to draw it.

        Returns:
            The answer to come. It raises `RefusedError` for what is no image; while
            it waits it can be cancelled.

        Raises:
            RefusedError: If the queue is full.
        """
        with self._lock:
            if self._waiting >= self.limits.threads + self.limits.queue:
                raise busy(f"{self._waiting} images wait already; try again later")
            self._waiting += 1
        future = self._pool.submit(self._answer, encoded, with_view=with_view)
        future.add_done_callback(self._done)
        return future

    def close(self) -> None:
        """Ends the threads; what waits is cancelled."""
        self._pool.shutdown(cancel_futures=True)

    def _done(self, _: Future[Answer]) -> None:
        with self._lock:
            self._waiting -= 1

    def _answer(self, encoded: bytes, *, with_view: bool) -> Answer:
        begin = time.perf_counter()
        _require_image(encoded)
        try:
            prepared = prepare(encoded, self.model, self.limits.max_pixels)
        except UnreadableImageError as error:
            raise RefusedError(
                422, f"the image cannot be read: {error}; send another"
            ) from None
        inputs = imaging.to_input(prepared.pixels[None])
        prob = self.model.predict(inputs)[0, :, :, 0]
        finding = found(prepared, prob, self.model, self.threshold)
        return Answer(
            finding,
            imaging.encode_png(finding.mask.astype(np.uint8) * 255),
            view(prepared.image, finding.mask) if with_view else None,
            time.perf_counter() - begin,
        )


def _require_image(encoded: bytes) -> None:
    kind = headers.format_of(encoded)
    if encoded and kind not in headers.FORMATS:
        what = "is of no known format" if kind == "unknown" else f"is {kind}"
        known = ", ".join(headers.FORMATS).upper()
        raise RefusedError(
            415, f"the body {what} but should be the bytes of an image: {known}"
        )


def view(image: Grey, mask: Mask) -> View:
    """The image at a size for screens, and the outline at its own."""
    height, width = mask.shape
    scale = min(1.0, VIEW_PX / max(height, width))
    sides = [max(1, math.floor(side * scale)) for side in (height, width)]
    return View(imaging.encode_png(imaging.resize_image(image, *sides)), svg_path(mask))


def svg_path(mask: Mask) -> str:
    """The mask's border, holes included, as an SVG path in pixels of the mask."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    parts = []
    for contour in contours:
        # OpenCV goes through the middles of pixels.
        points = " ".join(f"{x + 0.5:g},{y + 0.5:g}" for [[x, y]] in contour)
        parts.append(f"M{points}Z")
    return "".join(parts)

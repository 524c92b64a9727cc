"""Predicts images in a bounded pool of threads that share one ONNX Runtime session."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from fastapi import HTTPException

from stages.core import files, imaging
from stages.core.imaging import Grey, Mask, UnreadableImageError
from stages.inference.segmenter import Segmentation, Segmenter

logger = logging.getLogger(__name__)

VIEW_PX = 1024  # longest side of the picture on the page


@dataclass(frozen=True)
class Limits:
    """Bounds of one server."""

    max_bytes: int  # of one image file
    max_pixels: int  # that an image may declare
    seconds: float  # for sending an image, and again for its answer
    threads: int  # images predicted at a time
    queue: int  # images that may wait beside those


@dataclass(frozen=True)
class View:
    """The image as the model saw it, at a size for screens, and the mask's outline."""

    png: bytes
    outline: str  # an SVG path, in pixels of the image


@dataclass(frozen=True)
class Answer:
    """The answer for one image."""

    found: Segmentation
    mask_png: bytes
    view: View | None
    seconds: float


def busy(sentence: str) -> HTTPException:
    """503: a later request may succeed."""
    return HTTPException(503, f"{sentence}; try again later", {"Retry-After": "1"})


class Engine:
    """A model, and the threads that use it."""

    def __init__(self, path: Path, limits: Limits, threshold: float | None) -> None:
        """Loads the model and predicts once, so that an unfit model fails here.

        Raises:
            PipelineError: If the model cannot be used.
        """
        self.segmenter = Segmenter(
            path, threshold=threshold, max_pixels=limits.max_pixels, threads=1
        )
        self.sha256 = files.sha256(path)
        self.limits = limits
        self.segmenter(np.zeros((8, 8), np.uint8))
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="predict")
        self._begun: set[Future[Answer]] = set()
        self.waiting = 0  # images in work or waiting

    @property
    def is_busy(self) -> bool:
        """Whether a thread still predicts, perhaps for a client that has gone."""
        return bool(self._begun)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place in the queue while a request is read and answered.

        Raises:
            HTTPException: 503 if the queue is full.
        """
        if self.waiting >= self.limits.threads + self.limits.queue:
            raise busy(f"{self.waiting} images are waiting already")
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def answer(self, encoded: bytes, *, with_view: bool) -> Answer:
        """Predicts an image file when its turn comes, and draws it for the page.

        Raises:
            HTTPException: 422 for an unreadable image, 500 for a defect, 503 if the
                answer takes longer than allowed.
        """
        future = self._pool.submit(self._answer, encoded, with_view=with_view)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        try:
            return await asyncio.wait_for(
                asyncio.wrap_future(future), self.limits.seconds
            )
        except TimeoutError:  # a prediction that has begun goes on, unheard
            raise busy(f"no answer within {self.limits.seconds:g} s") from None
        except UnreadableImageError as error:
            raise HTTPException(422, f"the image cannot be read: {error}") from None
        except Exception:  # a defect, which must not end other answers
            logger.exception("an image could not be predicted")
            raise HTTPException(
                500, "this image could not be predicted; the server's log says why"
            ) from None

    def close(self) -> None:
        """Ends the threads without waiting; queued images are cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, encoded: bytes, *, with_view: bool) -> Answer:
        begin = time.perf_counter()
        found = self.segmenter(encoded)
        return Answer(
            found,
            imaging.encode_png(found.mask.astype(np.uint8) * 255),
            _view(found.image, found.mask) if with_view else None,
            time.perf_counter() - begin,
        )


def _view(image: Grey, mask: Mask) -> View:
    height, width = mask.shape
    scale = min(1.0, VIEW_PX / max(height, width))
    sides = [max(1, math.floor(side * scale)) for side in (height, width)]
    return View(imaging.encode_png(imaging.resize_image(image, *sides)), svg_path(mask))


def svg_path(mask: Mask) -> str:
    """The mask's border, holes included, as an SVG path in pixels of the mask."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    # OpenCV's points are the centres of pixels.
    return "".join(
        f"M{' '.join(f'{x + 0.5:g},{y + 0.5:g}' for [[x, y]] in contour)}Z"
        for contour in contours
    )

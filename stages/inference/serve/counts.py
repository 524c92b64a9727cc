"""Counters of a server in Prometheus' text format, without facts of images."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Counts:
    """Counters of one server, in a registry of its own."""

    def __init__(self, sha256: str, waiting: Callable[[], float]) -> None:
        """Starts at zero; `waiting` returns the number of images in work or waiting."""
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "lungmask_requests",
            "Answers by path and status",
            ["path", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "lungmask_predict_seconds",
            "From the bytes of an image to those of its mask",
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "lungmask_images",
            "Masks by whether they came with a warning",
            ["warning"],
            registry=registry,
        )
        for warning in ("no", "yes"):
            self.images.labels(warning)
        Gauge(
            "lungmask_images_waiting", "Images in work or waiting", registry=registry
        ).set_function(waiting)
        Gauge(
            "lungmask_model", "1 for the model served", ["sha256"], registry=registry
        ).labels(sha256).set(1)

    def text(self) -> bytes:
        """All counters as text."""
        return generate_latest(self._registry)

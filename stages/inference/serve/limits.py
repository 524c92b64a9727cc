"""What a server takes on, and how it says no."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Bounds of one server."""

    max_bytes: int  # of one image file
    max_pixels: int  # that an image may declare
    seconds: float  # for sending an image, and again for its answer
    threads: int  # images predicted at a time
    queue: int  # images that may wait beside those

    @property
    def max_held_bytes(self) -> int:
        """Of all images in memory, encoded: many small ones or a few large ones."""
        return 16 * self.max_bytes


@dataclass(eq=False)
class RefusedError(Exception):
    """An answer that is no mask: a status and one sentence."""

    status: int
    sentence: str
    headers: dict[str, str] = field(default_factory=dict)


def busy(sentence: str) -> RefusedError:
    """503: it may work in a moment."""
    return RefusedError(503, sentence, {"Retry-After": "1"})

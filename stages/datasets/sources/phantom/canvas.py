"""Drawing primitives: filled curves, ribbons, blurs and noise on a square image.

OpenCV fills shapes in integers. Fields are float64, so that differences between
processors in the last bit vanish when grey levels are rounded.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.datasets.sources.phantom.anatomy import Points, Pose, Random

Field = NDArray[np.float64]  # (N, N)
Layer = NDArray[np.uint8]  # (N, N), 0 to 255
SHIFT = 6  # fractional bits of a vertex: a 64th of a pixel


class Canvas:
    """A square image of `size` pixels to draw body coordinates on."""

    def __init__(self, size: int, pose: Pose) -> None:
        self.size = size
        self.pose = pose

    def blank(self) -> Layer:
        """An empty layer."""
        return np.zeros((self.size, self.size), np.uint8)

    def vertices(self, points: Points, scale: int = 1) -> NDArray[np.int32]:
        """Body coordinates as OpenCV's fixed-point pixel centres."""
        pixels = (self.pose(points) * (self.size * scale) - 0.5) * (1 << SHIFT)
        return np.rint(np.clip(pixels, -1e7, 1e7)).astype(np.int32)

    def _placed(
        self, shapes: Iterable[Points], scale: int = 1
    ) -> list[NDArray[np.int32]]:
        """Vertices of several curves, computed together."""
        curves = list(shapes)
        if not curves:
            return []
        ends = np.cumsum([len(curve) for curve in curves])[:-1]
        return np.split(self.vertices(np.concatenate(curves), scale), ends)

    def fill(self, shapes: Iterable[Points], level: float = 1.0) -> Layer:
        """Fills closed curves separately; fast, half a pixel too wide."""
        layer, shade = self.blank(), round(255 * level)
        for shape in self._placed(shapes):
            cv2.fillPoly(layer, [shape], shade, cv2.LINE_AA, SHIFT)
        return layer

    def cover(self, shapes: Iterable[Points], *, inset: float = 0.0) -> Layer:
        """The share of each pixel that closed curves cover, to an eighth pixel.

        `inset` is the distance kept from their edges, as a share of the picture's side.
        """
        layer = np.zeros((4 * self.size, 4 * self.size), np.uint8)
        for shape in self._placed(shapes, 4):
            cv2.fillPoly(layer, [shape], 255, cv2.LINE_8, SHIFT)
        if inset:
            depth = cv2.distanceTransform(layer, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            layer[depth <= inset * len(layer)] = 0
        size = (self.size, self.size)
        return np.asarray(
            cv2.resize(layer, size, interpolation=cv2.INTER_AREA), np.uint8
        )

    def stroke(
        self,
        lines: Points,
        thickness: float,
        levels: Iterable[float],
        out: Layer,
    ) -> None:
        """Draws open lines, (lines, points, 2), `thickness` in body units.

        Lines cover what is there; `levels` has each line's brightness, 0 to 1.
        """
        width = max(1, round(thickness * self.size))
        for line, level in zip(self.vertices(lines), levels, strict=True):
            shade = round(255 * level)
            cv2.polylines(out, [line], False, shade, width, cv2.LINE_AA, SHIFT)

    def soft(self, layer: Layer, sigma: float) -> Field:
        """A layer as a field 0 to 1, blurred by a Gaussian, `sigma` in body units."""
        return blur(layer.astype(np.float64) / 255.0, sigma * self.size)

    def grid(self) -> tuple[Field, Field]:
        """Picture coordinates x and y of a coarse raster, for smooth fields."""
        side = max(8, min(64, self.size // 4))
        centres = (np.arange(side) + 0.5) / side
        x, y = np.meshgrid(centres, centres)
        return x, y

    def enlarge(self, field: Field) -> Field:
        """A smooth field on a coarse raster, at the picture's size."""
        size = (self.size, self.size)
        return np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_CUBIC))

    def noise(self, draw: Random, grain: float) -> Field:
        """Smooth noise, mean 0, deviation about 1; `grain` in body units."""
        cells = int(np.clip(round(1.0 / grain), 2, self.size))
        return 1.3 * self.enlarge(draw.normal(0.0, 1.0, (cells, cells)))

    def clouds(self, draw: Random, grain: float, octaves: int = 3) -> Field:
        """Noise of several grains, each half as coarse and less strong."""
        return np.asarray(
            sum(self.noise(draw, grain / 2**i) / 1.6**i for i in range(octaves))
        )


class Stack:
    """A sum of filled curves; curves with the same blur are blurred together."""

    unit = 1.0 / 510.0  # depth of one level: a single part may add up to 0.5

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.sums: dict[float, NDArray[np.int16]] = {}

    def add(self, shapes: Iterable[Points], strength: float, sigma: float) -> None:
        """Adds curves worth `strength`, -0.5 to 0.5, blurred by `sigma` body units."""
        layer = self.canvas.fill(shapes, abs(strength) / (255.0 * self.unit))
        if sigma not in self.sums:
            self.sums[sigma] = np.zeros(layer.shape, np.int16)
        if strength < 0.0:
            self.sums[sigma] -= layer
        else:
            self.sums[sigma] += layer

    def total(self) -> Field:
        """The sum, each part blurred."""
        size = self.canvas.size
        total = np.zeros((size, size))
        for sigma, levels in self.sums.items():
            total += blur(levels.astype(np.float64), sigma * size)
        total *= self.unit
        return total


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur, `sigma` in pixels; wide ones on a smaller picture."""
    if sigma < 0.2:
        return field
    size = field.shape[::-1]
    shrink = max(1, int(sigma / 2.0))
    small = field
    if shrink > 1:
        smaller = (max(4, size[0] // shrink), max(4, size[1] // shrink))
        small = np.asarray(cv2.resize(field, smaller, interpolation=cv2.INTER_AREA))
        sigma *= smaller[0] / size[0]
    small = np.asarray(
        cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    )
    if shrink > 1:
        small = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))
    return small


def ribbon(lines: Points, width: Points | float) -> Points:
    """The closed curves round open lines, (..., N, 2), `width` wide (body units)."""
    along = np.empty_like(lines)
    along[..., 1:-1, :] = lines[..., 2:, :] - lines[..., :-2, :]
    along[..., 0, :] = lines[..., 1, :] - lines[..., 0, :]
    along[..., -1, :] = lines[..., -1, :] - lines[..., -2, :]
    length = np.sqrt((along * along).sum(-1, keepdims=True)) + 1e-12
    normal = np.stack([-along[..., 1], along[..., 0]], axis=-1) / length
    half = 0.5 * np.asarray(width, np.float64)[..., None] * normal
    return np.concatenate([lines + half, (lines - half)[..., ::-1, :]], axis=-2)


def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> Points:
    """A closed ellipse in body coordinates."""
    angle = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    x = centre[0] + radii[0] * np.cos(angle)
    return np.stack([x, centre[1] + radii[1] * np.sin(angle)], axis=1)

"""The skeleton in front of, behind and around the lungs."""

import numpy as np

from stages.datasets.sources.phantom.anatomy import Anatomy, Random, smooth
from stages.datasets.sources.phantom.canvas import Canvas, Field, Stack, blur, ribbon

BACK, SIDE, FRONT = slice(0, 18), slice(13, 22), slice(17, 36)  # parts of a rib's line


def skeleton(canvas: Canvas, draw: Random, anatomy: Anatomy) -> Field:
    """Ribs, collar bones, shoulder blades and upper arms, as depth."""
    u = draw.uniform
    width = anatomy.rib_width
    lines = anatomy.ribs()
    parts = (
        (ribbon(lines[:, BACK], width * np.linspace(0.75, 1.0, 18)), u(0.03, 0.14)),
        (ribbon(lines[:, SIDE], width * 1.05), u(0.0, 0.06)),
        (ribbon(lines[:, FRONT], width * np.linspace(1.0, 1.25, 19)), u(0.0, 0.08)),
        (_chest_wall(anatomy), u(0.0, 0.08)),
        (_collar_bones(draw, anatomy), u(0.03, 0.12)),
        (_shoulder_blades(draw, anatomy), u(0.0, 0.06)),
        (_upper_arms(draw, anatomy), u(0.0, 0.12)),
    )
    stack = Stack(canvas)
    for shapes, strength in parts:
        stack.add(shapes, strength, 0.0)
    sharp = stack.total()
    # A bone's shell is denser than its core: brighten the edges.
    shell = u(0.0, 1.0)
    field = blur(sharp, u(0.0015, 0.004) * canvas.size)
    field *= 1.0 + shell
    field -= shell * blur(sharp, 0.009 * canvas.size)
    return field


def _chest_wall(anatomy: Anatomy) -> list[np.ndarray]:
    """The line that the ribs' outermost parts and the pleura make."""
    y = anatomy.top + anatomy.height * np.linspace(0.12, 1.15, 30)
    walls = [np.stack([s * anatomy.wall(s, y), y], axis=1) for s in (-1, 1)]
    return [ribbon(wall, anatomy.rib_width) for wall in walls]


def _collar_bones(draw: Random, anatomy: Anatomy) -> list[np.ndarray]:
    u = draw.uniform
    shapes = []
    for sign in (-1, 1):
        x = np.linspace(0.035, u(0.33, 0.42), 24)
        steps = np.linspace(0.0, 3.0, 24)
        heights = (u(0.0, 0.06), u(-0.03, 0.04), u(-0.07, 0.02), u(-0.13, 0.03))
        y = anatomy.top + np.interp(steps, np.arange(4), heights)
        y = np.convolve(np.pad(y, 3, "edge"), np.full(7, 1.0 / 7.0), "valid")
        shapes.append(ribbon(np.stack([sign * x, y], axis=1), u(0.018, 0.032)))
    return shapes


def _shoulder_blades(draw: Random, anatomy: Anatomy) -> list[np.ndarray]:
    u = draw.uniform
    shapes = []
    for sign in (-1, 1):
        inner, top = u(0.22, 0.36), anatomy.top
        corners = [
            (inner + 0.03, top + u(0.0, 0.05)),
            (inner + 0.16, top + u(-0.03, 0.03)),
            (inner + 0.15, top + u(0.08, 0.14)),
            (inner + 0.06, top + u(0.26, 0.38)),
            (inner, top + u(0.2, 0.3)),
        ]
        shapes.append(smooth(np.array(corners)) * [sign, 1.0])
    return shapes


def _upper_arms(draw: Random, anatomy: Anatomy) -> list[np.ndarray]:
    u = draw.uniform
    shapes = []
    for sign in (-1, 1):
        head = (sign * u(0.4, 0.46), anatomy.top + u(-0.02, 0.06))
        elbow = (sign * u(0.42, 0.62), anatomy.top + 0.5)
        shapes.append(smooth(ribbon(np.linspace(head, elbow, 8), u(0.03, 0.05))))
    return shapes

"""The inside of the lungs: vessels, fine texture and the opacities of each class."""

import numpy as np

from stages.datasets.sources.phantom.anatomy import Anatomy, Lung, Points, Random
from stages.datasets.sources.phantom.canvas import Canvas, Field


def vessels(canvas: Canvas, draw: Random, anatomy: Anatomy) -> Field:
    """Trees that leave each hilum, taper and fork twice; 0 to 1."""
    layer = canvas.blank()
    trunks = draw.integers(8, 15, 2)
    starts = np.concatenate(
        [
            np.stack([_hilum(lung, draw) for _ in range(count)])
            for lung, count in zip(anatomy.lungs, trunks, strict=True)
        ]
    )
    signs = np.repeat([-1.0, 1.0], trunks)
    angles = draw.uniform(-1.35, 1.35, len(starts))
    levels = draw.uniform(0.5, 1.0, len(starts))
    steps = 9
    for width, length in ((0.0065, 0.2), (0.0045, 0.13), (0.003, 0.09)):
        count = len(starts)
        turns = angles[:, None] + np.cumsum(draw.normal(0.0, 0.13, (count, steps)), 1)
        pace = length * draw.uniform(0.5, 1.3, (count, 1)) / steps
        moves = np.stack(
            [signs[:, None] * pace * np.cos(turns), pace * np.sin(turns)], -1
        )
        lines = starts[:, None] + np.cumsum(moves, axis=1)
        lines = np.concatenate([starts[:, None], lines], axis=1)
        canvas.stroke(lines, width, levels, layer)
        # Fork half way and at the end.
        starts = np.concatenate([lines[:, 4], lines[:, -1]])
        bends = draw.choice([-1.0, 1.0], 2 * count) * draw.uniform(0.3, 0.8, 2 * count)
        angles = np.concatenate([turns[:, 3], turns[:, -1]]) + bends
        signs, levels = np.tile(signs, 2), 0.75 * np.tile(levels, 2)
    return canvas.soft(layer, 0.0025)


def _hilum(lung: Lung, draw: Random) -> Points:
    """A place on a lung's inner border where vessels enter."""
    t = np.array(draw.uniform(0.32, 0.58))
    return np.array([lung.sign * (float(lung.medial(t)) - 0.004), float(lung.y(t))])


def _place(lung: Lung, draw: Random, depth: tuple[float, float]) -> Points:
    """A place in a lung; depth 0 is at the heart, 1 at the chest wall."""
    t = np.array(draw.uniform(0.25, 0.92))
    inner, outer = float(lung.medial(t)), float(lung.lateral(t))
    x = inner + (outer - inner) * draw.uniform(*depth)
    return np.array([lung.sign * x, float(lung.y(t))])


def _blob(canvas: Canvas, at: Points, radii: tuple[float, float]) -> Field:
    """A smooth hill, 1 at its top, on the coarse raster."""
    x, y = canvas.grid()
    cx, cy = canvas.pose(at)
    distance = ((x - cx) / radii[0]) ** 2 + ((y - cy) / radii[1]) ** 2
    return np.asarray(np.exp(-distance))


# Probability that disease whitens a lung, whole or in part.
WHITE_OUT = {
    "COVID": 0.12,
    "Lung_Opacity": 0.2,
    "Normal": 0.0,
    "Viral Pneumonia": 0.16,
}


def opacities(
    canvas: Canvas, draw: Random, anatomy: Anatomy, class_name: str
) -> tuple[Field, Field]:
    """The effects of disease.

    Returns:
        haze: Lost share of the lung's air, 0 to 1, (N, N).
        grain: Strength of coarse interstitial texture, 0 to 1, (N, N).
    """
    x, _ = canvas.grid()
    haze, grain = np.zeros(x.shape), np.zeros(x.shape)
    u = draw.uniform

    def spots(lung: Lung, count: int, depth: tuple[float, float], size: float) -> Field:
        total = np.zeros(x.shape)
        for _ in range(count):
            radii = (size * u(0.5, 1.3), size * u(0.5, 1.5))
            hill = _blob(canvas, _place(lung, draw, depth), radii)
            total = np.maximum(total, hill * u(0.5, 1.0))
        return total

    if class_name == "COVID":  # both sides, at the chest wall, low down; ground glass
        for lung in anatomy.lungs:
            count = int(draw.integers(1, 6))
            haze += u(0.2, 0.75) * spots(lung, count, (0.5, 1.0), u(0.06, 0.13))
        grain += 0.6 * haze + u(0.0, 0.3)
    elif class_name == "Lung_Opacity":  # patches, a whole lobe, or fluid at the base
        for lung in anatomy.lungs:
            if draw.random() < 0.7:
                count = int(draw.integers(1, 5))
                haze += u(0.3, 0.9) * spots(lung, count, (0.1, 0.9), u(0.05, 0.16))
            if draw.random() < 0.16:
                haze += _fluid(canvas, draw, lung)
        grain += 0.3 * haze + u(0.0, 0.4)
    elif class_name == "Viral Pneumonia":  # diffuse, from the hila outwards
        for lung in anatomy.lungs:
            count = int(draw.integers(0, 4))
            haze += u(0.05, 0.6) * spots(lung, count, (0.0, 0.6), u(0.05, 0.14))
            haze += u(0.0, 0.35) * _blob(canvas, _hilum(lung, draw), (0.1, 0.18))
        grain += u(0.15, 0.9)
    else:
        grain += u(0.0, 0.15)
    for lung in anatomy.lungs:
        haze += u(0.0, 0.25) * draw.random() * _side(canvas, lung)
        if draw.random() < WHITE_OUT[class_name]:
            haze += _white_out(canvas, draw, lung)
    large = canvas.enlarge(haze)
    large = large * (1.0 + 0.3 * canvas.clouds(draw, 0.08, 2))
    return np.clip(large, 0.0, 1.0), np.clip(canvas.enlarge(grain), 0.0, 1.0)


def _side(canvas: Canvas, lung: Lung) -> Field:
    """1 on a lung's side of the midline, 0 on the other."""
    x, _ = canvas.grid()
    middle = canvas.pose(np.array([0.0, 0.5]))[0]
    return np.asarray(1.0 / (1.0 + np.exp(-lung.sign * (x - middle) / 0.015)))


def _white_out(canvas: Canvas, draw: Random, lung: Lung) -> Field:
    """A lung, or its upper or lower part, that is as dense as a heart.

    The mask includes it, as the masks of the target data do.
    """
    _, y = canvas.grid()
    part = draw.choice(["whole", "upper", "lower"], p=[0.5, 0.2, 0.3])
    field = draw.uniform(0.4, 1.05) * _side(canvas, lung)
    if part != "whole":
        y_edge = float(lung.y(np.array(draw.uniform(0.3, 0.7))))
        edge = canvas.pose(np.array([0.0, y_edge]))
        towards = 1.0 if part == "lower" else -1.0
        softness = draw.uniform(0.02, 0.12)
        field = field / (1.0 + np.exp(-towards * (y - edge[1]) / softness))
    return np.asarray(field)


def _fluid(canvas: Canvas, draw: Random, lung: Lung) -> Field:
    """Fluid above the diaphragm, higher at the chest wall."""
    x, y = canvas.grid()
    top = float(lung.y(np.array(draw.uniform(0.7, 0.95))))
    cx, cy = canvas.pose(np.array([lung.sign * 0.8 * lung.width, top]))
    meniscus = cy + 0.35 * np.abs(cx - x)
    below = 1.0 / (1.0 + np.exp(-(y - meniscus) / 0.02))
    return np.asarray(draw.uniform(0.5, 1.0) * _side(canvas, lung) * below)

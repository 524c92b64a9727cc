"""Turns depth into a film: exposure, processing, devices, marks, noise."""

import cv2
import numpy as np

from stages.datasets.sources.phantom.anatomy import Anatomy, Random, smooth
from stages.datasets.sources.phantom.canvas import Canvas, Field, Layer, blur, ellipse

FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
)


def add_devices(canvas: Canvas, draw: Random, anatomy: Anatomy, depth: Field) -> None:
    """Adds leads, electrodes, tubes, buttons, and objects at the edge, to depth."""
    u = draw.uniform
    layer = canvas.blank()
    count = int(draw.integers(0, 4)) if draw.random() < 0.35 else 0
    for _ in range(count):
        centre = np.array([u(-0.4, 0.4), anatomy.top + u(-0.1, 0.8) * anatomy.height])
        radius = u(0.008, 0.022)
        disc = ellipse((centre[0], centre[1]), (radius, radius * u(0.9, 1.6)))
        if draw.random() < 0.5:
            canvas.stroke(np.concatenate([disc, disc[:1]])[None], 0.006, [0.8], layer)
        else:
            np.maximum(layer, canvas.fill([disc]), out=layer)
        if draw.random() < 0.6:
            cable = _cable(draw, centre)
            canvas.stroke(cable[None], 0.004, [u(0.35, 0.85)], layer)
    if draw.random() < 0.12:  # a tube down the midline
        start = np.array([u(-0.03, 0.03), anatomy.top - 0.2])
        steps = np.linspace(0.0, u(0.3, 1.0), 20)[:, None]
        tube = start + steps * [u(-0.04, 0.06), anatomy.height]
        canvas.stroke(tube[None], 0.008, [u(0.3, 0.7)], layer)
    if layer.any():
        depth += u(0.15, 0.6) * canvas.soft(layer, 0.0015)
    if draw.random() < 0.12:  # a hand that holds, a blanket, a shield
        side = float(draw.choice([-1.0, 1.0]))
        place = (side * u(0.42, 0.6), u(-0.1, 1.1))
        shape = ellipse(place, (u(0.06, 0.18), u(0.08, 0.3)))[::5]
        shape = smooth(shape + draw.normal(0.0, 0.03, shape.shape))
        depth += u(0.05, 0.5) * canvas.soft(canvas.fill([shape]), 0.003)


def _cable(draw: Random, start: np.ndarray) -> np.ndarray:
    """A slack line from `start` out of the picture."""
    steps = np.linspace(0.0, 1.0, 24)
    end = np.array([draw.uniform(-0.7, 0.7), draw.choice([-0.4, 1.4])])
    sag = draw.normal(0.0, 0.12, 2)
    line = start + steps[:, None] * (end - start)
    return np.asarray(line + np.outer(np.sin(np.pi * steps), sag))


def expose(
    canvas: Canvas, draw: Random, depth: Field, lungs: Field, body: Field
) -> Field:
    """Depth as grey 0 to 255; draws the levels of the lungs and of the bright parts."""
    u = draw.uniform
    weight = float(lungs.sum())
    dark = float((depth * lungs).sum()) / max(weight, 1e-6) if weight > 1 else 0.4
    inside = depth[body > 0.9]
    bright = float(np.quantile(inside, 0.8)) if inside.size else float(depth.max())
    bright = max(bright, dark + 0.05, 0.1)
    high = float(np.clip(draw.normal(176.0, 20.0), 110.0, 245.0))
    low = float(np.clip(high - draw.normal(66.0, 24.0), 30.0, high - 18.0))
    ratio = np.log(low / high) / np.log(max(dark, 0.02) / bright)
    gamma = float(np.clip(ratio, 0.4, 2.6))
    # A table is faster than a power per pixel; its steps are 0.1 of a grey level.
    top = 3.0 * bright
    table = high * (np.linspace(0.0, top, 16384) / bright) ** gamma
    # Film saturates: compress values above 215 towards 255.
    over = np.clip(table - 215.0, 0.0, None)
    table = np.where(over > 0.0, 215.0 + 40.0 * over / (over + 40.0), table)
    codes = np.clip(depth * (16383.0 / top), 0.0, 16383.0).astype(np.int32)
    grey = table[codes]
    if draw.random() < 0.6:  # the console's local contrast
        radius = u(0.03, 0.12) * canvas.size
        gain = u(0.1, 0.6) if draw.random() < 0.85 else u(0.6, 1.5)
        grey = grey + gain * (grey - blur(grey, radius)) * np.clip(body, 0.0, 1.0)
    if draw.random() < 0.3:  # stray light and a film's base fog
        fog = u(5.0, 60.0)
        grey = fog + grey * (1.0 - fog / 255.0)
    return np.asarray(grey)


def detect(draw: Random, grey: Field) -> Field:
    """The detector's blur, its noise, and the console's sharpening."""
    u = draw.uniform
    grey = blur(grey, max(0.0, u(-0.2, 1.1)) * grey.shape[0] / 299.0)
    white = draw.normal(0.0, 1.0, grey.shape)
    if draw.random() < 0.5:
        white = blur(white, 0.6) * 1.9
    noise = u(0.2, 2.0) if draw.random() < 0.85 else u(2.0, 6.0)
    grey = grey + noise * white
    if draw.random() < 0.5:
        grey = grey + u(0.2, 0.9) * (grey - blur(grey, 1.2))
    return np.asarray(grey)


def annotate(draw: Random, picture: Layer) -> None:
    """Burns letters, digits and borders in, as consoles and scanners do."""
    size = picture.shape[0]
    u = draw.uniform

    def write(text: str, x: float, y: float, height: float, level: int) -> None:
        font = int(draw.choice(FONTS))
        scale = height * size / (22.0 if font != cv2.FONT_HERSHEY_PLAIN else 11.0)
        place = (round(x * size), round(y * size))
        width = max(1, round(height * size / 12.0))
        cv2.putText(picture, text, place, font, scale, level, width, cv2.LINE_AA)

    level = int(draw.integers(170, 256))
    if draw.random() < 0.75:
        side = str(draw.choice(["R", "R", "R", "L", "D"]))
        x = u(0.0, 0.08) if side in "RD" else u(0.88, 0.95)
        write(side, x, u(0.03, 0.35), u(0.03, 0.1), level)
    if draw.random() < 0.3:
        view = str(draw.choice(["A-P", "AP", "PA", "PORTABLE"]))
        write(view, u(0.0, 0.1), 0.03, 0.04, level)
    if draw.random() < 0.25:
        digits = "".join(str(d) for d in draw.integers(0, 10, 6))
        time = f"{digits[:2]}:{digits[2:4]}:{digits[4:]}"
        write(time, u(0.8, 0.9), u(0.02, 0.05), 0.03, level)
    if draw.random() < 0.25:
        for line in range(int(draw.integers(1, 5))):
            number = str(draw.integers(1, 999))
            write(number, 0.93, 0.03 + 0.022 * line, 0.018, level)
    if draw.random() < 0.15:
        voltage = f"KV{draw.integers(50, 90)}"
        write(voltage, u(0.86, 0.93), u(0.95, 1.0), 0.03, level)
    if draw.random() < 0.15:  # an edge of the film or of the collimator
        edge = int(draw.integers(0, 4))
        width = max(1, round(u(0.004, 0.05) * size))
        shade = int(draw.choice([0, 0, 255, int(u(0, 60))]))
        np.rot90(picture, edge)[:width] = shade

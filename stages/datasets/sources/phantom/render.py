"""Combines a patient's parts and develops the film.

Depth is the attenuation of the rays, about 1 at the thickest part of the trunk. Tissue
adds to it, air subtracts from it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.datasets.sources.phantom import bones, film, lungs
from stages.datasets.sources.phantom.anatomy import (
    Anatomy,
    Points,
    Pose,
    Random,
    smooth,
)
from stages.datasets.sources.phantom.canvas import (
    Canvas,
    Field,
    Layer,
    Stack,
    blur,
    ellipse,
    ribbon,
)

# Distance of the target's masks from the edge of the lungs, as a share of the side: 1.5
# pixels of 256. Without it, a network trained on phantoms alone finds 10 % more lung
# than the target's masks show (median of 345 radiographs).
INSET = 0.006


def draw_mask(anatomy: Anatomy, pose: Pose, size: int) -> NDArray[np.bool_]:
    """The lungs' mask, (size, size): pixels at least half covered."""
    canvas = Canvas(size, pose)
    outlines = [lung.outline() for lung in anatomy.lungs]
    mask = canvas.cover(outlines, inset=INSET) >= 128
    # Drop fragments of a costophrenic angle that is thinner than a pixel.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    whole = stats[:, cv2.CC_STAT_AREA] >= 0.002 * size * size
    return np.asarray(mask & whole[labels])


def draw_image(
    draw: Random, anatomy: Anatomy, pose: Pose, class_name: str, size: int
) -> Layer:
    """The radiograph, (size, size) uint8."""
    canvas = Canvas(size, pose)
    u = draw.uniform
    body, profile = _body(canvas, draw, anatomy)
    cover = canvas.cover([lung.outline() for lung in anatomy.lungs])
    air = canvas.soft(cover, u(0.0015, 0.005))
    haze, grain = lungs.opacities(canvas, draw, anatomy, class_name)

    depth = _inside(canvas, draw, anatomy)
    depth += u(0.45, 0.62)
    # Behind heart and belly scatter drowns the bones.
    drowned = u(0.2, 0.6)
    clear = drowned + (1.0 - drowned) * air
    clear *= bones.skeleton(canvas, draw, anatomy)
    depth += clear
    depth *= profile
    depth -= _lung_air(canvas, draw, anatomy, air, haze)
    texture = canvas.clouds(draw, 0.03)
    texture *= 0.005 + 0.022 * grain
    texture += u(0.015, 0.08) * lungs.vessels(canvas, draw, anatomy)
    texture *= air
    depth += texture
    film.add_devices(canvas, draw, anatomy, depth)
    uneven = 0.06 * canvas.noise(draw, 0.4)  # beam, muscles, fat, folds
    uneven += u(0.0, 0.06) * canvas.noise(draw, 0.14)
    uneven += 1.0
    depth *= uneven

    grey = film.expose(canvas, draw, depth, air, body)
    grey = film.detect(draw, grey)
    picture = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    film.annotate(draw, picture)
    return picture


def _mirror(points: Points) -> Points:
    """Completes a right half, given from top to bottom, to a closed curve."""
    return np.concatenate([points, points[::-1] * [-1.0, 1.0]])


def _body(canvas: Canvas, draw: Random, anatomy: Anatomy) -> tuple[Field, Field]:
    """The coverage and the thickness of the body, both 0 to about 1."""
    u = draw.uniform
    top, height, skin = anatomy.top, anatomy.height, anatomy.tissue
    neck = u(0.09, 0.15)
    shoulder = top + u(-0.1, 0.06)
    reach = u(0.36, 0.56)
    wide = max(lung.width for lung in anatomy.lungs) + anatomy.rib_width + skin
    outline = [
        (neck * u(0.9, 1.6), -0.6),
        (neck, shoulder - 0.2),
        (neck + 0.02, shoulder - 0.09),
        (0.6 * reach + 0.05, shoulder - 0.03),
        (reach, shoulder + 0.03),
        (reach * u(0.9, 1.1), shoulder + 0.12),
        (wide * u(0.9, 1.08), top + 0.35 * height),
        (wide, top + 0.6 * height),
        (wide + u(0.0, 0.03) * anatomy.maturity, top + 0.75 * height),
        (wide * u(0.94, 1.02), top + height),
        (wide * u(0.88, 1.05), top + 1.3 * height),
        (wide * u(0.85, 1.1), 2.2),
    ]
    trunk = canvas.fill([smooth(_mirror(np.array(outline)))])
    arms = []
    if draw.random() < 0.75:
        raised = draw.random() < 0.3
        for sign in (-1, 1):
            away = (reach + u(0.05, 0.35)) * sign
            end = shoulder - u(0.2, 0.5) if raised else shoulder + u(0.4, 0.9)
            start = ((reach - 0.02) * sign, shoulder + 0.06)
            arm = np.linspace(start, (away, end), 8)
            arms.append(ribbon(arm, u(0.09, 0.16)))
    sharp = canvas.soft(trunk, u(0.005, 0.012))
    round_ = canvas.soft(trunk, u(0.06, 0.13))
    limbs = canvas.soft(canvas.fill(arms), 0.012)
    flat = u(0.2, 0.55)
    profile = sharp * (flat + (1.05 - flat) * round_)
    profile = np.maximum(profile, u(0.3, 0.6) * limbs)
    _, y = canvas.grid()
    apex = canvas.pose(np.array([0.0, top]))[1]
    fall = np.clip(1.0 - (y - apex + u(0.0, 0.1)) / u(0.25, 0.5), 0.0, 1.0)
    thinner = 1.0 - u(0.0, 0.45) * fall  # towards the shoulders
    profile *= canvas.enlarge(np.asarray(thinner))
    # Dark hollows above the collar bones and in the armpits.
    hollows = Stack(canvas)
    for side in (-1.0, 1.0):
        above, beside = (u(0.13, 0.3), u(-0.14, -0.03)), (u(0.4, 0.5), u(0.02, 0.4))
        for across, down in (above, beside):
            place = (side * across, top + down)
            hollow = ellipse(place, (u(0.03, 0.09), u(0.03, 0.1)))
            hollows.add([hollow], u(-0.4, 0.1), 0.018)
    profile *= 1.0 + hollows.total()
    if draw.random() < 0.35:  # the chin
        at, radii = (u(-0.06, 0.06), top - u(0.16, 0.3)), (u(0.1, 0.16), u(0.1, 0.16))
        profile += u(0.15, 0.4) * canvas.soft(canvas.fill([ellipse(at, radii)]), 0.008)
    return np.maximum(sharp, limbs), profile


def _inside(canvas: Canvas, draw: Random, anatomy: Anatomy) -> Field:
    """Heart, mediastinum, spine, airway, belly and its gas."""
    u = draw.uniform
    stack = Stack(canvas)
    edge, soft, wide = u(0.002, 0.008), u(0.005, 0.01), u(0.03, 0.06)
    belly, middle = _belly(anatomy), _mediastinum(anatomy)
    stack.add([belly, middle], u(0.06, 0.3), edge)
    stack.add([belly], u(-0.05, 0.13), wide)
    stack.add([middle], u(-0.02, 0.12), wide)

    heights = np.linspace(-0.5, 1.6, 60)
    column = np.stack([np.zeros_like(heights), heights], axis=1)
    clear = draw.random() ** 2  # how well the spine shows
    spine = [ribbon(column, 2.0 * anatomy.spine)]
    stack.add(spine, u(0.02, 0.14) * clear, soft)
    stack.add(spine, u(0.0, 0.1), wide)
    gap = anatomy.rib_gap
    disc = np.array([(-1.0, 0.0), (0.0, -0.1), (1.0, 0.0)]) * [anatomy.spine, gap]
    levels = anatomy.top + (np.arange(-3, 18) - 0.4) * gap
    offsets = np.stack([np.zeros_like(levels), levels], axis=1)
    discs = ribbon(disc + offsets[:, None], 0.2 * gap)
    stack.add(discs, -u(0.0, 0.09) * clear, soft)

    end = float(anatomy.right.y(np.array(u(0.25, 0.38))))
    lean = u(-0.02, 0.02)
    windpipe = np.array([(0.0, -0.5), (0.0, anatomy.top), (lean, end)])
    airway = [ribbon(windpipe, u(0.025, 0.045))]
    for sign in (-1, 1):
        bronchus = np.array([(lean, end - 0.01), (lean + sign * 0.08, end + 0.07)])
        airway.append(ribbon(bronchus, 0.025))
    stack.add(airway, -u(0.01, 0.12), soft)

    gas = []
    if draw.random() < 0.45:  # the stomach's
        floor = float(anatomy.left.y(np.array(anatomy.left.base)))
        place = (u(0.12, 0.27), floor + u(0.07, 0.16))
        gas.append(ellipse(place, (u(0.03, 0.1), u(0.02, 0.07))))
    for _ in range(int(draw.integers(0, 5)) if draw.random() < 0.4 else 0):
        place = (u(-0.3, 0.3), anatomy.top + u(1.05, 1.4) * anatomy.height)
        gas.append(ellipse(place, (u(0.02, 0.06), u(0.02, 0.05))))
    stack.add(gas, -u(0.08, 0.3), soft)

    if anatomy.maturity > 0.5 and draw.random() < 0.35:  # breasts
        x, y = u(0.17, 0.24), anatomy.top + u(0.6, 0.85) * anatomy.height
        radii = (u(0.12, 0.18), u(0.1, 0.2))
        breasts = [ellipse((-x, y), radii), ellipse((x, y), radii)]
        stack.add(breasts, u(0.02, 0.07), u(0.008, 0.03))
    return stack.total()


def _belly(anatomy: Anatomy) -> Points:
    """The region below the diaphragm, as a closed curve."""
    steps = np.linspace(0.0, 1.0, 30)
    floors = []
    for lung in anatomy.lungs:
        inner = float(lung.medial(np.array(lung.base)))
        outer = float(lung.lateral(np.array(1.0))) + 0.01
        x = lung.sign * (inner + (outer - inner) * steps)
        floors.append(np.stack([x, lung.y(lung.diaphragm(steps))], axis=1))
    # Beside the lungs the body wall hides the belly's edge: let it fall steeply.
    (x_left, y_left), (x_right, y_right) = floors[0][-1], floors[1][-1]
    under = [
        (x_right + 0.03, y_right + 0.2),
        (0.9, 2.0),
        (-0.9, 2.0),
        (x_left - 0.03, y_left + 0.2),
    ]
    return np.concatenate([floors[0][::-1], floors[1], np.array(under)])


def _mediastinum(anatomy: Anatomy) -> Points:
    """Heart and great vessels between the lungs, as a closed curve."""
    steps = np.linspace(-0.4, 1.0, 48)
    sides = []
    for lung in anatomy.lungs:
        t = steps * lung.base
        # Towards the neck it narrows to a point, behind the collar bones.
        neck = lung.mediastinum * np.clip(1.0 + t / 0.14, 0.0, 1.0)
        x = np.where(t < 0.12, neck, lung.medial(np.clip(t, 0.12, 1.0)))
        sides.append(np.stack([lung.sign * x, lung.y(t)], axis=1))
    return np.concatenate([sides[0], sides[1][::-1]])


def _lung_air(
    canvas: Canvas, draw: Random, anatomy: Anatomy, air: Field, haze: Field
) -> Field:
    """The depth that the lungs' air removes, also behind heart and liver."""
    u = draw.uniform
    round_ = u(0.2, 0.75)
    depth = air * ((1.0 - round_) + round_ * blur(air, u(0.03, 0.07) * canvas.size))
    behind = []
    for lung in anatomy.lungs:
        t = np.linspace(0.1, u(1.0, 1.2), 24)
        outer = np.stack([lung.lateral(t) - 0.01, lung.y(t)], axis=1)
        s = np.linspace(0.1, 0.95, 24)
        inner = np.stack([np.full_like(s, anatomy.spine + 0.01), lung.y(s)], axis=1)
        behind.append(np.concatenate([outer, inner[::-1]]) * [lung.sign, 1.0])
    hidden = canvas.soft(canvas.fill(behind), u(0.01, 0.04)) * (1.0 - air)
    return np.asarray(u(0.12, 0.34) * depth * (1.0 - haze) + u(0.0, 0.16) * hidden)

"""Lays a patient's parts over each other and develops the film."""

import numpy as np
from numpy.typing import NDArray

from stages.core.sources.phantom import film, lungs
from stages.core.sources.phantom.anatomy import (
    Anatomy,
    Points,
    Pose,
    Random,
    smooth,
)
from stages.core.sources.phantom.canvas import (
    Canvas,
    Field,
    Layer,
    blur,
    ellipse,
    ribbon,
)


def draw_mask(anatomy: Anatomy, pose: Pose, size: int) -> NDArray[np.bool_]:
    """The lungs' mask, (size, size): pixels at least half covered."""
    canvas = Canvas(size, pose)
    return canvas.cover([lung.outline() for lung in anatomy.lungs]) >= 128


def draw_image(
    draw: Random, anatomy: Anatomy, pose: Pose, class_name: str, size: int
) -> Layer:
    """The radiograph, (size, size) uint8."""
    canvas = Canvas(size, pose)
    u = draw.uniform
    body, profile = _body(canvas, draw, anatomy)
    outlines = [lung.outline() for lung in anatomy.lungs]
    air = canvas.soft(canvas.cover(outlines), 0.003)
    haze, grain = lungs.opacities(canvas, draw, anatomy, class_name)

    depth = u(0.5, 0.68) * profile
    depth += _abdomen(canvas, draw, anatomy) * profile
    depth += _middle(canvas, draw, anatomy) * profile
    depth -= _lung_air(canvas, draw, anatomy, air, haze)
    texture = u(0.02, 0.07) * lungs.vessels(canvas, draw, anatomy)
    texture += (0.004 + 0.02 * grain) * canvas.clouds(draw, 0.025)
    depth += texture * air
    depth += _bones(canvas, draw, anatomy) * (0.25 + 0.75 * profile)
    depth += u(0.15, 0.6) * film.devices(canvas, draw, anatomy)
    depth *= 1.0 + 0.05 * canvas.noise(draw, 0.4)  # uneven beam and tissue

    grey = film.expose(canvas, draw, depth, air, body)
    grey = film.detect(draw, grey)
    picture = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    film.annotate(draw, picture)
    return picture


def _mirror(points: Points) -> Points:
    """Completes a right half, given from top to bottom, to a closed curve."""
    return np.concatenate([points, points[::-1] * [-1.0, 1.0]])


def _body(canvas: Canvas, draw: Random, anatomy: Anatomy) -> tuple[Field, Field]:
    """Where the body is, and how thick, both 0 to 1."""
    u = draw.uniform
    top, height, skin = anatomy.top, anatomy.height, anatomy.tissue
    neck = u(0.09, 0.15)
    shoulder = top + u(-0.1, 0.06)
    reach = u(0.36, 0.52)
    wide = max(lung.width for lung in anatomy.lungs) + skin
    breast = u(0.0, 0.03) * anatomy.maturity
    outline = [
        (neck * u(0.9, 1.6), -0.6),
        (neck, shoulder - 0.2),
        (neck + 0.02, shoulder - 0.09),
        (0.6 * reach + 0.05, shoulder - 0.03),
        (reach, shoulder + 0.03),
        (reach * u(0.9, 1.1), shoulder + 0.12),
        (wide * u(0.9, 1.05), top + 0.35 * height),
        (wide, top + 0.6 * height),
        (wide + breast, top + 0.75 * height),
        (wide * u(0.94, 1.02), top + height),
        (wide * u(0.88, 1.05), top + 1.3 * height),
        (wide * u(0.85, 1.1), 2.2),
    ]
    shapes = [smooth(_mirror(np.array(outline)))]
    trunk = canvas.fill(shapes)
    arms = np.zeros_like(trunk)
    if draw.random() < 0.75:
        raised = draw.random() < 0.3
        for sign in (-1, 1):
            spread = u(0.05, 0.35)
            end = shoulder - u(0.2, 0.5) if raised else shoulder + u(0.4, 0.9)
            arm = np.linspace(
                (reach - 0.02, shoulder + 0.06), (reach + spread, end), 12
            )
            canvas.fill([ribbon(arm * [sign, 1.0], u(0.09, 0.16))], arms)
    sharp = canvas.soft(trunk, u(0.006, 0.014))
    thick = u(0.4, 0.65) * sharp + 0.5 * canvas.soft(trunk, u(0.04, 0.09)) * sharp
    limbs = u(0.35, 0.6) * canvas.soft(arms, 0.015)
    profile = np.maximum(thick, limbs)
    _, y = canvas.grid()
    thinner = 1.0 - u(0.05, 0.3) * np.clip(1.0 - (y - 0.02) / 0.45, 0.0, 1.0)
    profile = profile * canvas.enlarge(np.asarray(thinner))
    if draw.random() < 0.35:  # the chin
        chin = ellipse(
            (u(-0.06, 0.06), top - u(0.16, 0.3)), (u(0.1, 0.16), u(0.1, 0.16))
        )
        profile = profile + u(0.15, 0.4) * canvas.soft(canvas.fill([chin]), 0.008)
    return np.maximum(sharp, canvas.soft(arms, 0.004)), np.clip(profile, 0.0, 1.4)


def _abdomen(canvas: Canvas, draw: Random, anatomy: Anatomy) -> Field:
    """What lies below the diaphragm, with the stomach's and the bowels' gas."""
    u = draw.uniform
    steps = np.linspace(0.0, 1.0, 30)
    floors = []
    for lung in anatomy.lungs:
        left = float(lung.medial(np.array(lung.base)))
        right = float(lung.lateral(np.array(1.0))) + 0.01
        x = lung.sign * (left + (right - left) * steps)
        floors.append(np.stack([x, lung.y(lung.diaphragm(steps))], axis=1))
    # Beside the lungs the body wall hides the belly's edge: let it fall steeply.
    (x_left, y_left), (x_right, y_right) = floors[0][-1], floors[1][-1]
    under = np.array(
        [(x_right + 0.03, y_right + 0.2), (0.9, 2.0), (-0.9, 2.0)]
        + [(x_left - 0.03, y_left + 0.2)]
    )
    belly = np.concatenate([floors[0][::-1], floors[1], under])
    dense = u(0.06, 0.3) * canvas.soft(canvas.fill([belly]), u(0.002, 0.008))
    left_lung = anatomy.left
    gas = canvas.blank()
    if draw.random() < 0.45:
        at = (
            u(0.12, 0.27),
            float(left_lung.y(np.array(left_lung.base))) + u(0.07, 0.16),
        )
        canvas.fill([ellipse(at, (u(0.03, 0.1), u(0.02, 0.07)))], gas)
    for _ in range(int(draw.integers(0, 5)) if draw.random() < 0.4 else 0):
        at = (u(-0.3, 0.3), anatomy.top + u(1.05, 1.4) * anatomy.height)
        canvas.fill([ellipse(at, (u(0.02, 0.06), u(0.02, 0.05)))], gas)
    return dense - u(0.08, 0.25) * canvas.soft(gas, 0.006)


def _middle(canvas: Canvas, draw: Random, anatomy: Anatomy) -> Field:
    """Heart, mediastinum, spine and airway."""
    u = draw.uniform
    steps = np.linspace(-0.15, 1.0, 40)
    sides = []
    for lung in anatomy.lungs:
        t = steps * lung.base
        x = np.where(t < 0.12, lung.mediastinum, lung.medial(np.clip(t, 0.12, 1.0)))
        sides.append(np.stack([lung.sign * x, lung.y(t)], axis=1))
    between = np.concatenate([sides[0], sides[1][::-1]])
    core = canvas.fill([between])
    field = u(0.06, 0.2) * canvas.soft(core, 0.01) + u(0.0, 0.1) * canvas.soft(
        core, 0.05
    )
    y = np.linspace(-0.5, 1.6, 60)
    column = np.stack([np.zeros_like(y), y], axis=1)
    spine = canvas.soft(canvas.fill([ribbon(column, 2.0 * anatomy.spine)]), 0.006)
    field += u(0.03, 0.16) * spine
    discs = np.zeros_like(core)
    gap = anatomy.rib_gap
    for number in range(-3, 18):
        at = anatomy.top + (number - 0.4) * gap
        line = np.array(
            [(-anatomy.spine, at), (0.0, at - 0.1 * gap), (anatomy.spine, at)]
        )
        canvas.fill([ribbon(line, u(0.16, 0.26) * gap)], discs)
    field -= u(0.0, 0.09) * canvas.soft(discs, 0.004)
    end = float(anatomy.right.y(np.array(u(0.25, 0.38))))
    lean = u(-0.02, 0.02)
    windpipe = np.array([(0.0, -0.5), (0.0, anatomy.top), (lean, end)])
    airway = [ribbon(windpipe, u(0.025, 0.045))]
    for sign in (-1, 1):
        bronchus = np.array([(lean, end - 0.01), (lean + sign * 0.08, end + 0.07)])
        airway.append(ribbon(bronchus, 0.025))
    field -= u(0.02, 0.13) * canvas.soft(canvas.fill(airway), 0.006)
    return field


def _lung_air(
    canvas: Canvas, draw: Random, anatomy: Anatomy, air: Field, haze: Field
) -> Field:
    """How much the lungs' air takes away, behind heart and liver too."""
    u = draw.uniform
    round_ = u(0.3, 0.7)
    depth = (1.0 - round_) * air + round_ * air * blur(air, 0.05 * canvas.size)
    behind = []
    for lung in anatomy.lungs:
        t = np.linspace(0.1, u(1.0, 1.12), 24)
        outer = np.stack([lung.lateral(t) - 0.01, lung.y(t)], axis=1)
        inner = np.stack([np.full_like(t, anatomy.spine + 0.01), lung.y(t)], axis=1)
        behind.append(np.concatenate([outer, inner[::-1]]) * [lung.sign, 1.0])
    hidden = canvas.soft(canvas.fill(behind), 0.02) * (1.0 - air)
    return np.asarray(u(0.14, 0.36) * depth * (1.0 - haze) + u(0.0, 0.07) * hidden)


def _bones(canvas: Canvas, draw: Random, anatomy: Anatomy) -> Field:
    """Ribs, collar bones, shoulder blades and upper arms."""
    u = draw.uniform
    back, front, rim, rest = (canvas.blank() for _ in range(4))
    width = anatomy.rib_width
    lines = anatomy.ribs()
    canvas.fill(ribbon(lines[:, :18], width * np.linspace(0.75, 1.0, 18)), back)
    canvas.fill(ribbon(lines[:, 13:22], width * 1.05), rim)
    canvas.fill(ribbon(lines[:, 17:], width * np.linspace(1.0, 1.25, 19)), front)
    for sign in (-1, 1):
        neck = np.array(
            [
                (0.035, anatomy.top + u(0.0, 0.05)),
                (0.13, anatomy.top + u(-0.03, 0.03)),
                (0.24, anatomy.top + u(-0.06, 0.01)),
                (0.36, anatomy.top + u(-0.12, 0.02)),
            ]
        )
        smooth_neck = np.stack(
            [
                np.interp(np.linspace(0, 3, 24), np.arange(4), neck[:, i])
                for i in (0, 1)
            ],
            axis=1,
        )
        canvas.fill([ribbon(smooth_neck * [sign, 1.0], u(0.018, 0.032))], rest)
    cortex = u(0.0, 0.8)
    field = np.zeros(back.shape)
    for layer, strength in (
        (back, u(0.03, 0.12)),
        (rim, u(0.0, 0.07)),
        (front, u(0.0, 0.07)),
        (rest, u(0.03, 0.13)),
    ):
        band = canvas.soft(layer, 0.0025)
        field += strength * (band + cortex * (band - canvas.soft(layer, 0.009)))
    blades = []
    arms = []
    high = anatomy.top
    for sign in (-1, 1):
        inner = u(0.22, 0.34)
        blade = smooth(
            np.array(
                [
                    (inner + 0.03, high + u(0.0, 0.05)),
                    (inner + 0.16, high + u(-0.03, 0.03)),
                    (inner + 0.15, high + u(0.08, 0.14)),
                    (inner + 0.06, high + u(0.26, 0.38)),
                    (inner, high + u(0.2, 0.3)),
                ]
            )
        )
        blades.append(blade * [sign, 1.0])
        arm = np.linspace(
            (u(0.4, 0.46), high + u(-0.02, 0.06)), (u(0.42, 0.62), high + 0.5), 8
        )
        arms.append(ribbon(arm * [sign, 1.0], u(0.03, 0.05)))
    blade_field = canvas.soft(canvas.fill(blades), 0.005)
    arm_field = canvas.soft(canvas.fill(arms), 0.004)
    return np.asarray(field + u(0.0, 0.06) * blade_field + u(0.0, 0.12) * arm_field)

"""The anatomy of a patient: lungs, ribs, heart and outline as smooth curves.

Body coordinates: the side of the image is 1, x = 0 is the patient's midline, y grows
downwards from the upper edge. `Pose` maps them to the image. The ranges are the
proportions of children and adults in the two public lung data sets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2), x then y
Random = np.random.Generator


def random_for(*key: int) -> Random:
    """A random generator that depends on the key alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def smooth(points: Points) -> Points:
    """Rounds the corners of a closed polygon (Chaikin's algorithm)."""
    for _ in range(3):
        following = np.roll(points, -1, axis=0)
        cut = (0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following)
        points = np.stack(cut, axis=1).reshape(-1, 2)
    return points


@dataclass(frozen=True)
class Lung:
    """One lung's borders; `t` runs from the apex (0) to the costophrenic angle (1)."""

    sign: int  # -1: left in the picture, the patient's right; 1: the other
    top: float  # y of the apex
    height: float  # apex to costophrenic angle
    apex: float  # distance of the apex from the midline
    width: float  # distance of the chest wall from the midline, at its widest
    widest: float  # t of the widest place
    taper: float  # share of the width lost below it
    roundness: float  # exponent of the chest wall; 2 is an ellipse
    mediastinum: float  # half width of what lies between the lungs, above the heart
    heart: float  # how far the heart reaches beyond it
    heart_top: float  # t where the heart begins to bulge
    heart_widest: float  # t where it reaches furthest
    heart_power: float  # below 1: a round heart; above 1: a narrow waist
    knob: float  # size of the bulge of aorta or great veins
    knob_t: float
    hilum: float  # how far the border draws back towards the spine at the hilum
    base: float  # t where the diaphragm meets the heart
    base_power: float  # how late the diaphragm falls to the costophrenic angle
    dome: float  # how high the dome stands above the straight line
    waves: tuple[float, ...]  # amplitudes of the outline's slow irregularities

    def y(self, t: Points) -> Points:
        """Height in the picture of `t`."""
        return self.top + self.height * t

    def lateral(self, t: Points) -> Points:
        """Distance of the inner chest wall from the midline."""
        s = np.clip(t / self.widest, 0.0, 1.0)
        arc = (1.0 - (1.0 - s) ** self.roundness) ** (1.0 / self.roundness)
        below = np.clip((t - self.widest) / 0.3, 0.0, 1.5)
        narrowing = 1.0 - self.taper * below * below
        return (self.apex + (self.width - self.apex) * arc) * narrowing

    def medial(self, t: Points) -> Points:
        """Distance of the border with mediastinum and heart from the midline."""
        s = np.clip(t / 0.11, 0.0, 1.0)
        apex = (self.apex - self.mediastinum) * (1.0 - np.sqrt(s * (2.0 - s)))
        span = self.heart_widest - self.heart_top
        bulge = np.clip((t - self.heart_top) / span, 0.0, 1.0)
        heart = self.heart * bulge**self.heart_power
        inwards = np.clip((t - self.heart_widest) / 0.35, 0.0, 1.0)
        heart = heart * (1.0 - 0.35 * inwards * inwards)
        knob = self.knob * np.exp(-(((t - self.knob_t) / 0.06) ** 2))
        hilum = -self.hilum * np.exp(-(((t - 0.45) / 0.09) ** 2))
        border = self.mediastinum + apex + heart + knob + hilum
        return np.minimum(np.maximum(border, 0.03), self.lateral(t) - 0.03)

    def diaphragm(self, u: Points) -> Points:
        """`t` of the diaphragm; `u` runs from the heart (0) to the chest wall (1)."""
        fall = self.base + (1.0 - self.base) * u**self.base_power
        return fall - self.dome * np.sin(np.pi * u**0.8)

    def outline(self) -> Points:
        """The closed border, without the irregularities of a drawn mask."""
        steps = np.linspace(0.0, 1.0, 40)
        down = steps**1.5 * self.base
        inner = np.stack([self.medial(down), self.y(down)], axis=1)
        left, right = self.medial(np.array(self.base)), self.lateral(np.array(1.0))
        floor = np.stack(
            [left + (right - left) * steps, self.y(self.diaphragm(steps))], axis=1
        )
        up = (1.0 - steps) ** 1.5
        wall = np.stack([self.lateral(up), self.y(up)], axis=1)
        closed = np.concatenate([inner, floor[1:], wall[1:-1]])
        angle = np.linspace(0.0, 2.0 * np.pi, len(closed), endpoint=False)
        for order, amplitude in enumerate(self.waves, start=3):
            closed = closed + amplitude * np.stack(
                [np.cos(order * angle + 5.0 * order), np.sin(order * angle)], axis=1
            )
        return closed * [self.sign, 1.0]


@dataclass(frozen=True)
class Anatomy:
    """A patient: the properties that all films of one patient share."""

    maturity: float  # 0 a small child, 1 an adult
    right: Lung  # patient's right, left in the picture
    left: Lung
    rib_count: int
    rib_gap: float  # distance from one rib to the next
    rib_width: float
    rib_rise: float  # height of the arc that a rib makes behind the lung
    rib_drop: float  # how much lower a rib lies in front than at the spine
    tissue: float  # muscle and fat between ribs and skin
    spine: float  # half width of the vertebral column
    bend: float  # sideways curve of the spine

    @property
    def lungs(self) -> tuple[Lung, Lung]:
        """Both, the picture's left one first."""
        return self.right, self.left

    @property
    def top(self) -> float:
        """Y of the higher apex."""
        return min(self.right.top, self.left.top)

    @property
    def height(self) -> float:
        """From the higher apex to the lower costophrenic angle."""
        return max(lung.top + lung.height for lung in self.lungs) - self.top

    def wall(self, sign: int, y: Points) -> Points:
        """Distance of the ribs' outer edge from the midline, also beyond the lung."""
        lung = self.right if sign < 0 else self.left
        t = (y - lung.top) / lung.height
        shoulder = lung.apex * np.clip(1.0 + t / 0.12, 0.25, 1.0)
        inside = lung.lateral(np.clip(t, 0.0, 1.25))
        return np.where(t < 0.0, shoulder, inside) + 0.5 * self.rib_width

    def ribs(self) -> Points:
        """Each rib's centre line, from the spine round the side to the front.

        Returns:
            (2 x rib_count, 36, 2), the picture's left side first.
        """
        theta = np.linspace(0.06, 0.8 * np.pi, 36)
        number = np.arange(self.rib_count)[:, None]
        low = number / (self.rib_count - 1)
        y = (
            self.top
            + (number - 1.6) * self.rib_gap
            - self.rib_rise * (0.4 + 0.6 * low) * np.sin(2.0 * theta)
            + self.rib_drop * (0.5 + 0.8 * low) * 0.5 * (1.0 - np.cos(theta))
        )
        start = 0.6 * self.spine
        sides = [
            np.stack(
                [sign * (start + (self.wall(sign, y) - start) * np.sin(theta)), y], -1
            )
            for sign in (-1, 1)
        ]
        return np.concatenate(sides)


def _lung(draw: Random, sign: int, a: float, common: dict[str, float]) -> Lung:
    """Draws one lung from the properties that both share."""
    u = draw.uniform
    right = sign < 0
    heart = common["heart"] * (u(0.2, 0.6) if right else 1.0)
    width = common["width"] * u(0.94, 1.06)
    height = common["height"] * u(0.95, 1.05)
    mediastinum = common["mediastinum"] * u(0.8, 1.25)
    base = u(0.76, 0.92) if right else u(0.8, 0.97)
    if draw.random() < 0.06:  # a small or a pressed lung
        width *= u(0.8, 0.95)
        base *= u(0.8, 0.95)
    if draw.random() < 0.08:  # a raised diaphragm
        height *= u(0.75, 0.92)
    return Lung(
        sign=sign,
        top=common["top"] + u(-0.018, 0.018),
        height=height,
        apex=mediastinum + u(0.13, 0.22) * width,
        width=width,
        widest=u(0.75, 1.05) if a > 0.5 else u(0.82, 1.2),
        taper=u(0.0, 0.07),
        roundness=u(1.8, 2.35),
        mediastinum=mediastinum,
        heart=heart,
        heart_top=u(0.05, 0.2) + 0.2 * a * draw.random() + 0.1 * right,
        heart_widest=u(0.68, 1.0),
        heart_power=u(0.65, 1.15) if a < 0.5 else u(0.75, 1.9),
        knob=u(0.0, 0.02) * (0.3 + 0.9 * a),
        knob_t=u(0.2, 0.33),
        hilum=u(0.0, 0.015),
        base=base,
        base_power=u(1.2, 3.5),
        dome=u(-0.01, 0.07) if right else u(-0.015, 0.05),
        waves=tuple(draw.normal(0.0, 0.0016, 5).tolist()),
    )


def draw_anatomy(draw: Random, child_share: float) -> Anatomy:
    """Draws a patient, a child with the probability `child_share`."""
    u = draw.uniform
    a = u(0.0, 0.4) if draw.random() < child_share else u(0.6, 1.0)
    height = u(0.66, 0.86) if a < 0.5 else u(0.58, 0.84)
    common = {
        "top": u(0.06, 0.2),
        "height": height,
        "width": u(0.33, 0.41) if a < 0.5 else u(0.32, 0.43),
        "mediastinum": u(0.055, 0.09) if a < 0.5 else u(0.045, 0.085),
        "heart": u(0.13, 0.24) if a < 0.5 else u(0.08, 0.2),
    }
    if draw.random() < 0.1:  # a huge heart
        common["heart"] += u(0.03, 0.09)
    rib_gap = height / u(8.0, 10.5)
    return Anatomy(
        maturity=a,
        right=_lung(draw, -1, a, common),
        left=_lung(draw, 1, a, common),
        rib_count=14,
        rib_gap=rib_gap,
        rib_width=rib_gap * u(0.24, 0.4),
        rib_rise=rib_gap * u(0.0, 0.9),
        rib_drop=rib_gap * u(2.0, 6.5),
        tissue=u(0.012, 0.06) if a < 0.5 else u(0.02, 0.11),
        spine=u(0.03, 0.05),
        bend=draw.normal(0.0, 0.012),
    )


@dataclass(frozen=True)
class Pose:
    """The patient's place on the film: rotation, scale, shift and bend of the spine."""

    turn: float  # radians
    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float
    bend: float

    def __call__(self, points: Points) -> Points:
        """Maps body coordinates to image coordinates, 0 to 1 within the frame."""
        x, y = points[..., 0], points[..., 1] - 0.5
        x = x + self.bend * np.sin(3.0 * y)
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return np.stack(
            [
                0.5 + self.shift_x + self.scale_x * (cos * x - sin * y),
                0.5 + self.shift_y + self.scale_y * (sin * x + cos * y),
            ],
            axis=-1,
        )


def draw_pose(draw: Random, anatomy: Anatomy) -> Pose:
    """Draws a pose; one in six frames cuts the lungs."""
    u = draw.uniform
    scale_x, scale_y = u(0.88, 1.08), u(0.88, 1.08)
    shift_y = u(-0.05, 0.05)
    kind = draw.random()
    if kind < 0.16:  # framed too tightly
        scale_x, scale_y = u(0.95, 1.15), u(1.1, 1.9)
        shift_y = u(-0.2, 0.12)
    elif kind < 0.26:  # a small patient on a large film
        scale = u(0.6, 0.85)
        scale_x, scale_y = scale * u(0.95, 1.1), scale * u(0.9, 1.05)
        shift_y = u(-0.12, 0.08)
    return Pose(
        turn=float(np.clip(draw.normal(0.0, 0.035), -0.16, 0.16)),
        scale_x=scale_x,
        scale_y=scale_y,
        shift_x=float(np.clip(draw.normal(0.0, 0.025), -0.08, 0.08)),
        shift_y=shift_y,
        bend=anatomy.bend,
    )

"""Dice under growing perturbations of the pictures, beside that of plain copies.

Exposure, contrast, inversion, blur, noise, size, place, rotation and cropped borders,
each alone, at six strengths. Draws `robustness.svg` in OUT (default: data/.work/bench).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks import data
from benchmarks.harness import Options, Row
from stages.core import files, imaging, paths
from stages.core.charts import SERIES, figure, standalone
from stages.core.imaging import Grey, Mask
from stages.core.params import load_params
from stages.inference import score
from stages.inference.segmenter import Exported
from stages.scoring.metrics import Masks, dice

OPTIONS = ("data", "model", "pairs", "out")
LONG = False
STEPS = 5  # strengths above none

Warp = np.ndarray  # (2, 3), for cv2.warpAffine, of pixels as shares of the side
Draw = np.random.Generator


@dataclass(frozen=True)
class Perturbation:
    """One way to spoil a picture; strength 0 leaves it as it is, 1 is the most."""

    name: str
    most: str  # what strength 1 is, for readers
    grey: Callable[[np.ndarray, float, Draw], np.ndarray] | None = None
    place: Callable[[float, Draw], Warp] | None = None


def _turned(degrees: float, zoom: float = 1.0) -> Warp:
    return cv2.getRotationMatrix2D((0.5, 0.5), degrees, zoom)


def _moved(share: float, draw: Draw) -> Warp:
    angle = draw.uniform(0, 2 * np.pi)
    return np.array(
        [[1, 0, share * np.cos(angle)], [0, 1, share * np.sin(angle)]], np.float64
    )


def _sign(draw: Draw) -> float:
    return float(draw.choice([-1.0, 1.0]))


def _noisy(grey: np.ndarray, strength: float, draw: Draw) -> np.ndarray:
    return grey + 0.25 * strength * draw.standard_normal(grey.shape, np.float32)


def _blurred(grey: np.ndarray, strength: float) -> np.ndarray:
    sigma = 0.02 * strength * grey.shape[0]
    return cv2.GaussianBlur(grey, (0, 0), sigma) if strength else grey


def _crop(margin: float) -> Warp:
    """What is inside the margins fills the picture."""
    return _turned(0, 1 / (1 - 2 * margin))


def _grey(
    bend: Callable[[np.ndarray, float], np.ndarray],
) -> Callable[[np.ndarray, float, Draw], np.ndarray]:
    """A change of grey values that draws nothing."""
    return lambda grey, strength, _: bend(grey, strength)


# Greys are in [0, 1]. The sign of what has two directions is drawn for each picture.
PERTURBATIONS = (
    Perturbation("gamma", "3 or 1/3", lambda g, s, d: g ** (3.0 ** (s * _sign(d)))),
    Perturbation(
        "contrast", "a tenth", _grey(lambda g, s: 0.5 + (g - 0.5) * (1 - 0.9 * s))
    ),
    Perturbation("inversion", "negative", _grey(lambda g, s: g + s * (1 - 2 * g))),
    Perturbation("blur", "sigma 2 % of the side", _grey(_blurred)),
    Perturbation("noise", "sigma a quarter of the range", _noisy),
    Perturbation(
        "scale", "2/3 or 3/2", place=lambda s, d: _turned(0, 1.5 ** (s * _sign(d)))
    ),
    Perturbation("shift", "a quarter of the side", place=lambda s, d: _moved(s / 4, d)),
    Perturbation(
        "rotation", "30 degrees", place=lambda s, d: _turned(30 * s * _sign(d))
    ),
    Perturbation(
        "cropped borders", "a fifth each side", place=lambda s, _: _crop(s / 5)
    ),
)


def bench(options: Options) -> list[Row]:
    """Scores every perturbation at every strength, on the same pairs."""
    params = load_params()
    model = score.open_model(options.model or paths.EXPORT / "unet.onnx")
    threshold = model.threshold or params.evaluate.threshold
    pairs = [
        (
            imaging.decode_image(pair.image or b"", model.image_channels),
            imaging.decode_mask(pair.mask or b""),
        )
        for pair in data.encoded(options, options.size(60, 2))
    ]
    strengths = np.linspace(0, 1, (1 if options.quick else STEPS) + 1)
    curves = {
        one.name: [
            _mean_dice(model, pairs, one, float(strength), threshold)
            for strength in strengths
        ]
        for one in PERTURBATIONS
    }
    out = options.out or paths.WORK / "bench"
    files.write_text(out / "robustness.svg", picture(strengths.tolist(), curves))
    return [
        Row(
            f"{one.name}, {one.most}",
            curves[one.name][-1],
            "Dice",
            curves[one.name][0],
            "plain",
            curves[one.name][-1] / curves[one.name][0],
            notes={
                f"at {strength:.1f}": value
                for strength, value in zip(strengths, curves[one.name], strict=True)
            }
            | {"images": len(pairs)},
        )
        for one in PERTURBATIONS
    ]


def perturbed(
    image: Grey, mask: Mask, one: Perturbation, strength: float, draw: Draw
) -> tuple[Grey, Mask]:
    """A spoilt picture and its mask, moved with it; sizes stay.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        mask: (h, w) bool.
        one: How.
        strength: 0 to 1.
        draw: Of noise, directions and signs.
    """
    if one.place is not None and strength:
        warp = one.place(strength, draw)
        image = np.asarray(_warp(image, warp, cv2.INTER_LINEAR), np.uint8)
        moved = _warp(mask.astype(np.uint8), warp, cv2.INTER_NEAREST)
        return image, np.asarray(moved, bool)
    if one.grey is not None and strength:
        grey = one.grey(imaging.to_input(image), strength, draw)
        image = np.asarray(np.clip(grey * 255, 0, 255).round(), np.uint8)
    return image, mask


def _warp(pixels: np.ndarray, warp: Warp, method: int) -> np.ndarray:
    """Moves pixels by a transform of shares of the sides."""
    height, width = pixels.shape[:2]
    scaled = warp.copy()
    sides = np.array([width, height], np.float64)
    scaled[:, :2] = warp[:, :2] * sides[:, None] / sides[None]
    scaled[:, 2] = warp[:, 2] * sides
    return cv2.warpAffine(pixels, scaled, (width, height), flags=method)


def _mean_dice(
    model: Exported,
    pairs: Sequence[tuple[Grey, Mask]],
    one: Perturbation,
    strength: float,
    threshold: float,
) -> float:
    """Mean over images, each at its mask's own size; undefined ones left out."""
    scores = []
    for index, (image, mask) in enumerate(pairs):
        draw = np.random.default_rng(index)
        image, mask = perturbed(image, mask, one, strength, draw)
        pixels = imaging.preprocess(image, model.image_size)
        prob = model.predict(imaging.to_input(pixels)[None])[0, :, :, 0]
        found = imaging.resize_prob(prob, *mask.shape) >= threshold
        scores.append(dice(Masks(mask_true=mask, mask_pred=found)))
    return float(np.nanmean(scores))


def picture(strengths: Sequence[float], curves: dict[str, list[float]]) -> str:
    """The curves as an SVG file."""
    drawn, axes = figure(width=6.0, height=4.0)
    for place, (name, curve) in enumerate(curves.items()):
        dash = "-" if place < len(SERIES) else "--"
        axes.plot(strengths, curve, dash, label=name)
    axes.set_ylim(0, 1)
    axes.set_xlabel("strength")
    axes.set_ylabel("Dice")
    axes.legend(loc="lower left")
    return standalone(drawn, "Dice under perturbation")

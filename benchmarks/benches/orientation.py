"""Share of films whose orientation the reference ranges of a model name."""

import numpy as np

from benchmarks import data
from benchmarks.harness import Options, Row
from stages.core import imaging
from stages.datasets.pairs import Pair
from stages.inference import orientation
from stages.inference.orientation import CHEST

LONG = False
FITTED_TO, FIT_SEED, SIDE, RIDGE = 400, 2000, 128, 0.1
LEAST = {
    "inverted": 95.0,
    "turned by 90 degrees": 90.0,
    "upside down": 90.0,
    "turned by 270 degrees": 90.0,
}


def bench(options: Options) -> list[Row]:
    """The films of a data set, or phantoms that the weights were not fitted to."""
    if options.data is None:
        films = _decoded(data.phantoms(options.size(100, 4), side=SIDE))
    else:
        films = _decoded(data.given(options.data, options.pairs))
    turned = [[np.rot90(film, turns) for film in films] for turns in (1, 2, 3)]
    inverted = [255 - film for film in films]
    rows = [Row("as they are", _named(films), "%", at_most=3)]
    for (name, least), shown in zip(LEAST.items(), (inverted, *turned), strict=True):
        rows.append(Row(name, _named(shown), "%", at_least=least))
    count = 2 if options.quick else FITTED_TO
    found = fitted(_decoded(data.phantoms(count, side=SIDE, seed=FIT_SEED)))
    equal = 100 * np.mean(np.frombuffer(found, "i1") == np.frombuffer(CHEST, "i1"))
    return [*rows, Row("weights that a new fit gives again", float(equal), "%")]


def _decoded(pairs: list[Pair]) -> list[imaging.Grey]:
    return [imaging.decode_image(pair.content()[0]) for pair in pairs]


def _named(films: list[imaging.Grey]) -> float:
    """Percentage of films that are named."""
    return float(100 * np.mean([bool(orientation.unusual(film)) for film in films]))


def fitted(films: list[imaging.Grey]) -> bytes:
    """The weights of `orientation.CHEST`, fitted to upright films and their turns."""
    thumbnails = np.stack([orientation.thumbnail(film) for film in films])
    mirrored = np.concatenate([thumbnails, thumbnails[:, :, ::-1]])
    inputs = np.concatenate([np.rot90(mirrored, t, (1, 2)) for t in range(4)])
    inputs = inputs.reshape(len(inputs), -1).astype(np.float64)
    answers = np.repeat([1.0, 0.0, 0.0, 0.0], len(mirrored))
    gram = inputs.T @ inputs / len(inputs) + RIDGE * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ answers / len(inputs))
    return np.round(weights * orientation.SCALE).astype(np.int8).tobytes()

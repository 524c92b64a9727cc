import math

import numpy as np
import pytest

from stages.core.imaging import decode_image
from stages.datasets.sources import phantom
from stages.inference.reference_ranges import ENDS, ReferenceRanges
from tests.conftest import lungs

LUNGS = ReferenceRanges.of({}, is_of_lungs=True, is_grey=True)
assert LUNGS is not None


def test_what_is_unlike_the_training_data():
    grey = lungs(1)[0]
    assert LUNGS.of_image(grey, grey) == []
    flat = np.full((32, 32), 230, np.uint8)
    assert LUNGS.of_image(flat, flat) == [
        "low contrast (0.0 of 255)",
        "very bright (mean 230 of 255)",
    ]
    halves = np.repeat([[0, 255]], 32, axis=0).repeat(16, axis=1).astype(np.uint8)
    assert LUNGS.of_image(halves, halves) == ["high contrast (127.5 of 255)"]
    dark = grey // 8
    assert LUNGS.of_image(dark, dark)[-1] == "very dark (mean 18 of 255)"
    assert LUNGS.of_image(np.dstack([grey] * 3), grey) == []
    colour = np.dstack([grey, grey, 255 - grey])
    assert LUNGS.of_image(colour, grey) == ["in colour"]

    mask = lungs(1)[1] > 0
    assert LUNGS.of_mask(mask, 0.9) == []
    assert LUNGS.of_mask(mask, 0.5) == ["unsure (mean confidence 0.50)"]
    assert LUNGS.of_mask(mask & False, math.nan) == ["no lung found"]
    assert LUNGS.of_mask(mask | True, 0.9) == [
        "very much lung (100% of the image)",
        "1 region instead of 2",
    ]
    speck = mask & False
    speck[4:6, 4:6] = True
    assert LUNGS.of_mask(speck, 0.9) == [
        "very little lung (0% of the image)",
        "0 regions instead of 2",
    ]
    crumbs = mask.copy()
    crumbs[0, 0] = True  # far below 1 % of the image
    assert LUNGS.of_mask(crumbs, 0.9) == []


def test_the_orientation_of_a_film_is_noticed_if_the_model_is_of_lungs(section):
    values = {"phantom.pairs": 8, "phantom.seed": 77, "phantom.image_size": 128}
    pairs = phantom.pairs(section("ingest", **values))
    films = [decode_image(pair.image, 1) for pair in pairs]
    ranges = {name: [0.0, 1.0] for name in ENDS}
    other = ReferenceRanges.of(ranges, is_of_lungs=False, is_grey=True)
    for film in films:
        side, down, up = (np.rot90(film, turns) for turns in (1, 2, 3))
        for shown, expected in (
            (film, None),
            (np.pad(film, ((0, 60), (9, 0))), None),
            (255 - film, "inverted"),
            (side, "turned by 90 degrees"),
            (down, "upside down"),
            (up, "turned by 90 degrees"),
            (255 - down, "inverted and upside down"),
        ):
            said = [w for w in LUNGS.of_image(shown, shown) if "probably" in w]
            assert said == ([f"probably {expected}"] if expected else [])
            assert not any("seems" in w for w in other.of_image(shown, shown))


def test_the_training_sets_own_ranges_count():
    ranges = {"image_mean": [100.0, 130.0], "foreground_fraction": [0.2, 0.3]}
    own = ReferenceRanges.of(ranges, is_of_lungs=True, is_grey=True)
    assert own.mean == pytest.approx((100 / 1.3, 255 - 125 / 1.3))
    assert own.contrast == LUNGS.contrast  # not told
    grey = np.tile(np.array([[40, 80], [80, 40]], np.uint8), (16, 16))
    assert LUNGS.of_image(grey, grey) == []
    assert own.of_image(grey, grey) == ["very dark (mean 60 of 255)"]


def test_masks_that_may_be_empty_and_in_parts():
    """As lesions in slices of a brain are; in colour, too."""
    ranges = {
        "image_mean": [20, 60],
        "image_contrast": [20, 70],
        "foreground_fraction": [0.0, 0.1],
        "num_components": [0, 3],
    }
    lesions = ReferenceRanges.of(ranges, is_of_lungs=False, is_grey=False)
    mask = np.zeros((40, 40), bool)
    assert lesions.of_mask(mask, math.nan) == []
    for number in range(4):
        mask[10 * number : 10 * number + 6, :6] = True
    assert lesions.of_mask(mask, 0.9) == ["4 regions instead of at most 3"]
    mask[20:] = True
    assert lesions.of_mask(mask, 0.9)[0] == ("very much foreground (55% of the image)")
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[:, ::2, 1] = 150
    assert lesions.of_image(colour, colour) == []


@pytest.mark.parametrize("broken", [None, "wide", [1], [None, 2], [1, math.inf]])
def test_nothing_is_judged_by_what_nobody_knows(broken):
    assert (
        ReferenceRanges.of({"image_mean": broken}, is_of_lungs=False, is_grey=True)
        is None
    )
    assert (
        ReferenceRanges.of({"image_mean": broken}, is_of_lungs=True, is_grey=True)
        == LUNGS
    )

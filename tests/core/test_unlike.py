import numpy as np

from stages.core import unlike
from tests.conftest import lungs


def test_what_is_unlike_the_training_data():
    grey = lungs(1)[0]
    assert unlike.image(grey, grey) == []
    flat = np.full((32, 32), 230, np.uint8)
    assert unlike.image(flat, flat) == [
        "low contrast (0.0 of 255)",
        "very bright (mean 230 of 255)",
    ]
    assert unlike.image(grey // 8, grey // 8)[-1] == "very dark (mean 18 of 255)"
    assert unlike.image(np.dstack([grey] * 3), grey) == []
    colour = np.dstack([grey, grey, 255 - grey])
    assert unlike.image(colour, grey) == ["in colour"]

    mask = lungs(1)[1] > 0
    assert unlike.mask(mask, 0.9) == []
    assert unlike.mask(mask, 0.5) == ["unsure (mean confidence 0.50)"]
    assert unlike.mask(mask & False, float("nan")) == ["no lung found"]
    assert unlike.mask(mask | True, 0.9)[0] == "lungs very large (100% of the image)"
    left = mask.copy()
    left[:, 16:] = False
    assert unlike.mask(left, 0.9) == ["1 regions instead of 2"]
    crumbs = mask.copy()
    crumbs[0, 0] = True  # far below 1 % of the image
    assert unlike.mask(crumbs, 0.9) == []

import numpy as np
import pandas as pd

from stages.scoring.metrics import Masks, dice
from stages.scoring.scores import THRESHOLDS, dice_at_thresholds, pictured


def test_the_threshold_curve_agrees_with_thresholding():
    generator = np.random.default_rng(0)
    mask, prob = (
        generator.random((20, 20)) > 0.5,
        generator.random((20, 20), np.float32),
    )
    prob[0, 0] = 0.5  # exactly on a threshold counts as lung
    curve = dice_at_thresholds(mask, prob)
    expected = [
        dice(Masks(mask_true=mask, mask_pred=prob >= np.float32(t))) for t in THRESHOLDS
    ]
    np.testing.assert_allclose(curve, expected)
    empty = np.zeros_like(mask)
    assert np.isnan(dice_at_thresholds(empty, prob * 0)).all()


def test_pictures_are_of_the_worst_the_median_and_the_best(section):
    table = pd.DataFrame({"pair_id": list("abcdefg"), "dice": [3, 1, 2, 7, 6, 5, None]})
    params = section("evaluate", overlays_worst=2)
    ranks = pictured(table, params)
    assert ranks == {"b": "worst", "c": "worst", "a": "median", "d": "best"}
    few = pictured(table[:1], params)
    assert few == {"a": "worst"}

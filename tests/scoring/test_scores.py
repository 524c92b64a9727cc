import numpy as np
import pandas as pd
import pytest

from stages.scoring.metrics import Masks, dice
from stages.scoring.scores import THRESHOLDS, dice_at_thresholds, pictured, summarise


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


def test_pictures_are_of_the_worst_the_median_and_the_best(tiny_params):
    table = pd.DataFrame({"pair_id": list("abcdefg"), "dice": [3, 1, 2, 7, 6, 5, None]})
    params = tiny_params().evaluate.model_copy(update={"overlays_worst": 2})
    ranks = pictured(table, params)
    assert ranks == {"b": "worst", "c": "worst", "a": "median", "d": "best"}
    few = pictured(table[:1], params)
    assert few == {"a": "worst"}


def test_parts_and_intervals(tiny_params):
    table = pd.DataFrame(
        {
            "pair_id": ["a", "b", "c"],
            "class_name": ["COVID", "COVID", "Viral Pneumonia"],
            "group": ["g", "g", "h"],
            **{name: [1.0] * 3 for name in ("iou", "hd95_px", "assd_px")},
            "dice": [0.8, 1.0, 0.5],
        }
    )
    metrics = summarise(table, tiny_params().evaluate)
    assert metrics["by_class"]["COVID"]["dice"]["mean"] == pytest.approx(0.9)
    assert metrics["by_class"]["Viral Pneumonia"] == {"dice": {"mean": 0.5}}
    dice = metrics["dice"]
    assert 0 <= dice["ci_low"] < dice["mean"] < dice["ci_high"] <= 1
    assert next(iter(metrics)) == "dice"
    # One group has no interval, and a gate on it fails.
    one = summarise(table[:2], tiny_params().evaluate)["dice"]
    assert np.isnan(one["ci_low"])


def test_a_site_that_is_held_out_whole_is_apart_from_the_headline(tiny_params):
    table = pd.DataFrame(
        {
            "pair_id": list("abcd"),
            "class_name": ["COVID", "COVID", "COVID", "ward"],
            "group": list("abcd"),
            "site": ["A", "A", "B", "B"],
            "dice": [0.8, 0.9, 0.5, 0.7],
            "iou": 0.5,
            "hd95_px": [1.0, 2.0, 3.0, np.nan],
            "assd_px": 1.0,
        }
    )
    everything = summarise(table, tiny_params().evaluate)
    assert everything["dice"]["mean"] == pytest.approx(0.725)
    apart = summarise(
        table.assign(is_headline=table["site"] == "A"), tiny_params().evaluate
    )
    assert apart["dice"]["mean"] == pytest.approx(0.85)
    assert (apart["num_images"], apart["num_undefined"]) == (2, 0)
    assert list(apart["by_class"]) == ["COVID"]
    assert apart["by_site"] == everything["by_site"]
    site = apart["by_site"]["B"]
    assert site["dice"]["mean"] == pytest.approx(0.6)
    assert site["dice"]["p05"] == pytest.approx(0.51)
    assert site["dice"]["ci_low"] < 0.6 < site["dice"]["ci_high"]
    assert site["hd95_px"] == {"mean": 3.0}
    assert (site["num_images"], site["num_undefined"]) == (2, 1)

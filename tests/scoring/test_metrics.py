import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from stages.scoring.metrics import (
    METRICS,
    Masks,
    Metric,
    confidence_interval,
    metric_of,
    number,
    order,
    signed,
)
from stages.scoring.scores import Predicted, Scores, summarise


def square(top: int, left: int, side: int = 8, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def masks(mask_true: np.ndarray, mask_pred: np.ndarray) -> Masks:
    return Masks(mask_true=mask_true, mask_pred=mask_pred)


EMPTY = np.zeros((32, 32), bool)
dice, iou, hd95, assd, hd95_mm, assd_mm = (
    METRICS[name].score
    for name in ("dice", "iou", "hd95_px", "assd_px", "hd95_mm", "assd_mm")
)


def test_overlap_of_a_shifted_square():
    # 8x8 squares, shifted by 4 columns: 32 pixels in common, 64 each, 96 in all.
    a, b = square(4, 4), square(4, 8)
    assert dice(masks(a, b)) == 64 / 128
    assert iou(masks(a, b)) == 32 / 96


def test_identity_and_symmetry():
    a, b = square(3, 3), square(5, 9, side=6)
    for metric in (dice, iou):
        assert metric(masks(a, a)) == 1
        assert metric(masks(a, b)) == metric(masks(b, a))
    for metric in (hd95, assd):
        assert metric(masks(a, a)) == 0
        assert metric(masks(a, b)) == metric(masks(b, a))


def test_empty_masks():
    a = square(3, 3)
    for metric in (dice, iou, hd95, assd):
        assert np.isnan(metric(masks(EMPTY, EMPTY)))
    for metric in (dice, iou):
        assert metric(masks(a, EMPTY)) == 0
        assert metric(masks(EMPTY, a)) == 0
    for metric in (hd95, assd):
        assert np.isnan(metric(masks(a, EMPTY)))
        assert np.isnan(metric(masks(EMPTY, a)))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_thin_line_shifted_by_k_is_k_pixels_away(k):
    a, b = np.zeros((2, 40, 20), bool)
    a[:, 5] = True
    b[:, 5 + k] = True
    assert hd95(masks(a, b)) == pytest.approx(k)
    assert assd(masks(a, b)) == pytest.approx(k)


@pytest.mark.parametrize(
    ("seed", "spacing"), [(0, None), (1, None), (2, (0.2, 0.2)), (3, (0.3, 0.125))]
)
def test_distances_agree_with_brute_force(seed, spacing):
    generator = np.random.default_rng(seed)
    a, b = generator.random((2, 24, 31)) > 0.6
    found = Masks(mask_true=a, mask_pred=b, spacing=spacing)
    measured = (hd95_mm, assd_mm) if spacing else (hd95, assd)

    def edge(mask):
        cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
        inside = binary_erosion(mask, cross, border_value=0)
        return np.argwhere(mask & ~inside) * (spacing or (1, 1))

    distances = cdist(edge(a), edge(b))
    to_b, to_a = distances.min(1), distances.min(0)
    expected = max(np.percentile(to_b, 95), np.percentile(to_a, 95))
    mean = np.concatenate([to_b, to_a]).mean()
    scores = [metric(found) for metric in measured]
    assert scores == pytest.approx([expected, mean], abs=1e-5)
    assert np.isnan(hd95_mm(masks(a, b)))


def test_refuses_masks_that_are_not_boolean_or_not_alike():
    with pytest.raises(ValueError, match="boolean, received uint8"):
        dice(masks(EMPTY.astype(np.uint8), EMPTY))
    with pytest.raises(ValueError, match=r"one shape .* \(32, 32\) and \(32, 31\)"):
        hd95(masks(EMPTY, EMPTY[:, 1:]))


def interval(values, groups=None, resamples=2000):
    values = np.asarray(values, float)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    settings = {"resamples": resamples, "seed": 1}
    return confidence_interval(values, groups.astype(object), **settings)


def test_interval_agrees_with_the_standard_error():
    values = np.random.default_rng(0).normal(0.9, 0.05, 400)
    low, high = interval(values)
    error = 1.97 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.0005)
    assert high == pytest.approx(values.mean() + error, abs=0.0005)


def test_groups_of_equal_values_widen_an_interval_as_fewer_values_would():
    values = np.random.default_rng(0).normal(0.9, 0.05, 100)
    low, high = interval(values)
    narrow = interval(np.repeat(values, 4))
    grouped = interval(np.repeat(values, 4), np.repeat(np.arange(100), 4))
    assert narrow[1] - narrow[0] < 0.6 * (high - low)
    assert grouped == pytest.approx((low, high), rel=1e-9)


def test_an_interval_needs_two_groups_with_a_value():
    assert np.isnan(interval([0.5, 0.6], ["one", "one"])).all()
    assert np.isnan(interval([np.nan, 0.5])).all()
    assert interval([np.nan, 0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize("num_groups", [5, 12, 68])
@pytest.mark.parametrize("skewed", [True, False])
def test_an_interval_covers_the_mean_as_often_as_it_says(num_groups, skewed):
    """Of skewed values such as Dice, and of differences with heavy tails."""
    draw = np.random.default_rng(num_groups)
    size = (2000, num_groups)
    if skewed:
        samples, mean = 1 - np.exp(draw.normal(-3.7, 0.5, size)), 1 - np.exp(-3.575)
    else:
        samples, mean = draw.standard_t(3, size), 0.0
    ends = [interval(sample, resamples=500) for sample in samples]
    assert np.mean([low <= mean <= high for low, high in ends]) >= 0.93


def test_a_registered_metric_appears_in_every_summary(monkeypatch, section):
    """One entry in the registry, and the table and metrics.json have it."""

    def size_ratio(found: Masks) -> float:
        return found.sizes[1] / found.sizes[0]

    one = Metric(
        "size_ratio", "size ratio", size_ratio, digits=3, statistics=("mean", "min")
    )
    monkeypatch.setitem(METRICS, one.name, one)
    scored = Scores(threshold=0.5)
    for name in "ab":
        prob = square(3, 3, side=4).astype(np.float32)
        scored.add(Predicted(name, square(3, 3), prob))
    per_image = pd.DataFrame(scored.rows).assign(class_name="A", group=["a", "b"])
    metrics = summarise(per_image, section("evaluate"))
    assert metrics["size_ratio"] == {"mean": 0.25, "min": 0.25}
    assert number("size_ratio.mean", 0.25) == "0.250"
    names = ["num_images", "by_class.A.dice.mean", "size_ratio.min", "dice.mean"]
    assert sorted(names, key=order) == [names[3], names[2], names[0], names[1]]


def test_numbers_are_written_as_their_metric_says():
    assert number("dice.mean", 0.97586) == "0.9759"
    assert number("by_class.A.B.hd95_px.mean", 4.436) == "4.44"
    assert number("num_images", 1200) == "1,200"
    assert number("dice.mean", None) == number("dice.mean", float("nan")) == "undefined"
    assert signed("dice.mean", -0.01) == "\N{MINUS SIGN}0.0100"
    assert signed("dice.mean", 0.00001) == "0.0000"
    assert metric_of("num_images") is None

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from stages.scoring.metrics import (
    assd,
    bootstrap_interval,
    dice,
    hd95,
    iou,
    surface_distances,
)


def square(top: int, left: int, side: int = 8, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY = np.zeros((32, 32), bool)


def test_overlap_of_a_shifted_square():
    # 8x8 squares, shifted by 4 columns: 32 pixels in common, 64 each, 96 in all.
    a, b = square(4, 4), square(4, 8)
    assert dice(mask_true=a, mask_pred=b) == 64 / 128
    assert iou(mask_true=a, mask_pred=b) == 32 / 96


def test_identity_and_symmetry():
    a, b = square(3, 3), square(5, 9, side=6)
    for metric in (dice, iou):
        assert metric(mask_true=a, mask_pred=a) == 1
        assert metric(mask_true=a, mask_pred=b) == metric(mask_true=b, mask_pred=a)
    for metric in (hd95, assd):
        assert metric(mask_true=a, mask_pred=a) == 0
        assert metric(mask_true=a, mask_pred=b) == metric(mask_true=b, mask_pred=a)


def test_empty_masks():
    a = square(3, 3)
    for metric in (dice, iou, hd95, assd):
        assert np.isnan(metric(mask_true=EMPTY, mask_pred=EMPTY))
    for metric in (dice, iou):
        assert metric(mask_true=a, mask_pred=EMPTY) == 0
        assert metric(mask_true=EMPTY, mask_pred=a) == 0
    for metric in (hd95, assd):
        assert np.isnan(metric(mask_true=a, mask_pred=EMPTY))
        assert np.isnan(metric(mask_true=EMPTY, mask_pred=a))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_thin_line_shifted_by_k_is_k_pixels_away(k):
    a, b = np.zeros((2, 40, 20), bool)
    a[:, 5] = True
    b[:, 5 + k] = True
    assert hd95(mask_true=a, mask_pred=b) == pytest.approx(k)
    assert assd(mask_true=a, mask_pred=b) == pytest.approx(k)


@pytest.mark.parametrize("seed", range(5))
def test_distances_agree_with_brute_force(seed):
    generator = np.random.default_rng(seed)
    a, b = generator.random((2, 24, 31)) > 0.6

    def edge(mask):
        cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
        return np.argwhere(mask & ~binary_erosion(mask, cross, border_value=0))

    distances = cdist(edge(a), edge(b))
    to_b, to_a = distances.min(1), distances.min(0)
    expected = max(np.percentile(to_b, 95), np.percentile(to_a, 95))
    assert hd95(mask_true=a, mask_pred=b) == pytest.approx(expected, abs=1e-5)
    mean = np.concatenate([to_b, to_a]).mean()
    assert assd(mask_true=a, mask_pred=b) == pytest.approx(mean, abs=1e-5)
    found = surface_distances(mask_true=a, mask_pred=b)
    assert [len(found[0]), len(found[1])] == [len(to_b), len(to_a)]


def test_refuses_masks_that_are_not_boolean_or_not_alike():
    with pytest.raises(ValueError, match="boolean, received uint8"):
        dice(mask_true=EMPTY.astype(np.uint8), mask_pred=EMPTY)
    with pytest.raises(ValueError, match=r"one shape .* \(32, 32\) and \(32, 31\)"):
        hd95(mask_true=EMPTY, mask_pred=EMPTY[:, 1:])


class TestBootstrapInterval:
    def interval(self, values, groups=None, **kwargs):
        values = np.asarray(values, float)
        groups = np.arange(len(values)) if groups is None else np.asarray(groups)
        return bootstrap_interval(
            values, groups.astype(object), **({"resamples": 2000, "seed": 1} | kwargs)
        )

    def test_agrees_with_the_standard_error(self):
        values = np.random.default_rng(0).normal(0.9, 0.05, 400)
        low, high = self.interval(values)
        error = 1.96 * values.std() / 20
        assert low == pytest.approx(values.mean() - error, abs=0.001)
        assert high == pytest.approx(values.mean() + error, abs=0.001)

    def test_groups_of_equal_values_widen_it_as_fewer_values_would(self):
        values = np.random.default_rng(0).normal(0.9, 0.05, 100)
        low, high = self.interval(values)
        narrow = self.interval(np.repeat(values, 4))
        grouped = self.interval(np.repeat(values, 4), np.repeat(np.arange(100), 4))
        assert narrow[1] - narrow[0] < 0.6 * (high - low)
        assert grouped[1] - grouped[0] == pytest.approx(high - low, rel=0.1)

    def test_undefined_values_are_left_out(self):
        assert self.interval([np.nan, 0.5, 0.5]) == (0.5, 0.5)
        assert np.isnan(self.interval([np.nan, np.nan])).all()

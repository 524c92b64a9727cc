"""Which regions of a mask are kept."""

import numpy as np

from stages.scoring.postprocess import largest_components


def blobs(sizes: list[int]) -> np.ndarray:
    """Rows of so many pixels, two lines apart."""
    mask = np.zeros((2 * len(sizes), max(sizes) + 1), bool)
    for place, size in enumerate(sizes):
        mask[2 * place, :size] = True
    return mask


def test_the_largest_are_kept():
    mask = blobs([3, 9, 1, 5])
    for count, kept in ((1, [9]), (2, [9, 5]), (3, [9, 5, 3]), (4, None), (9, None)):
        found = largest_components(mask, count)
        expected = mask if kept is None else mask & np.isin(mask.sum(1), kept)[:, None]
        np.testing.assert_array_equal(found, expected)
    assert largest_components(mask, 0) is mask
    empty = np.zeros((4, 4), bool)
    assert not largest_components(empty, 2).any()
    # A corner joins; equals are kept together, since neither is the larger.
    assert largest_components(np.eye(4, dtype=bool), 1).sum() == 4
    assert largest_components(blobs([2, 4, 4]), 1).sum() == 8

import numpy as np

from stages.scoring.overlays import (
    BAR_PX,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    SIDE_PX,
    TRUTH,
    overlay,
)


def boxes():
    true, pred = np.zeros((2, 64, 64), bool)
    true[16:48, 8:32] = True
    pred[16:48, 20:44] = True
    return true, pred


def at(picture, row, column):
    """The pixel that shows place (row, column) of a 64-pixel mask."""
    scale = SIDE_PX / 64
    return picture[BAR_PX + round((row + 0.5) * scale), round((column + 0.5) * scale)]


def nearest(pixel):
    colours = {"fp": FALSE_POSITIVE, "fn": FALSE_NEGATIVE}
    return min(
        colours, key=lambda k: np.abs(np.subtract(colours[k], pixel, dtype=int)).sum()
    )


def test_colours_say_what_was_found_missed_and_too_much():
    true, pred = boxes()
    image = np.full((50, 60), 90, np.uint8)
    picture = overlay(image, mask_true=true, mask_pred=pred, caption="x")
    assert picture.shape == (SIDE_PX + 2 * BAR_PX, SIDE_PX, 3)
    assert nearest(at(picture, 32, 12)) == "fn"
    assert nearest(at(picture, 32, 40)) == "fp"
    found = at(picture, 32, 26)
    assert found[1] > found[2]  # greener than it is red
    assert np.array_equal(at(picture, 4, 4), [90, 90, 90])
    edge = picture[BAR_PX + 200, round(8 * SIDE_PX / 64)]
    assert np.array_equal(edge, TRUTH)


def test_without_a_truth_the_prediction_is_outlined():
    _, pred = boxes()
    image = np.zeros((64, 64, 3), np.uint8)
    picture = overlay(image, mask_true=None, mask_pred=pred, caption="x")
    assert not (picture[BAR_PX:-BAR_PX] == TRUTH).all(-1).any()
    assert at(picture, 32, 30).any()


def test_any_name_fits_the_caption():
    true, pred = boxes()
    image = np.zeros((64, 64), np.uint8)
    for caption in ("é" * 80, "", "a\nb", "x" * 300):
        picture = overlay(image, mask_true=true, mask_pred=pred, caption=caption)
        assert not picture[:BAR_PX, -2:].any()  # nothing runs out of the picture

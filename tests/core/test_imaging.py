import cv2
import numpy as np
import pytest

from stages.core import imaging
from tests.conftest import lungs, png


def test_decodes_every_kind_of_png_to_the_same_grey():
    image, _ = lungs()
    grey = imaging.decode_image(png(image))
    assert np.array_equal(grey, image)
    three = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    alpha = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    deep = image.astype(np.uint16) * 257
    for pixels in (three, alpha, deep):
        assert np.array_equal(imaging.decode_image(png(pixels)), image)


def test_three_channels_on_request():
    image, _ = lungs()
    colour = imaging.decode_image(png(image), channels=3)
    assert colour.shape == (40, 40, 3)
    assert np.array_equal(colour[..., 0], image)


@pytest.mark.parametrize("encoded", [b"", b"not an image", None])
def test_unreadable_bytes(encoded):
    encoded = png(lungs()[0])[:60] if encoded is None else encoded
    with pytest.raises(imaging.UnreadableImageError):
        imaging.decode(encoded)


def test_a_mask_stays_binary_and_an_image_keeps_its_range():
    image, mask = lungs(image_size=97, mask_size=97)
    for size in (32, 97, 160):
        resized = imaging.resize_mask(mask > 0, size, size)
        assert resized.dtype == bool
        assert resized.mean() == pytest.approx((mask > 0).mean(), abs=0.03)
        grey = imaging.resize_image(image, size, size)
        assert grey.min() >= image.min() - 1
        assert grey.max() <= image.max() + 1


def test_preprocess_gives_the_networks_square():
    image, mask = lungs()
    assert imaging.preprocess(image, 32).shape == (32, 32, 1)
    values = imaging.to_input(imaging.preprocess(image, 32))
    assert values.dtype == np.float32
    assert values.min() >= 0
    assert values.max() <= 1
    soft = imaging.soft_mask(mask > 0, 16)
    assert soft.shape == (16, 16, 1)
    # Averaging keeps the area that a nearest resize would round.
    assert soft.mean() / 255 == pytest.approx((mask > 0).mean(), abs=0.002)


def test_outline_of_a_square_and_of_a_mask_that_fills_the_picture():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    assert imaging.outline(mask).sum() == 16  # 5x5 less its 3x3 inside
    assert imaging.outline(np.ones((4, 5), bool)).sum() == 14  # border of 4x5
    assert imaging.num_components(lungs()[1] > 0) == 2


@pytest.mark.parametrize("side", [1, 2, 7, 64, 511])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_regions_are_those_of_opencv_by_default(side, share):
    mask = np.random.default_rng(side).random((side, side + 1)) < share
    expected = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert imaging.num_components(mask) == expected
    assert imaging.num_components(mask * np.uint8(7)) == expected


@pytest.mark.parametrize("side", [510, 511, 1001])  # to each side of 2^16 labels
def test_as_many_regions_as_fit_are_counted(side):
    mask = np.zeros((side, side), bool)
    mask[::2, ::2] = True
    assert imaging.num_components(mask) == mask.sum()

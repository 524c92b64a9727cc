import numpy as np
import pytest
import tensorflow as tf

from stages.core import imaging
from stages.core.params import AugmentationParams
from stages.datasets.pairs import write_shards
from stages.nn import dataset
from tests.conftest import ingested_pair, lungs

STILL = dict.fromkeys(AugmentationParams.model_fields, 0.0)


@pytest.fixture
def settings(section):
    return lambda **values: section("train", augmentation=STILL | values)


@pytest.fixture
def arrays():
    pictures = [lungs(seed, image_size=32, mask_size=32) for seed in range(10)]
    return dataset.Arrays(
        np.stack([image[..., None] for image, _ in pictures]),
        np.stack([mask[..., None] for _, mask in pictures]),
    )


def shards(folder, count=5):
    pairs = [ingested_pair(f"p{i}", *lungs(i)) for i in range(count)]
    write_shards(pairs, folder, shard_pairs=2)


def test_loads_in_the_order_asked_for(tmp_path):
    shards(tmp_path / "s")
    loaded = dataset.load_arrays(
        ["p4", "p0"], image_size=32, channels=1, ingested=tmp_path / "s"
    )
    assert loaded.images.shape == (2, 32, 32, 1)
    for place, seed in enumerate((4, 0)):
        image, mask = lungs(seed)
        assert np.array_equal(loaded.images[place], imaging.preprocess(image, 32))
        assert np.array_equal(loaded.masks[place], imaging.soft_mask(mask > 127, 32))


def test_every_pair_once_per_epoch_and_the_last_batch_is_full():
    order = dataset.epoch_order(10, batch_size=4, seed=1, epoch=0)
    assert order.shape == (3, 4)
    assert sorted(order.ravel()[:10]) == list(range(10))
    again = dataset.epoch_order(10, batch_size=4, seed=1, epoch=0)
    assert np.array_equal(order, again)
    other = dataset.epoch_order(10, batch_size=4, seed=1, epoch=1)
    assert not np.array_equal(order, other)


def test_half_the_size_is_the_mean_of_four():
    pixels = np.array([[0, 255, 7, 7], [255, 255, 8, 8]], np.uint8)
    pairs = dataset.Arrays(pixels[None, :, :, None], pixels[None, :, :, None])
    assert pairs.halved().images[0, :, :, 0].tolist() == [[191, 8]]  # 191.25, 7.5
    assert pairs.halved().masks.dtype == np.uint8


def test_batches_without_augmentation_are_the_pairs(arrays, settings):
    params = settings()
    order = dataset.epoch_order(10, batch_size=4, seed=params.seed, epoch=2)
    batches = dataset.batches(arrays, params, range(2, 3))
    for rows, (images, masks) in zip(order, batches, strict=True):
        np.testing.assert_allclose(images, arrays.images[rows] / 255.0, atol=2e-5)
        np.testing.assert_allclose(masks, arrays.masks[rows] / 255.0, atol=2e-5)


def drawn(arrays, params, epochs, share=slice(None)):
    batches = dataset.batches(arrays, params, epochs, share)
    return np.stack([np.concatenate(batch, axis=-1) for batch in batches])


def test_the_same_seed_and_epoch_give_the_same_batches(arrays, section):
    params = section("train")
    both = drawn(arrays, params, range(2))
    assert np.array_equal(both[:3], drawn(arrays, params, range(1)))
    # Whether an epoch is the first of a run or comes after others.
    assert np.array_equal(both[3:], drawn(arrays, params, range(1, 2)))
    assert not np.array_equal(both[:3], both[3:])


def test_shares_together_are_the_whole_batch(arrays, section):
    whole, first, second = (
        drawn(arrays, section("train"), range(1), share)
        for share in (slice(None), slice(0, 2), slice(2, 4))
    )
    np.testing.assert_allclose(whole, np.concatenate([first, second], 1), atol=1e-6)


def test_a_training_begins_with_small_images(arrays, settings):
    changes = {"low_resolution_fraction": 0.4, "epochs": 5}
    params = settings().model_copy(update=changes)
    assert dataset.image_sizes(params) == [16, 16, 32, 32, 32]
    sizes = [images.shape[1] for images, _ in dataset.training_batches(arrays, params)]
    assert sizes == [16] * 6 + [32] * 9
    resumed = dataset.training_batches(arrays, params, first=1)
    assert [images.shape[1] for images, _ in resumed] == [16] * 3 + [32] * 9


@pytest.mark.parametrize(
    "moves",
    [
        {"rotation_degrees": 20.0},
        {"shift_fraction": 0.2},
        {"scale_fraction": 0.3},
        {"aspect_fraction": 0.3},
        {"flip_probability": 1.0},
    ],
)
def test_image_and_mask_move_together(arrays, settings, moves):
    """An image of its own mask stays one."""
    images, moved = dataset.augment(
        arrays.masks,
        arrays.masks,
        seed=tf.constant([1, 2]),
        params=settings(**moves).augmentation,
    )
    np.testing.assert_allclose(images, moved, atol=1e-6)
    assert np.abs(moved - arrays.masks / 255).max() > 0.5
    assert (np.asarray(moved).mean((1, 2, 3)) > 0.1).all()


def test_ops_warp_as_opencv_does(arrays, section):
    """Within a step of OpenCV's grid, 1/32 pixel, beside edges of 255 greys."""
    moved = [
        dataset.augment(
            arrays.images,
            arrays.masks,
            seed=tf.constant([1, 2]),
            params=section("train").augmentation,
            warp=warp,
        )
        for warp in (dataset.warp_by_opencv, dataset.warp_by_ops)
    ]
    for by_opencv, by_ops in zip(*moved, strict=True):
        np.testing.assert_allclose(by_opencv, by_ops, atol=2 / 32)
        assert np.abs(by_opencv - by_ops).mean() < 0.005


def test_a_flip_is_a_flip_and_never_upside_down(arrays, settings):
    _, moved = dataset.augment(
        arrays.images,
        arrays.masks,
        seed=tf.constant([1, 2]),
        params=settings(flip_probability=1.0).augmentation,
    )
    np.testing.assert_allclose(moved, arrays.masks[:, :, ::-1] / 255, atol=1e-5)


@pytest.mark.parametrize(
    "greys",
    [
        {"brightness": 0.3},
        {"contrast": 0.5},
        {"gamma": 0.5},
        {"bias_field": 0.4},
        {"blur": 1.0},
        {"noise": 0.1},
        {"invert_probability": 1.0},
    ],
)
def test_greys_change_and_masks_do_not(arrays, settings, greys):
    bent, kept = dataset.augment(
        arrays.images,
        arrays.masks,
        seed=tf.constant([1, 2]),
        params=settings(**greys).augmentation,
    )
    np.testing.assert_allclose(kept, arrays.masks / 255, atol=1e-5)
    assert np.abs(bent - arrays.images / 255).max() > 0.02
    assert np.asarray(bent).min() >= 0
    assert np.asarray(bent).max() <= 1

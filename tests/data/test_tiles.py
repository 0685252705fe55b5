from dataclasses import replace

import numpy as np
import pytest
import torch

from ubend.data.tiles import ANCHORS, TileConfig, draw_batch, draw_tile, training_image
from ubend.errors import InputError
from ubend.method.augmentation import AugmentationConfig

PLAIN = AugmentationConfig(elastic_sigma=0, rotation=0, flip=False, contrast=0, brightness=0, gamma=1, elastic_points=1)


def image_of(value=0, shape=(40, 50), classes=None, weights=None, distance=None, *, offset=0, gain=1):
    pixels = np.full((1, *shape), value, np.uint8)
    labels = np.zeros(shape, np.int32) if classes is None else classes
    return training_image(pixels, labels, weights, distance, offset=np.full(1, offset), gain=np.full(1, gain))


def tile(images, key, *, tiles=None, augmentation=PLAIN, margin=0):
    return draw_tile(images, tiles or TileConfig(size=16, batch=2, aimed=0), augmentation, margin=margin, key=key)


def test_a_tile_is_given_by_its_three_numbers():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (40, 50))
    image = training_image(
        rng.integers(0, 255, (2, 40, 50)).astype(np.uint8), labels, labels.astype(np.float32),
        labels.astype(np.float32) / 2, offset=np.zeros(2), gain=np.ones(2),
    )  # fmt: skip
    augmentation = AugmentationConfig(noise=0.2, zoom=1.3)
    tiles = TileConfig(size=16, batch=2)
    one = tile([image], (1, 2, 0), augmentation=augmentation, tiles=tiles)
    tile([image], (9, 9, 1), augmentation=augmentation, tiles=tiles)
    two = tile([image], (1, 2, 0), augmentation=augmentation, tiles=tiles)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert not torch.equal(one[0], tile([image], other, augmentation=augmentation, tiles=tiles)[0])


def test_types_and_sizes():
    classes = np.arange(2000).reshape(40, 50) % 3
    pixels, labels, weights, _ = tile(
        [image_of(classes=classes, weights=np.ones((40, 50), np.float32))], (0, 0, 0), margin=2
    )
    assert (pixels.dtype, labels.dtype, weights.dtype) == (torch.float32, torch.int64, torch.float32)
    assert (pixels.shape, labels.shape, weights.shape) == ((1, 16, 16), (12, 12), (12, 12))
    assert tile([image_of()], (0, 0, 0))[2:] == (None, None)


def test_distances_are_read_where_the_labels_are():
    distance = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    images = [image_of(weights=distance, distance=distance)]
    turned = tile(images, (0, 0, 0), augmentation=AugmentationConfig(zoom=1.5), margin=2)
    assert torch.equal(turned.weights, turned.distance)
    batch = draw_batch(images, TileConfig(size=16, batch=3), PLAIN, margin=2, seed=4, step=6)
    assert torch.equal(batch.distance, batch.weights)
    assert batch.distance.shape == (3, 12, 12)


def test_a_tile_may_be_seen_in_the_light_of_another_image():
    """Half of the tiles of an even image, where one of two images is uneven; none without."""
    even = training_image(
        np.random.default_rng(0).integers(0, 9, (1, 40, 50)).astype(np.uint8), np.zeros((40, 50), np.int32),
        offset=np.zeros(1), gain=np.ones(1),
    )  # fmt: skip
    hazy, one_each = replace(PLAIN, haze=1.0), TileConfig(size=40, aimed=0)

    def changed(uneven):
        images = [even, replace(even, unevenness=uneven)]
        keys = [(0, step, 0) for step in range(60)]
        pairs = ((tile(images, key, augmentation=how, tiles=one_each)[0] for how in (PLAIN, hazy)) for key in keys)
        return sum(not torch.equal(*pair) for pair in pairs)

    assert changed(0.0) == 0
    assert 15 < changed(1.0) < 45


def test_every_image_is_used_once_before_any_is_used_again():
    images = [image_of(value) for value in range(5)]
    tiles = TileConfig(size=44, batch=3, aimed=0)
    seen = [int(tile([*images], (7, step, sample), tiles=tiles)[0].mean()) for step in range(10) for sample in range(3)]
    rounds = [tuple(seen[k : k + 5]) for k in range(0, 30, 5)]
    assert all(sorted(values) == [0, 1, 2, 3, 4] for values in rounds)
    assert len(set(rounds)) > 1


def test_a_large_image_gives_as_many_tiles_as_cover_it():
    images = [image_of(1, (16, 16)), image_of(2, (32, 48)), image_of(3, (2, 2))]  # 1, 6, and at least 1
    tiles = TileConfig(size=16, batch=4, aimed=0)
    seen = [
        round(float(tile(images, (7, step, sample), tiles=tiles)[0].mean())) for step in range(4) for sample in range(4)
    ]
    assert sorted(seen[:8]) == sorted(seen[8:]) == [1, 2, 2, 2, 2, 2, 2, 3]


def test_normalised_as_the_image_says():
    pixels, *_ = tile([image_of(30, offset=10, gain=0.5)], (0, 0, 0))
    np.testing.assert_allclose(pixels, 10, rtol=1e-5)


def test_image_and_labels_come_from_one_place():
    rows = np.arange(60).repeat(60).reshape(60, 60)
    image = training_image(rows[None].astype(np.uint8), rows, offset=np.zeros(1), gain=np.ones(1))
    augmentation = AugmentationConfig(contrast=0, brightness=0, gamma=1)
    for step in range(5):
        pixels, labels, *_ = tile([image], (0, step, 0), augmentation=augmentation)
        assert (pixels[0] - labels).abs().max() <= 0.51


def test_aimed_tiles_find_a_rare_class():
    classes = np.zeros((200, 200), np.int32)
    classes[150, 20] = 1
    image = image_of(shape=(200, 200), classes=classes)
    tiles = TileConfig(size=16, batch=1, aimed=1.0)
    share = np.mean([bool((tile([image], (0, step, 0), tiles=tiles)[1] == 1).any()) for step in range(60)])
    assert 0.3 < share < 0.7  # each of two classes is the middle of half of the tiles


def test_tiles_that_are_not_aimed_lie_anywhere():
    rows = np.arange(200).repeat(200).reshape(200, 200).astype(np.int16)
    image = training_image(np.zeros((1, 200, 200), np.uint8), rows, offset=np.zeros(1), gain=np.ones(1))
    middles = [int(tile([image], (0, step, 0))[1][8, 8]) for step in range(200)]
    assert min(middles) < 20
    assert max(middles) > 180
    assert abs(np.mean(middles) - 100) < 15


def test_unlabelled_pixels_and_images():
    classes = np.full((40, 50), -1)
    image = image_of(classes=classes)
    assert image.anchors == ()
    assert (tile([image], (0, 0, 0), tiles=TileConfig(size=16, aimed=1.0))[1] == -1).all()
    classes[3, 4] = 2
    assert [anchor.tolist() for anchor in image_of(classes=classes).anchors] == [[3 * 50 + 4]]


def test_anchors_are_spread_and_few():
    [anchors] = image_of(shape=(300, 300)).anchors
    assert anchors.size <= ANCHORS
    assert anchors.max() > 0.99 * 300 * 300


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 3)])
def test_images_smaller_than_a_tile(shape):
    pixels, labels, *_ = tile(
        [image_of(7, shape=shape)], (0, 0, 0), augmentation=AugmentationConfig(contrast=0, brightness=0)
    )
    assert pixels.shape == (1, 16, 16)
    np.testing.assert_allclose(pixels, 7, atol=1e-5)
    assert (labels == 0).all()


def test_a_batch_is_its_tiles():
    weights = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    images = [image_of(value, weights=weights) for value in (1, 2)]
    tiles = TileConfig(size=16, batch=3)
    batch = draw_batch(images, tiles, PLAIN, margin=2, seed=4, step=6)
    assert (batch.images.shape, batch.labels.shape, batch.weights.shape) == ((3, 1, 16, 16), (3, 12, 12), (3, 12, 12))
    for sample in range(3):
        alone = tile(images, (4, 6, sample), tiles=tiles, margin=2)
        assert torch.equal(batch.images[sample], alone[0])
        assert torch.equal(batch.weights[sample], alone[2])
    assert draw_batch([image_of()], tiles, PLAIN, margin=0, seed=0, step=0).weights is None


@pytest.mark.parametrize("wrong", [{"size": 0}, {"batch": 0}, {"aimed": -0.1}, {"aimed": 1.1}, {"aimed": float("nan")}])
def test_tiles_that_are_none(wrong):
    with pytest.raises(InputError, match="tiles need size >= 1, batch >= 1 and aimed from 0 to 1"):
        TileConfig(**wrong)

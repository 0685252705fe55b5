import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from skimage.draw import disk

from ubend.errors import InputError
from ubend.method.copy_paste import BRIGHTER, HALO, copy_paste


def discs(places, radius=6, shape=(96, 96), level=100, background=10, dtype=np.uint8, channels=1):
    """Bright discs on a plain background, numbered from 1."""
    labels = np.zeros(shape, np.int32)
    for number, place in enumerate(places, 1):
        labels[disk(place, radius, shape=shape)] = number
    image = np.where(labels > 0, level, background).astype(dtype)
    return np.repeat(image[None], channels, axis=0), labels


def touching_pairs(labels):
    """Pairs of cells with at most a pixel between them."""
    pairs = set()
    for axis in (0, 1):
        for step in (1, 2):
            one, other = np.moveaxis(labels, axis, 0)[:-step], np.moveaxis(labels, axis, 0)[step:]
            meet = (one != other) & (one > 0) & (other > 0)
            pairs |= {tuple(sorted(pair)) for pair in zip(one[meet].tolist(), other[meet].tolist(), strict=True)}
    return pairs


APART = [(20, 20), (20, 70), (48, 45), (75, 20), (75, 70)]


def test_cells_that_were_apart_touch():
    image, labels = discs(APART)
    assert not touching_pairs(labels)
    seen, now = copy_paste(image, labels, np.random.default_rng(0))
    copies = np.unique(now[now > 5])
    assert 3 <= copies.size <= 5
    pairs = touching_pairs(now)
    assert all(any(copy in pair for pair in pairs) for copy in copies)
    assert seen.dtype == np.uint8
    assert now.dtype == np.int32
    assert (seen[0][now == 0] == 10).all()
    assert image.max() == 100
    assert labels.max() == 5


@given(seed=st.integers(0, 500), channels=st.integers(1, 3), dark=st.booleans())
def test_a_copy_is_a_cell_of_the_image(seed, channels, dark):
    level, background = (40, 120) if dark else (90, 10)
    image, labels = discs(APART, level=level, background=background, channels=channels)
    seen, now = copy_paste(image, labels, np.random.default_rng(seed))
    for copy in np.unique(now[now > 5]):
        mine = now == copy
        assert np.count_nonzero(mine) >= 0.75 * np.count_nonzero(labels == 1)
        light = np.abs(seen[:, mine].astype(float) - background)
        assert light.min() > 0.98 * abs(level - background) / BRIGHTER - 1
        assert light.max() < 1.02 * abs(level - background) * BRIGHTER + 1
    for number in range(1, 6):  # nothing of it has moved; of a copy that is brighter a little may lie on it
        was, still = labels == number, now == number
        assert not (still & ~was).any()
        assert np.count_nonzero(still) > 0.5 * np.count_nonzero(was)


def test_same_generator_same_picture():
    image, labels = discs(APART)
    first, second, other = (copy_paste(image, labels, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_the_edge_of_a_cell_comes_with_it_but_no_other_cell():
    image, labels = discs([(30, 30), (30, 44)], level=100)
    image[0, 30 - 6 - HALO, 30] = 60  # of the blur of the first
    image[0][labels == 2] = 200
    found = [copy_paste(image, labels, np.random.default_rng(seed)) for seed in range(20)]
    lights = {int(seen[0][now == copy].max()) for seen, now in found for copy in np.unique(now[now > 2])}
    assert min(lights) < 100
    assert max(lights) > 200
    for seen, now in found:
        assert set(np.unique(seen[0][now == 0])) - {10, 60} <= set(range(11, 110))


def test_brighter_lies_on_top():
    image, labels = discs([(48, 48)], radius=12)
    covered = kept = 0
    for seed in range(40):
        seen, now = copy_paste(image, labels, np.random.default_rng(seed))
        light = int(seen[0][now == 2].max())
        lost = np.count_nonzero((labels == 1) & (now == 2))
        covered += lost > 0
        kept += light < 100
        assert lost == 0 or light > 100
    assert covered > 5
    assert kept > 5


def test_what_nobody_labelled_stays_so():
    image, labels = discs(APART)
    labels[:, 40:56] = -1
    labels[disk((48, 45), 6)] = 3
    _, now = copy_paste(image, labels, np.random.default_rng(1))
    assert ((now == -1) == (labels == -1)).all()


def test_nothing_to_copy_or_no_room():
    rng = np.random.default_rng(0)
    image, labels = discs([(20, 20)], radius=19, shape=(40, 40))
    assert copy_paste(image, labels, rng) is None  # no room
    assert copy_paste(image, np.zeros((40, 40), np.int32), rng) is None
    assert copy_paste(image, np.ones((40, 40), np.int32), rng) is None  # no background
    image, labels = discs([(0, 20)], shape=(60, 60))
    assert copy_paste(image, labels, rng) is None  # the only cell is cut by the border


def test_cells_that_are_no_brighter_than_their_surroundings_are_not_copied():
    _, labels = discs(APART)
    texture = np.random.default_rng(2).normal(120, 30, labels.shape)
    assert copy_paste(texture[None], labels, np.random.default_rng(0)) is None
    assert copy_paste((texture + 60 * (labels > 0))[None], labels, np.random.default_rng(0)) is not None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gray_values_stay_in_their_range(dtype):
    image, labels = discs(APART, level=250, dtype=dtype)
    seen, _ = copy_paste(image, labels, np.random.default_rng(0))
    assert seen.dtype == dtype
    assert seen.min() >= 10 - 1e-3
    assert (seen.max() == 255) if dtype == np.uint8 else (seen.max() > 255)


def test_an_image_of_yes_and_no():
    image, labels = discs(APART, level=1, background=0, dtype=bool)
    seen, now = copy_paste(image, labels, np.random.default_rng(0))
    assert seen.dtype == bool
    assert not seen[0][now == 0].any()
    assert seen[0][labels > 0].all()
    assert now.max() > 5


def test_wrong_labels():
    with pytest.raises(InputError, match="whole numbers"):
        copy_paste(np.zeros((1, 3, 3)), np.zeros((3, 3)), np.random.default_rng(0))


def test_numbers_far_apart_take_no_memory():
    image, labels = discs(APART)
    labels = np.where(labels == 5, 2**31 - 3, labels).astype(np.int32)
    _, now = copy_paste(image, labels, np.random.default_rng(0))
    assert np.unique(now[now > 2**31 - 3]).size == 2  # as many as there are numbers left
    small = np.where(labels > 5, 250, labels).astype(np.uint8)
    assert copy_paste(image, small, np.random.default_rng(0))[1].dtype == np.uint8


def test_gray_values_where_no_copy_is_stay_to_the_last_bit():
    image, labels = discs(APART, dtype=np.float64)
    image += np.random.default_rng(0).random(image.shape)
    seen, now = copy_paste(image, labels, np.random.default_rng(0))
    away = distance_transform_edt(now <= 5) > HALO
    assert np.array_equal(seen[0][away], image[0][away])
    assert not np.array_equal(seen, image)
    assert seen.dtype == np.float64


def test_a_small_cell_is_not_covered_by_a_large_copy():
    image, labels = discs([(70, 70)], radius=16)
    labels[disk((20, 20), 3)] = 2
    image[0][labels == 2] = 100
    found = [copy_paste(image, labels, np.random.default_rng(seed)) for seed in range(40)]
    beside = [now for _, now in filter(None, found) if now.max() == 4]  # both have a copy beside them
    assert len(beside) > 5
    assert all(np.count_nonzero(now == 2) >= 0.5 * np.count_nonzero(labels == 2) for now in beside)

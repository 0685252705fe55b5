import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.interpolate import CubicSpline
from torch.nn import functional

from ubend.errors import InputError
from ubend.method.resampling import averaged, commonest, resized, sample, sampling_grid, smooth_field


def shifted(rows, columns):
    return np.array([[1.0, 0, rows], [0, 1, columns]])


def positions(shape, affine, displacements=None):
    """Rows and columns to be read, computed directly."""
    grid = np.stack(np.mgrid[: shape[0], : shape[1]]).astype(np.float64)
    where = np.einsum("ij,jrc->irc", affine[:, :2], grid) + affine[:, 2, None, None]
    if displacements is None:
        return where
    knots = np.arange(displacements.shape[-1])
    at = [np.linspace(0, knots[-1], length) for length in shape]
    along_rows = CubicSpline(knots, displacements, axis=1, bc_type="natural")(at[0])
    return where + CubicSpline(knots, along_rows, axis=2, bc_type="natural")(at[1])


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    top=st.integers(-40, 40),
    left=st.integers(-40, 40),
    order=st.sampled_from([0, 1, 3]),
)
def test_beyond_the_border_is_numpys_reflect_at_any_distance(shape, top, left, order):
    image = np.random.default_rng(0).integers(0, 255, (2, *shape)).astype(np.uint8)
    padded = np.pad(image, ((0, 0), (60, 60), (60, 60)), mode="reflect")
    read = sample(image, sampling_grid((9, 7), affine=shifted(top, left)), order=order)
    expected = padded[:, 60 + top : 69 + top, 60 + left : 67 + left]
    np.testing.assert_allclose(read, expected, atol=2e-2 if order else 0)


@pytest.mark.parametrize("seed", range(5))
def test_positions_against_float64(seed):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random((70, 90)), 2).astype(np.float32)
    shape = (64, 81)
    affine = np.column_stack([rng.normal(0, 0.7, (2, 2)), rng.uniform(-50, 120, 2)])
    bend = rng.normal(0, 10, (2, 3, 3))
    read = sample(image[None], sampling_grid(shape, affine=affine, displacements=bend), order=1)[0]
    where = positions(shape, affine, bend)
    expected = ndimage.map_coordinates(image.astype(np.float64), where, mode="mirror", order=1)
    np.testing.assert_allclose(read, expected, atol=1e-3)


@pytest.mark.parametrize(("shape", "points"), [((64, 81), 3), ((1, 7), 2), ((5, 4), 1), ((700, 700), 5)])
def test_a_smooth_field_against_float64(shape, points):
    values = np.random.default_rng(0).normal(size=(points, points))
    moved = np.stack([values, values])
    found = smooth_field(values, shape)
    expected = positions(shape, np.zeros((2, 3)), moved)[0] if points > 1 else np.full(shape, values[0, 0])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_ramp_shows_the_positions_themselves():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:400, :400].astype(np.float32)
    bend, affine = rng.normal(0, 10, (2, 4, 4)), shifted(80, 90)
    grid = sampling_grid((200, 210), affine=affine, displacements=bend)
    np.testing.assert_allclose(
        sample(np.stack([rows, columns]), grid, order=1), positions((200, 210), affine, bend), atol=1e-3
    )


def test_half_pixels_by_hand():
    image = np.array([[[0, 10, 20, 30]]], np.uint8)
    grid = sampling_grid((1, 4), affine=shifted(0, 0.5))
    np.testing.assert_allclose(sample(image, grid, order=1), [[[5, 15, 25, 25]]], atol=1e-4)
    np.testing.assert_allclose(sample(image, sampling_grid((1, 4)), order=3), image, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_nearest_keeps_large_numbers(dtype):
    image = (2**24 + np.arange(1, 400, dtype=dtype) * 2 + 1).reshape(1, 19, 21)  # odd: no float32 holds them
    read = sample(image, sampling_grid((30, 30), affine=shifted(-5, -6)), order=0)
    expected = np.pad(image[0], ((5, 6), (6, 3)), mode="reflect")
    assert (read[0].long().numpy() == expected).all()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.uint16, np.int16, np.float16, np.float64])
def test_any_type_is_read(dtype):
    image = np.array([[[0, 1], [1, 0]]], dtype)
    for order in (0, 1, 3):
        np.testing.assert_allclose(sample(image, sampling_grid((2, 2)), order=order), image.astype(float), atol=1e-4)


def test_nearest_invents_no_value():
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([-1, 0, 7, 300], np.int16), (1, 50, 50))
    grid = sampling_grid((60, 60), affine=shifted(-10, 3), displacements=rng.normal(0, 8, (2, 3, 3)))
    assert set(np.unique(sample(labels, grid, order=0))) <= {-1, 0, 7, 300}


def test_the_border_of_a_grid_can_be_left_out():
    image = np.random.default_rng(0).random((1, 30, 30)).astype(np.float32)
    grid = sampling_grid((12, 14), affine=shifted(3.3, 4.4), displacements=np.full((2, 3, 3), 0.5))
    whole = sample(image, grid, order=1)
    np.testing.assert_array_equal(sample(image, grid.without_border(3), order=1), whole[:, 3:-3, 3:-3])
    assert grid.without_border(0).relative.shape == grid.relative.shape


@pytest.mark.parametrize("points", [1, 2, 3, 5])
def test_equal_displacements_are_a_shift(points):
    image = np.random.default_rng(0).random((1, 30, 30)).astype(np.float32)
    bent = sampling_grid(
        (10, 10), displacements=np.stack([np.full((points, points), 2.0), np.full((points, points), 3.0)])
    )
    np.testing.assert_allclose(sample(image, bent, order=1), image[:, 2:12, 3:13], atol=1e-4)


def test_the_image_is_not_changed():
    image = np.random.default_rng(0).random((1, 9, 9)).astype(np.float32)
    before = image.copy()
    image.flags.writeable = False
    sample(image, sampling_grid((9, 9), affine=shifted(2, 2)), order=1).mul_(0)
    assert (image == before).all()


@pytest.mark.parametrize("order", [2, -1, "linear", None])
def test_an_order_that_is_none(order):
    with pytest.raises(InputError, match=r"order is 0 \(nearest\), 1 \(linear\) or 3 \(cubic\), not"):
        sample(np.zeros((1, 2, 2)), sampling_grid((2, 2)), order=order)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    factor=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "int16", "uint32", "float32", "float64"]),
)
def test_labels_made_larger_and_smaller_again_are_the_same(shape, factor, dtype):
    labels = np.random.default_rng(0).integers(0, 100, (2, *shape)).astype(dtype)
    large = resized(labels, (shape[0] * factor, shape[1] * factor), order=0)
    assert large.dtype == labels.dtype
    assert (large == labels.repeat(factor, 1).repeat(factor, 2)).all()
    assert (resized(large, shape, order=0) == labels).all()


@pytest.mark.parametrize("shape", [(20, 30), (33, 47), (7, 100)])
def test_an_image_with_other_pixels_shows_the_same(shape):
    rows, columns = np.mgrid[:40, :60]
    image = (1000 + 50 * rows + 20 * columns).astype(np.uint16)[None]  # a ramp: linear, so that nothing is lost
    found = resized(image, shape, order=1)
    at_rows, at_columns = ((np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(shape, (40, 60), strict=True))
    expected = 1000 + 50 * at_rows[:, None] + 20 * at_columns
    inner = slice(2, -2)  # at the border the image is mirrored
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found[0][inner, inner], expected[inner, inner], atol=1)


def test_a_fine_pattern_becomes_its_mean_where_pixels_become_larger():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (1, 120, 60))
    found = resized(stripes, (30, 30), order=1)
    np.testing.assert_allclose(found, 0.5, atol=0.02)


def test_the_largest_integers_stay_in_their_type():
    largest = np.full((1, 3, 3), 2**32 - 1, np.uint32)
    assert (resized(largest, (5, 5), order=1) == 2**32 - 1).all()


# halving


@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 3)))
def test_the_commonest_label_of_four(labels):
    found = commonest(labels, 1)
    assert found.shape == tuple(-(-length // 2) for length in labels.shape)
    assert found.dtype == labels.dtype
    whole = np.pad(labels, [(0, length % 2) for length in labels.shape], mode="edge")
    for row, column in np.ndindex(found.shape):
        block = whole[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel()
        values, number = np.unique(block[block >= 0] if (block >= 0).any() else block, return_counts=True)
        assert found[row, column] == values[number.argmax()]  # the first of equals is the smallest


def test_means_of_blocks_and_how_often():
    image = np.random.default_rng(0).integers(0, 60000, (2, 8, 12)).astype(np.uint16)
    assert averaged(image, 0) is image
    quarter = averaged(image, 2)
    assert (quarter.dtype, quarter.shape) == (np.float32, (2, 2, 3))
    np.testing.assert_allclose(quarter[1, 1, 2], image[1, 4:, 8:].mean(), rtol=1e-6)
    expected = functional.avg_pool2d(torch.from_numpy(image.astype(np.float32)), 2).numpy()
    np.testing.assert_allclose(averaged(image, 1), expected, rtol=1e-6)
    assert commonest(image[0], 0).shape == (8, 12)
    assert commonest(image[0], 2).shape == (2, 3)

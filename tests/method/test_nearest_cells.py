import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt

from ubend.errors import InputError
from ubend.method.nearest_cells import two_nearest_cells

INF = np.inf


def one_transform_per_cell(labels):
    """The slow and plain way: every cell's own distance transform, and the two least of them."""
    distances = [np.full(labels.shape, INF)] * 2
    distances += [distance_transform_edt(labels != cell) for cell in np.unique(labels[labels > 0])]
    return np.sort(np.stack(distances), axis=0)[:2]


def scattered_cells(rng, shape, cells, side):
    labels = np.zeros(shape, np.int32)
    for cell in range(1, cells + 1):
        row, column = rng.integers(0, np.subtract(shape, side) + 1)
        labels[row : row + side, column : column + side] = cell
    return labels


def test_distances_of_a_row_by_hand():
    d1, d2, nearest = two_nearest_cells(np.array([[3, 3, 0, 0, 0, 8, 0, 5]]), return_labels=True)
    np.testing.assert_array_equal(d1, [[0, 0, 1, 2, 1, 0, 1, 0]])
    np.testing.assert_array_equal(d2, [[5, 4, 3, 2, 3, 2, 1, 2]])
    np.testing.assert_array_equal(nearest, [[3, 3, 3, 3, 8, 8, 5, 5]])
    assert d1.dtype == d2.dtype == np.float32


def test_distance_is_euclidean():
    labels = np.zeros((5, 6), np.uint16)
    labels[0, 0], labels[4, 5] = 1, 2
    d1, d2 = two_nearest_cells(labels)
    assert d1[4, 0] == 4
    assert d2[4, 0] == 5
    assert d2[1, 1] == 5  # 3 rows and 4 columns


def test_second_cell_is_another_cell_even_where_one_is_in_two_parts():
    d1, d2 = two_nearest_cells(np.array([[1, 0, 1, 0, 0, 0, 2]]))
    np.testing.assert_array_equal(d1, [[0, 1, 0, 1, 2, 1, 0]])
    np.testing.assert_array_equal(d2, [[6, 5, 4, 3, 2, 3, 4]])


def test_without_cells_all_is_infinitely_far():
    d1, d2, nearest = two_nearest_cells(np.array([[0, -1], [0, 0]]), return_labels=True)
    assert np.isinf(d1).all()
    assert np.isinf(d2).all()
    assert not nearest.any()


def test_a_single_cell_has_no_second():
    d1, d2 = two_nearest_cells(np.array([[0, 0], [9, 0]]))
    np.testing.assert_array_equal(d1, np.array([[1, np.sqrt(2)], [0, 1]], np.float32))
    assert np.isinf(d2).all()


def test_unlabelled_pixels_are_no_cell():
    d1, d2 = two_nearest_cells(np.array([[-1, -1, 4, -7, 6]]))
    np.testing.assert_array_equal(d1, [[2, 1, 0, 1, 0]])
    np.testing.assert_array_equal(d2, [[4, 3, 2, 1, 2]])


small_labels = hnp.arrays(
    np.int64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([-1, 0, 0, 0, 0, 1, 2, 3, 70_000]),
)


@given(small_labels)
def test_equals_one_transform_per_cell(labels):
    np.testing.assert_allclose(two_nearest_cells(labels), one_transform_per_cell(labels), atol=1e-5)


@given(small_labels, st.sampled_from([0.5, 1.0, 2.2, 3.0, 40.0]))
def test_within_cuts_and_changes_nothing_else(labels, within):
    everything = np.stack(two_nearest_cells(labels))
    expected = np.where(everything <= within, everything, INF)
    np.testing.assert_array_equal(two_nearest_cells(labels, within=within), expected)


@given(small_labels)
def test_turning_the_image_turns_the_distances(labels):
    turned = [np.rot90(distance) for distance in two_nearest_cells(labels, return_labels=True)]
    for expected, found in zip(turned, two_nearest_cells(np.rot90(labels), return_labels=True), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("shape", "cells", "side"),
    [((150, 600), 40, 9), ((70, 300), 300, 3), ((300, 290), 2, 4), ((20, 700), 3, 5), ((700, 20), 3, 5)],
    ids=["many", "crowded", "far apart", "wide", "tall"],
)
def test_exact_across_tiles_and_beyond_the_near_search(shape, cells, side):
    labels = scattered_cells(np.random.default_rng(7), shape, cells, side)
    d1, d2, nearest = two_nearest_cells(labels, return_labels=True)
    np.testing.assert_allclose([d1, d2], one_transform_per_cell(labels), atol=1e-3)
    for cell in np.unique(nearest)[:5]:
        mine = nearest == cell
        np.testing.assert_allclose(distance_transform_edt(labels != cell)[mine], d1[mine], atol=1e-3)


def test_distances_at_the_limit_of_the_near_search():
    labels = np.zeros((1, 400), np.int32)
    labels[0, 0], labels[0, 260] = 1, 2
    d1, d2 = two_nearest_cells(labels)
    columns = np.arange(400)
    both = np.sort([columns, abs(columns - 260)], axis=0)
    np.testing.assert_array_equal([d1[0], d2[0]], both)


def test_more_cells_than_16_bits_can_number():
    labels = np.arange(1, 300 * 300 + 1).reshape(300, 300)
    labels[::2] = 0
    d1, d2 = two_nearest_cells(labels)
    np.testing.assert_array_equal(d1[1:-1:2], 0)
    np.testing.assert_array_equal(d2[1:-1:2], 1)
    np.testing.assert_array_equal(d1[2:-1:2], 1)
    np.testing.assert_array_equal(d2[2:-1:2], 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_any_integer_dtype_and_memory_layout(dtype):
    labels = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 2]], dtype)
    expected = two_nearest_cells(labels.astype(np.int32))
    every_second = np.zeros((6, 6), dtype)
    every_second[::2, ::2] = labels
    for same in (labels, np.asfortranarray(labels), every_second[::2, ::2]):
        np.testing.assert_array_equal(two_nearest_cells(same), expected)
    assert two_nearest_cells(labels, return_labels=True)[2].dtype == dtype


def test_labels_are_left_unchanged():
    labels = np.array([[0, 70_000, -1]])
    two_nearest_cells(labels)
    np.testing.assert_array_equal(labels, [[0, 70_000, -1]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2)), "array of float64.*astype"),
        (np.zeros((2, 2), bool), "array of bool.*scipy.ndimage.label"),
        ([[0, 1]], "is a list"),
        (np.zeros((2, 2, 2), int), r"shape \(2, 2, 2\).*one by one"),
        (np.zeros((0, 3), int), r"shape \(0, 3\)"),
        (np.broadcast_to(np.int8(0), (1, 40_000)), r"\(1, 40000\).*32766"),
    ],
)
def test_refuses_what_is_no_label_image(labels, message):
    with pytest.raises(InputError, match=message):
        two_nearest_cells(labels)


@pytest.mark.parametrize("within", [0, -1.0, float("nan")])
def test_refuses_a_distance_that_is_none(within):
    with pytest.raises(InputError, match="within is"):
        two_nearest_cells(np.ones((2, 2), int), within=within)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ubend.errors import InputError
from ubend.method.touching import separate_touching


def cut_by_the_definition(labels, gap):
    """Every cell's pixel with another cell in the square around it becomes background, pixel by pixel."""
    result = labels.copy()
    for row, column in np.argwhere(labels > 0):
        square = labels[max(row - gap, 0) : row + gap + 1, max(column - gap, 0) : column + gap + 1]
        if np.any((square > 0) & (square != labels[row, column])):
            result[row, column] = 0
    return result


labels_of_few_cells = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10), elements=st.sampled_from([-1, 0, 0, 1, 1, 2, 5])
)


def test_touching_cells_lose_one_pixel_each():
    labels = np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [1, 1, 1, 0, 2, 2], [1, 1, 1, 0, 2, 2]])
    expected = [[1, 1, 0, 0, 2, 2], [1, 1, 0, 0, 2, 2], [1, 1, 0, 0, 2, 2], [1, 1, 1, 0, 2, 2]]
    np.testing.assert_array_equal(separate_touching(labels), expected)


def test_cells_that_touch_at_a_corner_only_are_cut_there():
    labels = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]])
    expected = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2], [0, 0, 2, 2]]
    np.testing.assert_array_equal(separate_touching(labels), expected)


def test_wider_gap():
    labels = np.array([[1, 1, 1, 2, 2, 2, 2, 0, 0, 3]])
    np.testing.assert_array_equal(separate_touching(labels, gap=2), [[1, 0, 0, 0, 0, 2, 2, 0, 0, 3]])


def test_no_gap_changes_nothing_and_copies():
    labels = np.array([[1, 2]])
    result = separate_touching(labels, gap=0)
    np.testing.assert_array_equal(result, labels)
    assert not np.shares_memory(result, labels)


def test_unlabelled_pixels_stay():
    np.testing.assert_array_equal(separate_touching(np.array([[-1, 1, 1, 2, 2, -1]])), [[-1, 1, 0, 0, 2, -1]])


def test_line_between_two_cells_stays_whole():
    labels = np.repeat([[1, 1, 1, 7, 2, 2, 2]], 3, axis=0)
    np.testing.assert_array_equal(separate_touching(labels), np.repeat([[1, 1, 0, 7, 0, 2, 2]], 3, axis=0))


def test_thin_cell_keeps_its_pixels_farthest_from_the_others():
    labels = np.array([[1, 1, 1, 3, 3, 2, 2, 2], [1, 1, 1, 3, 0, 0, 2, 2], [1, 1, 0, 3, 0, 0, 2, 2]])
    # in row 2 column 3, cell 1 is √2 px away; all other pixels of cell 3 have a neighbour right beside them
    expected = [[1, 1, 0, 0, 0, 0, 2, 2], [1, 1, 0, 0, 0, 0, 2, 2], [1, 1, 0, 3, 0, 0, 2, 2]]
    np.testing.assert_array_equal(separate_touching(labels), expected)


@given(labels_of_few_cells, st.integers(1, 3))
def test_is_the_definition_but_for_cells_that_would_vanish(labels, gap):
    by_definition = cut_by_the_definition(labels, gap)
    result = separate_touching(labels, gap=gap)
    survives = np.isin(labels, by_definition[by_definition != 0]) | (labels == 0)
    np.testing.assert_array_equal(result[survives], by_definition[survives])


@given(labels_of_few_cells, st.integers(0, 3))
def test_no_cell_vanishes_and_no_pixel_changes_its_cell(labels, gap):
    result = separate_touching(labels, gap=gap)
    assert set(np.unique(labels)) - {0} == set(np.unique(result)) - {0}
    assert np.all((result == labels) | (result == 0))


@given(labels_of_few_cells)
def test_the_numbers_of_the_cells_do_not_matter(labels):
    renumbered = np.array([0, 9, 4, 0, 0, 2, -1])  # 1 → 9, 2 → 4, 5 → 2, and -1 stays
    np.testing.assert_array_equal(separate_touching(renumbered[labels]), renumbered[separate_touching(labels)])


def test_components_of_the_result_are_the_cells():
    labels = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((6, 5), int))
    components, number = ndimage.label(separate_touching(labels) > 0)
    assert number == 12
    assert len(np.unique(np.stack([labels, components])[:, components > 0], axis=1).T) == 12


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_dtype_stays_and_the_largest_label_is_exact(dtype):
    top = np.iinfo(dtype).max
    labels = np.array([[top - 1, top - 1, top, top]], dtype)
    result = separate_touching(labels)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.array([[top - 1, 0, 0, top]], dtype))


@pytest.mark.parametrize("gap", [-1, 1.0, True])
def test_refuses_a_gap_that_is_none(gap):
    with pytest.raises(InputError, match="gap is"):
        separate_touching(np.array([[1, 2]]), gap=gap)


def test_refuses_what_is_no_label_image():
    with pytest.raises(InputError, match="array of float64"):
        separate_touching(np.zeros((2, 2)))

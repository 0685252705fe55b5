import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ubend.errors import InputError
from ubend.method.relative_distance import relative_distance


def by_definition(labels):
    """For each pixel of a cell the nearest pixel that is not of it, tried one by one."""
    places = np.argwhere(np.ones(labels.shape, bool))
    distance = np.zeros(labels.shape)
    for place in places[labels.ravel() > 0]:
        outside = places[(labels.ravel() != labels[tuple(place)]) & (labels.ravel() >= 0)]
        away = np.hypot(*(outside - place).T).min() if len(outside) else 1.0
        distance[tuple(place)] = away
    for cell in np.unique(labels[labels > 0]):
        distance[labels == cell] /= distance[labels == cell].max()
    return distance


def test_a_square_by_hand():
    labels = np.zeros((5, 5), int)
    labels[1:4, 1:4] = 7
    half, middle = 0.5, 1.0
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = [[half, half, half], [half, middle, half], [half, half, half]]
    np.testing.assert_allclose(relative_distance(labels), expected)


def test_it_falls_towards_a_cell_that_touches():
    row = np.array([[3, 3, 3, 3, 9, 9, 9, 9]])
    np.testing.assert_allclose(relative_distance(row), [[1, 0.75, 0.5, 0.25, 0.25, 0.5, 0.75, 1]])


def test_a_small_cell_and_a_large_one_both_reach_one():
    labels = np.zeros((40, 40), int)
    labels[1:4, 1:4], labels[8:37, 8:37] = 1, 2
    distance = relative_distance(labels)
    assert distance[labels == 1].max() == distance[labels == 2].max() == 1
    assert distance.dtype == np.float32


def test_beyond_the_border_of_the_image_nothing_is_outside():
    np.testing.assert_allclose(relative_distance(np.array([[4, 4, 4, 0]])), [[1, 2 / 3, 1 / 3, 0]])


def test_where_nobody_labelled_there_is_no_border():
    np.testing.assert_allclose(relative_distance(np.array([[0, 4, 4, -1, -1]])), [[0, 0.5, 1, 0, 0]])


def test_one_cell_everywhere_has_no_border():
    np.testing.assert_array_equal(relative_distance(np.ones((3, 4), int)), np.ones((3, 4)))


def test_no_cell_no_distance():
    np.testing.assert_array_equal(relative_distance(np.array([[0, -1]])), [[0, 0]])


@given(arrays(np.int32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(-1, 3)))
def test_it_is_what_its_definition_says(labels):
    np.testing.assert_allclose(relative_distance(labels), by_definition(labels), atol=1e-6)


def test_refuses_what_is_no_label_image():
    with pytest.raises(InputError, match="whole numbers"):
        relative_distance(np.zeros((3, 3)))

"""The table of shared pixels, against counting by hand and pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import InputError
from ubend.scores.overlap import check_labels, count_pairs, object_pairs, overlaps

seeds = st.integers(0, 10**6)


def test_shared_pixels_by_hand():
    table = overlaps(np.array([[1, 1, 0], [1, 4, 4]]), np.array([[2, 2, 2], [0, 0, 2]]))
    assert table.truth_ids.tolist() == [0, 1, 4]
    assert table.ids.tolist() == [0, 2]
    assert table.pixels.toarray().tolist() == [[0, 1], [1, 2], [1, 1]]


@given(seeds, st.integers(1, 4))
def test_counting_runs_is_counting_pixels(seed, run):
    rng = np.random.default_rng(seed)
    truth, labels = (np.repeat(rng.integers(-1, 5, (5, 4)), run, axis=1) for _ in range(2))
    table = overlaps(truth, labels)
    for i, value in enumerate(table.truth_ids):
        for j, other in enumerate(table.ids):
            assert table.pixels[i, j] == ((truth == value) & (labels == other)).sum()
    rows, columns = np.searchsorted(table.truth_ids, truth).ravel(), np.searchsorted(table.ids, labels).ravel()
    assert (count_pairs(rows, columns, table.pixels.shape).toarray() == table.pixels.toarray()).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_the_largest_numbers_that_a_type_holds(dtype):
    largest = np.array([0, np.iinfo(dtype).max], dtype)
    table = overlaps(largest, largest)
    assert table.truth_ids.tolist() == largest.tolist()
    assert table.pixels.toarray().tolist() == [[1, 0], [0, 1]]


def test_no_pixels():
    table = overlaps(np.zeros((0, 3), int), np.zeros((0, 3), int))
    assert table.pixels.shape == (0, 0)
    assert count_pairs(np.zeros(0, int), np.zeros(0, int), (2, 2)).nnz == 0


def test_pairs_of_objects():
    pairs = object_pairs(np.array([[7, 7, 7, 3, 0, -1]]), np.array([[0, 5, 9, 9, 9, 9]]))
    assert pairs.truth_areas.tolist() == [1, 3]
    assert pairs.areas.tolist() == [1, 3]
    assert list(zip(pairs.rows, pairs.columns, pairs.shared, strict=True)) == [(0, 1, 1), (1, 0, 1), (1, 1, 1)]
    assert pairs.union.tolist() == [3, 3, 5]
    assert pairs.iou.tolist() == [1 / 3, 1 / 3, 1 / 5]


def test_an_object_where_nothing_is_scored_is_none():
    assert object_pairs(np.array([0, 1, -1]), np.array([0, 5, 6])).areas.tolist() == [1]


def test_labels_that_are_none():
    with pytest.raises(InputError, match=r"labels contains -3; a result has labels from 0 up"):
        check_labels(np.array([-3]), np.array([-3]))
    with pytest.raises(InputError, match="truth has data type float32"):
        check_labels(np.zeros(2, np.float32), np.zeros(2, int))

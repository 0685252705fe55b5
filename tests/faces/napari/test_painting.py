import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ubend.errors import InputError
from ubend.faces.napari.painting import (
    BACKGROUND,
    FIRST,
    colours,
    corrected,
    labels_of,
    new_number,
    painting_of,
    with_the_rest_background,
)

paintings = arrays(np.int32, (5, 6), elements=st.integers(0, 6))
results = arrays(np.uint8, (5, 6), elements=st.integers(0, 5))


@given(paintings)
def test_a_painting_and_its_labels_say_the_same(painted):
    assert (painting_of(labels_of(painted)) == painted).all()
    assert ((labels_of(painted) < 0) == (painted == 0)).all()


def test_labels_of_any_dtype_can_be_painted():
    assert painting_of(np.array([[0, 255]], np.uint8)).tolist() == [[1, 256]]
    with pytest.raises(InputError, match="number them anew"):
        painting_of(np.array([[2**31]], np.int64))


def test_behind_the_largest_number_there_is_room():
    painted = painting_of(np.array([[0, 2**29]]))
    tracemalloc.start()
    filled = corrected(np.array([[0, painted.max()]], np.int32), np.array([[2**29, 0]]), numbers=True)
    assert tracemalloc.get_traced_memory()[1] < 2**20  # bytes: it does not grow with the number
    tracemalloc.stop()
    assert filled.min() > BACKGROUND
    assert new_number(filled) < 2**31


@given(paintings)
def test_the_rest_is_background_and_nothing_else_changes(painted):
    filled = with_the_rest_background(painted)
    assert (filled[painted > 0] == painted[painted > 0]).all()
    assert (filled[painted == 0] == BACKGROUND).all()
    assert filled.dtype == painted.dtype


@given(paintings, results, st.booleans())
def test_a_corrected_result_keeps_every_pixel_that_was_painted(painted, result, numbers):
    filled = corrected(painted, result, numbers=numbers)
    assert (filled[painted > 0] == painted[painted > 0]).all()
    assert (filled > 0).all()
    if numbers:
        new = set(filled[painted == 0].tolist()) - {BACKGROUND}
        assert not new & set(painted.ravel().tolist())


@given(paintings, results)
def test_a_cell_that_was_painted_is_not_there_twice(painted, result):
    filled = corrected(painted, result, numbers=True)
    for number in set(result.ravel().tolist()) - {0}:
        cell = result == number
        if 2 * (cell & (painted >= FIRST)).sum() > cell.sum():
            assert set(filled[cell & (painted == 0)].tolist()) <= {BACKGROUND}


def test_a_new_cell_has_a_number_of_its_own():
    assert new_number(np.array([[0, 1]])) == FIRST
    assert new_number(np.array([[7, 1]])) == 8


def test_background_is_pale_and_neighbouring_cells_differ():
    table = colours()
    assert table[0, 3] == 0
    assert table[BACKGROUND, 3] < 0.5 < table[FIRST:, 3].min()
    steps = np.abs(np.diff(table[FIRST:, :3], axis=0)).max(1)
    assert steps.min() > 0.2
    assert np.ptp(table[FIRST:, :3], axis=1).min() > 0.2

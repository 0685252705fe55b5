import numpy as np
import pytest

from ubend.errors import InputError
from ubend.scores.separation import Separation, separation

ROW_OF_THREE = np.repeat([[1, 1, 2, 2, 3, 3]], 5, axis=0)


def test_a_perfect_result_holds_every_pair_apart():
    assert separation(ROW_OF_THREE, ROW_OF_THREE) == Separation(pairs=2, apart=2, merged=0)


def test_one_blob_merges_every_pair():
    assert separation(ROW_OF_THREE, ROW_OF_THREE > 0) == Separation(pairs=2, apart=0, merged=2)


def test_an_object_missed_is_neither_apart_nor_merged():
    result = np.where(ROW_OF_THREE == 2, 0, ROW_OF_THREE)
    assert separation(ROW_OF_THREE, result) == Separation(pairs=2, apart=0, merged=0)


def test_an_object_in_halves_is_not_apart():
    result = ROW_OF_THREE.copy()
    result[:, 2] = 9  # object 2: five of ten pixels each, no majority
    assert separation(ROW_OF_THREE, result).apart == 0


def test_background_that_holds_most_of_an_object_is_no_partner():
    result = np.zeros_like(ROW_OF_THREE)
    result[:, 4:] = 1
    assert separation(ROW_OF_THREE, result) == Separation(pairs=2, apart=0, merged=0)


@pytest.mark.parametrize(("rows", "pairs"), [(4, 0), (5, 1), (6, 1)])
def test_only_pairs_with_the_border_asked_for_count(rows, pairs):
    truth = np.repeat([[1, 1, 2, 2]], rows, axis=0)
    assert separation(truth, truth).pairs == pairs


def test_the_border_counts_along_rows_and_columns():
    truth = np.array([[1, 1, 1], [1, 2, 2], [1, 2, 2]])
    assert separation(truth, truth, shared=4).pairs == 1
    assert separation(truth, truth, shared=5).pairs == 0


def test_diagonal_neighbours_and_gaps_do_not_touch():
    truth = np.array([[1, 0, 3], [0, 2, 0], [4, 0, 0]])
    assert separation(truth, truth, shared=1) == Separation(0, 0, 0)
    assert np.isnan(separation(truth, truth, shared=1).share_apart)


def test_numbers_may_be_large_and_with_gaps():
    truth = np.repeat([[70000, 70000, 3, 3]], 5, axis=0)
    result = np.repeat([[0, 2_000_000_000, 9, 9]], 5, axis=0)
    result[:3, 0] = 2_000_000_000
    assert separation(truth, result) == Separation(pairs=1, apart=1, merged=0)


def test_unlabelled_pixels_are_not_scored():
    truth = np.repeat([[1, 1, 2, 2]], 5, axis=0)
    truth[:, 3] = -1
    result = np.repeat([[1, 1, 2, 1]], 5, axis=0)
    assert separation(truth, result) == Separation(pairs=1, apart=1, merged=0)


def test_images_add_up():
    found = separation(ROW_OF_THREE, ROW_OF_THREE) + separation(ROW_OF_THREE, ROW_OF_THREE > 0)
    assert found == Separation(pairs=4, apart=2, merged=2)
    assert found.share_apart == 0.5


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="1 or more pixels"):
        separation(ROW_OF_THREE, ROW_OF_THREE, shared=0)
    with pytest.raises(InputError, match="rows, columns"):
        separation(ROW_OF_THREE[0], ROW_OF_THREE[0])

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ubend.errors import InputError
from ubend.method import objects
from ubend.method.objects import ObjectRules, foreground_to_objects
from ubend.method.relative_distance import relative_distance
from ubend.method.touching import separate_touching
from ubend.scores.cells import match

NUCLEI = Path(__file__).parents[2] / ".." / "shared" / "data" / "dsb2018" / "masks"


def test_components_join_along_edges_only_and_are_numbered_in_scan_order():
    probability = np.array([[0.0, 0.9, 0.0], [0.8, 0.0, 0.0], [0.8, 0.0, 0.7]])
    np.testing.assert_array_equal(
        foreground_to_objects(probability, ObjectRules(gap=0)), [[0, 1, 0], [2, 0, 0], [2, 0, 3]]
    )


def test_threshold_itself_is_background():
    np.testing.assert_array_equal(foreground_to_objects(np.array([[0.5, 0.6]])), [[0, 1]])
    np.testing.assert_array_equal(foreground_to_objects(np.array([[0.5, 0.6]]), ObjectRules(threshold=0.4)), [[1, 1]])


def test_small_objects_are_dropped_and_numbers_stay_contiguous():
    mask = np.array([[1, 0, 1, 1, 0, 0, 1, 1, 1]], bool)
    np.testing.assert_array_equal(
        foreground_to_objects(mask, ObjectRules(smallest=2, gap=0)), [[0, 0, 1, 1, 0, 0, 2, 2, 2]]
    )
    np.testing.assert_array_equal(foreground_to_objects(mask, ObjectRules(smallest=4, gap=0)), np.zeros((1, 9)))


def test_objects_that_are_not_sure_on_average_are_dropped():
    probability = np.array([[0.6, 0.9, 0.6, 0.1, 0.75, 0.875, 0.1, 0.8125]])
    rules = ObjectRules(certainty=0.8125, gap=0)
    np.testing.assert_array_equal(foreground_to_objects(probability, rules), [[0, 0, 0, 0, 1, 1, 0, 2]])
    one = ObjectRules(certainty=0.82, gap=0)
    np.testing.assert_array_equal(foreground_to_objects(probability, one), np.zeros((1, 8)))
    mask = np.array([[1, 0, 1, 1]], bool)
    np.testing.assert_array_equal(foreground_to_objects(mask, ObjectRules(certainty=1.0, gap=0)), [[1, 0, 2, 2]])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (bool, [1, 1, 0, 2, 2]), (np.uint8, [1, 1, 0, 2, 0]), (np.float16, [1, 1, 0, 0, 0]),
        (np.float32, [1, 1, 0, 0, 0]), (np.float64, [1, 1, 0, 0, 0]),
    ],
)  # fmt: skip
def test_the_certainty_of_numbers_of_any_type(dtype, expected):
    probability = np.array([[1, 1, 0, 1, 0.625]]).astype(dtype)
    found = foreground_to_objects(probability, ObjectRules(certainty=0.875, gap=0))
    np.testing.assert_array_equal(found, [expected])


def test_what_has_fallen_apart_needs_no_number():
    height = np.tile([0.9, 0.1, 0.9, 0.0], (150, 1))
    probability = np.where(height > 0, 0.9, 0.0)
    probability[1::2] = 0
    found = foreground_to_objects(probability, ObjectRules(certainty=0.8, gap=0, split=0.5), distance=height)
    assert (found.max(), found.dtype) == (150, np.uint8)


def test_the_certainty_is_that_before_the_gap_goes_back():
    probability = np.array([[0.9, 0.9, 0.1, 0.1, 0.9, 0.9]])
    found = foreground_to_objects(probability, ObjectRules(certainty=0.8, gap=1))
    np.testing.assert_array_equal(found, [[1, 1, 1, 2, 2, 2]])


def test_gap_goes_back_to_the_nearest_object():
    mask = np.array([[1, 1, 0, 0, 1, 1, 0, 0, 0, 1]], float)
    np.testing.assert_array_equal(foreground_to_objects(mask), [[1, 1, 1, 2, 2, 2, 0, 0, 0, 3]])


def test_open_background_stays():
    mask = np.zeros((7, 7), np.float32)
    mask[1:3, 1:3] = 1
    np.testing.assert_array_equal(foreground_to_objects(mask), mask)


@pytest.mark.parametrize("gap", [1, 2])
def test_squares_side_by_side_come_back_exactly(gap):
    labels = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((9, 8), int))
    separated = separate_touching(labels, gap=gap) > 0
    np.testing.assert_array_equal(foreground_to_objects(separated, ObjectRules(gap=gap)), labels)


def test_cells_cut_along_a_diagonal_come_back_but_for_the_ends_of_the_cut():
    rows, columns = np.indices((20, 20))
    labels = np.where(rows + columns < 20, 1, 2)
    back = foreground_to_objects(separate_touching(labels) > 0)
    np.testing.assert_array_equal(back[2:-2, 2:-2], labels[2:-2, 2:-2])
    assert np.count_nonzero(back != labels) == 6


def test_annotated_nuclei_come_back():
    if not NUCLEI.is_dir():
        pytest.skip("the 2018 Data Science Bowl nuclei are not beside the repository")
    changed = cells = found = 0
    for file in sorted(NUCLEI.glob("*.tif"))[:200:10]:
        labels = tifffile.imread(file)
        back = foreground_to_objects(separate_touching(labels) > 0)
        changed += np.count_nonzero((back > 0) != (labels > 0)) / labels.size / 20
        cells += len(np.unique(labels)) - 1
        found += back.max()
    assert abs(found - cells) <= 0.01 * cells
    assert changed < 0.002  # of all pixels: mostly true background of 1 or 2 px between nuclei


@pytest.mark.parametrize(("objects", "dtype"), [(255, np.uint8), (256, np.uint16), (65_536, np.uint32)])
def test_smallest_type_that_fits(objects, dtype):
    mask = np.zeros((256, 2 * -(-objects // 256)), bool)
    mask[:, ::2] = True
    isolated = np.zeros((512, mask.shape[1]), bool)
    isolated[::2] = mask
    isolated.flat[np.flatnonzero(isolated)[objects:]] = False
    labels = foreground_to_objects(isolated, ObjectRules(gap=0))
    assert labels.dtype == dtype
    assert labels.max() == objects


def test_no_foreground_no_objects():
    labels = foreground_to_objects(np.zeros((3, 3), np.float32), ObjectRules(smallest=5))
    assert labels.dtype == np.uint8
    assert not labels.any()


@pytest.mark.parametrize(
    ("probability", "message"),
    [
        (np.zeros((2, 3, 3)), r"shape \(2, 3, 3\).*channel"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([[0.1, np.nan]]), "NaN"),
        ([[0.1]], "not an array of numbers"),
    ],
)
def test_refuses_what_is_no_probability(probability, message):
    with pytest.raises(InputError, match=message):
        foreground_to_objects(probability)


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 1.0}, {"threshold": -0.1}, {"smallest": -1}, {"certainty": 1.1}, {"gap": 0.5}, {"fill_holes": 1}],
)
def test_refuses_a_parameter_out_of_range(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        ObjectRules(**wrong)


def dumbbell(waist):
    """Two discs of radius 8, 22 px apart, joined by a bar `waist` pixels high; and a line one pixel thin."""
    rows, columns = np.indices((40, 50))
    discs = ((rows - 12) ** 2 + (columns - 13) ** 2 <= 64) | ((rows - 12) ** 2 + (columns - 35) ** 2 <= 64)
    bar = (abs(rows - 12) <= waist // 2) & (columns > 13) & (columns < 35)
    return discs | bar | ((rows == 33) & (columns > 5))


@pytest.mark.parametrize(("split", "expected"), [(0.0, 2), (1.0, 3), (3.0, 3), (7.0, 2)])
def test_objects_are_parted_at_waists_that_are_deep_enough(split, expected):
    mask = dumbbell(waist=5)  # radius 8 at the bodies, 3 at the waist
    labels = foreground_to_objects(mask, ObjectRules(gap=0, split=split))
    assert labels.max() == expected
    assert ((labels > 0) == mask).all()  # not a pixel is lost, nor is the thin line
    assert labels[33, 20] == expected  # numbers follow the scan
    if expected == 3:
        assert labels[12, 13] == 1
        assert labels[12, 35] == 2


def test_a_disc_is_not_parted():
    rows, columns = np.indices((40, 40))
    disc = (rows - 20) ** 2 + (columns - 20) ** 2 <= 200
    assert foreground_to_objects(disc, ObjectRules(split=0.75)).max() == 1


def test_split_out_of_range():
    with pytest.raises(InputError, match="split is -1; allowed is a number from 0 on"):
        ObjectRules(split=-1)


# a learned distance


def test_a_learned_distance_parts_what_has_no_waist():
    rows, columns = np.indices((20, 40))
    bar = (abs(rows - 10) <= 4) & (columns >= 2) & (columns < 38)  # two cells side by side, nothing to see between
    labels = np.where(bar, np.where(columns < 20, 1, 2), 0)
    assert foreground_to_objects(bar, ObjectRules(gap=0, split=0.75)).max() == 1
    parted = foreground_to_objects(bar, ObjectRules(gap=0, split=0.1), distance=relative_distance(labels))
    np.testing.assert_array_equal(parted, labels)


@pytest.mark.parametrize(("split", "expected"), [(0.0, 1), (0.25, 2), (0.35, 1)])
def test_objects_are_parted_where_the_distance_falls_far_enough(split, expected):
    distance = np.array([[0.2, 0.9, 0.6, 0.95, 0.3]])  # the lower top stands 0.3 above the saddle
    found = foreground_to_objects(np.ones((1, 5)), ObjectRules(gap=0, split=split), distance=distance)
    assert found.max() == expected
    assert found.all()


def test_of_three_tops_the_shallow_one_joins_the_neighbour_over_the_higher_pass():
    distance = np.array([[1.0, 0.2, 0.35, 0.3, 0.9]])
    found = foreground_to_objects(np.ones((1, 5)), ObjectRules(gap=0, split=0.1), distance=distance)
    assert found.tolist()[0][2:] == [2, 2, 2]
    assert found[0, 0] == 1


def test_cells_of_a_real_image_come_back_through_their_distances():
    if not NUCLEI.is_dir():
        pytest.skip("the 2018 Data Science Bowl nuclei are not beside the repository")
    cells = found = 0
    for file in sorted(NUCLEI.glob("*.tif"))[5:200:20]:
        labels = tifffile.imread(file)
        back = foreground_to_objects(
            labels > 0, ObjectRules(gap=0, split=0.1), distance=relative_distance(labels.astype(np.int32))
        )
        cells += len(np.unique(labels)) - 1
        found += match(labels.astype(np.int32), back, 0.9).tp
    assert found > 0.95 * cells


def test_a_distance_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="distance holds NaN"):
        foreground_to_objects(np.ones((1, 2)), distance=np.array([[0.5, np.nan]]))


def test_a_distance_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"distance has the shape \(2, 3\), foreground_probability \(3, 2\)"):
        foreground_to_objects(np.zeros((3, 2)), distance=np.zeros((2, 3)))


# holes and the border


def test_holes_of_one_object_are_filled_and_others_left():
    mask = np.ones((9, 12), bool)
    mask[[0, -1]] = mask[:, [0, -1]] = False
    mask[3:6, 3:5] = False  # a hole in the middle of the object
    mask[4, 9:] = False  # a bay
    filled = foreground_to_objects(mask, ObjectRules(gap=0, fill_holes=True))
    assert (filled[3:6, 3:5] == 1).all()
    assert (filled[4, 9:] == 0).all()
    assert not foreground_to_objects(mask, ObjectRules(gap=0))[3:6, 3:5].any()


def test_background_between_two_objects_is_no_hole():
    """A ring of two halves, which a watershed has parted."""
    distance = np.array([[0.9, 0.9, 0.1, 0.9, 0.9]] * 5)
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    found = foreground_to_objects(mask, ObjectRules(gap=0, split=0.5, fill_holes=True), distance=distance)
    assert found.max() == 2
    assert found[2, 2] == 0


def test_a_hole_at_the_border_of_the_image_is_open():
    mask = np.array([[1, 0, 1], [1, 1, 1]], bool)
    assert foreground_to_objects(mask, ObjectRules(gap=0, fill_holes=True))[0, 1] == 0


def test_objects_at_the_border_can_be_left_out():
    mask = np.zeros((9, 9), bool)
    mask[0, 2] = mask[4:6, 4:6] = mask[7, 8] = True
    found = foreground_to_objects(mask, ObjectRules(gap=0, clear_border=True))
    assert found.max() == 1
    assert (found > 0).sum() == 4
    assert (found[4:6, 4:6] == 1).all()


# blocks change nothing


@given(seed=st.integers(0, 2**32 - 1), block=st.integers(3, 40), learned=st.booleans())
def test_blocks_change_nothing(seed, block, learned):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((37, 50)), 1.5)
    probability = (smooth - smooth.min()) / np.ptp(smooth)
    distance = ndimage.gaussian_filter(rng.random((37, 50)), 1) if learned else None
    rules = ObjectRules(split=0.02 if learned else 0.75, smallest=4, certainty=0.7, fill_holes=True)
    whole = foreground_to_objects(probability, rules, distance=distance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "_BLOCK", block)
        np.testing.assert_array_equal(foreground_to_objects(probability, rules, distance=distance), whole)


@given(seed=st.integers(0, 2**32 - 1))
def test_numbers_are_contiguous_and_follow_the_scan(seed):
    mask = np.random.default_rng(seed).random((15, 17)) > 0.5
    found = foreground_to_objects(mask, ObjectRules(gap=0, split=0.75))
    present, first = np.unique(found[found > 0], return_index=True)
    np.testing.assert_array_equal(present, np.arange(1, found.max() + 1))
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(found > 0, mask)


def test_an_image_may_be_longer_than_distances_are_searched_for():
    mask = np.ones((2, 40_000), bool)
    mask[:, [9, 10, 35_000, 35_001]] = False
    found = foreground_to_objects(mask)
    assert found.max() == 3
    assert (found[:, [9, 10, 35_000, 35_001]] == [1, 2, 2, 3]).all()

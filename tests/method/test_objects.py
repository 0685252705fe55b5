from pathlib import Path

import numpy as np
import pytest
import tifffile

from ubend.errors import InputError
from ubend.method.objects import ObjectRules, foreground_to_objects
from ubend.method.touching import separate_touching

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


@pytest.mark.parametrize("wrong", [{"threshold": 1.0}, {"threshold": -0.1}, {"smallest": -1}, {"gap": 0.5}])
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

"""Pixel scores against counts done by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import InputError
from ubend.scores import regions

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, -1]])
LABELS = np.array([[0, 1, 1, 1], [0, 0, 2, 2]])
COUNTS = np.array([[2, 1, 0], [0, 2, 0], [1, 0, 1]])


def test_confusion_has_the_truth_in_rows():
    counts = regions.confusion(TRUTH, LABELS, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == COUNTS.tolist()


def test_scores_by_hand():
    assert regions.iou(COUNTS).tolist() == [0.5, 2 / 3, 0.5]
    assert regions.dice(COUNTS).tolist() == [4 / 6, 4 / 5, 2 / 3]
    assert regions.precision(COUNTS).tolist() == [2 / 3, 2 / 3, 1]
    assert regions.recall(COUNTS).tolist() == [2 / 3, 1, 0.5]


def test_absent_class_is_nan():
    counts = regions.confusion(np.zeros((2, 2), int), np.zeros((2, 2), np.uint8), 2)
    for score in (regions.iou, regions.dice, regions.precision, regions.recall):
        np.testing.assert_array_equal(score(counts), [1, np.nan])


def test_mean_leaves_out_absent_classes():
    assert regions.mean(regions.iou(COUNTS)) == pytest.approx((0.5 + 2 / 3 + 0.5) / 3)
    absent = regions.confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3)
    assert regions.mean(regions.iou(absent)) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert regions.mean(regions.iou(absent)[1:]) == pytest.approx(2 / 3)
    assert np.isnan(regions.mean(np.array([np.nan, np.nan])))
    assert np.isnan(regions.mean(np.zeros(0)))


def test_missed_and_invented_classes():
    missed = regions.confusion(np.array([1]), np.array([0]), 2)
    assert regions.iou(missed).tolist() == [0, 0]
    assert regions.recall(missed)[1] == 0
    assert np.isnan(regions.precision(missed)[1])


def test_bool_masks_and_large_unsigned_classes():
    assert regions.confusion(np.array([True, False]), np.array([True, True]), 2).tolist() == [[0, 1], [0, 1]]
    assert regions.confusion(np.array([199], np.uint8), np.array([199], np.uint8), 200)[199, 199] == 1


def test_everything_ignored():
    assert regions.confusion(np.full((2, 2), -1), np.ones((2, 2), int), 2).sum() == 0


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_sums_and_swaps(seed, classes):
    rng = np.random.default_rng(seed)
    truth, labels = rng.integers(0, classes, (2, 6, 7))
    counts = regions.confusion(truth, labels, classes)
    assert counts.sum() == truth.size
    np.testing.assert_array_equal(regions.confusion(labels, truth, classes), counts.T)
    np.testing.assert_array_equal(regions.precision(counts), regions.recall(counts.T))
    jaccard = regions.iou(counts)
    np.testing.assert_allclose(regions.dice(counts), 2 * jaccard / (1 + jaccard))


def test_values_outside_of_the_classes():
    with pytest.raises(InputError, match=r"truth contains 255; of 2 classes the values are 0 to 1.*mask > 0"):
        regions.confusion(np.array([255]), np.array([0]), 2)
    with pytest.raises(InputError, match="labels contains 2; of 2 classes"):
        regions.confusion(np.array([1]), np.array([2]), 2)
    with pytest.raises(InputError, match="classes is 0"):
        regions.confusion(np.array([0]), np.array([0]), 0)


def test_matrix_that_is_not_square():
    with pytest.raises(InputError, match=r"confusion has shape \(2, 3\)"):
        regions.iou(np.zeros((2, 3), np.int64))

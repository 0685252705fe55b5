"""Matching of cells against numbers worked out by hand and against one assignment of all objects at once."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from ubend.errors import InputError
from ubend.scores.cells import Matching, match, match_all, pooled

TRUTH = np.array(
    [
        [1, 1, 1, 0, 2, 2],
        [1, 1, 1, 0, 2, 2],
        [1, 1, 1, 0, 2, 2],
        [0, 0, 0, 0, 2, 2],
        [3, 3, 3, 0, 2, 2],
        [3, 3, 3, 0, 2, 2],
    ]
)
RESULT = np.array(
    [
        [1, 1, 0, 0, 2, 2],
        [1, 1, 0, 0, 2, 2],
        [1, 1, 1, 2, 2, 2],
        [0, 0, 0, 0, 0, 2],
        [3, 3, 0, 4, 4, 4],
        [3, 3, 0, 4, 4, 4],
    ]
)
seeds = st.integers(0, 10**6)


def random_labels(seed, n=6, shape=(8, 8)):
    return np.repeat(np.random.default_rng(seed).integers(0, n, shape), 2, axis=1)


def match_all_at_once(truth, labels, threshold):
    """TP and IoU sum from the dense IoU matrix, every pair taking part, as StarDist states its rule."""
    ids, found = np.unique(truth[truth > 0]), np.unique(labels[labels > 0])
    if not len(ids) or not len(found):
        return 0, 0.0
    iou = np.array(
        [[((truth == i) & (labels == j)).sum() / ((truth == i) | (labels == j)).sum() for j in found] for i in ids]
    )
    chosen = iou[linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * min(iou.shape)))]
    return (chosen >= threshold).sum(), chosen[chosen >= threshold].sum()


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0.75), (0.6, 0.4), (0.75, 1 / 6), (0.9, 0)])
def test_hand_made_example(threshold, expected):
    assert match(TRUTH, RESULT, threshold).average_precision == pytest.approx(expected, rel=1e-12)


def test_hand_made_example_in_full():
    found = match(TRUTH, RESULT)
    assert (found.tp, found.fp, found.fn, found.n_truth, found.n_predicted) == (3, 1, 0, 3, 4)
    assert found.precision == 0.75
    assert found.recall == 1
    assert found.f1 == pytest.approx(6 / 7)
    assert found.mean_matched_iou == pytest.approx((7 / 9 + 7 / 13 + 4 / 6) / 3)
    assert found.panoptic_quality == pytest.approx(0.5665445665445665, rel=1e-12)


def test_square_shifted_by_half():
    truth, labels = np.zeros((100, 100), int), np.zeros((100, 100), int)
    truth[10:20, 10:20] = 1
    labels[15:25, 10:20] = 1
    found = match(truth, labels)
    assert (found.tp, found.fp, found.fn, found.panoptic_quality) == (0, 1, 1, 0)
    assert math.isnan(found.mean_matched_iou)


def test_iou_equal_to_the_threshold_counts_once():
    found = match(np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 1]]))
    assert (found.tp, found.fp, found.fn, found.iou_sum) == (1, 0, 1, 0.5)


def test_more_pairs_come_before_better_pairs():
    truth = np.array([[1, 1, 1, 1, 1, 2]])
    labels = np.array([[1, 1, 0, 3, 3, 3]])  # IoU: 1-1 0.4, 1-3 1/3, 2-3 1/3
    assert match(truth, labels, 0.3).tp == 2
    # IoU: 1-1 0.2, 1-2 4/7, 2-2 1/3. The best pair, 1-2, would leave two objects without a partner.
    truth, labels = np.array([[1, 1, 1, 1, 1, 2, 2]]), np.array([[1, 2, 2, 2, 2, 2, 2]])
    found = match(truth, labels, 0.2)
    assert (found.tp, found.fp, found.fn) == (2, 0, 0)
    assert found.iou_sum == pytest.approx(1 / 5 + 2 / 6)


@given(seeds, st.sampled_from([0.1, 0.25, 0.5, 0.6, 1.0]))
@settings(deadline=None)
def test_agrees_with_one_assignment_of_all_objects(seed, threshold):
    truth, labels = random_labels(seed), random_labels(seed)
    changed = np.random.default_rng(seed).random(labels.shape) < 0.3
    labels[changed] = random_labels(seed + 1)[changed]
    found = match(truth, labels, threshold)
    tp, iou_sum = match_all_at_once(truth, labels, threshold)
    assert found.tp == tp
    if threshold >= 0.5:
        assert found.iou_sum == pytest.approx(iou_sum)
    else:
        assert found.iou_sum >= iou_sum - 1e-12


@given(seeds)
@settings(deadline=None)
def test_a_result_matches_itself(seed):
    labels = random_labels(seed)
    found = match(labels, labels, 1.0)
    assert (found.fp, found.fn, found.f1, found.average_precision, found.panoptic_quality) == (0, 0, 1, 1, 1)


@given(seeds, st.sampled_from([np.uint8, np.uint16, np.int32, np.uint64]))
@settings(deadline=None)
def test_names_of_the_cells_do_not_matter(seed, dtype):
    truth, labels = random_labels(seed), random_labels(seed + 1)
    names = np.random.default_rng(seed).permutation(np.arange(1, 200))[:5]
    renamed = np.concatenate([[0], names])[labels].astype(dtype)
    assert match(truth, renamed, 0.1) == match(truth, labels, 0.1)


def test_labels_above_65535():
    large = np.array([0, 65536, 131072, 65537])
    assert match(large[TRUTH], np.append(large, 10**9)[RESULT]) == match(TRUTH, RESULT)


def test_no_background():
    full = np.array([[1, 1, 2, 2]])
    found = match(full, full)
    assert (found.tp, found.fp, found.fn) == (2, 0, 0)


def test_one_pixel_objects():
    dots = np.arange(1, 25).reshape(4, 6) * (np.indices((4, 6)).sum(axis=0) % 2)
    assert match(dots, dots) == Matching(0.5, 12, 0, 0, 12.0)
    assert match(dots, np.roll(dots, 1, axis=0)).tp == 0


def test_bool_masks_are_one_object():
    assert match(np.array([[True, False]]), np.array([[True, True]])) == Matching(0.5, 1, 0, 0, 0.5)


def test_empty_result():
    found = match(TRUTH, np.zeros_like(TRUTH))
    assert (found.tp, found.fp, found.fn, found.recall, found.f1, found.average_precision) == (0, 0, 3, 0, 0, 0)
    assert found.panoptic_quality == 0
    assert math.isnan(found.precision)


def test_empty_truth():
    found = match(np.zeros_like(TRUTH), RESULT)
    assert (found.tp, found.fp, found.fn, found.precision, found.f1, found.average_precision) == (0, 4, 0, 0, 0, 0)
    assert math.isnan(found.recall)


@pytest.mark.parametrize("shape", [(3, 3), (0, 3)])
def test_both_empty_says_nothing(shape):
    nothing = np.zeros(shape, int)
    found = match(nothing, nothing)
    assert found == Matching(0.5, 0, 0, 0, 0.0)
    assert math.isnan(found.average_precision)
    assert math.isnan(found.f1)
    assert math.isnan(found.panoptic_quality)


def test_negative_truth_is_left_out_on_both_sides():
    truth = np.array([[1, 1, 0, -1, -1, -1]])
    labels = np.array([[1, 1, 0, 2, 2, 0]])
    assert match(truth, labels) == Matching(0.5, 1, 0, 0, 1.0)
    assert match(np.array([[1, 1, -1]]), np.array([[1, 1, 1]])).iou_sum == 1


def test_many_touching_cells():
    """A grid of touching cells against itself moved by one pixel: each overlaps four, so all are one group."""
    truth = np.kron(np.arange(1, 10001).reshape(100, 100), np.ones((6, 6), int))
    found = match(truth, np.roll(truth, 1, axis=(0, 1)))
    assert (found.tp, found.fp, found.fn) == (10000, 0, 0)
    assert found.mean_matched_iou == pytest.approx(25 / 47)


def test_volumes():
    assert match(np.stack([TRUTH, TRUTH]), np.stack([RESULT, RESULT])).average_precision == 0.75


def test_pooled_sums_counts():
    whole = pooled([match(TRUTH, RESULT), match(TRUTH, np.zeros_like(TRUTH)), match(TRUTH, TRUTH)])
    assert (whole.tp, whole.fp, whole.fn) == (6, 1, 3)
    assert whole.average_precision == 0.6
    assert whole.iou_sum == pytest.approx(match(TRUTH, RESULT).iou_sum + 3)


def test_pooled_refuses_none_and_mixed_thresholds():
    with pytest.raises(InputError, match="0 IoU thresholds came"):
        pooled([])
    with pytest.raises(InputError, match=r"2 IoU thresholds came: \[0.5, 0.7\]"):
        pooled([match(TRUTH, RESULT, 0.7), match(TRUTH, RESULT, 0.5)])


def test_several_thresholds_at_once():
    thresholds = (0.9, 0.5, 0.6, 0.75, 0.1)
    assert match_all(TRUTH, RESULT, iter(thresholds)) == tuple(match(TRUTH, RESULT, each) for each in thresholds)
    assert match_all(TRUTH, RESULT, []) == ()


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5, float("nan")])
def test_threshold_out_of_range(threshold):
    with pytest.raises(InputError, match="above 0 up to 1"):
        match(TRUTH, RESULT, threshold)
    with pytest.raises(InputError, match="above 0 up to 1"):
        match_all(TRUTH, RESULT, [0.5, threshold])


def test_wrong_labels():
    with pytest.raises(InputError, match=r"truth has shape \(6, 6\) and labels \(5, 6\)"):
        match(TRUTH, RESULT[1:])
    with pytest.raises(InputError, match="labels has data type float64"):
        match(TRUTH, RESULT / 2)

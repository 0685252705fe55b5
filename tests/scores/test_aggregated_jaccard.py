"""AJI and AJI+ against numbers worked out by hand, and against the definition, mask by mask."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from ubend.errors import InputError
from ubend.scores.cells import AggregatedJaccard, aggregated_jaccard, pooled_aggregated_jaccard

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
NOTHING = np.zeros_like(TRUTH)
seeds = st.integers(0, 10**6)
both = pytest.mark.parametrize("one_to_one", [False, True])


def random_labels(seed, n=6, shape=(8, 8)):
    return np.repeat(np.random.default_rng(seed).integers(0, n, shape), 2, axis=1)


def masks(labels):
    return [labels == number for number in np.unique(labels[labels > 0])]


def table(truth, labels):
    shared = np.array([[(one & other).sum() for other in masks(labels)] for one in masks(truth)])
    union = np.array([[(one | other).sum() for other in masks(labels)] for one in masks(truth)])
    return shared, union


def aji_by_definition(truth, labels):
    shared, union = table(truth, labels)
    intersection = total = 0
    taken = set()
    for row in range(len(shared)):
        best = max(range(shared.shape[1]), key=lambda j: (shared[row, j] / union[row, j], shared[row, j]))
        if shared[row, best]:
            taken.add(best)
            intersection += shared[row, best]
            total += union[row, best]
        else:
            total += masks(truth)[row].sum()
    total += sum(mask.sum() for number, mask in enumerate(masks(labels)) if number not in taken)
    return AggregatedJaccard(intersection, total)


def test_hand_made_example():
    # 1 takes 1 (7/9), 2 takes 2 (7/13), 3 takes 3 (4/6); 4 is left over with six pixels
    assert aggregated_jaccard(TRUTH, RESULT) == AggregatedJaccard(18, 9 + 13 + 6 + 6)
    assert aggregated_jaccard(TRUTH, RESULT).value == pytest.approx(0.5294117647058824, rel=1e-15)
    assert aggregated_jaccard(TRUTH, RESULT, one_to_one=True) == AggregatedJaccard(18, 34, one_to_one=True)


def test_a_merger_is_taken_by_all_or_by_one():
    assert aggregated_jaccard(TRUTH, TRUTH > 0) == AggregatedJaccard(27, 3 * 27)
    assert aggregated_jaccard(TRUTH, TRUTH > 0, one_to_one=True) == AggregatedJaccard(12, 27 + 9 + 6, one_to_one=True)
    assert aggregated_jaccard(TRUTH, TRUTH > 0, one_to_one=True).value == pytest.approx(0.2857142857142857, rel=1e-15)


def test_aji_takes_the_best_iou_not_the_largest_overlap():
    truth, labels = np.array([[1, 1, 1, 1, 1, 0, 0, 0]]), np.array([[2, 2, 1, 1, 1, 1, 1, 1]])  # IoU 2/5 and 3/8
    assert aggregated_jaccard(truth, labels) == AggregatedJaccard(2, 5 + 6)


def test_aji_plus_takes_the_best_sum_not_the_best_pair():
    truth, labels = np.array([[1, 1, 1, 1, 1, 2, 2]]), np.array([[1, 2, 2, 2, 2, 2, 2]])  # 1-1 1/5, 1-2 4/7, 2-2 2/6
    assert aggregated_jaccard(truth, labels, one_to_one=True) == AggregatedJaccard(4, 7 + 1 + 2, one_to_one=True)
    truth, labels = np.array([[1, 1, 1, 1, 2, 2, 2]]), np.array([[1, 1, 2, 2, 2, 2, 2]])  # 1-1 2/4, 1-2 2/7, 2-2 3/5
    assert aggregated_jaccard(truth, labels, one_to_one=True) == AggregatedJaccard(5, 4 + 5, one_to_one=True)


@both
def test_of_equals_the_one_that_shares_more(one_to_one):
    truth = np.array([[1, 1, 1, 1, 0, 0]])
    labels = np.array([[1, 1, 2, 2, 2, 2]])  # IoU 1/2 (2 of 4) and 1/3: no tie
    assert aggregated_jaccard(truth, labels, one_to_one=one_to_one).intersection == 2
    labels = np.array([[1, 2, 2, 2, 2, 2]])  # 1/4 (1 of 4) and 3/6
    assert aggregated_jaccard(truth, labels, one_to_one=one_to_one).intersection == 3
    truth, labels = np.array([[1, 1, 1, 0, 0, 0]]), np.array([[1, 2, 2, 2, 2, 2]])  # 1/3 and 2/6
    assert aggregated_jaccard(truth, labels, one_to_one=one_to_one).intersection == 2


@both
def test_empty_truth_or_result(one_to_one):
    found = aggregated_jaccard(NOTHING, RESULT, one_to_one=one_to_one)
    assert (found.intersection, found.union, found.value) == (0, 25, 0)
    found = aggregated_jaccard(TRUTH, NOTHING, one_to_one=one_to_one)
    assert (found.intersection, found.union, found.value) == (0, 27, 0)


@both
@pytest.mark.parametrize("shape", [(3, 3), (0, 3)])
def test_both_empty_says_nothing(shape, one_to_one):
    nothing = np.zeros(shape, int)
    found = aggregated_jaccard(nothing, nothing, one_to_one=one_to_one)
    assert (found.intersection, found.union) == (0, 0)
    assert math.isnan(found.value)


@both
def test_no_background(one_to_one):
    full = np.array([[1, 1, 2, 2]])
    assert aggregated_jaccard(full, full, one_to_one=one_to_one).value == 1
    assert aggregated_jaccard(full, full // 2, one_to_one=one_to_one) == AggregatedJaccard(2, 4, one_to_one)


@both
def test_labels_above_65535_and_with_gaps(one_to_one):
    large = np.array([0, 65536, 131072, 10**9])
    found = aggregated_jaccard(large[TRUTH], np.append(large, 2**40)[RESULT], one_to_one=one_to_one)
    assert found == aggregated_jaccard(TRUTH, RESULT, one_to_one=one_to_one)


@both
def test_one_pixel_objects(one_to_one):
    dots = np.arange(1, 25).reshape(4, 6) * (np.indices((4, 6)).sum(axis=0) % 2)
    assert aggregated_jaccard(dots, dots, one_to_one=one_to_one) == AggregatedJaccard(12, 12, one_to_one)
    assert aggregated_jaccard(dots, np.roll(dots, 1, axis=0), one_to_one=one_to_one).value == 0


@both
def test_negative_truth_is_left_out_on_both_sides(one_to_one):
    truth, labels = np.array([[1, 1, 0, -1, -1]]), np.array([[3, 3, 0, 3, 2]])
    assert aggregated_jaccard(truth, labels, one_to_one=one_to_one) == AggregatedJaccard(2, 2, one_to_one)


@given(seeds)
def test_aji_agrees_with_the_definition(seed):
    truth, labels = random_labels(seed), random_labels(seed)
    changed = np.random.default_rng(seed).random(labels.shape) < 0.3
    labels[changed] = random_labels(seed + 1, n=9)[changed]
    assert aggregated_jaccard(truth, labels) == aji_by_definition(truth, labels)


@given(seeds)
def test_aji_plus_has_the_best_sum_of_iou(seed):
    truth, labels = random_labels(seed), np.roll(random_labels(seed), 1, axis=1)
    shared, union = table(truth, labels)
    iou = shared / union + 1e-9 * shared / shared.max()  # more pixels first, among equals
    intersection = shared[linear_sum_assignment(iou, maximize=True)].sum()
    assert aggregated_jaccard(truth, labels, one_to_one=True) == AggregatedJaccard(
        intersection, (truth > 0).sum() + (labels > 0).sum() - intersection, one_to_one=True
    )


@given(seeds)
def test_names_do_not_matter_to_aji_plus(seed):
    truth, labels = random_labels(seed), random_labels(seed + 1)
    names = np.concatenate([[0], np.random.default_rng(seed).permutation(np.arange(1, 200))[:5]])
    renamed = aggregated_jaccard(names[truth], names[::-1].copy()[5 - labels], one_to_one=True)
    assert renamed == aggregated_jaccard(truth, labels, one_to_one=True)


@both
@given(seed=seeds)
def test_a_result_agrees_with_itself(one_to_one, seed):
    labels = random_labels(seed)
    assert aggregated_jaccard(labels, labels, one_to_one=one_to_one).value == 1


def test_many_touching_cells():
    truth = np.kron(np.arange(1, 2501).reshape(50, 50), np.ones((6, 6), int))
    moved = np.roll(truth, 1, axis=(0, 1))
    assert aggregated_jaccard(truth, moved, one_to_one=True).value == pytest.approx(25 / 47)


def test_pooled_sums_pixels():
    whole = pooled_aggregated_jaccard([aggregated_jaccard(TRUTH, RESULT), aggregated_jaccard(TRUTH, NOTHING)])
    assert whole == AggregatedJaccard(18, 34 + 27)


def test_pooled_refuses_none_and_two_kinds():
    with pytest.raises(InputError, match="of no image came"):
        pooled_aggregated_jaccard([])
    with pytest.raises(InputError, match=r"of both AJI and AJI\+ came"):
        pooled_aggregated_jaccard([AggregatedJaccard(1, 2), AggregatedJaccard(1, 2, one_to_one=True)])


def test_wrong_labels():
    with pytest.raises(InputError, match=r"truth has shape \(6, 6\) and labels \(5, 6\)"):
        aggregated_jaccard(TRUTH, RESULT[1:])
    with pytest.raises(InputError, match="labels has data type float64"):
        aggregated_jaccard(TRUTH, RESULT / 2)

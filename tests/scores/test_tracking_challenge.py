"""SEG and DET against numbers worked out by hand, and against the definition, object by object."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import InputError
from ubend.scores.cells import Detections, detections, pooled_detections, seg

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
MERGED = TRUTH > 0
NOTHING = np.zeros_like(TRUTH)
seeds = st.integers(0, 10**6)


def random_labels(seed, n=6, shape=(8, 8)):
    return np.repeat(np.random.default_rng(seed).integers(0, n, shape), 2, axis=1)


def by_definition(truth, labels):
    """Jaccard indices, NS, FN and FP from one mask after the other."""
    jaccard, finder = [], []
    for number in np.unique(truth[truth > 0]):
        inside = truth == number
        for other in np.unique(labels[labels > 0]):
            found = labels == other
            if (inside & found).sum() > 0.5 * inside.sum():
                jaccard.append((inside & found).sum() / (inside | found).sum())
                finder.append(other)
                break
        else:
            jaccard.append(0.0)
    missed = len(jaccard) - len(finder)
    invented = len(np.unique(labels[labels > 0])) - len(set(finder))
    return jaccard, Detections(len(finder) - len(set(finder)), missed, invented, len(jaccard))


def test_hand_made_example():
    assert seg(TRUTH, RESULT).tolist() == [7 / 9, 7 / 13, 4 / 6]
    assert seg(TRUTH, RESULT).mean() == pytest.approx(0.660968660968661, rel=1e-14)
    assert detections(TRUTH, RESULT) == Detections(splits_needed=0, missed=0, invented=1, n_truth=3)
    assert detections(TRUTH, RESULT).det == pytest.approx(1 - 1 / 30)


def test_a_merger_finds_all_and_must_be_split():
    assert seg(TRUTH, MERGED).tolist() == [9 / 27, 12 / 27, 6 / 27]
    assert seg(TRUTH, MERGED).mean() == pytest.approx(1 / 3)
    assert detections(TRUTH, MERGED) == Detections(splits_needed=2, missed=0, invented=0, n_truth=3)
    assert detections(TRUTH, MERGED).det == pytest.approx(1 - 10 / 30)


def test_exactly_half_is_not_found():
    truth, labels = np.array([[1, 1, 2, 2, 2]]), np.array([[1, 0, 2, 2, 0]])
    assert seg(truth, labels).tolist() == [0, 2 / 3]
    assert detections(truth, labels) == Detections(0, 1, 1, 2)


def test_a_split_object_is_found_by_its_larger_part():
    truth, labels = np.array([[1, 1, 1]]), np.array([[4, 4, 5]])
    assert seg(truth, labels).tolist() == [2 / 3]
    assert detections(truth, labels) == Detections(0, 0, 1, 1)


def test_corrections_never_cost_more_than_starting_anew():
    truth, labels = np.array([[1, 1, 0, 0]]), np.array([[0, 0, 1, 2]])
    assert detections(truth, labels) == Detections(0, 1, 2, 1)
    assert detections(truth, labels).det == 0


def test_empty_result():
    assert seg(TRUTH, NOTHING).tolist() == [0, 0, 0]
    assert detections(TRUTH, NOTHING) == Detections(0, 3, 0, 3)
    assert detections(TRUTH, NOTHING).det == 0


@pytest.mark.parametrize(("labels", "invented"), [(RESULT, 4), (NOTHING, 0)])
def test_empty_truth(labels, invented):
    assert seg(NOTHING, labels).shape == (0,)
    assert detections(NOTHING, labels) == Detections(0, 0, invented, 0)
    assert math.isnan(detections(NOTHING, labels).det)


def test_no_pixels():
    assert seg(np.zeros((0, 3), int), np.zeros((0, 3), int)).shape == (0,)


def test_no_background():
    full = np.array([[1, 1, 1, 2]])
    assert seg(full, full).tolist() == [1, 1]
    assert detections(full, full) == Detections(0, 0, 0, 2)
    assert seg(full, np.array([[1, 1, 2, 2]])).tolist() == [2 / 3, 1 / 2]


def test_labels_above_65535_and_with_gaps():
    large = np.array([0, 65536, 131072, 10**9])
    assert seg(large[TRUTH], np.append(large, 2**40)[RESULT]).tolist() == seg(TRUTH, RESULT).tolist()
    assert detections(large[TRUTH], np.append(large, 2**40)[RESULT]) == detections(TRUTH, RESULT)


def test_order_is_that_of_the_numbers():
    assert seg(np.array([0, 30, 20, 10])[TRUTH], RESULT).tolist() == [4 / 6, 7 / 13, 7 / 9]


def test_one_pixel_objects():
    dots = np.arange(1, 25).reshape(4, 6) * (np.indices((4, 6)).sum(axis=0) % 2)
    assert seg(dots, dots).tolist() == [1] * 12
    assert detections(dots, np.roll(dots, 1, axis=0)) == Detections(0, 12, 12, 12)


def test_negative_truth_is_left_out_on_both_sides():
    truth, labels = np.array([[1, 1, 0, -1, -1]]), np.array([[3, 3, 0, 3, 2]])
    assert seg(truth, labels).tolist() == [1]
    assert detections(truth, labels) == Detections(0, 0, 0, 1)


def test_volumes_and_masks():
    assert seg(np.stack([TRUTH, TRUTH]), np.stack([RESULT, RESULT])).tolist() == seg(TRUTH, RESULT).tolist()
    assert seg(np.array([True, True, True]), np.array([True, True, False])).tolist() == [2 / 3]


@given(seeds)
def test_agrees_with_the_definition(seed):
    truth, labels = random_labels(seed), random_labels(seed)
    changed = np.random.default_rng(seed).random(labels.shape) < 0.3
    labels[changed] = random_labels(seed + 1, n=9)[changed]
    jaccard, counts = by_definition(truth, labels)
    assert seg(truth, labels).tolist() == jaccard
    assert detections(truth, labels) == counts


@given(seeds)
def test_names_of_the_cells_do_not_matter(seed):
    truth, labels = random_labels(seed), random_labels(seed + 1, n=3)
    names = np.concatenate([[0], np.random.default_rng(seed).permutation(np.arange(1, 200))[:5]])
    assert seg(truth, names[labels]).tolist() == seg(truth, labels).tolist()
    assert detections(names[truth], names[labels]) == detections(truth, labels)


@given(seeds)
def test_a_result_finds_itself(seed):
    labels = random_labels(seed)
    assert set(seg(labels, labels)) == {1.0}
    assert detections(labels, labels).det == 1


def test_pooled_detections_sum_counts():
    whole = pooled_detections([detections(TRUTH, RESULT), detections(TRUTH, MERGED), detections(NOTHING, RESULT)])
    assert whole == Detections(splits_needed=2, missed=0, invented=5, n_truth=6)
    assert whole.det == pytest.approx(1 - 15 / 60)
    with pytest.raises(InputError, match="Detections of no image came"):
        pooled_detections([])


@pytest.mark.parametrize("score", [seg, detections])
def test_wrong_labels(score):
    with pytest.raises(InputError, match=r"truth has shape \(6, 6\) and labels \(5, 6\)"):
        score(TRUTH, RESULT[1:])
    with pytest.raises(InputError, match="labels has data type float64"):
        score(TRUTH, RESULT / 2)

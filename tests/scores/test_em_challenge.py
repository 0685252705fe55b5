"""V_Rand and V_Info against numbers worked out by hand, slow code written from the definitions, and real membranes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.segmentation import watershed

from ubend.errors import InputError
from ubend.scores import em_challenge as em

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"

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
small_images = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def values(score):
    return score.f_score, score.precision, score.recall


def random_labels(seed, n=5, shape=(7, 8)):
    return np.random.default_rng(seed).integers(0, n, shape)


def f_score_by_pairs(truth, result):
    """Rand F-score from all ordered pairs of truth-foreground pixels, a pixel with itself included."""
    a, b = truth[truth > 0], result[truth > 0]
    b = np.where(b == 0, -1 - np.arange(len(b)), b)  # each dam pixel a region of its own
    in_truth, in_result = a[:, None] == a, b[:, None] == b
    both = (in_truth & in_result).sum()
    return 2 * both / (in_truth.sum() + in_result.sum()), both / in_result.sum(), both / in_truth.sum()


def test_hand_made_example():
    rand, information = em.rand_f_score(TRUTH, RESULT), em.information_f_score(TRUTH, RESULT)
    assert values(rand) == pytest.approx((0.6818181818181818, 1.0, 0.5172413793103449), rel=1e-12)
    assert values(information) == pytest.approx((0.7224209705474001, 1.0, 0.5654608864838158), rel=1e-12)


def test_all_cells_merged():
    merged = (TRUTH > 0).astype(int)
    assert values(em.rand_f_score(TRUTH, merged)) == pytest.approx(
        (0.5272727272727273, 0.3580246913580247, 1.0), rel=1e-12
    )
    assert em.information_f_score(TRUTH, merged).f_score == 0


def test_identical_labels():
    assert values(em.rand_f_score(TRUTH, TRUTH)) == (1, 1, 1)
    assert values(em.information_f_score(TRUTH, TRUTH)) == pytest.approx((1, 1, 1), rel=1e-12)


def test_result_without_a_region_is_single_pixels():
    rand = em.rand_f_score(np.array([[1, 1, 2, 2]]), np.zeros((1, 4), int))
    assert values(rand) == (2 * 4 / (8 + 4), 1.0, 0.5)


def test_truth_without_a_region_is_nan():
    nothing = np.zeros((2, 2), int)
    assert np.isnan(values(em.rand_f_score(nothing, nothing))).all()
    assert np.isnan(values(em.information_f_score(nothing, nothing))).all()


def test_single_region_has_no_information():
    one, two = np.array([[1, 1]]), np.array([[1, 2]])
    assert np.isnan(em.information_f_score(one, one).f_score)
    assert values(em.information_f_score(one, two)) == (0, 0, 1)
    assert values(em.information_f_score(two, one)) == (0, 1, 0)


def test_negative_truth_is_left_out():
    assert em.rand_f_score(np.where(TRUTH == 0, -1, TRUTH), RESULT) == em.rand_f_score(TRUTH, RESULT)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_rand_equals_counting_all_pairs(seed):
    truth, result = random_labels(seed), random_labels(seed + 1)
    assert values(em.rand_f_score(truth, result)) == pytest.approx(f_score_by_pairs(truth, result), rel=1e-12)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_names_of_the_regions_do_not_matter(seed):
    truth, result = random_labels(seed), random_labels(seed + 1)
    names = np.array([0, 70000, 3, 10**9, 1])
    for score in (em.rand_f_score, em.information_f_score):
        assert values(score(names[truth], names[result].astype(np.uint64))) == pytest.approx(
            values(score(truth, result))
        )


def test_thresholds_are_the_challenges():
    expected = [0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, 0.6, 0.7, 0.7999999999999999, 0.8999999999999999]
    assert list(em.THRESHOLDS) == [*expected, 0.9999999999999999]


def test_thin_keeps_one_pixel_walls():
    cells = np.array([[1, 1, 0, 1], [0, 0, 0, 1], [1, 1, 0, 1]], dtype=bool)
    # The middle of the junction touches no cell but 2, and no other flood can reach it past the dams.
    assert em.thin(cells).tolist() == [[1, 1, 0, 2], [0, 0, 2, 2], [3, 3, 0, 2]]


def test_thin_floods_a_wall_from_both_sides():
    assert em.thin(np.array([[1, 0, 0, 0, 0, 0, 1, 1]], bool)).tolist() == [[1, 1, 1, 0, 2, 2, 2, 2]]
    assert em.thin(np.array([[1, 0, 0, 1]] * 2, bool)).tolist() == [[1, 0, 2, 2], [1, 1, 0, 2]]


def test_thin_floods_a_wall_that_ends_inside_a_cell():
    cells = np.array([[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)
    assert (em.thin(cells) == 1).all()


def test_thin_is_4_connected():
    assert em.thin(np.eye(2, dtype=bool)).tolist() == [[1, 0], [0, 2]]


def test_thin_without_cells_is_one_basin():
    assert (em.thin(np.zeros((3, 4), bool)) == 1).all()
    assert (em.thin(np.ones((3, 4), bool)) == 1).all()


@given(small_images)
@settings(deadline=None)
def test_thin_keeps_cells_and_parts_basins(cells):
    basins = em.thin(cells)
    components, n = ndimage.label(cells)
    assert (basins[cells] == components[cells]).all()
    assert basins.max() == max(n, 1)
    for a, b in ((basins[1:], basins[:-1]), (basins[:, 1:], basins[:, :-1])):
        assert ((a == b) | (a == 0) | (b == 0)).all()
    for basin in range(1, n + 1):
        assert ndimage.label(basins == basin)[1] == 1


@given(small_images)
@settings(deadline=None)
def test_thin_equals_the_sequential_watershed_where_walls_are_thin(cells):
    """Membrane pixels without a membrane pixel beside them: there is no order in which they could be flooded."""
    beside = ndimage.binary_dilation(~cells, np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    cells = cells | beside
    if not cells.any():
        return
    markers, _ = ndimage.label(cells)
    expected = watershed((~cells).astype(np.uint8), markers, connectivity=1, watershed_line=True)
    np.testing.assert_array_equal(em.thin(cells), expected)


def test_perfect_probabilities():
    truth = TRUTH > 0
    rand, information = em.v_scores(truth, np.where(truth, 0.8, 0.2))
    assert values(rand) == (1, 1, 1)
    assert values(information) == pytest.approx((1, 1, 1))
    assert rand.threshold == 0.2  # the first of several that are equally good
    assert rand.slices == (1.0,)


def test_membrane_probabilities_that_need_a_threshold():
    truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    weak = np.array([[1, 1, 1, 0.65, 1, 1, 1]] * 3, dtype=np.float32)
    score = em.v_rand(truth, weak)
    assert (score.f_score, score.threshold) == (1.0, 0.7)


def test_last_threshold_separates_exact_ones_in_float32():
    truth = np.array([[1, 1, 0, 1, 1]])
    assert em.v_rand(truth, np.array([[1, 1, 0.99, 1, 1]], np.float32)).threshold == em.THRESHOLDS[-1]


def test_binary_proposal_has_one_threshold():
    truth = np.array([[1, 1, 0, 1, 1]])
    for dtype in (bool, np.uint8, np.float32):
        score = em.v_rand(truth, truth.astype(dtype))
        assert (score.f_score, score.threshold) == (1.0, 0.0)


def test_no_membrane_found():
    truth = np.array([[1, 1, 1, 0, 1, 1, 1]])
    rand, information = em.v_scores(truth, np.ones((1, 7)))
    assert values(rand) == (18 * 2 / (18 + 36), 0.5, 1.0)
    assert information.f_score == 0
    assert em.v_rand(truth, np.zeros((1, 7))) == rand  # no cell found: nothing to flood from, one basin


def test_slices_are_averaged_before_the_best_threshold_is_taken():
    truth = np.array([[[1, 1, 0, 1, 1]]] * 2)
    proposal = np.array([[[0.9, 0.9, 0.55, 0.9, 0.9]], [[0.45, 0.45, 0.05, 0.45, 0.45]]])
    apart = [em.v_rand(*pair) for pair in zip(truth, proposal, strict=True)]
    assert [score.f_score for score in apart] == [1.0, 1.0]
    together = em.v_rand(truth, proposal)
    merged = 2 * 8 / (8 + 16)
    assert together.f_score == pytest.approx((1 + merged) / 2)
    assert sorted(together.slices) == pytest.approx([merged, 1])


def test_slices_of_several_sizes():
    truths = [np.array([[1, 0, 1]]), np.array([[1, 1, 0, 1], [1, 1, 0, 1]])]
    assert em.v_rand(truths, truths).slices == (1, 1)


def test_slice_without_truth_is_left_out():
    truth = np.array([[[1, 1, 0, 1]], [[0, 0, 0, 0]]])
    score = em.v_rand(truth, truth)
    assert score.f_score == 1
    assert np.isnan(score.slices[1])
    assert np.isnan(values(em.v_rand(truth[1], truth[1]))).all()


def test_one_pixel_cells():
    cells = np.zeros((5, 5), bool)
    cells[::2, ::2] = True
    rand, information = em.v_scores(cells, cells)
    assert rand.f_score == 1
    assert information.f_score == pytest.approx(1)


@pytest.mark.parametrize(
    ("truth", "proposal", "message"),
    [
        (np.full((2, 2), 255), np.ones((2, 2)), r"Slice 0: truth has values from 255 to 255.*mask > 0"),
        (np.ones((2, 2)), np.full((2, 2), 255), "proposal has values from 255 to 255.*Divide"),
        (np.ones((2, 2)), np.full((2, 2), np.nan), "proposal has values from nan"),
        (np.ones((2, 2)), np.full((2, 2), -0.5), "proposal has values from -0.5"),
        (np.ones((2, 2)), np.ones((2, 3)), r"truth has shape \(2, 2\) and proposal \(2, 3\)"),
        (np.ones((1, 2, 2)), np.ones((2, 2, 2)), "truth has 1 slices and proposal 2"),
        ([], [], "at least 1"),
    ],
)
def test_wrong_arguments(truth, proposal, message):
    with pytest.raises(InputError, match=message):
        em.v_scores(truth, proposal)


@pytest.mark.parametrize(
    ("truth", "labels", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 2), int), "truth has data type float64"),
        (np.ones((2, 2), int), np.ones((2, 2), np.float32), "labels has data type float32"),
        (np.ones((2, 2), int), np.ones((2, 3), int), r"truth has shape \(2, 2\) and labels \(2, 3\)"),
        (np.ones((2, 2), int), np.full((2, 2), -3), "labels contains -3"),
    ],
)
def test_wrong_label_images(truth, labels, message):
    with pytest.raises(InputError, match=message):
        em.rand_f_score(truth, labels)


def test_real_membranes_agree_with_the_sequential_watershed():
    folder = DATA / "isbi2012_em" / "masks"
    if not folder.is_dir():
        pytest.skip("the ISBI 2012 masks are not beside the repository")
    from tifffile import imread

    truth = imread(sorted(folder.iterdir())[0]) > 0
    noise = np.random.default_rng(0).normal(0, 0.6, truth.shape)
    proposal = ndimage.gaussian_filter(truth + noise, 1.5).clip(0, 1)
    rand, information = em.v_scores(truth, proposal)
    assert 0.9 < rand.f_score < 1
    cells = proposal > rand.threshold
    sequential = watershed((~cells).astype(np.uint8), ndimage.label(cells)[0], connectivity=1, watershed_line=True)
    truth_labels = ndimage.label(truth)[0]
    assert em.rand_f_score(truth_labels, sequential).f_score == pytest.approx(rand.f_score, abs=1e-3)
    cells = proposal > information.threshold
    sequential = watershed((~cells).astype(np.uint8), ndimage.label(cells)[0], connectivity=1, watershed_line=True)
    assert em.information_f_score(truth_labels, sequential).f_score == pytest.approx(information.f_score, abs=1e-3)

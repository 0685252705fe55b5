"""The challenge's scores against numbers by hand, slow code written from the definitions, and real membranes."""

import math
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
from ubend.scores.warping import count_mismatches

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


def information_by_definition(truth, result):
    """V_Info, I/H(truth), I/H(result) from shares of the truth's foreground; each dam pixel a region of its own."""
    a, b = truth[truth > 0].tolist(), result[truth > 0].tolist()
    b = [-number if label == 0 else label for number, label in enumerate(b, start=1)]

    def entropy(labels):
        shares = [labels.count(label) / len(labels) for label in set(labels)]
        return -sum(share * math.log(share) for share in shares)

    shared = entropy(a) + entropy(b) - entropy(list(zip(a, b, strict=True)))
    return 2 * shared / (entropy(a) + entropy(b)), shared / entropy(a), shared / entropy(b)


def walls(seed):
    """Draw 4×4 cells of 3×3 pixels, parted by walls of one pixel, of which some are missing and none parts nothing."""
    rng = np.random.default_rng(seed)
    cells = np.ones((15, 15), bool)
    cells[3::4] = cells[:, 3::4] = False
    segments = [(view, 4 * k, 4 * wall + 3) for view in (cells, cells.T) for k in range(4) for wall in range(3)]
    for view, start, across in segments:
        view[start : start + 3, across] = rng.random() < 0.3
    for view, start, across in segments:
        labels = ndimage.label(view)[0]
        if labels[start, across - 1] == labels[start, across + 1]:
            view[start : start + 3, across] = True
    return cells


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_scores_are_the_definition_where_walls_are_one_pixel_wide(seed):
    truth, result = walls(seed), walls(seed + 1)
    markers, _ = ndimage.label(result)
    basins = watershed((~result).astype(np.uint8), markers, connectivity=1, watershed_line=True)
    truth_labels, n_cells = ndimage.label(truth)
    rand, information = em.v_scores(truth, result)
    assert values(rand) == pytest.approx(f_score_by_pairs(truth_labels, basins), rel=1e-12)
    if n_cells > 1 and basins.max() > 1:
        assert values(information) == pytest.approx(
            information_by_definition(truth_labels, basins), rel=1e-9, abs=1e-12
        )


def test_pixel_error_by_hand():
    truth = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])
    result = np.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    score = em.pixel_error(truth, result)
    assert (score.precision, score.recall) == (3 / 5, 3 / 4)
    assert score.error == pytest.approx(1 - 2 / 3, rel=1e-12)  # 2 · 3 right of 5 + 4; 3 of 8 pixels are wrong
    assert score.slices == (score.error,)


def test_pixel_error_without_cells():
    nothing, everything = np.zeros((2, 3)), np.ones((2, 3))
    assert em.pixel_error(nothing, nothing).error == 0
    assert em.pixel_error(nothing, everything).error == 1
    assert em.pixel_error(everything, nothing).error == 1
    assert em.pixel_error(everything, everything).error == 0


def test_pixels_of_all_slices_are_counted_together():
    truth = np.array([[[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], [[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]]])
    result = np.array([[[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]])
    score = em.pixel_error(truth, result)
    assert score.error == pytest.approx(1 - 20 / 21)  # not the mean of 0 and 1
    assert score.slices == (0, 1)


@pytest.mark.parametrize("score", [em.pixel_error, em.rand_error, em.warping_error])
def test_errors_have_ten_thresholds(score):
    assert len(em.ERROR_THRESHOLDS) == 10
    truth = np.array([[1, 1, 0, 1, 1]] * 2)
    seen = score(truth, np.array([[1, 1, 0.85, 1, 1]] * 2))
    assert (seen.error, seen.threshold) == (0, 0.8999999999999999)
    assert score(truth, np.array([[1, 1, 0.95, 1, 1]] * 2)).error > 0  # V_Rand would find it at its eleventh


@pytest.mark.parametrize("score", [em.pixel_error, em.rand_error, em.warping_error])
def test_the_first_of_equal_thresholds_is_told(score):
    truth = np.array([[1, 1, 0, 1, 1]] * 2)
    found = score(truth, np.where(truth, 0.8, 0.35))
    assert (found.error, found.threshold, found.slices) == (0, 0.4, (0,))


def test_levels_are_compared_in_float64():
    truth = np.array([[1, 0, 1]] * 2)
    result = np.array([[0.1, 0.05, 0.1]] * 2, np.float32)  # a float32 of 0.1 lies above the level 0.1
    for score in (em.pixel_error, em.rand_error, em.warping_error):
        assert (score(truth, result).error, score(truth, result).threshold) == (0, 0.1)


def test_rand_error_of_all_cells_merged():
    assert em.rand_error(TRUTH > 0, np.ones(TRUTH.shape)).error == pytest.approx(1 - 0.5272727272727273, rel=1e-12)


def test_rand_error_of_an_empty_result():
    score = em.rand_error(np.array([[1, 1, 0, 1, 1]]), np.zeros((1, 5)))
    assert (score.precision, score.recall) == (1, 0.5)
    assert score.error == pytest.approx(1 / 3)


def test_rand_error_does_not_thin():
    truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    wide = np.array([[1, 1, 0, 0, 0, 1, 1]] * 3)
    assert em.v_rand(truth, wide).f_score == 1
    both, in_truth = 2 * 36 + 6, 2 * 81  # two cells of 6 pixels and 6 single pixels, of two cells of 9
    assert em.rand_error(truth, wide).error == pytest.approx(1 - 2 * both / (in_truth + both), rel=1e-12)


@given(hnp.arrays(bool, (2, 5, 6)), hnp.arrays(bool, (2, 5, 6)))
@settings(deadline=None)
def test_rand_error_equals_counting_all_pairs(truth, result):
    score = em.rand_error(truth, result)
    # Labels that no two slices share, in one long image: no pair across slices is together.
    labels = [np.stack([ndimage.label(image)[0] for image in stack]) for stack in (truth, result)]
    for label in labels:
        label[1][label[1] > 0] += 1000
    if not truth.any():
        assert np.isnan([score.error, score.threshold, *score.slices]).all()
        return
    f_score, precision, recall = f_score_by_pairs(*labels)
    assert (score.error, score.precision, score.recall) == pytest.approx(
        (1 - f_score, precision, recall), rel=1e-12, abs=1e-12
    )


def test_slice_without_truth_adds_nothing_to_the_rand_error():
    truth = np.array([[[1, 1, 0, 1]], [[0, 0, 0, 0]]])
    result = np.array([[[1, 1, 1, 1]], [[1, 1, 1, 1]]])
    score, alone = em.rand_error(truth, result), em.rand_error(truth[0], result[0])
    assert (score.error, score.slices[0]) == (alone.error, alone.error)
    assert np.isnan(score.slices[1])


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=4)))
@settings(deadline=None, max_examples=50)
def test_errors_of_the_truth_itself(truth):
    assert em.pixel_error(truth, truth).error == 0
    assert em.warping_error(truth, truth).error == 0
    assert em.rand_error(truth, truth).error == 0 or not truth.any()


def test_warping_error_counts_splits_and_mergers_only():
    truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    holes = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]])
    score = em.warping_error(truth, holes)
    assert (score.mismatches.mergers, score.mismatches.hole_additions, score.mismatches.splits) == (1, 1, 0)
    assert score.error == 1 / 21


def test_warping_error_over_slices_of_several_sizes():
    truths = [np.array([[1, 1, 0, 1, 1]] * 2), np.ones((3, 3), int)]
    score = em.warping_error(truths, [np.ones((2, 5)), np.ones((3, 3))])
    assert score.error == 2 / 19
    assert score.slices == (2 / 10, 0)
    assert score.mismatches.mergers == 2


def test_threshold_of_the_warping_error_is_that_of_all_slices():
    truth = np.array([[[1, 1, 1, 0, 1]] * 2] * 2)
    weak_wall, weak_cell = np.array([[1, 1, 1, 0.25, 1]] * 2), np.array([[1, 0.15, 1, 0, 1]] * 2)
    assert em.warping_error(truth[0], weak_wall).threshold == 0.30000000000000004
    assert em.warping_error(truth[1], weak_cell).threshold == 0
    score = em.warping_error(truth, [weak_wall, weak_cell])
    assert score.threshold == 0.30000000000000004
    assert score.slices == (0, 1 / 10)  # a false wall of one pixel's width costs one, the missing one would cost two


def test_the_threshold_changes_the_order_in_which_a_binary_result_is_warped():
    """At 0 the cell first grows to the right, and then cannot lose its left pixel; at 0.5 it loses that one first."""
    truth, result = np.array([[1, 0, 0], [1, 0, 0]]), np.array([[1, 0, 0], [0, 1, 0]])
    assert count_mismatches(truth > 0, result, 0).splits == 1
    score = em.warping_error(truth, result)
    assert (score.error, score.threshold, score.mismatches.hole_additions) == (0, 0.5, 1)


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
    for score in (em.v_scores, em.pixel_error, em.rand_error, em.warping_error):
        with pytest.raises(InputError, match=message):
            score(truth, proposal)


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

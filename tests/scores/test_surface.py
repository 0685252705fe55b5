"""Distances of outlines and surfaces against numbers worked out by hand and those of the reference program's tests."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ubend.errors import InputError
from ubend.scores.regions import confusion, dice
from ubend.scores.surface import SurfaceDistances, surface_distances

seeds = st.integers(0, 10**6)


def blob(seed, shape):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.random(shape), 1) > 0.5
    mask[(1,) * len(shape)] = True
    return mask


def one_pixel(*place, shape=(100, 100)):
    mask = np.zeros(shape, bool)
    mask[place] = True
    return mask


def test_reference_vector_of_two_pixels():
    truth, labels = one_pixel(50, 70), one_pixel(50, 72)
    found = surface_distances(truth, labels, spacing=(2, 1))
    assert found.average == (1.5, 1.5)
    assert found.hausdorff == found.hausdorff_95 == 2
    assert found.dice(1) == 0.5
    assert dice(confusion(truth, labels, 2))[1] == 0


def test_reference_vector_of_two_half_cubes():
    truth, labels = np.zeros((2, 100, 100, 100), bool)
    truth[:50], labels[:51] = True, True
    found = surface_distances(truth, labels, spacing=(2, 1, 1))
    assert found.average == pytest.approx((0.322, 0.339), abs=5e-4)
    assert found.hausdorff_95 == 2
    assert found.dice(1) == pytest.approx(0.836, abs=5e-4)
    assert dice(confusion(truth, labels, 2))[1] == pytest.approx(0.990, abs=5e-4)


def test_outline_of_one_pixel():
    found = surface_distances(one_pixel(0, 0, shape=(1, 1)), one_pixel(0, 0, shape=(1, 1)), spacing=(3, 4))
    assert found.from_truth.tolist() == [0, 0, 0, 0]
    assert found.truth_sizes.tolist() == [2.5] * 4  # four corners cut off, half of the diagonal each


@pytest.mark.parametrize(
    ("mask", "length"),
    [
        ([[1, 1]], 2 + 4 * math.sqrt(0.5)),
        ([[1], [1]], 2 + 4 * math.sqrt(0.5)),
        ([[1, 1], [1, 1]], 4 + 4 * math.sqrt(0.5)),
        ([[1, 0], [0, 1]], 8 * math.sqrt(0.5)),  # two single pixels
        ([[1, 1], [1, 0]], 2 + 6 * math.sqrt(0.5)),
    ],
)
def test_length_of_outlines(mask, length):
    found = surface_distances(np.array(mask), np.array(mask))
    assert found.truth_sizes.sum() == pytest.approx(length)


@pytest.mark.parametrize(
    ("places", "area"),
    [
        ([(0, 0, 0)], 8 * math.sqrt(3) / 8),  # an octahedron: eight triangles with sides of sqrt(1/2)
        ([(0, 0, 0), (0, 0, 1)], 8 * math.sqrt(3) / 8 + 4 * math.sqrt(0.5)),
        ([(0, 0, 0), (0, 1, 1)], 16 * math.sqrt(3) / 8),
        ([(0, 0, 0), (1, 1, 1)], 16 * math.sqrt(3) / 8),
    ],
)
def test_area_of_surfaces(places, area):
    volume = np.zeros((2, 2, 2), int)
    volume[tuple(np.transpose(places))] = 1
    assert surface_distances(volume, volume).truth_sizes.sum() == pytest.approx(area)


def test_area_of_a_cuboid_with_long_voxels():
    # faces of (n-1) steps, edges bevelled over half a voxel, corners cut off
    found = surface_distances(np.ones((3, 4, 5), bool), np.ones((3, 4, 5), bool), spacing=(3, 2, 1))
    a, b, c = 3.0, 2.0, 1.0
    faces = 2 * (2 * a * 3 * b + 2 * a * 4 * c + 3 * b * 4 * c)
    bevels = 4 * (2 * a * math.hypot(b, c) / 2 + 3 * b * math.hypot(a, c) / 2 + 4 * c * math.hypot(a, b) / 2)
    corners = 8 * math.sqrt((a * b) ** 2 + (b * c) ** 2 + (a * c) ** 2) / 8
    assert found.truth_sizes.sum() == pytest.approx(faces + bevels + corners)


def test_elements_count_by_their_length():
    # A row of eight pixels and one of nine: only the two elements at one end, cut-off corners, are away, by one pixel.
    truth, labels = np.ones((1, 9), bool), np.ones((1, 9), bool)
    truth[0, 8] = False
    found = surface_distances(truth, labels)
    corner = math.sqrt(0.5)
    assert found.from_result.tolist() == [0] * 18 + [1] * 2
    assert found.average[1] == pytest.approx(2 * corner / (16 + 4 * corner))
    assert found.average[0] == 0
    assert found.percentile(92) == 0
    assert found.hausdorff_95 == 1
    assert found.dice(0.5) == pytest.approx(1 - 2 * corner / (30 + 8 * corner))


def test_hausdorff_distance_of_a_far_pixel():
    truth, labels = one_pixel(2, 2, shape=(9, 9)), one_pixel(2, 2, shape=(9, 9))
    labels[6, 5] = True
    assert surface_distances(truth, labels).hausdorff == 5  # from corner to corner: (4, 3)
    assert surface_distances(truth, labels).average[0] == 0
    assert surface_distances(truth, labels, spacing=2).hausdorff == 10


def test_empty_result_or_truth():
    mask, nothing = one_pixel(3, 3, shape=(8, 8)), np.zeros((8, 8), bool)
    missed, invented = surface_distances(mask, nothing), surface_distances(nothing, mask)
    assert missed.from_truth.tolist() == [math.inf] * 4
    assert missed.from_result.tolist() == []
    for found in (missed, invented):
        assert found.hausdorff == found.hausdorff_95 == found.percentile(0) == math.inf
        assert found.dice(1) == 0
    assert missed.average[0] == invented.average[1] == math.inf
    assert math.isnan(missed.average[1])
    assert math.isnan(invented.average[0])


@pytest.mark.parametrize("shape", [(4, 4), (0, 4), (2, 3, 4)])
def test_both_empty_says_nothing(shape):
    found = surface_distances(np.zeros(shape, bool), np.zeros(shape, bool))
    assert np.isnan([found.hausdorff, found.hausdorff_95, found.dice(1), *found.average]).all()


def test_no_background():
    full = np.ones((3, 5), bool)
    found = surface_distances(full, full)
    assert (found.hausdorff, found.average, found.dice(0)) == (0, (0, 0), 1)


@pytest.mark.parametrize("value", [1, 255, 70000])
def test_any_one_value_is_inside(value):
    mask = one_pixel(3, 4, shape=(8, 8))
    found = surface_distances(mask * value, mask)
    assert (found.hausdorff, found.dice(0)) == (0, 1)


@given(seeds, st.sampled_from([(7, 9), (4, 5, 6)]))
def test_swapping_both_and_moving_changes_nothing(seed, shape):
    truth, labels = blob(seed, shape), blob(seed + 1, shape)
    found, back = surface_distances(truth, labels), surface_distances(labels, truth)
    assert found.average == back.average[::-1]
    assert found.hausdorff_95 == back.hausdorff_95
    moved = surface_distances(np.pad(truth, 3), np.pad(labels, 3))
    assert (moved.from_truth == found.from_truth).all()
    assert (moved.result_sizes == found.result_sizes).all()


@given(seeds, st.sampled_from([(7, 9), (4, 5, 6)]))
def test_axes_and_their_spacing_belong_together(seed, shape):
    truth, labels, spacing = blob(seed, shape), blob(seed + 1, shape), (0.5, 2.0, 3.0)[: len(shape)]
    found = surface_distances(truth, labels, spacing)
    turned = surface_distances(truth.T, labels.T, spacing[::-1])
    np.testing.assert_allclose(turned.average, found.average)
    assert turned.hausdorff == found.hausdorff
    np.testing.assert_allclose(turned.truth_sizes.sum(), found.truth_sizes.sum())


@given(seeds)
def test_a_mask_agrees_with_itself_and_the_hausdorff_distance_bounds_all(seed):
    truth, labels = blob(seed, (8, 9)), blob(seed + 1, (8, 9))
    assert surface_distances(truth, truth).dice(0) == 1
    found = surface_distances(truth, labels)
    assert max(found.average) <= found.hausdorff
    assert found.percentile(50) <= found.hausdorff_95 <= found.hausdorff
    assert found.hausdorff == max(found.from_truth.max(), found.from_result.max())
    assert found.dice(found.hausdorff) == 1


def test_several_objects_are_refused():
    with pytest.raises(InputError, match=r"labels contains 1 and 3; surfaces are those of one mask.*labels > 0"):
        surface_distances(np.array([[0, 1]]), np.array([[1, 3]]))
    with pytest.raises(InputError, match="truth contains -1; a mask has no pixels to ignore"):
        surface_distances(np.array([[0, -1]]), np.array([[1, 0]]))


def test_shapes_and_types():
    with pytest.raises(InputError, match=r"truth has shape \(2, 2\) and labels \(3, 2\)"):
        surface_distances(np.zeros((2, 2), int), np.zeros((3, 2), int))
    with pytest.raises(InputError, match=r"truth has shape \(2,\); outlines are of 2 axes"):
        surface_distances(np.zeros(2, int), np.zeros(2, int))
    with pytest.raises(InputError, match="truth has data type float64"):
        surface_distances(np.zeros((2, 2)), np.zeros((2, 2), int))


@pytest.mark.parametrize("spacing", [0, -1, (1, 2, 3), (1, math.nan), (1, math.inf), ()])
def test_spacing_that_is_none(spacing):
    with pytest.raises(InputError, match="allowed is one number above 0, or 2, one for each axis"):
        surface_distances(np.ones((2, 2), bool), np.ones((2, 2), bool), spacing)


def test_shares_and_tolerances_out_of_range():
    zero = np.zeros(1)
    found = SurfaceDistances(zero, zero + 1, zero, zero + 1)
    for percent in (-1, 101, math.nan):
        with pytest.raises(InputError, match="allowed is 0 to 100"):
            found.percentile(percent)
    for tolerance in (-0.1, math.nan):
        with pytest.raises(InputError, match="allowed is 0 or more"):
            found.dice(tolerance)

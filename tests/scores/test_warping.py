"""Warping against images worked out by hand and slow code written from the definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ubend.scores import warping
from ubend.scores.warping import Kind

EIGHT = np.ones((3, 3), bool)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


@st.composite
def truths_and_proposals(draw):
    shape = draw(shapes)
    levels = st.sampled_from([0, 0.25, 0.5, 0.75, 1])  # few, so that many pixels are equally sure
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(np.float32, shape, elements=levels))


def image(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def errors(truth, result):
    """Count what differs after warping, by kind, without the zeros."""
    counts = vars(warping.count_mismatches(truth, result, 0.5))
    return {kind: pixels for kind, pixels in counts.items() if pixels}


def is_simple(patch):
    """By Bertrand and Malandain: one cell component beside the pixel, and one of membrane around it."""
    cells, membrane = patch.copy(), ~patch
    cells[1, 1] = membrane[1, 1] = False
    components, _ = ndimage.label(cells)
    beside = {components[0, 1], components[1, 0], components[1, 2], components[2, 1]} - {0}
    return len(beside) == 1 and ndimage.label(membrane, EIGHT)[1] == 1


def warp_by_passes(truth, proposal, threshold):
    """Pass over all mismatches, the surest first and equals column by column, until a pass changes nothing."""
    warped, target = np.pad(truth, 1), np.pad(proposal > np.float64(threshold), 1)
    while True:
        columns, rows = np.nonzero((warped != target).T)
        pixels = [(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
        pixels.sort(key=lambda p: -np.float32(abs(float(proposal[p[0] - 1, p[1] - 1]) - threshold)))
        for row, column in pixels:
            if is_simple(warped[row - 1 : row + 2, column - 1 : column + 2]):
                warped[row, column] = ~warped[row, column]
        if (warped != target).sum() == len(pixels):
            return warped[1:-1, 1:-1]


def topology(cells):
    around = np.pad(cells, 1)
    return ndimage.label(around)[1], ndimage.label(~around, EIGHT)[1]


def test_simple_points_are_those_of_the_definition():
    for neighbourhood in range(256):
        patch = np.zeros((3, 3), bool)
        for k, (row, column) in enumerate(warping._RING):
            patch[1 + row, 1 + column] = neighbourhood >> k & 1
        assert warping._SIMPLE[neighbourhood] == is_simple(patch)


@given(truths_and_proposals(), st.sampled_from([0, 0.1, 0.5, 0.7]))
@settings(deadline=None)
def test_warping_equals_passes_over_all_mismatches(pair, threshold):
    np.testing.assert_array_equal(warping.warp(*pair, threshold), warp_by_passes(*pair, threshold))


@given(truths_and_proposals(), st.sampled_from([0, 0.1, 0.5, 0.7]))
@settings(deadline=None)
def test_warping_keeps_the_topology(pair, threshold):
    assert topology(warping.warp(*pair, threshold)) == topology(pair[0])


@given(truths_and_proposals())
@settings(deadline=None)
def test_warping_only_moves_towards_the_proposal(pair):
    truth, proposal = pair
    warped, result = warping.warp(truth, proposal, 0.5), proposal > 0.5
    assert (warped == truth)[truth == result].all()


@given(hnp.arrays(bool, shapes))
@settings(deadline=None)
def test_truth_against_itself_is_no_error(truth):
    assert errors(truth, truth) == {}


def test_layout_in_memory_does_not_matter():
    rng = np.random.default_rng(0)
    truth, proposal = rng.random((9, 7)) > 0.4, rng.random((9, 7))
    expected = warping.warp(truth, proposal, 0.5)
    fortran = warping.warp(np.asfortranarray(truth), np.asfortranarray(proposal), 0.5)
    np.testing.assert_array_equal(fortran, expected)
    assert (expected != truth).any()


def test_arguments_stay_as_they_are():
    truth, proposal = image("###", "###"), np.zeros((2, 3))
    warping.count_mismatches(truth, proposal, 0.5)
    assert truth.all()
    assert not proposal.any()


def test_the_surest_pixels_go_first():
    truth = image("###")
    assert warping.warp(truth, np.array([[0.1, 0.2, 0.3]]), 0.5).tolist() == [[False, False, True]]
    assert warping.warp(truth, np.array([[0.3, 0.2, 0.1]]), 0.5).tolist() == [[True, False, False]]


def test_equally_sure_pixels_go_column_by_column():
    warped = warping.warp(image("####", "#.##"), np.zeros((2, 4)), 0.5)
    np.testing.assert_array_equal(warped, image("...#", "...."))


def test_sureness_is_compared_in_float32():
    nearly_equal = np.array([[2e-9, 1e-9]], np.float32)  # both 0.5 below the threshold, as a float32
    assert warping.warp(image("##"), nearly_equal, 0.5).tolist() == [[False, True]]


def test_levels_are_compared_in_float64():
    truth, proposal = image("##.", "##."), np.array([[0.1, 0.1, 0.05]] * 2, np.float32)  # 0.1 as a float32 is above 0.1
    assert set(vars(warping.count_mismatches(truth, proposal, 0.1)).values()) == {0}


def test_a_moved_border_is_no_error():
    truth = image("###.###", "###.###", "###.###")
    assert errors(truth, image("##.####", "##.####", "##.####")) == {}
    assert errors(truth, image("##....#", "##....#", "##....#")) == {}


def test_a_wall_through_a_cell_is_one_split_pixel():
    result = image("###.###", "###.###", "###.###")
    assert errors(np.ones((3, 7), bool), result) == {"splits": 1}


def test_a_hole_in_a_wall_is_one_merger_pixel():
    assert errors(image("###.###", "###.###", "###.###"), image("###.###", "#######", "###.###")) == {"mergers": 1}


def test_a_missing_wall_is_as_many_merger_pixels_as_it_is_long():
    assert errors(image("###.###", "###.###", "###.###"), np.ones((3, 7), bool)) == {"mergers": 3}


def test_a_hole_in_a_cell_is_neither_split_nor_merger():
    solid, hollow = image("#####", "#####", "#####"), image("#####", "##.##", "#####")
    assert errors(solid, hollow) == {"hole_additions": 1}
    assert errors(hollow, solid) == {"hole_deletions": 1}


def test_cells_invented_or_missed_are_neither_split_nor_merger():
    nothing, cell = np.zeros((4, 5), bool), image(".....", ".##..", ".##..", ".....")
    assert errors(nothing, image(".....", "..#..", ".....", ".....")) == {"object_additions": 1}
    assert errors(nothing, cell) == {"object_additions": 4}  # no pixel of it is a simple point, each stands alone
    assert errors(cell, nothing) == {"object_deletions": 1}  # it shrinks to a point first


def test_empty_truth_and_empty_result():
    nothing = np.zeros((4, 5), bool)
    assert errors(nothing, nothing) == {}
    assert errors(nothing, np.ones((4, 5), bool)) == {"object_additions": 20}
    assert errors(np.ones((4, 5), bool), nothing) == {"object_deletions": 1}


def test_cells_that_touch_by_a_corner_are_two():
    """4-connected cells: filling the corner merges them, although 8-connected they are one already."""
    assert errors(image("#..", ".#.", "..."), image("##.", ".#.", "...")) == {"mergers": 1}


def test_a_corner_beside_a_wall_counts_as_its_own_cell():
    """The pixel between two cells that touch by a corner is a split, whichever of them it belongs to."""
    kinds = warping.classify(image("##.", "..#", "..#"), image("#..", "..#", "..#"))
    assert kinds[0, 1] == Kind.SPLIT


@pytest.mark.parametrize(("side", "kind"), [(21, Kind.HOLE_DELETION), (22, Kind.SPLIT)])
def test_a_ring_is_followed_for_20_pixels(side, kind):
    ring = np.zeros((side + 20, side + 20), bool)
    ring[10 : 10 + side, 10 : 10 + side] = True
    ring[11 : 9 + side, 11 : 9 + side] = False
    cut = ring.copy()
    cut[10, 10 + side // 2] = False
    kinds = warping.classify(ring, cut)
    assert kinds[10, 10 + side // 2] == kind
    assert np.count_nonzero(kinds) == 1


def test_an_image_smaller_than_the_radius_is_looked_at_whole():
    ring = np.ones((5, 60), bool)
    ring[1:-1, 1:-1] = False
    cut = ring.copy()
    cut[0, 30] = False
    assert warping.classify(ring, cut)[0, 30] == Kind.HOLE_DELETION


def kind_by_definition(warped, row, column):
    """What lies around the pixel, in components of the whole image, which is smaller than the radius."""
    components, _ = ndimage.label(warped)
    near = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
    others = np.ones(warped.shape, bool)
    others[row, column] = False
    around = set(components[near][others[near]].tolist())
    if around <= {0}:
        return Kind.OBJECT_DELETION if warped[row, column] else Kind.OBJECT_ADDITION
    if len(around) == 1:
        return Kind.HOLE_ADDITION if warped[row, column] else Kind.HOLE_DELETION
    if len(around) > 2:
        return Kind.SPLIT if warped[row, column] else Kind.MERGER
    if not warped[row, column]:
        return Kind.HOLE_ADDITION
    without, _ = ndimage.label(warped & others)
    return Kind.SPLIT if len(set(without[near][others[near]].tolist()) - {0}) > 1 else Kind.HOLE_DELETION


@given(truths_and_proposals())
@settings(deadline=None)
def test_kinds_are_those_of_the_definition(pair):
    warped, result = pair[0], pair[1] > 0.5
    kinds = warping.classify(warped, result)
    np.testing.assert_array_equal(kinds > 0, warped != result)
    for row, column in np.argwhere(kinds).tolist():
        assert kinds[row, column] == kind_by_definition(warped, row, column)

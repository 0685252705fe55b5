"""Outlines along the edges of pixels: by hand, and filled again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.measure import label as connected_pieces

from ubend.errors import InputError
from ubend.method import outlines
from ubend.method.outlines import fill, trace_outlines

SMALL_LABELS = arrays.arrays(
    np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 3)
)


def rings(labels):
    return {one.id: [[ring.tolist() for ring in piece] for piece in one.pieces] for one in trace_outlines(labels)}


def filled(found, shape):
    """The label image of outlines; no pixel may be in two pieces."""
    labels = np.zeros(shape, int)
    for outline in found:
        for piece in outline.pieces:
            rows, columns, inside = fill(piece, shape)
            assert (labels[rows, columns][inside] == 0).all()
            labels[rows, columns][inside] = outline.id
    return labels


def test_one_pixel():
    assert rings(np.array([[0, 0], [0, 9]])) == {9: [[[[1, 1], [1, 2], [2, 2], [2, 1]]]]}


def test_straight_edges_have_no_corner_between():
    assert rings(np.ones((3, 5), int)) == {1: [[[[0, 0], [0, 5], [3, 5], [3, 0]]]]}


def test_touching_objects_share_their_edge():
    assert rings(np.array([[1, 2]])) == {
        1: [[[[0, 0], [0, 1], [1, 1], [1, 0]]]],
        2: [[[[0, 1], [0, 2], [1, 2], [1, 1]]]],
    }


def test_a_hole_is_an_inner_ring_the_other_way_round():
    labels = np.ones((3, 3), int)
    labels[1, 1] = 0
    [[outer, hole]] = rings(labels)[1]
    assert outer == [[0, 0], [0, 3], [3, 3], [3, 0]]
    assert sorted(hole) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert hole[hole.index([1, 1]) - 3] == [2, 1]  # down first


def test_pixels_that_meet_at_a_corner_are_two_pieces():
    [outline] = trace_outlines(np.array([[1, 0], [0, 1]]))
    assert [len(piece) for piece in outline.pieces] == [1, 1]
    assert not outline.is_simple


def test_a_hole_that_is_closed_at_a_corner_is_a_hole():
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    [outline] = trace_outlines(labels)
    [[outer, hole]] = outline.pieces
    assert len(hole) == 4
    assert [2, 2] in outer.tolist()


def test_an_object_in_another_one():
    labels = np.full((5, 5), 3)
    labels[1:4, 1:4] = 0
    labels[2, 2] = 1
    found = trace_outlines(labels)
    assert [(one.id, [len(piece) for piece in one.pieces]) for one in found] == [(1, [1]), (3, [2])]


@given(SMALL_LABELS, st.sampled_from([6, 2**22]))
def test_filled_again_it_is_the_label_image(labels, pixels_at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines, "_PIXELS_AT_ONCE", pixels_at_once)
        found = trace_outlines(labels)
    assert [one.id for one in found] == np.unique(labels[labels > 0]).tolist()
    assert (filled(found, labels.shape) == np.maximum(labels, 0)).all()


@given(SMALL_LABELS)
def test_rings_are_simple_and_there_is_one_outer_ring_a_piece(labels):
    found = trace_outlines(labels)
    pieces = connected_pieces(np.maximum(labels, 0), background=0, connectivity=1)
    assert sum(len(one.pieces) for one in found) == pieces.max()
    for ring in (ring for one in found for piece in one.pieces for ring in piece):
        assert len({tuple(corner) for corner in ring.tolist()}) == len(ring)
        steps = np.diff(ring, axis=0, append=ring[:1])
        assert ((steps == 0).sum(axis=1) == 1).all()  # along rows and columns, in turns
        assert (steps[:, 0] != 0).tolist() in ([True, False] * (len(ring) // 2), [False, True] * (len(ring) // 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.uint64])
def test_labels_of_any_type_and_size(dtype):
    highest = int(np.iinfo(dtype).max)
    assert [one.id for one in trace_outlines(np.array([[highest, 0, 1]], dtype))] == [1, highest]


def test_nothing_to_trace():
    assert trace_outlines(np.zeros((4, 4), int)) == []
    assert trace_outlines(np.zeros((0, 4), int)) == []
    with pytest.raises(InputError, match="traced in a label image"):
        trace_outlines(np.zeros((4, 4)))


def test_a_pixel_is_inside_if_its_middle_is():
    rows, columns, inside = fill([[(0.4, 0.4), (0.4, 2.6), (2.6, 2.6), (2.6, 0.4)]], (9, 9))
    assert (rows, columns, inside.tolist()) == (slice(0, 3), slice(0, 3), [[True] * 3] * 3)
    rows, columns, inside = fill([[(0.6, 0.6), (0.6, 2.4), (2.4, 2.4), (2.4, 0.6)]], (9, 9))
    assert inside.tolist() == [[True]]
    assert (rows.start, columns.start) == (1, 1)


def test_a_triangle():
    _, _, inside = fill([[(0, 0), (0, 4), (4, 0)]], (4, 4))
    assert inside.astype(int).tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]


def test_polygons_that_share_an_edge_share_no_pixel():
    """The edge goes through the middles of pixels, which belong to the polygon on its left."""
    left, right = [(0, 0), (0, 1.5), (3, 1.5), (3, 0)], [(0, 1.5), (0, 3), (3, 3), (3, 1.5)]
    painted = np.zeros((3, 3), int)
    for number, ring in ((1, left), (2, right)):
        rows, columns, inside = fill([ring], (3, 3))
        painted[rows, columns] += number * inside
    assert painted.tolist() == [[1, 1, 2]] * 3


@pytest.mark.parametrize("ring", [[(-5, -5), (-5, 9), (9, 9), (9, -5)], [(5, 5), (5, 9), (9, 9), (9, 5)], []])
def test_what_lies_outside_the_image_is_cut_off(ring):
    rows, columns, inside = fill([ring], (3, 4))
    assert inside.shape == (rows.stop - rows.start, columns.stop - columns.start)
    assert inside.sum() == (12 if ring and ring[0] == (-5, -5) else 0)

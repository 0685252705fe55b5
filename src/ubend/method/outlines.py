"""From objects to outlines along the edges of their pixels, and back.

Pixel (r, c) is the square from corner (r, c) to corner (r + 1, c + 1). An outline turns only at corners of pixels, so
the polygon filled again is the object, pixel for pixel. Rings are simple: none crosses or touches itself, as other
programs ask of polygons (OGC 06-103r4, Simple Features, 6.1.11).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label as connected_pieces

from ubend.errors import InputError

__all__ = ["Outline", "Piece", "Ring", "fill", "trace_outlines"]

_PIXELS_AT_ONCE = 2**22
_ROUNDING = 1e-8  # pixels; as in ImageJ

Ring = NDArray[np.int32]
"""Corners (row, column) of a closed polygon, shape (corners, 2); the last joins the first."""
Piece = tuple[Ring, ...]
"""What hangs together along edges of pixels: the outer ring, then its holes."""


@dataclass(frozen=True)
class Outline:
    """The outline of one object.

    Attributes
    ----------
    id : int
        The label.
    pieces : tuple of tuple of ndarray of int32, shape (corners, 2)
        For each piece of the object its outer ring, then the rings of its holes, as (row, column) of corners. Outer
        rings go clockwise on the screen, holes the other way.
    """

    id: int
    pieces: tuple[Piece, ...]

    @property
    def is_simple(self) -> bool:
        """Whether one ring is all: one piece, no hole."""
        return len(self.pieces) == 1 and len(self.pieces[0]) == 1


def trace_outlines(labels: NDArray[Any]) -> list[Outline]:
    """Trace every object of a label image along the edges of its pixels.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        Objects by number; 0 and negative values are no objects.

    Returns
    -------
    list of Outline
        In the order of the numbers. Pixels that meet only at a corner are two pieces.

    Raises
    ------
    InputError
        If `labels` is no label image.

    Examples
    --------
    >>> [outline] = trace_outlines(np.array([[0, 5, 5], [0, 0, 5]]))
    >>> outline.id, outline.pieces[0][0].tolist()
    (5, [[0, 1], [0, 3], [2, 3], [2, 2], [1, 2], [1, 1]])
    """
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError("Objects are traced in a label image: an array of integers with the axes (rows, columns).")
    pieces: dict[int, list[Piece]] = {}
    for first, part in _parts(labels):
        for number, piece in _pieces(part):
            pieces.setdefault(number, []).append(tuple(ring + np.array([first, 0], np.int32) for ring in piece))
    return [Outline(number, tuple(pieces[number])) for number in sorted(pieces)]


def fill(rings: Sequence[ArrayLike], shape: tuple[int, int]) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Find the pixels whose middle lies inside rings, by the even-odd rule: a ring in a ring is a hole.

    A middle that lies on a ring counts as inside where the inside is to its left or below, as in ImageJ, so that
    polygons which share an edge share no pixel.

    Parameters
    ----------
    rings : sequence of array of float, shape (corners, 2)
        Closed polygons of corners (row, column), in fractions of pixels.
    shape : (int, int)
        Rows and columns of the image; what lies outside is cut off.

    Returns
    -------
    rows, columns : slice
        The box around what is inside.
    inside : ndarray of bool, shape of the box

    Examples
    --------
    >>> rows, columns, inside = fill([[[0, 0], [0, 3], [2, 3], [2, 1.6], [1, 1.6], [1, 0]]], (4, 4))
    >>> rows, columns, inside.astype(int).tolist()
    (slice(0, 2, None), slice(0, 3, None), [[1, 1, 1], [0, 0, 1]])
    """
    corners = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings]
    start = np.concatenate([np.zeros((0, 2)), *corners]) - 0.5  # the middle of pixel (r, c) becomes (r, c)
    end = np.concatenate([np.zeros((0, 2)), *(np.roll(ring, -1, axis=0) for ring in corners)]) - 0.5
    rows, columns = (
        (
            slice(int(np.clip(np.ceil(low), 0, limit)), int(np.clip(np.floor(high) + 1, 0, limit)))
            for low, high, limit in zip(start.min(0, initial=np.inf), start.max(0, initial=-np.inf), shape, strict=True)
        )
        if len(start)
        else (slice(0, 0), slice(0, 0))
    )
    height, width = max(0, rows.stop - rows.start), max(0, columns.stop - columns.start)
    crossings = np.zeros((height, width + 1), dtype=np.int64)
    row, column = _crossings(start, end, rows)
    place = np.clip(np.floor(column + _ROUNDING) + 1 - columns.start, 0, width).astype(np.int64)
    np.add.at(crossings, (row - rows.start, place), 1)
    return rows, columns, np.cumsum(crossings, axis=1)[:, :width] % 2 == 1


def _crossings(
    start: NDArray[np.float64], end: NDArray[np.float64], rows: slice
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find where edges cross the middle lines of rows: upper end included, lower end not."""
    upper, lower = np.where((start[:, :1] <= end[:, :1]), start, end), np.where(start[:, :1] <= end[:, :1], end, start)
    first = np.clip(np.ceil(upper[:, 0]), rows.start, rows.stop).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 0]), rows.start, rows.stop).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (r0, c0), (r1, c1) = upper[edge].T, lower[edge].T
    return row, c0 + (row - r0) / (r1 - r0) * (c1 - c0)


def _parts(labels: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Give the first row and the rows of parts of the image, each with the objects that begin in its band, whole."""
    height = max(1, _PIXELS_AT_ONCE // max(1, labels.shape[1]))
    bands = range(0, labels.shape[0], height)
    known = [_present(labels[first : first + height]) for first in bands]
    begun = np.zeros(0, dtype=labels.dtype)
    for k, first in enumerate(bands):
        members = np.setdiff1d(known[k], begun, assume_unique=True)
        begun = np.union1d(begun, members)
        last = max((j for j in range(k, len(known)) if np.isin(members, known[j]).any()), default=k)
        part = labels[first : first + (last + 1 - k) * height]
        if len(bands) > 1:
            belongs = np.isin(part, members)
            end = int(np.flatnonzero(belongs.any(axis=1)).max(initial=-1)) + 1
            part = np.where(belongs[:end], part[:end], 0)
        if part.size:
            yield first, part


def _present(band: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers of the objects in a band."""
    starts = band[:, 1:][band[:, 1:] != band[:, :-1]]  # of runs: far fewer than pixels
    found = np.unique(np.concatenate([band[:, 0], starts]))
    return found[found > 0]


def _pieces(labels: NDArray[Any]) -> Iterator[tuple[int, Piece]]:
    """Give the number and the rings of each connected piece."""
    connected = connected_pieces(np.maximum(labels, 0), background=0, connectivity=1)
    corners, following, piece_of = _corners(connected)
    if not len(corners):
        return
    numbers = np.zeros(int(connected.max()) + 1, dtype=labels.dtype)
    numbers[connected.ravel()] = labels.ravel()
    order, bounds = _rings(following)
    corners, piece = corners[order], piece_of[order[bounds[:-1]]]
    is_hole = _signed_areas(corners, bounds) < 0
    rings = [corners[begin:end] for begin, end in itertools.pairwise(bounds.tolist())]
    by_piece = np.lexsort((is_hole, piece))
    for number, group in itertools.groupby(by_piece.tolist(), key=piece.__getitem__):
        yield int(numbers[number]), tuple(rings[k] for k in group)


_FORWARD = ((0, 1), (1, 0), (0, -1), (-1, 0))  # a step to the right, down, left, up
_BEYOND = ((-1, 0), (0, 1), (1, 0), (0, -1))  # what such a step has on its left hand; on its right is its pixel
_START = ((0, 0), (0, 1), (1, 1), (1, 0))  # the corner of that pixel at which it starts


def _corners(pieces: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[Any]]:
    """Find where outlines turn: the corners, the place of the one after each, and its piece.

    An outline is made of steps along an edge of a pixel, with another piece beyond. Where a step ends it turns left if
    the pixel ahead on the left belongs to the piece, else goes on if the one on the right does, else turns right. If
    only the left one does, the piece meets itself at this corner: so a hole that is closed there is a hole.
    """
    padded = np.pad(pieces, 1)
    index = np.empty((4, padded.size), dtype=np.int32)
    places, ends, count = [], [], 0
    for direction in range(4):
        ahead, beyond = (down * padded.shape[1] + across for down, across in (_FORWARD[direction], _BEYOND[direction]))
        place = _steps(padded, direction, beyond)
        piece = padded.ravel()[place]
        behind = place - ahead
        goes_on = (padded.ravel()[behind] == piece) & (padded.ravel()[behind + beyond] != piece)
        turns = np.flatnonzero(~goes_on)
        ends.append(place[np.append(turns[1:], len(place))[: len(turns)] - 1])
        places.append(place[turns])
        index[direction, place[turns]] = np.arange(count, count + len(turns))
        count += len(turns)
    following = [_after(padded, index, direction, end) for direction, end in enumerate(ends)]
    row_column = [
        np.stack(np.unravel_index(place, padded.shape), axis=1) + np.array(start) - 1
        for place, start in zip(places, _START, strict=True)
    ]
    return (
        np.concatenate(row_column).astype(np.int32),
        np.concatenate(following),
        padded.ravel()[np.concatenate(places)],
    )


def _steps(padded: NDArray[Any], direction: int, beyond: int) -> NDArray[np.intp]:
    """List the pixels of all steps in one direction, in the order in which straight runs of them go."""
    rows, columns = padded.shape
    inner = padded[1:-1, 1:-1]
    down, across = _BEYOND[direction]
    is_step = (inner > 0) & (inner != padded[1 + down : rows - 1 + down, 1 + across : columns - 1 + across])
    if direction % 2:
        column, row = np.nonzero(is_step.T)
    else:
        row, column = np.nonzero(is_step)
    place: NDArray[np.intp] = (row + 1) * columns + column + 1
    return place[::-1] if direction >= 2 else place


def _after(padded: NDArray[Any], index: NDArray[np.int32], direction: int, end: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the place of the corner that comes after the last step of each run."""
    ahead, beyond = (down * padded.shape[1] + across for down, across in (_FORWARD[direction], _BEYOND[direction]))
    on_the_left = end + ahead + beyond
    turns_left = padded.ravel()[on_the_left] == padded.ravel()[end]
    to_left, to_right = (direction - 1) % 4, (direction + 1) % 4
    after: NDArray[np.int64] = np.where(
        turns_left, index[to_left, np.where(turns_left, on_the_left, 0)], index[to_right, np.where(turns_left, 0, end)]
    )
    return after


def _rings(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Follow each ring once round: corners in the order of the rings, and where the rings begin and end."""
    after = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    bounds = [0]
    for first in range(len(after)):
        if seen[first]:
            continue
        corner = first
        while not seen[corner]:
            seen[corner] = 1
            order.append(corner)
            corner = after[corner]
        bounds.append(len(order))
    return np.array(order, dtype=np.int64), np.array(bounds, dtype=np.int64)


def _signed_areas(corners: NDArray[np.int32], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return twice the area of each ring, positive where it goes clockwise on the screen."""
    row, column = corners.T.astype(np.int64)
    after = np.arange(1, len(corners) + 1)
    after[bounds[1:] - 1] = bounds[:-1]
    areas: NDArray[np.int64] = np.add.reduceat(column * row[after] - column[after] * row, bounds[:-1])
    return areas

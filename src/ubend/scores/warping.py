"""Bend the truth onto a result without changing its topology (Jain et al. 2010, doi:10.1109/CVPR.2010.5539950).

The ground of the challenge's warping error. Borders move freely, one simple point after the other; what then still
differs is a split, a merger, a hole or an object too many or too few. Cells are 4-connected, membranes 8-connected.

Where other programs go wrong, and what is done here:

- The order of the flips decides where the last pixels of an error lie, and so how many they are: the surest pixels of
  the proposal first, equals column by column; then again from the start, until nothing moves.
- Beyond the border there is membrane: what touches the border is no hole.
- Each remaining pixel is judged alone, with all others as they are. A missing wall of 15 pixels is 15 pixels; a wall
  too many may be one, since the truth gives way to all of it but the pixel that closes it.
- Whether a pixel's loss splits its cell is decided within 20 pixels around it, as in the organisers' call. A cell that
  holds together only on a longer way around counts as split.
"""

from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["RADIUS", "Kind", "Mismatches", "classify", "count_mismatches", "warp"]

RADIUS = 20
"""So many pixels around a pixel are looked at to see whether its loss splits the cell."""

_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The 8 neighbours in turn, as (rows, columns); those with even indices are the 4 neighbours."""


class Kind(IntEnum):
    """What a pixel would do to the warped truth if it were flipped to what the result has there."""

    AGREES = 0
    SPLIT = 1
    MERGER = 2
    HOLE_ADDITION = 3
    HOLE_DELETION = 4
    OBJECT_ADDITION = 5
    OBJECT_DELETION = 6


# By what lies around: membrane only, one cell only, membrane and one cell, more than that.
_KINDS_OF_MEMBRANE = np.array([Kind.OBJECT_ADDITION, Kind.HOLE_DELETION, Kind.HOLE_ADDITION, Kind.MERGER], np.uint8)
_KINDS_OF_CELL = np.array([Kind.OBJECT_DELETION, Kind.HOLE_ADDITION, Kind.HOLE_DELETION, Kind.SPLIT], np.uint8)


@dataclass(frozen=True)
class Mismatches:
    """Pixels that still differ after warping, by kind.

    Attributes
    ----------
    splits, mergers : int
        Pixels of walls that the result has inside a cell, and of walls that it lacks.
    hole_additions, hole_deletions : int
        Pixels of membrane that the result has, or lacks, inside a cell or at its rim, without parting it.
    object_additions, object_deletions : int
        Pixels of cells that the result invents, or misses, in the midst of membrane.
    """

    splits: int
    mergers: int
    hole_additions: int
    hole_deletions: int
    object_additions: int
    object_deletions: int


def count_mismatches(truth: NDArray[np.bool_], proposal: NDArray[Any], threshold: float) -> Mismatches:
    """Warp the truth to a thresholded proposal and count the pixels that still differ.

    Parameters
    ----------
    truth : ndarray of bool, shape (rows, columns)
        True inside a cell.
    proposal : ndarray of float or bool, same shape
        Probability of the inside of a cell.
    threshold : float
        The proposal's cells are the pixels above it.

    Returns
    -------
    Mismatches

    Examples
    --------
    A wall of one pixel's width through a cell splits it; a border elsewhere is no error:

    >>> truth = np.ones((3, 7), dtype=bool)
    >>> count_mismatches(truth, np.array([[1, 1, 1, 0, 1, 1, 1]] * 3), 0.5).splits
    1
    >>> count_mismatches(truth, np.array([[0, 0, 1, 1, 1, 1, 0]] * 3), 0.5).splits
    0
    """
    warped = warp(truth, proposal, threshold)
    kinds = classify(warped, proposal > np.float64(threshold))
    return Mismatches(*np.bincount(kinds.ravel(), minlength=len(Kind))[1:].tolist())


def warp(truth: NDArray[np.bool_], proposal: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Bring the truth as near to a thresholded proposal as flips of simple points can.

    Parameters
    ----------
    truth : ndarray of bool, shape (rows, columns)
        True inside a cell.
    proposal : ndarray of float or bool, same shape
        Probability of the inside of a cell.
    threshold : float
        The proposal's cells are the pixels above it.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        Has as many 4-connected cells, and 8-connected pieces of membrane with that around the image, as the truth.

    Notes
    -----
    The organisers pass over all mismatches in the order of their distance from the threshold, flip those that are
    simple points at that moment, and start again until a pass has flipped nothing. A pixel that was not simple can
    become so only by a flip beside it. So it suffices to visit the neighbours of flips: in the same pass if their turn
    is still to come, otherwise in the next. The flips are the same, in the same order, however many passes they take.

    References
    ----------
    Bertrand and Malandain 1994, "A new characterization of three-dimensional simple points",
    doi:10.1016/0167-8655(94)90046-9.

    Examples
    --------
    A cell moves to where the proposal has it, but does not fall apart:

    >>> warp(np.array([[1, 1, 1, 0, 0, 0]], dtype=bool), np.array([[0, 0, 1, 1, 0, 1]]), 0.5).astype(int).tolist()
    [[0, 0, 1, 1, 0, 0]]
    """
    warped = np.zeros((truth.shape[0] + 2, truth.shape[1] + 2), np.bool_)
    warped[1:-1, 1:-1] = truth
    flat = warped.reshape(-1)
    step = warped.shape[1]
    offsets = [row * step + column for row, column in _RING]
    pixels = _in_order(truth, proposal, threshold, step)
    order: list[int] = pixels.tolist()
    around = np.zeros(flat.shape, np.uint8)
    around[pixels] = sum(flat[pixels + offset].astype(np.uint8) << k for k, offset in enumerate(offsets))
    turns = np.full(flat.shape, -1)
    turns[pixels] = np.arange(len(order))
    # From here on one pixel at a time, for which bytearray and list are the fastest.
    turn, neighbourhood = turns.tolist(), bytearray(around.tobytes())
    me_as_neighbour = [(offset, 1 << (k + 4) % 8) for k, offset in enumerate(offsets)]
    waiting = np.flatnonzero(_SIMPLE[around[pixels]]).tolist()
    simple = _SIMPLE.tolist()
    while waiting:
        next_pass = set()
        while waiting:
            now = heappop(waiting)
            pixel = order[now]
            if turn[pixel] < 0 or not simple[neighbourhood[pixel]]:
                continue
            turn[pixel] = -1
            for offset, me in me_as_neighbour:
                its_turn = turn[pixel + offset]
                if its_turn < 0:
                    continue
                neighbourhood[pixel + offset] ^= me
                if simple[neighbourhood[pixel + offset]]:
                    if its_turn > now:
                        heappush(waiting, its_turn)
                    else:
                        next_pass.add(its_turn)
        waiting = sorted(next_pass)
    flipped = pixels[np.array(turn)[pixels] < 0]
    flat[flipped] = ~flat[flipped]
    return warped[1:-1, 1:-1]


def _in_order(truth: NDArray[np.bool_], proposal: NDArray[Any], threshold: float, step: int) -> NDArray[np.intp]:
    """Sort the mismatches, as flat indices of the image padded by 1, by their distance from the threshold."""
    different = truth != (proposal > np.float64(threshold))
    columns, rows = np.nonzero(different.T)
    sureness = np.abs(proposal[rows, columns].astype(np.float64) - threshold)
    order = np.argsort(-sureness.astype(np.float32), kind="stable")  # float32, as theirs: more of them are equal
    return ((rows + 1) * step + columns + 1)[order]


def classify(warped: NDArray[np.bool_], result: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Say of each pixel that still differs what kind of error it is.

    Parameters
    ----------
    warped : ndarray of bool, shape (rows, columns)
        The truth, warped to the result.
    result : ndarray of bool, same shape
        True inside a cell.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        Values of `Kind`; 0 where both agree.

    Examples
    --------
    A wall with a gap merges two cells. A pixel inside a cell is a hole, not a split:

    >>> wall = np.array([[1, 0, 1, 1, 1], [1, 0, 1, 1, 1], [1, 0, 1, 1, 1]], dtype=bool)
    >>> result = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 0, 1], [1, 0, 1, 1, 1]], dtype=bool)
    >>> classify(wall, result).tolist()
    [[0, 0, 0, 0, 0], [0, 2, 0, 3, 0], [0, 0, 0, 0, 0]]
    """
    rows, columns = np.nonzero(warped != result)
    components, _ = ndimage.label(warped)
    surrounded = np.pad(components, 1, constant_values=-1)  # -1: nothing there, neither cell nor membrane
    ring = np.sort([surrounded[rows + 1 + row, columns + 1 + column] for row, column in _RING], axis=0)
    different = (np.diff(ring, axis=0) > 0).sum(axis=0) + (ring[0] >= 0)
    setting = np.where(ring[-1] <= 0, 0, np.minimum(different, 3))
    is_cell = warped[rows, columns]
    kinds = np.where(is_cell, _KINDS_OF_CELL[setting], _KINDS_OF_MEMBRANE[setting])
    radius = RADIUS if min(warped.shape) >= RADIUS else max(warped.shape)
    padded = np.pad(warped, radius)
    for index in np.flatnonzero(is_cell & (setting == 2)):
        row, column = rows[index], columns[index]
        if _parts(padded[row : row + 2 * radius + 1, column : column + 2 * radius + 1].copy()):
            kinds[index] = Kind.SPLIT
    image = np.zeros(warped.shape, np.uint8)
    image[rows, columns] = kinds
    return image


def _parts(window: NDArray[np.bool_]) -> bool:
    """Whether the cells around the middle of the window hang together no more without it; changes the window."""
    middle = window.shape[0] // 2
    window[middle, middle] = False
    components, _ = ndimage.label(window)
    around = components[middle - 1 : middle + 2, middle - 1 : middle + 2]
    return len(set(around[around > 0].tolist())) > 1


def _is_simple(neighbourhood: int) -> bool:
    """Whether the 4 neighbours in the cell, those whose corner is in it as well taken as one, are a single group."""
    inside = [neighbourhood >> k % 8 & 1 for k in range(9)]
    groups = [inside[k] - inside[k] * inside[k + 1] * inside[k + 2] for k in (0, 2, 4, 6)]
    return sum(groups) == 1


_SIMPLE = np.array([_is_simple(neighbourhood) for neighbourhood in range(256)])
"""By the bits of `_RING` that lie in a cell."""

"""The distances d1 and d2 of U-Net's border weights (Ronneberger et al. 2015, Section 3, Eq. 2).

For each pixel, the exact Euclidean distance to the nearest and to the second nearest cell, at a cost that does not
depend on how many cells there are. The squared distance is a sum over the axes, so it is found one axis at a time:

1. along the columns, each pixel learns the two nearest *different* labels of its own column, in a scan down and one up;
2. along the rows, each pixel tries the columns beside it, the most promising first, and stops when a lower bound says
   that no column left can hold anything nearer.

The second step works on small tiles that stay in the processor's cache, in 16-bit integers up to 127 px; only tiles
that look farther are searched again in 32 bits. All arithmetic is in integers, hence exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter1d

from ubend.errors import InputError

_NEAR = 127  # px: the farthest distance whose square, and that of one pixel more, fits 16 bits with a sign
_LONGEST_SIDE = 32_766  # px: the largest side for which a squared diagonal still fits 32 bits with a sign
_TILE_ROWS, _TILE_COLUMNS = (
    64,
    256,
)  # 32 KiB in 16 bits: measured fastest; larger tiles stop later, smaller ones call more
_STEPS_PER_CHECK = 4  # looking for the largest distance left costs about as much as one step


@overload
def two_nearest_cells(
    labels: NDArray[Any], *, within: float = ..., return_labels: Literal[False] = ...
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


@overload
def two_nearest_cells(
    labels: NDArray[Any], *, within: float = ..., return_labels: Literal[True]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[Any]]: ...


def two_nearest_cells(
    labels: NDArray[Any], *, within: float = math.inf, return_labels: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | tuple[NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
    """Measure the distance from each pixel to the nearest and to the second nearest cell.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        Cells by number. 0 (background) and negative values (unlabelled) are no cells. A cell need not be connected.
    within : float
        Distances above this many pixels are not wanted and come back as infinity, which saves time on sparse images.
    return_labels : bool
        Whether to return the label of the nearest cell as well.

    Returns
    -------
    d1 : ndarray of float32, shape (rows, columns)
        Distance in pixels, between pixel centres, to the nearest pixel of the nearest cell: 0 inside a cell, infinity
        where there is none.
    d2 : ndarray of float32, shape (rows, columns)
        The same for the nearest cell with another label than that of `d1`.
    nearest_label : ndarray, shape and dtype of `labels`
        Label of the nearest cell, the smaller one of two equally near; 0 where `d1` is infinite. Only with
        `return_labels`.

    Raises
    ------
    InputError
        If `labels` is not a two-dimensional array of integers, is empty or has a side above 32,766 px, or if `within`
        is not a positive number.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox: U-Net. MICCAI 2015, Section 3, Eq. 2, doi:10.1007/978-3-319-24574-4_28

    Examples
    --------
    The pixel of column 2 lies 1 px beside cell 7 and 2 px beside cell 9:

    >>> import numpy as np
    >>> d1, d2, nearest = two_nearest_cells(np.array([[0, 7, 0, 0, 9]]), return_labels=True)
    >>> d1.tolist()
    [[1.0, 0.0, 1.0, 1.0, 0.0]]
    >>> d2.tolist()
    [[4.0, 3.0, 2.0, 2.0, 3.0]]
    >>> nearest.tolist()
    [[7, 7, 7, 9, 9]]
    """
    check_labels(labels)
    if not within > 0:
        raise InputError(f"within is {within}; allowed is a distance above 0 px, or math.inf for all distances.")
    ids, names = _number_cells(labels)
    found = _Found.nothing(labels.shape)
    diagonal = math.ceil(math.hypot(*labels.shape))
    reach = diagonal if within >= diagonal else math.ceil(within)
    if len(names) > 1:  # there is a cell
        left = _search(ids, _Integers.up_to(min(reach, _NEAR), len(names)), _tiles(*labels.shape), found)
        if left and reach > _NEAR:
            _search(ids, _Integers.up_to(reach, len(names)), left, found)
    for distance in (found.d1, found.d2):
        distance[distance > within] = np.inf
    if not return_labels:
        return found.d1, found.d2
    nearest_id = np.where(np.isfinite(found.d1), found.nearest_id, 0)
    return found.d1, found.d2, names[nearest_id].astype(labels.dtype)


def check_labels(labels: NDArray[Any]) -> None:
    """Refuse what is no label image.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        What a caller passed as labels.

    Raises
    ------
    InputError
        If `labels` is not a two-dimensional array of integers, is empty, or has a side above 32,766 px.

    Examples
    --------
    >>> import numpy as np
    >>> check_labels(np.zeros((2, 3), dtype=np.uint8))
    """
    if not (isinstance(labels, np.ndarray) and np.issubdtype(labels.dtype, np.integer)):
        came = f"an array of {labels.dtype}" if isinstance(labels, np.ndarray) else f"a {type(labels).__name__}"
        raise InputError(
            f"labels is {came}; cells are told apart by whole numbers in a NumPy array. "
            "For a mask of True and False use scipy.ndimage.label(mask)[0], for whole numbers in floats .astype(int)."
        )
    if labels.ndim != 2 or labels.size == 0 or max(labels.shape) > _LONGEST_SIDE:
        raise InputError(
            f"labels has the shape {labels.shape}; allowed is (rows, columns), each from 1 to {_LONGEST_SIDE}. "
            "Pass the images of a stack one by one, and a larger image in parts."
        )


def _number_cells(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give each cell a number from 1 on, in the order of the labels: ids, and the label of each id (of id 0: 0)."""
    cells = np.maximum(labels, 0)
    highest = int(cells.max())
    if highest <= np.iinfo(np.uint16).max:
        return cells.astype(np.uint16), np.arange(highest + 1)
    names, ids = np.unique(
        np.append(cells, cells.dtype.type(0)), return_inverse=True
    )  # 0 in any case, so that it is id 0
    return ids[:-1].reshape(labels.shape).astype(np.int32), names


@dataclass(frozen=True)
class _Integers:
    """The smallest integers for a search up to `reach` pixels.

    A distance and an id travel together in one integer, (distance << shift) + id, so that one minimum keeps both.
    """

    reach: int
    packed: type[np.signedinteger[Any]]
    shift: int
    ids: type[np.integer[Any]]
    plain: type[np.signedinteger[Any]]

    @classmethod
    def up_to(cls, reach: int, names: int) -> "_Integers":
        plain: type[np.signedinteger[Any]] = np.int16 if reach <= _NEAR else np.int32
        if reach <= _NEAR and names <= np.iinfo(np.uint16).max + 1:
            return cls(reach, np.int32, 16, np.uint16, plain)
        return cls(reach, np.int64, 32, np.int32, plain)

    @property
    def far(self) -> int:
        """The square of a distance just out of reach."""
        return (self.reach + 1) ** 2

    @property
    def id_bits(self) -> int:
        """The mask that leaves the id of a packed integer."""
        return (1 << self.shift) - 1


@dataclass(frozen=True)
class _Found:
    """What is known so far, each of shape (rows, columns)."""

    d1: NDArray[np.float32]
    d2: NDArray[np.float32]
    nearest_id: NDArray[np.int32]

    @classmethod
    def nothing(cls, shape: tuple[int, ...]) -> "_Found":
        infinite = np.float32(np.inf)
        return cls(np.full(shape, infinite), np.full(shape, infinite), np.zeros(shape, np.int32))


@dataclass(frozen=True)
class _Band:
    """Some rows of the image after the first step, transposed so that shifting along the columns stays contiguous.

    All of shape (reach + columns + reach, rows of the band), out of reach in the margins; distances are squared.
    """

    nearest: NDArray[Any]  # packed: distance and id of the nearest cell in the column
    first: NDArray[Any]  # the same distance alone
    ids: NDArray[Any]  # the same id alone
    second: NDArray[Any]  # distance of the nearest other cell in the column
    gain: NDArray[Any]  # second - first


_Tile = tuple[slice, slice]


def _tiles(rows: int, columns: int) -> list[_Tile]:
    return [
        (slice(row, min(row + _TILE_ROWS, rows)), slice(column, min(column + _TILE_COLUMNS, columns)))
        for row in range(0, rows, _TILE_ROWS)
        for column in range(0, columns, _TILE_COLUMNS)
    ]


def _search(ids: NDArray[Any], integers: _Integers, tiles: list[_Tile], found: _Found) -> list[_Tile]:
    """Fill the tiles of `found`; return the tiles with a distance out of reach."""
    nearest, next_nearest = _scan_columns(ids, integers)
    margin = min(integers.reach, ids.shape[1] - 1)
    out_of_reach = []
    for band_rows, band_tiles in groupby(tiles, key=itemgetter(0)):
        band = _band(nearest[band_rows], next_nearest[band_rows], margin, integers)
        for tile in band_tiles:
            if not _fill_tile(tile, band, margin, integers, found):
                out_of_reach.append(tile)
    return out_of_reach


def _scan_columns(ids: NDArray[Any], integers: _Integers) -> tuple[NDArray[Any], NDArray[Any]]:
    """Find, for each pixel, the two nearest different cells of its column: packed, distances not squared."""
    far = integers.packed((integers.reach + 1) << integers.shift)  # and no cell: id 0
    id_bits = integers.packed(integers.id_bits)
    nearest = np.empty(ids.shape, integers.packed)
    next_nearest = np.empty(ids.shape, integers.packed)
    above = (np.full(ids.shape[1], far), np.full(ids.shape[1], far))
    for row in range(len(ids)):
        above = _step_along_column(*above, ids[row].astype(integers.packed), far, integers)
        nearest[row], next_nearest[row] = above
    below = (np.full(ids.shape[1], far), np.full(ids.shape[1], far))
    for row in reversed(range(len(ids))):
        below = _step_along_column(*below, ids[row].astype(integers.packed), far, integers)
        above = (nearest[row], next_nearest[row])
        same_cell = ((above[0] ^ below[0]) & id_bits) == 0
        other = np.where(same_cell, far, np.maximum(above[0], below[0]))
        next_nearest[row] = np.minimum(other, np.minimum(above[1], below[1]))
        nearest[row] = np.minimum(above[0], below[0])
    return nearest, next_nearest


def _step_along_column(
    nearest: NDArray[Any], next_nearest: NDArray[Any], ids: NDArray[Any], far: Any, integers: _Integers
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Move one row on: everything is one pixel farther, but for the cells met in this row."""
    one = integers.packed(1 << integers.shift)
    nearest = np.minimum(nearest + one, far)
    next_nearest = np.minimum(next_nearest + one, far)
    is_cell = ids > 0
    is_other_cell = is_cell & ((nearest & integers.packed(integers.id_bits)) != ids)
    return np.where(is_cell, ids, nearest), np.where(is_other_cell, nearest, next_nearest)


def _band(nearest: NDArray[Any], next_nearest: NDArray[Any], margin: int, integers: _Integers) -> _Band:
    rows, columns = nearest.shape
    inside = slice(margin, margin + columns)
    first = np.full((columns + 2 * margin, rows), integers.plain(integers.far))
    second = first.copy()
    ids = np.zeros(first.shape, integers.ids)
    packed = np.full(first.shape, integers.packed(integers.far << integers.shift))
    first[inside] = np.square(nearest.T >> integers.shift)
    second[inside] = np.square(next_nearest.T >> integers.shift)
    ids[inside] = nearest.T & integers.id_bits
    packed[inside] = (first[inside].astype(integers.packed) << integers.shift) | ids[inside]
    return _Band(packed, first, ids, second, second - first)


def _fill_tile(tile: _Tile, band: _Band, margin: int, integers: _Integers, found: _Found) -> bool:
    """Find both distances in one tile; return whether all of them are within reach."""
    columns = tile[1]
    window = slice(columns.start, columns.stop + 2 * margin)
    nearest = _sweep_nearest(band.nearest[window], band.first[window], margin, integers.shift, integers)
    ids = (nearest & integers.id_bits).astype(integers.ids)
    if ids.min() == ids.max():  # one cell is the nearest everywhere: its rivals are the same for the whole tile
        rivals = np.where(band.ids[window] == ids[0, 0], band.second[window], band.first[window])
        second = _sweep_nearest(rivals, rivals, margin, 0, integers)
    else:
        second = _sweep_second(ids, band, window, margin, integers)
    first = nearest >> integers.shift
    for distance, squared in ((found.d1, first), (found.d2, second)):
        distance[tile] = np.sqrt(np.where(squared < integers.far, squared, np.inf)).T
    found.nearest_id[tile] = ids.T
    return bool(second.max() < integers.far)


def _sweep_nearest(
    values: NDArray[Any], distances: NDArray[Any], margin: int, shift: int, integers: _Integers
) -> NDArray[Any]:
    """Minimise values + offset² over the column offsets; `values` may carry ids in their lowest `shift` bits."""
    width = len(values) - 2 * margin
    start = np.full((width, values.shape[1]), values.dtype.type(integers.far << shift))

    def candidate(offset: int) -> NDArray[Any]:
        beside: NDArray[Any] = values[margin + offset : margin + offset + width]
        return beside

    return _sweep(candidate, start, _lower_bounds(distances, margin, integers.far), shift)


def _sweep_second(ids: NDArray[Any], band: _Band, window: slice, margin: int, integers: _Integers) -> NDArray[Any]:
    """Minimise as `_sweep_nearest`, over the cells with another id than the pixel's nearest one."""
    band_ids, gain, second = band.ids[window], band.gain[window], band.second[window]
    width = len(ids)
    differs = np.empty(ids.shape, bool)
    beside = np.empty(ids.shape, integers.plain)

    def candidate(offset: int) -> NDArray[Any]:
        there = slice(margin + offset, margin + offset + width)
        np.not_equal(band_ids[there], ids, out=differs)
        np.multiply(gain[there], differs, out=beside)  # a selection by arithmetic: several times as fast as np.where
        np.subtract(second[there], beside, out=beside)
        return beside

    start = np.full(ids.shape, integers.plain(integers.far))
    return _sweep(candidate, start, _lower_bounds(band.first[window], margin, integers.far), 0)


def _lower_bounds(distances: NDArray[Any], margin: int, far: int) -> list[tuple[int, int]]:
    """List (least squared distance that an offset can give, offset), the least first, without those out of reach."""
    width = len(distances) - 2 * margin
    columns = distances.min(axis=1).astype(np.int64)
    least = minimum_filter1d(columns, width, origin=-(width // 2), mode="nearest")[: 2 * margin + 1]
    offsets = np.arange(-margin, margin + 1)
    bounds = least + np.square(offsets)
    order = np.lexsort((np.abs(offsets), bounds))
    order = order[bounds[order] < far]
    return list(zip(bounds[order].tolist(), offsets[order].tolist(), strict=True))


def _sweep(
    candidate: Callable[[int], NDArray[Any]], best: NDArray[Any], offsets: list[tuple[int, int]], shift: int
) -> NDArray[Any]:
    """Minimise candidate(offset) + offset², the most promising offsets first, as long as one may lower the largest."""
    integer = best.dtype.type
    lowered = 0  # `best` is kept less this square, which saves adding each candidate's own
    for step, (bound, offset) in enumerate(offsets):
        if step % _STEPS_PER_CHECK == 0 and bound > (int(best.max()) >> shift) + lowered:
            break
        if offset * offset != lowered:
            best -= integer((offset * offset - lowered) << shift)
            lowered = offset * offset
        np.minimum(best, candidate(offset), out=best)
    best += integer(lowered << shift)
    return best

"""From the network's foreground back to single cells (the inverse of the gap in Ronneberger et al. 2015, Section 3).

The network has learned cells that a gap of background keeps apart. So each connected component of its foreground is a
cell, or several where it has missed a gap. Those are parted by a watershed on a height that falls from the middle of a
cell to its border: the distance that the network has learned, or the distance to the border of what it found. Then the
pixels of the gap go back to the cells that they were taken from.

Whatever is done to a component depends on that component alone. So an image may be worked on in blocks, and the result
is the same whatever their size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as connected_pieces
from skimage.segmentation import watershed

from ubend.errors import InputError
from ubend.method.nearest_cells import two_nearest_cells

__all__ = ["ObjectRules", "foreground_to_objects"]

_LONGEST_WAY_ACROSS = (
    1.3  # of 2 · gap + 1: covers a gap cut along a diagonal (3.83 px), not a straight one of 3 px (4 px)
)
_BLOCK = 1024  # rows and columns that are worked on at a time: bounds the memory, changes nothing else
_EIGHT = np.ones((3, 3))
_FORWARD = ((0, 1), (1, 0), (1, 1), (1, -1))  # each pair of 8-connected neighbours once

_Labels = NDArray[np.int32]
_Window = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class ObjectRules:
    """How foreground becomes objects; what is best depends on the images, so training chooses on annotated ones.

    Attributes
    ----------
    threshold : float
        A pixel is foreground above this probability.
    split : float
        How far the height must fall, from both sides, to the saddle at which an object is parted; 0 parts nothing.
        With a learned distance a share of 1, the height in the middle of every object; otherwise pixels, by which the
        distance to the border falls from either body to the waist between them.
    smallest : int
        Pixels of the smallest object to keep, counted before the gap goes back.
    surest : float
        Probability that the surest pixel of an object must reach for it to be kept: specks of half-belief go.
    fill_holes : bool
        Whether background that one object encloses becomes part of it.
    gap : int
        The gap that the network was trained with, as in `separate_touching`; 0 gives nothing back.
    clear_border : bool
        Whether objects that touch the border of the image are left out: they are cut, and would be measured too small.

    Raises
    ------
    InputError
        If one of them is out of range.

    Examples
    --------
    >>> ObjectRules(threshold=0.6).split
    0.0
    """

    threshold: float = 0.5
    split: float = 0.0
    smallest: int = 0
    surest: float = 0.0
    fill_holes: bool = False
    gap: int = 1
    clear_border: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; allowed is a probability from 0 to below 1, usually 0.5.")
        if not 0 <= self.surest <= 1:
            raise InputError(f"surest is {self.surest}; allowed is a probability from 0 to 1, 0 to drop nothing.")
        if not 0 <= self.split < np.inf:
            raise InputError(f"split is {self.split}; allowed is a number from 0 on, 0 to part nothing.")
        for name in ("smallest", "gap"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
                raise InputError(f"{name} is {value!r}; allowed is a whole number of pixels from 0 on.")
        for name in ("fill_holes", "clear_border"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed is True or False.")


def foreground_to_objects(
    foreground_probability: NDArray[Any], rules: ObjectRules | None = None, *, distance: NDArray[Any] | None = None
) -> NDArray[np.unsignedinteger[Any]]:
    """Turn the probability of foreground into numbered objects.

    1. Pixels above the threshold that join along an edge (4 neighbours) are one object.
    2. With `split`, an object is parted by a watershed on its height, from all tops that stand more than `split` above
       the saddle towards a higher one (their dynamics). The height is `distance`, or without it the Euclidean distance
       to the nearest pixel that is not foreground.
    3. Objects of fewer than `smallest` pixels are dropped, and those that nowhere reach the probability `surest`.
    4. The gap goes back: a background pixel whose distances to the nearest and the second nearest object add up to at
       most ``1.3 * (2 * gap + 1)`` pixels joins the nearest one. That is what `separate_touching` took; true background
       of up to ``2 * gap`` pixels between two objects cannot be told from it and is filled too.
    5. Holes are filled, and objects at the border left out, as the rules say. The others are numbered 1, 2, … in the
       order in which a scan along the rows meets them.

    Parameters
    ----------
    foreground_probability : ndarray of float, shape (rows, columns)
        Probability of foreground, 0 to 1. A mask of True and False does as well.
    rules : ObjectRules, optional
        Without it, its defaults.
    distance : ndarray of float, shape (rows, columns), optional
        `relative_distance.relative_distance` as a network has learned it: 0 on the border of a cell, 1 in its middle.

    Returns
    -------
    ndarray of uint8, uint16 or uint32, shape (rows, columns)
        Objects 1 to n without a number left out, 0 background, in the smallest type that fits.

    Raises
    ------
    InputError
        If the probabilities are not a two-dimensional array of numbers or hold NaN, or the distance has another shape.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox: U-Net. MICCAI 2015, Section 3, doi:10.1007/978-3-319-24574-4_28.
    L. Vincent, P. Soille: Watersheds in digital spaces. IEEE PAMI 13:583-598 (1991), doi:10.1109/34.87344
    M. Grimaud: A new measure of contrast: the dynamics. SPIE 1769 (1992), doi:10.1117/12.60650

    Examples
    --------
    >>> import numpy as np
    >>> foreground_to_objects(np.array([[0.9, 0.8, 0.2, 0.3, 0.7, 0.0, 0.0]]))
    array([[1, 1, 1, 2, 2, 0, 0]], dtype=uint8)
    """
    rules = rules or ObjectRules()
    _check(foreground_probability, distance)
    labels, objects = ndimage.label(foreground_probability > rules.threshold)
    if rules.split > 0 and objects > 0:
        labels, objects = _part(labels, objects, distance, rules.split)
        labels = _numbered_in_scan_order(labels, objects).astype(
            np.int32
        )  # of equally near objects the first gets a gap
    if rules.smallest > 1:
        labels, objects = _keep(labels, _areas(labels, objects) >= rules.smallest)
    if rules.surest > rules.threshold and objects > 0:
        labels, objects = _keep(labels, _highest(labels, objects, foreground_probability) >= rules.surest)
    if rules.gap > 0 and objects > 1:
        _give_gap_back(labels, rules.gap)
    if rules.fill_holes and objects > 0:
        _fill_holes(labels)
    if rules.clear_border:
        labels, objects = _keep(labels, ~_at_border(labels, objects))
    return _numbered_in_scan_order(labels, objects)


def _part(labels: _Labels, objects: int, distance: NDArray[Any] | None, split: float) -> tuple[_Labels, int]:
    """Part the components at their saddles, block by block: those that begin in one block at a time."""
    boxes = ndimage.find_objects(labels)
    start = np.array([(rows.start, columns.start) for rows, columns in boxes])
    stop = np.array([(rows.stop, columns.stop) for rows, columns in boxes])
    block = start[:, 0] // _BLOCK * labels.shape[1] + start[:, 1] // _BLOCK
    block_of = np.concatenate([[-1], block])
    parted = labels.copy()
    order = np.argsort(block, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        window = _window(start[members].min(axis=0), stop[members].max(axis=0), labels.shape)
        components = labels[window]
        mine = np.where(block_of[components] == block[members[0]], components, 0)
        height = _depth(components > 0) if distance is None else distance[window].astype(np.float64)
        parts, found = _part_components(mine, height, split)
        np.add(parts, objects, out=parted[window], where=parts > 0)
        objects += found
    return parted, objects


def _window(start: NDArray[Any], stop: NDArray[Any], shape: tuple[int, ...]) -> _Window:
    """Widen by one pixel: the nearest background of a component lies no farther away."""
    rows, columns = (slice(max(0, a - 1), min(b + 1, n)) for a, b, n in zip(start, stop, shape, strict=True))
    return rows, columns


def _depth(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(inside)
    return depth


def _part_components(components: _Labels, height: NDArray[np.float64], split: float) -> tuple[_Labels, int]:
    """Number the parts 1, 2, … of those components that fall apart; 0 elsewhere."""
    tops, count = connected_pieces(np.where(_tops(components, height), components, 0), connectivity=2, return_num=True)
    component_of = np.zeros(count + 1, dtype=np.int64)
    component_of[tops.ravel()] = components.ravel()
    component_of[0] = 0
    several = np.bincount(component_of[1:], minlength=int(components.max()) + 1) > 1
    to_flood = several[components] & (components > 0)
    if not to_flood.any():
        return np.zeros_like(components), 0
    basins = _flood(np.where(to_flood, tops, 0), height, to_flood)
    top_height = np.zeros(count + 1)
    top_height[tops.ravel()] = height.ravel()
    basin_of = _merge_shallow(basins, components, height, top_height, split)
    left = np.unique(basin_of[1:])
    left = left[np.bincount(component_of[left])[component_of[left]] > 1]
    number = np.zeros(count + 1, dtype=np.int32)
    number[left] = np.arange(1, left.size + 1)
    return number[basin_of][basins], int(left.size)


def _tops(components: _Labels, height: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels without a higher one among their 8 neighbours of the same component."""
    top = components > 0
    for one, other in _neighbours(components.shape):
        same = components[one] == components[other]
        top[one] &= ~(same & (height[other] > height[one]))
        top[other] &= ~(same & (height[one] > height[other]))
    return top


def _flood(tops: _Labels, height: NDArray[np.float64], mask: NDArray[np.bool_]) -> _Labels:
    """Flood downwards from the tops.

    All tops are lower than the rest and none is level with another, so that nothing is left to the order in which the
    queue holds equals: a component floods the same way whatever lies beside it.
    """
    level = -height
    at = np.flatnonzero(tops)
    level.flat[at] = np.arange(at.size) - (1e9 + at.size)
    basins: _Labels = watershed(level, tops, mask=mask)
    return basins


def _merge_shallow(
    basins: _Labels, components: _Labels, height: NDArray[np.float64], top_height: NDArray[np.float64], split: float
) -> NDArray[np.int64]:
    """Join basins whose lower top stands at most `split` above the saddle between them, the highest saddle first."""
    pair, saddle = _saddles(basins, components, height, len(top_height))
    top, parent = top_height.tolist(), list(range(len(top_height)))

    def root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    for code, at in zip(pair.tolist(), saddle.tolist(), strict=True):
        one, other = (root(basin) for basin in divmod(code, len(top)))
        lower, higher = (one, other) if top[one] < top[other] else (other, one)
        if top[lower] - at <= split:
            parent[lower] = higher
    return np.array([root(basin) for basin in range(len(top))])


def _saddles(
    basins: _Labels, components: _Labels, height: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each pair of adjacent basins (coded a · count + b) the highest pass between them, highest pair first."""
    pairs, passes = [], []
    for one, other in _neighbours(basins.shape):
        a, b = basins[one].astype(np.int64), basins[other]
        meet = (a != b) & (a > 0) & (b > 0) & (components[one] == components[other])
        a, b = a[meet], b[meet]
        pairs.append(np.minimum(a, b) * count + np.maximum(a, b))
        passes.append(np.minimum(height[one][meet], height[other][meet]))
    pair, height_of_pass = np.concatenate(pairs), np.concatenate(passes)
    order = np.lexsort((pair, -height_of_pass))
    pair, first = np.unique(pair[order], return_index=True)
    saddle = height_of_pass[order][first]
    order = np.argsort(-saddle, kind="stable")
    return pair[order], saddle[order]


def _neighbours(shape: tuple[int, ...]) -> Iterator[tuple[_Window, _Window]]:
    """Two windows for each direction, whose pixels at the same place are neighbours."""
    rows, columns = shape
    for down, right in _FORWARD:
        yield (
            (slice(0, rows - down), slice(max(0, -right), columns - max(0, right))),
            (slice(down, rows), slice(max(0, right), columns - max(0, -right))),
        )


def _bands(rows: int, margin: int = 0) -> Iterator[tuple[slice, slice]]:
    """Cut rows into bands: the band with a margin on both sides, and where in that the band itself lies."""
    for first in range(0, rows, _BLOCK):
        last, start = min(first + _BLOCK, rows), max(0, first - margin)
        yield slice(start, min(last + margin, rows)), slice(first - start, last - start)


def _areas(labels: _Labels, objects: int) -> NDArray[np.int64]:
    """Pixels of the objects 0 (background) to n."""
    areas = np.zeros(objects + 1, dtype=np.int64)
    for band, _ in _bands(len(labels)):
        areas += np.bincount(labels[band].ravel(), minlength=objects + 1)
    return areas


def _highest(labels: _Labels, objects: int, values: NDArray[Any]) -> NDArray[np.float64]:
    """Highest value of the objects 0 (background) to n."""
    highest = np.zeros(objects + 1)
    for band, _ in _bands(len(labels)):
        np.maximum.at(highest, labels[band].ravel(), values[band].ravel())
    return highest


def _keep(labels: _Labels, keep: NDArray[np.bool_]) -> tuple[_Labels, int]:
    """Leave out the objects for which `keep` is false, and close up the numbers."""
    keep[0] = False
    number = np.where(keep, np.cumsum(keep, dtype=np.int32), np.int32(0))
    return number[labels], int(keep.sum())


def _at_border(labels: _Labels, objects: int) -> NDArray[np.bool_]:
    at_border = np.zeros(objects + 1, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        at_border[edge] = True
    return at_border


def _give_gap_back(labels: _Labels, gap: int) -> None:
    across = _LONGEST_WAY_ACROSS * (2 * gap + 1)
    before, margin = labels.copy(), int(across) + 1
    for rows, inner_rows in _bands(labels.shape[0], margin):
        for columns, inner_columns in _bands(labels.shape[1], margin):
            inner = inner_rows, inner_columns
            d1, d2, nearest = two_nearest_cells(before[rows, columns], within=across, return_labels=True)
            np.copyto(labels[rows, columns][inner], nearest[inner], where=d1[inner] + d2[inner] <= across)


def _fill_holes(labels: _Labels) -> None:
    """Give background that touches one object only, and not the border of the image, to that object."""
    holes, count = ndimage.label(labels == 0, structure=_EIGHT)
    open_ = _at_border(holes, count)
    lowest, highest = np.full(count + 1, np.iinfo(np.int32).max), np.zeros(count + 1, dtype=np.int32)
    for one, other in list(_neighbours(labels.shape))[:2]:
        for here, there in ((one, other), (other, one)):
            beside = (labels[here] == 0) & (labels[there] > 0)
            hole, label = holes[here][beside], labels[there][beside]
            np.minimum.at(lowest, hole, label)
            np.maximum.at(highest, hole, label)
    owner = np.where((lowest == highest) & ~open_, highest, 0).astype(np.int32)
    owner[0] = 0
    np.add(labels, owner[holes], out=labels)


def _numbered_in_scan_order(labels: _Labels, objects: int) -> NDArray[np.unsignedinteger[Any]]:
    first = np.full(objects + 1, labels.size, dtype=np.int64)
    width = labels.shape[1]
    for band, _ in reversed(
        list(_bands(len(labels)))
    ):  # of equal numbers the assignment keeps the last: the first seen
        flat = labels[band].ravel()
        first[flat[::-1]] = np.arange(band.start * width + flat.size - 1, band.start * width - 1, -1)
    number = np.zeros(objects + 1, dtype=np.min_scalar_type(objects))
    number[1 + np.argsort(first[1:], kind="stable")] = np.arange(1, objects + 1)
    numbered: NDArray[np.unsignedinteger[Any]] = number[labels]
    return numbered


def _check(foreground_probability: NDArray[Any], distance: NDArray[Any] | None) -> None:
    if not isinstance(foreground_probability, np.ndarray) or foreground_probability.dtype.kind not in "fbiu":
        raise InputError("foreground_probability is not an array of numbers; pass the network's foreground channel.")
    if foreground_probability.ndim != 2 or foreground_probability.size == 0:
        raise InputError(
            f"foreground_probability has the shape {foreground_probability.shape}; allowed is (rows, columns). "
            "Of probabilities (classes, rows, columns) pass the channel of the foreground, usually [1]."
        )
    if np.isnan(foreground_probability.min()):
        raise InputError("foreground_probability holds NaN; a network whose training came to nonsense gives that.")
    if distance is not None and np.isnan(np.min(distance)):
        raise InputError("distance holds NaN; a network whose training came to nonsense gives that.")
    if distance is not None and distance.shape != foreground_probability.shape:
        raise InputError(
            f"distance has the shape {distance.shape}, foreground_probability {foreground_probability.shape}: "
            "give both of one image."
        )

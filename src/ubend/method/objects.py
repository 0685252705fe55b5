"""From the network's foreground back to single cells (the inverse of the gap in Ronneberger et al. 2015, Section 3).

The network has learned cells that a gap of background keeps apart. So each connected component of its foreground is a
cell, or several where it has missed a gap. Those are parted by a watershed on a height that falls from the middle of a
cell to its border: the distance that the network has learned, or the distance to the border of what it found. Then the
pixels of the gap go back to the cells that they were taken from.

Whatever is done to a component depends on that component alone. So an image may be worked on in blocks, and the result
is the same whatever their size. Each step is a function of its own, which `method/large_objects.py` uses too, for
images that the memory does not hold.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as connected_pieces
from skimage.segmentation import watershed

from ubend.errors import InputError
from ubend.method.blocks import ReadableArray, Window, widened, within
from ubend.method.nearest_cells import two_nearest_cells

__all__ = ["ObjectRules", "foreground_to_objects"]

_LONGEST_WAY_ACROSS = (
    1.3  # of 2 · gap + 1: covers a gap cut along a diagonal (3.83 px), not a straight one of 3 px (4 px)
)
_UNIT = 1 << 20  # parts of a probability: whole numbers add up alike in any order
_BLOCK = 1024  # rows and columns that are worked on at a time: bounds the memory, changes nothing else
_EIGHT = np.ones((3, 3))
_FORWARD = ((0, 1), (1, 0), (1, 1), (1, -1))  # each pair of 8-connected neighbours once

_Labels = NDArray[np.int32]


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
    certainty : float
        Probability of foreground that the pixels of an object must reach on average for it to be kept, counted before
        the gap goes back: specks of half-belief go. Not above the threshold it drops nothing.
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
    certainty: float = 0.0
    fill_holes: bool = False
    gap: int = 1
    clear_border: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; allowed is a probability from 0 to below 1, usually 0.5.")
        if not 0 <= self.certainty <= 1:
            raise InputError(f"certainty is {self.certainty}; allowed is a probability from 0 to 1, 0 to drop nothing.")
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
    3. Objects of fewer than `smallest` pixels are dropped, and those whose pixels do not reach the probability
       `certainty` on average.
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
    if not isinstance(foreground_probability, np.ndarray):
        raise InputError("foreground_probability is not an array of numbers; pass the network's foreground channel.")
    check_image(foreground_probability, distance)
    labels, objects = components(foreground_probability, rules.threshold)
    if distance is not None:
        check_numbers(distance, "distance")
    if rules.split > 0 and objects > 0:
        labels, objects = _part(labels, objects, distance, rules.split)
        labels = numbered_in_scan_order(labels, objects).astype(
            np.int32
        )  # of equally near objects the first gets a gap
    if rules.smallest > 1:
        labels, objects = _keep(labels, areas(labels, objects) >= rules.smallest)
    if rules.certainty > rules.threshold and objects > 0:
        sums = belief(labels, objects, foreground_probability)
        labels, objects = _keep(labels, certain(sums, areas(labels, objects), rules.certainty))
    if rules.gap > 0 and objects > 1:
        labels = with_gap(labels, rules.gap)
    if rules.fill_holes and objects > 0:
        _fill_holes(labels)
    if rules.clear_border:
        edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
        labels, objects = _keep(labels, ~among(objects, edges))
    return numbered_in_scan_order(labels, objects)


def check_image(foreground_probability: ReadableArray, distance: ReadableArray | None) -> None:
    """Refuse what is no image of probabilities, or a distance that does not belong to it.

    Parameters
    ----------
    foreground_probability, distance : array, shape (rows, columns)
        As in `foreground_to_objects`; only shape and type are looked at.

    Raises
    ------
    InputError
        If one is no two-dimensional array of numbers, or they differ in shape.

    Examples
    --------
    >>> check_image(np.zeros((2, 3)), None)
    """
    shape = tuple(foreground_probability.shape)
    if np.dtype(foreground_probability.dtype).kind not in "fbiu":
        raise InputError("foreground_probability is not an array of numbers; pass the network's foreground channel.")
    if len(shape) != 2 or 0 in shape:
        raise InputError(
            f"foreground_probability has the shape {shape}; allowed is (rows, columns). "
            "Of probabilities (classes, rows, columns) pass the channel of the foreground, usually [1]."
        )
    if distance is not None and tuple(distance.shape) != shape:
        raise InputError(
            f"distance has the shape {tuple(distance.shape)}, foreground_probability {shape}: give both of one image."
        )


def check_numbers(values: NDArray[Any], name: str) -> None:
    """Refuse NaN.

    Parameters
    ----------
    values : ndarray
        Pixels.
    name : str
        What the message calls them.

    Raises
    ------
    InputError
        If there is a NaN among them.

    Examples
    --------
    >>> check_numbers(np.zeros((2, 3)), "distance")
    """
    if np.isnan(np.min(values)):
        raise InputError(f"{name} holds NaN; a network whose training came to nonsense gives that.")


def components(probability: NDArray[Any], threshold: float) -> tuple[_Labels, int]:
    """Number what joins along edges above the threshold, in the order in which a scan along the rows meets it.

    Parameters
    ----------
    probability : ndarray, shape (rows, columns)
        Of foreground.
    threshold : float
        A pixel is foreground above it.

    Returns
    -------
    labels : ndarray of int32, shape (rows, columns)
        Components 1 to n, 0 background.
    count : int
        n.

    Raises
    ------
    InputError
        If there is a NaN among the probabilities.

    Examples
    --------
    >>> components(np.array([[0.9, 0.8, 0.1, 0.7]]), 0.5)
    (array([[1, 1, 0, 2]], dtype=int32), 2)
    """
    check_numbers(probability, "foreground_probability")
    labels, count = ndimage.label(probability > threshold)
    return labels, count


def _part(labels: _Labels, objects: int, distance: NDArray[Any] | None, split: float) -> tuple[_Labels, int]:
    boxes = ndimage.find_objects(labels)
    start = np.array([(rows.start, columns.start) for rows, columns in boxes])
    stop = np.array([(rows.stop, columns.stop) for rows, columns in boxes])
    for window, parts, found in part(labels.__getitem__, start, stop, labels.shape, distance, split, side=_BLOCK):
        np.add(parts, objects, out=labels[window], where=parts > 0)
        objects += found
    return labels, objects


def part(
    read: Callable[[Window], _Labels],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    shape: tuple[int, ...],
    distance: ReadableArray | None,
    split: float,
    *,
    side: int,
    on_group: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Window, _Labels, int]]:
    """Part components at their saddles, those that begin side by side in one window, large ones alone.

    Parameters
    ----------
    read : callable
        Gives the components of a window, int32: 1 to n, 0 background. Once a component has been given back in parts,
        it may have any number above n.
    start, stop : ndarray of int, shape (n, 2)
        The first row and column of each component, and those after the last.
    shape : tuple of int
        Rows and columns of the image.
    distance : array, shape (rows, columns), optional
        As in `foreground_to_objects`.
    split : float
        As in `ObjectRules`.
    side : int
        Pixels. A window is no larger than four squares of this side, or than one component and a pixel around it.
    on_group : callable, optional
        Called with (done, of) after each window.

    Yields
    ------
    window : (slice, slice)
        Where there are components that fall apart.
    parts : ndarray of int32, shape of the window
        Their parts 1 to m, and 0 elsewhere.
    found : int
        m.

    Raises
    ------
    InputError
        If the distance holds NaN there.

    Examples
    --------
    >>> labels, height = np.ones((1, 5), np.int32), np.array([[0.2, 0.9, 0.1, 0.8, 0.3]])
    >>> box = np.array([[0, 0]]), np.array([[1, 5]])
    >>> [(_, parts, found)] = part(labels.__getitem__, *box, labels.shape, height, 0.5, side=9)
    >>> parts.tolist(), found
    ([[1, 1, 1, 2, 2]], 2)
    """
    count = len(start)
    group_of = np.full(count + 2, -1, dtype=np.int32)
    groups = list(_groups(start, stop, side))
    for group, (members, first, last) in enumerate(groups):
        group_of[members + 1] = group
        box = slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))
        window = widened(box, 1, shape)  # the nearest background of a component lies no farther away
        found_there = read(window)
        mine = np.where(group_of[np.minimum(found_there, count + 1)] == group, found_there, 0)
        if distance is None:
            height = _depth(found_there > 0)
        else:
            height = np.asarray(distance[window]).astype(np.float64)
            check_numbers(height, "distance")
        parts, found = _part_components(mine, height, split)
        if found > 0:
            yield window, parts, found
        if on_group is not None:
            on_group(group + 1, len(groups))


def _groups(
    start: NDArray[np.int64], stop: NDArray[np.int64], side: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]]:
    """Group those that begin in one square, small ones first, as long as their joint box is not too large."""
    area = np.prod(stop - start, axis=1)
    row, column = (start // side).T
    order = np.lexsort((area, column, row))
    new = (np.diff(row[order]) != 0) | (np.diff(column[order]) != 0)
    for members in np.split(order, np.flatnonzero(new) + 1):
        while members.size > 0:
            first: NDArray[np.int64] = np.minimum.accumulate(start[members])
            last: NDArray[np.int64] = np.maximum.accumulate(stop[members])
            joint = np.prod(last - first, axis=1)
            together = max(1, int(np.count_nonzero(joint <= 4 * side * side)))
            yield members[:together], first[together - 1], last[together - 1]
            members = members[together:]


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
    for one, other in neighbours(components.shape):
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
    for one, other in neighbours(basins.shape):
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


def neighbours(shape: tuple[int, ...]) -> Iterator[tuple[Window, Window]]:
    """Give two windows for each direction, whose pixels at the same place are neighbours.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.

    Yields
    ------
    one, other : (slice, slice)
        Along the rows, along the columns, and along both diagonals: of 8 neighbours each pair once, the 4 along edges
        first.

    Examples
    --------
    >>> image = np.array([[1, 2], [3, 4]])
    >>> [(image[one].tolist(), image[other].tolist()) for one, other in neighbours(image.shape)][:2]
    [([[1], [3]], [[2], [4]]), ([[1, 2]], [[3, 4]])]
    """
    rows, columns = shape
    for down, right in _FORWARD:
        yield (
            (slice(0, rows - down), slice(max(0, -right), columns - max(0, right))),
            (slice(down, rows), slice(max(0, right), columns - max(0, -right))),
        )


def _bands(first: int, stop: int, length: int | None = None, margin: int = 0) -> Iterator[tuple[slice, slice]]:
    """Cut rows into bands: the band with a margin on both sides, as far as there are rows, and the band itself."""
    length = stop if length is None else length
    for start in range(first, stop, _BLOCK):
        end = min(start + _BLOCK, stop)
        yield slice(max(0, start - margin), min(end + margin, length)), slice(start, end)


def areas(labels: _Labels, objects: int) -> NDArray[np.int64]:
    """Count the pixels of the objects 0 (background) to n.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
        Objects by number.
    objects : int
        n.

    Returns
    -------
    ndarray of int64, shape (n + 1,)

    Examples
    --------
    >>> areas(np.array([[0, 2, 2, 1]], np.int32), 2).tolist()
    [1, 1, 2]
    """
    counts = np.zeros(objects + 1, dtype=np.int64)
    for _, band in _bands(0, len(labels)):
        counts += np.bincount(labels[band].ravel(), minlength=objects + 1)
    return counts


def belief(labels: _Labels, objects: int, probability: NDArray[Any]) -> NDArray[np.int64]:
    """Sum the probability over the objects 1 to n, in whole units, so that no order of the pixels changes a sum.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
        Objects by number.
    objects : int
        n.
    probability : ndarray, shape (rows, columns)
        From 0 to 1.

    Returns
    -------
    ndarray of int64, shape (n + 1,)
        In units of 2⁻²⁰; 0 for the background.

    Examples
    --------
    >>> (belief(np.array([[0, 2, 2, 1]], np.int32), 2, np.array([[0.9, 0.5, 0.75, 0.25]])) / 2**20).tolist()
    [0.0, 0.25, 1.25]
    """
    sums = np.zeros(objects + 1, dtype=np.int64)
    for _, band in _bands(0, len(labels)):
        shares = np.clip(probability[band].ravel().astype(np.float64), 0, 1)
        units = np.rint(shares * _UNIT)  # their sum is exact up to 2³³ pixels
        sums += np.bincount(labels[band].ravel(), units, minlength=objects + 1).astype(np.int64)
    sums[0] = 0
    return sums


def certain(sums: NDArray[np.int64], area: NDArray[np.int64], certainty: float) -> NDArray[np.bool_]:
    """Tell which objects reach a probability on average.

    Parameters
    ----------
    sums, area : ndarray of int64, shape (n + 1,)
        As `belief` and `areas` give them.
    certainty : float
        As in `ObjectRules`.

    Returns
    -------
    ndarray of bool, shape (n + 1,)
        False for what has no pixels.

    Examples
    --------
    >>> certain(np.array([0, 2**20, 3 * 2**18]), np.array([9, 1, 1]), 0.8).tolist()
    [False, True, False]
    """
    reached: NDArray[np.bool_] = (area > 0) & (sums >= np.rint(certainty * _UNIT) * area)
    return reached


def first_pixels(labels: _Labels, objects: int) -> NDArray[np.int64]:
    """Find where a scan along the rows meets the objects 0 (background) to n.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
        Objects by number.
    objects : int
        n.

    Returns
    -------
    ndarray of int64, shape (n + 1,)
        row · columns + column; the number of all pixels for what is not there.

    Examples
    --------
    >>> first_pixels(np.array([[0, 2, 2], [1, 1, 2]], np.int32), 3).tolist()
    [0, 3, 1, 6]
    """
    first = np.full(objects + 1, labels.size, dtype=np.int64)
    width = labels.shape[1]
    for _, band in reversed(list(_bands(0, len(labels)))):
        flat = labels[band].ravel()  # of equal numbers the assignment keeps the last: the first seen
        first[flat[::-1]] = np.arange(band.start * width + flat.size - 1, band.start * width - 1, -1)
    return first


def among(objects: int, seen: Iterable[NDArray[Any]]) -> NDArray[np.bool_]:
    """Tell which of the objects 0 (background) to n are among those seen, say on the border of the image.

    Parameters
    ----------
    objects : int
        n.
    seen : iterable of ndarray of int
        Objects by number.

    Returns
    -------
    ndarray of bool, shape (n + 1,)

    Examples
    --------
    >>> among(3, [np.array([0, 2, 2]), np.array([3])]).tolist()
    [True, False, True, True]
    """
    found = np.zeros(objects + 1, dtype=bool)
    for numbers in seen:
        found[numbers] = True
    return found


def closed_up(keep: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number those to keep 1, 2, … in their order, and the others 0.

    Parameters
    ----------
    keep : ndarray of bool, shape (n + 1,)
        For the objects 0 (background, never kept) to n.

    Returns
    -------
    number : ndarray of int32, shape (n + 1,)
        The new number of each object.
    count : int
        How many are kept.

    Examples
    --------
    >>> closed_up(np.array([True, True, False, True]))
    (array([0, 1, 0, 2], dtype=int32), 2)
    """
    number = np.zeros(len(keep), dtype=np.int32)
    number[1:] = np.where(keep[1:], np.cumsum(keep[1:]), 0)
    return number, int(np.count_nonzero(keep[1:]))


def _keep(labels: _Labels, keep: NDArray[np.bool_]) -> tuple[_Labels, int]:
    number, count = closed_up(keep)
    return number[labels], count


def gap_reach(gap: int) -> int:
    """Tell how far an object may lie from a pixel of the gap that goes back to it.

    Parameters
    ----------
    gap : int
        As in `ObjectRules`.

    Returns
    -------
    int
        Pixels; farther ones change nothing.

    Examples
    --------
    >>> gap_reach(1)
    4
    """
    return int(_way_across(gap)) + 1


def _way_across(gap: int) -> float:
    return _LONGEST_WAY_ACROSS * (2 * gap + 1)


def with_gap(labels: _Labels, gap: int, inner: Window | None = None) -> _Labels:
    """Give the pixels of the gap back, as `foreground_to_objects` describes it.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
        Objects in the order in which a scan meets them: of two equally near ones the smaller number gets the pixel.
    gap : int
        As in `ObjectRules`, from 1 on.
    inner : (slice, slice), optional
        The part that is wanted; `gap_reach` pixels around it must be there, or the image must end.

    Returns
    -------
    ndarray of int32, shape (rows, columns) or that of `inner`

    Examples
    --------
    >>> with_gap(np.array([[1, 0, 0, 2, 0, 0, 0]], np.int32), 1).tolist()
    [[1, 1, 2, 2, 0, 0, 0]]
    """
    across, margin = _way_across(gap), gap_reach(gap)
    inner = inner or (slice(0, labels.shape[0]), slice(0, labels.shape[1]))
    rows, columns = inner
    result = labels[inner].copy()
    for wide_rows, band_rows in _bands(rows.start, rows.stop, labels.shape[0], margin):
        for wide_columns, band_columns in _bands(columns.start, columns.stop, labels.shape[1], margin):
            d1, d2, nearest = two_nearest_cells(labels[wide_rows, wide_columns], within=across, return_labels=True)
            band = band_rows, band_columns
            there = within(band, (wide_rows, wide_columns))
            np.copyto(result[within(band, inner)], nearest[there], where=d1[there] + d2[there] <= across)
    return result


def _fill_holes(labels: _Labels) -> None:
    holes, count = background_pieces(labels)
    between = Enclosure.of(count)
    between.add(labels, holes)
    open_ = among(count, (holes[0], holes[-1], holes[:, 0], holes[:, -1]))
    np.add(labels, between.owners(open_)[holes], out=labels)


def background_pieces(labels: _Labels) -> tuple[_Labels, int]:
    """Number the pieces of background, whose pixels join along edges and corners.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
        Objects by number.

    Returns
    -------
    pieces : ndarray of int32, shape (rows, columns)
        1 to n, and 0 where there are objects.
    count : int
        n.

    Examples
    --------
    >>> background_pieces(np.array([[0, 5, 0]], np.int32))
    (array([[1, 0, 2]], dtype=int32), 2)
    """
    pieces, count = ndimage.label(labels == 0, structure=_EIGHT)
    return pieces, count


@dataclass(frozen=True)
class Enclosure:
    """Which objects lie beside the pieces of background: the lowest and the highest number beside each.

    Attributes
    ----------
    lowest, highest : ndarray of int32, shape (n + 1,)
        For the pieces 1 to n; index 0 is none.

    Examples
    --------
    >>> labels = np.array([[1, 1, 1, 2], [1, 0, 1, 0], [1, 1, 1, 2]], np.int32)
    >>> pieces, count = background_pieces(labels)
    >>> beside = Enclosure.of(count)
    >>> beside.add(labels, pieces)
    >>> beside.owners(np.zeros(3, bool)).tolist()
    [0, 1, 0]
    """

    lowest: NDArray[np.int32]
    highest: NDArray[np.int32]

    @classmethod
    def of(cls, count: int) -> "Enclosure":
        """Begin with nothing beside any of `count` pieces."""
        return cls(np.full(count + 1, np.iinfo(np.int32).max, np.int32), np.zeros(count + 1, np.int32))

    def add(self, labels: _Labels, pieces: NDArray[Any]) -> None:
        """Look along the edges of all pixels of the pieces, for objects."""
        for one, other in list(neighbours(labels.shape))[:2]:
            for here, there in ((one, other), (other, one)):
                beside = (pieces[here] > 0) & (labels[there] > 0)
                piece, label = pieces[here][beside].astype(np.intp), labels[there][beside]
                np.minimum.at(self.lowest, piece, label)
                np.maximum.at(self.highest, piece, label)

    def join(self, other: "Enclosure", number: NDArray[np.int64]) -> None:
        """Add what lies beside the pieces 1 to n of another, whose numbers here are given."""
        np.minimum.at(self.lowest, number, other.lowest[1:])
        np.maximum.at(self.highest, number, other.highest[1:])

    def owners(self, open_: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Give the object that a piece is a hole of: it alone lies beside it, and the piece is not open; else 0."""
        owners = np.where((self.lowest == self.highest) & ~open_, self.highest, np.int32(0))
        owners[0] = 0
        return owners


def scan_order(first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number objects in the order of their first pixels.

    Parameters
    ----------
    first : ndarray of int64, shape (n + 1,)
        Of the objects 1 to n; that of 0, the background, does not count.

    Returns
    -------
    ndarray of int64, shape (n + 1,)
        The new number of each object; 0 stays 0.

    Examples
    --------
    >>> scan_order(np.array([0, 8, 3, 5])).tolist()
    [0, 3, 1, 2]
    """
    number = np.zeros(len(first), dtype=np.int64)
    number[1 + np.argsort(first[1:], kind="stable")] = np.arange(1, len(first))
    return number


def numbered_in_scan_order(labels: _Labels, objects: int) -> NDArray[np.unsignedinteger[Any]]:
    """Number objects in the order in which a scan along the rows meets them, in the smallest type that fits.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
        Objects 1 to n, all of them there.
    objects : int
        n.

    Returns
    -------
    ndarray of uint8, uint16 or uint32, shape (rows, columns)

    Examples
    --------
    >>> numbered_in_scan_order(np.array([[2, 0, 1]], np.int32), 2)
    array([[1, 0, 2]], dtype=uint8)
    """
    number = scan_order(first_pixels(labels, objects)).astype(np.min_scalar_type(objects))
    numbered: NDArray[np.unsignedinteger[Any]] = number[labels]
    return numbered

"""From the foreground to single objects in images that the memory does not hold.

The result is that of `objects.foreground_to_objects` on the whole image, number for number, whatever the size of the
blocks. The image is gone through in blocks, up to four times; what is known meanwhile stands in the result itself:

1. Each block's components become pieces with numbers of their own. Pieces that meet at a seam are one component.
2. Components that fall apart are written again, in parts, where they lie.
3. Of what is kept, a block's gap goes back to what lies in it and around it. Pixels given back, and pieces of
   background that may be holes, get numbers above those of all pieces, so that the next block sees what was there.
4. Each number is replaced by that of its object.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ubend.errors import InputError
from ubend.method import objects as steps
from ubend.method.blocks import ReadableArray, Window, WritableArray, blocks_of, border_lines, widened, within
from ubend.method.objects import Enclosure, ObjectRules

__all__ = ["objects_in_blocks"]

_PARTING = 1024  # px: components up to about this size are parted many at a time, which bounds the memory
_PASSES = 4

_GONE = np.iinfo(np.int64).max  # the first pixel of what has fallen into parts
_NO_PAIRS = np.zeros(0, np.int64)

_Labels = NDArray[np.int32]
_OnBlock = Callable[[int, int], None]


def objects_in_blocks(
    foreground: ReadableArray,
    rules: ObjectRules,
    out: WritableArray,
    *,
    distance: ReadableArray | None = None,
    block: int = 2048,
    on_block: _OnBlock | None = None,
) -> int:
    """Turn the probability of foreground into numbered objects, block by block.

    The result is that of `foreground_to_objects`, number for number. The memory grows with the block and with the
    number of objects, not with the image, but for two things: a row of the image is held, and where an object is to be
    parted (`split`), all of the component that it stands in, because where one is parted depends on the whole of it. So
    a network of vessels that spans the image takes the memory of the image then. Such components are worked on one at
    a time.

    Parameters
    ----------
    foreground : array of numbers, shape (rows, columns)
        Probability of foreground, 0 to 1: a NumPy or zarr array, or what gives windows of pixels as these do.
    rules : ObjectRules
        How foreground becomes objects.
    out : array of uint32, shape (rows, columns)
        Where the objects are written, 1 to n, 0 background. It is also read, and holds other numbers meanwhile, also
        after an error. For a zarr array, chunks that divide the block are fastest, smaller than it if there is a gap
        to give back.
    distance : array of float, shape (rows, columns), optional
        As in `foreground_to_objects`. Read only with `split`, around objects.
    block : int
        Rows and columns of a block, in pixels; changes time and memory, not the result.
    on_block : callable, optional
        Called with (done, of) while it goes on. `of` is four times the number of blocks; steps that the rules do not
        need are skipped.

    Returns
    -------
    int
        The number of objects.

    Raises
    ------
    InputError
        If the arrays differ in shape or are not of the types above, or hold NaN, or `block` is not from 1 on.

    Examples
    --------
    >>> out = np.zeros((1, 7), np.uint32)
    >>> objects_in_blocks(np.array([[0.9, 0.8, 0.2, 0.3, 0.7, 0.0, 0.0]]), ObjectRules(), out, block=2)
    2
    >>> out.tolist()
    [[1, 1, 1, 2, 2, 0, 0]]
    """
    _check(foreground, out, distance)
    windows = blocks_of(foreground.shape, block)
    tell = _Progress(on_block, len(windows))
    component_of, found = _label(foreground, rules, out, windows, tell)
    if rules.split > 0 and found.count > 0:
        component_of, found = _part(foreground, rules, out, distance, component_of, found, min(block, _PARTING), tell)
    object_of, first = _kept(component_of, found, rules)
    if (rules.gap > 0 and len(first) > 2) or (rules.fill_holes and len(first) > 1):
        object_of = _give_back(out, object_of, first, rules, windows, tell)
    if rules.clear_border:
        lines = (line for window in windows for line in border_lines(window, foreground.shape))
        number, _ = steps.closed_up(~steps.among(len(first) - 1, (object_of[np.asarray(out[line])] for line in lines)))
        object_of, first = number[object_of], np.append(first[:1], first[number > 0])
    number_of = steps.scan_order(first)[object_of].astype(np.uint32)
    for done, window in enumerate(windows, start=1):
        out[window] = number_of[np.asarray(out[window])]
        tell(3, done)
    return len(first) - 1


@dataclass(frozen=True)
class _Table:
    """What must be known of objects 0 (none) to n; arrays of shape (n + 1, …), zeros where the rules do not ask.

    `first` is the first pixel in a scan along the rows (row · columns + column), `start` and `stop` the box.
    """

    first: NDArray[np.int64]
    area: NDArray[np.int64]
    belief: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.first) - 1

    def joined(self, group_of: NDArray[np.int64], groups: int) -> "_Table":
        """Make one of those that are in the same group, 0 to `groups`."""
        first, start = (
            np.full((groups + 1, *one.shape[1:]), np.iinfo(np.int64).max) for one in (self.first, self.start)
        )
        area, belief = np.zeros(groups + 1, np.int64), np.zeros(groups + 1, np.int64)
        stop = np.zeros((groups + 1, 2), np.int64)
        np.minimum.at(first, group_of, self.first)
        np.add.at(area, group_of, self.area)
        np.add.at(belief, group_of, self.belief)
        np.minimum.at(start, group_of, self.start)
        np.maximum.at(stop, group_of, self.stop)
        return _Table(first, area, belief, start, stop)


def _one_after_the_other(tables: list[_Table]) -> _Table:
    """Number the objects of all tables on, from 1."""

    def chained(name: str) -> NDArray[Any]:
        arrays = [getattr(table, name) for table in tables]
        return np.concatenate([arrays[0][:1], *(array[1:] for array in arrays)])

    return _Table(chained("first"), chained("area"), chained("belief"), chained("start"), chained("stop"))


def _look_up(
    labels: _Labels, count: int, window: Window, columns: int, rules: ObjectRules, probability: NDArray[Any] | None
) -> _Table:
    """Make the table of objects numbered within a window, with the probabilities there if they matter."""
    row, column = np.divmod(steps.first_pixels(labels, count), labels.shape[1])
    corner = np.array([side.start for side in window])
    start, stop = np.zeros((count + 1, 2), np.int64), np.zeros((count + 1, 2), np.int64)
    none = np.zeros(count + 1, np.int64)
    if rules.split > 0:
        boxes = np.array([[(side.start, side.stop) for side in box] for box in ndimage.find_objects(labels)])
        boxes = boxes.reshape(count, 2, 2) + corner[:, None]
        start[1:], stop[1:] = boxes[..., 0], boxes[..., 1]
    return _Table(
        first=(row + corner[0]) * columns + column + corner[1],
        area=steps.areas(labels, count) if rules.smallest > 1 or _asks_certainty(rules) else none,
        belief=none if probability is None else steps.belief(labels, count, probability),
        start=start,
        stop=stop,
    )


def _asks_certainty(rules: ObjectRules) -> bool:
    return rules.certainty > rules.threshold  # otherwise every object reaches it


def _label(
    foreground: ReadableArray, rules: ObjectRules, out: WritableArray, windows: list[Window], tell: "_Progress"
) -> tuple[NDArray[np.int64], _Table]:
    """Write the pieces of components in each block; give the component of each piece, and a table of components."""
    columns = foreground.shape[1]
    tables, pairs, count, seams = [], [_NO_PAIRS], 0, _Seams(columns)
    for done, window in enumerate(windows, start=1):
        probability = np.asarray(foreground[window])
        labels, found = steps.components(probability, rules.threshold)
        tables.append(_look_up(labels, found, window, columns, rules, probability if _asks_certainty(rules) else None))
        pieces = np.where(labels > 0, labels.astype(np.int64) + count, 0)
        out[window] = pieces.astype(np.uint32)
        pairs += [_pairs(seam, directions=2) for seam in seams.beside(window, pieces)]
        count += found
        tell(0, done)
    component_of, components = _connected(count, pairs)
    return component_of, _one_after_the_other(tables).joined(component_of, components)


def _part(
    foreground: ReadableArray,
    rules: ObjectRules,
    out: WritableArray,
    distance: ReadableArray | None,
    component_of: NDArray[np.int64],
    components: _Table,
    side: int,
    tell: "_Progress",
) -> tuple[NDArray[np.int64], _Table]:
    """Write the parts of components that fall apart over their pieces, with numbers above those of all pieces."""
    shape = foreground.shape
    pieces, tables, parted, beyond = len(component_of), [components], [], np.int64(components.count + 1)

    def read(window: Window) -> _Labels:
        values = np.asarray(out[window])
        is_piece = values < pieces
        found: _Labels = np.where(is_piece, component_of[np.where(is_piece, values, 0)], beyond).astype(np.int32)
        return found

    count = 0
    boxes = components.start[1:], components.stop[1:]
    windows = steps.part(read, *boxes, shape, distance, rules.split, side=side, on_group=tell.share)
    for window, parts, found in windows:
        probability = np.asarray(foreground[window]) if _asks_certainty(rules) else None
        tables.append(_look_up(parts, found, window, shape[1], rules, probability))
        values, there = np.asarray(out[window]), parts > 0
        parted.append(np.unique(component_of[values[there]]))
        out[window] = np.where(there, parts.astype(np.int64) + (pieces - 1 + count), values).astype(np.uint32)
        count += found
    gone = np.concatenate([np.zeros(0, np.int64), *parted])
    table = _one_after_the_other(tables)
    table.first[gone] = _GONE
    return np.concatenate([component_of, components.count + 1 + np.arange(count)]), table


def _kept(
    component_of: NDArray[np.int64], found: _Table, rules: ObjectRules
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give the object of each number in the result so far, 0 for those dropped, and the first pixels of objects."""
    keep = found.first != _GONE
    if rules.smallest > 1:
        keep &= found.area >= rules.smallest
    if _asks_certainty(rules):
        keep &= steps.certain(found.belief, found.area, rules.certainty)
    keep[0] = False
    closed_up, _ = steps.closed_up(keep)
    first = np.append(found.first[:1], found.first[keep])
    number = steps.scan_order(first)
    first[number] = first.copy()
    return number[closed_up][component_of].astype(np.int32), first


def _give_back(
    out: WritableArray,
    object_of: NDArray[np.int32],
    first: NDArray[np.int64],
    rules: ObjectRules,
    windows: list[Window],
    tell: "_Progress",
) -> NDArray[np.int32]:
    """Give the gap back and find holes; give the object of each number in the result then. `first` is kept right."""
    objects, pieces, shape = len(first) - 1, len(object_of), out.shape
    gap = rules.gap if objects > 1 else 0
    background = _Background(shape, pieces + objects)
    for done, window in enumerate(windows, start=1):
        wide = widened(window, steps.gap_reach(gap) if gap > 0 else 0, shape)
        inner = within(window, wide)
        values = np.asarray(out[wide])
        before = object_of[
            np.where(values < pieces, values, 0)
        ]  # higher numbers, of blocks before, stand in background
        values, labels = values[inner].copy(), before[inner]
        if gap > 0:
            labels = steps.with_gap(before, gap, inner)
            row, column = np.nonzero(labels != before[inner])
            given = labels[row, column].astype(np.int64)
            values[row, column] = pieces - 1 + given
            np.minimum.at(first, given, (row + window[0].start) * shape[1] + column + window[1].start)
        if rules.fill_holes:
            background.add(labels, window, values)
        out[window] = values
        tell(2, done)
    return np.concatenate([object_of, np.arange(1, objects + 1, dtype=np.int32), background.owners()])


class _Background:
    """The pieces of background of all blocks, numbered on, and the objects beside them."""

    def __init__(self, shape: tuple[int, ...], above: int) -> None:
        self._shape, self._above, self._count = shape, above, 0  # the first piece is written as `above`
        self._seams, self._pairs = _Seams(shape[1]), [_NO_PAIRS]
        self._beside: list[tuple[NDArray[np.int64], Enclosure]] = []
        self._open: list[NDArray[np.int64]] = []

    def add(self, labels: _Labels, window: Window, values: NDArray[np.uint32]) -> None:
        """Look at the background of a block, and write the numbers of its pieces into `values`."""
        pieces, found = steps.background_pieces(labels)
        is_piece = pieces > 0
        numbers = np.where(is_piece, pieces.astype(np.int64) + self._count, 0)
        np.copyto(values, (numbers + (self._above - 1)).astype(np.uint32), where=is_piece)
        self._note(np.arange(self._count + 1, self._count + found + 1), labels, pieces)
        for seam in self._seams.beside(window, np.where(is_piece, numbers, -labels)):
            self._pairs.append(_pairs(seam, directions=4))
            there, places = np.unique(np.maximum(seam, 0), return_inverse=True)
            places = places.reshape(seam.shape) + (1 if there[0] > 0 else 0)
            self._note(there[there > 0], np.maximum(-seam, 0).astype(np.int32), places)
        self._open += [np.unique(numbers[within(line, window)]) for line in border_lines(window, self._shape)]
        self._count += found

    def _note(self, numbers: NDArray[np.int64], labels: _Labels, places: NDArray[Any]) -> None:
        beside = Enclosure.of(len(numbers))
        beside.add(labels, places)
        self._beside.append((numbers, beside))

    def owners(self) -> NDArray[np.int32]:
        """Give the object that each piece is a hole of, or part of one, else 0."""
        background_of, count = _connected(self._count, self._pairs)
        beside = Enclosure.of(count)
        for numbers, part in self._beside:
            beside.join(part, background_of[numbers])
        open_ = steps.among(count, (background_of[numbers] for numbers in self._open))
        return beside.owners(open_)[background_of[1:]]


class _Seams:
    """The last row of the blocks above, and the last column of the block to the left, of the one looked at."""

    def __init__(self, columns: int) -> None:
        self._above, self._below = (np.zeros(columns + 2, np.int64) for _ in range(2))  # a pixel more on both sides
        self._left = np.zeros(0, np.int64)

    def beside(self, window: Window, numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Give the seams of the next block: two rows, with a pixel more at both ends, and two columns."""
        columns = window[1]
        if columns.start == 0:
            self._above, self._below = self._below, np.zeros_like(self._below)
        seams = [np.stack([self._above[columns.start : columns.stop + 2], np.pad(numbers[0], 1)])]
        if columns.start > 0:
            seams.append(np.stack([self._left, numbers[:, 0]], axis=1))
        self._below[columns.start + 1 : columns.stop + 1] = numbers[-1]
        self._left = numbers[:, -1].copy()
        return seams


def _pairs(numbers: NDArray[np.int64], directions: int) -> NDArray[np.int64]:
    """Give the numbers above 0 that are neighbours, as a · 2³² + b: along edges (2 directions), or corners too (4)."""
    codes = []
    for one, other in list(steps.neighbours(numbers.shape))[:directions]:
        a, b = numbers[one], numbers[other]
        meet = (a > 0) & (b > 0) & (a != b)
        codes.append(a[meet] << 32 | b[meet])
    return np.unique(np.concatenate(codes))


def _connected(count: int, pairs: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], int]:
    """Give the group of each number from 0 (alone in group 0) to `count`, and how many others there are."""
    codes = np.concatenate(pairs)
    ends = codes >> 32, codes & (2**32 - 1)
    graph = coo_array((np.ones(len(codes), np.int8), ends), shape=(count + 1, count + 1))
    groups, group_of = connected_components(graph, directed=False)
    return group_of.astype(np.int64), groups - 1


@dataclass(frozen=True)
class _Progress:
    """Tells how far the passes over all blocks are."""

    on_block: _OnBlock | None
    blocks: int

    def __call__(self, passes: int, done: int) -> None:
        if self.on_block is not None:
            self.on_block(passes * self.blocks + done, _PASSES * self.blocks)

    def share(self, done: int, of: int) -> None:
        """Tell how far the second pass is, which is made in other windows."""
        if done * self.blocks // of > (done - 1) * self.blocks // of:
            self(1, done * self.blocks // of)


def _check(foreground: ReadableArray, out: WritableArray, distance: ReadableArray | None) -> None:
    steps.check_image(foreground, distance)
    if tuple(out.shape) != tuple(foreground.shape) or np.dtype(out.dtype) != np.uint32:
        raise InputError(
            f"out is of {out.dtype}, shape {tuple(out.shape)}; objects are written as uint32, here of the shape "
            f"{tuple(foreground.shape)}."
        )

"""Copies of cells put beside other cells, so that few images show more borders between cells that touch.

A few images hold few cells that touch, and a network that has seldom seen the border between two does not find it. So
cells are copied, turned, made brighter or darker, and pushed against others (copy-paste, Ghiasi et al. 2021). In the
picture the light that differs more from the background wins, as where one cell lies over another.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.method.blocks import Window, widened
from ubend.method.nearest_cells import check_labels

HALO = 3
"""Pixels around a cell that are copied with it: the blur of its edge."""
MOST_COVERED = 0.1
"""Share of a copy, and of the cell beside which it is put, that it may cover of other cells."""
BRIGHTER = 1.65
"""A copy is at most so many times as bright as the cell, or the inverse, above the background."""
PLAIN = 1.0
"""Cells must differ from the background by so many standard deviations of it: where gray values alone do not tell
cells, as in interference contrast, a copy would be no picture of a cell."""


def copy_paste(
    image: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Put beside each cell a copy of some cell of the same image, where there is room.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
        Of any dtype of numbers.
    labels : ndarray of int, shape (rows, columns)
        Cells by number, 0 background, negative unlabelled.
    rng : numpy.random.Generator

    Returns
    -------
    image, labels : ndarray
        New arrays of the same shapes and dtypes; copies have the numbers after the highest. What was labelled before
        keeps its number but where a brighter copy covers it. None if there is no room for a copy, or the cells do not
        differ from the background.

    Raises
    ------
    InputError
        If `labels` is not a two-dimensional array of integers.

    References
    ----------
    G. Ghiasi et al.: Simple Copy-Paste is a strong data augmentation method for instance segmentation. CVPR 2021,
    doi:10.1109/CVPR46437.2021.00294

    Examples
    --------
    >>> labels = np.zeros((40, 40), np.int32)
    >>> labels[16:22, 16:22] = 1
    >>> image = 100 * (labels[None] > 0).astype(np.uint8)
    >>> pasted = copy_paste(image, labels, np.random.default_rng(0))
    >>> [int(np.count_nonzero(pasted[1] == number)) for number in (1, 2)]
    [36, 36]
    """
    check_labels(labels)
    found = _above_background(image, labels)
    if found is None:
        return None
    lift, background = found
    numbers, compact = np.unique(np.maximum(labels, 0), return_inverse=True)
    cells = compact.reshape(labels.shape)  # 0 background, which there is, then 1, 2, … without a number left out
    boxes = ndimage.find_objects(cells)
    whole = [cell for cell, box in enumerate(boxes) if _inside(box, labels.shape)]
    pasted, new = labels.copy(), int(numbers[-1])
    seen, changed = lift.copy(), np.zeros(labels.shape, dtype=bool)
    for beside in rng.permutation(len(boxes)) if whole else ():
        cell = whole[rng.integers(len(whole))]
        window = widened(boxes[cell], HALO, labels.shape)
        quarter_turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        mine = _turned(cells[window] == cell + 1, quarter_turns, flip)
        area = int(np.count_nonzero(cells[boxes[beside]] == beside + 1))
        place = _place(rng, boxes[beside], area, mine, pasted)
        if place is None:
            continue
        new += 1
        if new > np.iinfo(labels.dtype).max:
            break
        near = _turned(_surroundings(cells[window], cell + 1), quarter_turns, flip)
        light = _turned(lift[:, *window], quarter_turns, flip) * np.exp(rng.uniform(-1, 1) * np.log(BRIGHTER))
        there, covered = pasted[place], mine & (pasted[place] > 0)
        stronger = np.abs(light).sum(axis=0) > np.abs(seen[:, *place]).sum(axis=0)
        over = near & ((there == 0) | mine) & stronger
        on_top = not covered.any() or np.abs(light[:, mine]).mean() > np.abs(seen[:, *place][:, covered]).mean()
        seen[:, *place] = np.where(over, light, seen[:, *place])
        changed[place] |= over
        there[mine & ((there == 0) | (covered & stronger if on_top else False))] = new
    if not changed.any():
        return None
    picture = image.copy()
    picture[:, changed] = _as_before(seen[:, changed].astype(np.float64) + background[:, 0], image.dtype)
    return picture, pasted


def _above_background(
    image: NDArray[Any], labels: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Image less the median of its background, and this; None where the cells do not differ from it."""
    outside, inside = labels == 0, labels > 0
    if not (outside.any() and inside.any()):
        return None
    values = image.astype(np.float32)
    background = np.median(values[:, outside], axis=1)
    spread = 1.4826 * np.median(np.abs(values[:, outside] - background[:, None]), axis=1)
    differs = np.abs(values[:, inside].mean(axis=1) - background)
    if not (differs > PLAIN * spread).any():
        return None
    return values - background[:, None, None], background[:, None, None]


def _inside(box: Window, shape: tuple[int, ...]) -> bool:
    """Whether a cell does not touch the border of the image, where it may be cut."""
    return all(side.start > 0 and side.stop < length for side, length in zip(box, shape, strict=True))


def _surroundings(cells: NDArray[np.intp], cell: int) -> NDArray[np.bool_]:
    """Pixels of a cell, and those around it that no other cell is nearer to."""
    mine = cells == cell
    others = (cells != 0) & ~mine
    away: NDArray[np.float64] = ndimage.distance_transform_edt(~mine)
    near = away <= HALO
    if others.any():
        near &= away < ndimage.distance_transform_edt(~others)
    return near


def _turned(values: NDArray[Any], quarter_turns: int, flip: bool) -> NDArray[Any]:
    """Turn a copy to one of the 8 ways in which a square lies on itself."""
    return np.rot90(values[..., ::-1] if flip else values, quarter_turns, (-2, -1))


def _place(
    rng: np.random.Generator, box: Window, area: int, mine: NDArray[np.bool_], labels: NDArray[Any]
) -> Window | None:
    """Push a copy away from the middle of a cell, in a drawn direction, until it covers no more than it may."""
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0, MOST_COVERED)
    allowed = share * min(area, int(np.count_nonzero(mine)))
    rows, columns = mine.shape
    middle = [(side.start + side.stop) / 2 for side in box]
    farthest = rows + columns + sum(side.stop - side.start for side in box)
    for pixels in range(2, farthest):
        top = round(middle[0] + pixels * np.sin(angle) - rows / 2)
        left = round(middle[1] + pixels * np.cos(angle) - columns / 2)
        if top < 0 or left < 0 or top + rows > labels.shape[0] or left + columns > labels.shape[1]:
            return None
        place = slice(top, top + rows), slice(left, left + columns)
        if np.count_nonzero(labels[place][mine]) <= allowed:
            return place
    return None


def _as_before(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the numbers that the image holds."""
    if dtype.kind == "b":
        return values > 0.5
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    numbers = np.rint(values) if dtype.kind in "iu" else values
    return np.clip(numbers, limits.min, limits.max).astype(dtype)

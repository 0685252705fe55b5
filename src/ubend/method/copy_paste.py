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
"""Share of a copy that may lie on other cells."""
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
        New arrays of the same shapes and dtypes. What was labelled before keeps its number but where a brighter copy
        covers it. None if there is no room for a copy, or the cells do not differ from the background.

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
    boxes = {
        number: box for number, box in enumerate(ndimage.find_objects(np.maximum(labels, 0)), 1) if box is not None
    }
    whole = [number for number, box in boxes.items() if _inside(box, labels.shape)]
    if not whole:
        return None
    pasted, made = labels.copy(), 0
    seen, last = lift.copy(), int(labels.max())
    for beside in rng.permutation(list(boxes)):
        number = int(rng.choice(whole))
        mine, near, light = _turned(rng, *_cut_out(number, boxes[number], labels, lift))
        place = _place(rng, boxes[int(beside)], mine, pasted)
        if place is None:
            continue
        made += 1
        there, covered = pasted[place], mine & (pasted[place] > 0)
        light *= np.exp(rng.uniform(-np.log(BRIGHTER), np.log(BRIGHTER)))
        stronger = np.abs(light).sum(axis=0) > np.abs(seen[:, *place]).sum(axis=0)
        over = near & ((there == 0) | mine) & stronger
        on_top = not covered.any() or np.abs(light[:, mine]).mean() > np.abs(seen[:, *place][:, covered]).mean()
        seen[:, *place] = np.where(over, light, seen[:, *place])
        there[mine & ((there == 0) | (covered & stronger if on_top else False))] = last + made
    if made == 0:
        return None
    return _as_before(seen + background, image.dtype), pasted


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


def _cut_out(
    number: int, box: Window, labels: NDArray[Any], lift: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """Pixels of a cell, those with their surroundings that no other cell is nearer to, and their light."""
    window = widened(box, HALO, labels.shape)
    mine = labels[window] == number
    others = (labels[window] != 0) & ~mine
    away = ndimage.distance_transform_edt(~mine)
    near = away <= HALO
    if others.any():
        near &= away < ndimage.distance_transform_edt(~others)
    return mine, near, lift[:, *window]


def _turned(rng: np.random.Generator, *maps: NDArray[Any]) -> list[NDArray[Any]]:
    """Copies, in one of the 8 ways in which a square lies on itself."""
    quarter_turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    return [np.rot90(each[..., ::-1] if flip else each, quarter_turns, (-2, -1)).copy() for each in maps]


def _place(rng: np.random.Generator, box: Window, mine: NDArray[np.bool_], labels: NDArray[Any]) -> Window | None:
    """Push a copy away from the middle of a cell, in a drawn direction, until it covers no more than it may."""
    angle, allowed = rng.uniform(0, 2 * np.pi), rng.uniform(0, MOST_COVERED) * np.count_nonzero(mine)
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


def _as_before(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the numbers that the image holds."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)

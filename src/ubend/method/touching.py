"""The background gap between touching cells (Ronneberger et al. 2015, Section 3: "morphological operations").

The network learns foreground against background. Cells that touch would grow together in such a target, so a gap of
background is cut between them first; afterwards the connected components of the foreground are the cells again.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.method.nearest_cells import check_labels, two_nearest_cells


def separate_touching(labels: NDArray[Any], *, gap: int = 1) -> NDArray[Any]:
    """Cut a gap of background between cells that touch.

    A cell's pixel becomes background if the square of ``2 * gap + 1`` pixels around it holds a pixel of another cell.
    So touching cells lose `gap` pixels each, and end ``2 * gap`` pixels apart; cells with at least `gap` pixels of
    background between them stay as they are. All cells are treated alike: their numbers do not matter.

    A cell so thin that it would vanish keeps those of its pixels that lie farthest from all other cells. Its neighbours
    are cut all the same, so it stays apart from them, unless a neighbour is as thin as itself.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        Cells by number. 0 (background) and negative values (unlabelled) are no cells and stay as they are.
    gap : int
        Pixels to take from each of two touching cells; 0 takes none.

    Returns
    -------
    ndarray, shape and dtype of `labels`
        The cells, every one still there, with 0 in the gaps.

    Raises
    ------
    InputError
        If `labels` is not a two-dimensional array of integers, or `gap` is not a whole number from 0 on.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox: U-Net. MICCAI 2015, Section 3, doi:10.1007/978-3-319-24574-4_28. The authors
    published no details; their later plugin cuts one of the two cells only, the one that comes later in the scan.

    Examples
    --------
    >>> import numpy as np
    >>> separate_touching(np.array([[1, 1, 1, 2, 2, 2, 0, 3]]))
    array([[1, 1, 0, 0, 2, 2, 0, 3]])
    """
    check_labels(labels)
    if not isinstance(gap, (int, np.integer)) or isinstance(gap, bool) or gap < 0:
        raise InputError(f"gap is {gap!r}; allowed is a whole number of pixels from 0 on, usually 1.")
    if gap == 0:
        return labels.copy()
    cut = _has_other_cell_around(labels, int(gap))
    cut &= ~_last_pixels(labels, cut, int(gap))
    return np.where(cut, labels.dtype.type(0), labels)


def _has_other_cell_around(labels: NDArray[Any], gap: int) -> NDArray[np.bool_]:
    """Find the cells' pixels with another cell in the square of 2 · gap + 1 pixels around them."""
    is_cell = labels > 0
    highest = _extreme_around(labels, gap, np.maximum)
    without_background = np.where(is_cell, labels, np.iinfo(labels.dtype).max)
    lowest = _extreme_around(without_background, gap, np.minimum)
    other_cell: NDArray[np.bool_] = is_cell & ((highest != labels) | (lowest != labels))
    return other_cell


def _extreme_around(values: NDArray[Any], gap: int, extreme: np.ufunc) -> NDArray[Any]:
    """Take the maximum or minimum over the square around each pixel (SciPy's filters go by float: inexact in int64)."""
    for _ in range(2):  # along the rows' axis, then transposed along the other
        result = values.copy()
        for shift in range(1, min(gap, len(values) - 1) + 1):
            extreme(result[shift:], values[:-shift], out=result[shift:])
            extreme(result[:-shift], values[shift:], out=result[:-shift])
        values = result.T
    return values


def _last_pixels(labels: NDArray[Any], cut: NDArray[np.bool_], gap: int) -> NDArray[np.bool_]:
    """Find the pixels to leave to the cells that `cut` would take whole: those farthest from all other cells."""
    touched = np.unique(labels[cut])
    vanishing = touched[~np.isin(touched, labels[(labels > 0) & ~cut])]
    if vanishing.size == 0:
        return np.zeros(labels.shape, dtype=bool)
    rows, columns = np.nonzero(np.isin(labels, vanishing))
    # The corner of the square is gap · √2 away; inside a cell the nearest other cell is the second nearest.
    to_others = two_nearest_cells(labels, within=2 * gap)[1][rows, columns]
    which = np.searchsorted(vanishing, labels[rows, columns])
    farthest = np.zeros(vanishing.size, dtype=np.float32)
    np.maximum.at(farthest, which, to_others)
    stays = to_others == farthest[which]
    last = np.zeros(labels.shape, dtype=bool)
    last[rows[stays], columns[stays]] = True
    return last

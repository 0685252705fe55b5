"""What is painted over an image, and the labels that it stands for.

A person paints numbers: 0 is nothing said yet, 1 is background, and 2, 3, … are cells, or classes. So of an image with
three cells painted, and a stroke through the background, the rest is not taken for background: training ignores it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError

__all__ = [
    "BACKGROUND",
    "FIRST",
    "colours",
    "corrected",
    "labels_of",
    "new_number",
    "painting_of",
    "with_the_rest_background",
]

NOTHING, BACKGROUND, FIRST = 0, 1, 2
"""Numbers painted: not labelled, background, and the first cell or class."""
_MOST = 2**29
"""Of labels: with those of a result behind them, and new ones, 32 bits hold them."""
_COLOURS = 254
"""As many until they begin again: of fewer, more cells than need be would share that of the background."""
_BLUE = (0.36, 0.52, 0.92, 0.45)
_GOLDEN_RATIO = 0.61803398875


def labels_of(painted: NDArray[Any]) -> NDArray[np.int32]:
    """Turn what is painted into labels to train on.

    Parameters
    ----------
    painted : ndarray of int, shape (rows, columns)
        0 nothing, 1 background, 2 and above cells or classes.

    Returns
    -------
    ndarray of int32, shape (rows, columns)
        −1 where nothing is painted, 0 background, 1, 2, … cells or classes.

    Examples
    --------
    >>> labels_of(np.array([[0, 1, 2, 3]])).tolist()
    [[-1, 0, 1, 2]]
    """
    return painted.astype(np.int32) - np.int32(1)


def painting_of(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Turn labels into what could have been painted, to be corrected by hand.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        0 is background, negative is not labelled.

    Returns
    -------
    ndarray of int32, shape (rows, columns)

    Raises
    ------
    InputError
        If a number is too large to be painted.

    Examples
    --------
    >>> painting_of(np.array([[-1, 0, 1, 7]])).tolist()
    [[0, 1, 2, 8]]
    """
    if (largest := int(labels.max(initial=0))) > _MOST:
        raise InputError(f"labels are numbers up to {_MOST} here, not {largest}: number them anew")
    return np.maximum(labels.astype(np.int64) + 1, NOTHING).astype(np.int32)


def corrected(painted: NDArray[Any], result: NDArray[Any], *, numbers: bool) -> NDArray[np.int32]:
    """Take a result for a painting, to be corrected: what a person has painted stays.

    Parameters
    ----------
    painted : ndarray of int, shape (rows, columns)
    result : ndarray of int, shape (rows, columns)
        Labels, 0 is background.
    numbers : bool
        Whether labels number cells, so that those of the result get numbers beyond those painted, and a cell of the
        result that lies for more than half on painted cells is left out. Otherwise they are classes.

    Returns
    -------
    ndarray of int32, shape (rows, columns)
        Nothing in it is unlabelled.

    Examples
    --------
    >>> painted, result = np.array([[0, 2, 0, 0, 0]]), np.array([[1, 1, 0, 2, 0]])
    >>> corrected(painted, result, numbers=True).tolist(), corrected(painted, result, numbers=False).tolist()
    ([[3, 2, 1, 4, 1]], [[2, 2, 1, 3, 1]])
    """
    filled = painting_of(result)
    if numbers:
        cells, cell_of, own = np.unique(filled, return_inverse=True, return_counts=True)
        cell_of = cell_of.reshape(filled.shape)
        covered = np.bincount(cell_of[painted >= FIRST], minlength=own.size)
        filled[((2 * covered > own) & (cells >= FIRST))[cell_of]] = BACKGROUND
        filled[filled >= FIRST] += max(0, int(painted.max(initial=0)) - BACKGROUND)
    return np.where(painted == NOTHING, filled, painted).astype(np.int32)


def with_the_rest_background(painted: NDArray[Any]) -> NDArray[Any]:
    """Paint background wherever nothing is painted: the image is then annotated completely.

    Examples
    --------
    >>> with_the_rest_background(np.array([[0, 1, 4]])).tolist()
    [[1, 1, 4]]
    """
    return np.where(painted == NOTHING, painted.dtype.type(BACKGROUND), painted)


def new_number(painted: NDArray[Any]) -> int:
    """Return the number of a cell that is not painted yet.

    Examples
    --------
    >>> new_number(np.zeros((2, 2), int)), new_number(np.array([[0, 1, 5]]))
    (2, 6)
    """
    return max(FIRST, int(painted.max(initial=0)) + 1)


def colours() -> NDArray[np.float32]:
    """Give the colours of the numbers: a pale blue for the background, and hues that differ from number to number.

    Returns
    -------
    ndarray of float32, shape (colours, 4)
        Red, green, blue and opacity from 0 to 1; number k has the row k, and beyond the last they begin again at 1.

    Examples
    --------
    >>> colours()[:2].tolist() == [[0, 0, 0, 0], list(map(np.float32, _BLUE))]
    True
    """
    hue = (np.arange(_COLOURS) * _GOLDEN_RATIO) % 1.0
    ramps = np.abs((hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    found = np.concatenate([0.25 + 0.75 * np.clip(ramps, 0, 1), np.ones((_COLOURS, 1))], axis=1)
    found[NOTHING], found[BACKGROUND] = 0.0, _BLUE
    return found.astype(np.float32)

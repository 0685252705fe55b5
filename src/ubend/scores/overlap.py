"""The contingency table of two label images: how many pixels each pair of regions shares.

Everything that compares regions starts from this table. It is sparse: touching pairs only, so ten thousand cells
against ten thousand cells cost as much as the image has pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from ubend.errors import InputError

__all__ = ["Overlaps", "check_labels", "count_pairs", "overlaps"]


@dataclass(frozen=True)
class Overlaps:
    """Regions of two label images and the pixels that they share.

    Attributes
    ----------
    truth_ids : ndarray of int, shape (n,)
        The values that occur in the truth, ascending.
    ids : ndarray of int, shape (m,)
        The values that occur in the result, ascending.
    pixels : scipy.sparse.csr_array of int64, shape (n, m)
        Pixels that carry ``truth_ids[i]`` in the truth and ``ids[j]`` in the result.
    """

    truth_ids: NDArray[Any]
    ids: NDArray[Any]
    pixels: csr_array


def overlaps(truth: NDArray[Any], labels: NDArray[Any]) -> Overlaps:
    """Count the shared pixels of each pair of values of two label images.

    Parameters
    ----------
    truth, labels : ndarray of int or bool, same shape
        Any values, in any order, with gaps or without.

    Returns
    -------
    Overlaps

    Examples
    --------
    >>> table = overlaps(np.array([[7, 7, 0]]), np.array([[70000, 5, 5]]))
    >>> table.truth_ids.tolist(), table.ids.tolist()
    ([0, 7], [5, 70000])
    >>> table.pixels.toarray().tolist()
    [[1, 0], [1, 1]]
    """
    truth_ids, rows = np.unique(truth.ravel(), return_inverse=True)
    ids, columns = np.unique(labels.ravel(), return_inverse=True)
    return Overlaps(truth_ids, ids, count_pairs(rows, columns, (len(truth_ids), len(ids))))


def count_pairs(rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], shape: tuple[int, int]) -> csr_array:
    """Count how often each pair (row, column) occurs.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (pixels,)
        Indices from 0, below ``shape[0]`` and ``shape[1]``.
    shape : (int, int)
        Of the table.

    Returns
    -------
    scipy.sparse.csr_array of int64
        Linear in the number of pixels: sparse duplicates are summed by counting, not by sorting.

    Examples
    --------
    >>> count_pairs(np.array([0, 0, 1]), np.array([2, 2, 0]), (2, 3)).toarray().tolist()
    [[0, 0, 2], [1, 0, 0]]
    """
    return coo_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape).tocsr()


def check_labels(truth: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both label images as arrays of integers, or say what is wrong with them.

    Parameters
    ----------
    truth : ndarray of int or bool
        Negative values mark pixels that are not scored.
    labels : ndarray of int or bool, same shape
        The result; no negative values.

    Returns
    -------
    truth, labels : ndarray of int or bool

    Raises
    ------
    InputError
        For floating point labels, sizes that differ, or a negative value in the result.

    Examples
    --------
    >>> truth, labels = check_labels(np.array([True, False]), np.array([3, 0]))
    >>> truth.dtype.name
    'bool'
    """
    truth, labels = np.asarray(truth), np.asarray(labels)
    for name, array in (("truth", truth), ("labels", labels)):
        if array.dtype.kind not in "iub":
            raise InputError(
                f"{name} has data type {array.dtype}; labels are whole numbers or True/False. "
                "Convert it, e.g. with .astype(int), or threshold the probabilities first."
            )
    if truth.shape != labels.shape:
        raise InputError(f"truth has shape {truth.shape} and labels {labels.shape}; give two images of one size.")
    if labels.size and labels.min() < 0:
        raise InputError(
            f"labels contains {labels.min()}; a result has labels from 0 up. Only the truth may mark pixels to ignore."
        )
    return truth, labels

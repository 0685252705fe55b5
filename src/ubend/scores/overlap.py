"""The contingency table of two label images: how many pixels each pair of regions shares.

Everything that compares regions starts from this table. It is sparse: touching pairs only, so ten thousand cells
against ten thousand cells cost as much as the image has pixels. And it is counted from runs of equal pixels, of which a
label image has few, so that any numbers, up to the largest, cost the same.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from ubend.errors import InputError

__all__ = ["ObjectPairs", "Overlaps", "check_labels", "count_pairs", "object_pairs", "overlaps"]


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


@dataclass(frozen=True)
class ObjectPairs:
    """Objects of truth and result, and which of them share pixels.

    Attributes
    ----------
    truth_areas : ndarray of int64, shape (n,)
        Pixels of each object of the truth, in the order of its number.
    areas : ndarray of int64, shape (m,)
        Of each object of the result, without the pixels that are not scored.
    rows, columns : ndarray of int, shape (pairs,)
        Which object of the truth and which of the result share pixels, ordered by row, then column.
    shared : ndarray of int64, shape (pairs,)
        How many, at least 1.
    """

    truth_areas: NDArray[np.int64]
    areas: NDArray[np.int64]
    rows: NDArray[np.integer[Any]]
    columns: NDArray[np.integer[Any]]
    shared: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        """Pixels that belong to either of the two, for each pair."""
        union: NDArray[np.int64] = self.truth_areas[self.rows] + self.areas[self.columns] - self.shared
        return union

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, above 0."""
        return self.shared / self.union


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
    truth_runs, runs, lengths = _runs(truth.ravel(), labels.ravel())
    (truth_ids, rows), (ids, columns) = _number(truth_runs), _number(runs)
    return Overlaps(truth_ids, ids, coo_array((lengths, (rows, columns)), shape=(len(truth_ids), len(ids))).tocsr())


def object_pairs(truth: NDArray[Any], labels: NDArray[Any]) -> ObjectPairs:
    """Count the pixels that the objects of truth and result have, and those that each two of them share.

    Parameters
    ----------
    truth : ndarray of int or bool, any shape
        Objects; 0 is background. Pixels below 0 are left out on both sides.
    labels : ndarray of int or bool, same shape
        The result; 0 is background.

    Returns
    -------
    ObjectPairs

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, or negative `labels`.

    Examples
    --------
    >>> pairs = object_pairs(np.array([[1, 1, 1, 0, 2]]), np.array([[9, 9, 0, 0, 0]]))
    >>> pairs.truth_areas.tolist(), pairs.areas.tolist()
    ([3, 1], [2])
    >>> pairs.rows.tolist(), pairs.columns.tolist(), pairs.shared.tolist()
    ([0], [0], [2])
    """
    table = overlaps(*check_labels(truth, labels))
    scored = table.pixels[table.truth_ids >= 0]
    areas = scored.sum(axis=0)
    are_objects = np.flatnonzero(table.ids > 0)
    are_objects = are_objects[areas[are_objects] > 0]  # not those that lie altogether where nothing is scored
    of_truth = table.pixels[table.truth_ids > 0]
    shared = of_truth[:, are_objects].tocsr()
    shared.sort_indices()
    rows = np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
    return ObjectPairs(of_truth.sum(axis=1), areas[are_objects], rows, shared.indices, shared.data)


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
    row_runs, column_runs, lengths = _runs(rows, columns)
    return coo_array((lengths, (row_runs, column_runs)), shape=shape).tocsr()


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


def _runs(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Values of each run of pixels that are equal in both arrays, and the lengths of the runs."""
    starts = np.flatnonzero((first[1:] != first[:-1]) | (second[1:] != second[:-1])) + 1
    starts = np.concatenate([np.zeros(min(1, len(first)), np.intp), starts])
    return first[starts], second[starts], np.diff(starts, append=len(first)).astype(np.int64)


def _number(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the values that occur, ascending, and for each value its index among them."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if high - low > 2**16 + 4 * len(values) or max(-low, high) > np.iinfo(np.int64).max // 2:
        return np.unique(values, return_inverse=True)
    above_low = values.astype(np.int64) - low  # of few numbers a table is made, without sorting
    occurs = np.zeros(high - low + 1, bool)
    occurs[above_low] = True
    index = np.cumsum(occurs) - 1
    return (np.flatnonzero(occurs) + low).astype(values.dtype), index[above_low]

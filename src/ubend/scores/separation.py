"""Touching objects that come out apart: the question that the border weights of U-Net were made for.

Average precision answers it only in part. Where a hundred cells lie alone and two touch, the two may always be merged
and the score hardly moves. Here only the pairs that touch in the truth count.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ubend.errors import InputError
from ubend.scores.overlap import check_labels, count_pairs, overlaps

__all__ = ["Separation", "separation"]


@dataclass(frozen=True)
class Separation:
    """What became of the pairs of objects that touch in the truth; sum those of several images with ``+``.

    Attributes
    ----------
    pairs : int
        Pairs that share the border asked for.
    apart : int
        Pairs of which each object lies to more than half in an object of the result, and in another one than its
        neighbour.
    merged : int
        Pairs that lie, each to more than half, in one and the same object of the result. Of the others, neither apart
        nor merged, at least one was missed or broken up.
    """

    pairs: int
    apart: int
    merged: int

    def __add__(self, other: "Separation") -> "Separation":
        """Add the counts of two images."""
        return Separation(self.pairs + other.pairs, self.apart + other.apart, self.merged + other.merged)

    @property
    def share_apart(self) -> float:
        """Apart / pairs; nan where nothing touches."""
        return self.apart / self.pairs if self.pairs else float("nan")


def separation(truth: NDArray[Any], labels: NDArray[Any], *, shared: int = 5) -> Separation:
    """Count the touching pairs of the truth that the result holds apart.

    Parameters
    ----------
    truth : ndarray of int, shape (rows, columns)
        Objects; 0 is background, below 0 is not scored.
    labels : ndarray of int or bool, same shape
        The result; 0 is background.
    shared : int
        Pairs of neighbouring pixels (along an edge, 4 neighbours) over which two objects must touch for the pair to
        count.

    Returns
    -------
    Separation

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, negative `labels`, images that are not
        two-dimensional, or `shared` below 1.

    Examples
    --------
    Of three cells in a row, two are one in the result:

    >>> truth = np.repeat([[1, 1, 2, 2, 3, 3]], 5, axis=0)
    >>> labels = np.repeat([[7, 7, 7, 7, 8, 8]], 5, axis=0)
    >>> separation(truth, labels)
    Separation(pairs=2, apart=1, merged=1)
    """
    truth, labels = check_labels(truth, labels)
    if truth.ndim != 2:
        raise InputError(f"truth has the shape {truth.shape}; touching is counted in images (rows, columns).")
    if shared < 1:
        raise InputError(f"shared is {shared}; allowed is 1 or more pixels of common border, and 5 is usual.")
    scored = truth >= 0
    table = overlaps(truth[scored], labels[scored])
    partner = _partners(table.pixels, table.ids > 0)
    first, second = _touching(truth, shared)
    one, other = (partner[np.searchsorted(table.truth_ids, ids)] for ids in (first, second))
    found = (one >= 0) & (other >= 0)
    return Separation(len(first), int((found & (one != other)).sum()), int((found & (one == other)).sum()))


def _partners(pixels: csr_array, is_object: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Column of the object that holds more than half of each row's pixels; -1 where none does."""
    partner = np.full(pixels.shape[0], -1)
    cells = pixels.tocoo()
    rows, columns = cells.coords
    holds = (2 * cells.data > pixels.sum(axis=1)[rows]) & is_object[columns]
    partner[rows[holds]] = columns[holds]
    return partner


def _touching(truth: NDArray[Any], shared: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pairs of object numbers that meet at `shared` or more places."""
    one, other = (
        np.concatenate([a.ravel(), b.ravel()]) for a, b in ((truth[:-1], truth[:, :-1]), (truth[1:], truth[:, 1:]))
    )
    meet = (one > 0) & (other > 0) & (one != other)
    low, high = np.minimum(one[meet], other[meet]), np.maximum(one[meet], other[meet])
    ids, index = np.unique(np.concatenate([low, high]), return_inverse=True)
    rows, columns = index[: len(low)], index[len(low) :]
    counts = count_pairs(rows, columns, (len(ids), len(ids))).tocoo()
    enough = counts.data >= shared
    first, second = counts.coords
    return ids[first[enough]], ids[second[enough]]

"""One-to-one assignment of objects of which few touch: sparse, so that ten thousand of them cost little."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

__all__ = ["assign"]


def assign(
    rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], gain: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Choose pairs of the largest summed gain, no row and no column twice.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (pairs,)
        From 0. No pair comes twice.
    gain : ndarray of float64, shape (pairs,)
        Above 0.

    Returns
    -------
    ndarray of int, shape (chosen,)
        Indices of the chosen pairs, ascending.

    Examples
    --------
    The best pair, (0, 0), would leave both others out:

    >>> assign(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.6, 0.5, 0.4])).tolist()
    [1, 2]
    """
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1) if len(rows) else np.zeros(0, bool)
    contested = np.flatnonzero(~alone)
    if not len(contested):
        return np.flatnonzero(alone)
    _, i = np.unique(rows[contested], return_inverse=True)
    _, j = np.unique(columns[contested], return_inverse=True)
    n, m = i.max() + 1, j.max() + 1
    # A column of its own for each row, without gain, lets the row go without a partner.
    ceiling = gain.max() + 1
    cost = np.concatenate([ceiling - gain[contested], np.full(n, ceiling)])
    of_row = np.concatenate([i, np.arange(n)])
    of_column = np.concatenate([j, m + np.arange(n)])
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(
        coo_array((cost, (of_row, of_column)), shape=(n, m + n)).tocsr()
    )
    partner = np.empty(n, np.intp)
    partner[chosen_rows] = chosen_columns
    return np.sort(np.concatenate([np.flatnonzero(alone), contested[partner[i] == j]]))

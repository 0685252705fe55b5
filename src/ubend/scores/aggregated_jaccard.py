"""The aggregated Jaccard index of Kumar et al. 2017 (AJI, doi:10.1109/TMI.2017.2677499), and its one-to-one form, AJI+.

All pairs' shared pixels over all pairs' unions, where what found no partner adds to the union. AJI+ is that of
HoVer-Net's program (Graham et al. 2019, doi:10.1016/j.media.2019.101563).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.scores.assignment import assign
from ubend.scores.overlap import ObjectPairs, object_pairs

__all__ = ["AggregatedJaccard", "aggregated_jaccard", "pooled_aggregated_jaccard"]


@dataclass(frozen=True)
class AggregatedJaccard:
    """Pixels of the pairs of objects, of one image or of several.

    Attributes
    ----------
    intersection : int
        Pixels that the pairs share.
    union : int
        Pixels of the pairs' unions, and of the objects without a partner. Pixels of an object that takes part in
        several pairs (AJI only) count in each.
    one_to_one : bool
        False for AJI, True for AJI+.
    """

    intersection: int
    union: int
    one_to_one: bool = False

    @property
    def value(self) -> float:
        """The index, from 0 to 1; nan where neither truth nor result has an object."""
        return self.intersection / self.union if self.union else float("nan")


def aggregated_jaccard(truth: NDArray[Any], labels: NDArray[Any], *, one_to_one: bool = False) -> AggregatedJaccard:
    """Aggregate intersections and unions over the objects of an image.

    Parameters
    ----------
    truth : ndarray of int or bool, shape (rows, columns) or any other
        Objects; 0 is background. Pixels below 0 are left out on both sides.
    labels : ndarray of int or bool, same shape
        The result; 0 is background. The numbers need not be contiguous, nor agree with those of the truth.
    one_to_one : bool
        False: AJI. Each object of the truth takes the object of the result with the largest IoU, also one that another
        has taken; of equals the one that shares more pixels, then that of the lowest number. True: AJI+. No object is
        taken twice, and the summed IoU is the largest possible; of equals the sum that shares more pixels.

    Returns
    -------
    AggregatedJaccard
        0 for an empty truth or an empty result, nan if both are.

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, or negative `labels`.

    Notes
    -----
    AJI punishes a merger twice: both cells of the truth count the whole merged object into the union. HoVer-Net's
    program adds 1e-6 to each union before it compares, this one adds nothing. A third score of the same name is in
    Cellpose: pairs are one to one, and the denominator is the number of pixels that are foreground in either image.

    References
    ----------
    Kumar et al. 2017, "A dataset and a technique for generalized nuclear segmentation for computational pathology",
    doi:10.1109/TMI.2017.2677499, Algorithm 1.

    Examples
    --------
    Two cells found as one: each takes it, and its four pixels count twice.

    >>> truth, labels = np.array([[1, 1, 1, 2]]), np.array([[5, 5, 5, 5]])
    >>> aggregated_jaccard(truth, labels)
    AggregatedJaccard(intersection=4, union=8, one_to_one=False)
    >>> aggregated_jaccard(truth, labels, one_to_one=True).value
    0.6
    """
    pairs = object_pairs(truth, labels)
    chosen = _one_to_one(pairs) if one_to_one else _best_of_each(pairs)
    rows, columns = pairs.rows[chosen], pairs.columns[chosen]
    without_partner = np.delete(pairs.truth_areas, rows).sum() + np.delete(pairs.areas, columns).sum()
    union = pairs.union[chosen].sum() + without_partner
    return AggregatedJaccard(int(pairs.shared[chosen].sum()), int(union), one_to_one)


def pooled_aggregated_jaccard(several: Iterable[AggregatedJaccard]) -> AggregatedJaccard:
    """Sum the pixels of several images, as if they were one.

    Papers also average the images' values: say which.

    Parameters
    ----------
    several : iterable of AggregatedJaccard
        At least one, all AJI or all AJI+.

    Returns
    -------
    AggregatedJaccard

    Raises
    ------
    InputError
        For none, or for AJI mixed with AJI+.

    Examples
    --------
    >>> pooled_aggregated_jaccard([AggregatedJaccard(1, 2), AggregatedJaccard(2, 8)]).value
    0.3
    """
    several = list(several)
    kinds = {one.one_to_one for one in several}
    if len(kinds) != 1:
        came = "no image" if not kinds else "both AJI and AJI+"
        raise InputError(f"Aggregated Jaccard indices of {came} came; pool at least one, all of one kind.")
    return AggregatedJaccard(sum(one.intersection for one in several), sum(one.union for one in several), *kinds)


def _best_of_each(pairs: ObjectPairs) -> NDArray[np.intp]:
    """Index of the pair with the largest IoU of each object of the truth that has any."""
    order = np.lexsort((-pairs.shared, -pairs.iou, pairs.rows))  # stable: equals stay in the order of their numbers
    _, first = np.unique(pairs.rows[order], return_index=True)
    return order[first]


def _one_to_one(pairs: ObjectPairs) -> NDArray[np.intp]:
    """Indices of the pairs of an assignment of largest summed IoU."""
    tie_break = 1e-9 * pairs.shared / pairs.shared.max(initial=1)
    return assign(pairs.rows, pairs.columns, pairs.iou + tie_break)

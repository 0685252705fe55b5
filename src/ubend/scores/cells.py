"""Cells found, missed and invented: F1, average precision and panoptic quality at an IoU threshold.

The matching is that of StarDist (Schmidt et al. 2018, doi:10.1007/978-3-030-00934-2_30); the panoptic quality that of
Kirillov et al. 2019, Eq. 1 (doi:10.1109/CVPR.2019.00963).

"Average precision" here is TP/(TP+FP+FN) at one threshold, as this field has it, not the area under a curve. Summed
over the images first (`pooled`, StarDist) or averaged over the images (Cellpose) it gives different numbers: say which.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ubend.errors import InputError
from ubend.scores.overlap import check_labels, overlaps

__all__ = ["Matching", "match", "pooled"]


@dataclass(frozen=True)
class Matching:
    """How many objects of truth and result were matched one to one, and how well.

    Whatever has nothing to count (0/0) is nan: an image without objects in both truth and result says nothing about
    precision, and neither raises nor lowers a pooled score.

    Attributes
    ----------
    iou_threshold : float
        A pair counts from this intersection over union on.
    tp, fp, fn : int
        Pairs; objects of the result without a partner; objects of the truth without a partner.
    iou_sum : float
        Of the pairs.
    """

    iou_threshold: float
    tp: int
    fp: int
    fn: int
    iou_sum: float

    @property
    def n_truth(self) -> int:
        """Number of objects in the truth."""
        return self.tp + self.fn

    @property
    def n_predicted(self) -> int:
        """Number of objects in the result."""
        return self.tp + self.fp

    @property
    def precision(self) -> float:
        """Share of the result's objects that have a partner: TP/(TP+FP)."""
        return _ratio(self.tp, self.n_predicted)

    @property
    def recall(self) -> float:
        """Share of the truth's objects that have a partner: TP/(TP+FN)."""
        return _ratio(self.tp, self.n_truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2TP/(2TP+FP+FN)."""
        return _ratio(2 * self.tp, self.n_truth + self.n_predicted)

    @property
    def average_precision(self) -> float:
        """What StarDist calls accuracy and the Data Science Bowl precision: TP/(TP+FP+FN)."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def mean_matched_iou(self) -> float:
        """Mean intersection over union of the pairs."""
        return _ratio(self.iou_sum, self.tp)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the pairs' IoU over TP + FP/2 + FN/2."""
        return _ratio(2 * self.iou_sum, self.n_truth + self.n_predicted)


def match(truth: NDArray[Any], labels: NDArray[Any], iou_threshold: float = 0.5) -> Matching:
    """Match the objects of a result with those of the truth, one to one.

    As many pairs as possible, each of at least the threshold; among equals, those of the largest summed IoU.

    Parameters
    ----------
    truth : ndarray of int or bool, shape (rows, columns) or any other
        Objects; 0 is background. Pixels below 0 are left out on both sides: an object that lies there altogether is
        neither right nor wrong, of another one the rest is compared.
    labels : ndarray of int or bool, same shape
        The result; 0 is background. The numbers need not be contiguous, nor agree with those of the truth.
    iou_threshold : float
        Above 0, up to 1. A pair whose intersection over union equals it counts.

    Returns
    -------
    Matching

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, negative `labels`, or a threshold out of range.

    Notes
    -----
    TP, FP and FN equal StarDist's at every threshold, and from 0.5 on the IoU as well. Below 0.5, where an object has
    several candidates, StarDist lets pairs that do not count take part in the choice; here only those that count do. So
    the candidates fall into small groups, and the assignment costs little for 10,000 objects that all touch.

    References
    ----------
    Schmidt, Weigert, Broaddus, Myers 2018, "Cell detection with star-convex polygons",
    doi:10.1007/978-3-030-00934-2_30.

    Examples
    --------
    One object found with IoU 2/3, one missed:

    >>> truth = np.array([[1, 1, 1, 0, 2]])
    >>> labels = np.array([[9, 9, 0, 0, 0]])
    >>> found = match(truth, labels)
    >>> found.tp, found.fp, found.fn, found.average_precision
    (1, 0, 1, 0.5)
    """
    if not 0 < iou_threshold <= 1:
        raise InputError(f"iou_threshold is {iou_threshold}; allowed is above 0 up to 1, and 0.5 is usual.")
    truth, labels = check_labels(truth, labels)
    scored = truth >= 0
    table = overlaps(truth[scored], labels[scored])
    are_objects = np.ix_(np.flatnonzero(table.truth_ids > 0), np.flatnonzero(table.ids > 0))
    shared = table.pixels[are_objects].tocoo()
    truth_areas = table.pixels.sum(axis=1)[table.truth_ids > 0]
    areas = table.pixels.sum(axis=0)[table.ids > 0]
    rows, columns = shared.coords
    iou = shared.data / (truth_areas[rows] + areas[columns] - shared.data)
    counts = iou >= iou_threshold
    pairs = coo_array((iou[counts], (rows[counts], columns[counts])), shape=shared.shape)
    matched = np.concatenate([[], *_assign(pairs)])
    tp = len(matched)
    return Matching(float(iou_threshold), tp, len(areas) - tp, len(truth_areas) - tp, float(matched.sum()))


def pooled(matchings: Iterable[Matching]) -> Matching:
    """Sum the counts of several images, as if they were one.

    Parameters
    ----------
    matchings : iterable of Matching
        At least one, all of the same threshold.

    Returns
    -------
    Matching

    Raises
    ------
    InputError
        For none, or for several thresholds.

    Examples
    --------
    >>> pooled([Matching(0.5, 1, 0, 0, 0.9), Matching(0.5, 0, 2, 1, 0.0)])
    Matching(iou_threshold=0.5, tp=1, fp=2, fn=1, iou_sum=0.9)
    """
    matchings = list(matchings)
    thresholds = sorted({matching.iou_threshold for matching in matchings})
    if len(thresholds) != 1:
        raise InputError(
            f"Matchings of {len(thresholds)} IoU thresholds came: {thresholds}. Pool at least one, of one threshold."
        )
    return Matching(
        thresholds[0],
        sum(matching.tp for matching in matchings),
        sum(matching.fp for matching in matchings),
        sum(matching.fn for matching in matchings),
        float(sum(matching.iou_sum for matching in matchings)),
    )


def _assign(pairs: coo_array) -> Iterator[NDArray[np.float64]]:
    """Yield the IoU of the pairs of a best one-to-one assignment, group by group of objects that compete."""
    rows, columns = pairs.coords
    n = sum(pairs.shape)
    graph = coo_array((np.ones(pairs.nnz), (rows, columns + pairs.shape[0])), shape=(n, n))
    _, group_of_object = connected_components(graph, directed=False)
    groups = group_of_object[rows]
    sizes = np.bincount(groups, minlength=1)[groups]
    yield pairs.data[sizes == 1]
    for group in np.unique(groups[sizes > 1]):
        members = groups == group
        yield _assign_group(rows[members], columns[members], pairs.data[members])


def _assign_group(rows: NDArray[Any], columns: NDArray[Any], iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Assign the objects of one group: first as many pairs as possible, then the largest sum of IoU."""
    _, i = np.unique(rows, return_inverse=True)
    _, j = np.unique(columns, return_inverse=True)
    dense = np.zeros((i.max() + 1, j.max() + 1))
    dense[i, j] = iou
    gain = (dense > 0) + dense / (2 * min(dense.shape))  # all IoU together weigh less than one pair more
    chosen: NDArray[np.float64] = dense[linear_sum_assignment(gain, maximize=True)]
    return chosen[chosen > 0]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")

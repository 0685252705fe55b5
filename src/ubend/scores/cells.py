"""Cells found, missed and invented: F1, average precision, panoptic quality; SEG and DET; AJI and AJI+; pairs apart.

The matching is that of StarDist (Schmidt et al. 2018, doi:10.1007/978-3-030-00934-2_30); the panoptic quality that of
Kirillov et al. 2019, Eq. 1 (doi:10.1109/CVPR.2019.00963).

"Average precision" here is TP/(TP+FP+FN) at one threshold, as this field has it, not the area under a curve. Summed
over the images first (`pooled`, StarDist) or averaged over the images (Cellpose) it gives different numbers: say which.

SEG and DET of the Cell Tracking Challenge, the aggregated Jaccard index, and the separation of touching objects have
files of their own (`scores/tracking_challenge.py`, `scores/aggregated_jaccard.py`, `scores/separation.py`) and are
found here as well.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.scores.aggregated_jaccard import AggregatedJaccard, aggregated_jaccard, pooled_aggregated_jaccard
from ubend.scores.assignment import assign
from ubend.scores.overlap import ObjectPairs, object_pairs
from ubend.scores.separation import Separation, separation
from ubend.scores.tracking_challenge import Detections, detections, pooled_detections, seg

__all__ = [
    "AggregatedJaccard",
    "Detections",
    "Matching",
    "Separation",
    "aggregated_jaccard",
    "detections",
    "match",
    "match_all",
    "pooled",
    "pooled_aggregated_jaccard",
    "pooled_detections",
    "seg",
    "separation",
]


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

    >>> import numpy as np
    >>> truth = np.array([[1, 1, 1, 0, 2]])
    >>> labels = np.array([[9, 9, 0, 0, 0]])
    >>> found = match(truth, labels)
    >>> found.tp, found.fp, found.fn, found.average_precision
    (1, 0, 1, 0.5)
    """
    return match_all(truth, labels, [iou_threshold])[0]


def match_all(truth: NDArray[Any], labels: NDArray[Any], iou_thresholds: Iterable[float]) -> tuple[Matching, ...]:
    """Match at several thresholds; the pixels are counted once.

    Parameters
    ----------
    truth, labels : ndarray of int or bool, same shape
        As for `match`.
    iou_thresholds : iterable of float
        Each above 0, up to 1.

    Returns
    -------
    tuple of Matching
        One for each threshold, in the same order.

    Raises
    ------
    InputError
        As for `match`.

    Examples
    --------
    >>> import numpy as np
    >>> truth, labels = np.array([[1, 1, 1, 0]]), np.array([[9, 9, 0, 0]])
    >>> [found.tp for found in match_all(truth, labels, [0.5, 0.75])]
    [1, 0]
    """
    thresholds = [float(threshold) for threshold in iou_thresholds]
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise InputError(f"iou_threshold is {threshold}; allowed is above 0 up to 1, and 0.5 is usual.")
    pairs = object_pairs(truth, labels)
    return tuple(_match(pairs, threshold) for threshold in thresholds)


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


def _match(pairs: ObjectPairs, threshold: float) -> Matching:
    """Assign as many pairs as possible, then those of the largest sum of IoU."""
    counts = pairs.iou >= threshold
    iou = pairs.iou[counts]
    n = min(len(pairs.truth_areas), len(pairs.areas))
    gain = 1 + iou / (2 * max(n, 1))  # all IoU together weigh less than one pair more
    chosen = assign(pairs.rows[counts], pairs.columns[counts], gain)
    tp = len(chosen)
    return Matching(threshold, tp, len(pairs.areas) - tp, len(pairs.truth_areas) - tp, math.fsum(iou[chosen]))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")

"""SEG and DET, the segmentation and detection scores of the Cell Tracking Challenge.

Both start from the same test: an object of the truth is found by the object of the result that covers more than half of
it. At most one does. One object of the result may find several of the truth (a merger).

Definitions: Maška et al. 2014 (SEG, doi:10.1093/bioinformatics/btu080); Matula et al. 2015 (AOGM,
doi:10.1371/journal.pone.0144959); Maška et al. 2023 (DET, doi:10.1038/s41592-023-01879-y).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.scores.overlap import ObjectPairs, object_pairs

__all__ = ["Detections", "detections", "pooled_detections", "seg"]

SPLIT, MISSED, INVENTED = 5, 10, 1  # the challenge's weights of the corrections


@dataclass(frozen=True)
class Detections:
    """What must be corrected by hand until each object of the truth is found once, and nothing else is.

    Attributes
    ----------
    splits_needed : int
        NS: an object of the result that finds m > 1 objects of the truth must be split m - 1 times.
    missed : int
        FN: objects of the truth that no object of the result covers by more than half.
    invented : int
        FP: objects of the result that cover more than half of none.
    n_truth : int
        Objects of the truth.
    """

    splits_needed: int
    missed: int
    invented: int
    n_truth: int

    @property
    def det(self) -> float:
        """DET: 1 - min(AOGM-D, AOGM-D0) / AOGM-D0, from 0 to 1.

        AOGM-D = 5 NS + 10 FN + 1 FP is the cost of the corrections, AOGM-D0 = 10 `n_truth` that of starting from
        nothing. nan without an object in the truth, which the challenge's own program refuses.
        """
        from_nothing = MISSED * self.n_truth
        if from_nothing == 0:
            return float("nan")
        cost = SPLIT * self.splits_needed + MISSED * self.missed + INVENTED * self.invented
        return 1 - min(cost, from_nothing) / from_nothing


def seg(truth: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Jaccard index of each object R of the truth with the object S of the result that covers more than half of it.

    The SEG score of the Cell Tracking Challenge is the mean of these numbers over the objects of all images, put
    together: an image with many objects weighs more than one with few. The mean of the images' means is another score.

    Parameters
    ----------
    truth : ndarray of int or bool, shape (rows, columns) or any other
        Objects; 0 is background. Pixels below 0 are left out on both sides.
    labels : ndarray of int or bool, same shape
        The result; 0 is background. The numbers need not be contiguous, nor agree with those of the truth.

    Returns
    -------
    ndarray of float64, shape (objects of the truth,)
        In the order of their numbers: ``|R∩S| / |R∪S|``, or 0 where no S has ``|R∩S| > |R|/2``. Empty for a truth
        without objects, whatever the result: SEG does not see invented objects. All 0 for an empty result.

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, or negative `labels`.

    Notes
    -----
    The condition looks at R alone. So one S may be compared with several R, and each of two merged cells keeps what S
    has in common with it. Exactly half is not enough.

    References
    ----------
    Maška et al. 2014, "A benchmark for comparison of cell tracking algorithms", doi:10.1093/bioinformatics/btu080.

    Examples
    --------
    Object 1 is covered by two thirds; of object 2 only half is:

    >>> seg(np.array([[1, 1, 1, 0, 2, 2]]), np.array([[9, 9, 0, 0, 0, 5]])).round(3).tolist()
    [0.667, 0.0]
    """
    pairs = object_pairs(truth, labels)
    found = _finds(pairs)
    jaccard = np.zeros(len(pairs.truth_areas))
    jaccard[pairs.rows[found]] = pairs.iou[found]
    return jaccard


def detections(truth: NDArray[Any], labels: NDArray[Any]) -> Detections:
    """Count the corrections of the DET score of the Cell Tracking Challenge.

    Parameters
    ----------
    truth : ndarray of int or bool, shape (rows, columns) or any other
        Objects, or a marker of each; 0 is background. Pixels below 0 are left out on both sides. The challenge takes
        the markers of its tracking truth (TRA); where there are none, the objects themselves are the markers.
    labels : ndarray of int or bool, same shape
        The result; 0 is background. The numbers need not be contiguous, nor agree with those of the truth.

    Returns
    -------
    Detections
        An empty result misses all and has `Detections.det` 0; without an object in the truth that is nan.

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, or negative `labels`.

    References
    ----------
    Matula et al. 2015, "Cell tracking accuracy measurement based on comparison of acyclic oriented graphs",
    doi:10.1371/journal.pone.0144959.

    Examples
    --------
    Two objects found as one, one missed, one invented: 5 + 10 + 1 of 30.

    >>> found = detections(np.array([[1, 2, 0, 3, 0]]), np.array([[7, 7, 0, 0, 8]]))
    >>> found
    Detections(splits_needed=1, missed=1, invented=1, n_truth=3)
    >>> round(found.det, 3)
    0.467
    """
    pairs = object_pairs(truth, labels)
    found = _finds(pairs)
    finds = np.bincount(pairs.columns[found], minlength=len(pairs.areas))
    n_truth, n_found = len(pairs.truth_areas), int(found.sum())
    return Detections(n_found - int((finds > 0).sum()), n_truth - n_found, int((finds == 0).sum()), n_truth)


def pooled_detections(several: Iterable[Detections]) -> Detections:
    """Sum the counts of several images, as the challenge does over the frames of a video.

    Parameters
    ----------
    several : iterable of Detections
        At least one.

    Returns
    -------
    Detections

    Raises
    ------
    InputError
        For none.

    Examples
    --------
    >>> pooled_detections([Detections(0, 1, 0, 5), Detections(1, 0, 2, 5)])
    Detections(splits_needed=1, missed=1, invented=2, n_truth=10)
    """
    several = list(several)
    if not several:
        raise InputError("Detections of no image came; pool at least one.")
    return Detections(
        sum(one.splits_needed for one in several),
        sum(one.missed for one in several),
        sum(one.invented for one in several),
        sum(one.n_truth for one in several),
    )


def _finds(pairs: ObjectPairs) -> NDArray[np.bool_]:
    """Whether the object of the result covers more than half of the one of the truth, for each pair."""
    finds: NDArray[np.bool_] = 2 * pairs.shared > pairs.truth_areas[pairs.rows]
    return finds

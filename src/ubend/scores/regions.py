"""Pixel scores of each class, from the confusion matrix: IoU, Dice, precision, recall.

A high pixel score is easily had: two cells merged by a bridge of ten pixels lose nothing here. Count the cells as well
(`ubend.scores.cells`) wherever touching objects matter.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.scores.overlap import check_labels

__all__ = ["confusion", "dice", "iou", "mean", "precision", "recall"]


def confusion(truth: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count the pixels of each pair of true class and found class.

    Parameters
    ----------
    truth : ndarray of int or bool, any shape
        Classes 0 to ``classes - 1``; pixels below 0 are left out.
    labels : ndarray of int or bool, same shape
        The result, classes 0 to ``classes - 1``.
    classes : int
        Number of classes, background included.

    Returns
    -------
    ndarray of int64, shape (classes, classes)
        ``[i, j]``: pixels of class i that were found to be j. Matrices of several images may be added.

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, or values outside of the classes.

    Examples
    --------
    >>> confusion(np.array([[0, 0, 1, -1]]), np.array([[0, 1, 1, 1]]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    if classes < 1:
        raise InputError(f"classes is {classes}; allowed is 1 or more, and 2 for foreground and background.")
    truth, labels = check_labels(truth, labels)
    scored = truth >= 0
    for name, values in (("truth", truth[scored]), ("labels", labels[scored])):
        if values.size and values.max() >= classes:
            raise InputError(
                f"{name} contains {int(values.max())}; of {classes} classes the values are 0 to {classes - 1}. "
                "Of a mask of 0 and 255, give mask > 0; of instances, too, or use ubend.scores.cells.match."
            )
    packed = truth[scored].astype(np.int64) * classes + labels[scored].astype(np.int64)
    return np.bincount(packed, minlength=classes * classes).reshape(classes, classes)


def iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, TP/(TP+FP+FN), also called the Jaccard index.

    Parameters
    ----------
    confusion : ndarray of int64, shape (classes, classes)
        From `confusion`.

    Returns
    -------
    ndarray of float64, shape (classes,)
        nan for a class that neither truth nor result has.

    Raises
    ------
    InputError
        If the matrix is not square.

    Examples
    --------
    >>> iou(np.array([[1, 1], [0, 1]])).tolist()
    [0.5, 0.5]
    """
    right, found, true = _margins(confusion)
    return _ratio(right, found + true - right)


def dice(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice coefficient of each class, 2TP/(2TP+FP+FN), which is also the F1 score of its pixels.

    Parameters
    ----------
    confusion : ndarray of int64, shape (classes, classes)
        From `confusion`.

    Returns
    -------
    ndarray of float64, shape (classes,)
        nan for a class that neither truth nor result has.

    Raises
    ------
    InputError
        If the matrix is not square.

    Examples
    --------
    >>> dice(np.array([[2, 2], [0, 2]])).round(3).tolist()
    [0.667, 0.667]
    """
    right, found, true = _margins(confusion)
    return _ratio(2 * right, found + true)


def precision(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels found to be of a class that are, TP/(TP+FP).

    Parameters
    ----------
    confusion : ndarray of int64, shape (classes, classes)
        From `confusion`.

    Returns
    -------
    ndarray of float64, shape (classes,)
        nan for a class that the result does not have.

    Raises
    ------
    InputError
        If the matrix is not square.

    Examples
    --------
    >>> precision(np.array([[1, 1], [0, 1]])).tolist()
    [1.0, 0.5]
    """
    right, found, _ = _margins(confusion)
    return _ratio(right, found)


def recall(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels of a class that were found, TP/(TP+FN).

    Parameters
    ----------
    confusion : ndarray of int64, shape (classes, classes)
        From `confusion`.

    Returns
    -------
    ndarray of float64, shape (classes,)
        nan for a class that the truth does not have.

    Raises
    ------
    InputError
        If the matrix is not square.

    Examples
    --------
    >>> recall(np.array([[1, 1], [0, 1]])).tolist()
    [0.5, 1.0]
    """
    right, _, true = _margins(confusion)
    return _ratio(right, true)


def mean(scores: NDArray[np.float64]) -> float:
    """Average a score over the classes that have one.

    Parameters
    ----------
    scores : ndarray of float64, shape (classes,)
        From `iou`, `dice`, `precision` or `recall`. The background is a class like the others: give ``scores[1:]`` to
        leave it out, as most papers do.

    Returns
    -------
    float
        nan values are left out; nan if nothing is left.

    Notes
    -----
    Of several images, add the confusion matrices first: a class that one of them lacks is then no case of its own.
    Programs that count such a class as 0, or as 1, have another mean.

    Examples
    --------
    >>> mean(np.array([1.0, 0.5, np.nan]))
    0.75
    """
    counted = scores[~np.isnan(scores)]
    return float(counted.mean()) if counted.size else float("nan")


def _margins(confusion: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each class that are right, that were found, that are true."""
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise InputError(
            f"confusion has shape {confusion.shape}; it is square, as ubend.scores.regions.confusion has it."
        )
    return confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio

"""Which scores suit which task, and what each of them means in one line.

The few are what a model is watched by while it trains; all are what a reader of results wants to see.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Kind
from ubend.run.pooling import Column, Score, mean_of_images
from ubend.scores import cells, em_challenge, regions
from ubend.scores.aggregated_jaccard import aggregated_jaccard
from ubend.scores.separation import Separation, separation
from ubend.scores.tracking_challenge import INVENTED, MISSED, SPLIT, Detections, detections, seg

__all__ = ["HEADLINES", "Scored", "score_binary", "score_classes", "score_instances"]

HEADLINES: dict[Kind, str] = {"binary": "IoU", "classes": "mean IoU", "instances": "AP@0.5 (pooled)"}
"""The one overall score of each task by which to compare two models; higher is better."""

_IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))

_IOU = Score("IoU", "foreground that both mark, of all that either marks", "pixels")
_DICE = Score("Dice", "the same overlap as 2 · shared / (marked by one + by the other)", "pixels")
_PRECISION = Score("precision", "share of the result's foreground that is right", "pixels")
_RECALL = Score("recall", "share of the true foreground that was found", "pixels")
_V_RAND = Score("V_Rand", "pixel pairs together or apart as in the truth, after thinning", "images")
_V_INFO = Score("V_Info", "what truth and result tell of each other, after thinning", "images")
_PIXEL_ERROR = Score("pixel error", "1 − F-score of the pixels inside cells, best threshold", "pixels", False)
_RAND_ERROR = Score("Rand error", "1 − F-score of pixel pairs, without thinning, best threshold", "pixels", False)
_WARPING_ERROR = Score("warping error", "pixels of splits and mergers, borders moved freely; of all", "pixels", False)
_AP_05 = Score("AP@0.5 (pooled)", "found / (found + missed + invented); found: IoU ≥ 0.5", "objects")
_F1 = Score("F1@0.5 (pooled)", "2 found / (2 found + missed + invented), IoU ≥ 0.5", "objects")
_PQ = Score("PQ@0.5 (pooled)", "F1@0.5 times the mean IoU of the objects found", "objects")
_AP_075 = Score("AP@0.75 (pooled)", "as AP@0.5, but found only from IoU 0.75 on", "objects")
_AP_ALL = Score("AP@0.5:0.95 (pooled)", "mean of the AP at IoU 0.5, 0.55 … 0.95", "objects")
_SEG = Score("SEG", "IoU of each true object with what covers over half of it, else 0", "objects")
_DET = Score("DET", "1 − cost of correcting splits (5), misses (10) and inventions (1)", "objects")
_AJI = Score("AJI (mean of images)", "pixels shared by best partners, of all pixels of all objects", "images")
_APART = Score("pairs apart", "of objects that touch along 5 px or more, pairs found as two", "objects")
_AJI_PLUS = Score("AJI+ (mean of images)", "the same, with each object taken once", "images")


@dataclass(frozen=True)
class Scored:
    """Scores of several images, and what else a reader must know.

    Attributes
    ----------
    columns : tuple of Column
        In the order in which to show them.
    notes : tuple of str
        A sentence each.
    confusion : ndarray of int64, shape (classes, classes), or None
        Pixels of all images by true class and found class.
    """

    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    confusion: NDArray[np.int64] | None = None


def score_binary(
    truths: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    probabilities: Sequence[NDArray[np.float32]] | None = None,
    *,
    extent: Literal["few", "all"] = "all",
    em2012: bool = False,
) -> Scored:
    """Score foreground against foreground.

    Parameters
    ----------
    truths : sequence of ndarray of int, shape (rows, columns)
        0, 1, and -1 where nothing is scored. V_Rand, V_Info and the errors of 2012 follow regions through the whole
        image: one with a pixel that is not scored has none of them.
    results : sequence of ndarray of int, shape (rows, columns)
        0 and 1.
    probabilities : sequence of ndarray of float32, shape (classes, rows, columns), optional
        Of the results; V_Rand and V_Info are then taken from the last class, at the best of 11 thresholds.
    extent : {"few", "all"}
    em2012 : bool
        Also the errors by which the EM challenge scored in 2012; the warping error takes seconds an image.

    Returns
    -------
    Scored

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 0]])
    >>> scored = score_binary([truth], [np.array([[1, 0, 0, 0]])])
    >>> [(column.score.name, column.overall()) for column in scored.columns[2:4]]
    [('precision', 1.0), ('recall', 0.5)]
    """
    counts = _confusions(truths, results, 2)
    overlap = [_of_foreground(score, counts) for score in (_IOU, _DICE)]
    errors = [_of_foreground(score, counts) for score in (_PRECISION, _RECALL)] if extent == "all" else []
    whole = np.array([bool((truth >= 0).all()) for truth in truths])
    inside = [truth == 1 for truth, complete in zip(truths, whole, strict=True) if complete]
    maps = [result == 1 for result in results] if probabilities is None else [classes[-1] for classes in probabilities]
    proposals = [proposal for proposal, complete in zip(maps, whole, strict=True) if complete]
    v_columns, notes = _v_scores(inside, proposals, of_labels=probabilities is None)
    old, notes_of_2012 = _errors_of_2012(inside, proposals) if em2012 else ([], [])
    columns = [_in_all_images(column, whole) for column in (*v_columns, *old)]
    left_out = _left_out(int((~whole).sum()), len(truths), em2012=em2012)
    return Scored((*overlap, *errors, *columns), (*notes, *notes_of_2012, *left_out), _total(counts))


def _in_all_images(column: Column, has: NDArray[np.bool_]) -> Column:
    """Spread a score of some images over all of them; the others have nothing to score."""
    sides = np.zeros((2, len(has), 1))
    sides[:, has] = column.numerator, column.denominator
    return replace(column, numerator=sides[0], denominator=sides[1])


def _left_out(n: int, of: int, *, em2012: bool) -> tuple[str, ...]:
    if n == 0:
        return ()
    which = "V_Rand, V_Info and the errors of 2012" if em2012 else "V_Rand and V_Info"
    return (f"{which} are of whole images; left out: {n} of {of}, with pixels that are not scored.",)


def _v_scores(
    inside: Sequence[NDArray[np.bool_]], proposals: Sequence[NDArray[Any]], *, of_labels: bool
) -> tuple[list[Column], list[str]]:
    """Score by V_Rand and V_Info, each at its own best threshold."""
    if not inside:
        return [_of_no_image(score) for score in (_V_RAND, _V_INFO)], []
    both = em_challenge.v_scores(inside, proposals)
    chosen = " and ".join(f"{score.threshold:.1f}" for score in both)
    how = f"from the probabilities, at the best of 11 thresholds over all images ({chosen}); intervals keep them."
    if of_labels:
        how = "from the label images as they are."
    has_inside = np.array([[image.any()] for image in inside])
    columns = [
        # A slice with cells whose score is 0/0 stays nan here, and makes the mean nan, as the organisers' does.
        Column(score, np.where(has_inside, _column(found.slices), 0.0), has_inside.astype(np.float64))
        for score, found in zip((_V_RAND, _V_INFO), both, strict=True)
    ]
    return columns, [f"V_Rand and V_Info: after thinning, {how}"]


def _errors_of_2012(
    inside: Sequence[NDArray[np.bool_]], proposals: Sequence[NDArray[Any]]
) -> tuple[list[Column], list[str]]:
    """Score by the errors of 2012, each at its own best threshold."""
    if not inside:
        return [_of_no_image(score) for score in (_PIXEL_ERROR, _RAND_ERROR, _WARPING_ERROR)], []
    pixel, rand = em_challenge.pixel_error(inside, proposals), em_challenge.rand_error(inside, proposals)
    warping = em_challenge.warping_error(inside, proposals)
    found = [proposal > np.float64(pixel.threshold) for proposal in proposals]
    wrong = _column(int((one != cells).sum()) for one, cells in zip(found, inside, strict=True))
    of = _column(int(one.sum()) + int(cells.sum()) for one, cells in zip(found, inside, strict=True))
    pixels = _column(cells.size for cells in inside)
    known = ~np.isnan(_column(rand.slices))
    columns = [
        Column(_PIXEL_ERROR, wrong, of),
        Column(_RAND_ERROR, np.where(known, _column(rand.slices), 0.0), known.astype(np.float64), fixed=rand.error),
        Column(_WARPING_ERROR, _column(warping.slices) * pixels, pixels),
    ]
    levels = ", ".join(f"{error.threshold:.1f}" for error in (pixel, rand, warping))
    return columns, [f"Errors of 2012: lower is better; each at its best threshold over all images ({levels})."]


def _of_no_image(score: Score) -> Column:
    return Column(score, np.zeros((0, 1)), np.zeros((0, 1)))


def score_classes(
    truths: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    values: Sequence[int],
    *,
    extent: Literal["few", "all"] = "all",
) -> Scored:
    """Score classes, each alone and all together.

    Parameters
    ----------
    truths : sequence of ndarray of int, shape (rows, columns)
        Class numbers 0 to K-1, and -1 where nothing is scored.
    results : sequence of ndarray of int, shape (rows, columns)
        Class numbers 0 to K-1.
    values : sequence of int
        The label value of each class, which its scores are called after.
    extent : {"few", "all"}

    Returns
    -------
    Scored

    Examples
    --------
    >>> scored = score_classes([np.array([[0, 0, 1, 1]])], [np.array([[0, 1, 1, 1]])], (0, 32))
    >>> [(column.score.name, column.overall()) for column in scored.columns if column.score.of_class == 32][:1]
    [('IoU of 32', 0.6666666666666666)]
    """
    counts = _confusions(truths, results, len(values))
    meanings = {
        "IoU": "pixels of the class in both, of those in either",
        "Dice": "the same overlap as 2 · shared / (marked by one + by the other)",
        "precision": "share of the pixels given to the class that are of it",
        "recall": "share of the pixels of the class that were found",
    }
    names = list(meanings)[: 4 if extent == "all" else 2]
    ratios = {name: _ratio(name, counts) for name in names}
    means = [Column(Score(f"mean {name}", meanings[name], "classes"), *ratios[name]) for name in names]
    single = [
        Column(
            Score(f"{name} of {value}", meanings[name], "pixels", of_class=value),
            ratios[name][0][:, [k]],
            ratios[name][1][:, [k]],
        )
        for name in names
        for k, value in enumerate(values)
    ]
    return Scored((*means, *single), (), _total(counts))


def score_instances(
    truths: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    *,
    extent: Literal["few", "all"] = "all",
) -> Scored:
    """Score objects against objects.

    Parameters
    ----------
    truths : sequence of ndarray of int, shape (rows, columns)
        0 is background, each object has its number; -1 where nothing is scored.
    results : sequence of ndarray of int, shape (rows, columns)
        0 is background, each object has its number.
    extent : {"few", "all"}

    Returns
    -------
    Scored

    Examples
    --------
    >>> scored = score_instances([np.array([[1, 1, 0, 2]])], [np.array([[5, 5, 0, 0]])])
    >>> {column.score.name: column.overall() for column in scored.columns}["AP@0.5 (pooled)"]
    0.5
    """
    pairs = list(zip(truths, results, strict=True))
    counts = _confusions([np.minimum(truth, 1) for truth in truths], [result > 0 for result in results], 2)
    overlap = [_of_foreground(score, counts) for score in (_IOU, _DICE)]
    thresholds = _IOU_THRESHOLDS if extent == "all" else (0.5,)
    matchings = [cells.match_all(truth, result, thresholds) for truth, result in pairs]
    at_05 = [found[0] for found in matchings]
    few = (*overlap, _f1(at_05), *_average_precision(_AP_05, [at_05]))
    note = _objects(cells.pooled(at_05))
    if extent == "few":
        return Scored(few, (note,))
    at_075 = [found[_IOU_THRESHOLDS.index(0.75)] for found in matchings]
    more = (
        *_average_precision(_AP_075, [at_075]),
        *_average_precision(_AP_ALL, list(zip(*matchings, strict=True))),
        _panoptic_quality(at_05),
        _seg(pairs),
        _det([detections(truth, result) for truth, result in pairs]),
        mean_of_images(_AJI, [aggregated_jaccard(*pair).value for pair in pairs]),
        mean_of_images(_AJI_PLUS, [aggregated_jaccard(*pair, one_to_one=True).value for pair in pairs]),
        _pairs_apart([separation(*pair) for pair in pairs]),
    )
    return Scored(few + more, (note,))


def _objects(found: cells.Matching) -> str:
    return (
        f"Objects: {found.n_truth:,} in the truth, {found.n_predicted:,} in the results; at an IoU of 0.5 "
        f"{found.tp:,} found, {found.fn:,} missed, {found.fp:,} invented."
    )


def _f1(matchings: Sequence[cells.Matching]) -> Column:
    found = _column(2 * matching.tp for matching in matchings)
    return Column(_F1, found, _column(matching.n_truth + matching.n_predicted for matching in matchings))


def _panoptic_quality(matchings: Sequence[cells.Matching]) -> Column:
    iou = _column(2 * matching.iou_sum for matching in matchings)
    return Column(_PQ, iou, _column(matching.n_truth + matching.n_predicted for matching in matchings))


def _seg(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> Column:
    """Sum over the objects of all images, as the challenge does over all frames."""
    scores = [seg(truth, result) for truth, result in pairs]
    return Column(_SEG, _column(score.sum() for score in scores), _column(len(score) for score in scores))


def _pairs_apart(found: Sequence[Separation]) -> Column:
    return Column(_APART, _column(one.apart for one in found), _column(one.pairs for one in found))


def _det(found: Sequence[Detections]) -> Column:
    cost = _column(SPLIT * one.splits_needed + MISSED * one.missed + INVENTED * one.invented for one in found)
    return Column(_DET, cost, _column(MISSED * one.n_truth for one in found), cost=True)


def _average_precision(score: Score, matchings: Sequence[Sequence[cells.Matching]]) -> tuple[Column, Column]:
    """Pool the average precision of each threshold, and average that of the images; `matchings` by threshold."""
    found = np.array([[matching.tp for matching in images] for images in matchings], np.float64).T
    of = np.array([[matching.tp + matching.fp + matching.fn for matching in images] for images in matchings]).T
    pooled = Column(score, found, of.astype(np.float64))
    mean = replace(score, name=f"{score.image_name} (mean of images)", pooled_over="images")
    mean = replace(mean, meaning="the same of each image, then averaged")
    return pooled, mean_of_images(mean, pooled.of_images())


def _column(values: Iterable[float]) -> NDArray[np.float64]:
    return np.array([*values], np.float64).reshape(-1, 1)


def _confusions(truths: Sequence[NDArray[Any]], results: Sequence[NDArray[Any]], n: int) -> NDArray[np.int64]:
    """Confusion matrices, shape (images, n, n)."""
    return np.array([regions.confusion(truth, result, n) for truth, result in zip(truths, results, strict=True)])


def _ratio(name: str, counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sides of a pixel score of each class, shape (images, classes)."""
    right = counts.diagonal(axis1=1, axis2=2)
    found, true = counts.sum(axis=1), counts.sum(axis=2)
    numerator, denominator = {
        "IoU": (right, found + true - right),
        "Dice": (2 * right, found + true),
        "precision": (right, found),
        "recall": (right, true),
    }[name]
    return numerator.astype(np.float64), denominator.astype(np.float64)


def _of_foreground(score: Score, counts: NDArray[np.int64]) -> Column:
    numerator, denominator = _ratio(score.name, counts)
    return Column(score, numerator[:, [1]], denominator[:, [1]])


def _total(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = counts.sum(axis=0)
    return total

"""The scores of the ISBI 2012 challenge (Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142).

V_Rand and V_Info, the foreground-restricted Rand and information-theoretic F-scores after border thinning, are the
official scores. They count what matters in tracing neurons, splits and mergers, and forgive a membrane drawn thick or
thin. Pixel error, Rand error and warping error are those of 2012, which the U-Net paper reports.

Where other programs go wrong, and what is done here:

- The truth is 0 and 1 and the proposal within 0..1, because the challenge cuts both at the same threshold. Values to
  255 are an error here, not a silently white image.
- The scores are computed slice by slice and averaged; then the best threshold of the average is taken. Pooling the
  counts of all slices, or each slice's own best threshold, gives other (higher) numbers.
- Only pixels inside a cell of the truth count, in every sum and in the number of pixels.
- Result pixels on a dam (label 0) count as regions of one pixel each, neither as one region nor as left out.
- Cells and basins are 4-connected; 8-connectivity merges cells across membranes that run diagonally.
- The errors of 2012 have 10 thresholds, V_Rand and V_Info have 11, and the levels are accumulated sums: one is
  0.7999999999999999, not 0.8. The errors add up the counts of all slices; V_Rand and V_Info average scores of slices.
- The organisers' program reads float32. A float64 proposal of 0.1 lies above the second level only once it is float32.
- Thinning is part of the score. Without it a wide membrane costs as if its pixels were lost.
- A proposal without any cell is one single basin, as if no membrane had been drawn.
- Where two floods meet in the middle of a membrane of even width, either side may get the dam. The organisers' program
  decides by its scanning order, this one by a checkerboard: equal on membranes 1 pixel wide, within 1e-3 on real maps.
- Precision and recall of V_Info are I/H(truth) and I/H(result), as the organisers name them. A split lowers recall, a
  merger lowers precision, in both scores.
- 0/0 is nan, and a threshold whose average is nan cannot win: a truth of a single cell, found as a single cell, has no
  information to share. Slices without any cell in the truth have nothing to score and are left out of the average.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.errors import InputError
from ubend.scores.overlap import check_labels, count_pairs, overlaps
from ubend.scores.warping import Mismatches, count_mismatches

__all__ = [
    "ERROR_THRESHOLDS",
    "THRESHOLDS",
    "ErrorScore",
    "FScore",
    "VScore",
    "WarpingScore",
    "information_f_score",
    "pixel_error",
    "rand_error",
    "rand_f_score",
    "thin",
    "v_info",
    "v_rand",
    "v_scores",
    "warping_error",
]

THRESHOLDS: tuple[float, ...] = tuple(accumulate([0.0] + [0.1] * 10))
"""The challenge's 11 levels. They are accumulated sums, so the last is 0.9999999999999999 and 1.0 lies above it."""

ERROR_THRESHOLDS = THRESHOLDS[:10]
"""The 10 levels of pixel, Rand and warping error, to 0.8999999999999999."""

_ROUNDING = 1e-6
"""By so much a mean of float32 probabilities may exceed 1."""

Images = NDArray[Any] | Sequence[NDArray[Any]]


@dataclass(frozen=True)
class FScore:
    """An F-score with its two halves.

    Attributes
    ----------
    f_score, precision, recall : float
        0 to 1, higher is better; nan where nothing can be said. A merger lowers precision, a split lowers recall.
    """

    f_score: float
    precision: float
    recall: float


@dataclass(frozen=True)
class VScore(FScore):
    """An F-score at the best threshold.

    Attributes
    ----------
    f_score, precision, recall : float
        Means over the slices, at `threshold`.
    threshold : float
        The level at which the mean F-score is largest; nan if it is nan at every level.
    slices : tuple of float
        The F-score of each slice at `threshold`; nan for a slice without cells in the truth.
    """

    threshold: float
    slices: tuple[float, ...]


@dataclass(frozen=True)
class ErrorScore:
    """An error, 1 less the F-score, at the best threshold.

    Attributes
    ----------
    error : float
        0 to 1, lower is better; counted over all slices together.
    precision, recall : float
        The two halves of the F-score.
    threshold : float
        The first level at which the error is smallest.
    slices : tuple of float
        The error of each slice at `threshold`; their mean is not `error`.
    """

    error: float
    precision: float
    recall: float
    threshold: float
    slices: tuple[float, ...]


@dataclass(frozen=True)
class WarpingScore:
    """The warping error at the best threshold.

    Attributes
    ----------
    error : float
        Pixels of splits and mergers per pixel of all slices; lower is better.
    threshold : float
        The first level at which the error is smallest.
    slices : tuple of float
        The error of each slice at `threshold`.
    mismatches : ubend.scores.warping.Mismatches
        Pixels of all slices that still differ at `threshold`, by kind; the error is made of the first two only.
    """

    error: float
    threshold: float
    slices: tuple[float, ...]
    mismatches: Mismatches


def v_rand(truth: Images, proposal: Images) -> VScore:
    """Score a segmentation by V_Rand: do pairs of pixels belong together as in the truth?

    Parameters
    ----------
    truth : ndarray of bool or 0/1, shape (slices, rows, columns) or (rows, columns)
        1 inside a cell, 0 on a membrane. A sequence of (rows, columns) arrays of any sizes will do as well.
    proposal : ndarray of float in 0..1, bool or 0/1, same shape
        Probability of the inside of a cell. If it is 0 and 1 only, one threshold suffices.

    Returns
    -------
    VScore
        Slices averaged, best of `THRESHOLDS`.

    Raises
    ------
    InputError
        For shapes that differ, or values outside of what is listed above.

    See Also
    --------
    v_scores : this and V_Info in the time of one.

    References
    ----------
    Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics",
    doi:10.3389/fnana.2015.00142.

    Examples
    --------
    A membrane drawn three pixels wide instead of one costs nothing after thinning; one that is missing does:

    >>> truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    >>> wide = np.array([[0.9, 0.9, 0.2, 0.1, 0.2, 0.9, 0.9]] * 3)
    >>> v_rand(truth, wide).f_score
    1.0
    >>> v_rand(truth, np.ones((3, 7))).precision
    0.5
    """
    return v_scores(truth, proposal)[0]


def v_info(truth: Images, proposal: Images) -> VScore:
    """Score a segmentation by V_Info: how much do the regions of truth and result tell about each other?

    Parameters
    ----------
    truth : ndarray of bool or 0/1, shape (slices, rows, columns) or (rows, columns)
        As in `v_rand`.
    proposal : ndarray of float in 0..1, bool or 0/1, same shape
        As in `v_rand`.

    Returns
    -------
    VScore
        Slices averaged, best of `THRESHOLDS`.

    Raises
    ------
    InputError
        As in `v_rand`.

    References
    ----------
    Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    >>> v_info(truth, truth).f_score
    1.0
    >>> v_info(truth, np.ones((3, 7))).f_score
    0.0
    """
    return v_scores(truth, proposal)[1]


def v_scores(truth: Images, proposal: Images) -> tuple[VScore, VScore]:
    """Compute V_Rand and V_Info from the same thinned images.

    Parameters
    ----------
    truth : ndarray of bool or 0/1, shape (slices, rows, columns) or (rows, columns)
        As in `v_rand`.
    proposal : ndarray of float in 0..1, bool or 0/1, same shape
        As in `v_rand`.

    Returns
    -------
    v_rand, v_info : VScore
        Each at its own best threshold.

    Raises
    ------
    InputError
        As in `v_rand`.

    References
    ----------
    Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    >>> [score.f_score for score in v_scores(truth, truth)]
    [1.0, 1.0]
    """
    pairs = _checked(truth, proposal)
    thresholds = _levels(pairs, THRESHOLDS)
    scores = np.array([_score_slice(cells, image, thresholds) for cells, image in pairs])
    has_cells = np.array([cells.any() for cells, _ in pairs])
    return _best(scores[:, :, 0], has_cells, thresholds), _best(scores[:, :, 1], has_cells, thresholds)


def pixel_error(truth: Images, proposal: Images) -> ErrorScore:
    """Score a segmentation by the pixel error: 1 less the F-score of the pixels inside cells.

    Parameters
    ----------
    truth : ndarray of bool or 0/1, shape (slices, rows, columns) or (rows, columns)
        As in `v_rand`.
    proposal : ndarray of float in 0..1, bool or 0/1, same shape
        As in `v_rand`.

    Returns
    -------
    ErrorScore
        Pixels of all slices counted together, best of `ERROR_THRESHOLDS`.

    Raises
    ------
    InputError
        As in `v_rand`.

    Notes
    -----
    It is not the share of wrong pixels, and not symmetric in cells and membranes: the F-score is that of the cells.
    With no pixel wrong the error is 0, even if there is no cell. A border shifted by a pixel costs much, a gap in a
    membrane next to nothing.

    References
    ----------
    Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142.

    Examples
    --------
    The membrane is missing, 3 pixels of 21; of what was taken for cell, 18 of 21 pixels are:

    >>> truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    >>> score = pixel_error(truth, np.ones((3, 7)))
    >>> round(score.error, 4), round(score.precision, 4), score.recall
    (0.0769, 0.8571, 1.0)
    """
    pairs = _checked(truth, proposal)
    thresholds = _levels(pairs, ERROR_THRESHOLDS)
    counts = np.array([[_pixels(cells, image > np.float64(t)) for t in thresholds] for cells, image in pairs], float)
    return _best_error(counts, thresholds)


def rand_error(truth: Images, proposal: Images) -> ErrorScore:
    """Score a segmentation by the Rand error of 2012: 1 less the Rand F-score, without thinning.

    Parameters
    ----------
    truth : ndarray of bool or 0/1, shape (slices, rows, columns) or (rows, columns)
        As in `v_rand`.
    proposal : ndarray of float in 0..1, bool or 0/1, same shape
        As in `v_rand`.

    Returns
    -------
    ErrorScore
        Pairs of pixels of all slices counted together, best of `ERROR_THRESHOLDS`. All nan if the truth has no cell,
        and nan for a slice without one, which adds nothing to the others.

    Raises
    ------
    InputError
        As in `v_rand`.

    See Also
    --------
    v_rand : the score that replaced it.
    rand_f_score : the same for label images.

    Notes
    -----
    The Rand F-score is that of `rand_f_score`, of the 4-connected cells of truth and proposal. Pairs are counted within
    slices. Without thinning, each cell pixel that the proposal calls membrane is a region of its own: a membrane drawn
    too wide costs recall. Large cells weigh with the square of their size. The organisers' program gives an error of 1
    as soon as one slice has no cell, since it divides by 0 there.

    References
    ----------
    Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    >>> rand_error(truth, truth).error
    0.0
    >>> round(rand_error(truth, np.ones((3, 7))).error, 4)
    0.3333
    """
    pairs = _checked(truth, proposal)
    thresholds = _levels(pairs, ERROR_THRESHOLDS)
    counts = np.array([_pairs_without_thinning(cells, image, thresholds) for cells, image in pairs])
    has_cells = np.array([bool(cells.any()) for cells, _ in pairs])
    if not has_cells.any():
        return ErrorScore(np.nan, np.nan, np.nan, np.nan, (np.nan,) * len(pairs))
    score = _best_error(counts, thresholds)
    return replace(score, slices=tuple(np.where(has_cells, score.slices, np.nan).tolist()))


def warping_error(truth: Images, proposal: Images) -> WarpingScore:
    """Score a segmentation by the warping error: pixels of splits and mergers once borders may move freely.

    Parameters
    ----------
    truth : ndarray of bool or 0/1, shape (slices, rows, columns) or (rows, columns)
        As in `v_rand`.
    proposal : ndarray of float in 0..1, bool or 0/1, same shape
        As in `v_rand`.

    Returns
    -------
    WarpingScore
        Pixels of all slices counted together, best of `ERROR_THRESHOLDS`.

    Raises
    ------
    InputError
        As in `v_rand`.

    See Also
    --------
    ubend.scores.warping.warp : the warped truth itself.
    ubend.scores.warping.classify : where the errors are.

    Notes
    -----
    Cells that are missed or invented, and holes, are not counted: an empty proposal has a small error. A wall too many
    costs the pixels that close it, often one; a wall too few costs every pixel of it. All thresholds are tried for a
    binary proposal, too, because the threshold changes the order of the flips.

    References
    ----------
    Jain et al. 2010, "Boundary learning by optimization with topological constraints", doi:10.1109/CVPR.2010.5539950.

    Examples
    --------
    A membrane elsewhere, and three pixels wide, is no error; one that is missing costs its length:

    >>> truth = np.array([[1, 1, 1, 1, 0, 1, 1]] * 3)
    >>> warping_error(truth, np.array([[0.9, 0.2, 0.1, 0.2, 0.9, 0.9, 0.9]] * 3)).error
    0.0
    >>> score = warping_error(truth, np.ones((3, 7)))
    >>> score.mismatches.mergers, round(score.error, 4)
    (3, 0.1429)
    """
    pairs = _checked(truth, proposal)
    pixels = [cells.size for cells, _ in pairs]
    by_threshold = [
        [count_mismatches(cells, image, threshold) for cells, image in pairs] for threshold in ERROR_THRESHOLDS
    ]
    wrong = np.array([[found.splits + found.mergers for found in slices] for slices in by_threshold])
    best = int(np.argmin(wrong.sum(axis=1)))
    together = Mismatches(*np.sum([astuple(found) for found in by_threshold[best]], axis=0).tolist())
    return WarpingScore(
        float(wrong[best].sum() / sum(pixels)), ERROR_THRESHOLDS[best], tuple((wrong[best] / pixels).tolist()), together
    )


def rand_f_score(truth_labels: NDArray[Any], labels: NDArray[Any]) -> FScore:
    """Compare two label images by the foreground-restricted Rand F-score, without thinning.

    Parameters
    ----------
    truth_labels : ndarray of int
        Regions; pixels of 0 or less are left out.
    labels : ndarray of int, same shape
        Regions; pixels of 0 count as regions of one pixel each.

    Returns
    -------
    FScore
        All nan if the truth has no region.

    Raises
    ------
    InputError
        For shapes that differ, labels that are not whole numbers, or negative `labels`.

    References
    ----------
    Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142, with equal weights of splits and mergers.

    Examples
    --------
    One region split in halves: of all pairs of pixels that belong together, half are still together.

    >>> rand_f_score(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]]))
    FScore(f_score=0.6666666666666666, precision=1.0, recall=0.5)
    """
    return FScore(*_rand(_count_labels(truth_labels, labels)))


def information_f_score(truth_labels: NDArray[Any], labels: NDArray[Any]) -> FScore:
    """Compare two label images by the information-theoretic F-score, without thinning.

    Parameters
    ----------
    truth_labels : ndarray of int
        As in `rand_f_score`.
    labels : ndarray of int, same shape
        As in `rand_f_score`.

    Returns
    -------
    FScore
        2I/(H(truth) + H(labels)), I/H(truth), I/H(labels); the F-score is nan if both are a single region.

    Raises
    ------
    InputError
        As in `rand_f_score`.

    References
    ----------
    Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142.

    Examples
    --------
    Two regions, each split in halves: one bit of two is what the truth knew.

    >>> score = information_f_score(np.array([[1, 1, 2, 2]]), np.array([[1, 2, 3, 4]]))
    >>> round(score.f_score, 3), round(score.precision, 3), round(score.recall, 3)
    (0.667, 1.0, 0.5)
    """
    return FScore(*_information(_count_labels(truth_labels, labels)))


def thin(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label the cells and flood the membranes between them, down to dams of one pixel.

    The watershed by immersion of the inverted binary image: the 4-connected cells are the minima, and the membranes one
    plateau, flooded from all cells at the same pace. A pixel that the floods of two cells reach is a dam.

    Parameters
    ----------
    cells : ndarray of bool, shape (rows, columns)
        True inside a cell.

    Returns
    -------
    ndarray of int32, shape (rows, columns)
        Basins 1..n, 0 on the dams. No two basins touch (4-connected). One single basin if there is no cell.

    Notes
    -----
    Pixels are flooded in the order of their city-block distance from the nearest cell; among equals those of the
    checkerboard's white fields first. The 4 neighbours of a white field are black, so no pixel of such a half layer
    depends on another one of it, and each half layer is a single array operation.

    References
    ----------
    Vincent and Soille 1991, "Watersheds in digital spaces", doi:10.1109/34.87344.

    Examples
    --------
    >>> thin(np.array([[1, 1, 0, 0, 0, 1]], dtype=bool)).tolist()
    [[1, 1, 1, 0, 2, 2]]
    """
    if not cells.any():
        return np.ones(cells.shape, np.int32)
    labels = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2), np.int32)
    labels[1:-1, 1:-1], _ = ndimage.label(cells)
    flat = labels.reshape(-1)
    step = labels.shape[1]
    for pixels in _half_layers(cells, step):
        neighbours = np.stack([flat[pixels - step], flat[pixels - 1], flat[pixels + 1], flat[pixels + step]])
        largest = neighbours.max(axis=0)
        # A neighbour of 0 is a dam or not yet flooded: it has no say.
        agree = ((neighbours == 0) | (neighbours == largest)).all(axis=0)
        flat[pixels] = np.where(agree, largest, 0)
    return labels[1:-1, 1:-1]


def _half_layers(cells: NDArray[np.bool_], step: int) -> list[NDArray[np.intp]]:
    """Sort the membrane pixels, as flat indices of the image padded by 1, into the half layers of the flood."""
    distance = ndimage.distance_transform_cdt(~cells, metric="taxicab")
    rows, columns = np.nonzero(distance)
    half_layer = 2 * distance[rows, columns] + (rows + columns) % 2
    order = np.argsort(half_layer, kind="stable")
    pixels = ((rows + 1) * step + columns + 1)[order]
    return np.split(pixels, np.flatnonzero(np.diff(half_layer[order])) + 1) if len(pixels) else []


@dataclass(frozen=True)
class _Counts:
    """Pixels of the truth's foreground: per pair of regions, per region, and those in no region of the result."""

    joint: NDArray[np.int64]
    truth: NDArray[np.int64]
    result: NDArray[np.int64]
    singletons: int


def _count(rows: NDArray[Any], columns: NDArray[Any], n_rows: int, n_columns: int) -> _Counts:
    """Count the pixels of regions `rows`, from 0, in regions `columns`, where column 0 is no region."""
    table = count_pairs(rows, columns, (n_rows, n_columns))
    result = np.bincount(columns, minlength=n_columns)
    return _Counts(
        table.data[table.indices > 0], np.bincount(rows, minlength=n_rows), result[1:][result[1:] > 0], int(result[0])
    )


def _count_labels(truth: NDArray[Any], labels: NDArray[Any]) -> _Counts:
    truth, labels = check_labels(truth, labels)
    table = overlaps(truth[truth > 0], labels[truth > 0])
    regions = table.pixels[:, table.ids > 0]
    result = regions.sum(axis=0)
    return _Counts(regions.data, table.pixels.sum(axis=1), result, int(table.pixels.sum() - result.sum()))


def _pairs(counts: _Counts) -> tuple[float, float, float]:
    """Count the pairs of pixels together in both, in the truth, in the result: whole numbers, n² times the shares."""
    together_in_both = float((counts.joint.astype(float) ** 2).sum() + counts.singletons)
    together_in_truth = float((counts.truth.astype(float) ** 2).sum())
    together_in_result = float((counts.result.astype(float) ** 2).sum() + counts.singletons)
    return together_in_both, together_in_truth, together_in_result


def _rand(counts: _Counts) -> tuple[float, float, float]:
    """Rand F-score, precision, recall."""
    together_in_both, together_in_truth, together_in_result = _pairs(counts)
    if together_in_truth == 0:
        return np.nan, np.nan, np.nan
    f_score = 2 * together_in_both / (together_in_truth + together_in_result)
    return f_score, together_in_both / together_in_result, together_in_both / together_in_truth


def _information(counts: _Counts) -> tuple[float, float, float]:
    """Information F-score, I/H(truth), I/H(result), in nats."""
    n = int(counts.truth.sum())
    if n == 0:
        return np.nan, np.nan, np.nan
    h_truth = _entropy(counts.truth, 0, n)
    h_result = _entropy(counts.result, counts.singletons, n)
    shared = max(0.0, h_truth + h_result - _entropy(counts.joint, counts.singletons, n))
    if h_truth == 0 or h_result == 0:  # the organisers' values for a single region
        f_score = np.nan if h_truth == h_result else 0.0
        return (f_score, 0.0, 1.0) if h_truth == 0 else (f_score, 1.0, 0.0)
    return 2 * shared / (h_truth + h_result), shared / h_truth, shared / h_result


def _entropy(counts: NDArray[np.int64], singletons: int, n: int) -> float:
    """Entropy in nats of regions of `counts` pixels and of `singletons` regions of one pixel, n pixels in all."""
    p = counts / n
    return float(-(p * np.log(p)).sum() + singletons / n * np.log(n))


def _score_slice(
    cells: NDArray[np.bool_], image: NDArray[Any], thresholds: Sequence[float]
) -> list[tuple[tuple[float, float, float], tuple[float, float, float]]]:
    """Rand and information scores of one slice at each threshold, each as (F-score, precision, recall)."""
    truth, n_truth = ndimage.label(cells)
    rows = truth[cells] - 1
    scores = []
    for threshold in thresholds:
        basins = thin(image > np.float64(threshold))  # float64, or 0.9999999999999999 would be rounded to 1
        counts = _count(rows, basins[cells], n_truth, int(basins.max()) + 1)
        scores.append((_rand(counts), _information(counts)))
    return scores


def _pixels(cells: NDArray[np.bool_], result: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Count the pixels inside cells: in both, in the truth, in the result."""
    return int((cells & result).sum()), int(cells.sum()), int(result.sum())


def _pairs_without_thinning(
    cells: NDArray[np.bool_], image: NDArray[Any], thresholds: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Count the pairs of pixels of one slice at each threshold: together in both, in the truth, in the result."""
    truth, n_truth = ndimage.label(cells)
    rows = truth[cells] - 1
    pairs = []
    for threshold in thresholds:
        result, n_result = ndimage.label(image > np.float64(threshold))
        pairs.append(_pairs(_count(rows, result[cells], n_truth, n_result + 1)))
    return pairs


def _best_error(counts: NDArray[np.float64], thresholds: Sequence[float]) -> ErrorScore:
    """Sum over the slices, then take the first best threshold; `counts` has axes (slices, thresholds, 3)."""
    scores = [_f_of_counts(*together) for together in counts.sum(axis=0).tolist()]
    best = int(np.argmax([f_score for f_score, _, _ in scores]))
    f_score, precision, recall = scores[best]
    slices = tuple(1 - _f_of_counts(*alone)[0] for alone in counts[:, best].tolist())
    return ErrorScore(1 - f_score, precision, recall, thresholds[best], slices)


def _f_of_counts(both: float, truth: float, result: float) -> tuple[float, float, float]:
    """F-score, precision and recall, by the organisers' rule: with nothing wrong they are 1, with nothing right 0."""
    precision = 1.0 if both == result else both / result
    recall = 1.0 if both == truth else both / truth
    f_score = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    return f_score, precision, recall


def _best(scores: NDArray[np.float64], has_cells: NDArray[np.bool_], thresholds: Sequence[float]) -> VScore:
    """Average over the slices, then take the first best threshold; `scores` has axes (slices, thresholds, 3)."""
    if not has_cells.any() or np.isnan(scores[has_cells, :, 0].mean(axis=0)).all():
        return VScore(np.nan, np.nan, np.nan, np.nan, (np.nan,) * len(scores))
    means = scores[has_cells].mean(axis=0)
    best = int(np.nanargmax(means[:, 0]))
    f_score, precision, recall = means[best].tolist()
    return VScore(f_score, precision, recall, thresholds[best], tuple(scores[:, best, 0].tolist()))


def _checked(truth: Images, proposal: Images) -> list[tuple[NDArray[np.bool_], NDArray[Any]]]:
    """Pair the slices of truth and proposal, once they are known to be usable."""
    truths, proposals = _as_slices(truth), _as_slices(proposal)
    if len(truths) != len(proposals) or not truths:
        raise InputError(f"truth has {len(truths)} slices and proposal {len(proposals)}; give as many, at least 1.")
    for number, (cells, image) in enumerate(zip(truths, proposals, strict=True)):
        if cells.shape != image.shape or cells.ndim != 2 or not cells.size:
            raise InputError(
                f"Slice {number}: truth has shape {cells.shape} and proposal {image.shape}; "
                "both must be (rows, columns) of one size. Of (classes, rows, columns) take the class of the cells."
            )
        _check_values(cells, image, number)
    return [(cells > 0, image) for cells, image in zip(truths, proposals, strict=True)]


def _levels(
    pairs: Sequence[tuple[NDArray[np.bool_], NDArray[Any]]], thresholds: tuple[float, ...]
) -> tuple[float, ...]:
    """Leave out the thresholds that change nothing: of binary proposals the first one does."""
    return thresholds[:1] if all(_is_binary(image) for _, image in pairs) else thresholds


def _as_slices(images: Images) -> list[NDArray[Any]]:
    if isinstance(images, np.ndarray) and images.ndim == 2:
        return [images]
    return [np.asarray(image) for image in images]


def _check_values(cells: NDArray[Any], image: NDArray[Any], number: int) -> None:
    if not _is_binary(cells):
        raise InputError(
            f"Slice {number}: truth has values from {cells.min()} to {cells.max()}; allowed are 0 (membrane) "
            "and 1 (cell) only. Of a mask of 0 and 255, give mask > 0."
        )
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1 + _ROUNDING):  # nan fails, too
        raise InputError(
            f"Slice {number}: proposal has values from {low} to {high}; allowed are probabilities from 0 to 1. "
            "Divide gray values of 0 to 255 by 255."
        )


def _is_binary(image: NDArray[Any]) -> bool:
    return image.dtype == np.bool_ or bool(((image == 0) | (image == 1)).all())

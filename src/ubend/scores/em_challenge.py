"""V_Rand and V_Info of the ISBI 2012 challenge (Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142).

The foreground-restricted Rand and information-theoretic F-scores after border thinning: the challenge's official
scores. They count what matters in tracing neurons, splits and mergers, and forgive a membrane drawn thick or thin.

Where other programs go wrong, and what is done here:

- The truth is 0 and 1 and the proposal within 0..1, because the challenge cuts both at the same threshold. Values to
  255 are an error here, not a silently white image.
- The scores are computed slice by slice and averaged; then the best threshold of the average is taken. Pooling the
  counts of all slices, or each slice's own best threshold, gives other (higher) numbers.
- Only pixels inside a cell of the truth count, in every sum and in the number of pixels.
- Result pixels on a dam (label 0) count as regions of one pixel each, neither as one region nor as left out.
- Cells and basins are 4-connected; 8-connectivity merges cells across membranes that run diagonally.
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
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.errors import InputError
from ubend.scores.overlap import check_labels, count_pairs, overlaps

__all__ = [
    "THRESHOLDS",
    "FScore",
    "VScore",
    "information_f_score",
    "rand_f_score",
    "thin",
    "v_info",
    "v_rand",
    "v_scores",
]

THRESHOLDS: tuple[float, ...] = tuple(accumulate([0.0] + [0.1] * 10))
"""The challenge's 11 levels. They are accumulated sums, so the last is 0.9999999999999999 and 1.0 lies above it."""

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
    thresholds = (0.0,) if all(_is_binary(image) for _, image in pairs) else THRESHOLDS
    scores = np.array([_score_slice(cells, image, thresholds) for cells, image in pairs])
    has_cells = np.array([cells.any() for cells, _ in pairs])
    return _best(scores[:, :, 0], has_cells, thresholds), _best(scores[:, :, 1], has_cells, thresholds)


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


def _rand(counts: _Counts) -> tuple[float, float, float]:
    """Rand F-score, precision, recall; all sums times n², so that they are whole numbers."""
    together_in_both = float((counts.joint.astype(float) ** 2).sum() + counts.singletons)
    together_in_truth = float((counts.truth.astype(float) ** 2).sum())
    together_in_result = float((counts.result.astype(float) ** 2).sum() + counts.singletons)
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

"""Whether labels are turned or mirrored against their image: seen from where the image has its edges.

The edges of labels lie on edges of the image, or on lines, and what is labelled is brighter or darker. Each of the
eight ways to lay the labels is tried. For none of some 400 real images did another way fit better than the true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.data.duplicates import block_means

WAYS = (
    "as they are", "turned left by 90°", "turned by 180°", "turned right by 90°",
    "transposed (rows and columns swapped)", "mirrored left to right",
    "transposed and turned by 180°", "mirrored top to bottom",
)  # fmt: skip
"""How labels are laid in `fits`, in its order."""

_BLOCKS = 128
_LEAST_FIT, _LEAST_GAIN = 0.3, 0.15
_LEAST_IMAGES, _LEAST_MEAN_GAIN, _SHARE_OF_ALL = 4, 0.08, 0.8


@dataclass(frozen=True)
class Turn:
    """A way in which labels fit better than as they are.

    Attributes
    ----------
    way : str
        What brings them there, one of `WAYS`.
    fit, fit_now : float
        Correlation of labels and image that way, and as they are.
    """

    way: str
    fit: float
    fit_now: float


def fits(gray: NDArray[np.float32], edges: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Tell how well labels fit their image, laid in each way.

    Parameters
    ----------
    gray : ndarray of float32, shape (rows, columns)
        The image.
    edges, inside : ndarray of bool, shape (rows, columns)
        Where labels have their edges, and where they are above 0.

    Returns
    -------
    ndarray of float64, shape (8,)
        Correlations, in the order of `WAYS`; NaN for those that swap rows and columns where these differ.

    Examples
    --------
    >>> image = np.zeros((32, 32), np.float32)
    >>> image[4:12, 2:28] = 1
    >>> fit = fits(image, np.zeros((32, 32), bool), image.T > 0)
    >>> WAYS[int(fit.argmax())]
    'transposed (rows and columns swapped)'
    """
    ways = range(8) if gray.shape[0] == gray.shape[1] else (0, 2, 5, 7)
    gray, edges_seen, inside_seen = (block_means(array.astype(np.float32), _BLOCKS) for array in (gray, edges, inside))
    low, high = np.percentile(gray, (0.5, 99.5))
    gray = np.clip(gray, low, high)
    slopes = _unit(np.sqrt(ndimage.gaussian_gradient_magnitude(gray, 1)))
    gray = _unit(gray)
    edges_seen, inside_seen = _unit(ndimage.gaussian_filter(edges_seen, 1)), _unit(inside_seen)
    found = np.full(8, np.nan)
    for way in ways:
        laid, filled = _laid(edges_seen, way), _laid(inside_seen, way)
        found[way] = max(_product(slopes, laid), abs(_product(gray, laid)), abs(_product(gray, filled)))
    return found


def better_turn(fit: NDArray[np.float64]) -> Turn | None:
    """Return how labels have to be turned to fit, where that is beyond doubt.

    Parameters
    ----------
    fit : ndarray of float64, shape (8,)
        From `fits`.

    Returns
    -------
    Turn or None

    Examples
    --------
    >>> better_turn(np.array([0.9, 0, 0, 0, 0.1, 0, 0, 0])) is None
    True
    >>> better_turn(np.array([0.1, 0, 0, 0, 0.9, 0, 0, 0])).way
    'transposed (rows and columns swapped)'
    """
    best = int(np.nanargmax(fit))
    return turn_of(fit, best) if fit[best] >= _LEAST_FIT and fit[best] - fit[0] >= _LEAST_GAIN else None


def turn_of(fit: NDArray[np.float64], way: int) -> Turn:
    """Say how well labels fit in one way, and as they are.

    Examples
    --------
    >>> turn_of(np.array([0.1, 0, 0.3, 0, 0, 0, 0, 0]), 2)
    Turn(way='turned by 180°', fit=0.3, fit_now=0.1)
    """
    return Turn(WAYS[way], float(fit[way]), float(fit[0]))


def common_turn(fits_of_all: Sequence[NDArray[np.float64]]) -> int | None:
    """Return the way, a number in `WAYS`, in which nearly all labels of a set fit better, where each tells little.

    Parameters
    ----------
    fits_of_all : sequence of ndarray of float64, shape (8,)
        From `fits`.

    Returns
    -------
    int or None

    Examples
    --------
    >>> common_turn([np.array([0.1, 0, 0.2, 0, 0, 0, 0, 0])] * 4)
    2
    """
    if len(fits_of_all) < _LEAST_IMAGES:
        return None
    table = np.array(fits_of_all)
    gains = np.where(np.isfinite(table), table - table[:, :1], -1.0)
    mean = gains.mean(axis=0)
    best = int(mean.argmax())
    is_common = mean[best] >= _LEAST_MEAN_GAIN and np.mean(gains[:, best] > 0) >= _SHARE_OF_ALL
    return best if is_common else None


def _laid(array: NDArray[np.float32], way: int) -> NDArray[np.float32]:
    turned = np.rot90(array, way % 4)
    return turned.T if way >= 4 else turned


def _unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = array - array.mean()
    return np.asarray(centred / (np.linalg.norm(centred) + 1e-9), dtype=np.float32)


def _product(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float((one * other).sum())

"""The same image twice: a small picture of each image finds candidates, its fine structure decides.

Slices of a stack and frames of a film look alike when they are made small, but not in their fine structure.
Of 128 × 128
means, with what is smooth taken away, it correlates by 0.95 at most between slices of one smoothed stack, by less than
0.5 between slices and frames of four other real sets, and by more than 0.96 with recompressed and brighter copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_COARSE, _FINE = 16, 128
_ALIKE, _SAME = 0.8, 0.96
_STEPS_A_DEVIATION = 60.0
_MOST_ALIKE = 20
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Look:
    """What of an image is kept to recognise it.

    Attributes
    ----------
    coarse : ndarray of float32, shape (256,)
        Means of 16 × 16 blocks, of mean 0 and length 1; all 0 where there is nothing to see.
    fine : ndarray of int8, shape (rows, columns)
        The same of up to 128 × 128 blocks, of two pixels a side at least, without what is smooth.
    """

    coarse: NDArray[np.float32]
    fine: NDArray[np.int8]


def look_of(gray: NDArray[np.float32]) -> Look:
    """Make the small pictures of a gray image, shape (rows, columns).

    Examples
    --------
    >>> look_of(np.eye(64, dtype=np.float32)).fine.shape
    (32, 32)
    """
    fine = block_means(gray, min(_FINE, max(_COARSE, min(gray.shape) // 2)))  # single pixels are noise
    detail = fine - ndimage.gaussian_filter(fine, 2)
    deviation = float(detail.std())
    if deviation > 0:
        detail = np.clip(detail / deviation, -2, 2) * _STEPS_A_DEVIATION
    return Look(_unit(block_means(fine, _COARSE).ravel(), least=1e-6 * max(1.0, float(np.abs(fine).max()))),
                np.rint(detail).astype(np.int8))  # fmt: skip


def block_means(image: NDArray[np.float32], blocks: int) -> NDArray[np.float32]:
    """Return the means of at most `blocks` × `blocks` blocks of about one size.

    Examples
    --------
    >>> block_means(np.array([[0, 2, 4, 6]], np.float32), 2)
    array([[1., 5.]], dtype=float32)
    """
    sums: NDArray[Any] = image
    for axis in (0, 1):
        length = image.shape[axis]
        starts = np.linspace(0, length, min(blocks, length), endpoint=False).astype(int)
        widths = np.diff(starts, append=length).astype(np.float32)
        sums = np.add.reduceat(sums, starts, axis=axis) / (widths[:, None] if axis == 0 else widths)
    return sums.astype(np.float32)


def _unit(values: NDArray[np.float32], least: float = 0.0) -> NDArray[np.float32]:
    centred = values - values.mean()
    length = float(np.linalg.norm(centred))
    return np.asarray(centred / length if length > least else np.zeros_like(centred), dtype=np.float32)


def find_duplicates(looks: Sequence[Look]) -> list[tuple[int, int, float]]:
    """Find the pairs of images that are the same, up to brightness, contrast and compression.

    Parameters
    ----------
    looks : sequence of Look

    Returns
    -------
    list of (int, int, float)
        Numbers of two images, the smaller first, and how well their fine structure correlates.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    >>> [(i, j) for i, j, _ in find_duplicates([look_of(image), look_of(image.T), look_of(2 * image + 1)])]
    [(0, 2)]
    """
    found = []
    coarse = np.array([np.resize(look.coarse, _COARSE**2) for look in looks], dtype=np.float32)
    for first in range(0, len(looks), _ROWS_AT_ONCE):
        alike = coarse[first : first + _ROWS_AT_ONCE] @ coarse.T
        for row, values in enumerate(alike):
            one = first + row
            later = one + 1 + np.flatnonzero(values[one + 1 :] > _ALIKE)
            for other in later[np.argsort(-values[later], kind="stable")[:_MOST_ALIKE]]:
                likeness = _likeness(looks[one].fine, looks[int(other)].fine)
                if likeness >= _SAME:
                    found.append((one, int(other), likeness))
    return found


def _likeness(one: NDArray[np.int8], other: NDArray[np.int8]) -> float:
    if one.shape != other.shape:
        return 0.0
    return float(_unit(one.astype(np.float32).ravel()) @ _unit(other.astype(np.float32).ravel()))

"""From the network's foreground back to single cells (the inverse of the gap in Ronneberger et al. 2015, Section 3).

The network has learned cells that a gap of background keeps apart. So each connected component of its foreground is one
object, and the pixels of the gap go back to the objects that they were taken from. Where the network has missed a gap,
two cells hang together at a waist; they can be parted there by a watershed on the distance to the border.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from ubend.errors import InputError
from ubend.method.nearest_cells import two_nearest_cells

_LONGEST_WAY_ACROSS = (
    1.3  # of 2 · gap + 1: covers a gap cut along a diagonal (3.83 px), not a straight one of 3 px (4 px)
)


def foreground_to_objects(
    foreground_probability: NDArray[Any], *, threshold: float = 0.5, smallest: int = 0, gap: int = 1, split: float = 0.0
) -> NDArray[np.unsignedinteger[Any]]:
    """Turn the probability of foreground into numbered objects.

    1. Pixels above `threshold` that join along an edge (4 neighbours) are one object.
    2. With `split`, an object is parted at its waists: by a watershed on the distance to the border (Gaussian of 1 px),
       from all tops that stand more than `split` above the saddle towards a higher one.
    3. Objects of fewer than `smallest` pixels are dropped; the others are numbered 1, 2, … in the order of the scan.
    4. The gap goes back: a background pixel whose distances to the nearest and the second nearest object add up to at
       most ``1.3 * (2 * gap + 1)`` pixels joins the nearest one. That is what `separate_touching` took; true background
       of up to ``2 * gap`` pixels between two objects cannot be told from it and is filled too.

    Parameters
    ----------
    foreground_probability : ndarray of float, shape (rows, columns)
        Probability of foreground, 0 to 1. A mask of True and False does as well.
    threshold : float
        A pixel is foreground above this probability.
    smallest : int
        Pixels of the smallest object to keep, counted before the gap goes back.
    gap : int
        The gap that the network was trained with, as in `separate_touching`; 0 gives nothing back.
    split : float
        Pixels by which the distance to the border must fall from either body of an object to the waist between them;
        0 parts nothing.

    Returns
    -------
    ndarray of uint8, uint16 or uint32, shape (rows, columns)
        Objects 1 to n, 0 background, in the smallest type that fits.

    Raises
    ------
    InputError
        If the probabilities are not a two-dimensional array of numbers or hold NaN, or a parameter is out of range.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox: U-Net. MICCAI 2015, Section 3, doi:10.1007/978-3-319-24574-4_28.
    L. Vincent, P. Soille: Watersheds in digital spaces. IEEE PAMI 13:583-598 (1991), doi:10.1109/34.87344

    Examples
    --------
    >>> import numpy as np
    >>> foreground_to_objects(np.array([[0.9, 0.8, 0.2, 0.3, 0.7, 0.0, 0.0]]))
    array([[1, 1, 1, 2, 2, 0, 0]], dtype=uint8)
    """
    _check(foreground_probability, threshold, smallest, gap, split)
    labels, objects = ndimage.label(foreground_probability > threshold)
    if split > 0 and objects > 0:
        labels, objects = _part_at_waists(labels, objects, split)
    if smallest > 1:
        labels, objects = _drop_small(labels, smallest)
    if gap > 0 and objects > 1:
        labels = _give_gap_back(labels, gap)
    kind = next(kind for kind in (np.uint8, np.uint16, np.uint32) if objects <= np.iinfo(kind).max)
    numbered: NDArray[np.unsignedinteger[Any]] = labels.astype(kind)
    return numbered


def _part_at_waists(labels: NDArray[np.int32], objects: int, split: float) -> tuple[NDArray[np.int32], int]:
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(labels > 0), 1)
    tops, _ = ndimage.label(h_maxima(depth, split), structure=np.ones((3, 3)))
    flat = np.ones(objects + 1, dtype=bool)  # an object too thin for a top is its own seed
    flat[labels[tops > 0]] = False
    seeds = np.where(flat[labels] & (labels > 0), labels + np.int32(tops.max()), tops)
    parted = watershed(-depth, seeds, mask=labels > 0)
    return _numbered_in_scan_order(parted)


def _numbered_in_scan_order(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    present, first = np.unique(labels, return_index=True)
    numbers = np.zeros(int(present.max()) + 1, dtype=np.int32)
    in_order = present[np.argsort(first)]
    in_order = in_order[in_order > 0]
    numbers[in_order] = np.arange(1, in_order.size + 1)
    return numbers[labels], int(in_order.size)


def _drop_small(labels: NDArray[np.int32], smallest: int) -> tuple[NDArray[np.int32], int]:
    keep = np.bincount(labels.ravel()) >= smallest
    keep[0] = False
    numbers = np.cumsum(keep, dtype=np.int32)
    return np.where(keep, numbers, np.int32(0))[labels], int(numbers[-1])


def _give_gap_back(labels: NDArray[np.int32], gap: int) -> NDArray[np.int32]:
    across = _LONGEST_WAY_ACROSS * (2 * gap + 1)
    d1, d2, nearest = two_nearest_cells(labels, within=across, return_labels=True)
    return np.where(d1 + d2 <= across, nearest, labels)


def _check(foreground_probability: NDArray[Any], threshold: float, smallest: int, gap: int, split: float) -> None:
    if not isinstance(foreground_probability, np.ndarray) or foreground_probability.dtype.kind not in "fbiu":
        raise InputError("foreground_probability is not an array of numbers; pass the network's foreground channel.")
    if foreground_probability.ndim != 2 or foreground_probability.size == 0:
        raise InputError(
            f"foreground_probability has the shape {foreground_probability.shape}; allowed is (rows, columns). "
            "Of probabilities (classes, rows, columns) pass the channel of the foreground, usually [1]."
        )
    if np.isnan(foreground_probability.min()):
        raise InputError("foreground_probability holds NaN; a network whose training came to nonsense gives that.")
    if not 0 <= threshold < 1:
        raise InputError(f"threshold is {threshold}; allowed is a probability from 0 to below 1, usually 0.5.")
    if not 0 <= split < np.inf:
        raise InputError(f"split is {split}; allowed is a number of pixels from 0 on, 0 to part nothing.")
    for name, value in (("smallest", smallest), ("gap", gap)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
            raise InputError(f"{name} is {value!r}; allowed is a whole number of pixels from 0 on.")

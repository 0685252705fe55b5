"""How far apart two outlines or surfaces are: Hausdorff distance, its 95th percentile, average distance, surface Dice.

As in Nikolov et al. 2021 (surface Dice, doi:10.2196/26151) and their program: each element of the outline counts by its
length, of the surface by its area. Programs that count border pixels instead give other numbers for the same masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from ubend.errors import InputError
from ubend.scores.overlap import check_labels

__all__ = ["SurfaceDistances", "surface_distances"]


@dataclass(frozen=True)
class SurfaceDistances:
    """From each element of the one surface to the nearest of the other, both ways.

    If one of the masks is empty, there is no nearest element: the distances from the other are inf, and so are the
    Hausdorff distance and the percentiles; the surface Dice is 0. If both are, there is nothing to measure, and all is
    nan.

    Attributes
    ----------
    from_truth : ndarray of float64, shape (elements of the truth's surface,)
        Distances to the result's surface, ascending, in the unit of the spacing.
    truth_sizes : ndarray of float64, same shape
        Length (2-D) or area (3-D) of each of these elements.
    from_result : ndarray of float64, shape (elements of the result's surface,)
        Distances to the truth's surface, ascending.
    result_sizes : ndarray of float64, same shape
        Length or area of each of these elements.
    """

    from_truth: NDArray[np.float64]
    truth_sizes: NDArray[np.float64]
    from_result: NDArray[np.float64]
    result_sizes: NDArray[np.float64]

    @property
    def hausdorff(self) -> float:
        """The largest distance, in either direction."""
        return self.percentile(100)

    @property
    def hausdorff_95(self) -> float:
        """HD95: 95 % of each surface lie no further from the other; `percentile` of 95."""
        return self.percentile(95)

    @property
    def average(self) -> tuple[float, float]:
        """Average surface distance from the truth to the result, and from the result to the truth.

        Each weighted by length or area. From an empty surface it is nan, to an empty one inf.
        """
        return _average(self.from_truth, self.truth_sizes), _average(self.from_result, self.result_sizes)

    def percentile(self, percent: float) -> float:
        """Return the distance within which this share of each surface lies, of the two directions the larger.

        Parameters
        ----------
        percent : float
            0 to 100; 100 is the Hausdorff distance.

        Returns
        -------
        float
            In the unit of the spacing. A distance that occurs: nothing is interpolated.

        Raises
        ------
        InputError
            For a share out of range.

        Examples
        --------
        >>> near, far = np.array([0.0, 3.0]), np.array([9.0, 1.0])
        >>> SurfaceDistances(near, far, near, far).percentile(90)
        0.0
        """
        if not 0 <= percent <= 100:
            raise InputError(f"percent is {percent}; allowed is 0 to 100, and 95 is usual.")
        if not len(self.from_truth) and not len(self.from_result):
            return float("nan")
        share = percent / 100
        return max(
            _percentile(self.from_truth, self.truth_sizes, share),
            _percentile(self.from_result, self.result_sizes, share),
        )

    def dice(self, tolerance: float) -> float:
        """Return the surface Dice coefficient: the share of both surfaces that lies within the tolerance of the other.

        Parameters
        ----------
        tolerance : float
            In the unit of the spacing, from 0. How far apart two experts draw is a good choice.

        Returns
        -------
        float
            0 to 1; nan if both masks are empty.

        Raises
        ------
        InputError
            For a negative tolerance.

        Examples
        --------
        >>> near, far = np.array([0.0, 3.0]), np.array([9.0, 1.0])
        >>> SurfaceDistances(near, far, near, far).dice(tolerance=1)
        0.9
        """
        if not tolerance >= 0:
            raise InputError(f"tolerance is {tolerance}; allowed is 0 or more, in the unit of the spacing.")
        size = float(self.truth_sizes.sum() + self.result_sizes.sum())
        within = self.truth_sizes[self.from_truth <= tolerance].sum()
        within += self.result_sizes[self.from_result <= tolerance].sum()
        return float(within) / size if size else float("nan")


def surface_distances(
    truth: NDArray[Any], labels: NDArray[Any], spacing: float | Sequence[float] = 1.0
) -> SurfaceDistances:
    """Measure the distances between the outlines, or surfaces, of two masks.

    Parameters
    ----------
    truth : ndarray of int or bool, shape (rows, columns) or (planes, rows, columns)
        One mask: 0 is outside, any one other value inside.
    labels : ndarray of int or bool, same shape
        The result, likewise.
    spacing : float or sequence of float
        Size of a pixel along each axis, or one for all; the unit of the distances. 1: distances are in pixels.

    Returns
    -------
    SurfaceDistances

    Raises
    ------
    InputError
        For shapes that differ, other than two or three axes, labels that are not whole numbers, negative values,
        several objects in one image, or a spacing that is not positive.

    Notes
    -----
    A surface passes through the corner where four (in 3-D eight) pixels meet if some of them are inside and some are
    not. Its element there runs half-way between the inside and the outside pixels (marching squares and cubes), and
    stands, for distances, at the corner itself. Beyond the image everything is outside: where the border of the image
    cuts a mask, it has a surface.

    The numbers equal those of the program of Nikolov et al., where one mask has a surface at all. Without any it has
    inf for the Hausdorff distance; here that is nan.

    References
    ----------
    Nikolov et al. 2021, "Clinically applicable segmentation of head and neck anatomy for radiotherapy",
    doi:10.2196/26151.

    Examples
    --------
    Two single pixels, two columns apart; the rows are 2 mm apart, the columns 1 mm:

    >>> truth, labels = np.zeros((2, 5, 7), bool)
    >>> truth[2, 2] = labels[2, 4] = True
    >>> found = surface_distances(truth, labels, spacing=(2, 1))
    >>> found.hausdorff, found.average, found.dice(tolerance=1)
    (2.0, (1.5, 1.5), 0.5)
    """
    inside = [_mask(name, array) for name, array in zip(("truth", "labels"), check_labels(truth, labels), strict=True)]
    steps = _check_spacing(spacing, inside[0].ndim)
    both = inside[0] | inside[1]
    box = ndimage.find_objects(both.astype(np.uint8))[0] if both.any() else ...
    codes = [_neighbourhoods(mask[box]) for mask in inside]
    border = [(code != 0) & (code != np.iinfo(np.uint8).max >> (8 - 2**code.ndim)) for code in codes]
    sizes = _element_sizes(tuple(steps))
    ordered = []
    for one, other in ((0, 1), (1, 0)):
        distances = _distances_to(border[other], steps)[border[one]]
        sizes_of_one = sizes[codes[one][border[one]]]
        order = np.lexsort((sizes_of_one, distances))
        ordered += [distances[order], sizes_of_one[order]]
    return SurfaceDistances(*ordered)


def _mask(name: str, array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where the one object of an image is, or say why there is not one."""
    if array.ndim not in (2, 3):
        raise InputError(f"{name} has shape {array.shape}; outlines are of 2 axes, surfaces of 3.")
    if array.size and array.min() < 0:
        raise InputError(
            f"{name} contains {array.min()}; a mask has no pixels to ignore. Cut them away, on both sides."
        )
    inside: NDArray[np.bool_] = array > 0
    if inside.any() and array[inside].min() != array.max():
        raise InputError(
            f"{name} contains {array[inside].min()} and {array.max()}; surfaces are those of one mask. "
            f"Give {name} == {array.max()} for one object or class, {name} > 0 for all together."
        )
    return inside


def _check_spacing(spacing: float | Sequence[float], axes: int) -> NDArray[np.float64]:
    steps = np.atleast_1d(np.asarray(spacing, np.float64))
    if steps.shape not in ((1,), (axes,)) or not (np.isfinite(steps) & (steps > 0)).all():
        raise InputError(f"spacing is {spacing}; allowed is one number above 0, or {axes}, one for each axis.")
    return np.broadcast_to(steps, (axes,))


def _neighbourhoods(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Number each corner where pixels meet by which of the 4 or 8 are inside; on each axis one more than pixels."""
    padded = np.pad(inside, 1).astype(np.uint8)
    codes = np.zeros([size - 1 for size in padded.shape], np.uint8)
    for bit, corner in enumerate(product((0, 1), repeat=inside.ndim)):
        codes |= padded[tuple(slice(at, at + size) for at, size in zip(corner, codes.shape, strict=True))] << bit
    return codes


def _element_sizes(steps: tuple[float, ...]) -> NDArray[np.float64]:
    """Length or area of the element of each neighbourhood, for pixels of this size."""
    normals, code = (_outline_normals if len(steps) == 2 else _surface_normals)()
    scale = np.prod(steps) / np.array(steps)  # a normal shrinks along its axis and grows with the others
    sizes: NDArray[np.float64] = np.zeros(2**2 ** len(steps))
    np.add.at(sizes, code, np.linalg.norm(normals * scale, axis=1))
    return sizes


@cache
def _outline_normals() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Normals of the lines, as long as these, in each of the 16 neighbourhoods of unit pixels; its number.

    A line joins the middles of two edges of the square whose corners are the pixels. Around a single pixel, inside or
    outside, it cuts the corner off; two pixels at opposite corners are cut off one by one.
    """
    corner: list[tuple[float, ...]] = [(0.5, 0.5)]
    normals = dict.fromkeys((1, 2, 4, 7, 8, 11, 13, 14), corner) | dict.fromkeys((0b0110, 0b1001), corner * 2)
    normals |= {0b0011: [(1, 0)], 0b1100: [(1, 0)], 0b0101: [(0, 1)], 0b1010: [(0, 1)]}
    return _flat(normals)


@cache
def _surface_normals() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Normals of the triangles, as long as their areas, in each of the 256 neighbourhoods of unit voxels; its number.

    The triangles are those of marching cubes, half-way along each edge. Whether the fewer voxels are inside or outside
    makes no difference; such that touch only along an edge are cut off one by one.
    """
    normals = {}
    for code in range(1, 128):
        bits = np.array([code >> bit & 1 for bit in range(8)])
        fewer = bits if bits.sum() <= 4 else 1 - bits
        vertices, faces, _, _ = marching_cubes(fewer.reshape(2, 2, 2).astype(np.float32), 0.5, method="lorensen")
        a, b, c = vertices[faces].transpose(1, 0, 2).astype(np.float64)
        normals[code] = normals[255 - code] = [tuple(normal) for normal in np.cross(b - a, c - a) / 2]
    return _flat(normals)


def _flat(normals: dict[int, list[tuple[float, ...]]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.array([normal for each in normals.values() for normal in each]), np.repeat(
        list(normals), [len(each) for each in normals.values()]
    )


def _distances_to(border: NDArray[np.bool_], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    if not border.any():
        return np.full(border.shape, np.inf)
    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~border, sampling=steps)
    return distances


def _average(distances: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    return float((distances * sizes).sum() / sizes.sum()) if len(distances) else float("nan")


def _percentile(distances: NDArray[np.float64], sizes: NDArray[np.float64], share: float) -> float:
    if not len(distances):
        return float("inf")
    reached = np.searchsorted(np.cumsum(sizes) / sizes.sum(), share)
    return float(distances[min(int(reached), len(distances) - 1)])

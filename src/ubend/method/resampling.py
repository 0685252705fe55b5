"""Read an image at arbitrary positions, mirrored beyond its border.

The one place where pixels are interpolated: the elastic deformation, the augmentation and the rotated views at test
time all describe *where* each output pixel is read, as one grid of positions, and read it here once.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from ubend.errors import InputError
from ubend.method.geometry import mirror, mirrored_slices

BLAS_STARTS_NO_THREADS = 2**17  # multiplications in one matrix product; OpenBLAS starts them beyond 2¹⁸
FEW = 32
"""Rows or columns of an image that is mirrored so often that looking up each pixel is faster than slices."""
MODES = {0: "nearest", 1: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class SamplingGrid:
    """Positions in an image, and the part of the image that they need.

    Attributes
    ----------
    relative : Tensor of float32, shape (rows, columns, 2)
        Column and row of each output pixel, scaled to −1 … 1 over the part.
    top, left, bottom, right : int
        The part of the image; may reach beyond its border on each side.
    """

    relative: Tensor
    top: int
    left: int
    bottom: int
    right: int

    def without_border(self, margin: int) -> "SamplingGrid":
        """Leave out output pixels at each side.

        Parameters
        ----------
        margin : int
            How many.

        Returns
        -------
        SamplingGrid
        """
        inner = self.relative[margin : self.relative.shape[0] - margin, margin : self.relative.shape[1] - margin]
        return SamplingGrid(inner, self.top, self.left, self.bottom, self.right)


def sampling_grid(
    shape: tuple[int, int],
    *,
    affine: NDArray[np.float64] | None = None,
    displacements: NDArray[np.float64] | None = None,
) -> SamplingGrid:
    """Build the positions affine·(row, column, 1) + dense displacement for each pixel of an output.

    Both parts are products of a function of the row and a function of the column, so one matrix product of the inner
    size points + 2 gives all positions: the cost is that of writing them.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the output.
    affine : ndarray, shape (2, 3), optional
        Maps (row, column, 1) of the output to row and column of the image; without it the identity.
    displacements : ndarray, shape (2, points, points), optional
        Row and column displacement, in pixels, at control points spread evenly from the first to the last pixel of
        each axis; made dense by bicubic interpolation with natural splines.

    Returns
    -------
    SamplingGrid
    """
    affine = np.eye(2, 3) if affine is None else affine
    displacements = np.zeros((2, 0, 0)) if displacements is None else displacements
    points = displacements.shape[-1]
    of_rows, of_columns = (_functions_of_axis(length, points) for length in shape)
    first, last = _bounds(shape, affine, displacements)
    scale = 2 / (last - first)  # the grid is scaled to -1 ... 1 over the part first..last
    core = np.zeros((2, points + 2, points + 2))  # axis, (splines, 1, row), (splines, 1, column)
    core[:, :points, :points] = displacements
    core[:, points + 1, points] = affine[:, 0]
    core[:, points, points + 1] = affine[:, 1]
    core[:, points, points] = affine[:, 2] - first
    core *= scale[:, None, None]
    core[:, points, points] -= 1
    relative = _product(of_rows.astype(np.float32), (core[::-1] @ of_columns.T).astype(np.float32))  # column before row
    (top, left), (bottom, right) = first, last + 1
    return SamplingGrid(torch.from_numpy(relative).permute(1, 2, 0), int(top), int(left), int(bottom), int(right))


def _product(of_rows: NDArray[np.float32], of_columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply (rows, n) and (fields, n, columns), some rows at a time: too few for NumPy or torch to start threads.

    Threads would gain a tenth of a millisecond and, where another program has the cores, wait for tens of them.
    """
    product = np.empty((len(of_columns), len(of_rows), of_columns.shape[-1]), np.float32)
    step = max(2 * BLAS_STARTS_NO_THREADS // of_columns.size, 1)
    for start in range(0, len(of_rows), step):
        np.matmul(of_rows[start : start + step], of_columns, out=product[:, start : start + step])
    return product


def _bounds(
    shape: tuple[int, int], affine: NDArray[np.float64], displacements: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last row and column that can be read, rather too many than too few."""
    rows, columns = shape
    corners = np.array([[r, c, 1] for r in (0, rows - 1) for c in (0, columns - 1)], dtype=np.float64)
    positions = corners @ affine.T
    points = displacements.shape[-1]
    overshoot = np.prod([np.abs(_functions_of_axis(length, points)[:, :points]).sum(1).max() for length in shape])
    reach = np.abs(displacements).max((1, 2), initial=0) * overshoot
    return np.floor(positions.min(0) - reach) - 2, np.ceil(positions.max(0) + reach) + 2  # bicubic reads 2 px further


def smooth_field(values: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate values at control points as the displacements of `sampling_grid` are: bicubic, natural splines.

    Parameters
    ----------
    values : ndarray, shape (points, points)
        At control points spread evenly from the first to the last pixel of each axis.
    shape : (int, int)
        Rows and columns wanted.

    Returns
    -------
    ndarray of float32, shape (rows, columns)

    Examples
    --------
    >>> smooth_field(np.array([[0.0, 1.0], [0.0, 1.0]]), (1, 5)).tolist()
    [[0.0, 0.25, 0.5, 0.75, 1.0]]
    """
    points = len(values)
    of_rows, of_columns = (_functions_of_axis(length, points)[:, :points] for length in shape)
    fields = _product(of_rows.astype(np.float32), (values @ of_columns.T).astype(np.float32)[None])
    return fields.reshape(shape)


@lru_cache(maxsize=64)
def _functions_of_axis(length: int, points: int) -> NDArray[np.float64]:
    """Cubic splines through unit values at the control points, then 1, then the index; shape (length, points + 2)."""
    index = np.arange(length, dtype=np.float64)
    splines = np.zeros((length, 0))
    if points > 1:
        at = index * (points - 1) / max(length - 1, 1)
        splines = CubicSpline(np.arange(points), np.eye(points), bc_type="natural")(at)
    elif points == 1:
        splines = np.ones((length, 1))
    return np.column_stack([splines, np.ones(length), index])


def sample(image: NDArray[Any], grid: SamplingGrid, *, order: int) -> Tensor:
    """Read an image at the positions of a grid.

    Parameters
    ----------
    image : ndarray of any real dtype, shape (channels, rows, columns)
        Beyond its border it is mirrored.
    grid : SamplingGrid
        Where to read.
    order : {0, 1, 3}
        0 takes the nearest pixel, so that no value arises that was not there; 1 is linear, 3 cubic.

    Returns
    -------
    Tensor of float32, shape (channels, rows, columns) of the grid
        float64 for labels that float32 does not hold exactly: order 0 and integers beyond ±2²⁴.
    """
    if order not in MODES:
        raise InputError(f"order is 0 (nearest), 1 (linear) or 3 (cubic), not {order!r}")
    wide = order == 0 and image.dtype.kind in "iu" and image.dtype.itemsize > 2
    part = _part(image, grid, np.float64 if wide else np.float32)
    precise = wide and _beyond_float32(part)
    pixels = torch.from_numpy(part if precise else part.astype(np.float32, copy=False))
    where = grid.relative.double() if precise else grid.relative
    read = functional.grid_sample(  # the part holds all that is read; of the paddings zeros are the fastest
        pixels[None], where[None], mode=MODES[order], padding_mode="zeros", align_corners=True
    )
    return read[0]


def resized(image: NDArray[Any], shape: tuple[int, int], *, order: int) -> NDArray[Any]:
    """Read the same field of view with other pixels.

    Parameters
    ----------
    image : ndarray of any real dtype, shape (channels, rows, columns)
    shape : (int, int)
        Rows and columns wanted, at least 1 each.
    order : {0, 1}
        0 takes the nearest pixel, as labels need. 1 is linear; where pixels become larger, the image is smoothed before
        by a Gaussian of (factor − 1)/2 pixels, so that no pattern arises that was not there.

    Returns
    -------
    ndarray, shape (channels, rows wanted, columns wanted)
        Of the dtype of the image; integers are rounded.

    Examples
    --------
    >>> resized(np.array([[[1, 2]]], np.uint8), (2, 4), order=0).tolist()
    [[[1, 1, 2, 2], [1, 1, 2, 2]]]
    """
    factors = [old / new for old, new in zip(image.shape[1:], shape, strict=True)]
    affine = np.array([[factors[0], 0, (factors[0] - 1) / 2], [0, factors[1], (factors[1] - 1) / 2]])
    read = image
    if order > 0 and max(factors) > 1:
        sigma = [0.0, *(max(factor - 1, 0) / 2 for factor in factors)]
        read = gaussian_filter(image.astype(np.float32), sigma, mode="mirror")
    values = sample(read, sampling_grid(shape, affine=affine), order=order).numpy()
    if image.dtype.kind not in "iu":
        return values.astype(image.dtype)
    limits = np.iinfo(image.dtype)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(image.dtype)


def averaged(image: NDArray[Any], times: int) -> NDArray[Any]:
    """Halve rows and columns some times: each pixel is the mean of 2×2; the last of an odd number counts twice.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
    times : int
        How often; 0 returns the image as it is.

    Returns
    -------
    ndarray of float32, shape (channels, ⌈rows/2⌉, ⌈columns/2⌉)

    Examples
    --------
    >>> averaged(np.array([[[1, 2, 9], [3, 4, 9]]], np.uint8), 1).tolist()
    [[[2.5, 9.0]]]
    """
    for _ in range(times):
        image = _blocks(image.astype(np.float32, copy=False)).mean(-1)
    return image


def commonest(labels: NDArray[Any], times: int) -> NDArray[Any]:
    """Halve rows and columns of labels some times: each pixel is the commonest value of 2×2, of equals the smallest.

    So lines of background one pixel wide between cells stay whole; cells lose a quarter of a pixel at each side.
    Negative values, which are not labelled, count only where all four are negative.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
    times : int
        How often; 0 returns the labels as they are.

    Returns
    -------
    ndarray of the same dtype, shape (⌈rows/2⌉, ⌈columns/2⌉)

    Examples
    --------
    >>> commonest(np.array([[0, 7, 2, 2], [7, 7, 1, 1]]), 1).tolist()
    [[7, 1]]
    """
    for _ in range(times):
        four = np.sort(_blocks(labels), axis=-1)
        smallest = np.take_along_axis(four, np.minimum((four < 0).sum(-1, keepdims=True), 3), axis=-1)
        filling = np.where(four[..., 2:3] == four[..., 3:], four[..., 3:], smallest)  # what is commonest of the others
        first, second, third, last = np.moveaxis(np.sort(np.where(four < 0, filling, four), axis=-1), -1, 0)
        pair_at_the_end = (third == last) & (first != second)
        labels = np.where(second == third, second, np.where(pair_at_the_end, last, first))
    return labels


def _blocks(image: NDArray[Any]) -> NDArray[Any]:
    """Put the four pixels of each 2×2 block into a last axis."""
    rows, columns = image.shape[-2:]
    image = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(0, rows % 2), (0, columns % 2)], mode="edge")
    return np.stack([image[..., r::2, c::2] for r in (0, 1) for c in (0, 1)], axis=-1)


def _beyond_float32(labels: NDArray[Any]) -> bool:
    return bool(labels.max() > 2**24 or labels.min() < -(2**24))


def _part(image: NDArray[Any], grid: SamplingGrid, dtype: type[np.floating]) -> NDArray[np.floating]:
    """Cut out what the grid needs, mirrored where it reaches beyond the border; a new array of that dtype."""
    channels, rows, columns = image.shape
    if min(rows, columns) < FEW:
        r, c = mirror(np.arange(grid.top, grid.bottom), rows), mirror(np.arange(grid.left, grid.right), columns)
        return image[:, r[:, None], c].astype(dtype)
    part = np.empty((channels, grid.bottom - grid.top, grid.right - grid.left), dtype)
    for here, of_rows in mirrored_slices(grid.top, grid.bottom, rows):
        for there, of_columns in mirrored_slices(grid.left, grid.right, columns):
            part[:, here, there] = image[:, of_rows, of_columns]
    return part

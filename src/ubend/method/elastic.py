"""Elastic deformation (Ronneberger et al. 2015, Section 3.1).

Random displacements at the points of a coarse 3×3 grid, from a Gaussian with 10 pixels standard deviation; the
displacement of every pixel by bicubic interpolation. Drawing and applying are apart: `draw_elastic` makes a `Bend`,
`deform` applies it to an image and, with the nearest pixel, to its labels.

The control points lie on the first, the middle and the last row and column. Along each axis the interpolation is the
natural cubic spline through them (second derivative 0 at the border): smooth everywhere, exact at the points. Beyond
the border the image is mirrored.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.method.resampling import sample, sampling_grid


@dataclass(frozen=True)
class Bend:
    """One drawn deformation.

    Attributes
    ----------
    displacements : ndarray of float64, shape (2, points, points)
        Rows and columns, in pixels, by which the reading position at each control point is moved.
    """

    displacements: NDArray[np.float64]


def draw_elastic(rng: np.random.Generator, shape: tuple[int, ...], *, points: int = 3, sigma: float = 10.0) -> Bend:
    """Draw the displacements of the control points.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness.
    shape : tuple of int
        Rows and columns (and channels) of the image to be deformed. The control points must not be denser than
        its pixels.
    points : int
        Control points along each axis; 3 in the paper.
    sigma : float
        Standard deviation of the displacements in pixels; 10 in the paper. Beyond about a third of the distance
        between control points the image may fold.

    Returns
    -------
    Bend

    Examples
    --------
    >>> import numpy as np
    >>> bend = draw_elastic(np.random.default_rng(0), (572, 572))
    >>> bend.displacements.shape
    (2, 3, 3)
    """
    if points < 1 or sigma < 0:
        raise InputError(f"an elastic deformation needs points >= 1 and sigma >= 0, not {points} and {sigma}")
    if min(shape[:2]) < 1:
        raise InputError(f"an image of shape {shape} has no pixels to deform")
    return Bend(rng.normal(0.0, sigma, size=(2, points, points)))


def displacement_field(bend: Bend, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate the displacement of each pixel.

    Parameters
    ----------
    bend : Bend
        From `draw_elastic`.
    shape : (int, int)
        Rows and columns.

    Returns
    -------
    ndarray of float32, shape (2, rows, columns)
        In pixels, down and to the right.

    Examples
    --------
    >>> import numpy as np
    >>> moved = Bend(np.full((2, 3, 3), 4.0))
    >>> bool(np.allclose(displacement_field(moved, (5, 7)), 4))
    True
    """
    still = np.zeros((2, 3))
    grid = sampling_grid(shape, affine=still, displacements=bend.displacements)
    size = np.array([grid.right - grid.left - 1, grid.bottom - grid.top - 1])
    absolute = (grid.relative.numpy() + 1) / 2 * size + np.array([grid.left, grid.top])
    return np.ascontiguousarray(absolute[..., ::-1].transpose(2, 0, 1), dtype=np.float32)


def deform(image: NDArray[Any], bend: Bend, *, order: int = 1) -> NDArray[Any]:
    """Apply a deformation.

    Parameters
    ----------
    image : ndarray of any real dtype, shape (rows, columns) or (rows, columns, channels)
        Image, labels or weights.
    bend : Bend
        From `draw_elastic`.
    order : {0, 1, 3}
        1 linear, 3 cubic; 0 the nearest pixel, for labels: no value arises that was not there.

    Returns
    -------
    ndarray of the dtype and shape of the image
        Integers are rounded and kept within the range of their dtype.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.kron(np.arange(16).reshape(4, 4), np.ones((32, 32), np.uint8)).astype(np.uint16)
    >>> bent = deform(labels, draw_elastic(rng, labels.shape), order=0)
    >>> bent.dtype, bool(np.isin(bent, labels).all())
    (dtype('uint16'), True)
    """
    if image.ndim not in (2, 3) or image.dtype.kind not in "buif":
        raise InputError(
            f"deform takes real arrays (rows, columns) or (rows, columns, channels), not {image.dtype} {image.shape}"
        )
    channels_first = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    grid = sampling_grid(image.shape[:2], displacements=bend.displacements)
    read = sample(channels_first, grid, order=order).numpy()
    bent = read.astype(image.dtype) if order == 0 else _as_dtype(read, image.dtype)  # order 0: all values were there
    return bent[0] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(bent, 0, -1))


def _as_dtype(values: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    elif dtype.kind == "b":
        values = np.rint(values)
    converted: NDArray[Any] = values.astype(dtype, copy=False)
    return converted

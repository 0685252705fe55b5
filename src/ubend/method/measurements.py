"""What single objects measure: place, area, shape, brightness; in pixels and in micrometres.

The definitions are those of `skimage.measure.regionprops`. Here all objects are measured together, in bands of rows, so
that 100,000 objects take seconds and the memory does not grow with the image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError

__all__ = ["Measurements", "measure_objects"]

_PIXELS_AT_ONCE = 2**20
_LARGEST_TABLE = 2**24


@dataclass(frozen=True)
class Measurements:
    """One value for each object, in the order of their numbers.

    Attributes
    ----------
    id : ndarray of int64, shape (objects,)
        The label.
    centroid_row, centroid_column : ndarray of float64, shape (objects,)
        In pixels; the middle of the first pixel is 0.
    area : ndarray of int64, shape (objects,)
        Pixels.
    equivalent_diameter : ndarray of float64, shape (objects,)
        Of the disc of equal area, in pixels.
    eccentricity : ndarray of float64, shape (objects,)
        Of the ellipse with equal second moments: 0 for a circle, near 1 for a line.
    mean_intensity : ndarray of float64, shape (objects, channels)
        No channels without an image.
    touches_border : ndarray of bool, shape (objects,)
        Whether a pixel lies on the image's border: the object may be cut.
    pixel_size : float or None
        Micrometres per pixel.
    """

    id: NDArray[np.int64]
    centroid_row: NDArray[np.float64]
    centroid_column: NDArray[np.float64]
    area: NDArray[np.int64]
    equivalent_diameter: NDArray[np.float64]
    eccentricity: NDArray[np.float64]
    mean_intensity: NDArray[np.float64]
    touches_border: NDArray[np.bool_]
    pixel_size: float | None

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return everything as columns of a table, with the unit in the name.

        Returns
        -------
        dict of str to ndarray, shape (objects,)
            The same columns for every image of as many channels: micrometres are nan where the pixel size is unknown.

        Examples
        --------
        >>> table = measure_objects(np.array([[0, 3, 3, 0]]), pixel_size=0.5).columns()
        >>> table["id"].tolist(), table["area_px"].tolist(), table["area_um2"].tolist()
        ([3], [2], [0.5])
        """
        size = np.nan if self.pixel_size is None else self.pixel_size
        intensities = {f"mean_intensity_{k}": values for k, values in enumerate(self.mean_intensity.T, start=1)}
        return {
            "id": self.id,
            "centroid_row_px": self.centroid_row,
            "centroid_column_px": self.centroid_column,
            "area_px": self.area,
            "equivalent_diameter_px": self.equivalent_diameter,
            "eccentricity": self.eccentricity,
            **intensities,
            "touches_border": self.touches_border.astype(np.int64),
            "centroid_row_um": self.centroid_row * size,
            "centroid_column_um": self.centroid_column * size,
            "area_um2": self.area * size**2,
            "equivalent_diameter_um": self.equivalent_diameter * size,
        }


def measure_objects(
    labels: NDArray[Any], image: NDArray[Any] | None = None, *, pixel_size: float | None = None
) -> Measurements:
    """Measure every object of a label image.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        Objects by number up to 2⁶³ - 1, in any order, with or without gaps in the numbers. 0 and negative values are no
        objects.
    image : ndarray, shape (rows, columns) or (rows, columns, channels), optional
        For the mean intensities, in the units of the image.
    pixel_size : float, optional
        Micrometres per pixel.

    Returns
    -------
    Measurements

    Raises
    ------
    InputError
        If `labels` is no label image or holds larger numbers, or the image has other rows and columns.

    References
    ----------
    Area, centroid, `equivalent_diameter_area`, `eccentricity` and `intensity_mean` of `skimage.measure.regionprops`.

    Examples
    --------
    >>> labels = np.array([[7, 7, 0, 0], [7, 7, 0, 2]])
    >>> found = measure_objects(labels, image=np.array([[1, 2, 0, 0], [3, 4, 0, 9]]))
    >>> found.id.tolist(), found.area.tolist(), found.centroid_column.tolist(), found.mean_intensity[:, 0].tolist()
    ([2, 7], [1, 4], [3.0, 0.5], [9.0, 2.5])
    """
    _check(labels, image, pixel_size)
    if labels.dtype.itemsize == 8:
        labels = labels.astype(np.int64, copy=False)  # beside int64, uint64 would become float64 and lose digits
    numbers = _numbers(labels)
    ids, count = numbers.ids, len(numbers.ids)
    channels = [] if image is None else [image[..., k] for k in range(image.shape[2])] if image.ndim == 3 else [image]
    area, rows, columns = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    intensity = np.zeros((count, len(channels)))
    for first, band in _bands(labels):
        which, row, column = _object_pixels(band, numbers)
        area += np.bincount(which, minlength=count)
        rows += np.bincount(which, weights=row + float(first), minlength=count)
        columns += np.bincount(which, weights=column, minlength=count)
        for k, channel in enumerate(channels):
            values = channel[first : first + len(band)][row, column]
            intensity[:, k] += np.bincount(which, weights=values, minlength=count)
    rows, columns = rows / area, columns / area
    return Measurements(
        id=ids,
        centroid_row=rows,
        centroid_column=columns,
        area=area,
        equivalent_diameter=np.sqrt(4 / np.pi * area),
        eccentricity=_eccentricity(labels, numbers, rows, columns),
        mean_intensity=intensity / area[:, None],
        touches_border=_at_border(labels, ids),
        pixel_size=pixel_size,
    )


@dataclass(frozen=True)
class _Numbers:
    """The labels of the objects, sorted, and a table label → place among them if the labels are small enough."""

    ids: NDArray[np.int64]
    table: NDArray[np.int32] | None

    def places(self, labels: NDArray[Any]) -> NDArray[np.integer[Any]]:
        return np.searchsorted(self.ids, labels) if self.table is None else self.table[labels]


def _numbers(labels: NDArray[Any]) -> _Numbers:
    highest = int(labels.max(initial=0))
    if highest > max(_LARGEST_TABLE, labels.size):
        found = [np.unique(band) for _, band in _bands(labels)]
        ids = np.unique(np.concatenate(found))
        return _Numbers(ids[ids > 0].astype(np.int64), None)
    present = np.zeros(max(highest, 0) + 1, dtype=bool)
    for _, band in _bands(labels):
        present[band[band > 0]] = True
    table = np.cumsum(present, dtype=np.int32) - 1
    return _Numbers(np.flatnonzero(present), table.astype(np.int32))


def _bands(labels: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Give the first row and the rows of one part of the image after the other."""
    height = max(1, _PIXELS_AT_ONCE // max(1, labels.shape[1]))
    for first in range(0, labels.shape[0], height):
        yield first, labels[first : first + height]


def _object_pixels(
    band: NDArray[Any], numbers: _Numbers
) -> tuple[NDArray[np.integer[Any]], NDArray[np.intp], NDArray[np.intp]]:
    """Return for each pixel of an object the place of the object, the row in the band, and the column."""
    row, column = np.nonzero(band > 0)
    return numbers.places(band[row, column]), row, column


def _eccentricity(
    labels: NDArray[Any], numbers: _Numbers, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Take second moments about the centroids, in a second pass: about the origin they would lose their digits."""
    count = len(numbers.ids)
    moments = np.zeros((3, count))
    for first, band in _bands(labels):
        which, row, column = _object_pixels(band, numbers)
        down, across = row + first - rows[which], column - columns[which]
        for moment, weights in zip(moments, (down * down, across * across, down * across), strict=True):
            moment += np.bincount(which, weights=weights, minlength=count)
    down2, across2, both = moments
    middle, half = (down2 + across2) / 2, np.hypot((down2 - across2) / 2, both)
    long, short = middle + half, np.maximum(middle - half, 0)
    ratio = np.divide(short, long, out=np.ones(count), where=long > 0)  # one pixel is round
    eccentricity: NDArray[np.float64] = np.sqrt(1 - ratio)
    return eccentricity


def _at_border(labels: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]) if labels.size else labels.ravel()
    return np.isin(ids, edges)


def _check(labels: NDArray[Any], image: NDArray[Any] | None, pixel_size: float | None) -> None:
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in "iu":
        came = f"{labels.dtype}, shape {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise InputError(f"Objects are measured in a label image, integers with the axes (rows, columns); got {came}.")
    if labels.max(initial=0) > np.iinfo(np.int64).max:
        raise InputError(f"Objects have numbers up to {np.iinfo(np.int64).max}; these labels hold {labels.max()}.")
    if image is not None and (image.ndim not in (2, 3) or image.shape[:2] != labels.shape):
        raise InputError(
            f"The image has the shape {image.shape}, the labels {labels.shape}: rows and columns must be the same."
        )
    if pixel_size is not None and not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"The pixel size is micrometres per pixel, above 0; got {pixel_size}.")

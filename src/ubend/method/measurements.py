"""What single objects measure: place, area, shape, brightness; in pixels and in micrometres.

The definitions are those of `skimage.measure.regionprops`. Here all objects are measured together, in bands of rows or,
where the memory does not hold the image, in blocks: 100,000 objects take seconds and the memory does not grow with the
image. An object may lie in any number of blocks, since all that is measured comes from sums over its pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.method.blocks import ReadableArray, Window, blocks_of, border_lines, widened, within

__all__ = ["Measurements", "measure_objects", "measure_objects_in_blocks"]

_PIXELS_AT_ONCE = 2**20
_LARGEST_TABLE = 2**24
_NO_LABELS = "Objects are measured in a label image, integers with the axes (rows, columns); "
_TABLE_PER_OBJECT = 16  # entries of a table of numbers that are worth the time for each object


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
    if not isinstance(labels, np.ndarray):
        raise InputError(_NO_LABELS + f"got {type(labels).__name__}.")
    _check(labels, pixel_size)
    if image is not None and (image.ndim not in (2, 3) or image.shape[:2] != labels.shape):
        raise InputError(
            f"The image has the shape {image.shape}, the labels {labels.shape}: rows and columns must be the same."
        )
    read = None if image is None else lambda rows, columns: np.moveaxis(np.atleast_3d(image)[rows, columns], 2, 0)
    height = max(1, _PIXELS_AT_ONCE // max(1, labels.shape[1]))
    bands = [(slice(at, at + height), slice(0, labels.shape[1])) for at in range(0, max(1, labels.shape[0]), height)]
    return _measure(labels, read, [widened(band, 0, labels.shape) for band in bands], pixel_size)


def measure_objects_in_blocks(
    labels: ReadableArray,
    read_pixels: Callable[[slice, slice], NDArray[Any]] | None = None,
    *,
    pixel_size: float | None = None,
    block: int = 1024,
) -> Measurements:
    """Measure every object of a label image that the memory does not hold.

    The result is that of `measure_objects`, but for the last digits: sums are taken in another order. The labels are
    read three times, the image once.

    Parameters
    ----------
    labels : array of int, shape (rows, columns)
        As in `measure_objects`: a NumPy or zarr array, or what gives windows of pixels as these do.
    read_pixels : callable, optional
        Given a slice of rows and one of columns, returns the image there, (channels, rows, columns).
    pixel_size : float, optional
        Micrometres per pixel.
    block : int
        Rows and columns that are read at a time, in pixels.

    Returns
    -------
    Measurements

    Raises
    ------
    InputError
        As in `measure_objects`, or if `block` is not from 1 on.

    Examples
    --------
    >>> labels, image = np.array([[7, 7, 0, 0], [7, 7, 0, 2]]), np.array([[[1, 2, 0, 0], [3, 4, 0, 9]]])
    >>> found = measure_objects_in_blocks(labels, lambda rows, columns: image[:, rows, columns], block=1)
    >>> found.id.tolist(), found.area.tolist(), found.centroid_column.tolist(), found.mean_intensity[:, 0].tolist()
    ([2, 7], [1, 4], [3.0, 0.5], [9.0, 2.5])
    """
    _check(labels, pixel_size)
    return _measure(labels, read_pixels, blocks_of(labels.shape, block), pixel_size)


def _measure(
    labels: ReadableArray,
    read_pixels: Callable[[slice, slice], NDArray[Any]] | None,
    windows: list[Window],
    pixel_size: float | None,
) -> Measurements:
    numbers = _numbers(labels, windows)
    count = len(numbers.ids)
    area, rows, columns = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    intensity = np.zeros((count, 0))
    for window, part in _parts(labels, windows):
        which, row, column = _object_pixels(part, numbers)
        area += np.bincount(which, minlength=count)
        rows += np.bincount(which, weights=row + float(window[0].start), minlength=count)
        columns += np.bincount(which, weights=column + float(window[1].start), minlength=count)
        if read_pixels is None:
            continue
        pixels = read_pixels(*window)
        _check_pixels(pixels, part)
        if intensity.shape[1] == 0:
            intensity = np.zeros((count, len(pixels)))
        for k, channel in enumerate(pixels):
            intensity[:, k] += np.bincount(which, weights=channel[row, column], minlength=count)
    rows, columns = rows / area, columns / area
    return Measurements(
        id=numbers.ids,
        centroid_row=rows,
        centroid_column=columns,
        area=area,
        equivalent_diameter=np.sqrt(4 / np.pi * area),
        eccentricity=_eccentricity(labels, windows, numbers, rows, columns),
        mean_intensity=intensity / area[:, None],
        touches_border=numbers.at_border,
        pixel_size=pixel_size,
    )


@dataclass(frozen=True)
class _Numbers:
    """The labels of the objects, sorted, and a table label → place among them if the labels are small enough."""

    ids: NDArray[np.int64]
    at_border: NDArray[np.bool_]
    table: NDArray[np.int32] | None

    def places(self, labels: NDArray[Any]) -> NDArray[np.integer[Any]]:
        return np.searchsorted(self.ids, labels) if self.table is None else self.table[labels]


def _numbers(labels: ReadableArray, windows: list[Window]) -> _Numbers:
    found, at_border = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for window, part in _parts(labels, windows):
        found.append(_present(part))
        at_border += [_present(part[within(line, window)]) for line in border_lines(window, labels.shape)]
    ids = np.unique(np.concatenate(found))
    highest, table = int(ids.max(initial=0)), None
    if highest <= max(_LARGEST_TABLE, _TABLE_PER_OBJECT * len(ids)):
        table = np.zeros(highest + 1, np.int32)
        table[ids] = np.arange(len(ids))
    return _Numbers(ids, np.isin(ids, np.concatenate(at_border)), table)


def _present(part: NDArray[Any]) -> NDArray[np.int64]:
    """List the objects of a part of the image, once each."""
    inside = part[part > 0]
    low, high = (int(inside.min()), int(inside.max())) if inside.size > 0 else (0, 0)
    if high - low > max(_PIXELS_AT_ONCE, inside.size):
        return np.unique(inside).astype(np.int64)
    present = np.zeros(high - low + 1, dtype=bool)
    present[inside - low] = True  # several times as fast as sorting
    return np.flatnonzero(present) + low


def _parts(labels: ReadableArray, windows: list[Window]) -> Iterator[tuple[Window, NDArray[Any]]]:
    """Read one window after the other."""
    for window in windows:
        part = np.asarray(labels[window])
        if part.dtype.itemsize == 8:
            if part.max(initial=0) > np.iinfo(np.int64).max:
                raise InputError(
                    f"Objects have numbers up to {np.iinfo(np.int64).max}; these labels hold {part.max()}."
                )
            part = part.astype(np.int64, copy=False)  # beside int64, uint64 would become float64 and lose digits
        yield window, part


def _object_pixels(
    part: NDArray[Any], numbers: _Numbers
) -> tuple[NDArray[np.integer[Any]], NDArray[np.intp], NDArray[np.intp]]:
    """Return for each pixel of an object the place of the object, and the row and the column in the part."""
    row, column = np.nonzero(part > 0)
    return numbers.places(part[row, column]), row, column


def _eccentricity(
    labels: ReadableArray,
    windows: list[Window],
    numbers: _Numbers,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Take second moments about the centroids, in a second pass: about the origin they would lose their digits."""
    count = len(numbers.ids)
    moments = np.zeros((3, count))
    for window, part in _parts(labels, windows):
        which, row, column = _object_pixels(part, numbers)
        down, across = row + window[0].start - rows[which], column + window[1].start - columns[which]
        for moment, weights in zip(moments, (down * down, across * across, down * across), strict=True):
            moment += np.bincount(which, weights=weights, minlength=count)
    down2, across2, both = moments
    middle, half = (down2 + across2) / 2, np.hypot((down2 - across2) / 2, both)
    long, short = middle + half, np.maximum(middle - half, 0)
    ratio = np.divide(short, long, out=np.ones(count), where=long > 0)  # one pixel is round
    eccentricity: NDArray[np.float64] = np.sqrt(1 - ratio)
    return eccentricity


def _check(labels: ReadableArray, pixel_size: float | None) -> None:
    if len(labels.shape) != 2 or np.dtype(labels.dtype).kind not in "iu":
        raise InputError(_NO_LABELS + f"got {labels.dtype}, shape {tuple(labels.shape)}.")
    if pixel_size is not None and not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"The pixel size is micrometres per pixel, above 0; got {pixel_size}.")


def _check_pixels(pixels: NDArray[Any], part: NDArray[Any]) -> None:
    if pixels.ndim != 3 or pixels.shape[1:] != part.shape:
        raise InputError(
            f"The image was read with the shape {pixels.shape} where the labels have {part.shape}; "
            "give (channels, rows, columns)."
        )

"""Images larger than memory, read by regions: OME-Zarr, plain Zarr arrays, TIFF, BigTIFF and OME-TIFF."""

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ubend.data.formats import check_is_file, check_pixel_size, file_stem
from ubend.data.large_tiff import TiffImage, is_tiff, tiff_image
from ubend.data.large_zarr import ZarrImage, is_zarr, zarr_image
from ubend.data.ngff import Level
from ubend.errors import FileError, InputError

__all__ = ["LargeImage", "open_large"]

_BLOCK_BYTES = 2**26
_BLOCK_COLUMNS = 4096
_MOST_PLANES = 1_000_000
_CHANNEL_LETTERS = "cs"


class Regions(Protocol):
    """The pixels of one level, whatever the file."""

    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region, all axes kept in the order of the file."""

    def missing(self, index: tuple[slice, ...]) -> int:
        """Count the chunks that touch a region and are not there."""


@dataclass(frozen=True)
class LargeImage:
    """An image on the disk, of which any region can be read. Pickled, it is its path, and opens again.

    Attributes
    ----------
    path : Path
        As it was given.
    folder : Path
        The file, or the group or array of the Zarr.
    levels : tuple of Level
        The resolutions in the file, the largest first.
    level : int
        Number of the one that is read.
    dtype : dtype
        The file's, in the byte order of this machine.
    chunk : tuple of int
        Rows and columns of what the file packs together: regions along its lines are read fastest.
    version : str or None
        Of OME-Zarr, where it is one.
    zarr_format : int or None
        2 or 3, of a Zarr.
    channel_names : tuple of str
        Where the file has one for each channel.

    Examples
    --------
    >>> import tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     array = zarr.create_array(f"{folder}/cells.zarr", data=np.arange(12, dtype="uint8").reshape(3, 4))
    ...     image = open_large(f"{folder}/cells.zarr")
    ...     image.name, image.axes, image.planes, image.read((), slice(1, 3), slice(0, 2)).tolist()
    ('cells', 'yx', ((),), [[[4, 5], [8, 9]]])
    """

    path: Path
    folder: Path
    levels: tuple[Level, ...]
    level: int
    dtype: np.dtype[Any]
    chunk: tuple[int, int]
    version: str | None
    zarr_format: int | None
    channel_names: tuple[str, ...]
    _regions: Regions = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_level, (self.path.absolute(), self.level)

    @property
    def name(self) -> str:
        """Stem of the file, without ".zarr" and ".ome"; of a place in a Zarr with what leads to it, "plate_A_1_0"."""
        parts = self.path.absolute().parts
        zarrs = [k for k, part in enumerate(parts) if part.lower().endswith(".zarr")]
        if not zarrs or self.zarr_format is None:
            return file_stem(self.path)
        return "_".join((file_stem(parts[zarrs[-1]]), *parts[zarrs[-1] + 1 :]))

    @property
    def axes(self) -> str:
        """A letter for each axis in the order of the file: t, c, z, y, x, s (samples of a TIFF), ? (another)."""
        return self._at.letters

    @property
    def rows(self) -> int:
        """Pixels from top to bottom."""
        return self._at.length("y")

    @property
    def columns(self) -> int:
        """Pixels from left to right."""
        return self._at.length("x")

    @property
    def channels(self) -> int:
        """Values a pixel."""
        return math.prod(self._at.length(letter) for letter in _CHANNEL_LETTERS)

    @property
    def pixel_size(self) -> float | None:
        """Micrometres per pixel of the level that is read; None where unknown or different for rows and columns."""
        return self._at.pixel_size

    @property
    def stack(self) -> tuple[tuple[str, int], ...]:
        """Letter and length of each axis that numbers the planes, in the order of the file."""
        axes = zip(self.axes, self._at.shape, strict=True)
        return tuple((letter, length) for letter, length in axes if letter not in "yx" + _CHANNEL_LETTERS)

    @property
    def planes(self) -> tuple[tuple[int, ...], ...]:
        """One index along each axis of `stack` for every plane; ((),) for a single image."""
        return tuple(itertools.product(*(range(length) for _, length in self.stack)))

    @property
    def _at(self) -> Level:
        return self.levels[self.level]

    def read(self, plane: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        """Read a region.

        Parameters
        ----------
        plane : tuple of int
            One of `planes`.
        rows, columns : slice
            With step 1. What lies beyond the image is left out.

        Returns
        -------
        ndarray of `dtype`, shape (channels, rows, columns)

        Raises
        ------
        InputError
            If there is no such plane, or a slice has a step.
        FileError
            If a chunk, strip or tile is damaged; the message names it.
        """
        size = (len(range(*rows.indices(self.rows))), len(range(*columns.indices(self.columns))))
        index = self._index(plane, rows, columns)
        if 0 in size:
            return np.empty((self.channels, *size), self.dtype)
        found = self._regions.read(index)
        letters = self.axes
        order = [letters.index(letter) for letter in _CHANNEL_LETTERS if letter in letters]
        others = [k for k, letter in enumerate(letters) if letter not in "yx" + _CHANNEL_LETTERS]
        moved = found.transpose(*others, *sorted(order), letters.index("y"), letters.index("x"))
        return np.ascontiguousarray(moved.reshape(self.channels, *size))

    def read_strided(self, plane: tuple[int, ...], step: int) -> NDArray[Any]:
        """Read every `step`-th pixel of a plane, a block at a time.

        Parameters
        ----------
        plane : tuple of int
            One of `planes`.
        step : int
            1 or more.

        Returns
        -------
        ndarray of `dtype`, shape (channels, ceil(rows / step), ceil(columns / step))
            What `read(plane, slice(None), slice(None))[:, ::step, ::step]` gives.

        Raises
        ------
        InputError
            If there is no such plane, or the step is below 1.
        FileError
            As `read`.
        """
        if step < 1:
            raise InputError(f"The step is a whole number, 1 or more; got {step}.")
        found = np.empty((self.channels, -(-self.rows // step), -(-self.columns // step)), self.dtype)
        height, width = self._block()
        for top, left in itertools.product(range(0, self.rows, height), range(0, self.columns, width)):
            i, j = -(-top // step), -(-left // step)
            rows, columns = (
                slice(i * step, min(top + height, self.rows)),
                slice(j * step, min(left + width, self.columns)),
            )
            if rows.start < rows.stop and columns.start < columns.stop:
                block = self.read(plane, rows, columns)[:, ::step, ::step]
                found[:, i : i + block.shape[1], j : j + block.shape[2]] = block
        return found

    def missing_chunks(self, plane: tuple[int, ...]) -> int:
        """Count the chunks (of a TIFF strips or tiles) of a plane that are not in the file.

        They read as the fill value. That may be meant: programs leave out chunks that hold nothing else. It may also be
        a copy that broke off, so this number is one to tell.

        Parameters
        ----------
        plane : tuple of int
            One of `planes`.

        Returns
        -------
        int

        Raises
        ------
        InputError
            If there is no such plane.
        """
        return self._regions.missing(self._index(plane, slice(None), slice(None)))

    def _index(self, plane: tuple[int, ...], rows: slice, columns: slice) -> tuple[slice, ...]:
        lengths = [length for _, length in self.stack]
        if len(plane) != len(lengths) or not all(0 <= k < length for k, length in zip(plane, lengths, strict=True)):
            stack = ", ".join(f"{letter} 0 to {length - 1}" for letter, length in self.stack) or "(), its only one"
            raise InputError(f"{self.path} has no plane {plane}; its planes are {stack}.")
        if rows.step not in (None, 1) or columns.step not in (None, 1):
            raise InputError("A region is read with step 1; `read_strided` reads every n-th pixel of a plane.")
        places = iter(plane)
        regions = {"y": slice(*rows.indices(self.rows)), "x": slice(*columns.indices(self.columns))}
        index = []
        for letter, length in zip(self.axes, self._at.shape, strict=True):
            if letter in "yx":
                index.append(slice(regions[letter].start, regions[letter].stop))
            elif letter in _CHANNEL_LETTERS:
                index.append(slice(0, length))
            else:
                at = next(places)
                index.append(slice(at, at + 1))
        return tuple(index)

    def _block(self) -> tuple[int, int]:
        """Rows and columns of a block of whole chunks that takes some 64 MiB."""
        height, width = self.chunk
        columns = min(self.columns, width * max(1, _BLOCK_COLUMNS // width))
        rows = _BLOCK_BYTES // (columns * self.channels * self.dtype.itemsize)
        return height * max(1, rows // height), columns


def open_large(path: str | Path, *, pixel_size: float | None = None) -> LargeImage:
    """Open an image of any size; of its pixels none are read.

    Parameters
    ----------
    path : str or Path
        An OME-Zarr image of version 0.4 or 0.5, or a level of it (big.zarr/1); a Zarr array of 2 to 5 axes, which are
        what it names them, or (rows, columns, colours) where the last are at most 4, or else the last of t, c, z, y, x
        (three axes are z, y, x); a TIFF, BigTIFF or OME-TIFF with one image, or stack, of one or more resolutions.
        Axes other than y, x and channels number planes.
    pixel_size : float, optional
        Micrometres. Of several levels the one with the nearest pixel size, as a ratio, is read; without it, where the
        file knows no pixel size, the largest is. A level named in the path is read whatever its pixel size.

    Returns
    -------
    LargeImage

    Raises
    ------
    FileError
        If there is no image, or one that is damaged, complex, of unknown axes, or packed in an unknown way; the message
        names the nearest thing that works.

    Examples
    --------
    >>> import tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(f"{folder}/a.tif", np.ones((5, 30, 40), np.uint8), metadata={"axes": "ZYX"})
    ...     image = open_large(f"{folder}/a.tif")
    >>> image.name, image.axes, image.stack, image.rows, image.columns, image.channels
    ('a', 'zyx', (('z', 5),), 30, 40, 1)
    """
    path = Path(path)
    check_pixel_size(pixel_size)
    if is_zarr(path):
        found = zarr_image(path)
        level = found.chosen if found.chosen is not None else _nearest_level(found.levels, pixel_size)
        return _image(path, found, level)
    if path.is_dir():
        raise FileError(f"{path} is a folder, and no Zarr; name one image in it.")
    check_is_file(path)
    if not is_tiff(path):
        raise FileError(f"{path} is neither TIFF nor Zarr, the kinds of which regions can be read; save it as one.")
    tiff = tiff_image(path)
    return _image(path, tiff, _nearest_level(tiff.levels, pixel_size))


def _image(path: Path, found: ZarrImage | TiffImage, level: int) -> LargeImage:
    chosen, regions = found.levels[level], found.regions(level)
    lengths = zip(chosen.letters, chosen.shape, strict=True)
    planes = math.prod(length for letter, length in lengths if letter not in "yx" + _CHANNEL_LETTERS)
    if planes > _MOST_PLANES:
        raise FileError(
            f"{path} has {planes} planes, more than {_MOST_PLANES}: are its axes {chosen.letters} what it says?"
        )
    height, width = (min(regions.chunks[chosen.letters.index(letter)], chosen.length(letter)) for letter in "yx")
    of_zarr = (found.folder, found.version, found.zarr_format) if isinstance(found, ZarrImage) else (path, None, None)
    folder, version, zarr_format = of_zarr
    channels = math.prod(chosen.length(letter) for letter in _CHANNEL_LETTERS)
    names = found.channel_names if len(found.channel_names) == channels else ()
    chunk = (height, width)
    return LargeImage(path, folder, found.levels, level, regions.dtype, chunk, version, zarr_format, names, regions)


def _open_level(path: Path, level: int) -> LargeImage:
    """Open an image again as it was."""
    return _image(path, zarr_image(path) if is_zarr(path) else tiff_image(path), level)


def _nearest_level(levels: tuple[Level, ...], pixel_size: float | None) -> int:
    sizes = [level.pixel_size for level in levels]
    if pixel_size is None or None in sizes:
        return 0
    return min(range(len(levels)), key=lambda k: abs(math.log((sizes[k] or math.nan) / pixel_size)))

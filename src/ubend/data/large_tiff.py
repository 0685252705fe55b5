"""Read regions of a TIFF of any size, and write one tile by tile.

Only the strips and tiles that touch a region are read and unpacked; of an uncompressed page only the pixels asked for.
"""

import itertools
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ubend.data.formats import (
    TIFF_STARTS,
    UNREADABLE,
    check_complete,
    check_pixel_size,
    libtiff_silent,
    reason_of,
    said_in_one_line,
    tiff_channel_names,
    tiff_pixel_size,
    why_not_decoded,
    write_atomically,
)
from ubend.data.ngff import Axis, Level
from ubend.errors import FileError, InputError

__all__ = ["Plane", "TiffImage", "TiffRegions", "is_tiff", "tiff_image", "write_large_tiff"]

_TILE = 512
_TILES_AT_ONCE = 8
_LZW = 5
_JPEG = {6, 7, 34892, 33007}  # compressions whose strips share tables
_PICTURES_OF_THE_SLIDE = {"Thumbnail", "Label", "Macro", "Map"}  # what slide scanners add
_ALPHA_PROBES = 64
_LARGEST_CLASSIC = 2**32 - 2**25  # bytes; classic TIFF counts to 2³², less room for its tables


class Plane(Protocol):
    """An array that is read by regions: rows and columns last."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (classes, rows, columns)."""

    def __getitem__(self, index: Any) -> Any:
        """Read [rows, columns] or [:, rows, columns]."""


@dataclass(frozen=True)
class TiffImage:
    """What a TIFF holds: the levels of its one image, the largest first, and the names of its channels."""

    levels: tuple[Level, ...]
    opened: tuple["TiffRegions", ...]
    channel_names: tuple[str, ...] = ()

    def regions(self, level: int) -> "TiffRegions":
        """Open a level for reading."""
        return self.opened[level]


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF does."""
    with said_in_one_line(path, "TIFF"), path.open("rb") as handle:
        return handle.read(4).startswith(TIFF_STARTS)


def tiff_image(path: Path) -> TiffImage:
    """Read what a TIFF says of its pixels, and none of them.

    Parameters
    ----------
    path : Path
        TIFF, BigTIFF or OME-TIFF, tiled or in strips; of several resolutions all are levels.

    Returns
    -------
    TiffImage

    Raises
    ------
    FileError
        If it is truncated, holds several images of different shapes, or is compressed in an unknown way.
    """
    with said_in_one_line(path, "TIFF"), tifffile.TiffFile(path) as tif:
        check_complete(tif)
        full = [(k, one) for k, one in enumerate(tif.series) if not one.keyframe.is_reduced] or list(
            enumerate(tif.series)
        )
        full = [(k, one) for k, one in full if one.name not in _PICTURES_OF_THE_SLIDE] or full
        if len(full) != 1:
            shapes = ", ".join(" × ".join(map(str, one.shape)) for _, one in full)
            raise FileError(f"{path} holds {len(full)} images ({shapes or 'none'}); save each as a TIFF of its own.")
        index, series = full[0]
        opened = tuple(TiffRegions(path, level) for level in series.levels)
        size = tiff_pixel_size(tif, series, index)
        whole = opened[0].shape
        levels = tuple(
            Level(str(k), _axes(level.axes, size, whole, regions.shape), regions.shape)
            for k, (level, regions) in enumerate(zip(series.levels, opened, strict=True))
        )
        names = tiff_channel_names(tif, index)
    return TiffImage(levels, opened, names)


def _axes(letters: str, size: float | None, whole: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Axis, ...]:
    kinds = {"T": "time", "C": "channel", "Z": "space"}
    unit = None if size is None else "micrometer"
    return tuple(
        Axis(letter.lower(), "space", unit, (1.0 if size is None else size) * full / length)
        if letter in "YX"
        else Axis(letter.lower(), kinds.get(letter))
        for letter, full, length in zip(letters, whole, shape, strict=True)
    )


class TiffRegions:
    """The pixels of one level of a TIFF, read by regions.

    Parameters
    ----------
    path : Path
        The file; for messages.
    series : tifffile.TiffPageSeries
        The level, of an open file.
    """

    def __init__(self, path: Path, series: tifffile.TiffPageSeries):
        first = series.keyframe
        self._path = path
        self.dtype: np.dtype[Any] = np.dtype(series.dtype).newbyteorder("=")
        if self.dtype.kind not in "buif":
            raise FileError(
                f"{path} holds {self.dtype}; an image holds integers or real numbers: save its absolute value."
            )
        self._layout = _Layout.of(path, first)
        self._depth = _axes_of_a_page(path, series)
        self._decode = None if first.is_final else _decoder(path, first)
        self._pages = tuple(_pages(series, self._depth))
        self._whole = tuple(series.shape)  # with an alpha channel that is the same everywhere
        self._letters = str(series.axes)
        tile = {"Y": self._layout.tile[0], "X": self._layout.tile[1]}
        self._tile = tuple(
            tile.get(letter, length if k >= series.ndim - self._depth else 1)
            for k, (letter, length) in enumerate(zip(self._letters, self._whole, strict=True))
        )
        self._alpha_axis = self._letters.index("S") if "S" in self._letters else -1
        self._alpha = self._constant_alpha() if first.extrasamples and first.samplesperpixel in (2, 4) else None
        self.shape = self._without_alpha(self._whole)
        self.chunks = self._without_alpha(self._tile)

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region, all axes kept in the order of the file.

        Raises
        ------
        FileError
            If a strip or tile is damaged; the message names it. Also if an alpha channel, left out because it was
            found to be the same everywhere, is not.
        """
        if self._alpha is None:
            return self._read(index)
        at, samples = self._alpha_axis, self._whole[self._alpha_axis]
        found = self._read((*index[:at], slice(0, samples), *index[at + 1 :]))
        if (found.take(samples - 1, at) != self._alpha).any():
            raise FileError(
                f"{self._path} has an alpha channel that changes only here and there; save the image without it."
            )
        return found[(*(slice(None),) * at, index[at])]

    def missing(self, index: tuple[slice, ...]) -> int:
        """Count the strips or tiles that touch a region and are left out of the file: they read as 0."""
        rows, columns = (index[self._letters.index(letter)] for letter in "YX")
        numbers = [number for number, _ in self._layout.segments(rows, columns)]
        return sum(page.counts[k] == 0 for page in self._touched(index) for k in numbers if k < len(page.counts))

    def _touched(self, index: tuple[slice, ...]) -> list["_Page"]:
        """Give the pages that a region touches."""
        lengths = self._whole[: -self._depth]
        places = itertools.product(*(range(one.start, one.stop) for one in index[: -self._depth]))
        return [self._pages[int(np.ravel_multi_index(place, lengths)) if place else 0] for place in places]

    def _read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        row_axis = self._letters.index("Y")
        rows, columns = index[row_axis], index[row_axis + 1]
        first_of_page = len(self._whole) - self._depth
        size = (rows.stop - rows.start, columns.stop - columns.start)
        pages = np.stack([self._region(page, rows, columns) for page in self._touched(index)])
        found = pages.reshape(
            *(one.stop - one.start for one in index[:first_of_page]),
            *self._whole[first_of_page:row_axis],
            *size,
            *self._whole[row_axis + 2 :],
        )
        part = [slice(None)] * first_of_page + list(index[first_of_page:])
        part[row_axis : row_axis + 2] = [slice(None)] * 2
        return found[tuple(part)]

    def _region(self, page: "_Page", rows: slice, columns: slice) -> NDArray[Any]:
        """Read a region of a page: (separate samples, rows, columns, samples)."""
        if self._decode is None:
            with said_in_one_line(self._path, "TIFF"):
                return self._layout.plain(page, rows, columns).astype(self.dtype, copy=False)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        found = np.zeros((self._layout.planes, *size, self._layout.samples), self.dtype)
        for number, (plane, top, left) in self._layout.segments(rows, columns):
            segment = self._segment(page, number)
            if segment is None:
                continue
            target = found[plane, max(0, top - rows.start) :, max(0, left - columns.start) :]
            piece = segment[
                max(0, rows.start - top) : rows.stop - top, max(0, columns.start - left) : columns.stop - left
            ]
            height, width = min(piece.shape[0], target.shape[0]), min(piece.shape[1], target.shape[1])
            target[:height, :width] = piece[:height, :width]
        return found

    def _segment(self, page: "_Page", number: int) -> NDArray[Any] | None:
        """Unpack one strip or tile, (rows, columns, samples); None where the file leaves it out."""
        assert self._decode is not None
        try:
            if page.counts[number] == 0:
                return None
            with page.path.open("rb") as handle:
                handle.seek(page.offsets[number])
                data = handle.read(page.counts[number])
            segment = self._decode(data, number, **page.options)[0]
            return None if segment is None else np.asarray(segment)[0]
        except UNREADABLE as error:
            what = "tile" if self._layout.tiled else "strip"
            raise FileError(
                f"Cannot read {self._path}: its {what} {number} of page {page.number} is damaged ({reason_of(error)});"
                " copy it again from where the image came from."
            ) from error

    def _without_alpha(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if self._alpha is None:
            return lengths
        at = self._alpha_axis
        return (*lengths[:at], self._whole[at] - 1, *lengths[at + 1 :])

    def _constant_alpha(self) -> Any:
        """Look at places spread over the image; give the value of its alpha channel if it is the same in all."""
        grid = [-(-length // size) for length, size in zip(self._whole, self._tile, strict=True)]
        grid[self._alpha_axis] = 1
        count, values = math.prod(grid), set[Any]()
        for k in np.unique(np.linspace(0, count - 1, _ALPHA_PROBES).astype(int)):
            place = np.unravel_index(k, grid)
            index = [
                slice(int(at) * size, min((int(at) + 1) * size, length))
                for at, size, length in zip(place, self._tile, self._whole, strict=True)
            ]
            last = self._whole[self._alpha_axis] - 1
            index[self._alpha_axis] = slice(last, last + 1)
            values.update(np.unique(self._read(tuple(index))).tolist())
            if len(values) > 1:
                return None
        return values.pop()


@dataclass(frozen=True)
class _Page:
    """Where the strips or tiles of one page lie."""

    number: int
    path: Path
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class _Layout:
    """How a page is cut: `planes` of `rows` × `columns` × `samples`, each in strips or tiles of the size `tile`."""

    planes: int
    rows: int
    columns: int
    samples: int
    tile: tuple[int, int]
    tiled: bool
    stored: np.dtype[Any]

    @classmethod
    def of(cls, path: Path, page: tifffile.TiffPage) -> "_Layout":
        planes, depth, rows, columns, samples = page.shaped
        if depth != 1:
            raise FileError(f"{path} keeps volumes in its pages; save it as a stack of slices.")
        if page.is_final:
            tile = (min(rows, _TILE), columns)
        else:
            tile = (page.tilelength, page.tilewidth) if page.is_tiled else (min(rows, int(page.rowsperstrip)), columns)
        if min(tile) < 1:
            raise ValueError(f"its tiles or strips have {tile[0]} × {tile[1]} pixels")
        count = planes * -(-rows // tile[0]) * -(-columns // tile[1])
        if not page.is_final and count > len(page.dataoffsets):
            raise ValueError(f"it names {len(page.dataoffsets)} of its {count} tiles or strips")
        stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        return cls(planes, rows, columns, samples, tile, bool(page.is_tiled), stored)

    def segments(self, rows: slice, columns: slice) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """Give the numbers of the strips or tiles that touch a region; plane, first row and first column of each."""
        height, width = self.tile
        down, across = -(-self.rows // height), -(-self.columns // width)
        for plane in range(self.planes):
            for i in range(rows.start // height, -(-rows.stop // height)):
                for j in range(columns.start // width, -(-columns.stop // width)):
                    yield (plane * down + i) * across + j, (plane, i * height, j * width)

    def plain(self, page: _Page, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a region of a page that is stored as it is: (planes, rows, columns, samples)."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        found = np.empty((self.planes, height, width, self.samples), self.stored)
        pixel = self.samples * self.stored.itemsize
        lines = found.reshape(self.planes * height, -1).view(np.uint8)
        if width == self.columns:
            lines = lines.reshape(self.planes, -1)
        with page.path.open("rb", buffering=0) as handle:
            for k, line in enumerate(lines):
                plane, row = (k, 0) if width == self.columns else divmod(k, height)
                handle.seek(
                    page.offsets[0] + ((plane * self.rows + rows.start + row) * self.columns + columns.start) * pixel
                )
                line[:] = np.frombuffer(handle.read(line.size), np.uint8)
        return found


def _pages(series: tifffile.TiffPageSeries, depth: int) -> Iterator[_Page]:
    """Give the pages of a level; of a stack that names only its first page, those behind it."""
    first, count = series.keyframe, math.prod(series.shape[: series.ndim - depth])
    options = {"jpegheader": first.jpegheader} if first.compression in _JPEG else {}
    if len(series.pages) != count:
        if series.dataoffset is None:
            raise ValueError(f"{len(series.pages)} of {count} pages can be found")
        path = Path(first.parent.filehandle.path)
        for k in range(count):
            yield _Page(k, path, (series.dataoffset + k * first.nbytes,), (first.nbytes,), options)
        return
    pages: list[Any] = list(series.pages)  # check_complete has seen that none is missing
    for k, page in enumerate(pages):
        more = {"jpegtables": page.jpegtables} if first.compression in _JPEG else {}
        path = Path(page.parent.filehandle.path)
        yield _Page(k, path, tuple(page.dataoffsets), tuple(page.databytecounts), options | more)


def _axes_of_a_page(path: Path, series: tifffile.TiffPageSeries) -> int:
    """Count the last axes of a level that each page has; the others number the pages."""
    for depth in range(2, series.ndim + 1):
        letters = series.axes[-depth:]
        if "YX" in letters and math.prod(series.shape[-depth:]) == series.keyframe.size:
            return depth
    raise FileError(
        f"{path} has the axes {series.axes}, whose pages are not rows and columns (Y, X); save it as a stack of images."
    )


def _decoder(path: Path, page: tifffile.TiffPage) -> Callable[..., Any]:
    """Find what unpacks the strips or tiles of a page."""
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        if page.predictor != 1:
            tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError as error:
        if page.compression == _LZW and page.predictor in (1, 2) and page.bitspersample in (8, 16, 32, 64):
            return _lzw_decoder(page)
        raise FileError(why_not_decoded(path, page)) from error
    decode: Callable[..., Any] = page.decode
    return decode


def _lzw_decoder(page: tifffile.TiffPage) -> Callable[..., Any]:
    """Unpack LZW with the libtiff inside Pillow, which takes the bytes of a strip for the pixels of a gray image."""
    layout, has_differences = _Layout.of(Path(), page), page.predictor == 2
    down = -(-layout.rows // layout.tile[0])

    def decode(data: bytes, number: int) -> tuple[NDArray[Any]]:
        rows = layout.tile[0]
        if not layout.tiled:
            rows = min(rows, layout.rows - number % down * rows)
        width = layout.tile[1] * layout.samples * layout.stored.itemsize
        with (
            libtiff_silent(),
            Image.open(BytesIO(_tiff_of_bytes(data, rows, width)), formats=("TIFF",)) as picture,
        ):
            values = np.array(picture).view(layout.stored).reshape(rows, layout.tile[1], layout.samples)
        if has_differences:
            whole = values.view(f"{layout.stored.byteorder}u{layout.stored.itemsize}")
            native = whole.astype(whole.dtype.newbyteorder("="))
            values = np.add.accumulate(native, axis=1, dtype=native.dtype).view(layout.stored.newbyteorder("="))
        return (values[None],)

    return decode


def _tiff_of_bytes(data: bytes, rows: int, width: int) -> bytes:
    """Put LZW data into a TIFF of one strip with one byte a pixel (TIFF 6.0, section 4)."""
    tags = {256: width, 257: rows, 258: 8, 259: _LZW, 262: 1, 273: 0, 277: 1, 278: rows, 279: len(data)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    table = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + data


def write_large_tiff(
    path: str | Path,
    planes: Plane | Sequence[Plane],
    *,
    maximum: int | None = None,
    stack: Sequence[tuple[str, int]] = (),
    pixel_size: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write labels or probabilities of any size as OME-TIFF: deflate, tiles of 512 × 512, BigTIFF where needed.

    Parameters
    ----------
    path : str or Path
        Ends with .tif or .tiff.
    planes : array-like, or list of array-like
        Labels (rows, columns) of integers, or probabilities (classes, rows, columns) of float32; a list of such, all of
        one shape, is a stack. Each is read by regions, a few tiles at a time: arrays of NumPy and of zarr will do, and
        `LargeResult.plane`.
    maximum : int, optional
        Of labels the largest: they are written in the smallest of uint8, uint16 and uint32 that holds it.
    stack : sequence of (str, int)
        Letter and length of the axes that the list runs through, the last fastest, say [("t", 2), ("z", 5)]. By
        default the list runs along z.
    pixel_size : float, optional
        Micrometres per pixel, kept in the file.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    InputError
        If the planes are neither labels nor probabilities, differ in shape, hold more than `maximum`, or do not fill
        `stack`.
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import read_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_large_tiff(Path(folder) / "a.tif", np.eye(600, dtype=np.uint32), maximum=1, pixel_size=0.25)
    ...     [picture] = read_images(Path(folder) / "a.tif")
    >>> picture.pixels.shape, picture.pixels.dtype.name, picture.pixel_size
    ((600, 600), 'uint8', 0.25)
    """
    path = Path(path)
    many: list[Plane] = list(planes) if isinstance(planes, list | tuple) else [cast(Plane, planes)]
    check_pixel_size(pixel_size)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"A large image is written as .tif, not as {path.suffix or 'a file without ending'}: {path}.")
    dtype = _dtype_of(many, maximum)
    axes = _axes_of_a_stack(stack or ([("z", len(many))] if len(many) > 1 else []), len(many))
    lengths = tuple(length for _, length in axes)
    shape = (*lengths, *many[0].shape)
    size = {} if pixel_size is None else {"PhysicalSizeX": pixel_size, "PhysicalSizeY": pixel_size}
    unit = {} if pixel_size is None else {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    letters = "".join(letter for letter, _ in axes) + ("CYX" if maximum is None else "YX")

    def write(part: Path) -> None:
        tifffile.imwrite(
            part,
            _tiles(many, dtype, maximum),
            shape=shape,
            dtype=dtype,
            ome=True,
            bigtiff=math.prod(shape) * dtype.itemsize > _LARGEST_CLASSIC,
            tile=(_TILE, _TILE),
            compression="zlib",
            photometric="minisblack",
            software="ubend",
            metadata={"axes": letters, **size, **unit},
        )

    write_atomically(path, write, overwrite=overwrite)


def _dtype_of(planes: list[Plane], maximum: int | None) -> np.dtype[Any]:
    shapes = {tuple(plane.shape) for plane in planes}
    if len(shapes) != 1:
        raise InputError(f"The planes of a stack have one shape; these have {sorted(shapes) or 'none'}.")
    shape = shapes.pop()
    if math.prod(shape) == 0 or len(shape) != (3 if maximum is None else 2):
        raise InputError(
            "Labels have the axes (rows, columns) and a maximum, probabilities the axes (classes, rows, columns); these"
            f" have the shape {shape} and {'no maximum' if maximum is None else f'the maximum {maximum}'}."
        )
    if maximum is None:
        return np.dtype(np.float32)
    if not 0 <= maximum < 2**32:
        raise InputError(f"Labels are written as numbers from 0 to {2**32 - 1}; the largest of these is {maximum}.")
    return np.min_scalar_type(maximum)


def _axes_of_a_stack(stack: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Name the axes of a stack as OME-TIFF may: T and Z; what is neither takes the name that is free."""
    if math.prod(length for _, length in stack) != count:
        raise InputError(
            f"A stack of {' × '.join(f'{name} {length}' for name, length in stack)} is not {count} planes."
        )
    given = {name.upper() for name, _ in stack}
    free = [letter for letter in "ZT" if letter not in given]
    named = [
        (name.upper() if name.upper() in "TZ" else (free.pop(0) if free else ""), length) for name, length in stack
    ]
    if len({name for name, _ in named} - {""}) < len(named):
        raise InputError(f"An OME-TIFF has the axes t and z, these are {', '.join(name for name, _ in stack)}.")
    return named


def _tiles(planes: list[Plane], dtype: np.dtype[Any], maximum: int | None) -> Iterator[NDArray[Any]]:
    """Give the tiles of all pages, in the order of the file; some are read together, as they lie side by side."""
    for plane in planes:
        *classes, rows, columns = plane.shape
        wide = _TILE * _TILES_AT_ONCE
        for one in range(classes[0]) if classes else [None]:
            for top, start in itertools.product(range(0, rows, _TILE), range(0, columns, wide)):
                region = (slice(top, min(top + _TILE, rows)), slice(start, min(start + wide, columns)))
                block = np.asarray(plane[region] if one is None else plane[(one, *region)])
                if maximum is not None and (block.min() < 0 or block.max() > maximum):
                    raise InputError(f"The labels go from {block.min()} to {block.max()}, not from 0 to {maximum}.")
                for left in range(0, block.shape[1], _TILE):
                    tile = np.zeros((_TILE, _TILE), dtype)
                    piece = block[:, left : left + _TILE]
                    tile[: piece.shape[0], : piece.shape[1]] = piece
                    yield tile

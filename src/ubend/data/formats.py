"""Images in, label images and probabilities out: TIFF, OME-TIFF, PNG, JPEG, BMP.

A file that holds a stack gives one `Picture` a slice; channels come last. What a program would read as something else
than the file says is an error here, never a guess: a truncated TIFF of five pages is not a TIFF of three.
"""

import difflib
import errno
import logging
import lzma
import math
import os
import re
import struct
import tempfile
import threading
import tokenize
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from ubend.data.machine import check_fits_memory
from ubend.errors import FileError, InputError, UbendError

__all__ = [
    "IMAGE_SUFFIXES",
    "Header",
    "Picture",
    "existing_folder",
    "file_stem",
    "image_files",
    "is_disk_full",
    "read_header",
    "read_images",
    "read_labels",
    "read_probabilities",
    "write_atomically",
    "write_image",
    "write_labels",
    "write_picture",
    "write_probabilities",
    "written_together",
]

_KINDS = {".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}

IMAGE_SUFFIXES = tuple(_KINDS)
"""Endings of the files that `image_files` lists."""

# Without a handler Python itself writes tifffile's warnings to the screen; who wants them adds a handler of their own.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_Page = tuple[NDArray[Any], float | None, tuple[str, ...]]

UNREADABLE = (
    *(OSError, EOFError, MemoryError, SyntaxError),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(RuntimeError, OverflowError, ZeroDivisionError, AssertionError),
    *(struct.error, zlib.error, lzma.LZMAError, Image.DecompressionBombError),
)
"""What tifffile and Pillow raise on damaged files, found by cutting and flipping the bytes of good ones."""

PNG_MARK = b"Software\0ubend"
"""What a picture says of who wrote it (section 11.3.3.1 of the specification)."""

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_START = b"\xff\xd8"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_FIRST_PRIVATE_TAG = 32768
_EXIF_ORIENTATION = 0x0112
_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_TAG_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes; others are 1

_BOUNDED_COMPRESSIONS = frozenset(
    {1, 5, 8, 32773, 32946}
)  # none, LZW, deflate, PackBits, deflate as it was first numbered
_LARGEST_COMPRESSION = 3000
"""Deflate makes 1032 equal bytes one, LZW some 2700: a header that promises more is damaged."""

_LARGEST_TEXT = 2**30  # bytes
_MOST_PIXELS_A_BYTE = 10_000
"""PNG makes 8 × 1032 pixels of one bit each a byte, JPEG and BMP fewer."""
_BYTES_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "LA": 2}
_LIBRARY_SPEAKS = threading.Lock()

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

MICROMETRES = {
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("in", "inch"), 25400.0),
    **dict(zip(("pm", "å", "nm", "mm", "cm", "m"), (1e-6, 1e-4, 1e-3, 1e3, 1e4, 1e6), strict=True)),
    **dict(zip(("picometer", "angstrom", "nanometer"), (1e-6, 1e-4, 1e-3), strict=True)),
    **dict(zip(("millimeter", "centimeter", "meter"), (1e3, 1e4, 1e6), strict=True)),
}
"""How many micrometres a unit is, by the names of ImageJ, OME-XML and OME-Zarr, in small letters."""

_RESOLUTION_UNITS = {2: 25400.0, 3: 10000.0}  # TIFF 6.0, tag 296: inch, centimetre
_LARGEST_FROM_PRINT_UNITS = 20.0
"""Micrometres: 72, 96, 300 or 1200 dots per inch are what a printer gets, not what a microscope saw."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself beside its pixels.

    Attributes
    ----------
    orientation : int
        How to turn what is stored, 1 to 8 as in EXIF and TIFF; 1 is not at all.
    is_palette : bool
        Whether the pixels are numbers of colours.
    axes : str
        Of the first image of a TIFF, as tifffile names them; empty for other files.
    is_jpeg : bool
        Whether the pixels went through JPEG in a file of that kind.
    shape : (int, int, int)
        Pages, rows and columns of all images of the file, as stored; of images of several sizes the first counts.

    Examples
    --------
    >>> Header(orientation=6, is_palette=False, axes="", is_jpeg=True, shape=(1, 40, 60)).orientation
    6
    """

    orientation: int
    is_palette: bool
    axes: str
    is_jpeg: bool
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Picture:
    """One image of a file, with what the file knows about it.

    Attributes
    ----------
    pixels : ndarray, shape (rows, columns) or (rows, columns, channels)
        The dtype is the file's.
    name : str
        Stem of the file; for page k of a stack the stem and "_000k", counted from 0.
    path : Path
        The file.
    pixel_size : float or None
        Micrometres per pixel, where the file knows it and where it is the same along rows and columns.
    channel_names : tuple of str
        Names of the channels, where the file (OME-TIFF) has one for each.

    Examples
    --------
    >>> picture = Picture(np.zeros((2, 3), np.uint8), "cell", Path("cell.tif"), 0.5)
    >>> picture.pixels.shape, picture.pixel_size
    ((2, 3), 0.5)
    """

    pixels: NDArray[Any]
    name: str
    path: Path
    pixel_size: float | None
    channel_names: tuple[str, ...] = ()


def read_images(path: str | Path) -> list[Picture]:
    """Read every image of a file: one a page, slice or time point.

    Parameters
    ----------
    path : str or Path
        TIFF (8 to 64 bits, integers and floats, tiled, BigTIFF, ImageJ, OME), PNG, JPEG or BMP. The content decides,
        not the ending.

    Returns
    -------
    list of Picture
        Channels last. An alpha channel that is the same everywhere is dropped, one that varies is kept as a channel.
        A PNG or BMP palette becomes RGB, or gray where it is gray; a TIFF palette is a look-up table for the screen,
        and the measured values are kept. JPEG is turned the way its EXIF orientation says.

    Raises
    ------
    FileError
        If the file is missing, truncated, no image, or compressed in a way that nothing here can undo.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(Path(folder) / "cell.tif", np.eye(3, dtype=int), pixel_size=0.25)
    ...     [picture] = read_images(Path(folder) / "cell.tif")
    >>> picture.name, picture.pixels.shape, picture.pixels.dtype.name, picture.pixel_size
    ('cell', (3, 3), 'uint8', 0.25)
    """
    return _named(Path(path), _read_pages(Path(path), palette_index=False))


def read_labels(path: str | Path) -> list[Picture]:
    """Read every label image of a file: one whole number a pixel.

    Parameters
    ----------
    path : str or Path
        As for `read_images`. Of a palette the index is the label, as in PASCAL VOC. Three equal channels count as one,
        and floats that are whole numbers as integers. Negative values are kept. Also a .npy of one label image, or of
        several along its first axis; what Cellpose saves as _seg.npy is refused, since reading it could run code.

    Returns
    -------
    list of Picture
        `pixels` of shape (rows, columns), of an integer dtype.

    Raises
    ------
    FileError
        As for `read_images`, and if the pixels are colours, fractions, or what JPEG left of label values.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(Path(folder) / "cell.png", np.eye(2, dtype=int) * 300)
    ...     [picture] = read_labels(Path(folder) / "cell.png")
    >>> picture.pixels.tolist(), picture.pixels.dtype.name
    ([[300, 0], [0, 300]], 'uint16')
    """
    path = Path(path)
    is_array = path.suffix.lower() == ".npy"
    found = _array_pages(path) if is_array else _read_pages(path, palette_index=True)
    pages: list[_Page] = [(_whole_numbers(pixels, path), size, ()) for pixels, size, _ in found]
    if _start(path).startswith(_JPEG_START) and any(len(np.unique(pixels)) > 2 for pixels, _, _ in pages):
        raise FileError(
            f"{path} is a JPEG, which changes label values: it holds more than two. Save the labels as TIFF or PNG."
        )
    return _named(path, pages)


def read_header(path: str | Path) -> Header:
    """Read what a file says about itself, without its pixels.

    Parameters
    ----------
    path : str or Path
        As for `read_images`.

    Returns
    -------
    Header

    Raises
    ------
    FileError
        As for `read_images`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(Path(folder) / "a.tif", np.eye(2, dtype=int))
    ...     read_header(Path(folder) / "a.tif").axes
    'YX'
    """
    path = Path(path)
    check_is_file(path)
    with said_in_one_line(path, _KINDS.get(path.suffix.lower(), "TIFF, PNG, JPEG or BMP")):
        start = _start(path)
        if start.startswith(TIFF_STARTS):
            with tifffile.TiffFile(path) as tif:
                series = tif.series[0]
                orientation = int(series.keyframe.tags.valueof("Orientation", default=1))
                is_palette = series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE
                sizes = dict(zip(series.axes, series.shape, strict=False))
                rows, columns = int(sizes.get("Y", 1)), int(sizes.get("X", 1))
                planes = math.prod(length for axis, length in sizes.items() if axis not in "YXSC")
                shape = (planes * len(tif.series), rows, columns)
                return Header(orientation, is_palette, str(series.axes), is_jpeg=False, shape=shape)
        with _silent(), Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
            orientation = int(picture.getexif().get(_EXIF_ORIENTATION, 1))
            shape = (1, picture.height, picture.width)
            return Header(orientation, picture.mode == "P", "", start.startswith(_JPEG_START), shape)


def read_probabilities(path: str | Path) -> NDArray[np.float32]:
    """Read class probabilities, as `write_probabilities` writes them.

    Parameters
    ----------
    path : str or Path
        A TIFF of floats in 0..1, one channel a class.

    Returns
    -------
    ndarray of float32, shape (classes, rows, columns)

    Raises
    ------
    FileError
        If the file cannot be read, holds several images, or anything but numbers in 0..1.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_probabilities(Path(folder) / "p.tif", np.full((2, 3, 4), 0.5, np.float32))
    ...     read_probabilities(Path(folder) / "p.tif").shape
    (2, 3, 4)
    """
    pictures = read_images(path)
    if len(pictures) > 1:
        raise FileError(
            f"{path} holds {len(pictures)} images; probabilities are one image with a channel for each class."
        )
    pixels = pictures[0].pixels
    if not np.issubdtype(pixels.dtype, np.floating) or not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise FileError(f"{path} holds no probabilities: they are floats in 0..1, and this is {_in_words(pixels)}.")
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), -1, 0), dtype=np.float32)


def image_files(folder: str | Path) -> list[Path]:
    """List the image files of a folder in the order a person counts: img2 before img10.

    Parameters
    ----------
    folder : str or Path
        Its subfolders, hidden files, and what operating systems leave behind are not looked at.

    Returns
    -------
    list of Path
        Empty where there is none.

    Raises
    ------
    FileError
        If the folder does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("img10.tif", "img2.tif", ".img3.tif", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     [path.name for path in image_files(folder)]
    ['img2.tif', 'img10.tif']
    """
    found = [path for path in existing_folder(folder).iterdir() if _looks_like_an_image(path)]
    return sorted(found, key=lambda path: (_natural(path.name), path.name))


def existing_folder(folder: str | Path) -> Path:
    """Return the folder as a path, or say what is wrong with it.

    Parameters
    ----------
    folder : str or Path
        A folder that should exist.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        If there is no such folder (the message names the nearest), or if it is a file.

    Examples
    --------
    >>> existing_folder("/").name
    ''
    """
    path = Path(folder)
    if path.is_dir():
        return path
    if path.exists():
        raise FileError(f"{path} is a file; name a folder, for example {path.parent}.")
    raise FileError(f"There is no folder {path}{nearest_name(path)}.")


def file_stem(path: str | Path) -> str:
    """Return the name of an image without its ending, ".ome.tif" counting as one.

    Parameters
    ----------
    path : str or Path
        A file name.

    Returns
    -------
    str

    Examples
    --------
    >>> file_stem("a/cell.01.ome.tif"), file_stem("cell.png")
    ('cell.01', 'cell')
    """
    stem = Path(path).stem
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem


def write_labels(
    path: str | Path, labels: ArrayLike, *, pixel_size: float | None = None, overwrite: bool = False
) -> None:
    """Write a label image in the smallest of uint8, uint16 and uint32 that holds it.

    Parameters
    ----------
    path : str or Path
        Ends with .tif or .tiff (deflate), or .png.
    labels : array of int or bool, shape (rows, columns)
        Not negative.
    pixel_size : float, optional
        Micrometres per pixel, kept in the file.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    InputError
        If the labels cannot be written as they are, or the ending is another.
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(Path(folder) / "a.tif", [[0, 1], [2, 70000]])
    ...     read_labels(Path(folder) / "a.tif")[0].pixels.dtype.name
    'uint32'
    """
    path, pixels = Path(path), _smallest_unsigned(np.asarray(labels))
    check_pixel_size(pixel_size)
    suffix = path.suffix.lower()
    if suffix == ".png":
        if pixels.dtype == np.uint32:
            raise InputError(
                f"PNG holds labels up to 65535, these go to {pixels.max()}; write {path.stem}.tif instead."
            )
        write_atomically(path, lambda part: part.write_bytes(_png(pixels, pixel_size)), overwrite=overwrite)
    elif suffix in (".tif", ".tiff"):
        write_atomically(path, lambda part: _write_tiff(part, pixels, "YX", pixel_size), overwrite=overwrite)
    else:
        raise InputError(f"Labels are written as .tif or .png, not as {suffix or 'a file without ending'}: {path}.")


def write_image(
    path: str | Path, image: NDArray[Any], *, pixel_size: float | None = None, overwrite: bool = False
) -> None:
    """Write an image as a TIFF, in its own dtype.

    Parameters
    ----------
    path : str or Path
        Ends with .tif or .tiff (deflate).
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    pixel_size : float, optional
        Micrometres per pixel, kept in the file.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    InputError
        If it is no image of real numbers.
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(Path(folder) / "a.tif", np.zeros((4, 5, 2), np.uint16))
    ...     read_images(Path(folder) / "a.tif")[0].pixels.shape
    (4, 5, 2)
    """
    path = Path(path)
    check_pixel_size(pixel_size)
    if image.ndim not in (2, 3) or image.dtype.kind not in "buif":
        raise InputError(
            f"An image is real numbers, (rows, columns) or (rows, columns, channels), not {_in_words(image)}."
        )
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"Images are written as .tif, not as {path.suffix or 'a file without ending'}: {path}.")
    pixels = image.astype(np.uint8) if image.dtype.kind == "b" else image
    colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    axes = "YX" if pixels.ndim == 2 else "YXS" if colour else "CYX"
    if axes == "CYX":
        pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    write_atomically(path, lambda part: _write_tiff(part, pixels, axes, pixel_size), overwrite=overwrite)


def write_probabilities(
    path: str | Path, probabilities: ArrayLike, *, pixel_size: float | None = None, overwrite: bool = False
) -> None:
    """Write class probabilities as a float32 TIFF with one channel a class.

    Parameters
    ----------
    path : str or Path
        Ends with .tif or .tiff.
    probabilities : array of float, shape (classes, rows, columns)
        Class probabilities in 0..1.
    pixel_size : float, optional
        Micrometres per pixel, kept in the file.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    InputError
        If the array has other axes, or the ending is another.
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_probabilities(Path(folder) / "p.tif", np.ones((1, 2, 2)))
    ...     float(read_probabilities(Path(folder) / "p.tif").min())
    1.0
    """
    path, values = Path(path), np.asarray(probabilities, dtype=np.float32)
    check_pixel_size(pixel_size)
    if values.ndim != 3 or values.size == 0:
        raise InputError(f"Probabilities have the axes (classes, rows, columns); these have the shape {values.shape}.")
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"Probabilities are written as .tif, not as {path.suffix or 'a file without ending'}: {path}.")
    write_atomically(path, lambda part: _write_tiff(part, values, "CYX", pixel_size), overwrite=overwrite)


def write_picture(path: str | Path, bands: Iterable[NDArray[np.uint8]], *, overwrite: bool = False) -> None:
    """Write a picture for people as PNG, band by band, so that it never is in memory as a whole.

    Parameters
    ----------
    path : str or Path
        Ends with .png.
    bands : iterable of ndarray of uint8, shape (rows, columns, 3)
        The rows of the picture from top to bottom, some at a time; at least one.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    References
    ----------
    W3C: Portable Network Graphics (PNG) Specification, third edition (2025), sections 5 and 11.

    Examples
    --------
    >>> import tempfile
    >>> red = np.array([[[255, 0, 0]]], np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_picture(Path(folder) / "a.png", [red, red])
    ...     read_images(Path(folder) / "a.png")[0].pixels.tolist()
    [[[255, 0, 0]], [[255, 0, 0]]]
    """
    write_atomically(path, lambda part: _write_png_bands(part, bands), overwrite=overwrite)


def write_atomically(path: str | Path, write: Callable[[Path], object], *, overwrite: bool = False) -> None:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : str or Path
        The file to be.
    write : callable
        Gets a temporary path in the same folder, with the same ending, and writes it.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    FileError
        If the file exists and `overwrite` is false, if its folder is missing, or if the disk is full. Whatever goes
        wrong, no temporary file is left, and a file that was there before is untouched.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "a.txt", lambda part: part.write_text("whole"))
    ...     [(path.name, path.read_text()) for path in Path(folder).iterdir()]
    [('a.txt', 'whole')]
    """
    path = Path(path)
    existing_folder(path.parent)
    check_free(path, overwrite=overwrite)
    part = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write(part)
        with part.open("r+b") as handle:
            os.fsync(handle.fileno())
        check_free(path, overwrite=overwrite)  # another process may have been faster
        part.replace(path)
        _flush_folder(path.parent)
    except UbendError:
        raise
    except OSError as error:
        raise FileError(why_not_written(path, error)) from error
    finally:
        part.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Have the disk remember the new name before a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def written_together(folder: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Write several files of a folder all or none.

    Parameters
    ----------
    folder : str or Path
        Where the files are to be.
    overwrite : bool
        Whether files of their names may be replaced.

    Yields
    ------
    Path
        A folder to write the files into, under their names. They move when the block ends without an error.

    Raises
    ------
    FileError
        If one of them exists and `overwrite` is false, or cannot be moved. Whatever goes wrong in the block, what was
        there before is untouched.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with written_together(folder) as parts:
    ...         for name in ("a.txt", "b.txt"):
    ...             write_atomically(parts / name, lambda part: part.write_text("whole"))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['a.txt', 'b.txt']
    """
    folder = existing_folder(folder)
    moved: list[Path] = []
    path = folder
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as parts:
            try:
                yield Path(parts)
            except FileError as error:  # says the names that the files have only here
                raise FileError(str(error).replace(parts, str(folder))) from error.__cause__
            names = sorted(part.name for part in Path(parts).iterdir())
            for name in names:
                check_free(folder / name, overwrite=overwrite)
            for name in names:
                path = folder / name
                (Path(parts) / name).replace(path)
                moved.append(path)
    except BaseException as error:
        for one in moved:
            one.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, UbendError):
            raise FileError(why_not_written(path, error)) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether a FileError says that there is no space left, so that other files would fare no better.

    Examples
    --------
    >>> is_disk_full(FileError("It is truncated."))
    False
    """
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL


def check_writable(folder: str | Path) -> None:
    """Raise FileError unless files can be written into a folder, or it can be made; nothing is made.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here:
    ...     check_writable(Path(here) / "to" / "be" / "made")
    """
    folder = Path(folder).absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise FileError(f"{nearest} is a file, not a folder: nothing can be written into {folder}.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise FileError(f"{nearest} is not yours to write into; choose another folder.")


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise FileError where a file may not be written because there is one, or a folder, of that name."""
    if path.is_dir():
        raise FileError(f"Cannot write {path}: it is a folder.")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise FileError(f"{path} exists already: say --overwrite (in Python overwrite=True) to replace it.")


def why_not_written(path: Path, error: OSError) -> str:
    """Say in one line why the system refused to write."""
    if error.errno in _DISK_FULL:
        return f"Cannot write {path}: no space left on the disk; free some, or choose another folder."
    if error.errno == errno.EFBIG:
        return f"Cannot write {path}: no space left, its disk or quota takes no file so large; choose another folder."
    return f"Cannot write {path}: {error.strerror or error}."


def check_pixel_size(pixel_size: float | None) -> None:
    """Raise InputError unless this is a size, or None for unknown."""
    if pixel_size is not None and not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(
            f"The pixel size is micrometres per pixel, above 0; got {pixel_size}. Leave it out if unknown."
        )


def _smallest_unsigned(labels: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    if labels.ndim != 2 or labels.size == 0:
        raise InputError(f"A label image has the axes (rows, columns); this array has the shape {labels.shape}.")
    if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.bool_):
        raise InputError(f"Labels are integers; this array is {labels.dtype}: convert it with .astype(int).")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > 2**32 - 1:
        wrong = lowest if lowest < 0 else highest
        raise InputError(f"Labels are written as numbers from 0 to {2**32 - 1}; this image holds {wrong}.")
    return labels.astype(np.min_scalar_type(highest))


def _png(pixels: NDArray[Any], pixel_size: float | None) -> bytes:
    # Encoded in memory: Pillow turns a full disk into an error without errno, a plain write does not.
    buffer = BytesIO()
    resolution = {} if pixel_size is None else {"dpi": (25400 / pixel_size, 25400 / pixel_size)}
    Image.fromarray(pixels).save(buffer, format="PNG", **resolution)
    return buffer.getvalue()


def _write_png_bands(path: Path, bands: Iterable[NDArray[np.uint8]]) -> None:
    rows = columns = 0
    packer = zlib.compressobj(6)
    with path.open("wb") as file:
        file.write(_PNG_START)
        header_at = file.tell()
        file.write(_png_chunk(b"IHDR", bytes(13)))
        file.write(_png_chunk(b"tEXt", PNG_MARK))
        for band in bands:
            rows, columns = rows + band.shape[0], band.shape[1]
            before = np.concatenate([np.zeros_like(band[:, :1]), band[:, :-1]], axis=1)
            lines = np.empty((band.shape[0], 1 + 3 * columns), np.uint8)
            lines[:, 0] = 1  # each pixel as its difference from the one before: packs better
            lines[:, 1:] = (band - before).reshape(band.shape[0], -1)
            file.write(_png_chunk(b"IDAT", packer.compress(lines.tobytes())))
        file.write(_png_chunk(b"IDAT", packer.flush()))
        file.write(_png_chunk(b"IEND", b""))
        file.seek(header_at)
        file.write(_png_chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)))


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _write_tiff(path: Path, pixels: NDArray[Any], axes: str, pixel_size: float | None) -> None:
    per_centimetre = None if pixel_size is None else (10000 / pixel_size, 10000 / pixel_size)
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb" if axes == "YXS" else "minisblack",
        compression="zlib",
        resolution=per_centimetre,
        resolutionunit=None if pixel_size is None else "CENTIMETER",
        software="ubend",
        metadata={"axes": axes},
    )


def _looks_like_an_image(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.startswith(".") and name not in _SYSTEM_FILES and path.is_file()


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name.casefold())]


def nearest_name(path: Path) -> str:
    """Name what exists and is spelled like the missing path, as the end of a sentence."""
    if not path.parent.is_dir():
        return f": its parent folder {path.parent} does not exist either"
    close = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    return f"; the nearest name in {path.parent} is {close[0]}" if close else ""


def _in_words(pixels: NDArray[Any]) -> str:
    shape = " × ".join(map(str, pixels.shape))
    values = f"{np.nanmin(pixels)} to {np.nanmax(pixels)}" if np.isfinite(pixels).any() else "no number at all"
    return f"{pixels.dtype}, {shape}, {values}"


def _named(path: Path, pages: list[_Page]) -> list[Picture]:
    stem, digits = file_stem(path), max(4, len(str(len(pages) - 1)))
    names = [stem] if len(pages) == 1 else [f"{stem}_{k:0{digits}d}" for k in range(len(pages))]
    return [
        Picture(pixels, name, path, size, channels) for name, (pixels, size, channels) in zip(names, pages, strict=True)
    ]


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Pillow's warnings off the screen: what matters of them (a cut file) is an error here anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def libtiff_silent() -> Iterator[None]:
    """Keep what the libtiff inside Pillow says of damaged files, past Python, off the screen."""
    with _LIBRARY_SPEAKS, _silent(), ExitStack() as stack:
        with suppress(OSError):  # no screen at all
            screen = os.dup(2)
            stack.callback(os.close, screen)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
            stack.callback(os.dup2, screen, 2)
        yield


def _start(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(32)


def _read_pages(path: Path, *, palette_index: bool) -> list[_Page]:
    """Read all pages, and turn everything that a damaged file makes the readers raise into one line."""
    check_is_file(path)
    with said_in_one_line(path, _KINDS.get(path.suffix.lower(), "TIFF, PNG, JPEG or BMP")):
        start = _start(path)
        is_tiff = start.startswith(TIFF_STARTS)
        pages = _tiff_pages(path) if is_tiff else [_pillow_page(path, start, palette_index=palette_index)]
    if not pages or any(pixels.size == 0 for pixels, _, _ in pages):
        raise FileError(f"Cannot read {path}: it holds no pixels.")
    return pages


@contextmanager
def said_in_one_line(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into one FileError; `kind` is what it should have been."""
    try:
        yield
    except UbendError:
        raise
    except PermissionError as error:
        raise FileError(f"Cannot read {path}: permission denied.") from error
    except Image.DecompressionBombError as error:
        raise FileError(
            f"{path} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, too many for a {kind}: save it as TIFF "
            "or OME-Zarr, which `ubend predict` reads block by block."
        ) from error
    except UNREADABLE as error:
        raise FileError(f"Cannot read {path}: it is truncated or no {kind} ({reason_of(error)}).") from error


def reason_of(error: BaseException) -> str:
    """Say in a few words what an error of another library said.

    Examples
    --------
    >>> reason_of(ValueError("not   good")), reason_of(EOFError())
    ('not good', 'EOFError')
    """
    return " ".join(str(error).split())[:120] or type(error).__name__


def check_is_file(path: Path) -> None:
    """Raise FileError unless there is such a file: a pipe or a device may never end."""
    if path.is_dir():
        raise FileError(f"{path} is a folder; name one image file in it.")
    if not path.exists():
        raise FileError(f"There is no file {path}{nearest_name(path)}.")
    if not path.is_file():
        raise FileError(f"{path} is a pipe or a device; name a file.")


def text_of(path: Path) -> str:
    """Read a file of text as UTF-8; raise FileError where it is a pipe or a device, or larger than any such file is."""
    check_is_file(path)
    size = path.stat().st_size
    if size > _LARGEST_TEXT:
        raise FileError(f"Cannot read {path}: it has {size} bytes, more than any file of its kind.")
    return path.read_text(encoding="utf-8")


def _array_pages(path: Path) -> list[_Page]:
    """Read a .npy of label images; never one that holds Python objects."""
    check_is_file(path)
    try:
        with np.errstate(over="ignore"):  # mapped, a file must be as long as its header says
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError as error:
        raise FileError(f"Cannot read {path}: permission denied.") from error
    except (*UNREADABLE, tokenize.TokenError) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):  # what NumPy says of Python objects
            raise FileError(_why_no_objects(path)) from error
        raise FileError(f"Cannot read {path}: it is truncated or no array of NumPy ({reason_of(error)}).") from error
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or array.size == 0:
        raise FileError(f"{path} holds no label image: it is an array with the axes (rows, columns), or several such.")
    check_fits_memory(path, array.nbytes)
    return [(page, None, ()) for page in np.array(array if array.ndim == 3 else array[None])]


def _why_no_objects(path: Path) -> str:
    stem = path.stem.removesuffix("_seg")
    return (
        f"{path} holds Python objects, as Cellpose writes them, and reading those could run code: it is not read. In"
        ' Cellpose, File > Save masks as PNG/tif; or, if you trust the file: python -c "import numpy, tifffile;'
        f" tifffile.imwrite('{stem}_masks.tif', numpy.load('{path.name}', allow_pickle=1).item()['masks'])\""
    )


def _whole_numbers(pixels: NDArray[Any], path: Path) -> NDArray[np.integer[Any]]:
    """Bring what was read to one integer a pixel."""
    if pixels.ndim == 3:
        pixels = _one_of_equal_channels(pixels, path)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.integer):
        return pixels
    if np.issubdtype(pixels.dtype, np.floating) and bool(
        (np.rint(pixels) == pixels).all() & (np.abs(pixels) < 2**31).all()
    ):
        return pixels.astype(np.int32)
    raise FileError(f"{path} holds no labels: they are whole numbers, and this is {_in_words(pixels)}.")


def _one_of_equal_channels(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    if pixels.shape[2] != 3:
        raise FileError(
            f"{path} has {pixels.shape[2]} channels; labels have one. If they are slices of a stack, save"
            " them as slices (Fiji: Image > Properties)."
        )
    if not (pixels == pixels[..., :1]).all():
        raise FileError(
            f"{path} holds colours (RGB), and which colour is which label is not known: save it with one number a"
            " pixel, as 8-bit or 16-bit gray or as a palette image."
        )
    return pixels[..., 0]


def _without_constant_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    alpha = pixels[..., -1]
    if (alpha != alpha.flat[0]).any():
        return pixels
    return pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :-1]


# TIFF


def _tiff_pages(path: Path) -> list[_Page]:
    with tifffile.TiffFile(path) as tif:
        check_complete(tif)
        series = list(enumerate(tif.series))
        full = [(k, one) for k, one in series if not one.keyframe.is_reduced] or series  # without thumbnails
        check_fits_memory(path, sum(one.nbytes for _, one in full))
        return [page for k, one in full for page in _series_pages(path, tif, one, k)]


def _series_pages(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, index: int) -> Iterator[_Page]:
    size, names = tiff_pixel_size(tif, series, index), tiff_channel_names(tif, index)
    has_alpha = bool(series.keyframe.extrasamples) and series.keyframe.samplesperpixel in (2, 4)
    for plane in _split_axes(_series_pixels(path, series), series.axes):
        pixels = _without_constant_alpha(plane) if has_alpha and plane.ndim == 3 else plane
        yield pixels, size, names if len(names) == (1 if pixels.ndim == 2 else pixels.shape[-1]) else ()


def check_complete(tif: tifffile.TiffFile) -> None:
    """Raise where the file ends before its pages do; tifffile reads such a file as a shorter stack, or as zeros."""
    count = sum(1 for _ in _page_offsets(tif))
    if len(tif.pages) < count:
        raise ValueError(f"only {len(tif.pages)} of {count} pages can be read")
    end = tif.filehandle.size
    for page in tif.pages:
        if any(at + length > end for at, length in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise ValueError(f"the pixels of page {page.index} lie beyond its end")
    for series in tif.series:
        if any(page is None for page in series.pages):
            raise ValueError("pages that its header promises are missing")
        if any(page and page.parent.filehandle.dirname != tif.filehandle.dirname for page in series.pages):
            raise ValueError("it names a file of another folder as its own")
        if series.keyframe.compression in _BOUNDED_COMPRESSIONS and series.nbytes > _LARGEST_COMPRESSION * (end + 1000):
            raise ValueError("its header promises more pixels than a file of its length can hold")
        if series.dataoffset is not None and series.dataoffset + series.nbytes > end:
            raise ValueError("pixels that its header promises lie beyond its end")


def _page_offsets(tif: tifffile.TiffFile) -> Iterator[int]:
    """Follow the chain of pages (TIFF 6.0, section 2), strictly: a short read is a struct.error."""
    handle, layout, seen = tif.filehandle, tif.tiff, set[int]()

    def number(at: int, form: str, size: int) -> int:
        handle.seek(at)
        return int(struct.unpack(form, handle.read(size))[0])

    at = layout.offsetsize  # where the first offset stands: 4, and 8 in BigTIFF
    while (offset := number(at, layout.offsetformat, layout.offsetsize)) != 0:
        if offset in seen:
            raise ValueError("its pages go round in a circle")
        seen.add(offset)
        yield offset
        length = number(offset, layout.tagnoformat, layout.tagnosize) * layout.tagsize
        if length > handle.size:
            raise ValueError("a table of its tags lies beyond its end")
        _check_tags(handle.read(length), layout, handle.size)
        at = offset + layout.tagnosize + length


def _check_tags(tags: bytes, layout: tifffile.TiffFormat, end: int) -> None:
    """Raise where the value of a standard tag lies beyond the end; tifffile goes on without it, say without axes."""
    form = layout.byteorder + "HH" + layout.offsetformat[1:] * 2
    for code, kind, count, offset in struct.iter_unpack(form, tags):
        size = count * _TAG_SIZES.get(kind, 1)
        if code < _FIRST_PRIVATE_TAG and size > layout.offsetsize and offset + size > end:
            raise ValueError(f"the value of tag {code} lies beyond its end")


def _series_pixels(path: Path, series: tifffile.TiffPageSeries) -> NDArray[Any]:
    try:
        return np.asarray(series.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    pixels = _decoded_by_pillow(path, series)
    if pixels is None:
        raise FileError(why_not_decoded(path, series.keyframe))
    return pixels


def why_not_decoded(path: Path, page: tifffile.TiffPage) -> str:
    """Say what is missing to undo the compression of a TIFF."""
    compression = getattr(page.compression, "name", page.compression)
    return (
        f"Cannot read {path}: its compression {compression} needs one more package "
        "(pip install imagecodecs); or save it uncompressed or as ZIP/deflate (Fiji: File > Save As > Tiff)."
    )


def _decoded_by_pillow(path: Path, series: tifffile.TiffPageSeries) -> NDArray[Any] | None:
    """Undo LZW, JPEG and others with the libtiff inside Pillow; None where the two do not see the same image."""
    first = series.keyframe
    if first.photometric == tifffile.PHOTOMETRIC.MINISWHITE or first.tags.valueof("Orientation", default=1) != 1:
        return None  # Pillow inverts and turns these
    frames = []
    with libtiff_silent(), Image.open(path, formats=("TIFF",)) as picture:
        for page in series.pages:
            if page is None:
                return None
            picture.seek(page.index)
            frames.append(np.array(picture))
            if frames[-1].shape != page.shape or frames[-1].dtype != page.dtype:
                return None
    return np.stack(frames).reshape(series.shape)


def _split_axes(pixels: NDArray[Any], axes: str) -> Iterator[NDArray[Any]]:
    """Give (rows, columns) or (rows, columns, channels) for each plane: C and S are channels, all but Y, X count."""
    if "Y" not in axes or "X" not in axes:
        raise FileError(f"A series with the axes {axes} has no rows and columns (Y, X); save it as a stack of images.")
    row, column = axes.index("Y"), axes.index("X")
    channels = [k for k, axis in enumerate(axes) if axis in "CS"]
    others = [k for k in range(len(axes)) if k not in (row, column, *channels)]
    moved = pixels.transpose(*others, row, column, *channels)
    count = int(np.prod([pixels.shape[k] for k in others], dtype=int))
    depth = int(np.prod([pixels.shape[k] for k in channels], dtype=int))
    for plane in moved.reshape(count, pixels.shape[row], pixels.shape[column], depth):
        yield np.ascontiguousarray(plane[..., 0] if depth == 1 else plane)


def tiff_pixel_size(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, index: int) -> float | None:
    """Return micrometres per pixel of series number `index`, None where the file does not know them."""
    if tif.is_ome and tif.ome_metadata:
        return _ome_pixel_size(tif.ome_metadata, index)
    tags = series.keyframe.tags
    unit = _RESOLUTION_UNITS.get(int(tags.valueof("ResolutionUnit", default=1)))
    written_here = tags.valueof("Software", default="") == "ubend"
    if tif.is_imagej and tif.imagej_metadata and "unit" in tif.imagej_metadata:
        unit = MICROMETRES.get(str(tif.imagej_metadata["unit"]).strip().lower())
    return _from_resolution(
        unit, _ratio(tags.valueof("XResolution")), _ratio(tags.valueof("YResolution")), trust=written_here
    )


def tiff_channel_names(tif: tifffile.TiffFile, index: int) -> tuple[str, ...]:
    """Return the names of the channels of series number `index` in OME-XML; empty unless each channel has one."""
    if not (tif.is_ome and tif.ome_metadata):
        return ()
    pixels = _ome_pixels(tif.ome_metadata)
    if index >= len(pixels):
        return ()
    names = [element.get("Name", "") for element in pixels[index] if element.tag.endswith("}Channel")]
    return tuple(names) if all(names) else ()


def _ratio(value: object) -> float:
    """Return a TIFF rational as a number, 0 where there is none."""
    match value:
        case (int() as numerator, int() as denominator) if denominator:
            return numerator / denominator
    return 0.0


def _from_resolution(unit: float | None, across: float, down: float, *, trust: bool = False) -> float | None:
    """Turn pixels per unit into micrometres per pixel, where that is a microscope's and not a printer's."""
    if unit is None or across <= 0 or down <= 0 or not np.isclose(across, down, rtol=0.01):
        return None
    size = float(f"{unit / across:.9g}")  # rationals cut the tenth digit
    is_print = unit in _RESOLUTION_UNITS.values() and size > _LARGEST_FROM_PRINT_UNITS
    return None if is_print and not trust else size


def _ome_pixels(xml: str) -> list[ElementTree.Element]:
    return [element for element in ElementTree.fromstring(xml).iter() if element.tag.endswith("}Pixels")]


def _ome_pixel_size(xml: str, index: int) -> float | None:
    pixels = _ome_pixels(xml)
    if index >= len(pixels):
        return None
    across, down = (
        float(pixels[index].get(f"PhysicalSize{axis}", "nan"))
        * MICROMETRES.get(pixels[index].get(f"PhysicalSize{axis}Unit", "µm").lower(), float("nan"))
        for axis in "XY"
    )
    return across if across > 0 and np.isclose(across, down, rtol=0.01) else None


# PNG, JPEG, BMP


def _pillow_page(path: Path, start: bytes, *, palette_index: bool) -> _Page:
    is_png = start.startswith(_PNG_START)
    depth, colour = (start[24], start[25]) if is_png and len(start) > 25 else (8, 0)
    if depth == 16 and colour != 0:
        raise FileError(f"Cannot read {path}: 16-bit colour PNG would be cut to 8 bits here; save it as TIFF.")
    with _silent(), Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
        if picture.width * picture.height > _MOST_PIXELS_A_BYTE * (path.stat().st_size + 1000):
            raise ValueError("its header promises more pixels than a file of its length can hold")
        check_fits_memory(path, picture.width * picture.height * _BYTES_OF_MODE.get(picture.mode, 4))
        picture.load()
        size = _png_pixel_size(picture) if is_png else None
        pixels = _pillow_pixels(ImageOps.exif_transpose(picture), palette_index=palette_index)
    if depth in (2, 4) and colour == 0:
        pixels = pixels // np.uint8(255 // (2**depth - 1))  # Pillow spreads them over 0..255
    if depth == 16:
        pixels = pixels.astype(np.uint16)  # int32 in older Pillow
    return pixels, size, ()


def _png_pixel_size(picture: Image.Image) -> float | None:
    across, down = picture.info.get("dpi", (0.0, 0.0))
    return _from_resolution(_RESOLUTION_UNITS[2], across, down)


def _pillow_pixels(picture: Image.Image, *, palette_index: bool) -> NDArray[Any]:
    if picture.mode == "P" and not palette_index:
        colours = np.array(picture.convert("RGB"))
        return colours[..., 0] if (colours == colours[..., :1]).all() else colours
    if picture.mode in ("RGBA", "LA"):
        return _without_constant_alpha(np.array(picture))
    if picture.mode in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "F", "RGB"):
        return np.array(picture)
    return np.array(picture.convert("RGB"))

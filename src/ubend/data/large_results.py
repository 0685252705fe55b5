"""Labels and probabilities of images larger than memory, written block by block as OME-Zarr, by several processes."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BloscCodec

from ubend.data.formats import check_writable, existing_folder, why_not_written, write_atomically
from ubend.data.large import LargeImage
from ubend.data.large_zarr import is_zarr, open_zarr_array
from ubend.data.ngff import ZARR_FORMATS, Axis, in_order, multiscales_metadata
from ubend.errors import FileError, InputError

__all__ = ["LargeResult", "ResultPlane", "create_labels", "create_probabilities", "is_our_result"]

_SMALLEST_LEVEL = 256
_MARK = "ubend"  # the attribute by which a result is known as ours
_BLOCK = 4096  # columns of a level that are made at once


@dataclass(frozen=True)
class LargeResult:
    """A label image, or probabilities, that is being written. Pickled, it is its path, and opens again.

    Attributes
    ----------
    path : Path
        The Zarr.
    name : str or None
        Of a label image, which stands in labels/NAME; None for probabilities, which are the image itself.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.large import open_large
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = zarr.create_array(f"{folder}/cells.zarr", data=np.zeros((60, 50), "uint8"))
    ...     result = create_labels(f"{folder}/labels.zarr", open_large(f"{folder}/cells.zarr"), chunk=64)
    ...     result.write((), 0, 0, np.ones((60, 50), int))
    ...     result.finish()
    ...     int(open_large(f"{folder}/labels.zarr/labels/ubend").read((), slice(0, 9), slice(0, 9)).sum())
    81
    """

    path: Path
    name: str | None

    @classmethod
    def open(cls, path: str | Path, name: str | None = "ubend") -> "LargeResult":
        """Open a result that was created before, here or in another process.

        Parameters
        ----------
        path : str or Path
        name : str or None
            Of the label image; None for probabilities.

        Raises
        ------
        FileError
            If there is none.
        """
        result = cls(Path(path), name)
        if _MARK not in result.array.attrs:
            raise FileError(f"{result.folder} was not written by ubend; name a path that `create_labels` has made.")
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return LargeResult.open, (self.path.absolute(), self.name)

    @property
    def folder(self) -> Path:
        """The group of the label image or of the probabilities."""
        return self.path if self.name is None else self.path / "labels" / self.name

    @cached_property
    def array(self) -> Any:
        """The Zarr array of the largest level, with the axes t, c, z, y, x as far as it has them."""
        return open_zarr_array(self.folder / "0", "r+")

    @cached_property
    def _notes(self) -> Mapping[str, Any]:
        notes: Mapping[str, Any] = self.array.attrs[_MARK]
        return notes

    @property
    def _format(self) -> int:
        return ZARR_FORMATS[self._notes["version"]]

    @property
    def axes(self) -> str:
        """A letter for each axis of `array`."""
        return str(self._notes["letters"])

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns of a chunk; blocks are multiples of it."""
        return self.array.chunks[-2], self.array.chunks[-1]

    def plane(self, plane: tuple[int, ...]) -> "ResultPlane":
        """Give one plane, to read and to write any region of.

        Parameters
        ----------
        plane : tuple of int
            One of the `planes` of the image.

        Returns
        -------
        ResultPlane
            Of shape (rows, columns), or (classes, rows, columns). Only one process at a time may write to a chunk.

        Raises
        ------
        InputError
            If there is no such plane.
        """
        stack = str(self._notes["stack"])
        lengths = [self.array.shape[self.axes.index(letter)] for letter in stack]
        if len(plane) != len(lengths) or not all(0 <= k < length for k, length in zip(plane, lengths, strict=True)):
            raise InputError(f"{self.folder} has no plane {plane}; the lengths of its stack are {lengths}.")
        places = dict(zip(stack, plane, strict=True))
        return ResultPlane(self.array, tuple(places.get(letter) for letter in self.axes), self.folder)

    def write(self, plane: tuple[int, ...], row: int, column: int, block: NDArray[Any]) -> None:
        """Write a block; several processes may write blocks at a time.

        Parameters
        ----------
        plane : tuple of int
            One of the `planes` of the image.
        row, column : int
            Where the block begins: multiples of `chunk`.
        block : ndarray, shape (rows, columns) or (classes, rows, columns)
            Its rows and columns are multiples of `chunk`, or reach the edge of the image. Labels are integers that the
            dtype of the result holds.

        Raises
        ------
        InputError
            If the block cuts a chunk, which two processes might then write at once, lies outside, or does not fit.
        FileError
            If it cannot be written; what was written before stays as it is.
        """
        target, (height, width) = self.plane(plane), self.chunk
        rows, columns = target.shape[-2:]
        if block.ndim != len(target.shape) or block.shape[:-2] != target.shape[:-2]:
            raise InputError(f"A block has the axes of a plane, {target.shape}; this has the shape {block.shape}.")
        bottom, right = row + block.shape[-2], column + block.shape[-1]
        whole = row % height == 0 and column % width == 0
        whole = whole and (bottom % height == 0 or bottom == rows) and (right % width == 0 or right == columns)
        if not whole or row < 0 or column < 0 or bottom > rows or right > columns:
            raise InputError(
                f"A block is whole chunks of {height} × {width} within {rows} × {columns}; this takes rows {row}"
                f" to {bottom} and columns {column} to {right}."
            )
        target[..., row:bottom, column:right] = block

    def missing_chunks(self) -> int:
        """Count the chunks that were not written yet."""
        array = self.array
        grids = (range(-(-length // size)) for length, size in zip(array.shape, array.chunks, strict=True))
        keys = (array.metadata.encode_chunk_key(place) for place in itertools.product(*grids))
        return sum(not (self.folder / "0" / key).exists() for key in keys)

    def finish(self) -> None:
        """Make the smaller levels, every second pixel of the one before, and write the metadata of OME-Zarr last.

        Before that, no program takes the result for an image.

        Raises
        ------
        FileError
            If blocks are missing, or something cannot be written.
        """
        missing = self.missing_chunks()
        if missing:
            raise FileError(f"{self.path} is not complete: {missing} of its chunks were never written; run it again.")
        axes = tuple(Axis(**axis) for axis in self._notes["axes"])
        levels = [("0", axes)]
        with _writing(self.path):
            while max(self.array.shape[-2:]) > _SMALLEST_LEVEL * 2 ** (len(levels) - 1):
                self._halve(len(levels))
                axes = tuple(replace(axis, scale=2 * axis.scale) if axis.letter in "yx" else axis for axis in axes)
                levels.append((str(len(levels)), axes))
            self._write_metadata(levels)

    def _halve(self, level: int) -> None:
        """Write a level from the one before, some chunks that lie side by side at a time."""
        larger, chunks = open_zarr_array(self.folder / str(level - 1)), self.array.chunks
        shape = (*larger.shape[:-2], *(-(-length // 2) for length in larger.shape[-2:]))
        axes = tuple(Axis(**axis) for axis in self._notes["axes"])
        smaller = _new_array(self.folder / str(level), shape, chunks, self.array.dtype, self._format, axes, {})
        height, width = self.chunk[0], self.chunk[1] * max(1, _BLOCK // self.chunk[1])
        for place in np.ndindex(*shape[:-2]):
            for top, left in itertools.product(range(0, shape[-2], height), range(0, shape[-1], width)):
                region = slice(top, min(top + height, shape[-2])), slice(left, min(left + width, shape[-1]))
                twice = tuple(slice(2 * one.start, 2 * one.stop) for one in region)
                smaller[(*place, *region)] = larger[(*place, *twice)][::2, ::2]

    def _write_metadata(self, levels: list[tuple[str, tuple[Axis, ...]]]) -> None:
        version = str(self._notes["version"])
        extra: dict[str, Any] = {}
        if self.name is not None:
            source = self._notes["source"]
            label = ({"version": version} if version == "0.4" else {}) | (
                {"source": {"image": source}} if source else {}
            )
            extra = {"image-label": label | ({"source": {"image": source}} if source else {})}
        attributes = multiscales_metadata(version, self.name or "probabilities", levels, extra)
        _write_group(self.folder, self._format, attributes)
        if self.name is not None:
            named = {"labels": [self.name]}
            both = named if version == "0.4" else {"ome": {"version": version, **named}}
            _write_group(self.path / "labels", self._format, both)
            _write_group(self.path, self._format, {})


@dataclass(frozen=True)
class ResultPlane:
    """One plane of a result, read and written like an array: [rows, columns], or [classes, rows, columns].

    Attributes
    ----------
    array : zarr.Array
    place : tuple of int or None
        Index along each axis; None for those that the plane has.
    folder : Path
        For messages.
    """

    array: Any
    place: tuple[int | None, ...]
    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (classes, rows, columns)."""
        return tuple(length for length, at in zip(self.array.shape, self.place, strict=True) if at is None)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return np.asarray(self.array[self._full(index)])

    def __setitem__(self, index: Any, values: Any) -> None:
        values = np.asarray(values)
        if self.dtype.kind in "ui" and values.size:
            limits = np.iinfo(self.dtype)
            if values.dtype.kind not in "uib" or values.min() < limits.min or values.max() > limits.max:
                raise InputError(
                    f"Labels are integers from {limits.min} to {limits.max} here; these are {values.dtype}, from"
                    f" {values.min()} to {values.max()}: create the result with a larger dtype."
                )
        with _writing(self.folder):
            self.array[self._full(index)] = values.astype(self.dtype, copy=False)

    def _full(self, index: Any) -> tuple[Any, ...]:
        given = list(index) if isinstance(index, tuple) else [index]
        free = len(self.shape)
        if Ellipsis in given:
            at = given.index(Ellipsis)
            given[at : at + 1] = [slice(None)] * (free - len(given) + 1)
        if len(given) > free:
            raise IndexError(f"a plane of {free} axes takes no index of {len(given)}")
        parts = iter(given + [slice(None)] * (free - len(given)))
        return tuple(next(parts) if at is None else at for at in self.place)


def create_labels(
    path: str | Path,
    like: LargeImage,
    *,
    dtype: DTypeLike = np.uint32,
    name: str = "ubend",
    version: str | None = None,
    chunk: int = 1024,
    overwrite: bool = False,
) -> LargeResult:
    """Create a label image in a new OME-Zarr, under labels/NAME, with the axes of an image but its channels.

    Parameters
    ----------
    path : str or Path
        A folder that is to be made. napari shows path/labels/NAME beside the image.
    like : LargeImage
        The image that is segmented.
    dtype : dtype
        Of unsigned integers.
    name : str
        Of the label image.
    version : {"0.4", "0.5"}, optional
        Of OME-Zarr; by default 0.4, on zarr format 2, where the image is of zarr format 2, else 0.5, on format 3.
    chunk : int
        Rows and columns of a chunk, at most those of the image.
    overwrite : bool
        Whether a result of ubend, whole or begun, may be replaced. Nothing else ever is.

    Returns
    -------
    LargeResult
        To be written block by block, all of them, and then finished.

    Raises
    ------
    InputError
        If dtype, name, version or chunk cannot be.
    FileError
        If the path is taken, is the image or lies within it, or cannot be written.
    """
    dtype = np.dtype(dtype)
    if dtype.kind != "u":
        raise InputError(f"Labels are unsigned integers, uint8 to uint64; got {dtype}.")
    if not name or name in (".", "..") or any(sign in name for sign in '/\\:*?"<>|') or name.startswith("__"):
        raise InputError(f"{name!r} cannot be the name of a label image; take letters and digits, for example ubend.")
    return _create(Path(path), like, name, dtype, 0, version, chunk, overwrite=overwrite)


def create_probabilities(
    path: str | Path,
    like: LargeImage,
    classes: int,
    *,
    version: str | None = None,
    chunk: int = 1024,
    overwrite: bool = False,
) -> LargeResult:
    """Create probabilities in a new OME-Zarr, float32, with the axes of an image; its channels are the classes.

    Parameters
    ----------
    path : str or Path
        A folder that is to be made.
    like : LargeImage
        The image that is segmented.
    classes : int
        How many there are.
    version, chunk, overwrite
        As for `create_labels`. Each class has chunks of its own.

    Returns
    -------
    LargeResult
        To be written block by block, all of them, and then finished.

    Raises
    ------
    InputError, FileError
        As `create_labels`.
    """
    if classes < 1:
        raise InputError(f"Probabilities have one class or more; got {classes}.")
    return _create(Path(path), like, None, np.dtype(np.float32), classes, version, chunk, overwrite=overwrite)


def _create(
    path: Path,
    like: LargeImage,
    name: str | None,
    dtype: np.dtype[Any],
    classes: int,
    version: str | None,
    chunk: int,
    *,
    overwrite: bool,
) -> LargeResult:
    version = version or ("0.4" if like.zarr_format == 2 else "0.5")
    if version not in ZARR_FORMATS:
        raise InputError(f"OME-Zarr is written in the versions {' and '.join(ZARR_FORMATS)}, not {version}.")
    if chunk < 1:
        raise InputError(f"A chunk has one row and column or more; got {chunk}.")
    result = LargeResult(path, name)
    _make_room(path, like, overwrite=overwrite)
    level = like.levels[like.level]
    kept = [(axis, length) for axis, length in zip(level.axes, level.shape, strict=True) if axis.letter not in "cs"]
    if classes:
        kept.append((Axis("c", "channel"), classes))
    axes = in_order([_with_kind(axis) for axis, _ in kept])
    lengths = {axis.letter: length for axis, length in kept}
    letters = "".join(axis.letter for axis in axes)
    notes = {
        "axes": [asdict(axis) for axis in axes],
        "letters": letters,
        "stack": "".join(letter for letter, _ in like.stack),
        "version": version,
        "source": _relative(like, result.folder),
    }
    shape = tuple(lengths[letter] for letter in letters)
    chunks = tuple(min(chunk, length) if letter in "yx" else 1 for letter, length in zip(letters, shape, strict=True))
    with _writing(path):
        _new_array(result.folder / "0", shape, chunks, dtype, ZARR_FORMATS[version], axes, {_MARK: notes})
    return result


def _with_kind(axis: Axis) -> Axis:
    """Say what an axis is where the file did not, in the words of OME-NGFF."""
    kinds = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    return replace(axis, kind=kinds.get(axis.letter, axis.kind))


def _relative(like: LargeImage, folder: Path) -> str | None:
    """Give the way from the labels to the image, where both are Zarrs of one disk."""
    if like.version is None:
        return None
    try:
        return Path(os.path.relpath(like.folder.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return None


def _make_room(path: Path, like: LargeImage, *, overwrite: bool) -> None:
    """Make sure that a path can be written, and take an older result away."""
    here, image = path.resolve(), like.folder.resolve()
    if here == image or here in image.parents or any(is_zarr(parent) for parent in here.parents):
        raise FileError(
            f"{path} is the image {like.path}, holds it, or lies in a Zarr: results go into a Zarr of their own, say"
            f" {like.path.absolute().parent / (like.name + '_labels.zarr')}."
        )
    existing_folder(path.parent)
    check_writable(path.parent)
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not is_our_result(path):
        raise FileError(f"{path} exists already and is no result of ubend; choose another name.")
    if not overwrite:
        raise FileError(f"{path} exists already: say --overwrite (in Python overwrite=True) to replace it.")
    with _writing(path):
        for name in ("zarr.json", ".zgroup"):  # first what would make half of it look whole
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path)


def is_our_result(path: Path) -> bool:
    """Whether a folder is a result of `create_labels` or `create_probabilities`, whole or begun: it may be replaced.

    Examples
    --------
    >>> is_our_result(Path("/"))
    False
    """
    return any(_is_ours(array) for array in (path / "0", *path.glob("labels/*/0")))


def _is_ours(array: Path) -> bool:
    try:
        return _MARK in open_zarr_array(array).attrs
    except FileError:
        return False


def _new_array(
    path: Path,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    zarr_format: int,
    axes: tuple[Axis, ...],
    attributes: dict[str, Any],
) -> Any:
    shared: dict[str, Any] = {"shape": shape, "chunks": chunks, "dtype": dtype, "fill_value": 0, "overwrite": True}
    shared |= {"attributes": attributes, "config": {"write_empty_chunks": True}}
    if zarr_format == 2:
        codec: dict[str, Any] = {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1}
        slashes: dict[str, Any] = {"name": "v2", "separator": "/"}
        return zarr.create_array(path, zarr_format=2, compressors=codec, chunk_key_encoding=slashes, **shared)
    packed = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize)
    names = [axis.name for axis in axes]
    return zarr.create_array(path, zarr_format=3, compressors=packed, dimension_names=names, **shared)


def _write_group(path: Path, zarr_format: int, attributes: dict[str, Any]) -> None:
    """Write the metadata of a group whose arrays are there already."""
    if zarr_format == 2:
        files = {".zattrs": attributes, ".zgroup": {"zarr_format": 2}}
    else:
        files = {"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": attributes}}
    for name, content in files.items():
        write_atomically(path / name, partial(_write_json, content), overwrite=True)


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(why_not_written(path, error)) from error

"""Find the image in a Zarr, and read regions of it: OME-Zarr 0.4 and 0.5, one of its levels, or an array alone."""

import itertools
import json
import math
import os
import re
import stat
import warnings
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.registry import register_codec
from zarr.storage import LocalStore

from ubend.data.formats import UNREADABLE, reason_of, said_in_one_line, text_of
from ubend.data.machine import check_fits_memory
from ubend.data.ngff import Axis, Level, parse_multiscales
from ubend.errors import FileError

__all__ = ["ZarrImage", "ZarrRegions", "is_zarr", "open_zarr_array", "zarr_image"]

_METADATA = ("zarr.json", ".zarray", ".zgroup")
_MOST_LOOKED_AT = 500  # folders, to name an image in a message
_PLAIN_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
_MOST_COLOURS = 4
_DEEPEST_LEVEL = 3  # how far below its group a level may stand
_BLOSC_HEADER = 16  # bytes; the last four are the length of all
_NUMBERS = re.compile(r"\d+")
_REFUSED_CODECS = re.compile(r'"(?:name|id)": "(?:[^"]*pickle|numcodecs\.blosc)[^"]*"', re.IGNORECASE)
"""Those that run code, and a second name of Blosc, without the check of its length."""
_ALWAYS_BELIEVED = 2**30  # bytes
_LARGEST_COMPRESSION = 100_000
"""An image of which less than so many parts are stored, packed, holds nothing to segment."""


@dataclass(frozen=True)
class ZarrImage:
    """What a Zarr holds.

    Attributes
    ----------
    folder : Path
        The group of the image, or the array alone.
    levels : tuple of Level
        The largest first.
    chosen : int or None
        The level that the user named.
    version : str or None
        Of OME-Zarr; None for an array alone.
    zarr_format : int
        2 or 3.
    channel_names : tuple of str
        Empty unless each channel has one.
    """

    folder: Path
    levels: tuple[Level, ...]
    chosen: int | None
    version: str | None
    zarr_format: int
    channel_names: tuple[str, ...] = ()

    def regions(self, level: int) -> "ZarrRegions":
        """Open a level for reading."""
        return ZarrRegions(self.folder / self.levels[level].path)


class ZarrRegions:
    """The pixels of one Zarr array, read by regions.

    Parameters
    ----------
    path : Path
        Folder of the array.
    """

    def __init__(self, path: Path):
        self._path, self._array = path, open_zarr_array(path)
        self.dtype: np.dtype[Any] = np.dtype(self._array.dtype).newbyteorder("=")
        self.chunks: tuple[int, ...] = tuple(self._array.chunks)

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region, all axes kept in the order of the file.

        Raises
        ------
        FileError
            If a chunk is damaged; the message names it.
        """
        try:
            return np.asarray(self._array[index]).astype(self.dtype, copy=False)
        except MemoryError:
            raise
        except UNREADABLE as error:
            raise self._damage(index, error) from error

    def missing(self, index: tuple[slice, ...]) -> int:
        """Count the files of chunks (or shards) that touch a region and are not there: they read as the fill value."""
        grid, there = self._grid(index), self._there
        for axis, one in enumerate(grid):  # in their order, those of one plane are neighbours
            there = there[slice(*np.searchsorted(there[:, axis], (one.start, one.stop)))]
            if len(one) > 1:
                break
        inside = [(there[:, axis] >= one.start) & (there[:, axis] < one.stop) for axis, one in enumerate(grid)]
        return math.prod(map(len, grid)) - int(np.logical_and.reduce(inside).sum())

    @cached_property
    def _there(self) -> NDArray[np.int64]:
        """The places of all chunks that have a file, in order: looked up by the files, of which there are no more."""
        key_of, axes, found = self._array.metadata.encode_chunk_key, self._array.ndim, array("q")
        for folder, _, names in os.walk(self._path):
            above = Path(folder).relative_to(self._path)
            for name in names:
                key = (above / name).as_posix()
                place = [int(number) for number in _NUMBERS.findall(key)][-axes:]
                if len(place) == axes and key_of(tuple(place)) == key:
                    found.extend(place)
        places = np.array(found, dtype=np.int64).reshape(-1, axes)
        return places[np.lexsort(places.T[::-1])]

    def _grid(self, index: tuple[slice, ...]) -> list[range]:
        sizes = tuple(self._array.shards or self._array.chunks)
        return [range(one.start // size, -(-one.stop // size)) for one, size in zip(index, sizes, strict=True)]

    def _stored(self, index: tuple[slice, ...]) -> Iterator[tuple[str, tuple[slice, ...]]]:
        """Give the key of each chunk file that touches a region, and the part of the region that it holds."""
        sizes = tuple(self._array.shards or self._array.chunks)
        for place in itertools.product(*self._grid(index)):
            part = tuple(
                slice(max(one.start, k * size), min(one.stop, (k + 1) * size))
                for one, k, size in zip(index, place, sizes, strict=True)
            )
            yield self._array.metadata.encode_chunk_key(place), part

    def _damage(self, index: tuple[slice, ...], error: BaseException) -> FileError:
        for key, part in self._stored(index):
            try:
                self._array[part]
            except UNREADABLE as why:
                return FileError(
                    f"Cannot read {self._path}: its chunk {key} is damaged ({reason_of(why)}); copy it again from where"
                    " the image came from."
                )
        return FileError(f"Cannot read {self._path}: {reason_of(error)}.")


class _Files(LocalStore):
    """A folder of which only files are read: a pipe, or a device such as /dev/zero, may never end."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        path = self.root / key
        with suppress(FileNotFoundError, NotADirectoryError):
            found = path.stat()
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                raise FileError(f"{path} is a pipe or a device, and no file.")
            if byte_range is None:
                check_fits_memory(path, found.st_size)
        return await super().get(key, prototype, byte_range)


def _check_blosc(packed: Any) -> None:
    """Raise ValueError where a Blosc frame states another length than it has: the C library would read beyond its end.

    So `blosc_cbuffer_validate` of c-blosc does, which numcodecs does not call.
    """
    found = memoryview(packed).cast("B")
    if len(found) < _BLOSC_HEADER or int.from_bytes(found[12:_BLOSC_HEADER], "little") != len(found):
        raise ValueError("it is cut, or its header damaged")


class CheckedBlosc(BloscCodec):
    """Blosc of zarr format 3, which checks the length of what it unpacks."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        _check_blosc(chunk_bytes.as_numpy_array())
        return super()._decode_sync(chunk_bytes, chunk_spec)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        _check_blosc(chunk_bytes.as_numpy_array())
        return await super()._decode_single(chunk_bytes, chunk_spec)


register_codec("blosc", CheckedBlosc)
_OUR_CODECS = {"codecs.blosc": f"{CheckedBlosc.__module__}.{CheckedBlosc.__qualname__}"}


def _checked_codecs(array: Any) -> Any:
    """Have the codecs of an array of zarr format 2 check what they unpack."""
    if array.metadata.zarr_format == 2:
        for codec in (array.metadata.compressor, *(array.metadata.filters or ())):
            if isinstance(codec, numcodecs.Blosc):
                codec.decode = partial(_decode_checked, codec.decode)
    return array


def _decode_checked(decode: Callable[..., Any], packed: Any, out: Any = None) -> Any:
    _check_blosc(packed)
    return decode(packed, out)


def is_zarr(path: Path) -> bool:
    """Whether a path is meant as a Zarr: a folder with its metadata, or with its ending.

    Examples
    --------
    >>> is_zarr(Path("/"))
    False
    """
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in _METADATA))


def open_zarr_array(path: Path, mode: Literal["r", "r+"] = "r") -> Any:
    """Open an array of a local Zarr.

    Parameters
    ----------
    path : Path
        Its folder.
    mode : {"r", "r+"}
        To read, or to write too; what is written is stored even where it is all zero.

    Returns
    -------
    zarr.Array

    Raises
    ------
    FileError
        If its metadata is damaged, or its compression is unknown here.
    """
    node = _node(path)
    if node is None or node[0] != "array":
        raise FileError(f"There is no Zarr array {path}.")
    _check_codecs(path)
    try:
        with warnings.catch_warnings(), zarr.config.set(_OUR_CODECS):
            warnings.simplefilter("ignore")  # of what other programs wrote into the metadata
            store = _Files(path, read_only=mode == "r")
            array = zarr.open_array(store, mode=mode, zarr_format=node[1]).with_config({"write_empty_chunks": True})
        return _checked_codecs(array)
    except FileError:
        raise
    except PermissionError as error:
        raise FileError(f"Cannot read {path}: permission denied.") from error
    except UNREADABLE as error:
        if "codec" in str(error).lower():
            raise FileError(
                f"Cannot read {path}: its compression is not known here ({reason_of(error)}); save it with blosc, zstd"
                " or gzip."
            ) from error
        raise FileError(f"Cannot read {path}: its metadata is no image's ({reason_of(error)}).") from error


def _check_codecs(path: Path) -> None:
    """Refuse chunks that are packed in an unsafe way before any of them is opened."""
    name = "zarr.json" if (path / "zarr.json").is_file() else ".zarray"
    found = _REFUSED_CODECS.search(json.dumps(_json(path / name)))
    if found and "pickle" in found[0].lower():
        raise FileError(
            f"{path} holds Python objects (pickle), and reading those could run code: it is not read. Save it with"
            " blosc, zstd or gzip."
        )
    if found:
        raise FileError(f"{path} is packed with numcodecs.blosc, which is not read: save it with blosc, zstd or gzip.")


def zarr_image(path: Path) -> ZarrImage:
    """Find the image that a path into a Zarr means.

    Parameters
    ----------
    path : Path
        The group of an image, the group above its only image, a level of it, or an array without OME metadata.

    Returns
    -------
    ZarrImage

    Raises
    ------
    FileError
        If there is none; the message names the nearest.
    """
    node = _node(path)
    if node is None:
        raise FileError(f"{path} is a folder without the metadata of a Zarr (zarr.json or .zgroup); {_instead(path)}.")
    kind, zarr_format = node
    if kind == "array":
        return _of_level(path, zarr_format) or _alone(path, zarr_format)
    image = _of_group(path, zarr_format, named=None)
    if image is not None:
        return image
    inside = [child for child in _children(path) if _has_image(child)]
    if [child.name for child in inside] == ["0"]:  # the layout of bioformats2raw
        return zarr_image(inside[0])
    if inside:
        raise FileError(f"{path} holds {len(inside)} images; name one of them, for example {inside[0]}.")
    raise FileError(f"{path} is {_what_else(path)}; {_instead(path)}.")


def _node(path: Path) -> tuple[str, Literal[2, 3]] | None:
    """Say whether a folder is an "array" or a "group", and of which zarr format; None where it is neither."""
    if (path / "zarr.json").is_file():
        return str(_json(path / "zarr.json").get("node_type")), 3
    if (path / ".zarray").is_file():
        return "array", 2
    return ("group", 2) if (path / ".zgroup").is_file() else None


def _json(path: Path) -> dict[str, Any]:
    with said_in_one_line(path, "metadata of a Zarr"):
        found = json.loads(text_of(path))
        if not isinstance(found, dict):
            raise ValueError("no table of names and values")
    return found


def _attributes(path: Path) -> dict[str, Any]:
    if (path / "zarr.json").is_file():
        found = _json(path / "zarr.json").get("attributes") or {}
        return found if isinstance(found, dict) else {}
    return _json(path / ".zattrs") if (path / ".zattrs").is_file() else {}


def _of_group(path: Path, zarr_format: int, named: str | None) -> ZarrImage | None:
    """Read the multiscales of a group; where one level is named, others that are missing are left out."""
    with said_in_one_line(path, "OME-Zarr"):
        found = parse_multiscales(_attributes(path))
        for name, _ in found.datasets if found is not None else ():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"its level {name!r} lies outside of it")
    if found is None or (named is not None and named not in [name for name, _ in found.datasets]):
        return None
    there = [(name, axes) for name, axes in found.datasets if _node(path / name) is not None]
    if named is None and len(there) < len(found.datasets):
        lost = next(name for name, _ in found.datasets if _node(path / name) is None)
        instead = f"; name a level that is there, for example {path / there[0][0]}" if there else ""
        raise FileError(f"{path} is not complete: its level {lost} is missing{instead}.")
    levels = tuple(_checked(path, name, axes, found.version) for name, axes in there)
    chosen = None if named is None else [level.path for level in levels].index(named)
    return ZarrImage(path, levels, chosen, found.version, zarr_format, found.channel_names)


def _of_level(path: Path, zarr_format: int) -> ZarrImage | None:
    """Find the group whose metadata names an array as one of its levels."""
    absolute = path.absolute()
    for group in absolute.parents[:_DEEPEST_LEVEL]:
        node = _node(group)
        if node is not None and node[0] == "group":
            image = _of_group(group, zarr_format, named=absolute.relative_to(group).as_posix())
            if image is not None:
                return image
    return None


def _alone(path: Path, zarr_format: int) -> ZarrImage:
    array = open_zarr_array(path)
    return ZarrImage(path, (_checked(path, "", _plain_axes(path, array), None),), None, None, zarr_format)


def _plain_axes(path: Path, array: Any) -> tuple[Axis, ...]:
    """Take the axes that the array names, or those that its shape suggests: (rows, columns, colours), or "tczyx"."""
    if not 2 <= array.ndim <= 5:
        raise FileError(f"{path} has {array.ndim} axes; an image has 2 to 5, of t, c, z, y and x.")
    with said_in_one_line(path, "Zarr array"):
        names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
        axes = tuple(Axis(str(name)) for name in names)
    if {"y", "x"} <= {axis.letter for axis in axes}:
        return axes
    shape = array.shape
    if array.ndim in (3, 4) and shape[-1] <= _MOST_COLOURS < min(shape[-3:-1]):
        return tuple(map(Axis, "zyxc"[-array.ndim :]))
    return tuple(map(Axis, _PLAIN_AXES[array.ndim]))


def _checked(path: Path, name: str, axes: tuple[Axis, ...], version: str | None) -> Level:
    """Make a level of an array, if it is one that can be segmented."""
    array = open_zarr_array(path / name)
    _check_size(path / name, array)
    if not axes and version in ("0.1", "0.2"):
        axes = tuple(map(Axis, "tczyx"))
    level = Level(name, axes, tuple(array.shape))
    letters, names = level.letters, ", ".join(axis.name for axis in axes) or "not named"
    if len(axes) != array.ndim:
        raise FileError(f"Cannot read {path}: it names {len(axes)} axes, and its level {name or '0'} has {array.ndim}.")
    if letters.count("?") > 1:
        unknown = ", ".join(axis.name for axis in axes if axis.letter == "?")
        raise FileError(f"{path} has the axes {names}; beside t, c, z, y and x there may be one other, not {unknown}.")
    if "y" not in letters or "x" not in letters or len(set(letters)) < len(letters):
        raise FileError(
            f"{path} has the axes {names}; an image has one y and one x, and of t, c and z at most one each."
        )
    if array.dtype.kind not in "buif":
        raise FileError(
            f"{path} holds {array.dtype}; an image holds integers or real numbers: save its absolute value."
        )
    if math.prod(array.shape) == 0:
        raise FileError(f"Cannot read {path}: it holds no pixels.")
    return level


def _check_size(path: Path, array: Any) -> None:
    """Raise FileError where the metadata promise far more than the files could hold, or chunks that are too large."""
    with said_in_one_line(path, "Zarr array"):
        a_chunk = math.prod(array.chunks) * array.dtype.itemsize
        promised = math.prod(array.shape) * array.dtype.itemsize
        if min(array.chunks, default=1) < 1 or min(array.shape, default=0) < 0:
            raise ValueError(f"it has the shape {array.shape} in chunks of {array.chunks}")
        check_fits_memory(path, min(a_chunk, promised))
        if promised > _ALWAYS_BELIEVED and not _holds(path, promised // _LARGEST_COMPRESSION):
            raise ValueError(f"its metadata promise {promised / 1e9:.0f} GB, of which next to nothing is there")


def _holds(path: Path, least: int) -> bool:
    """Whether the files of a folder have so many bytes; of an honest image a few of them do."""
    found = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                found += (Path(folder) / name).stat().st_size
            if found >= least:
                return True
    return False


# What to say where there is no image


def _children(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


def _has_image(path: Path) -> bool:
    try:
        return parse_multiscales(_attributes(path)) is not None
    except (FileError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _what_else(path: Path) -> str:
    attributes = _attributes(path)
    ome = attributes.get("ome")
    known = {**attributes, **(ome if isinstance(ome, dict) else {})}
    if "plate" in known:
        return "a plate of wells, not one image"
    if "well" in known:
        return "a well, not one image"
    if "labels" in known:
        return "a group of label images, not an image"
    if "encoding-type" in known:
        return f"a table ({known['encoding-type']}), not an image"
    return "a Zarr group without an image" if _children(path) else "an empty Zarr group"


def _instead(path: Path) -> str:
    """Name the nearest image below a folder, or say what to name."""
    queue, looked = [path], 0
    while queue and looked < _MOST_LOOKED_AT:
        folder, looked = queue.pop(0), looked + 1
        for child in _children(folder):
            try:
                node = _node(child)
            except FileError:
                continue
            if _has_image(child) or (
                node is not None and node[0] == "array" and "encoding-type" not in _attributes(child)
            ):
                return f"name an image in it, for example {child}"
            if node is None or node[0] == "group":
                queue.append(child)
    return "name the folder of an OME-Zarr image, or a TIFF"

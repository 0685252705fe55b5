"""The images of a session: planes of arrays and files of folders, each with what is painted and what was found."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import (
    Annotated,
    Kind,
    Pair,
    Task,
    class_indices,
    infer_task,
    read_pairs,
    search_pairs,
)
from ubend.data.formats import Picture, file_stem, image_files, read_images
from ubend.data.origin import was_written_here
from ubend.errors import FileError, InputError
from ubend.faces.napari.painting import BACKGROUND, FIRST, labels_of, painting_of

__all__ = ["LARGE", "UNLABELLED", "Shown", "Window", "images_in_folder", "part_seen", "planes_of"]

LARGE = 2048
"""Rows or columns beyond which only a part of an image is painted and shown with its result."""
LEAST = 64
"""Rows and columns of that part at least."""
UNLABELLED = 65535
"""In saved masks, of pixels on which nothing is painted."""
MOST_PLANES = 5000
LOOKED_AT = 16
"""Annotated images of a folder by which it is seen what labels mean."""
_MAY_BE_STACKS = {".tif", ".tiff", ".npy", ".gif"}
Window = tuple[slice, slice]


@dataclass(eq=False)
class Shown:
    """One image of the session, or the part of a large one that is worked on.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Rows and columns of the whole image; (0, 0) until a file is read.
    read : callable
        Gives rows and columns of it, (rows, columns) or (rows, columns, channels); of a large image no more than asked.
    layer : object, optional
        Where the viewer shows it already, and which plane of that layer it is.
    plane : tuple of int
    path : Path, optional
        Its file.
    window : pair of slice, optional
        The part of a large image that is worked on.
    painted : ndarray of int32, shape (rows, columns) of the window, optional
        See `painting`.
    result : ndarray of int, same shape, optional
        Labels that the model `result_of` gave.
    unsure : float, optional
        Mean disagreement of the model's views; the larger, the more an annotation would teach.
    held_out : bool
        Whether the model was never trained on it.
    """

    name: str
    read: Callable[[slice, slice], NDArray[Any]]
    shape: tuple[int, int] = (0, 0)
    layer: Any = None
    plane: tuple[int, ...] = ()
    path: Path | None = None
    pixel_size: float | None = None
    window: Window | None = None
    painted: NDArray[np.int32] | None = None
    result: NDArray[np.integer[Any]] | None = None
    result_of: object = None
    unsure: float | None = None
    held_out: bool = False
    labels: Callable[[], NDArray[Any]] | None = field(default=None, repr=False)
    """Reads labels that a folder holds, until they are needed."""

    @property
    def file_name(self) -> str:
        """The stem of its files."""
        return re.sub(r"[^\w.,()+=@#-]", "-", re.sub(r"[\[\]]", "", self.name).replace(" ", "_"))

    @property
    def offset(self) -> tuple[int, int]:
        """First row and column of what is worked on."""
        return (0, 0) if self.window is None else (self.window[0].start, self.window[1].start)

    def pixels(self, margin: int = 0, step: int = 1) -> tuple[NDArray[Any], Window]:
        """Read what is worked on, with up to `margin` more around it, and say where in that it lies.

        What is read begins at a multiple of `step`, as the pooling grid of a network wants it.
        """
        if self.window is None:
            whole = self.read(slice(None), slice(None))
            self.shape = whole.shape[:2]
            return whole, (slice(0, whole.shape[0]), slice(0, whole.shape[1]))
        wide = [
            slice(max(0, part.start - margin) // step * step, min(length, part.stop + margin))
            for part, length in zip(self.window, self.shape, strict=True)
        ]
        inside = [slice(s.start - w.start, s.stop - w.start) for s, w in zip(self.window, wide, strict=True)]
        return self.read(wide[0], wide[1]), (inside[0], inside[1])

    def painting(self) -> NDArray[np.int32]:
        """Give what is painted, to paint on: the labels of the folder at first, or nothing.

        Raises
        ------
        InputError
            If the labels have other rows and columns than the image.
        """
        if self.painted is None:
            if self.shape == (0, 0):
                self.pixels()
            shape = self.shape if self.window is None else tuple(s.stop - s.start for s in self.window)
            painted = np.zeros(shape, np.int32) if self.labels is None else painting_of(self.labels())
            if painted.shape != shape:
                raise InputError(f"{self.name} has {shape} rows and columns, and its labels {painted.shape}")
            self.painted = painted
        return self.painted

    @property
    def is_annotated(self) -> bool:
        """Whether there is something to learn from."""
        return self.labels is not None if self.painted is None else bool(self.painted.any())

    def annotated(self) -> Annotated:
        """Give image and labels to train on; a copy, so that painting may go on."""
        pixels, _ = self.pixels()
        return Annotated(self.name, pixels, labels_of(self.painting()), self.pixel_size)

    def in_words(self) -> str:
        """Say in a few words what is known of it."""
        words = []
        if self.painted is not None and self.painted.any():
            cells = np.unique(self.painted)
            count = int((cells >= FIRST).sum())
            whole = (self.painted != 0).all()
            words.append(f"{count} painted" if count else "background painted" if BACKGROUND in cells else "")
            words += ["complete"] if whole else []
        elif self.labels is not None:
            words.append("has labels")
        if self.held_out:
            words.append("held out")
        if self.unsure is not None and not self.is_annotated:
            words.append(f"unsure {self.unsure:.1%}")
        return " · ".join(word for word in words if word)


def planes_of(
    name: str,
    data: Any,
    *,
    colour: bool = False,
    layer: Any = None,
    path: Path | None = None,
    pixel_size: float | None = None,
) -> list[Shown]:
    """Take an array apart into its images.

    Parameters
    ----------
    name : str
    data : array, shape (…, rows, columns) or (…, rows, columns, channels)
        Anything with a shape that can be indexed: NumPy, Dask, Zarr. It is read when it is needed.
    colour : bool
        Whether the last axis is channels.
    layer : object, optional
        The layer of the viewer that shows it.
    path : Path, optional
        The file it comes from.
    pixel_size : float, optional
        Micrometres per pixel.

    Returns
    -------
    list of Shown
        One for each plane. Of images beyond `LARGE` the part in the middle is worked on until the view says which.

    Raises
    ------
    InputError
        If it has fewer than two axes, or thousands of planes.

    Examples
    --------
    >>> [image.name for image in planes_of("film", np.zeros((2, 30, 40)))]
    ['film [0]', 'film [1]']
    """
    shape = tuple(data.shape)[: -1 if colour else None]
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"{name} has the shape {tuple(data.shape)}: an image has rows and columns")
    stack = shape[:-2]
    if (number := int(np.prod(stack, dtype=np.int64))) > MOST_PLANES:
        raise InputError(f"{name} has {number} planes, {MOST_PLANES} are possible: take a part of it")
    found = []
    for plane in itertools.product(*map(range, stack)):
        own = f"{name} [{', '.join(map(str, plane))}]" if stack else name
        size = (int(shape[-2]), int(shape[-1]))
        window = part_seen(size, ((0, 0), size)) if max(size) > LARGE else None
        read = _reader(data, plane)
        found.append(Shown(own, read, size, layer, plane, path, pixel_size, window))
    return found


def _reader(data: Any, plane: tuple[int, ...]) -> Callable[[slice, slice], NDArray[Any]]:
    return lambda rows, columns: np.asarray(data[(*plane, rows, columns)])


def part_seen(
    shape: tuple[int, int], corners: tuple[Sequence[float], Sequence[float]], most: int = LARGE // 2
) -> Window:
    """Choose the part of a large image to work on: the middle of what is seen.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    corners : pair of (row, column)
        First and last of what is seen, in pixels of the image; it may reach beyond it.
    most : int
        Rows and columns at most.

    Returns
    -------
    pair of slice

    Examples
    --------
    >>> part_seen((9000, 9000), ((-50, 200), (10000, 900)))
    (slice(3988, 5012, None), slice(200, 900, None))
    """
    part = []
    for length, first, last in zip(shape, *corners, strict=True):
        begin, end = (min(max(0, int(corner)), length) for corner in (first, last))
        side = min(max(end - begin, LEAST), most, length)  # the view may lie beside the image
        begin = min(max(0, (begin + end - side) // 2), length - side)
        part.append(slice(begin, begin + side))
    return part[0], part[1]


def images_in_folder(folder: str | Path) -> tuple[list[Shown], Kind | None]:
    """List the images of a folder, with their labels where it has some.

    Parameters
    ----------
    folder : str or Path
        A folder of images, or of images and labels in any layout that `annotated.find_pairs` knows.

    Returns
    -------
    list of Shown
        Files are read when they are shown. A stack of a file is one image a page.
    kind : {"instances", "classes"} or None
        What the labels mean, as `annotated.infer_task` sees it; foreground and background are two classes. None
        without labels, and where a session has saved a painting that is not complete: that may mean anything.

    Raises
    ------
    FileError
        If there is no such folder, or no image in it.
    InputError
        If it is not clear which labels are meant.
    """
    folder = Path(folder)
    try:
        found = search_pairs(folder, complain=_refuse)
        pairs, lone = found.pairs, found.lone_images
    except FileError:
        pairs, lone = (), ()
    if not pairs:
        lone = tuple(image_files(folder / "images" if (folder / "images").is_dir() else folder))
    if not pairs and not lone:
        raise FileError(f"{folder} holds no image that can be read: TIFF, PNG, JPEG, BMP")
    task = _task_of(pairs)
    groups = [*(_of_pair(pair, task) for pair in pairs), *map(_of_file, lone)]
    kind: Kind | None = None if task is None else "instances" if task.kind == "instances" else "classes"
    return list(itertools.chain.from_iterable(groups)), kind


def _task_of(pairs: Sequence[Pair]) -> Task | None:
    """See from some labels, evenly from the whole folder, what they mean."""
    some = pairs[:: -(-len(pairs) // LOOKED_AT)] if pairs else ()
    labels = [_as_in_the_file(pair, page) for pair in some for page in range(len(_pair(pair)))]
    incomplete = any((one < 0).any() for one in labels)
    return infer_task(labels) if labels and not incomplete else None


def _refuse(_files: Sequence[Path], reason: str) -> None:
    raise InputError(reason)


@lru_cache(maxsize=16)
def _pair(pair: Pair) -> list[Annotated]:
    return read_pairs([pair])


@lru_cache(maxsize=16)
def _pictures(path: Path) -> list[Picture]:
    return read_images(path)


def _of_pair(pair: Pair, task: Task | None) -> list[Shown]:
    pages = len(_pair(pair)) if pair.images[0].suffix.lower() in _MAY_BE_STACKS else 1
    return [
        Shown(
            _page_name(pair.name, page, pages),
            lambda rows, columns, page=page: _pair(pair)[page].image[rows, columns],  # type: ignore[misc]
            path=pair.images[0],
            labels=lambda page=page: _labels(pair, page, task),  # type: ignore[misc]
        )
        for page in range(pages)
    ]


def _labels(pair: Pair, page: int, task: Task | None) -> NDArray[Any]:
    labels = _as_in_the_file(pair, page)
    return labels if task is None else class_indices(labels, task)


def _as_in_the_file(pair: Pair, page: int) -> NDArray[Any]:
    """Give the labels of a page; in masks that a session saved, and no others, one number is what nobody painted."""
    labels = _pair(pair)[page].labels
    return np.where(labels == UNLABELLED, -1, labels) if was_written_here(pair.labels) else labels


def _of_file(path: Path) -> list[Shown]:
    pages = len(_pictures(path)) if path.suffix.lower() in _MAY_BE_STACKS else 1
    return [
        Shown(
            _page_name(file_stem(path), page, pages),
            lambda rows, columns, page=page: _pictures(path)[page].pixels[rows, columns],  # type: ignore[misc]
            path=path,
        )
        for page in range(pages)
    ]


def _page_name(stem: str, page: int, pages: int) -> str:
    return stem if pages == 1 else f"{stem}_{page:04d}"

"""Annotated images: find image and label pairs in a folder, read them, and see what kind of labels they are.

A folder of any common layout will do:

======================  ==========================================  ==================================
layout                  images                                      labels
======================  ==========================================  ==================================
two folders             images/x.tif (or imgs/, raw/, input/ …)     masks/x.tif (or labels/, gt/ …)
one folder, and one in  x.tif                                       masks/x.tif
one folder              x.tif, or x_img.tif                         x_mask.tif, x_labels.tif, x_seg.tif …
nnU-Net                 imagesTr/x_0000.tif, x_0001.tif: channels   labelsTr/x.tif
ISBI challenge          train-volume.tif                            train-labels.tif
Fiji, QuPath            x.tif                                       x.zip, x_rois.zip, x.roi, x.geojson
Cellpose, saved masks   x.tif                                       x_cp_masks.png, x_cp_masks.tif
plain label arrays      x.tif                                       x_seg.npy
======================  ==========================================  ==================================

Stacks are taken apart: page k of the image belongs to page k of the labels.

Outlines (ImageJ ROIs, GeoJSON) count where an image has no label image. Each becomes one object, in the order of the
file; where two overlap, the earlier keeps the pixels; one named "ignore" marks pixels that nobody labelled. A single
image may have its ROIs in RoiSet.zip, the name that Fiji gives.
"""

import contextlib
import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label as connected_pieces

from ubend.data.formats import (
    IMAGE_SUFFIXES,
    Picture,
    existing_folder,
    file_stem,
    image_files,
    read_images,
    read_labels,
)
from ubend.data.rois import OUTLINE_SUFFIXES, is_roi_zip, labels_from_drawn, read_drawn
from ubend.errors import FileError, InputError

__all__ = [
    "Annotated",
    "Kind",
    "Pair",
    "Task",
    "bare_stem",
    "class_indices",
    "find_pairs",
    "infer_task",
    "look_numbered",
    "read_pairs",
]

Kind = Literal["binary", "classes", "instances"]
"""What label values mean: one of two, one of some, or a number for each object."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "raw", "x", "inputs", "input")
_LABEL_NAMES = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "groundtruth", "ground_truth"),
    *("truth", "instances", "segmentations", "segmentation"),
)
_ROI_NAMES = ("rois", "roi")  # of an image they mean a part: fov_roi.tif is an image of its own
LABEL_FOLDERS = (*_LABEL_NAMES, *_ROI_NAMES)
_DRAWN_SUFFIXES = (*OUTLINE_SUFFIXES, ".npy")
_ROI_SET = "roiset"

_IMAGE_WORDS = ("images", "image", "img", "volume", "raw")
_LABEL_WORDS = ("cp_masks", "seg", *_LABEL_NAMES)
_DRAWN_WORDS = (*_LABEL_WORDS, *_ROI_NAMES)
_OUTPUT_WORDS = ("flows", "cp_outlines", "outlines", "probabilities")  # what stands beside masks of Cellpose, or ours
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")  # nnU-Net, dataset format

_UNLABELLED = 255
_MOST_CLASSES = 256
_MANY_CLASSES = 64
_MOST_REGIONS = 8
_PIXELS_LOOKED_AT = 32_000_000

_Files = tuple[Path, ...]


@dataclass(frozen=True)
class Pair:
    """The files of one annotated image, or of one stack.

    Attributes
    ----------
    name : str
        The image's own stem.
    images : tuple of Path
        One file, or one for each channel.
    labels : Path
        The file that holds its labels.

    Examples
    --------
    >>> Pair("cell", (Path("images/cell.tif"),), Path("masks/cell.tif")).name
    'cell'
    """

    name: str
    images: tuple[Path, ...]
    labels: Path


@dataclass(frozen=True)
class Annotated:
    """One image with its labels.

    Attributes
    ----------
    name : str
        Stem of the image; for page k of a stack the stem and "_000k".
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
        As in the file.
    labels : ndarray of int32, shape (rows, columns)
        As in the file; negative values are unlabelled.
    pixel_size : float or None
        Micrometres per pixel, where a file knows it.
    channel_names : tuple of str
        Names of the channels, where a file knows them all.
    class_names : tuple of (int, str)
        Label values and what they mean, where a file says so.

    Examples
    --------
    >>> Annotated("cell", np.zeros((2, 2)), np.zeros((2, 2), np.int32), None).labels.shape
    (2, 2)
    """

    name: str
    image: NDArray[Any]
    labels: NDArray[np.int32]
    pixel_size: float | None
    channel_names: tuple[str, ...] = ()
    class_names: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Task:
    """What there is to learn from labels.

    Attributes
    ----------
    kind : {"binary", "classes", "instances"}
        What a label value means.
    values : tuple of int
        The label value of each class, in the order of the network's classes; empty for instances.
    ignore_label : int or None
        The value of pixels that nobody labelled. Negative values are unlabelled in any case.

    Examples
    --------
    >>> Task("binary", (0, 255), None).values
    (0, 255)
    """

    kind: Kind
    values: tuple[int, ...]
    ignore_label: int | None


@dataclass(frozen=True)
class Search:
    """What a folder holds.

    Attributes
    ----------
    pairs : tuple of Pair
        In the order of the images.
    lone_images, lone_labels : tuple of Path
        What has no counterpart.

    Examples
    --------
    >>> Search((), (Path("a.tif"),), ()).lone_images[0].name
    'a.tif'
    """

    pairs: tuple[Pair, ...]
    lone_images: tuple[Path, ...]
    lone_labels: tuple[Path, ...]


Complain = Callable[[Sequence[Path], str], None]


def find_pairs(folder: str | Path, *, labels: str | None = None) -> list[Pair]:
    """Find the images of a folder that have labels, and the labels.

    Parameters
    ----------
    folder : str or Path
        In one of the layouts that this module lists.
    labels : str, optional
        Which labels to take where there are several: the name of their folder ("masks"), or the word in their file
        names ("seg" for x_seg.tif). A folder of any name will do here.

    Returns
    -------
    list of Pair
        In the order of the images, img2 before img10.

    Raises
    ------
    FileError
        If there is nothing to find, if more than one thing fits, or if an image or a label file is alone.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "a_mask.png"):
    ...         write_labels(Path(folder) / name, np.eye(2, dtype=int))
    ...     [(pair.name, pair.labels.name) for pair in find_pairs(folder)]
    [('a', 'a_mask.png')]
    """
    found = search_pairs(folder, labels=labels, complain=_refuse)
    _check_none_alone(found, Path(folder))
    return list(found.pairs)


def search_pairs(folder: str | Path, *, labels: str | None = None, complain: Complain) -> Search:
    """Find pairs like `find_pairs`, and go on where single files do not fit.

    Parameters
    ----------
    folder : str or Path
    labels : str, optional
        As for `find_pairs`.
    complain : callable
        Gets the files of which it is not clear which to take, and what `find_pairs` would have raised.

    Returns
    -------
    Search

    Raises
    ------
    FileError
        If there is nothing to find, or no telling which folder is meant.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "a_mask.png", "b.png"):
    ...         write_labels(Path(folder) / name, np.eye(2, dtype=int))
    ...     found = search_pairs(folder, complain=lambda files, message: None)
    >>> [pair.name for pair in found.pairs], [path.name for path in found.lone_images]
    (['a'], ['b.png'])
    """
    root = existing_folder(folder)
    inside = {path.name.casefold(): path for path in _folders_with_files(root)}
    if {"imagestr", "labelstr"} <= set(inside) and (labels or "labelstr").casefold() == "labelstr":
        return _paired(_channels_together(inside["imagestr"], complain), image_files(inside["labelstr"]), complain)
    label_folder = _label_folder(root, inside, labels)
    if label_folder is not None:
        label_files = [*_without_outputs(image_files(label_folder)), *_drawn_files(label_folder)]
        return _paired(_by_stem(image_files(_image_folder(root, inside)), complain), label_files, complain)
    return _paired(*_flat(root, inside, labels, complain), complain)


def _refuse(files: Sequence[Path], message: str) -> None:
    raise FileError(message)


def bare_stem(stem: str) -> str:
    """Strip the word that marks a file as labels, where there is one.

    Parameters
    ----------
    stem : str
        Of a file, without its ending.

    Returns
    -------
    str

    Examples
    --------
    >>> [bare_stem(stem) for stem in ("cell_mask", "labels_cell", "cell", "cell_roi")]
    ['cell', 'cell', 'cell', 'cell_roi']
    """
    return _without(_LABEL_WORDS, stem) or stem


def read_pairs(pairs: Iterable[Pair]) -> list[Annotated]:
    """Read pairs, a stack as one `Annotated` a page.

    Parameters
    ----------
    pairs : iterable of Pair
        From `find_pairs`.

    Returns
    -------
    list of Annotated
        Objects that were drawn as outlines are numbered on from image to image, so that `infer_task` sees that equal
        numbers do not mean equal things.

    Raises
    ------
    FileError
        If a file cannot be read, or if an image and its labels differ in rows, columns or pages.
    InputError
        If labels are ImageJ ROIs, and the package roifile is missing.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "a_mask.png"):
    ...         write_labels(Path(folder) / name, np.eye(2, dtype=int))
    ...     [one] = read_pairs(find_pairs(folder))
    >>> one.name, one.labels.tolist()
    ('a', [[1, 0], [0, 1]])
    """
    found: list[Annotated] = []
    drawn = 0
    for pair in pairs:
        annotated = read_pair(pair, drawn + 1)
        found += annotated
        if is_drawn(pair.labels):
            drawn = max(drawn, *(int(one.labels.max()) for one in annotated))
    return found


def infer_task(labels: Sequence[ArrayLike], *, kind: Kind | None = None, ignore: int | None = None) -> Task:
    """See from label images what there is to learn.

    Parameters
    ----------
    labels : sequence of array of int or bool, shape (rows, columns)
        All label images of a data set; the more, the surer.
    kind : {"binary", "classes", "instances"}, optional
        What the values mean, where you know it. Without it, these rules hold, the first that fits:

        1. at most two values in all images: binary;
        2. more than 256 values: instances;
        3. the same values in every image (of at least two), at most 8 of them and the background: classes;
        4. most values, background aside, are one connected piece in each image where they occur (95 % of their pixels
           touch, for 80 % of the values; 50 % where there are more than 64): instances;
        5. else classes.

        Not seen: that instances are what they are if each image has the same few numbers, as in a film of five cells;
        `look_numbered` tells where that may be.
    ignore : int, optional
        The value of unlabelled pixels. Without it, a lone 255 above 0, 1, … k is taken for it, as in PASCAL VOC; say
        ``ignore=-1`` if it is a class. Negative values are always unlabelled.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If there is nothing labelled, if the arrays are no label images, or if `kind` cannot be.

    Examples
    --------
    >>> infer_task([np.array([[0, 255]]), np.array([[0, 0]])])
    Task(kind='binary', values=(0, 255), ignore_label=None)
    >>> sky_tree_ground = np.array([[0, 0, 255], [1, 1, 1], [2, 2, 2]])
    >>> infer_task([sky_tree_ground, sky_tree_ground[:, ::-1]])
    Task(kind='classes', values=(0, 1, 2), ignore_label=255)
    >>> infer_task([np.array([[1, 0, 2]]), np.array([[1, 0, 0, 2, 0, 3]])]).kind
    'instances'
    """
    check_kind(kind)
    images = [_checked(image) for image in labels]
    seen = [np.unique(image) for image in images]
    return task_of_values(seen, lambda ignore: _share_in_one_piece(images, ignore), kind=kind, ignore=ignore)


def task_of_values(
    seen: Sequence[NDArray[np.integer[Any]]],
    share_in_one_piece: Callable[[int | None], float],
    *,
    kind: Kind | None = None,
    ignore: int | None = None,
) -> Task:
    """See what there is to learn, as `infer_task` does, without the label images at hand.

    Parameters
    ----------
    seen : sequence of array of int
        The values of each label image, each once.
    share_in_one_piece : callable
        Gets the value of unlabelled pixels; returns the share of values that are one connected piece in their image.
    kind, ignore
        As for `infer_task`.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If there is nothing labelled, or if `kind` cannot be.

    Examples
    --------
    >>> task_of_values([np.array([0, 1, 2]), np.array([0, 1, 2, 3])], lambda ignore: 1.0).kind
    'instances'
    """
    if ignore is None and _has_lone_255(seen):
        ignore = _UNLABELLED
    known = [frozenset(int(value) for value in values if value >= 0 and value != ignore) for values in seen]
    values = tuple(sorted(frozenset().union(*known)))
    if not values:
        raise InputError(f"No pixel of the {len(seen)} label images is labelled: there is nothing to learn from.")
    kind = kind or _guess(share_in_one_piece, known, values, ignore)
    return Task(kind, _class_values(kind, values), ignore)


def look_numbered(labels: Sequence[ArrayLike], *, ignore: int | None = None, share: float = 0.8) -> bool:
    """Say whether label values may be numbers of objects: nearly each is one connected piece in its image.

    Parameters
    ----------
    labels : sequence of array of int or bool, shape (rows, columns)
        All label images of a data set.
    ignore : int, optional
        The value of unlabelled pixels; negative values are unlabelled in any case.
    share : float
        Of how many values this must be so.

    Returns
    -------
    bool
        True also for images without any object: nothing speaks against it.

    Examples
    --------
    >>> look_numbered([np.array([[1, 1, 0, 2]])]), look_numbered([np.array([[1, 1, 0, 1]])])
    (True, False)
    """
    images = [_checked(image) for image in labels]
    return _share_in_one_piece(images, ignore, nothing=1.0) >= share


def class_indices(labels: ArrayLike, task: Task) -> NDArray[np.int32]:
    """Turn label values into the network's class numbers.

    Parameters
    ----------
    labels : array of int or bool, shape (rows, columns)
        As in the file.
    task : Task
        From `infer_task`.

    Returns
    -------
    ndarray of int32, shape (rows, columns)
        The position of each value in `task.values`, or the instance's own number; -1 where nobody labelled. Where an
        instance's number is too large for int32, those of the image are numbered anew: 1, 2, … in their order.

    Raises
    ------
    InputError
        If a value is none of the task's.

    Examples
    --------
    >>> class_indices([[0, 128], [255, -1]], Task("classes", (0, 128, 255), None))
    array([[ 0,  1],
           [ 2, -1]], dtype=int32)
    """
    array = _checked(labels)
    unlabelled = array < 0
    if task.ignore_label is not None:
        unlabelled |= array == task.ignore_label
    if task.kind == "instances":
        return np.where(unlabelled, -1, _numbers_in_int32(array, unlabelled))
    values = np.array(task.values)
    index = np.minimum(np.searchsorted(values, array), len(values) - 1)
    unknown = np.unique(array[(values[index] != array) & ~unlabelled])
    if unknown.size:
        raise InputError(
            f"The labels hold {_some([str(value) for value in unknown])}, which is no label of this task: "
            f"they are {_some([str(value) for value in task.values], 10)}, and negative where unlabelled."
        )
    return np.where(unlabelled, -1, index).astype(np.int32)


def _numbers_in_int32(array: NDArray[np.integer[Any]], unlabelled: NDArray[np.bool_]) -> NDArray[np.int32]:
    if array.max(initial=0) <= np.iinfo(np.int32).max:
        return array.astype(np.int32)
    numbers = np.unique(array[~unlabelled & (array > 0)])
    return np.searchsorted(numbers, array, side="right").astype(np.int32)  # 0 stays 0: it is below all of them


# Layouts


def _folders_with_files(root: Path) -> list[Path]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    return [path for path in folders if image_files(path) or _drawn_files(path)]


def _without_outputs(files: list[Path]) -> list[Path]:
    """Leave out x_outlines.png and the like where there is an x."""
    stems = {file_stem(path) for path in files}
    return [path for path in files if _without(_OUTPUT_WORDS, file_stem(path)) not in stems]


def _drawn_files(folder: Path) -> list[Path]:
    """List labels that are no images: outlines, and arrays."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in _DRAWN_SUFFIXES and path.is_file()]
    return sorted(
        path for path in found if not path.name.startswith(".") and (path.suffix.lower() != ".zip" or is_roi_zip(path))
    )


def is_drawn(path: Path) -> bool:
    """Whether labels are outlines of objects and no image."""
    return path.suffix.lower() in OUTLINE_SUFFIXES


def _label_folder(root: Path, inside: dict[str, Path], labels: str | None) -> Path | None:
    if labels is not None:
        return inside.get(labels.strip("/").casefold())
    found = [inside[name] for name in LABEL_FOLDERS if name in inside]
    if len(found) > 1:
        raise FileError(
            f"{root} holds labels in {_some([path.name + '/' for path in found])}: "
            f"say which to take, for example labels={found[0].name!r}."
        )
    return found[0] if found else None


def _image_folder(root: Path, inside: dict[str, Path]) -> Path:
    found = [inside[name] for name in IMAGE_FOLDERS if name in inside]
    if len(found) > 1:
        names = _some([path.name + "/" for path in found])
        raise FileError(f"{root} holds images in {names}: which belong to the labels? Keep one of them there.")
    if not found and not image_files(root):
        raise FileError(f"{root} holds labels and no images: looked in it and for {', '.join(IMAGE_FOLDERS)}.")
    return found[0] if found else root


def _flat(
    root: Path, inside: dict[str, Path], labels: str | None, complain: Complain
) -> tuple[dict[str, _Files], list[Path]]:
    """Tell the labels of one folder from its images by their names."""
    files = [path for path in image_files(root) if _without(_OUTPUT_WORDS, file_stem(path)) is None]
    tagged = {path for path in files if _without(_LABEL_WORDS, file_stem(path)) is not None}
    drawn = [path for path in _drawn_files(root) if path.suffix != ".npy" or _without(_LABEL_WORDS, path.stem)]
    chosen = tagged | set(drawn)
    if labels is not None:
        word = (labels.strip("-_. "),)
        chosen = {path for path in (*files, *drawn) if _without(word, file_stem(path)) is not None}
    images = [path for path in files if path not in tagged | chosen]
    if not chosen or not (images or tagged - chosen):
        raise FileError(_nothing_found(root, inside, labels))
    return _by_stem(images, complain), [path for path in (*files, *drawn) if path in chosen]


def _by_stem(files: Sequence[Path], complain: Complain) -> dict[str, _Files]:
    images: dict[str, _Files] = {}
    for path in files:
        other = images.setdefault(file_stem(path), (path,))[0]
        if other != path:
            complain(
                (other, path), f"{other} and {path.name} have one name: which is the image? Keep one of them there."
            )
    return images


def _channels_together(folder: Path, complain: Complain) -> dict[str, _Files]:
    """Collect case_0000, case_0001, … of nnU-Net as the channels of one image."""
    cases: dict[str, dict[str, Path]] = {}
    for path in image_files(folder):
        match = _CHANNEL.fullmatch(file_stem(path))
        case, channel = (match["case"], match["channel"]) if match else (file_stem(path), "0000")
        other = cases.setdefault(case, {}).setdefault(channel, path)
        if other != path:
            complain((other, path), f"{other} and {path.name} are both channel {channel} of {case}: keep one.")
    most_common = Counter(tuple(channels) for channels in cases.values()).most_common(1)[0][0]
    for case, channels in cases.items():
        if tuple(channels) != most_common:
            complain(
                tuple(channels.values()),
                f"{folder / case} has the channels {_some(channels)}, other images have {_some(most_common)}.",
            )
    return {case: tuple(channels.values()) for case, channels in cases.items()}


def _without(words: Sequence[str], stem: str) -> str | None:
    """Return the stem without a leading or trailing word, None if it has none: x_mask, mask_x and mask01 have."""
    any_word = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    trailing = re.fullmatch(rf"(.+?)[-_. ](?:{any_word})", stem, re.IGNORECASE)
    leading = re.fullmatch(rf"(?:{any_word})(?:[-_. ]|(?=\d))(.+)", stem, re.IGNORECASE)
    match = trailing or leading
    return match[1] if match else None


# Pairs


def _paired(images: dict[str, _Files], labels: list[Path], complain: Complain) -> Search:
    """Pair by equal stems first, then by what is left of the stems without the words for labels and images.

    Outlines and arrays are for images that no label image fits.
    """

    def image_core(stem: str) -> str | None:
        return _without(_IMAGE_WORDS, stem)

    def label_core(path: Path) -> str | None:
        return _without(_DRAWN_WORDS if is_drawn(path) else _LABEL_WORDS, file_stem(path))

    def single_image(path: Path) -> str | None:
        return next(iter(images)) if len(images) == 1 and path.stem.casefold() == _ROI_SET else None

    rounds: tuple[tuple[Callable[[str], str | None], Callable[[Path], str | None]], ...] = (
        (str, file_stem),
        (str, label_core),
        (image_core, label_core),
        (image_core, file_stem),
        (str, single_image),
    )
    label_images = [path for path in labels if path.suffix.lower() not in _DRAWN_SUFFIXES]
    drawn = [path for path in labels if path not in label_images]
    taken: dict[str, Path] = {}
    for group, (image_key, label_key) in itertools.product((label_images, drawn), rounds):
        open_labels = [path for path in group if path not in taken.values()]
        by_key = {key: path for path in open_labels if (key := label_key(path)) is not None}
        open_images = {stem: key for stem in images if stem not in taken and (key := image_key(stem)) in by_key}
        _check_unique(open_labels, label_key, set(open_images.values()), complain)
        taken |= {stem: by_key[key] for stem, key in open_images.items() if key is not None}
        if len(taken) == len(images):
            labels = [path for path in labels if path in label_images or path in taken.values()]
            break
    return Search(
        tuple(Pair(stem, files, taken[stem]) for stem, files in images.items() if stem in taken),
        tuple(files[0] for stem, files in images.items() if stem not in taken),
        tuple(path for path in labels if path not in taken.values()),
    )


def _check_unique(
    labels: Iterable[Path], key: Callable[[Path], str | None], wanted: set[str | None], complain: Complain
) -> None:
    for name, group in itertools.groupby(sorted(labels, key=lambda path: key(path) or ""), key=key):
        same = list(group)
        if name in wanted and len(same) > 1:
            complain(
                same,
                f"{_some([path.name for path in same])} all fit the image {name}: keep one of them there, or say which "
                "word marks the labels, for example labels='mask'.",
            )


def _check_none_alone(found: Search, root: Path) -> None:
    parts = []
    if found.lone_images:
        parts.append(f"{_count(found.lone_images, 'image')} without labels ({_names(found.lone_images, root)})")
    if found.lone_labels:
        parts.append(f"{_count(found.lone_labels, 'label file')} without an image ({_names(found.lone_labels, root)})")
    if parts:
        raise FileError(
            f"{root} holds {' and '.join(parts)}: labels have the image's name, or that with a word such as _mask, "
            "_labels, _seg, _gt; rename them, or move what is alone to another folder."
        )


def _nothing_found(root: Path, inside: dict[str, Path], labels: str | None) -> str:
    if labels is not None:
        close = difflib.get_close_matches(labels, [path.name for path in inside.values()], n=1)
        nearest = f"; the nearest folder is {close[0]!r}" if close else ""
        return f"{root} holds no folder {labels!r} with images, and no files named like x_{labels}.tif{nearest}."
    deeper = [path for path in root.iterdir() if path.is_dir() and _is_annotated(path)]
    if deeper:
        names = _some([path.name + "/" for path in deeper])
        return f"{root} itself holds no annotated images, but in it are {names}: name one, for example {deeper[0]}."
    if inside:
        names = _some([path.name + "/" for path in inside.values()])
        others = [path.name for name, path in inside.items() if name not in IMAGE_FOLDERS]
        remedy = f" If they are in {others[0]}/, say labels={others[0]!r}." if others else ""
        return f"{root} holds images in {names} and no labels: looked for {', '.join(LABEL_FOLDERS)}.{remedy}"
    files = [path for path in root.iterdir() if path.is_file() and not path.name.startswith(".")]
    kinds = Counter(path.suffix.lower() or path.name for path in files)
    found = f"found files of the kinds {_some(list(kinds))}" if kinds else "it is empty"
    return (
        f"{root} holds no annotated images: {found}. Looked for images/ beside masks/, and for x.tif beside x_mask.tif "
        f"({', '.join(IMAGE_SUFFIXES)}), x.zip (ImageJ ROIs), x.geojson or x_seg.npy; export other formats as TIFF."
    )


def _is_annotated(folder: Path) -> bool:
    names = {path.name.casefold() for path in folder.iterdir() if path.is_dir()}
    return "labelstr" in names or not (names.isdisjoint(IMAGE_FOLDERS) or names.isdisjoint(LABEL_FOLDERS))


def _some(names: Iterable[object], most: int = 3) -> str:
    given = [str(name) for name in names]
    if len(given) > most:
        return f"{', '.join(given[:most])} and {len(given) - most} more"
    return " and ".join([", ".join(given[:-1]), given[-1]] if len(given) > 1 else given)


def _names(paths: Sequence[Path], root: Path) -> str:
    return _some([path.relative_to(root) for path in paths])


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


# Reading


def read_pair(pair: Pair, first: int = 1) -> list[Annotated]:
    """Read one pair like `read_pairs`; objects that were drawn as outlines are numbered from `first` on."""
    channels = [read_images(path) for path in pair.images]
    names, classes = _names_of_nnunet(pair)
    labels = _read_drawn(pair.labels, channels[0], first) if is_drawn(pair.labels) else read_labels(pair.labels)
    for path, pages in zip(pair.images, channels, strict=True):
        if len(pages) != len(labels):
            raise FileError(
                f"{path} holds {_count(pages, 'image')} of {_by(pages[0].pixels)} and {pair.labels} "
                f"{_count(labels, 'label image')}: there must be one for each."
            )
    pairs = []
    for page, (*files, truth) in enumerate(zip(*channels, labels, strict=True)):
        for picture in files:
            if picture.pixels.shape[:2] != truth.pixels.shape:
                where = "" if len(labels) == 1 else f" (page {page})"
                raise FileError(
                    f"{picture.path} is {_by(picture.pixels)} and {truth.path} {_by(truth.pixels)}{where}: "
                    "image and labels must have the same rows and columns."
                )
        name = pair.name + files[0].name.removeprefix(file_stem(files[0].path))
        size = next((one.pixel_size for one in (*files, truth) if one.pixel_size is not None), None)
        pixels = _stacked([one.pixels for one in files])
        named = names or files[0].channel_names
        named = named if len(named) == (1 if pixels.ndim == 2 else pixels.shape[-1]) else ()
        pairs.append(Annotated(name, pixels, _as_int32(truth.pixels, truth.path), size, named, classes))
    return pairs


def _names_of_nnunet(pair: Pair) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...]]:
    """Read the names of channels and labels from nnU-Net's dataset.json; none where there is none, or it is none."""
    path = pair.labels.parent.parent / "dataset.json"
    if pair.labels.parent.name.casefold() != "labelstr" or not path.is_file():
        return (), ()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        channels = known["channel_names"] if "channel_names" in known else known["modality"]
        names = tuple(str(channels[str(number)]) for number in range(len(channels)))
        labels = known["labels"]
        if all(str(key).isdecimal() for key in labels):  # version 1 has them the other way round
            labels = {name: value for value, name in labels.items()}
        return names, tuple((int(value), str(name)) for name, value in labels.items() if not isinstance(value, list))
    return (), ()


def _read_drawn(path: Path, pages: list[Picture], first: int) -> list[Picture]:
    """Paint outlines into label images of the size of the pages, numbered from `first` on."""
    drawn = read_drawn(path)
    lost = [one.name for one in drawn if not 1 <= one.page <= len(pages)]
    if len(pages) > 1 and lost:
        raise FileError(
            f"{path} does not say for {_some(lost)} which of the {len(pages)} images of {pages[0].path} it belongs to: "
            "in Fiji's ROI Manager, Properties, give each its position in the stack."
        )
    painted = []
    for number, page in enumerate(pages, start=1):
        here = [one for one in drawn if len(pages) == 1 or one.page == number]
        labels = labels_from_drawn(here, (page.pixels.shape[0], page.pixels.shape[1]), first=first)
        first += sum(not one.ignored for one in here)
        painted.append(Picture(labels, page.name, path, None))
    return painted


def _stacked(channels: list[NDArray[Any]]) -> NDArray[Any]:
    return channels[0] if len(channels) == 1 else np.concatenate([np.atleast_3d(one) for one in channels], axis=-1)


def _by(pixels: NDArray[Any]) -> str:
    channels = f" with {pixels.shape[2]} channels" if pixels.ndim == 3 else ""
    return f"{pixels.shape[0]} × {pixels.shape[1]} (rows × columns){channels}"


def _as_int32(pixels: NDArray[Any], path: Path) -> NDArray[np.int32]:
    limits = np.iinfo(np.int32)
    if pixels.max() > limits.max or pixels.min() < limits.min:
        raise FileError(f"{path} holds the label {pixels.max()}; labels go up to {limits.max}: number them anew.")
    return pixels.astype(np.int32)


# Task


def check_kind(kind: str | None) -> None:
    """Raise InputError unless this is a kind of labels, or None for unknown."""
    if kind is not None and kind not in get_args(Kind):
        raise InputError(f"The kind of labels is one of {', '.join(get_args(Kind))}; got {kind!r}.")


def _checked(labels: ArrayLike) -> NDArray[np.integer[Any]]:
    array = np.asarray(labels)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"A label image is integers with the axes (rows, columns); got {array.dtype}, shape {array.shape}."
        )
    return array


def _has_lone_255(seen: Sequence[NDArray[np.integer[Any]]]) -> bool:
    values = sorted({int(value) for image in seen for value in image if value >= 0})
    *lower, last = values or [0]
    return last == _UNLABELLED and 2 <= len(lower) < _UNLABELLED and lower == list(range(len(lower)))


def _guess(
    share_in_one_piece: Callable[[int | None], float],
    known: Sequence[frozenset[int]],
    values: tuple[int, ...],
    ignore: int | None,
) -> Kind:
    if len(values) <= 2:
        return "binary"
    if len(values) > _MOST_CLASSES:
        return "instances"
    if len(known) > 1 and len(set(known)) == 1 and len(set(values) - {0}) <= _MOST_REGIONS:
        return "classes"
    enough = 0.5 if len(values) > _MANY_CLASSES else 0.8
    return "instances" if share_in_one_piece(ignore) >= enough else "classes"


def _share_in_one_piece(
    images: Sequence[NDArray[np.integer[Any]]], ignore: int | None, *, nothing: float = 0.0
) -> float:
    """Share of the (image, value) with at least 95 % of the value's pixels in one connected piece; some images do."""
    count = max(1, min(len(images), _PIXELS_LOOKED_AT // max(image.size for image in images)))
    chosen = [images[k] for k in np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))]
    whole = [value for image in chosen for value in _in_one_piece(image, ignore)]
    return float(np.mean(whole)) if whole else nothing


def _in_one_piece(image: NDArray[np.integer[Any]], ignore: int | None) -> NDArray[np.bool_]:
    """Say for each value but background and unlabelled whether it is one piece."""
    unlabelled = image < 0 if ignore is None else (image < 0) | (image == ignore)
    values = np.where(unlabelled, 0, image).astype(np.int64)
    pieces = connected_pieces(values, background=0, connectivity=2)
    sizes = np.bincount(pieces.ravel())[1:]
    value_of_piece = np.zeros(len(sizes) + 1, np.int64)
    value_of_piece[pieces.ravel()] = values.ravel()
    found, which = np.unique(value_of_piece[1:], return_inverse=True)
    largest = np.zeros(len(found))
    np.maximum.at(largest, which, sizes)
    return largest >= 0.95 * np.bincount(which, weights=sizes, minlength=len(found))


def _class_values(kind: Kind, values: tuple[int, ...]) -> tuple[int, ...]:
    if kind == "instances":
        return ()
    if kind == "binary" and len(values) > 2:
        raise InputError(
            f"Binary labels have two values, these have {len(values)} ({_some(values)}): "
            "say kind='classes' or kind='instances', or make them binary with labels > 0."
        )
    if len(values) > _MOST_CLASSES:
        raise InputError(f"Labels with {len(values)} values are hardly classes (at most {_MOST_CLASSES}): instances?")
    if len(values) == 1:
        return (0, values[0] or 1)  # all background, or all foreground: the other one is in no image
    return values

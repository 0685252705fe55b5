"""What is wrong with this data set, in words a biologist can act on.

Each image is read once, with its labels, and kept as numbers (`ubend.data.inspection`); what these say of the set is in
`ubend.data.symptoms`, and the words for it in `ubend.data.findings`. No fault keeps others from being found.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ubend.data.annotated import (
    Annotated,
    Kind,
    Pair,
    Search,
    Task,
    bare_stem,
    check_kind,
    is_drawn,
    read_pair,
    search_pairs,
    task_of_values,
)
from ubend.data.findings import Case, Report, collected
from ubend.data.formats import (
    IMAGE_SUFFIXES,
    Header,
    Picture,
    existing_folder,
    file_stem,
    read_header,
    read_images,
    read_labels,
)
from ubend.data.inspection import gray_of, inspect_image, inspect_labels
from ubend.data.symptoms import Seen, all_symptoms, unsound
from ubend.data.turned import better_turn
from ubend.errors import FileError, InputError, UbendError

__all__ = ["check"]

SMALLEST_SIDE, FIELD = 64, 380
"""Rows and columns that the default network, of depth 4, takes without becoming shallower; and the pixels that the
deepest, of depth 5, sees around each."""

_QUICK_IMAGES, _QUICK_PIXELS, _QUICK_BYTES = 16, 2**22, 2**25
_MOST_THREADS = 8
_NUMBERS_APART = 10_000
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", ".ds_store")
_OTHER_FORMATS = (
    *(".czi", ".nd2", ".lif", ".lsm", ".oib", ".oif", ".vsi", ".ims", ".dv", ".sld", ".stk", ".svs", ".ndpi"),
    *(".mrc", ".dm3", ".dm4", ".dcm", ".nii", ".h5", ".hdf5", ".gif", ".webp", ".jp2", ".heic", ".psd"),
)

OnImage = Callable[[int, int], None]
_Found = list[tuple[str, Case]]


def check(
    folder: str | Path,
    *,
    labels: str | None = None,
    task: Kind | None = None,
    ignore: int | None = None,
    quick: bool = False,
    smallest_side: int = SMALLEST_SIDE,
    field: int = FIELD,
    on_image: OnImage | None = None,
) -> Report:
    """Find what is wrong with a folder of annotated images.

    Parameters
    ----------
    folder : str or Path
        In one of the layouts that `ubend train` takes.
    labels : str, optional
        Name of the label folder, if there are several.
    task : {"binary", "classes", "instances"}, optional
        What the labels mean, if they are not what they look like.
    ignore : int, optional
        The label of pixels that are not labelled.
    quick : bool
        Whether to look only at some images, so that it takes a second at most on most machines; which they are does
        not depend on the machine.
    smallest_side : int
        Rows and columns that an image should have for the network.
    field : int
        Pixels that the network sees around each.
    on_image : callable, optional
        Gets how many pairs of files are done, of how many.

    Returns
    -------
    Report

    Raises
    ------
    FileError
        If there is no such folder.
    InputError
        If `task` cannot be.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "a_mask.png"):
    ...         write_labels(Path(folder) / name, 3 * np.eye(80, dtype=int))
    ...     report = check(folder)
    >>> [finding.code for finding in report.errors]
    ['labels-are-the-image']
    """
    root = existing_folder(folder)
    check_kind(task)
    found: _Found = []
    try:
        search = search_pairs(
            root, labels=labels, complain=lambda files, said: found.append(("same-name", Case(tuple(files), said)))
        )
    except FileError as error:
        found += [("layout", Case((), str(error))), *_other_files(root)]
        return Report(root, 0, 0, None, collected(found))
    found += [*_alone(search), *_other_files(root)]
    pairs = _some_pairs(search.pairs) if quick else list(enumerate(search.pairs))
    seen: list[Seen] = []
    for done, (faults, ones) in enumerate(_looked_at(pairs, field), start=1):
        found += faults
        seen += ones
        if on_image is not None:
            on_image(done, len(pairs))
        if quick and sum(one.image.shape[0] * one.image.shape[1] for one in seen) >= _QUICK_PIXELS:
            break
    meaning = _task(seen, task, ignore)
    if isinstance(meaning, InputError):
        found.append(("layout", Case((), str(meaning))))
    settled = meaning if isinstance(meaning, Task) else None
    found += all_symptoms(seen, settled, smallest_side=smallest_side, field=field)
    return Report(root, len(seen), len(search.pairs), settled.kind if settled else None, collected(found))


# files


def _alone(search: Search) -> Iterator[tuple[str, Case]]:
    """Name what has no counterpart, and the name most like it on the other side."""
    for code, files, others in (
        ("images-alone", search.lone_images, search.lone_labels),
        ("labels-alone", search.lone_labels, search.lone_images),
    ):
        names = {bare_stem(file_stem(other)): other.name for other in others}
        for path in files:
            close = difflib.get_close_matches(bare_stem(file_stem(path)), names, n=1, cutoff=0.7)
            said = f"is {names[close[0]]} meant for it?" if close else ""
            at = (path, None) if code == "images-alone" else (None, path)
            yield code, Case((path,), said, *at)


def _other_files(root: Path) -> Iterator[tuple[str, Case]]:
    """Name what lies in the folder and its folders, and is no image."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in folders:
        if folder.name == "__MACOSX":
            yield "hidden-files", Case((folder,))
            continue
        for path in sorted(folder.iterdir()):
            if not path.is_file():
                continue
            name = path.name.casefold()
            if name in _SYSTEM_FILES or (name.startswith(".") and name.endswith((*IMAGE_SUFFIXES, ".zip"))):
                yield "hidden-files", Case((path,))
            elif path.suffix.lower() in _OTHER_FORMATS:
                yield "not-read", Case((path,))


def _some_pairs(pairs: Sequence[Pair]) -> list[tuple[int, Pair]]:
    """Pairs spread evenly over all, of files that are read quickly."""
    small = [(number, pair) for number, pair in enumerate(pairs) if _bytes_of(pair) <= _QUICK_BYTES]
    number = min(len(small), _QUICK_IMAGES)
    return [small[k * len(small) // number] for k in range(number)]


def _bytes_of(pair: Pair) -> int:
    return sum(path.stat().st_size for path in (*pair.images, pair.labels) if path.exists())


def _looked_at(pairs: Sequence[tuple[int, Pair]], field: int) -> Iterator[tuple[_Found, list[Seen]]]:
    """Read and look, by as many threads as there are cores; in order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(max(1, min(cores, _MOST_THREADS))) as pool:
        try:
            yield from pool.map(lambda numbered: _look(numbered[0], numbered[1], field), pairs)
        finally:
            pool.shutdown(cancel_futures=True)


def _look(number: int, pair: Pair, field: int) -> tuple[_Found, list[Seen]]:
    at = Case((*pair.images, pair.labels), "", pair.images[0], pair.labels)
    headers, found = _headers(pair)
    if found:
        return found, []
    try:
        pages = read_pair(pair, 1 + number * _NUMBERS_APART)
    except UbendError as error:
        code, case, images = _diagnosed(pair, error, headers)
        unlabelled = [Annotated(one.name, one.pixels, np.zeros((0, 0), np.int32), one.pixel_size) for one in images]
        return [(code, case)], [_seen(page, at, k, len(images), field) for k, page in enumerate(unlabelled)]
    seen = [_seen(page, at, k, len(pages), field) for k, page in enumerate(pages)]
    return _of_headers(pair, headers, seen), seen


def _seen(page: Annotated, at: Case, number: int, of: int, field: int) -> Seen:
    gray = gray_of(page.image)
    labels = None if page.labels.size == 0 else inspect_labels(page.labels, page.image, gray, field=field)
    place = Case(at.files, "", at.image, at.labels, number)
    return Seen(place, inspect_image(page.image, gray), labels, page.pixel_size, of > 1)


def _headers(pair: Pair) -> tuple[dict[Path, Header], _Found]:
    """Read what the files say of themselves; those that cannot be read are faults."""
    headers, found = dict[Path, Header](), list[tuple[str, Case]]()
    for path in (*pair.images, pair.labels):
        if is_drawn(path) or path.suffix.lower() == ".npy":
            continue
        try:
            headers[path] = read_header(path)
        except UbendError as error:
            rest = (pair.images[0], None) if path == pair.labels else (None, pair.labels)
            found.append(("unreadable", Case((path,), str(error), *rest)))
    return headers, found


def _of_headers(pair: Pair, headers: dict[Path, Header], seen: Sequence[Seen]) -> _Found:
    found: _Found = []
    at = (pair.images[0], pair.labels)
    labels = headers.get(pair.labels)
    if labels is not None and labels.is_palette:
        found.append(("palette", Case((pair.labels,), "", *at)))
    turned = [path for path, header in headers.items() if header.orientation != 1]
    if turned and len({header.orientation for header in headers.values()}) > 1 and not _lie_well(seen):
        found.append(("turned-by-camera", Case(tuple(turned), "", *at)))
    return found


def _lie_well(seen: Sequence[Seen]) -> bool:
    """Whether the labels clearly fit as they are, or clearly do not, which is told elsewhere."""
    fits = [one.labels.fit for one in seen if one.labels is not None and one.labels.fits_known]
    return any(better_turn(fit) is not None or fit[0] - np.nanmax(fit[1:]) > 0.15 for fit in fits)


# what does not fit


def _diagnosed(pair: Pair, error: UbendError, headers: dict[Path, Header]) -> tuple[str, Case, list[Picture]]:
    """Say which fault the error was, and give the images that can be looked at without labels."""
    at = (pair.images[0], pair.labels)
    images = []
    for path in pair.images:
        try:
            images.append(read_images(path))
        except UbendError as why:
            return "unreadable", Case((path,), str(why), None, pair.labels), []
    pages = images[0] if len(images) == 1 else []
    try:
        labels = [] if is_drawn(pair.labels) else read_labels(pair.labels)
    except UbendError as why:
        code, said = _unfit_labels(pair.labels, why)
        return code, Case((pair.labels,), said, *at), pages
    if not labels:
        return "unreadable", Case((pair.labels,), str(error), pair.images[0]), pages
    if len(labels) != len(images[0]):
        return "pages-differ", Case((*pair.images, pair.labels), _pages(images[0], labels), *at), pages
    differing = [(k, a, b) for k, (a, b) in enumerate(zip(images[0], labels, strict=True)) if _differ(a, b)]
    if differing:
        page, image, truth = differing[0]
        code, said = _sizes(image, truth, headers)
        return code, Case((*pair.images, pair.labels), said, *at, page), pages
    return "unreadable", Case((*pair.images, pair.labels), str(error), *at), pages


def _differ(image: Picture, truth: Picture) -> bool:
    return image.pixels.shape[:2] != truth.pixels.shape


def _unfit_labels(path: Path, why: UbendError) -> tuple[str, str]:
    """Say what kind of pixels cannot be labels."""
    try:
        pixels = read_images(path)[0].pixels
    except UbendError:
        return "unreadable", str(why)
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        colours = np.unique(pixels[::4, ::4].reshape(-1, pixels.shape[2]), axis=0)
        return "labels-in-colour", f"{pixels.shape[2]} channels, {len(colours)} colours or more"
    if pixels.ndim == 3:
        return "pages-differ", f"labels with {pixels.shape[2]} channels: slices saved as channels?"
    if pixels.dtype.kind == "f":
        return "labels-not-whole", f"{pixels.dtype}, {_range(pixels)}"
    return "labels-smoothed", f"a JPEG with {len(np.unique(pixels))} different values"


def _range(pixels: np.ndarray[Any, Any]) -> str:
    finite = pixels[np.isfinite(pixels)]
    return f"{finite.min():g} to {finite.max():g}" if finite.size else "no number at all"


def _pages(images: Sequence[Picture], labels: Sequence[Picture]) -> str:
    channels = images[0].pixels.shape[2] if images[0].pixels.ndim == 3 else 1
    said = f"{len(images)} in the image, {len(labels)} in the labels"
    if len(images) == 1 and channels == len(labels):
        said += f"; the image has {channels} channels: its slices were saved as channels"
    return said


def _sizes(image: Picture, truth: Picture, headers: dict[Path, Header]) -> tuple[str, str]:
    rows, columns = image.pixels.shape[:2]
    height, width = truth.pixels.shape
    said = f"image {rows} × {columns}, labels {height} × {width} (rows × columns)"
    if (height, width) != (columns, rows):
        if abs(rows / height - columns / width) < 0.02 * rows / height:
            said += f"; the labels are {height / rows:.3g} times as large"
        return "sizes-differ", said
    if headers.get(image.path, _PLAIN).orientation != headers.get(truth.path, _PLAIN).orientation:
        said += "; only one of them says that it is to be turned (EXIF)"
    return "labels-turned", f"{said}: rows and columns are swapped"


_PLAIN = Header(1, False, "", False, (1, 0, 0))


# what the labels mean


def _task(seen: Sequence[Seen], kind: Kind | None, ignore: int | None) -> Task | InputError | None:
    facts = [one.labels for one in seen if one.labels is not None and not unsound(one.labels)]
    if not facts:
        return None

    def share_in_one_piece(ignored: int | None) -> float:
        whole = []
        for labels in facts:
            values, which = np.unique(labels.pieces.value, return_inverse=True)
            largest = np.zeros(len(values), np.int64)
            np.maximum.at(largest, which, labels.pieces.size)
            sizes = np.bincount(which, weights=labels.pieces.size, minlength=len(values))
            whole += [
                one >= 0.95 * of for value, one, of in zip(values, largest, sizes, strict=True) if value != ignored
            ]
        return float(np.mean(whole)) if whole else 0.0

    try:
        return task_of_values([labels.values for labels in facts], share_in_one_piece, kind=kind, ignore=ignore)
    except InputError as error:
        return error

"""Which result belongs to which truth: two folders, or two files, read and matched by name.

What could be scored only by mistake is an error: the truth in the place of the results, a result that is missing, a
folder of folders. What `ubend predict` leaves beside its label images is no result.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import LABEL_FOLDERS, Pair, bare_stem, find_pairs, read_pairs
from ubend.data.formats import existing_folder, file_stem, image_files, read_labels, read_probabilities
from ubend.data.rois import OUTLINE_SUFFIXES
from ubend.errors import FileError

__all__ = ["Matched", "read_matched"]

_PROBABILITIES = "_probabilities"
_OUTLINES = "_outlines"
_OBJECTS = re.compile(r"(?:.+_)?objects\.csv")
_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Matched:
    """Truths and results, image by image.

    Attributes
    ----------
    names : tuple of str
        Of the images.
    truths, results : tuple of ndarray of int, shape (rows, columns)
        As in the files; the sizes may differ.
    result_files : tuple of (Path, str)
        The folder and the stem of each result, after which what belongs to it is named.
    notes : tuple of str
        What was there and is not scored, a sentence each.
    objects_table : str
        The name of a table of objects beside the results, as only a model of single objects leaves one; "" for none.
    """

    names: tuple[str, ...]
    truths: tuple[NDArray[Any], ...]
    results: tuple[NDArray[Any], ...]
    result_files: tuple[tuple[Path, str], ...]
    notes: tuple[str, ...]
    objects_table: str = ""

    def probabilities(self) -> tuple[list[NDArray[np.float32]] | None, str]:
        """Read the probabilities beside the results if all have them; otherwise None and, if some have, a sentence."""
        files = [folder / f"{stem}{_PROBABILITIES}.tif" for folder, stem in self.result_files]
        present = [path for path in files if path.is_file()]
        if len(present) == len(files):
            return [read_probabilities(path) for path in files], ""
        few = f"Only {len(present)} of {len(files)} results have probabilities, so none were used." if present else ""
        return None, few


@dataclass(frozen=True, eq=False)
class _LabelImage:
    """A label image of a file, with the stem of what belongs to it, and the images of which it is the truth.

    It is matched by its image's name and its stem, and if nothing has these, by what is left of them without a word
    such as _mask.
    """

    name: str
    file: Path
    stem: str
    pixels: NDArray[Any]
    images: tuple[Path, ...] = ()
    bare: tuple[str, ...] = ()

    @property
    def exact(self) -> tuple[str, ...]:
        return (self.name, self.stem) if self.images else (self.stem,)


def read_matched(results: str | Path, truth: str | Path) -> Matched:
    """Read results and truth, and match them by the names of their files.

    Parameters
    ----------
    results : str or Path
        A folder with a label image for each image of the truth, or one label image. What `ubend predict` writes beside
        (STEM_probabilities.tif, STEM_outlines.png, tables, regions) is not taken for a result.
    truth : str or Path
        A folder with images and labels, as for training, or with label images only; or one label image, or outlines
        (ROIs, GeoJSON) for one. STEM_mask.tif, STEM_labels.tif and the like match STEM.tif where nothing has just
        their name. Two files match whatever their names are.

    Returns
    -------
    Matched

    Raises
    ------
    FileError
        If a folder is missing or empty, holds folders instead of label images, or is clearly the other one; if an
        image of the truth has no result, or two have the same name.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("truth/a_mask.tif", "results/a.tif", "results/b.tif"):
    ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         write_labels(Path(folder) / name, np.array([[0, 1, 1]]))
    ...     matched = read_matched(Path(folder) / "results", Path(folder) / "truth")
    >>> matched.names, len(matched.notes)
    (('a',), 1)
    """
    results, truth = Path(results), Path(truth)
    _check_both_are_there(results, truth)
    if results.is_file() and truth.is_file():
        return _two_files(results, truth)
    for path, other in ((results, truth), (truth, results)):
        if path.is_file() and other.is_dir():
            raise FileError(f"{path} is a file and {other} a folder: give two folders, or two label images.")
    _check_not_swapped(results, truth)
    expected, found = _read_truth(truth), _read_results(results)
    matched = _match(expected, found, results, truth)
    without_truth = {image.stem for image in found} - {image.stem for image in matched}
    notes = (_agreement(truth), _not_scored(sorted(without_truth), results), _not_looked_at(results))
    return Matched(
        tuple(image.name for image in expected),
        tuple(image.pixels for image in expected),
        tuple(image.pixels for image in matched),
        tuple((image.file.parent, image.stem) for image in matched),
        tuple(note for note in notes if note),
        next(iter(_tables_of_objects(results)), ""),
    )


def _two_files(results: Path, truth: Path) -> Matched:
    if file_stem(results).endswith(_PROBABILITIES):
        raise FileError(f"{results} holds probabilities; name the label image beside it.")
    found, expected = _read_file(results, truth), _read_file(truth, results)
    if len(found) != len(expected):
        raise FileError(
            f"{results} holds {len(found)} label images and {truth} {len(expected)}: there must be one for each."
        )
    return Matched(
        tuple(image.name for image in found),
        tuple(image.pixels for image in expected),
        tuple(image.pixels for image in found),
        tuple((results.parent, image.stem) for image in found),
        (),
        next((name for name in _tables_of_objects(results.parent) if name.startswith(f"{file_stem(results)}_")), ""),
    )


def _read_file(path: Path, other: Path) -> list[_LabelImage]:
    """Read a label image, or paint outlines at the size of the other file."""
    if not _is_drawn(path):
        return _read(path, file_stem(path))
    if _is_drawn(other):
        raise FileError(
            f"{path} and {other} are both outlines, which do not say how large their image is: give one of the two as "
            "a label image, or a folder with images/ and masks/ as the truth."
        )
    return _read_drawn(Pair(file_stem(path), (other,), path))


# What is where


def _is_drawn(path: Path) -> bool:
    return path.suffix.lower() in OUTLINE_SUFFIXES


def _read_truth(folder: Path) -> list[_LabelImage]:
    """Read the labels of an annotated folder, or all images of a folder of label images only."""
    drawn: list[Pair] = []
    try:
        pairs = find_pairs(folder)
        drawn = [pair for pair in pairs if _is_drawn(pair.labels)]
        files = [(pair.labels, pair.name, pair.images) for pair in pairs if pair not in drawn]
    except FileError:
        # With a folder of labels inside, these are images, and what is wrong with the folder is what was just said.
        has_labels_inside = any(child.name.lower() in LABEL_FOLDERS for child in _folders(folder))
        files = [(path, bare_stem(file_stem(path)), ()) for path in _label_files(folder)]
        if has_labels_inside:
            raise
        if not files:
            raise FileError(_no_label_images(folder, "the truth")) from None
    images = [image for path, name, shown in files for image in _read(path, name, shown)]
    images += [image for pair in drawn for image in _read_drawn(pair)]
    _check_unique([image.name for image in images], folder)
    return images


def _read_drawn(pair: Pair) -> list[_LabelImage]:
    """Read outlines, which become label images of the size of their image."""
    return [
        _LabelImage(one.name, pair.labels, one.name, one.labels, pair.images, (bare_stem(one.name),))
        for one in read_pairs([pair])
    ]


def _read_results(folder: Path) -> list[_LabelImage]:
    files = _label_files(folder)
    if not files:
        raise FileError(_no_label_images(folder, "the results that were predicted"))
    images = [image for path in files for image in _read(path, bare_stem(file_stem(path)))]
    _check_unique([image.stem for image in images], folder)
    return images


def _label_files(folder: Path) -> list[Path]:
    """List the images of a folder but for those that were written beside a label image."""
    files = image_files(folder)
    stems = {file_stem(path) for path in files}
    return [path for path in files if not _is_beside(file_stem(path), stems)]


def _is_beside(stem: str, stems: set[str]) -> bool:
    """Whether a file belongs to another; an image may well be called x_outlines, if there is no x."""
    return stem.endswith(_PROBABILITIES) or (stem.endswith(_OUTLINES) and stem.removesuffix(_OUTLINES) in stems)


def _read(path: Path, name: str, images: tuple[Path, ...] = ()) -> list[_LabelImage]:
    """Read the label images of a file; each name has the number of its page at its end."""
    stem = file_stem(path)
    pages = [(picture.name.removeprefix(stem), picture.pixels) for picture in read_labels(path)]
    bare = (bare_stem(name), bare_stem(stem))
    return [
        _LabelImage(name + page, path, stem + page, pixels, images, tuple(one + page for one in bare))
        for page, pixels in pages
    ]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _with_images(folder: Path) -> list[Path]:
    return [path for path in _folders(folder) if image_files(path)]


# Matching


def _match(
    expected: Sequence[_LabelImage], found: Sequence[_LabelImage], results: Path, truth: Path
) -> list[_LabelImage]:
    fits = _fitting(expected, found)
    missing = [image for k, image in enumerate(expected) if k not in fits]
    taken = {name: found[j].stem for j in fits.values() for name in (*found[j].exact, *found[j].bare)}
    twice = [taken[name] for image in missing for name in (*image.exact, *image.bare) if name in taken]
    twice += [found[j].stem for j, times in Counter(fits.values()).items() if times > 1]
    if twice:
        raise FileError(f"{truth} has several label images that fit the result {twice[0]}: leave one each.")
    _check_none_missing([image.name for image in missing], expected, found, results, truth)
    matched = [found[fits[k]] for k in range(len(expected))]
    _check_nothing_fits_as_well(expected, [image for j, image in enumerate(found) if j not in fits.values()], results)
    for image, result in zip(expected, matched, strict=True):
        if image.file.samefile(result.file):
            raise FileError(f"{result.file} would be compared with itself: name the folder of the results first.")
        if any(path.samefile(result.file) for path in image.images):
            raise FileError(f"{result.file} is an image of {truth}, and no result: name the folder of the results.")
    return matched


def _fitting(expected: Sequence[_LabelImage], found: Sequence[_LabelImage]) -> dict[int, int]:
    """Find for each truth the result that fits: the names as they are come first, and those without words last."""
    fits: dict[int, int] = {}
    for truth_key, key in itertools.product(("exact", "bare"), repeat=2):
        free = set(range(len(found))) - set(fits.values())
        by_name = {name: j for j in free for name in getattr(found[j], key)}
        for k, image in enumerate(expected):
            names = [name for name in getattr(image, truth_key) if name in by_name]
            if k not in fits and names:
                fits[k] = by_name[names[0]]
    return fits


def _check_none_missing(
    missing: Sequence[str], expected: Sequence[_LabelImage], found: Sequence[_LabelImage], results: Path, truth: Path
) -> None:
    if missing and len(missing) == len(expected):
        raise FileError(
            f"{results} has no result for any of the {len(expected)} images of {truth}: the truth has "
            f"{_some(missing)}, the results {_some([image.name for image in found])}. Name each result like its image, "
            f"e.g. {missing[0]}.tif."
        )
    if missing:
        raise FileError(
            f"{results} has no result for {_some(missing)}: {len(missing)} of the {len(expected)} images of {truth}. "
            f"Predict all of them, and name each result like its image, e.g. {missing[0]}.tif."
        )


def _check_nothing_fits_as_well(expected: Sequence[_LabelImage], others: Sequence[_LabelImage], results: Path) -> None:
    """Refuse a.tif beside a_mask.tif: one of them is likely the image itself."""
    wanted = {name for image in expected for name in (image.name, *image.exact)}
    _refuse_several(
        [name for image in others for name in dict.fromkeys(image.exact + image.bare) if name in wanted], results
    )


def _not_scored(names: Sequence[str], folder: Path) -> str:
    return f"Not scored, since the truth has none of them: {_some(names)} in {folder}." if names else ""


def _not_looked_at(results: Path) -> str:
    inside = [path.name for path in _with_images(results)]
    return f"Not looked at: {_some(inside)} in {results}." if inside else ""


def _agreement(truth: Path) -> str:
    """Say so if the truth was predicted, too."""
    written = _written_by_predict(truth)
    return f"{truth} holds {written[0]}, as `ubend predict` writes: this compares two results." if written else ""


# Mistakes


def _check_both_are_there(results: Path, truth: Path) -> None:
    for path, other in ((results, truth), (truth, results)):
        if not path.exists() and other.is_file():
            raise FileError(f"There is no file {path}.")
        if not path.exists():
            existing_folder(path)
    if results.samefile(truth):
        raise FileError(f"{results} is both the results and the truth: name the folder of the results, then the truth.")


def _check_not_swapped(results: Path, truth: Path) -> None:
    if (results / _MODEL).is_file() and not _label_files(results):
        raise FileError(f"{results} is the folder of a model: name the one into which its results were predicted.")
    annotated = [path for path in _with_images(results) if path.name.casefold() in {*LABEL_FOLDERS, "labelstr"}]
    if annotated:
        raise FileError(
            f"{results} has its labels in {annotated[0].name}/, as a truth does: the results come first, then the "
            f"truth. If these are the results, name {annotated[0]}."
        )
    there = _written_by_predict(truth)
    if there and not _written_by_predict(results):
        raise FileError(
            f"{truth} holds {there[0]}, as the results of `ubend predict` do: the results come first, then the truth. "
            "If it is the truth, move that file elsewhere."
        )


def _written_by_predict(folder: Path) -> list[str]:
    """Name the files that only `ubend predict` leaves: STEM_probabilities.tif and objects.csv beside STEM.tif."""
    maps = [path.name for path in folder.iterdir() if path.name.endswith(f"{_PROBABILITIES}.tif") and path.is_file()]
    return sorted([*maps, *_tables_of_objects(folder)])


def _tables_of_objects(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if _OBJECTS.fullmatch(path.name) and path.is_file())


def _no_label_images(folder: Path, what: str) -> str:
    inside = _with_images(folder)
    if inside:
        return (
            f"{folder} has no label images itself, its folders may ({_some([path.name for path in inside])}): name one."
        )
    if any(file_stem(path).endswith(_PROBABILITIES) for path in image_files(folder)):
        return f"{folder} has probabilities and no label images; name the folder that has both."
    empty = "it is empty" if not any(folder.iterdir()) else "none of its files is one"
    return f"{folder} has no label images, {empty}; name the folder of {what}."


def _check_unique(names: Sequence[str], folder: str | Path) -> None:
    _refuse_several(sorted(name for name, times in Counter(names).items() if times > 1), folder)


def _refuse_several(twice: Sequence[str], folder: str | Path) -> None:
    if twice:
        raise FileError(
            f"{folder} has several label images for {_some(twice)}. Leave one each, and keep images and labels in two "
            "folders, images and masks."
        )


def _some(names: Sequence[str]) -> str:
    """Name up to three, and count the rest."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest

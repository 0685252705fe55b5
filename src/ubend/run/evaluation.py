"""How good results are: label images against the truth, as arrays or as folders.

Which scores depends on the task. Binary: IoU and Dice of the foreground, and V_Rand and V_Info after thinning
(Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142), where the foreground is taken for the inside of cells.
Classes: IoU and Dice of each class. Instances: IoU and Dice of the foreground, and the cells found, missed and invented
at an IoU of 0.5.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import LABEL_FOLDERS, Kind, Task, class_indices, find_pairs, infer_task
from ubend.data.formats import existing_folder, file_stem, image_files, read_labels, read_probabilities
from ubend.errors import FileError, InputError
from ubend.scores import cells, em_challenge, regions

__all__ = ["HEADLINES", "Evaluation", "ImageScores", "evaluate_arrays", "evaluate_folders"]

HEADLINES: dict[Kind, str] = {"binary": "IoU", "classes": "mean IoU", "instances": "AP@0.5 (pooled)"}
"""The one overall score of each task by which to compare two models; higher is better."""

_PROBABILITIES = "_probabilities"
_LABEL_WORD = f"(?:{'|'.join(('cp_masks', 'seg', *LABEL_FOLDERS))})"
_BARE = re.compile(rf"^(?:{_LABEL_WORD}[_-])?(.+?)(?:[_-]{_LABEL_WORD})?$", re.IGNORECASE)


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image.

    Attributes
    ----------
    name : str
        Of the image.
    scores : dict of str to float
        By name, in the order in which to show them; nan where there is nothing to score.
    """

    name: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Scores of several images, one by one and all together.

    Attributes
    ----------
    kind : {"binary", "classes", "instances"}
        The task.
    rows : tuple of ImageScores
        One an image.
    overall : dict of str to float
        Of all images together. IoU and Dice are those of all pixels pooled; of others the name says how they were
        joined where there is a choice.
    notes : tuple of str
        What a reader of the numbers must know, a sentence each.
    """

    kind: Kind
    rows: tuple[ImageScores, ...]
    overall: dict[str, float]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts and lists that JSON can hold; nan becomes None.

        Returns
        -------
        dict
            With the keys kind, rows (a list of dicts of name and scores), overall and notes.

        Examples
        --------
        >>> Evaluation("binary", (ImageScores("a", {"IoU": float("nan")}),), {"IoU": 1.0}).to_dict()
        {'kind': 'binary', 'rows': [{'name': 'a', 'scores': {'IoU': None}}], 'overall': {'IoU': 1.0}, 'notes': []}
        """
        return {
            "kind": self.kind,
            "rows": [{"name": row.name, "scores": _without_nan(row.scores)} for row in self.rows],
            "overall": _without_nan(self.overall),
            "notes": list(self.notes),
        }


def evaluate_arrays(
    truths: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    *,
    task: Task,
    probabilities: Sequence[NDArray[np.float32]] | None = None,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Score results against the truth.

    Parameters
    ----------
    truths : sequence of ndarray of int, shape (rows, columns)
        Labels as they were annotated; the task says which value is what. Pixels that are negative, or of the task's
        ignore label, are not scored.
    results : sequence of ndarray of int, shape (rows, columns)
        One for each truth, of its size, with the values that the truth has. In a binary task of 0 and 1, or 0 and 255,
        any value but 0 is foreground.
    task : Task
        From `ubend.data.annotated.infer_task`.
    probabilities : sequence of ndarray of float32, shape (classes, rows, columns), optional
        One for each truth. A binary task takes V_Rand and V_Info from the last class, at the best of 11
        thresholds;
        without them from the results as they are.
    names : sequence of str, optional
        One for each truth; otherwise they are counted from 1.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If the numbers of images or their sizes differ, or a value is none of the task's.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2]])
    >>> result = np.array([[5, 5, 0, 0, 0]])
    >>> evaluation = evaluate_arrays([truth], [result], task=Task("instances", (), None))
    >>> evaluation.overall["IoU"], evaluation.overall["AP@0.5 (pooled)"]
    (0.5, 0.5)
    """
    names = [f"image {number}" for number in range(1, len(truths) + 1)] if names is None else list(names)
    truths, results = [np.asarray(truth) for truth in truths], [np.asarray(result) for result in results]
    _check_counts(len(truths), results=results, names=names, probabilities=probabilities)
    _check_sizes(names, truths, results, probabilities)
    truths = [class_indices(truth, task) for truth in truths]
    if task.kind == "instances":
        return _instances(truths, results, names)
    results = [_result_indices(result, task, name) for result, name in zip(results, names, strict=True)]
    if task.kind == "classes":
        return _classes(truths, results, task.values, names)
    return _binary(truths, results, probabilities, names)


def evaluate_folders(
    results: str | Path,
    truth: str | Path,
    *,
    task: Kind | None = None,
    ignore: int | None = None,
) -> Evaluation:
    """Score a folder of results against a folder of truth.

    Parameters
    ----------
    results : str or Path
        A folder with a label image STEM.tif (or .png ...) for each image, and maybe STEM_probabilities.tif.
    truth : str or Path
        A folder with images and labels, as for training, or with label images only. STEM_mask.tif, STEM_labels.tif and
        the like match STEM.tif.
    task : {"binary", "classes", "instances"}, optional
        What the labels mean, if it should not be inferred from the truth.
    ignore : int, optional
        The truth's value for pixels that are not annotated.

    Returns
    -------
    Evaluation
        Of all images of the truth. Results without a truth are left out, and the notes say so.

    Raises
    ------
    FileError
        If a folder is missing or empty, an image of the truth has no result, or two have the same name.
    InputError
        If the size of a result is not that of its truth, or a value is none of the task's.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("truth/a_mask.tif", "results/a.tif"):
    ...         (Path(folder) / name).parent.mkdir()
    ...         write_labels(Path(folder) / name, np.array([[0, 1, 1]]))
    ...     evaluate_folders(Path(folder) / "results", Path(folder) / "truth").overall["IoU"]
    1.0
    """
    expected, found = _read_truth(truth), _read_results(results)
    missing = [image.names[0] for image in expected if not found.keys() & set(image.names)]
    if missing:
        raise FileError(
            f"{results} has no result for {_some(missing)} of {truth}. Predict all images of the truth, "
            f"and name each result like its image, e.g. {missing[0]}.tif."
        )
    matched = [next(name for name in image.names if name in found) for image in expected]
    chosen = [found[name].pixels for name in matched]
    seen = infer_task([image.pixels for image in expected], kind=task, ignore=ignore)
    stems = [found[name].stem for name in matched]
    probabilities, note = _read_probabilities(Path(results), stems) if seen.kind == "binary" else (None, "")
    evaluation = evaluate_arrays(
        [image.pixels for image in expected],
        chosen,
        task=_with_values_of(chosen, seen),
        probabilities=probabilities,
        names=[image.names[0] for image in expected],
    )
    notes = [*evaluation.notes, note, _left_out(set(found) - set(matched), results)]
    return replace(evaluation, notes=tuple(text for text in notes if text))


def _binary(
    truths: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    probabilities: Sequence[NDArray[np.float32]] | None,
    names: Sequence[str],
) -> Evaluation:
    counts = [regions.confusion(truth, result, 2) for truth, result in zip(truths, results, strict=True)]
    cells_of_truth = [truth == 1 for truth in truths]
    if probabilities is None:
        v_rand, v_info = em_challenge.v_scores(cells_of_truth, [result == 1 for result in results])
        note = "V_Rand and V_Info: after thinning, from the label images as they are."
    else:
        v_rand, v_info = em_challenge.v_scores(cells_of_truth, [classes[-1] for classes in probabilities])
        note = (
            "V_Rand and V_Info: after thinning, from the probabilities, at the best of 11 thresholds over all images "
            f"({v_rand.threshold:.1f} and {v_info.threshold:.1f})."
        )
    rows = [
        ImageScores(name, _foreground(count) | {"V_Rand": rand, "V_Info": info})
        for name, count, rand, info in zip(names, counts, v_rand.slices, v_info.slices, strict=True)
    ]
    overall = _foreground(_sum(counts, 2)) | {"V_Rand": v_rand.f_score, "V_Info": v_info.f_score}
    return Evaluation("binary", tuple(rows), overall, (note,))


def _classes(
    truths: Sequence[NDArray[Any]], results: Sequence[NDArray[Any]], values: Sequence[int], names: Sequence[str]
) -> Evaluation:
    counts = [regions.confusion(truth, result, len(values)) for truth, result in zip(truths, results, strict=True)]
    rows = [ImageScores(name, _of_classes(count, values)) for name, count in zip(names, counts, strict=True)]
    return Evaluation("classes", tuple(rows), _of_classes(_sum(counts, len(values)), values))


def _instances(truths: Sequence[NDArray[Any]], results: Sequence[NDArray[Any]], names: Sequence[str]) -> Evaluation:
    pairs = list(zip(truths, results, strict=True))
    counts = [regions.confusion(np.minimum(truth, 1), result > 0, 2) for truth, result in pairs]
    matchings = [cells.match(truth, result) for truth, result in pairs]
    rows = [
        ImageScores(name, _foreground(count) | {"F1@0.5": found.f1, "AP@0.5": found.average_precision})
        for name, count, found in zip(names, counts, matchings, strict=True)
    ]
    together = cells.pooled(matchings)
    overall = _foreground(_sum(counts, 2)) | {
        "F1@0.5 (pooled)": together.f1,
        "AP@0.5 (pooled)": together.average_precision,
        "AP@0.5 (mean of images)": _mean(found.average_precision for found in matchings),
    }
    note = "AP@0.5: TP/(TP+FP+FN), pairs from an IoU of 0.5; pooled: counts of all images summed first."
    return Evaluation("instances", tuple(rows), overall, (note,))


def _foreground(count: NDArray[np.int64]) -> dict[str, float]:
    return {"IoU": float(regions.iou(count)[1]), "Dice": float(regions.dice(count)[1])}


def _of_classes(count: NDArray[np.int64], values: Sequence[int]) -> dict[str, float]:
    iou, dice = regions.iou(count).tolist(), regions.dice(count).tolist()
    return {
        "mean IoU": _mean(iou),
        "mean Dice": _mean(dice),
        **{f"IoU of {value}": score for value, score in zip(values, iou, strict=True)},
        **{f"Dice of {value}": score for value, score in zip(values, dice, strict=True)},
    }


def _sum(counts: Sequence[NDArray[np.int64]], classes: int) -> NDArray[np.int64]:
    return np.sum(counts, axis=0, dtype=np.int64).reshape(classes, classes)


def _mean(scores: Iterable[float]) -> float:
    """Average what is not nan: a class that is nowhere, or an image without objects, has no score to average."""
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else math.nan


def _without_nan(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(score) else score for name, score in scores.items()}


def _result_indices(result: NDArray[Any], task: Task, name: str) -> NDArray[Any]:
    """Map the values of a result to 0..K-1."""
    if task.kind == "binary" and task.values in ((), (0,), (0, 1), (0, 255)):
        return (result > 0).astype(np.int32)  # 255, or numbered objects, where the truth has 1: foreground all the same
    indices = class_indices(result, task)
    if (indices < 0).any():
        raise InputError(
            f"The result {name} contains the value {result[indices < 0].flat[0]}, which means unlabelled; "
            f"a result has a class everywhere: {', '.join(map(str, task.values))}."
        )
    return indices


def _with_values_of(results: Sequence[NDArray[Any]], task: Task) -> Task:
    """Let a task of classes know those, too, that only the results have: they are wrong, not an error."""
    if task.kind != "classes":
        return task
    found = {int(value) for result in results for value in np.unique(result)} - {task.ignore_label}
    return replace(task, values=tuple(sorted({*task.values, *(value for value in found if value >= 0)})))


def _check_counts(n: int, **others: Sequence[Any] | None) -> None:
    if n == 0:
        raise InputError("There is no image to evaluate; give at least one.")
    for name, sequence in others.items():
        if sequence is not None and len(sequence) != n:
            raise InputError(f"There are {n} truths and {len(sequence)} {name}; give one for each truth.")


def _check_sizes(
    names: Sequence[str],
    truths: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    probabilities: Sequence[NDArray[np.float32]] | None,
) -> None:
    for k, (name, truth, result) in enumerate(zip(names, truths, results, strict=True)):
        shapes = [("result", result.shape)]
        if probabilities is not None:
            shapes.append(("map of probabilities", probabilities[k].shape[1:]))
        for what, shape in shapes:
            if shape != truth.shape or truth.ndim != 2:
                raise InputError(
                    f"{name}: the truth is {_size(truth.shape)} pixels, the {what} {_size(shape)}. Both must be single "
                    "images of one size: predict the image at the size at which it was annotated."
                )


@dataclass(frozen=True)
class _LabelImage:
    """A label image of a folder, the names by which it may be matched, and the stem of what belongs to it."""

    names: tuple[str, ...]
    stem: str
    pixels: NDArray[Any]


def _read_truth(folder: str | Path) -> list[_LabelImage]:
    """Read the labels of an annotated folder, or all images of a folder of label images only."""
    try:
        files = [(pair.labels, pair.name) for pair in find_pairs(folder)]
    except FileError:
        # With a folder of labels inside, these are images, and what is wrong with the folder is what was just said.
        has_labels_inside = any(child.name.lower() in LABEL_FOLDERS for child in existing_folder(folder).iterdir())
        files = [(path, _bare(file_stem(path))) for path in image_files(folder)]
        if has_labels_inside or not files:
            raise
    images = [image for path, name in files for image in _read(path, name)]
    _check_unique([image.names[0] for image in images], folder)
    return images


def _read_results(folder: str | Path) -> dict[str, _LabelImage]:
    files = [path for path in image_files(existing_folder(folder)) if not file_stem(path).endswith(_PROBABILITIES)]
    if not files:
        raise FileError(f"{folder} has no label images; name the folder into which the results were predicted.")
    images = [image for path in files for image in _read(path, _bare(file_stem(path)))]
    _check_unique([image.names[0] for image in images], folder)
    return {image.names[0]: image for image in images}


def _read(path: Path, name: str) -> list[_LabelImage]:
    """Read the label images of a file; they may be called `name` or the file's bare stem, with their page number."""
    stem = file_stem(path)
    pages = [(picture.name.removeprefix(stem), picture.pixels) for picture in read_labels(path)]
    names = (name, _bare(name), _bare(stem))
    return [_LabelImage(tuple(name + page for name in names), stem + page, pixels) for page, pixels in pages]


def _bare(stem: str) -> str:
    """Strip what marks a file as labels: cell_mask, labels_cell and cell are all one image."""
    match = _BARE.match(stem)
    return match[1] if match else stem


def _check_unique(names: Sequence[str], folder: str | Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FileError(
            f"{folder} has several label images for {_some(twice)}. Leave one each, and keep images and labels in two "
            "folders, images and masks."
        )


def _read_probabilities(folder: Path, stems: Sequence[str]) -> tuple[list[NDArray[np.float32]] | None, str]:
    """Read the probabilities beside the results, if all have them; otherwise say so."""
    files = [folder / f"{stem}{_PROBABILITIES}.tif" for stem in stems]
    present = [path for path in files if path.is_file()]
    if len(present) == len(files):
        return [read_probabilities(path) for path in files], ""
    few = f"Only {len(present)} of {len(files)} results have probabilities, so none were used." if present else ""
    return None, few


def _left_out(names: set[str], folder: str | Path) -> str:
    return f"Not scored, since the truth has none of them: {_some(sorted(names))} in {folder}." if names else ""


def _some(names: Sequence[str]) -> str:
    """Name up to three, and count the rest."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))

"""How good results are: label images against the truth, as arrays or as folders.

Which scores depends on the task. Binary: IoU, Dice, precision and recall of the foreground, and V_Rand and V_Info after
thinning (Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142), where the foreground is taken for the inside of
cells. Classes: the first four, of each class. Instances: IoU and Dice of the foreground, and the objects found, missed
and invented.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Kind, Task, class_indices, infer_task, look_numbered
from ubend.data.inspection import looks_like_a_picture
from ubend.errors import InputError
from ubend.run import pooling
from ubend.run.pooling import Column
from ubend.run.result_files import Matched, read_matched
from ubend.run.scoring import HEADLINES, score_binary, score_classes, score_instances

__all__ = ["FORMAT", "FORMAT_VERSION", "HEADLINES", "Evaluation", "ImageScores", "evaluate_arrays", "evaluate_folders"]

FORMAT = "ubend-scores"
FORMAT_VERSION = 1
"""Of what `Evaluation.to_dict` returns; docs/evaluate.md has the keys."""

_MOST_ADDED = 256
"""Values that only results have; with more of them they are no classes."""


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


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of several images, one by one and all together.

    Attributes
    ----------
    kind : {"binary", "classes", "instances"}
        The task.
    names : tuple of str
        Of the images.
    columns : tuple of Column
        One a score; each knows what it means and how the images are joined.
    notes : tuple of str
        What a reader of the numbers must know, a sentence each.
    values : tuple of int
        The label values of the rows and columns of `confusion`.
    confusion : ndarray of int64, shape (classes, classes), or None
        Pixels of all images by true class and found class; None for instances.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 0]])
    >>> evaluation = evaluate_arrays([truth] * 3, [truth, truth, 1 - truth], task=Task("binary", (0, 1), None))
    >>> evaluation.overall["IoU"], evaluation.intervals["IoU"]
    (0.5, (0.0, 1.0))
    """

    kind: Kind
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    confusion: NDArray[np.int64] | None = None

    @property
    def headline(self) -> str:
        """The name of the one overall score by which to compare."""
        return HEADLINES[self.kind]

    @cached_property
    def rows(self) -> tuple[ImageScores, ...]:
        """The scores of each image, in the order of the images."""
        scores = {column.score.image_name: column.of_images().tolist() for column in self.columns}
        return tuple(
            ImageScores(name, {score: values[k] for score, values in scores.items()})
            for k, name in enumerate(self.names)
        )

    @cached_property
    def overall(self) -> dict[str, float]:
        """Each score of all images together, by its name; `Column.score` says how they were joined."""
        return {column.score.name: column.overall() for column in self.columns}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each overall score; see `pooling.intervals`. Computed when it is asked for."""
        return pooling.intervals(self.columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts and lists that JSON can hold; nan becomes None.

        Returns
        -------
        dict
            Its keys are in docs/evaluate.md.

        Examples
        --------
        >>> truth = np.array([[1, 1, 0, 2, 2]])
        >>> found = evaluate_arrays([truth], [truth], task=Task("instances", (), None)).to_dict()
        >>> found["headline"], found["overall"]["IoU"], found["intervals"]["IoU"]
        ('AP@0.5 (pooled)', 1.0, None)
        """
        described = {
            column.score.name: {
                "meaning": column.score.meaning,
                "pooled_over": column.score.pooled_over,
                "better": "higher" if column.score.higher_is_better else "lower",
            }
            for column in self.columns
        }
        matrix = None if self.confusion is None else self.confusion.tolist()
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "images": len(self.names),
            "headline": self.headline,
            "overall": _without_nan(self.overall),
            "intervals": {name: None if ends is None else list(ends) for name, ends in self.intervals.items()},
            "interval_method": {
                "name": "percentile bootstrap over images",
                "confidence": pooling.CONFIDENCE,
                "resamples": pooling.RESAMPLES,
            },
            "scores": described,
            "rows": [{"name": row.name, "scores": _without_nan(row.scores)} for row in self.rows],
            "confusion": matrix and {"values": list(self.values), "pixels": matrix},
            "notes": list(self.notes),
        }

    def to_table(self) -> list[list[str | float]]:
        """Return the scores of the images as rows of a table, names first.

        Returns
        -------
        list of list
            The first row holds the names of the columns. An image's name, then its scores; "" where there is nothing
            to score.

        Examples
        --------
        >>> truth = np.array([[0, 0]])
        >>> evaluate_arrays([truth], [truth], task=Task("instances", (), None)).to_table()[1][:2]
        ['image 1', '']
        """
        names = list(dict.fromkeys(column.score.image_name for column in self.columns))
        rows = [[row.name, *("" if math.isnan(row.scores[n]) else row.scores[n] for n in names)] for row in self.rows]
        return [["image", *names], *rows]


def evaluate_arrays(
    truths: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    *,
    task: Task,
    probabilities: Sequence[NDArray[np.float32]] | None = None,
    names: Sequence[str] | None = None,
    extent: Literal["few", "all"] = "few",
    em2012: bool = False,
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
        thresholds; without them from the results as they are.
    names : sequence of str, optional
        One for each truth; otherwise they are counted from 1.
    extent : {"few", "all"}
        Which scores: the few by which to watch a model, or all that suit the task.
    em2012 : bool
        Of a binary task also the errors by which the EM challenge scored in 2012: seconds an image.

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
    if em2012 and task.kind != "binary":
        raise InputError(f"The errors of 2012 are for membranes, a binary task; these labels are {task.kind}.")
    truths = [class_indices(truth, task) for truth in truths]
    values = task.values
    if task.kind == "instances":
        scored = score_instances(truths, results, extent=extent)
    else:
        results = [_result_indices(result, task, name) for result, name in zip(results, names, strict=True)]
        if task.kind == "classes":
            scored = score_classes(truths, results, values, extent=extent)
        else:
            scored = score_binary(truths, results, probabilities, extent=extent, em2012=em2012)
    return Evaluation(task.kind, tuple(names), scored.columns, scored.notes, values, scored.confusion)


def evaluate_folders(
    results: str | Path,
    truth: str | Path,
    *,
    task: Kind | None = None,
    ignore: int | None = None,
    em2012: bool = False,
) -> Evaluation:
    """Score a folder of results against a folder of truth.

    Parameters
    ----------
    results : str or Path
        A folder with a label image STEM.tif (or .png ...) for each image, and maybe STEM_probabilities.tif; or one
        label image.
    truth : str or Path
        A folder with images and labels, as for training, or with label images only; or one label image. STEM_mask.tif,
        STEM_labels.tif and the like match STEM.tif.
    task : {"binary", "classes", "instances"}, optional
        What the labels mean, if it should not be inferred: from the truth, and from a table of objects (objects.csv)
        beside the results. It means instances where the truth may be numbered objects, too.
    ignore : int, optional
        The truth's value for pixels that are not annotated.
    em2012 : bool
        Of a binary task also the errors by which the EM challenge scored in 2012: seconds an image.

    Returns
    -------
    Evaluation
        Of all images of the truth, with all scores. Results without a truth are left out, and the notes say so.

    Raises
    ------
    FileError
        If a folder is missing, empty, or clearly the other one, if an image of the truth has no result, or if two
        have the same name; see `result_files.read_matched`.
    InputError
        If the truth is pictures instead of labels, the size of a result is not that of its truth, a value is none of
        the task's, or the results number objects where the truth has classes.

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
    matched = read_matched(results, truth)
    if task is None:
        _check_labels(matched)
    seen, why = _seen_task(matched, task, ignore)
    probabilities, few = matched.probabilities() if seen.kind == "binary" else (None, "")
    evaluation = evaluate_arrays(
        matched.truths,
        matched.results,
        task=_with_values_of(matched.results, seen),
        probabilities=probabilities,
        names=matched.names,
        extent="all",
        em2012=em2012,
    )
    odd = _other_task(matched.results, matched.truths, seen, stated=task is not None)
    notes = (*evaluation.notes, why, few, odd, *matched.notes)
    return replace(evaluation, notes=tuple(note for note in notes if note))


def _check_labels(matched: Matched) -> None:
    """Refuse pictures in the place of the truth: scored, they would be hundreds of classes."""
    pictures = [
        name for name, labels in zip(matched.names, matched.truths, strict=True)
        if labels.dtype.kind in "ui" and looks_like_a_picture(labels)
    ]  # fmt: skip
    if 2 * len(pictures) > len(matched.names):
        raise InputError(
            f"the truth looks like pictures, not labels: in {pictures[0]} values change nearly everywhere; name the "
            "folder of the label images, or say what the labels mean with --task"
        )


def _seen_task(matched: Matched, kind: Kind | None, ignore: int | None) -> tuple[Task, str]:
    """Infer the task from the truth, and from what only a model of single objects leaves; say so if that decided."""
    seen = infer_task(matched.truths, kind=kind, ignore=ignore)
    if kind is not None or seen.kind == "instances" or not matched.objects_table:
        return seen, ""
    if not look_numbered(matched.truths, ignore=seen.ignore_label):
        return seen, ""
    by_results = infer_task(matched.truths, kind="instances", ignore=seen.ignore_label)
    return by_results, f"Scored as instances, since beside the results is their table {matched.objects_table}."


def _other_task(
    results: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]], task: Task, *, stated: bool = False
) -> str:
    """Say so if the results look as if they were made for another task than the truth."""
    most = max(_n_objects(result) for result in results)
    if task.kind == "instances" and most == 1 and max(_n_objects(truth) for truth in truths) > 1:
        return (
            "Each result holds one number besides 0, so each counts as one object. Number its objects first, or say "
            "--task binary."
        )
    if task.kind == "binary" and most > 1:
        return "The results number objects and the truth does not: all that is not 0 is scored as foreground."
    if task.kind == "classes" and not stated and all(_each_in_one_piece(images, task) for images in (truths, results)):
        return "Each value is one connected piece, as numbered objects are: if they are, say --task instances."
    return ""


def _each_in_one_piece(images: Sequence[NDArray[Any]], task: Task) -> bool:
    return look_numbered(images, ignore=task.ignore_label, share=1.0)


def _n_objects(labels: NDArray[Any]) -> int:
    return int(np.count_nonzero(np.unique(labels) > 0))


def _without_nan(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: score if math.isfinite(score) else None for name, score in scores.items()}


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
    added = {value for value in found if value >= 0} - set(task.values)
    if len(added) > _MOST_ADDED:
        raise InputError(
            f"The results number objects ({len(added):,} values that the truth has not), and the truth has "
            f"{len(task.values)} classes: say --task instances if its values are objects, too, else give results of "
            "its classes."
        )
    return replace(task, values=tuple(sorted({*task.values, *added})))


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
    differ = sum(truth.shape != result.shape for truth, result in zip(truths, results, strict=True)) - 1
    others = f" {differ} other image{'s differ' if differ > 1 else ' differs'}, too." if differ > 0 else ""
    for k, (name, truth, result) in enumerate(zip(names, truths, results, strict=True)):
        shapes = [("result", result.shape)]
        if probabilities is not None:
            shapes.append(("map of probabilities", probabilities[k].shape[1:]))
        for what, shape in shapes:
            if shape != truth.shape or truth.ndim != 2:
                raise InputError(
                    f"{name}: the truth is {_size(truth.shape)} pixels, the {what} {_size(shape)}. Both must be single "
                    f"images of one size: predict the image at the size at which it was annotated.{others}"
                )


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))

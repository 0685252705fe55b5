"""A finished model looks at images again: what it finds, how good that is, and where it is unsure.

Images that it was not trained on come first and alone. Only where there are none, those that it was trained on are
looked at, and the result says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Annotated, find_pairs, read_pairs
from ubend.data.formats import image_files, read_images
from ubend.errors import FileError
from ubend.method.geometry import smallest_input_for
from ubend.run.budget import middle_of
from ubend.run.disagreement import predict_with_disagreement
from ubend.run.evaluation import Evaluation, evaluate_arrays
from ubend.run.labels import predict_labels
from ubend.run.model import Model
from ubend.run.preparation import fingerprint

__all__ = ["Inspected", "Inspection", "Unlabelled", "inspect", "rank_unlabelled"]

MOST_IMAGES = 32
LARGEST_SIDE = 1024
"""Rows and columns of the middle of an image, beyond which it is not looked at."""
SIDES = (512, 384, 256)
"""The same where the time is limited: the largest with which there is time for some images."""
SOME = 3
_PROBE = 16


@dataclass(frozen=True, eq=False)
class Inspected:
    """One image, or its middle, as the model sees it.

    Attributes
    ----------
    name : str
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    truth, result : ndarray of int, shape (rows, columns)
    disagreement : ndarray of float32, shape (rows, columns)
        See `disagreement.disagreement_of`.
    whole : (int, int)
        Rows and columns of the whole image.
    score : float
        Of this image alone, by the headline of the task; nan where there is nothing to score.
    pixel_size : float or None
        Micrometres.
    """

    name: str
    image: NDArray[Any]
    truth: NDArray[np.int32]
    result: NDArray[np.integer[Any]]
    disagreement: NDArray[np.float32]
    whole: tuple[int, int]
    score: float
    pixel_size: float | None

    @property
    def unsure(self) -> float:
        """Mean disagreement over the pixels."""
        return float(self.disagreement.mean())


@dataclass(frozen=True, eq=False)
class Inspection:
    """What the model makes of some images.

    Attributes
    ----------
    images : tuple of Inspected
        At least one, in the order of the folder.
    evaluation : Evaluation
        Of all of them; of each the part that was looked at.
    trained_on : bool
        Whether the model was trained on these images: then their scores flatter.
    complete : bool
        Whether no image was left out, for want of time or because there are very many.
    """

    images: tuple[Inspected, ...]
    evaluation: Evaluation
    trained_on: bool
    complete: bool

    @property
    def ranked(self) -> list[Inspected]:
        """Images with something to score, the worst first."""
        return sorted((one for one in self.images if one.score == one.score), key=lambda one: one.score)


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """An image without labels, and how unsure the model is of it.

    Attributes
    ----------
    name : str
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    disagreement : ndarray of float32, shape (rows, columns)
    """

    name: str
    image: NDArray[Any]
    disagreement: NDArray[np.float32]

    @property
    def unsure(self) -> float:
        """Mean disagreement over the pixels."""
        return float(self.disagreement.mean())


def inspect(model: Model, data: str | Path, *, labels: str | None = None, seconds: float | None = None) -> Inspection:
    """Let a model look at the annotated images of a folder.

    Parameters
    ----------
    model : Model
    data : str or Path
        The folder it was trained on, or another with annotated images.
    labels : str, optional
        Name of the label folder, as in training.
    seconds : float, optional
        That it may take, about; one image is looked at in any case. Without it all images that were not trained on
        are looked at, up to 32.

    Returns
    -------
    Inspection

    Raises
    ------
    FileError, InputError
        If images and labels cannot be read or do not fit the model.
    """
    began = perf_counter()
    trained_on = False
    source = _annotated(model, data, labels, trained_on=False)
    first = next(source, None)
    if first is None:
        trained_on, source = True, _annotated(model, data, labels, trained_on=True)
        first = next(source, None)
    if first is None:
        raise FileError(f"{data} holds no annotated image")
    side = LARGEST_SIDE if seconds is None else _affordable_side(model, first, seconds)
    seen, longest = [_look(model, first, side)], 0.0
    complete = True
    for image in source:
        started = perf_counter()
        late = seconds is not None and started - began + longest > seconds
        if late or len(seen) == MOST_IMAGES:
            complete = False
            break
        seen.append(_look(model, image, side))
        longest = max(longest, perf_counter() - started)
    evaluation = evaluate_arrays(
        [one[0].labels for one in seen], [one[1] for one in seen], task=model.contract.task,
        names=[one[0].name for one in seen],
    )  # fmt: skip
    return Inspection(tuple(_with_scores(seen, evaluation)), evaluation, trained_on, complete)


def rank_unlabelled(model: Model, images: str | Path, *, most: int = MOST_IMAGES) -> list[Unlabelled]:
    """Rank images without labels by how unsure a model is of them, the least sure first.

    Parameters
    ----------
    model : Model
    images : str or Path
        A folder of images, or one.
    most : int
        Images that are looked at; of more, some from the whole folder, evenly.

    Returns
    -------
    list of Unlabelled

    Raises
    ------
    FileError, InputError
        If an image cannot be read or has other channels than the model.
    """
    files = image_files(images)
    chosen = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).astype(int))]
    found = []
    for path in chosen:
        picture = read_images(path)[0]
        rows, columns = middle_of(picture.pixels.shape, LARGEST_SIDE)
        _, disagreement = predict_with_disagreement(model, picture.pixels, rows=rows, columns=columns)
        found.append(Unlabelled(picture.name, picture.pixels[rows, columns], disagreement))
    return sorted(found, key=lambda one: -one.unsure)


_Looked = tuple[Annotated, NDArray[np.integer[Any]], NDArray[np.float32], tuple[int, int]]


def _annotated(model: Model, data: str | Path, labels: str | None, *, trained_on: bool) -> Iterator[Annotated]:
    """Read one image after the other, only those that were, or were not, trained on."""
    made = model.contract.provenance
    trained, held_out = made.get("images", {}), made.get("held_out", {})

    def was_trained_on(image: Annotated) -> bool:
        if image.name in trained or image.name in held_out:
            return image.name in trained
        return fingerprint(image) in trained.values()  # under another name

    for pair in find_pairs(data, labels=labels):
        if (pair.name in trained) is not trained_on and (pair.name in trained or pair.name in held_out):
            continue
        for image in read_pairs([pair]):
            if was_trained_on(image) is trained_on:
                yield image


def _affordable_side(model: Model, image: Annotated, seconds: float) -> int:
    """Choose the side by what the smallest tile of a network takes."""
    small, began = slice(0, _PROBE), 0.0
    one = Model(model.network, replace(model.contract, statistics="training"), device=str(model.device))
    for _ in range(2):  # the first time it is slower; what the whole image takes to be measured does not count
        began = perf_counter()
        predict_with_disagreement(one, image.image, rows=small, columns=small)
    depth, made = model.contract.network.depth, model.contract.provenance
    some = min(SOME, len(made.get("held_out", {})) or len(made.get("images", {})) or 1)
    a_pixel = (perf_counter() - began) / smallest_input_for(_PROBE, depth) ** 2
    rows, columns = image.labels.shape
    cost: Callable[[int], float] = lambda side: (  # noqa: E731
        a_pixel * smallest_input_for(min(side, rows), depth) * smallest_input_for(min(side, columns), depth)
    )
    return next((side for side in SIDES if some * cost(side) <= seconds), SIDES[-1])


def _look(model: Model, image: Annotated, side: int) -> _Looked:
    shape = image.labels.shape
    rows, columns = middle_of(shape, side)
    probabilities, disagreement = predict_with_disagreement(model, image.image, rows=rows, columns=columns)
    part = Annotated(image.name, image.image[rows, columns], image.labels[rows, columns], image.pixel_size)
    return part, predict_labels(model.contract, probabilities), disagreement, (shape[0], shape[1])


def _with_scores(seen: Sequence[_Looked], evaluation: Evaluation) -> Iterator[Inspected]:
    [headline] = [c.score.image_name for c in evaluation.columns if c.score.name == evaluation.headline]
    for (part, result, disagreement, whole), row in zip(seen, evaluation.rows, strict=True):
        yield Inspected(
            part.name, part.image, part.labels, result, disagreement, whole, row.scores[headline], part.pixel_size
        )

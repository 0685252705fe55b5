"""From annotated images to what the training loop takes: who is held out, the contract, targets and weights."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.data.annotated import Annotated, Task, class_indices, find_pairs, read_pairs
from ubend.data.tiles import TrainingImage, training_image
from ubend.errors import InputError, TrainingError
from ubend.method.augmentation import unevenness
from ubend.method.border_weight import border_weights, class_balance, falk2019_weights
from ubend.method.copy_paste import copy_paste
from ubend.method.network import check_input_size
from ubend.method.objects import ObjectRules
from ubend.method.relative_distance import relative_distance
from ubend.method.resampling import averaged, commonest
from ubend.method.touching import separate_touching
from ubend.run.batch_statistics import statistics_for
from ubend.run.contract import Contract
from ubend.run.drift import MOST_IMAGES, Reference, image_statistics, median_diameter, reference_of
from ubend.run.normalisation import Normalisation, channels_first, count, is_gray, not_finite
from ubend.run.recipe import EnergyConfig, Recipe

SPLIT_BY_DISTANCE, CERTAINTY = 0.2, 0.75
"""Dynamics of a learned distance at which objects are parted, and the probability that an object must reach on average,
unless the annotated images clearly say otherwise."""
MOST_HELD_OUT = 32
"""Images on which a run is validated at most."""
MOST_COPIED = 2**24
"""Values of images that are trained on once more with copies of their cells: few images are what these are for."""


def annotated_images(
    images: Sequence[NDArray[Any] | Annotated] | str | Path, labels: Sequence[NDArray[Any]] | str | None
) -> list[Annotated]:
    """Bring lists of arrays, or a folder, into one form.

    Raises
    ------
    InputError, FileError
        If images and labels do not belong together.
    """
    if isinstance(images, str | Path):
        if labels is not None and not isinstance(labels, str):
            raise InputError("with a folder of images, labels is the name of its label folder, not a list")
        return read_pairs(find_pairs(images, labels=labels))
    ready = [image for image in images if isinstance(image, Annotated)]
    if ready and len(ready) == len(images) and labels is None:
        return ready
    if labels is None or isinstance(labels, str) or len(labels) != len(images) or not len(images):
        came = "none" if labels is None else repr(labels) if isinstance(labels, str) else len(labels)
        raise InputError(f"every image needs its labels: {len(images)} images came, and {came} labels")
    found = []
    for number, (image, truth) in enumerate(zip(images, labels, strict=True)):
        pixels, truth = np.asarray(image), np.asarray(truth)
        if truth.ndim != 2 or truth.dtype.kind not in "bui":
            raise InputError(f"labels {number} must be integers (rows, columns), not {truth.dtype} {truth.shape}")
        if truth.shape not in (pixels.shape[:2], pixels.shape[-2:]):
            raise InputError(f"image {number} is {pixels.shape}, its labels are {truth.shape}: rows and columns differ")
        pixels = pixels if truth.shape == pixels.shape[:2] else np.moveaxis(pixels, 0, -1)
        found.append(Annotated(name=f"image {number}", image=pixels, labels=truth.astype(np.int32), pixel_size=None))
    return found


def hold_out(
    images: Sequence[Annotated], share: float, seed: int, *, few_values: bool = False
) -> tuple[list[Annotated], list[Annotated]]:
    """Part whole images into those to train on and those to validate on; never tiles of one image.

    Below three images none is held out, and one is always left to train on. With `few_values`, where labels are
    classes, an image with a class that no other image has is trained on. So is one whose pixels are those of another
    image that is trained on: its score would be none of an image that the model has not seen.
    """
    number = 0 if len(images) < 3 or share == 0 else max(1, round(share * len(images)))
    if number == 0:
        return list(images), []
    number = min(number, MOST_HELD_OUT, len(images) - 1)
    order = np.random.default_rng((seed, 1)).permutation(len(images))
    held = set(order[:number].tolist())
    seen = {int(v) for i, image in enumerate(images) if i not in held for v in np.unique(image.labels)}
    for i in sorted(held):  # a class that only one image has is to be learnt
        values = {int(v) for v in np.unique(images[i].labels)}
        if few_values and not values <= seen:
            held.discard(i)
            seen |= values
    for members in same_pixels(images):
        if not held.issuperset(members):
            held.difference_update(members)
    return [image for i, image in enumerate(images) if i not in held], [images[i] for i in sorted(held)]


def still_held_out(images: Sequence[Annotated], start: Contract) -> tuple[list[Annotated], list[Annotated]]:
    """Part images into those to train on from a model, and those that it has not seen: what it held out, by name."""
    trained, held_out = (start.provenance.get(key, {}) for key in ("images", "held_out"))
    unseen = [image.name in held_out and fingerprint(image) not in trained.values() for image in images]
    if all(unseen):
        raise InputError("the model to start from has held out all of these images: bring others to train on")
    parts = [[image for image, new in zip(images, unseen, strict=True) if new is held] for held in (False, True)]
    return parts[0], parts[1]


def like_before(recipe: Recipe, start: Contract, images: Sequence[Annotated], task: Task) -> Recipe:
    """Give a recipe the network and the normalisation of a model to start from.

    Raises
    ------
    InputError
        If the model was trained for other channels or labels.
    """
    channels, then = count_channels(images), start.network.in_channels
    if channels != then:
        raise InputError(f"the model to start from takes {then} channels, these images have {channels}: train anew")
    now, before = ((of.kind, () if of.kind == "instances" else of.values) for of in (task, start.task))
    if now != before:
        was, came = (f"{kind} {', '.join(map(str, values))}".strip() for kind, values in (before, now))
        raise InputError(f"the model to start from was trained on labels that are {was}, these are {came}: train anew")
    energy = recipe.energy
    if task.kind == "instances" and (energy.distance > 0) is not start.learns_distance:
        raise InputError("the model to start from and the recipe differ in whether the distance is learned: train anew")
    return replace(
        recipe,
        network=start.network,
        budget=replace(recipe.budget, width=False, depth=False, coarse=False),
        prediction=replace(recipe.prediction, normalisation=start.normalisation.kind, statistics=start.statistics),
    )


def same_pixels(images: Sequence[Annotated]) -> list[list[int]]:
    """Group the numbers of images whose pixels are equal; only images that look alike at some pixels are hashed."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, image in enumerate(images):
        pixels = image.image
        some = pixels[:: max(1, pixels.shape[0] // 16), :: max(1, pixels.shape[1] // 16)]
        alike.setdefault((pixels.shape, pixels.dtype.str, some.tobytes()), []).append(number)
    groups: dict[tuple[int, bytes], list[int]] = {}
    for members in alike.values():
        for number in members:
            whole = hashlib.sha256(images[number].image.tobytes()).digest() if len(members) > 1 else b""
            groups.setdefault((members[0], whole), []).append(number)
    return sorted(groups.values())


def make_contract(recipe: Recipe, task: Task, images: Sequence[Annotated]) -> Contract:
    """Settle with the data what the recipe leaves open: channels, classes, smallest object, pixel size."""
    channels = count_channels(images)
    network = replace(recipe.network, in_channels=channels, classes=count_maps(recipe, task))
    check_input_size(network.core, recipe.tiles.size, recipe.tiles.size)
    colour = channels == 3 and all(image.image.dtype == np.uint8 for image in images)
    sizes = {image.pixel_size for image in images if image.pixel_size}
    areas = [_areas(class_indices(image.labels, task)) for image in images] if task.kind == "instances" else []
    return Contract(
        network=network,
        task=task,
        normalisation=Normalisation(kind=recipe.prediction.normalisation, together=colour),
        views=recipe.prediction.views,
        statistics=statistics_for(recipe),
        objects=_object_rules(images, task, recipe.energy, network.coarse),
        pixel_size=float(np.median(list(sizes))) if sizes else None,
        channel_names=_channel_names(images, channels),
        class_names=_class_names(images, task),
        reference=_reference(images, channels, areas),
        recipe=recipe,
    )


def _channel_names(images: Sequence[Annotated], channels: int) -> tuple[str, ...]:
    """Names that the images have in common; of gray images that were saved as colour there are none."""
    named = {image.channel_names for image in images if len(image.channel_names) == channels}
    return named.pop() if len(named) == 1 else ()


def _class_names(images: Sequence[Annotated], task: Task) -> tuple[str, ...]:
    known = dict(images[0].class_names)
    return tuple(known[value] for value in task.values) if set(task.values) <= known.keys() else ()


def _reference(images: Sequence[Annotated], channels: int, areas: Sequence[NDArray[np.integer]]) -> Reference:
    """Say what images look like, of many of them some, and how large their objects are."""
    chosen = images[:: -(-len(images) // MOST_IMAGES)]
    diameters = map(median_diameter, areas)
    return reference_of(
        [image_statistics(channels_first(image.image, channels)) for image in chosen],
        [diameter for diameter in diameters if diameter is not None],
    )


def count_maps(recipe: Recipe, task: Task) -> int:
    """Count the maps that the network gives: its classes, and the distance where it is learned."""
    return 2 + (recipe.energy.distance > 0) if task.kind == "instances" else len(task.values)


def check_finite(images: Sequence[Annotated]) -> None:
    """Raise TrainingError if an image holds NaN or infinite values: one pixel of them would spoil all weights."""
    for image in images:
        if not_finite(image.image):
            raise TrainingError(
                f"{image.name} is NaN or infinite at {count(not_finite(image.image), 'place')}; "
                f"put numbers there, for example 0, or leave the image out"
            )


def count_channels(images: Sequence[Annotated]) -> int:
    """Count the channels that all images have; gray images saved as colour count as gray if all are gray.

    Raises
    ------
    InputError
        If the numbers differ.
    """
    gray = all(i.image.ndim == 2 or (i.image.shape[-1] in (3, 4) and is_gray(i.image)) for i in images)
    numbers: dict[int, str] = {}
    for image in images:
        numbers.setdefault(1 if gray or image.image.ndim == 2 else image.image.shape[-1], image.name)
    if len(numbers) > 1:
        said = " and ".join(f"{number} ({name})" for number, name in sorted(numbers.items()))
        raise InputError(f"the images have different numbers of channels: {said}; train one model for each kind")
    return int(next(iter(numbers)))


def _object_rules(images: Sequence[Annotated], task: Task, energy: EnergyConfig, coarse: int) -> ObjectRules:
    """Start from the annotation: specks are below half of what its smallest twentieth measures without the gap.

    So small an object overlaps none of the others by an IoU of 0.5. The gap that is given back is that which was cut,
    and a coarse network cuts it from averaged pixels.
    Without a learned distance nothing else is done to what the network has found, as in the paper.
    """
    if task.kind != "instances":
        return ObjectRules()
    gap = energy.gap << coarse
    areas = np.concatenate([_areas(separate_touching(class_indices(one.labels, task), gap=gap)) for one in images])
    smallest = int(np.quantile(areas, 0.05) / 2) if areas.size else 0
    split, certainty = (SPLIT_BY_DISTANCE, CERTAINTY) if energy.distance > 0 else (0.0, 0.0)
    return ObjectRules(gap=gap, smallest=smallest, certainty=certainty, split=split)


def _areas(objects: NDArray[np.int32]) -> NDArray[np.integer]:
    if objects.max(initial=0) > objects.size:
        return np.unique(objects[objects > 0], return_counts=True)[1]
    areas = np.bincount(np.maximum(objects, 0).ravel())[1:]
    return areas[areas > 0]


def prepare(
    images: Sequence[Annotated],
    contract: Contract,
    parts: Sequence[tuple[int, slice, slice]] | None = None,
    *,
    check: bool = True,
) -> list[TrainingImage]:
    """Make targets and weights of all images; class frequencies are counted over all of them.

    Where the network is coarse, all this is of images that are averaged, and labels that are thinned out, as much.
    With `parts`, (number of an image, rows, columns), only of these; each keeps the normalisation of its whole image.
    For haze, the background is what is no object, and of two labels the lower one.
    With `check`, it is an InputError if there is nothing to tell apart.
    """
    energy, task, coarse = contract.recipe.energy, contract.task, contract.network.coarse
    if parts is None:
        parts = [(number, slice(None), slice(None)) for number in range(len(images))]
    indices_of = [
        commonest(class_indices(images[number].labels[rows, columns], task), coarse) for number, rows, columns in parts
    ]
    targets = [target_classes(indices, task, gap=energy.gap) for indices in indices_of]
    balance = np.ones(2 if task.kind == "instances" else contract.network.classes)
    pixels_of = np.sum([np.bincount(t[t >= 0], minlength=balance.size) for t in targets], axis=0)
    if check:
        _check_something_to_tell_apart(pixels_of, task)
    if energy.balance == "frequency":
        balance = class_balance(pixels_of)
    prepared = []
    for (number, rows, columns), indices, target in zip(parts, indices_of, targets, strict=True):
        pixels = channels_first(images[number].image, contract.network.in_channels)
        offset, gain = contract.normalisation.offset_and_gain(pixels)
        weights = _weights(indices, target, contract, balance)
        distance = relative_distance(indices) if contract.learns_distance else None
        seen = averaged(pixels[:, rows, columns], coarse)
        uneven = 0.0
        if contract.recipe.augmentation.haze and task.kind != "classes":  # of classes none is the background
            uneven = unevenness(seen, indices)
        prepared.append(training_image(seen, target, weights, distance, offset=offset, gain=gain, unevenness=uneven))
    return prepared


def count_copies(images: Sequence[Annotated], recipe: Recipe, task: Task, pixels: float = math.inf) -> int:
    """Count the copies of images that `with_copies` adds; they have about so many pixels at most, and `MOST_COPIED`."""
    if task.kind != "instances" or recipe.augmentation.copies == 0:
        return 0
    of_all, values = sum(image.labels.size for image in images), sum(image.image.size for image in images)
    turns = min(pixels / of_all, MOST_COPIED / values, recipe.augmentation.copies)
    return int(turns * len(images))


def with_copies(images: Sequence[Annotated], number: int, task: Task, seed: int) -> list[Annotated]:
    """Add images once more, each in turn, with copies of their cells beside others where there is room."""
    found = list(images)
    for copy in range(number):
        image = images[copy * max(len(images) // number, 1) % len(images)]  # of many images some, all over the list
        pixels = image.image[None] if image.image.ndim == 2 else np.moveaxis(image.image, -1, 0)
        labels = class_indices(image.labels, task)
        pasted = copy_paste(pixels, labels, np.random.default_rng((seed, copy, 0, 2)))  # 4 numbers: no stream of a tile
        if pasted is not None:
            seen = pasted[0][0] if image.image.ndim == 2 else np.moveaxis(pasted[0], 0, -1)
            numbers = pasted[1]
            if task.ignore_label is not None:  # no copy is what nobody labelled
                numbers[numbers == task.ignore_label] = numbers.max() + 1
            found.append(replace(image, image=seen, labels=numbers))
    return found


def _check_something_to_tell_apart(pixels_of: NDArray[np.int64], task: Task) -> None:
    present = np.flatnonzero(pixels_of)
    if present.size == 0:
        raise InputError("not one pixel of the images to train on is labelled: there is nothing to learn from")
    if present.size == 1:
        name = ("background", "objects")[present[0]] if task.kind == "instances" else f"label {task.values[present[0]]}"
        raise InputError(
            f"all labelled pixels of the images to train on are {name}: there is nothing to tell apart; "
            f"add images that show the other, or another seed to hold out other images"
        )


def target_classes(indices: NDArray[np.int32], task: Task, *, gap: int) -> NDArray[np.int32]:
    """Class of each pixel that the network is to learn; negative where not labelled.

    Instances become foreground 1, with a gap of background 0 between touching cells.
    """
    if task.kind != "instances":
        return indices
    separated = separate_touching(indices, gap=gap)
    return np.where(indices < 0, -1, separated > 0).astype(np.int32)


def _weights(
    indices: NDArray[np.int32], target: NDArray[np.int32], contract: Contract, balance: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    """w(x) of Eq. 2. In a binary image the connected pieces of the foreground are the cells."""
    energy, task = contract.recipe.energy, contract.task
    later = energy.formula == "falk2019"
    if task.kind == "classes" or (energy.w0 == 0 and not later):
        return None if (balance == 1).all() else np.where(target < 0, 0, balance[target]).astype(np.float32)
    cells, gap = indices, energy.gap
    if task.kind == "binary":
        cells, gap = ndimage.label(indices > 0)[0].astype(np.int32), 0
        cells[indices < 0] = -1
    if later:
        return falk2019_weights(cells, gap=gap)
    return border_weights(
        cells,
        w0=energy.w0,
        sigma=energy.sigma,
        gap=gap,
        class_weights=(float(balance[0]), float(balance[1])),
        border_on=energy.border_on,
    )


def fingerprint(image: Annotated) -> str:
    """Short hash of the pixels and labels of an image, to recognise it again."""
    digest = hashlib.sha256(np.ascontiguousarray(image.image).tobytes())
    digest.update(np.ascontiguousarray(image.labels).tobytes())
    return digest.hexdigest()[:16]

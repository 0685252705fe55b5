"""Folds: every annotated image is once held out, so that all of them say how good a model is.

Whole images are dealt into K folds. For each fold a network is trained on the images of the others and predicts those
of the fold; then the model itself is trained on all images. What it states are the scores of the K networks on images
that they have not seen. The model has seen more images than each of them, so it tends to be a little better than it
says.

The results of all images together also choose how foreground becomes objects. A score is never that of rules that were
chosen on the image that is scored: those of a fold come from the other folds.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ubend.data.annotated import Annotated, Task, class_indices
from ubend.errors import InputError
from ubend.method.network import UNet
from ubend.method.objects import ObjectRules
from ubend.run.clock import Clock
from ubend.run.contract import Contract
from ubend.run.evaluation import Evaluation, evaluate_arrays
from ubend.run.labels import predict_labels
from ubend.run.normalisation import count
from ubend.run.prediction import predict_probabilities
from ubend.run.preparation import make_contract, same_pixels
from ubend.run.validation import MOST_TUNED_ON, best_rules, match, mean_precisions, probabilities_of
from ubend.scores import cells

LEAVE_ONE_OUT_BELOW = 5
"""Images below which each is a fold of its own."""
CHOOSING_SHARE = 0.3
"""Of one training's minutes, what choosing the rules for objects on all images may take."""
_TRIES = 20
"""Deals that are drawn until one leaves no fold alone with a class."""
_CALIBRATED_ON = 512
"""Rows and columns of the part of an image on which the time of predictions is measured."""


@dataclass(frozen=True)
class Dealt:
    """Which image is in which fold.

    Attributes
    ----------
    number : int
        Of folds.
    fold_of : tuple of int
        For each image its fold, 1 to `number`.
    notes : tuple of str
        What a person should know, a sentence each: why there are other folds than asked for, which class only one
        image has.
    """

    number: int
    fold_of: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def parted(self, images: Sequence[Annotated], fold: int) -> tuple[list[Annotated], list[Annotated]]:
        """Return the images of the other folds, and those of this one."""
        pairs = list(zip(images, self.fold_of, strict=True))
        return [image for image, of in pairs if of != fold], [image for image, of in pairs if of == fold]


@dataclass(frozen=True, eq=False)
class FoldsState:
    """How far the folds are; given to `on_folds` before the first, after each, and when all images are scored.

    Attributes
    ----------
    dealt : Dealt
    done : int
        Folds that are done.
    of_fold : Evaluation or None
        Of the images of the fold just done, by the rules for objects before any were chosen.
    of_all : Evaluation or None
        Of all images, when all folds are done: what the model states.
    """

    dealt: Dealt
    done: int = 0
    of_fold: Evaluation | None = None
    of_all: Evaluation | None = None


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What the folds say.

    Attributes
    ----------
    evaluation : Evaluation
        Of all images, each by a network that has not seen it, and for objects by rules chosen on other folds.
    rules : ObjectRules
        For objects, chosen on all images.
    """

    evaluation: Evaluation
    rules: ObjectRules


OnFolds = Callable[[FoldsState], None]
TrainOne = Callable[[Sequence[Annotated], Contract, int], UNet]
"""Trains a network on images for a contract; the number is that of the training, from 1."""


def deal(images: Sequence[Annotated], task: Task, folds: int, *, seed: int) -> Dealt:
    """Deal whole images into folds of equal size, so that a class is spread over them.

    Images whose pixels are the same are kept together: in two folds, one would tell of the other.

    Parameters
    ----------
    images : sequence of Annotated
    task : Task
        What their labels mean.
    folds : int
        How many; of fewer than five images each is a fold, and there are never more folds than images.
    seed : int
        The same images, folds and seed are dealt alike.

    Raises
    ------
    InputError
        If there are fewer than two folds, or than two different images, or if without some image nothing is left to
        tell apart.

    Examples
    --------
    >>> ground = np.arange(16).reshape(4, 4) % 2
    >>> images = [Annotated(f"{k}", ground + k, ground.astype(np.int32), None) for k in range(6)]
    >>> dealt = deal(images, Task("binary", (0, 1), None), 3, seed=0)
    >>> dealt.number, sorted(dealt.fold_of)
    (3, [1, 1, 2, 2, 3, 3])
    """
    if folds < 2:
        raise InputError(f"there are at least 2 folds, not {folds}: each image is held out by one, and seen by others")
    same = same_pixels(images)
    if len(same) < 2:
        came = "one image" if len(images) == 1 else f"{len(images)} images that are all the same"
        raise InputError(
            f"folds hold out whole images, and with {came} nothing would be left to train on: "
            f"annotate a second image, or train without folds"
        )
    notes = []
    number = len(same) if len(same) < LEAVE_ONE_OUT_BELOW else min(folds, len(same))
    if len(same) < len(images):
        alike = [images[members[0]].name for members in same if len(members) > 1]
        notes.append(f"The same pixels come more than once ({', '.join(alike[:3])}, …): kept in one fold.")
    if len(same) < LEAVE_ONE_OUT_BELOW:
        notes.append(f"Of fewer than {LEAVE_ONE_OUT_BELOW} images each is a fold: leave-one-out, {number} folds.")
    elif number < folds:
        notes.append(f"There are {len(same)} images, so {number} folds of one image each, not {folds}.")
    present = [classes_shown([images[k] for k in members], task) for members in same]
    fold_of_group = _spread(present, number, np.random.default_rng((seed, 2)))
    _check_left_to_tell_apart([images[members[0]].name for members in same], present, fold_of_group)
    notes += _alone(present, task)
    fold_of = np.zeros(len(images), int)
    for fold, members in zip(fold_of_group, same, strict=True):
        fold_of[members] = fold
    return Dealt(number, tuple(fold_of.tolist()), tuple(notes))


def classes_shown(images: Sequence[Annotated], task: Task) -> frozenset[int]:
    """Classes that the images show; of single objects background 0 and foreground 1."""
    classes = np.concatenate([np.unique(class_indices(image.labels, task)) for image in images])
    if task.kind == "instances":
        classes = np.minimum(classes, 1)
    return frozenset(classes[classes >= 0].tolist())


def _spread(present: Sequence[frozenset[int]], number: int, rng: np.random.Generator) -> list[int]:
    """Deal several times, and take the first deal that leaves no class in one fold alone, or else the best."""
    best: list[int] = []
    fewest = len(present) * number + 1
    for _ in range(_TRIES):
        dealt = _deal_once(present, number, rng)
        folds_with: dict[int, set[int]] = {}
        images_with = Counter(c for classes in present for c in classes)
        for classes, fold in zip(present, dealt, strict=True):
            for c in classes:
                folds_with.setdefault(c, set()).add(fold)
        alone = sum(len(folds) == 1 and images_with[c] > 1 for c, folds in folds_with.items())
        if alone < fewest:
            best, fewest = dealt, alone
        if fewest == 0:
            break
    return best


def _deal_once(present: Sequence[frozenset[int]], number: int, rng: np.random.Generator) -> list[int]:
    """Deal images with the rarest classes first, each into the fold that has the fewest of them."""
    images_with = Counter(c for classes in present for c in classes)
    rarest_first = [sorted(classes, key=lambda c: (images_with[c], c)) for classes in present]
    room = [len(present) // number + (fold < len(present) % number) for fold in range(number)]
    seen: list[Counter[int]] = [Counter() for _ in range(number)]
    dealt = [0] * len(present)
    order = rng.permutation(len(present)).tolist()
    for image in sorted(order, key=lambda k: images_with[rarest_first[k][0]] if rarest_first[k] else len(present)):
        classes = rarest_first[image]
        fold = min(
            (fold for fold in range(number) if room[fold] > 0),
            key=lambda fold: (*(seen[fold][c] for c in classes), -room[fold], fold),
        )
        dealt[image] = fold + 1
        room[fold] -= 1
        seen[fold].update(classes)
    return dealt


def _check_left_to_tell_apart(names: Sequence[str], present: Sequence[frozenset[int]], fold_of: Sequence[int]) -> None:
    """Refuse before hours of training what would end in "nothing to tell apart"."""
    for fold in sorted(set(fold_of)):
        left: set[int] = set().union(*(classes for classes, of in zip(present, fold_of, strict=True) if of != fold))
        if len(left) < 2:
            held = [name for name, of in zip(names, fold_of, strict=True) if of == fold]
            raise InputError(
                f"without {', '.join(held[:3])} the other images show {count(len(left), 'label')} and nothing to tell "
                f"it from: annotate more images that show what is to be found, or train without folds"
            )


def _alone(present: Sequence[frozenset[int]], task: Task) -> list[str]:
    images_with = Counter(c for classes in present for c in classes)
    alone = [str(task.values[c]) for c, images in sorted(images_with.items()) if images == 1 and task.values]
    if not alone:
        return []
    which = f"The label {alone[0]} is" if len(alone) == 1 else f"The labels {', '.join(alone)} are"
    return [f"{which} in one image only: whoever is scored on that image has never seen it, so expect a low score."]


@dataclass
class SharedTime:
    """The time of one command, shared evenly by its trainings; each ends early enough for its predictions.

    Attributes
    ----------
    clock : Clock
        Of the command.
    minutes : float
        Of each training; 0 if steps are counted instead.
    seconds_a_pixel : float
        That the predictions after a training take; measured.
    chooses_again : bool
        Whether the run goes on behind the folds, so that the time for choosing the rules is over by the clock.
    """

    clock: Clock
    minutes: float
    seconds_a_pixel: float = 0.0
    chooses_again: bool = False
    _chooses_since: float = field(init=False, default=math.nan)

    def clock_of(self, number: int, pixels: int = 0) -> Clock:
        """Return a clock for training `number`, from 1, which is taken to have begun so that it ends on time.

        What others took too much is taken from it, but never more than half.

        Parameters
        ----------
        number : int
        pixels : int
            That are predicted after it.
        """
        now, each = self.clock.now(), 60 * self.minutes
        planned = self.clock.start - self.clock.reserved + (number - 1) * each - pixels * self.seconds_a_pixel
        return Clock(self.clock.now, min(now, max(planned, now - each / 2)) if each else now)

    def left_to_choose(self, folds: int) -> float:
        """Seconds that choosing the rules after all folds may still take, so that the model keeps most of its own."""
        if not self.minutes:
            return math.inf
        if math.isnan(self._chooses_since):
            self._chooses_since = self.clock.now()
        end_of_folds = self._chooses_since if self.chooses_again else self.clock.start + 60 * self.minutes * folds
        return end_of_folds + 60 * self.minutes * CHOOSING_SHARE - self.clock.now()

    def calibrate(self, contract: Contract, image: Annotated, device: torch.device, *, views: str) -> None:
        """Measure on a part of an image, with a network that has learnt nothing, what predictions will take."""
        if self.minutes:
            part = image.image[:_CALIBRATED_ON, :_CALIBRATED_ON]
            with torch.random.fork_rng(devices=[]):
                network = UNet(contract.network)
            network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            predict_probabilities(network, contract, part, views="one")  # the first takes longer
            began = self.clock.now()
            predict_probabilities(network, contract, part, views=views)
            self.measured(began, part.shape[0] * part.shape[1])

    def measured(self, began: float, pixels: int) -> None:
        """Remember what predictions took that began at `began` and end now."""
        self.seconds_a_pixel = (self.clock.now() - began) / pixels


def contract_for(images: Sequence[Annotated], whole: Contract) -> Contract:
    """Settle what some of the images leave open; network and normalisation are those of all of them."""
    of_these = make_contract(whole.recipe, whole.task, images)
    return replace(of_these, network=whole.network, normalisation=whole.normalisation)


def out_of_fold(
    images: Sequence[Annotated],
    dealt: Dealt,
    contract: Contract,
    *,
    train_one: TrainOne,
    shared: SharedTime,
    on_folds: OnFolds | None = None,
) -> OutOfFold:
    """Train a network for every fold, and score each image by the one that has not seen it.

    Parameters
    ----------
    images : sequence of Annotated
    dealt : Dealt
        From `deal`.
    contract : Contract
        For all images.
    train_one : callable
        Trains a network.
    shared : SharedTime
        Is told how long predictions take.
    on_folds : callable, optional
        Called with a `FoldsState` after each fold, and when all images are scored.

    Returns
    -------
    OutOfFold
    """
    counts_objects = contract.task.kind == "instances"
    found: dict[int, NDArray[Any]] = {}
    start_rules: dict[int, ObjectRules] = {}
    numbers = range(len(images))
    for fold in range(1, dealt.number + 1):
        others, held = dealt.parted(images, fold)
        of_fold = contract_for(others, contract)
        start_rules[fold] = of_fold.objects
        net = train_one(others, of_fold, fold)
        began = shared.clock.now()
        labels = []
        for number in (k for k in numbers if dealt.fold_of[k] == fold):
            [maps] = probabilities_of(net, [images[number]], of_fold, views=of_fold.views)
            labels.append(predict_labels(of_fold, maps))
            # float16: 4 bytes a pixel are less than what training holds of each image
            found[number] = maps[1:].astype(np.float16) if counts_objects else labels[-1]
        shared.measured(began, sum(image.labels.size for image in held))
        if on_folds is not None:
            on_folds(FoldsState(dealt, fold, of_fold=_evaluate(held, labels, contract)))
    if counts_objects:
        left = lambda: shared.left_to_choose(dealt.number)  # noqa: E731
        results, rules = _objects_out_of_fold(images, found, dealt, contract, start_rules, left)
    else:
        results, rules = [found[number] for number in numbers], contract.objects
    evaluation = _evaluate(images, results, contract)
    if on_folds is not None:
        on_folds(FoldsState(dealt, dealt.number, of_all=evaluation))
    return OutOfFold(evaluation, rules)


def described(images: Sequence[Annotated], dealt: Dealt, found: OutOfFold) -> dict[str, Any]:
    """Say where the quality of a model came from, for its provenance."""
    return {
        "number": dealt.number,
        "of": {image.name: fold for image, fold in zip(images, dealt.fold_of, strict=True)},
        "intervals": {name: list(ends) for name, ends in found.evaluation.intervals.items() if ends is not None},
    }


def _evaluate(images: Sequence[Annotated], labels: Sequence[NDArray[Any]], contract: Contract) -> Evaluation:
    return evaluate_arrays(
        [image.labels for image in images], labels, task=contract.task, names=[image.name for image in images]
    )


def _objects_out_of_fold(
    images: Sequence[Annotated],
    maps: dict[int, NDArray[Any]],
    dealt: Dealt,
    contract: Contract,
    start_rules: dict[int, ObjectRules],
    seconds_left: Callable[[], float],
) -> tuple[list[NDArray[Any]], ObjectRules]:
    """Label the images of each fold by rules chosen on the other folds; and choose rules on all images.

    The rules of all come first: what they have tried, the folds need not work out again. Where `seconds_left` are too
    few for one more choice, those so far count.
    """
    known: dict[tuple[int, ObjectRules], tuple[cells.Matching, ...]] = {}
    tuned_on = _tuned_on(images, dealt)

    def labelled(number: int, rules: ObjectRules) -> NDArray[Any]:
        foreground = maps[number].astype(np.float32)
        return predict_labels(contract, np.concatenate([1 - foreground[:1], foreground]), objects=rules)

    def matched(number: int, rules: ObjectRules) -> tuple[cells.Matching, ...]:
        if (number, rules) not in known:
            truth = class_indices(images[number].labels, contract.task)
            known[number, rules] = match(truth, labelled(number, rules))
        return known[number, rules]

    def chosen(numbers: Sequence[int], start: ObjectRules) -> ObjectRules:
        """Start from round numbers, so that the folds try the same rules, which are then worked out once."""
        score = lambda rules: mean_precisions([matched(number, rules) for number in numbers])  # noqa: E731
        start = replace(start, smallest=_rounded(start.smallest))
        objects = sum(matched(number, start)[0].n_truth for number in numbers)
        return best_rules(start, contract, score, objects=objects, seconds_left=seconds_left)

    of_all = chosen(tuned_on, contract.objects)
    results: list[NDArray[Any]] = [np.empty(0)] * len(images)
    for fold in range(1, dealt.number + 1):
        rules = chosen([k for k in tuned_on if dealt.fold_of[k] != fold], start_rules[fold])
        for number in range(len(images)):
            if dealt.fold_of[number] == fold:
                results[number] = labelled(number, rules)
    return results, of_all


def _tuned_on(images: Sequence[Annotated], dealt: Dealt) -> list[int]:
    """Take images from all folds in turn until they are enough to choose rules on."""
    places = Counter[int]()
    turn = []
    for number, fold in enumerate(dealt.fold_of):
        turn.append((places[fold], fold, number))
        places[fold] += 1
    taken: list[int] = []
    pixels = 0
    for place, _, number in sorted(turn):
        pixels += images[number].labels.size
        if place > 0 and pixels > MOST_TUNED_ON:
            break
        taken.append(number)
    return taken


def _rounded(pixels: int) -> int:
    """Round down to 1, 2, 3, 4, 6, 8, 12, 16, 24, …"""
    if pixels < 4:
        return pixels
    half = 1 << (pixels.bit_length() - 2)
    return pixels // half * half

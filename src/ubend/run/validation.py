"""How a model does on whole images that it was not trained on, and what to settle there."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Annotated, class_indices
from ubend.errors import TrainingError
from ubend.method.network import UNet, for_prediction
from ubend.method.objects import ObjectRules
from ubend.run.batch_statistics import adapts, on_device_of
from ubend.run.contract import Contract
from ubend.run.evaluation import Evaluation, evaluate_arrays
from ubend.run.labels import predict_labels
from ubend.run.prediction import VIEWS, Views, predict_probabilities
from ubend.scores import cells

SPLITS = (0.0, 0.75, 1.5, 3.0)
SPLITS_OF_DISTANCE = (0.2, 0.15, 0.1, 0.3, 0.05, 0.0)
THRESHOLDS = (0.5, 0.3, 0.4, 0.6, 0.7, 0.8)
"""What is tried on the held-out images; of equals the first is taken."""
ONE_IMAGE_WORTH, OBJECTS_WORTH, MOST_WORTH, LEAST_WORTH = 0.1, 2, 0.2, 0.01
"""By how much a choice must be better to be taken: on one image, on more the less as the root of their number; of how
many objects that is the score; at most; and without any one image. Less is chance: see docs/benchmarks.md, "How few
images choose rules for objects"."""
ENOUGH = 0.2
"""Score below which a choice must be better by less, in proportion: rules that find nothing are worth nothing."""
MOST_TUNED_ON = 2**22
"""Pixels of all images beyond which `tune_objects` takes no more of them."""
IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""A choice is judged by the mean over these of the average precision: it tells more than one threshold does."""


def validate(net: UNet, held_out: Sequence[Annotated], contract: Contract) -> Evaluation:
    """Score a network on whole images that it was not trained on, from one view each."""
    return _score(probabilities_of(net, held_out, contract), held_out, contract)


def tune_objects(
    net: UNet,
    held_out: Sequence[Annotated],
    contract: Contract,
    *,
    scored: Mapping[str, int] = MappingProxyType({}),
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> Contract:
    """Choose on held-out images how foreground becomes objects: one rule after the other, each best for those before.

    Images that were trained on have no say, for the network is surer of them than of any other. A choice is only left
    for one that is clearly better, and not by one image alone; and that objects are larger than the annotation shows is
    never concluded: a handful of images is too little to know how small an object may be. Where `seconds_left` are too
    few for one more image or choice, those so far count.

    The images named in `scored`, with the pixels of each, are scored as the model will predict: in all its views, by
    these rules. That flatters a little, for a handful of rules was chosen on them too; a score of one view and of the
    rules before the choice is that of another model, and often of a far worse one. So the first image is looked at
    also when time is up.

    Returns
    -------
    Contract
        With the rules of the best score, its quality on what was looked at of the images in `scored`, and the share of
        their pixels in its provenance; the same contract if no objects are counted, or no image was held out.
    """
    if contract.task.kind != "instances" or not held_out:
        return contract
    images, slowest = tuned_on(held_out, contract), 0.0
    probabilities: list[NDArray[np.float32]] = []
    for image in images:
        if probabilities and seconds_left() < slowest:
            break
        began = perf_counter()
        probabilities += probabilities_of(net, [image], contract, views=contract.views)  # as when it counts
        slowest = max(slowest, perf_counter() - began)
    truths = [class_indices(image.labels, contract.task) for image in images[: len(probabilities)]]

    def score(rules: ObjectRules) -> tuple[float, ...]:
        candidate = replace(contract, objects=rules)
        results = (predict_labels(candidate, p) for p in probabilities)
        return mean_precisions([match(truth, result) for truth, result in zip(truths, results, strict=True)])

    objects = sum(np.unique(truth[truth > 0]).size for truth in truths)
    rules = best_rules(contract.objects, contract, score, objects=objects, seconds_left=seconds_left)
    chosen = replace(contract, objects=rules)
    looked_at = [(image, p) for image, p in zip(images, probabilities, strict=False) if image.name in scored]
    if not looked_at:
        return chosen
    evaluation = _score([p for _, p in looked_at], [image for image, _ in looked_at], chosen)
    share = sum(image.labels.size for image, _ in looked_at) / sum(scored.values())
    told = {"scored": "as it predicts", "scored_share": round(share, 4)}
    return replace(chosen, quality=dict(evaluation.overall), provenance=chosen.provenance | told)


def best_rules(
    start: ObjectRules,
    contract: Contract,
    score: Callable[[ObjectRules], tuple[float, ...]],
    *,
    objects: int,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> ObjectRules:
    """Choose one rule after the other, each best for those before; of equals the one at the start is left.

    Where the score is that of few images or `objects`, a choice must be better by more: by 0.1 over the root of the
    number of images, and by about two of the objects; by less where the rules so far find little, so that of rules that
    find nothing any others are better. And it must be better whichever image is left out, or no worse where nothing is
    found, as `score` says in the way of `mean_precisions`: of two images, of which one leaves nothing to be wished for,
    nothing is learned.
    """
    began = perf_counter()
    best, best_score = start, score(start)
    slowest = perf_counter() - began
    images = max(1, len(best_score) - 1)
    worth = min(max(ONE_IMAGE_WORTH / math.sqrt(images), OBJECTS_WORTH / max(1, objects)), MOST_WORTH)
    for name, values in _choices(best, SPLITS_OF_DISTANCE if contract.learns_distance else SPLITS):
        start_score = best_score
        for value in values:
            if seconds_left() < slowest:
                return best
            candidate = replace(best, **{name: value})
            found = score(candidate) if candidate != best else best_score
            everywhere = all(map(operator.ge, found[1:], (_better(one, LEAST_WORTH) for one in start_score[1:])))
            if found[0] > max(best_score[0], _better(start_score[0], worth)) and everywhere:
                best, best_score = candidate, found
    return best


def _better(score: float, worth: float) -> float:
    """Score that a choice must reach to be better than this one."""
    return score + worth * min(1.0, score / ENOUGH)


def tuned_on(held_out: Sequence[Annotated], contract: Contract) -> list[Annotated]:
    """Take the images that `tune_objects` needs: none, or the first up to four megapixels."""
    if contract.task.kind != "instances" or not held_out:
        return []
    pixels = np.cumsum([image.labels.size for image in held_out])
    return list(held_out[: max(1, int(np.searchsorted(pixels, MOST_TUNED_ON, side="right")))])


def tuning_cost(net: UNet, image: Annotated, contract: Contract) -> float:
    """Rehearse one view and one choice of `tune_objects`; return the seconds that all of it takes for one pixel."""
    network = on_device_of(net, for_prediction(net))
    began = perf_counter()
    predict_probabilities(network, contract, image.image, views="one")
    seen = perf_counter()
    probabilities = predict_probabilities(net, contract, image.image, views="one")
    predicted = perf_counter()
    mean_precisions([match(class_indices(image.labels, contract.task), predict_labels(contract, probabilities))])
    view, first, choice = seen - began, predicted - seen, perf_counter() - predicted
    return (first + (VIEWS[contract.views] - 1) * view + count_choices(contract) * choice) / image.labels.size


def count_choices(contract: Contract) -> int:
    """How many rules for objects are compared, at most."""
    choices = _choices(contract.objects, SPLITS_OF_DISTANCE if contract.learns_distance else SPLITS)
    return 1 + sum(len(values) - 1 for _, values in choices)


def _choices(rules: ObjectRules, splits: tuple[float, ...]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    return (
        ("split", splits),
        ("certainty", (rules.certainty, 0.85, 0.0)),  # before the threshold: the lower that is, the lower a mean
        ("threshold", THRESHOLDS),
        ("smallest", (rules.smallest, rules.smallest // 2)),
        ("fill_holes", (True, False)),
        ("gap", (rules.gap, 0)),
    )


def match(truth: NDArray[Any], result: NDArray[Any]) -> tuple[cells.Matching, ...]:
    """Match the objects of one image at each of `IOU_THRESHOLDS`."""
    return cells.match_all(truth, result, IOU_THRESHOLDS)


def mean_precisions(matchings: Sequence[Sequence[cells.Matching]]) -> tuple[float, ...]:
    """Average precision of all images pooled, averaged over IoU thresholds; then without each image that has objects.

    Without the only one there would be nothing to see. `matchings` by image.
    """
    having = [number for number, of_image in enumerate(matchings) if of_image[0].n_truth]
    counts = np.array([[(one.tp, one.fp + one.fn) for one in of_image] for of_image in matchings])
    left_out = counts[having] if len(having) > 1 else counts[:0]
    sums = np.concatenate([counts[None].sum(1), counts.sum(0) - left_out])  # (left out, threshold, right or wrong)
    with np.errstate(invalid="ignore"):  # nothing to find and nothing found
        precisions = sums[..., 0] / sums.sum(-1)
    return tuple(np.nan_to_num(precisions.mean(-1)).tolist())


def probabilities_of(
    net: UNet, images: Sequence[Annotated], contract: Contract, *, views: Views = "one"
) -> list[NDArray[np.float32]]:
    """Predict images by a network in training, and see that what it says are numbers."""
    network = net if adapts(contract) else on_device_of(net, for_prediction(net))
    found = [predict_probabilities(network, contract, image.image, views=views) for image in images]
    if not all(np.isfinite(p).all() for p in found):
        raise TrainingError(
            "the network returns no numbers any more: its weights have grown without bound; "
            "try a tenth of the learning rate"
        )
    return found


def _score(probabilities: Sequence[NDArray[np.float32]], images: Sequence[Annotated], contract: Contract) -> Evaluation:
    return evaluate_arrays(
        [image.labels for image in images],
        [predict_labels(contract, p) for p in probabilities],
        task=contract.task,
        names=[image.name for image in images],
    )

"""The learning curve: how good a model is with what is annotated, and what more images would bring.

The images are dealt into folds, one for each repeat. A repeat holds its fold out and trains on 1, 2, 4, 8, … of the
other images, each set containing the one before; so every image is scored once at every size, by networks that have not
seen it. Through the scores goes a power law (`power_law`), which is followed up to twice the images at hand.

How sure all this is, a bootstrap over repeats and, within each, over images says: the repeats differ in what was
trained on, the images in how hard they are. Of few repeats a bootstrap is too sure, so it is stretched as a t interval
is. All trainings share the time of the command, so each is short.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from ubend.data.annotated import Annotated, Kind, Task, infer_task
from ubend.errors import InputError
from ubend.run import power_law
from ubend.run.clock import Clock
from ubend.run.contract import Contract
from ubend.run.device import choose_device
from ubend.run.evaluation import Evaluation, evaluate_arrays
from ubend.run.folds import Dealt, SharedTime, classes_shown, contract_for, deal
from ubend.run.labels import predict_labels
from ubend.run.normalisation import count
from ubend.run.planning import Job, plan_job
from ubend.run.pooling import CONFIDENCE, Column
from ubend.run.power_law import MOST_EXTRAPOLATED, PowerLaw
from ubend.run.preparation import MOST_HELD_OUT, annotated_images, check_finite, count_channels
from ubend.run.recipe import Recipe, load_recipe
from ubend.run.training import (
    OnStep,
    check_seed,
    of_all_trainings,
    told_if_out_of_memory,
    train_on,
    trial,
    with_length,
    with_share,
)
from ubend.run.validation import probabilities_of

__all__ = ["FORMAT", "FORMAT_VERSION", "CurvePlan", "LearningCurve", "Outlook", "learning_curve"]

FORMAT = "ubend-learning-curve"
FORMAT_VERSION = 1
"""Of what `LearningCurve.to_dict` returns; docs/how-good.md has the keys."""
FEWEST_IMAGES = 4
REPEATS = 5
RESAMPLES = 2000

_SEED = 2015
_STEP = 1.4
"""Times as large as the last power of two must be what is left at the end, or it takes its place."""
_LITTLE, _MUCH = 0.01, 0.05
"""A gain that may be less than the one or more than the other tells nobody whether to annotate more images."""
_POINTS_DRAWN = 60


@dataclass(frozen=True)
class CurvePlan:
    """What will be trained.

    Attributes
    ----------
    images : int
        At hand.
    sizes : tuple of int
        Numbers of images that are trained on.
    held_out : tuple of tuple of int
        For each repeat the numbers of the images it holds out.
    orders : tuple of tuple of int
        For each repeat the numbers of the others: the first n are the n that are trained on.
    minutes, steps : float, int
        Of each training; one of them is 0.
    notes : tuple of str
        What a person should know, a sentence each.
    """

    images: int
    sizes: tuple[int, ...]
    held_out: tuple[tuple[int, ...], ...]
    orders: tuple[tuple[int, ...], ...]
    minutes: float = 0.0
    steps: int = 0
    notes: tuple[str, ...] = ()

    @property
    def repeats(self) -> int:
        """How often the curve is drawn anew."""
        return len(self.held_out)

    @property
    def trainings(self) -> int:
        """How many there are in all."""
        return self.repeats * len(self.sizes)


@dataclass(frozen=True)
class Outlook:
    """What the power law says of all images at hand, and of more.

    Attributes
    ----------
    images : int
        At hand.
    score : float
        With all of them.
    interval : tuple of float
        The middle 95 % of `score`.
    more : int
        Images that would be added.
    gain : float
        What they would bring.
    gain_interval : tuple of float
        The middle 95 % of `gain`.
    law : tuple of float
        a, b and c of score(n) = a − b·n^(−c).
    """

    images: int
    score: float
    interval: tuple[float, float]
    more: int
    gain: float
    gain_interval: tuple[float, float]
    law: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Scores by number of images, and what follows from them.

    Attributes
    ----------
    plan : CurvePlan
    evaluations : tuple of Evaluation
        One for each size, of the same images in the same order: those that the first repeat holds out, then the next.
    repeat_of : tuple of int
        For each of these images its repeat, from 0.
    """

    plan: CurvePlan
    evaluations: tuple[Evaluation, ...]
    repeat_of: tuple[int, ...]

    @property
    def score_name(self) -> str:
        """The score of the task by which to compare."""
        return self.evaluations[0].headline

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """The score at each size, of all images and repeats together."""
        return tuple(column.overall() for column in self._columns)

    @cached_property
    def intervals(self) -> tuple[tuple[float, float], ...]:
        """The middle 95 % of the score at each size; nan where there is nothing to score."""
        return tuple(_middle(draws) for draws in self._draws.T)

    @cached_property
    def of_repeats(self) -> tuple[tuple[float, ...], ...]:
        """The score at each size of each repeat, shape (sizes, repeats)."""
        times = (np.arange(self.plan.repeats)[:, None] == np.array(self.repeat_of)).astype(np.float64)
        return tuple(tuple(column.resampled(times).tolist()) for column in self._columns)

    @cached_property
    def rise(self) -> tuple[float, tuple[float, float]]:
        """From the smallest size to the largest, and its interval."""
        return self.scores[-1] - self.scores[0], _middle(self._draws[:, -1] - self._draws[:, 0])

    @cached_property
    def outlook(self) -> Outlook | None:
        """What the power law says; None where `why_no_outlook` tells why it says nothing."""
        return self._outlook[0]

    @cached_property
    def why_no_outlook(self) -> str:
        """Why the scores do not tell what more images would bring; empty if they do."""
        return self._outlook[1]

    def drawn(self) -> list[tuple[float, float, float, float]]:
        """Follow the power law, to look at, from one image to the last that is told of.

        Returns
        -------
        list of (images, score, low, high)
            Empty without an outlook.
        """
        if self.outlook is None:
            return []
        numbers = np.geomspace(1, self.outlook.images + self.outlook.more, _POINTS_DRAWN)
        law, laws = self._laws
        low, high = np.percentile(laws.at(numbers), _OUTSIDE, axis=0)
        return list(zip(numbers.tolist(), law.at(numbers)[0].tolist(), low.tolist(), high.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Say all of it in what JSON holds; docs/how-good.md has the keys.

        Returns
        -------
        dict
        """
        plan, column, outlook = self.plan, self._columns[0].score, self.outlook
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "score": {"name": column.name, "meaning": column.meaning, "pooled_over": column.pooled_over},
            "images": plan.images,
            "trainings": plan.trainings,
            "minutes_each": plan.minutes or None,
            "steps_each": plan.steps or None,
            "interval_method": {
                "name": "percentile bootstrap over repeats, and over images within them, stretched for few repeats",
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
            },
            "points": [
                {"images": n, "score": _known(score), "interval": _known_ends(ends), "of_repeats": [*map(_known, each)]}
                for n, score, ends, each in zip(plan.sizes, self.scores, self.intervals, self.of_repeats, strict=True)
            ],
            "outlook": outlook
            and {
                "images": outlook.images,
                "score": outlook.score,
                "interval": list(outlook.interval),
                "more_images": outlook.more,
                "gain": outlook.gain,
                "gain_interval": list(outlook.gain_interval),
                "law": dict(zip("abc", outlook.law, strict=True)),
            },
            "why_no_outlook": self.why_no_outlook or None,
            "held_out": [self._names_of(repeat) for repeat in range(plan.repeats)],
        }

    def to_table(self) -> list[list[str | float]]:
        """Say it as a table.

        Returns
        -------
        list of list
            Rows, names first: images, score, interval, and whether it was measured or foreseen.
        """
        rows: list[list[str | float]] = [["images", "score", "low", "high", "how"]]
        for n, score, ends in zip(self.plan.sizes, self.scores, self.intervals, strict=True):
            rows.append([n, *("" if value != value else value for value in (score, *ends)), "measured"])
        if self.outlook is not None:
            law, laws = self._laws
            for n in (self.outlook.images, self.outlook.images + self.outlook.more):
                rows.append([n, float(law.at([n])[0, 0]), *_middle(laws.at([n])[:, 0]), "foreseen"])
        return rows

    def _names_of(self, repeat: int) -> list[str]:
        names = self.evaluations[0].names
        return [name for name, of in zip(names, self.repeat_of, strict=True) if of == repeat]

    @cached_property
    def _columns(self) -> tuple[Column, ...]:
        return tuple(
            next(column for column in evaluation.columns if column.score.name == evaluation.headline)
            for evaluation in self.evaluations
        )

    @cached_property
    def _draws(self) -> NDArray[np.float64]:
        """The scores of resamples, shape (resamples, sizes); the same draws at all sizes."""
        times = _two_level_draws(self.repeat_of, np.random.default_rng(_SEED))
        draws = np.stack([column.resampled(times) for column in self._columns], axis=1)
        stretched: NDArray[np.float64] = self.scores + _stretch(self.plan.repeats) * (draws - self.scores)
        return np.clip(stretched, 0, 1)

    @cached_property
    def _laws(self) -> tuple[PowerLaw, PowerLaw]:
        """The power law of the scores, and those of the resamples."""
        draws = self._draws[np.isfinite(self._draws).all(axis=1)]
        spread = draws.std(axis=0)
        sizes = self.plan.sizes
        return power_law.fit(sizes, self.scores, spread), power_law.fit(sizes, draws, spread)

    @cached_property
    def _outlook(self) -> tuple[Outlook | None, str]:
        return _look_ahead(self)


_OUTSIDE = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)


def learning_curve(  # noqa: PLR0913
    images: Sequence[NDArray[Any] | Annotated] | str | Path,
    labels: Sequence[NDArray[Any]] | str | None = None,
    *,
    recipe: Recipe | str | Path = "default",
    minutes: float | None = None,
    steps: int | None = None,
    repeats: int = REPEATS,
    task: Kind | None = None,
    ignore: int | None = None,
    device: str | None = None,
    seed: int = 0,
    on_plan: Callable[[CurvePlan, Contract], None] | None = None,
    on_step: OnStep | None = None,
) -> LearningCurve:
    """Train on 1, 2, 4, … of the images, several times, and score the images that were held out.

    Parameters
    ----------
    images, labels, recipe, task, ignore, device, seed
        As of `ubend.train`.
    minutes : float
        Of all trainings together, which share them evenly.
    steps : int
        Of each training, instead of minutes.
    repeats : int
        Each holds out its part of the images, so that each image is held out once; with fewer than five images there
        are as many repeats as images.
    on_plan : callable, optional
        Called with the plan and the contract, before anything is trained.
    on_step : callable, optional
        Called with a `Progress` after each step: `fold` is the number of the training, `folds` how many there are.

    Returns
    -------
    LearningCurve

    Raises
    ------
    InputError, FileError
        If images and labels do not fit each other or the recipe, or if there are fewer than four images.
    TrainingError
        If a training comes to nonsense.

    Examples
    --------
    >>> from ubend.data.simulated import simulate
    >>> from ubend.data.tiles import TileConfig
    >>> from ubend.method.network import NetworkConfig
    >>> samples = [simulate("nuclei", np.random.default_rng(k), (64, 64)) for k in range(4)]
    >>> small = Recipe(network=NetworkConfig(width=2, depth=1, padding="same"), tiles=TileConfig(size=32, batch=1))
    >>> curve = learning_curve([s.image for s in samples], [s.labels for s in samples], recipe=small, steps=1)
    >>> curve.plan.sizes, curve.plan.repeats, curve.score_name
    ((1, 2, 3), 4, 'AP@0.5 (pooled)')
    """
    clock, chosen = Clock(), choose_device(device)
    check_seed(seed)
    recipe = with_length(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), minutes, steps)
    annotated = annotated_images(images, labels)
    seen = infer_task([image.labels for image in annotated], kind=task, ignore=ignore)
    count_channels(annotated)
    check_finite(annotated)
    plan = plan_curve(annotated, seen, repeats=repeats, seed=seed)
    recipe = with_share(recipe, plan.trainings)
    plan = replace(plan, minutes=recipe.training.minutes, steps=recipe.training.steps)
    with told_if_out_of_memory(recipe):
        planned = plan_job(recipe, seen, annotated, [], trial=trial, device=chosen, seed=seed, clock=clock)
    contract = planned.contract
    if on_plan is not None:
        on_plan(plan, contract)
    shared = SharedTime(clock, recipe.training.minutes)
    shared.calibrate(contract, annotated[0], chosen, views="one")
    found: list[list[NDArray[Any]]] = [[] for _ in plan.sizes]
    number = 0
    for held, order in zip(plan.held_out, plan.orders, strict=True):
        pixels = sum(annotated[k].labels.size for k in held)
        for size, results in zip(plan.sizes, found, strict=True):
            number += 1
            subset = [annotated[k] for k in order[:size]]
            of_subset = contract_for(subset, contract)
            told = of_all_trainings(on_step, number - 1, plan.trainings, fold=number, folds=plan.trainings)
            of_one = shared.clock_of(number, pixels)
            job = Job(of_subset, copied_pixels=planned.copied_pixels)
            net = train_on(subset, job, device=chosen, seed=seed, clock=of_one, on_step=told)[0].to(chosen)
            began = clock.now()
            for k in held:
                [maps] = probabilities_of(net, [annotated[k]], of_subset)
                results.append(predict_labels(of_subset, maps))
            shared.measured(began, pixels)
    scored = [annotated[k] for held in plan.held_out for k in held]
    evaluations = tuple(
        evaluate_arrays([i.labels for i in scored], results, task=seen, names=[i.name for i in scored])
        for results in found
    )
    return LearningCurve(plan, evaluations, tuple(r for r, held in enumerate(plan.held_out) for _ in held))


def plan_curve(images: Sequence[Annotated], task: Task, *, repeats: int, seed: int) -> CurvePlan:
    """Say which images each repeat holds out, and in which order it takes the others.

    Raises
    ------
    InputError
        If there are fewer than four images or two repeats, or an image to begin with is missing.
    """
    if len(images) < FEWEST_IMAGES:
        raise InputError(
            f"a learning curve takes at least {FEWEST_IMAGES} images, and here {_are(len(images))}: annotate more; "
            f"`ubend train --folds` says with two images how good a model is"
        )
    if repeats < 2:
        raise InputError(f"a learning curve is repeated at least 2 times, not {repeats}: one says not how sure it is")
    dealt = deal(images, task, repeats, seed=seed)
    orders = [_order(images, task, dealt, fold, seed) for fold in range(1, dealt.number + 1)]
    most = min(len(order) for order in orders)
    held_out = [
        tuple(k for k, of in enumerate(dealt.fold_of) if of == fold)[:MOST_HELD_OUT]
        for fold in range(1, dealt.number + 1)
    ]
    return CurvePlan(len(images), _sizes(most), tuple(held_out), tuple(o[:most] for o in orders), notes=dealt.notes)


def _order(images: Sequence[Annotated], task: Task, dealt: Dealt, fold: int, seed: int) -> tuple[int, ...]:
    """Shuffle the images of the other folds, but begin with one that shows something to tell apart."""
    others = [k for k, of in enumerate(dealt.fold_of) if of != fold]
    order = np.random.default_rng((seed, 3, fold)).permutation(others).tolist()
    first = next((k for k in order if len(classes_shown([images[k]], task)) > 1), None)
    if first is None:
        raise InputError(
            "no single image shows two labels to tell apart, so there is none to begin a learning curve with; "
            "`ubend train --folds` says how good a model of all is"
        )
    return (first, *(k for k in order if k != first))


def _sizes(most: int) -> tuple[int, ...]:
    """Powers of two, and at the end all there are.

    Examples
    --------
    >>> _sizes(9), _sizes(12)
    ((1, 2, 4, 9), (1, 2, 4, 8, 12))
    """
    powers = [2**k for k in range(most.bit_length()) if 2**k * _STEP < most]
    return (*powers, most)


def _two_level_draws(repeat_of: Sequence[int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw repeats with replacement, then images within each; how often each image was drawn, (resamples, images)."""
    of = np.array(repeat_of)
    repeats = int(of.max()) + 1
    times = np.zeros((RESAMPLES, of.size))
    for _ in range(repeats):
        drawn = rng.integers(repeats, size=RESAMPLES)
        for repeat in range(repeats):
            members, rows = np.flatnonzero(of == repeat), np.flatnonzero(drawn == repeat)
            chosen = members[rng.integers(members.size, size=(rows.size, members.size))]
            np.add.at(times, (rows[:, None], chosen), 1.0)
    return times


def _stretch(repeats: int) -> float:
    """How much farther than a bootstrap of few repeats its t interval reaches: 1.87 times for 4, 1.06 for 20.

    The bootstrap divides the variance by the number of repeats instead of one less, and knows no tails.
    """
    inside = (1 + CONFIDENCE) / 2
    return float(np.sqrt(repeats / (repeats - 1)) * stdtrit(repeats - 1, inside) / ndtri(inside))


def _look_ahead(curve: LearningCurve) -> tuple[Outlook | None, str]:
    """Fit, and say what it tells, or why it tells nothing."""
    plan, draws = curve.plan, curve._draws
    if len(plan.sizes) < power_law.FEWEST_SIZES:
        return None, (
            f"there are scores at {count(len(plan.sizes), 'size')} only, and it takes {power_law.FEWEST_SIZES}: "
            f"more images, or more repeats, which hold fewer out"
        )
    if np.isfinite(draws).all(axis=1).mean() < CONFIDENCE or not np.isfinite(curve.scores).all():
        return None, "too few of the images have something to score"
    rise, (least, most) = curve.rise
    if least <= 0:
        return None, (
            f"from {plan.sizes[0]} to {plan.sizes[-1]} images the score changed by {signed(rise)} "
            f"(95 % {signed(least)} to {signed(most)}), which may be chance: longer trainings, more repeats or more "
            f"images would tell more"
        )
    law, laws = curve._laws
    more = min(plan.images, int(MOST_EXTRAPOLATED * plan.sizes[-1]) - plan.images)
    ahead = [plan.images, plan.images + more]
    (now, then), resampled = law.at(ahead)[0].tolist(), laws.at(ahead)
    gain_interval = _middle(resampled[:, 1] - resampled[:, 0])
    wide = gain_interval[1] - gain_interval[0] > rise
    if wide or (gain_interval[0] < _LITTLE and gain_interval[1] > _MUCH):
        return None, (
            f"{more} more could bring anything from {signed(gain_interval[0])} to {signed(gain_interval[1])}: longer "
            f"trainings, more repeats or more images would tell more"
        )
    abc = float(law.a[0]), float(law.b[0]), float(law.c[0])
    return Outlook(plan.images, now, _middle(resampled[:, 0]), more, then - now, gain_interval, abc), ""


def signed(value: float) -> str:
    """Write a difference with two decimals, its sign and a typeset minus.

    Examples
    --------
    >>> signed(0.021), signed(-0.3), signed(-0.001)
    ('+0.02', '−0.30', '+0.00')
    """
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return np.nan, np.nan
    low, high = np.percentile(known, _OUTSIDE)
    return float(low), float(high)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _known_ends(ends: tuple[float, float]) -> list[float] | None:
    return list(ends) if np.isfinite(ends).all() else None


def _are(number: int) -> str:
    return "is 1" if number == 1 else f"are {number}"

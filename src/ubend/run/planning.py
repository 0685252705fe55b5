"""A plan meets the machine: speed and memory are measured, and what is too much for the time is cut down.

Only timed runs do so. A run by steps takes all pixels, and numbers that follow from the data alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ubend.data.annotated import Annotated, Task
from ubend.data.tiles import TrainingImage
from ubend.method.geometry import smallest_input_for
from ubend.method.network import UNet
from ubend.run.budget import (
    CALIBRATION_SHARE,
    LARGEST_PART,
    LONGEST_CALIBRATION,
    Facts,
    Part,
    Plan,
    Speed,
    choose_parts,
    diameters,
    fewer_pixels,
    make_plan,
)
from ubend.run.clock import CLOSING, Clock
from ubend.run.contract import Contract
from ubend.run.device import free_memory, mixed_precision
from ubend.run.normalisation import count
from ubend.run.prediction import VIEWS
from ubend.run.preparation import count_channels, count_copies, count_maps, make_contract, prepare, with_copies
from ubend.run.recipe import Recipe
from ubend.run.validation import count_choices, tuned_on, tuning_cost

VALIDATED_AT, SELDOM = (0.25, 0.5, 0.75, 1.0), (0.5, 1.0)
"""Shares of a run after which the model is validated; where the time is too short for all that is held out."""
PREPARATION_SHARE, VALIDATION_SHARE, TUNING_SHARE = 0.15, 0.03, 0.08
"""Of a timed run: what preparing the images, one of four validations, and choosing the rules for objects may take."""
SAMPLE = 2**17
"""Pixels on which preparation and steps are measured."""
PREDICTION = 0.4
"""Time that a pixel takes in prediction, of that in a training step, until it is measured."""
SCORING = 0.3
"""Time that one choice or score takes for a pixel, of that for its preparation, until it is measured."""

Trial = Callable[[Contract, Sequence[TrainingImage], torch.device], Callable[[], None]]
"""Gives a function that does one training step, to be measured."""


@dataclass
class Job:
    """What a run will do: the plan, settled in a contract, and the images for each part of it.

    Attributes
    ----------
    contract : Contract
        Its provenance holds the plan's words.
    parts : list of Part or None
        What is trained on, where it is not all of the images.
    validated_at : tuple of float
        Shares of the run after which the model is validated.
    held_out, tuned_on : list of Annotated
        What is validated on, and what the rules for objects are chosen on.
    validation, after : float
        Seconds that one validation takes, and what follows the last, as far as one can tell before the first.
    validated_pixels, tuned_pixels : float
        To which the images of both were cut, where there is no time for all.
    weights : dict of str to Tensor, optional
        With which the network begins; without them they are drawn.
    copied_pixels : float
        Of images that may be trained on once more with copies of their cells (`preparation.with_copies`) at most.
    """

    contract: Contract
    parts: list[Part] | None = None
    validated_at: tuple[float, ...] = ()
    held_out: list[Annotated] = field(default_factory=list)
    tuned_on: list[Annotated] = field(default_factory=list)
    validation: float = 0.0
    after: float = CLOSING
    validated_pixels: float = math.inf
    tuned_pixels: float = math.inf
    weights: dict[str, torch.Tensor] | None = None
    copied_pixels: float = math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON holds; of the images only how many pixels are used."""
        parts = None if self.parts is None else [
            [number, rows.start, rows.stop, columns.start, columns.stop] for number, rows, columns in self.parts
        ]  # fmt: skip
        return {
            "contract": self.contract.to_dict(),
            "parts": parts,
            "validated_at": list(self.validated_at),
            "validated_pixels": self.validated_pixels,
            "tuned_pixels": self.tuned_pixels,
            "validation": self.validation,
            "after": self.after,
            "copied_pixels": self.copied_pixels,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], images: Sequence[Annotated], held_out: Sequence[Annotated]) -> "Job":
        """Build from what `to_dict` returned and the same images.

        Raises
        ------
        ModelFileError
            If the contract is damaged.
        """
        contract = Contract.from_dict(values["contract"])
        parts = values["parts"]
        return cls(
            contract,
            None if parts is None else [(n, slice(top, low), slice(left, right)) for n, top, low, left, right in parts],
            tuple(values["validated_at"]),
            fewer_pixels(held_out, values["validated_pixels"]),
            fewer_pixels(tuned_on(held_out, contract), values["tuned_pixels"]),
            values["validation"],
            values["after"],
            values["validated_pixels"],
            values["tuned_pixels"],
            copied_pixels=values["copied_pixels"],
        )

    def rehearse(self, net: UNet) -> float:
        """Measure how long choosing the rules for objects will take; if it is too long, have it done on fewer pixels.

        A run by steps only measures: its result does not depend on the machine.

        Returns
        -------
        float
            Seconds.
        """
        if not self.tuned_on:
            return 0.0
        seconds_a_pixel = tuning_cost(net, self.tuned_on[0], self.contract)
        if minutes := self.contract.recipe.training.minutes:
            allowed = TUNING_SHARE * 60 * minutes
            self.tuned_pixels = min(self.tuned_pixels, allowed / seconds_a_pixel)
            self.tuned_on = fewer_pixels(self.tuned_on, allowed / seconds_a_pixel)
        return seconds_a_pixel * _pixels(self.tuned_on)


def plan_job(
    recipe: Recipe,
    task: Task,
    images: Sequence[Annotated],
    held_out: Sequence[Annotated],
    *,
    trial: Trial,
    device: torch.device,
    seed: int,
    clock: Clock,
) -> Job:
    """Settle with the data, and in a timed run with the machine, what the recipe leaves open.

    Parameters
    ----------
    recipe : Recipe
        Its length is settled.
    task : Task
    images, held_out : sequence of Annotated
        To train on, and to validate on.
    trial : callable
        Gives a training step of a contract on some prepared images.
    device : torch.device
    seed : int
        Of the choice of parts, where the images have too many pixels.
    clock : Clock

    Returns
    -------
    Job
    """
    sizes = tuple((image.labels.shape[0], image.labels.shape[1]) for image in images)
    small, large = diameters(images, task)
    facts = Facts(sizes, count_channels(images), count_maps(recipe, task), large, small)
    plan = make_plan(recipe, facts)
    contract = make_contract(plan.recipe, task, images)
    chosen_on = tuned_on(held_out, contract)
    if not recipe.training.minutes:
        copies = count_copies(images, recipe, task)
        contract = replace(contract, provenance={"plan": [*plan.words, *_copied(copies)]})
        return Job(contract, None, VALIDATED_AT if held_out else (), list(held_out), chosen_on)

    budget, began = 60 * recipe.training.minutes, clock.now()
    sample = fewer_pixels(images, SAMPLE)
    prepared = prepare(sample, contract, check=False)
    preparing = max(clock.now() - began, 1e-6) / _pixels(sample)  # seconds a pixel
    in_time = PREPARATION_SHARE * budget / preparing  # pixels
    to_prepare = min(in_time, _pixels(images))
    began = clock.now()
    if count_copies(images, recipe, task):
        with_copies(sample, len(sample), task, seed)
    copying = preparing + (clock.now() - began) / _pixels(sample)  # seconds a pixel of an image with copies
    copied_pixels = (in_time - to_prepare) * preparing / copying
    copies = count_copies(images, recipe, task, copied_pixels)
    prepared_in = preparing * to_prepare + copying * copies * _pixels(images) / len(images)

    def step_of(one: Recipe) -> Callable[[], None]:
        network = replace(one.network, in_channels=facts.channels, classes=facts.classes)
        return trial(replace(contract, network=network, recipe=one), prepared, device)

    speed = Speed(step_of, min(LONGEST_CALIBRATION, CALIBRATION_SHARE * budget), clock.now)
    plan = make_plan(
        recipe,
        facts,
        seconds=budget - clock.reserved - clock.seconds() - prepared_in,
        speed=speed,
        memory=free_memory(device),
        sixteen_bits=mixed_precision(device) is not None,
    )
    contract = make_contract(plan.recipe, task, images)
    parts = choose_parts(images, to_prepare, plan.recipe.tiles.size << plan.recipe.network.coarse, seed)
    predicting = _prediction_cost(plan, images)
    fitting = VALIDATION_SHARE * budget / (predicting + SCORING * preparing)  # pixels
    validated_at = () if not held_out else VALIDATED_AT if _pixels(held_out) <= fitting else SELDOM
    validated_pixels = fitting * len(VALIDATED_AT) / len(SELDOM)
    validated = fewer_pixels(held_out, validated_pixels)
    tuning = VIEWS[contract.views] * predicting + count_choices(contract) * SCORING * preparing
    tuned_pixels = TUNING_SHARE * budget / tuning
    chosen_on = fewer_pixels(chosen_on, tuned_pixels)
    words = [*plan.words, *_copied(copies), *_cut_down(images, parts, to_prepare), *_validated(held_out, validated)]
    return Job(
        replace(contract, provenance={"plan": words}),
        parts if to_prepare < _pixels(images) else None,
        validated_at,
        validated,
        chosen_on,
        min((predicting + SCORING * preparing) * _pixels(validated), VALIDATION_SHARE * budget * len(VALIDATED_AT) / 2),
        min(tuning * _pixels(chosen_on), TUNING_SHARE * budget) + CLOSING,  # a guess: no more than it may be
        validated_pixels,
        tuned_pixels,
        copied_pixels=copied_pixels,
    )


def _prediction_cost(plan: Plan, images: Sequence[Annotated]) -> float:
    """Guess the seconds in which one view of a pixel is predicted, from the seconds of a training step."""
    tiles, network = plan.recipe.tiles, plan.recipe.network
    seconds = (plan.seconds_a_step or 0.0) / (tiles.batch * (tiles.size << network.coarse) ** 2)
    sides = [min(length, LARGEST_PART) for image in images for length in image.labels.shape]
    entering = sum(smallest_input_for(side, network.depth) ** 2 for side in sides)
    return PREDICTION * seconds * float(entering / sum(side**2 for side in sides))


def _copied(copies: int) -> list[str]:
    if copies == 0:
        return []
    return [f"Cells are also copied beside others, in up to {count(copies, 'more image')}, so that more of them touch."]


def _cut_down(images: Sequence[Annotated], parts: Sequence[Part], pixels: float) -> list[str]:
    if pixels >= _pixels(images):
        return []
    taken = sum((rows.stop - rows.start) * (columns.stop - columns.start) for _, rows, columns in parts)
    if taken >= _pixels(images):
        return []
    return [
        f"Trained on {count(len(parts), 'part')} with {taken / _pixels(images):.0%} of all pixels: "
        f"there is no time to prepare more."
    ]


def _validated(held_out: Sequence[Annotated], validated: Sequence[Annotated]) -> list[str]:
    if _pixels(validated) == _pixels(held_out):
        return []
    rows, columns = validated[0].labels.shape
    return [
        f"Validated on {rows}×{columns} px in the middle of {count(len(validated), 'held-out image')}: "
        f"there is no time for more."
    ]


def _pixels(images: Sequence[Annotated]) -> int:
    return sum(image.labels.size for image in images)

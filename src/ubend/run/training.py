"""Training: from annotated images to a model (Ronneberger et al. 2015, Section 3).

`train` prepares the images, holds some out, and runs `fit`, which is the method from top to bottom: tiles, forward,
energy, backward, step, report.
"""

import contextlib
import copy
import csv
import datetime
import io
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ubend.data.annotated import Annotated, Kind, find_pairs, infer_task, read_pairs
from ubend.data.formats import check_writable, write_atomically
from ubend.data.tiles import Batch, TrainingImage, draw_batch
from ubend.errors import FileError, InputError, OutOfMemory, TrainingError
from ubend.method.energy import dice_term, distance_term, weighted_cross_entropy
from ubend.method.geometry import nearest_valid_inputs
from ubend.method.network import UNet
from ubend.run.clock import Clock
from ubend.run.contract import Contract
from ubend.run.device import autocast, choose_device, is_out_of_memory, kept_memory, mixed_precision
from ubend.run.evaluation import Evaluation
from ubend.run.folds import Dealt, FoldsState, OnFolds, OutOfFold, SharedTime, deal, described, out_of_fold
from ubend.run.model import FILE_NAME, Model
from ubend.run.planning import Job, plan_job
from ubend.run.prediction import margin
from ubend.run.preparation import (
    annotated_images,
    check_finite,
    count_channels,
    fingerprint,
    hold_out,
    prepare,
)
from ubend.run.recipe import EnergyConfig, OptimiserConfig, Recipe, load_recipe, to_toml
from ubend.run.validation import tune_objects, validate

RECIPE, LOG, FOLDS = "recipe.toml", "log.csv", "folds.csv"
"""What a run leaves beside its model."""
READ_AHEAD = 8
"""Batches that are made in advance for a device that is no CPU; on one, the next, where it has more than one core."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands; given to `on_step`.

    Attributes
    ----------
    step : int
        Steps done.
    share : float
        Of the run, 0 to 1.
    seconds, seconds_left : float
        Since the start of the run, and until its end as far as one can tell.
    energy : float
        Of this step.
    learning_rate : float
        Of this step.
    waiting : float
        Share of the time of all steps so far in which the network waited for tiles.
    speed : float
        Steps a second so far, validations not counted.
    fold, folds : int
        With folds: which of them a network is trained for, 0 for the model itself, and how many there are. `share` and
        `seconds_left` are then those of all trainings together.
    """

    step: int
    share: float
    seconds: float
    seconds_left: float
    energy: float
    learning_rate: float
    waiting: float
    speed: float
    fold: int = 0
    folds: int = 0


OnStep = Callable[[Progress], None]
OnValidation = Callable[[int, Evaluation], None]
OnPlan = Callable[[Contract, int, int], None]


def train(  # noqa: PLR0913
    images: Sequence[NDArray[Any] | Annotated] | str | Path,
    labels: Sequence[NDArray[Any]] | str | None = None,
    *,
    recipe: Recipe | str | Path = "default",
    minutes: float | None = None,
    steps: int | None = None,
    task: Kind | None = None,
    ignore: int | None = None,
    device: str | None = None,
    seed: int = 0,
    folds: int | None = None,
    on_plan: OnPlan | None = None,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
    on_folds: OnFolds | None = None,
    clock: Clock | None = None,
) -> Model:
    """Train a U-Net on a few annotated images.

    Parameters
    ----------
    images : list of ndarray, or path
        Images (rows, columns) or (rows, columns, channels), or a folder with images and labels
        (`annotated.find_pairs` says which layouts).
    labels : list of ndarray of int, or str, optional
        For each image its labels (rows, columns): instances, class numbers, or foreground. Negative where not
        labelled. With a folder, the name of its label folder if there are several.
    recipe : Recipe, str or path
        All other choices: a shipped recipe by name, or a TOML file.
    minutes, steps : float, int
        How long; the learning rate falls just until then. With `steps` the same seed on the same machine gives the
        same model; with `minutes` the number of steps depends on the machine.
    task : {"binary", "classes", "instances"}, optional
        What the labels mean, if it is not what they look like.
    ignore : int, optional
        The label of pixels that are not labelled, if it is not negative.
    device : str, optional
        "cpu", "cuda", "mps"; without it the best there is.
    seed : int
        Of all randomness.
    folds : int, optional
        Hold each image out once: before the model, which is trained on all images, as many networks are trained on all
        but a fold of them. Minutes are those of all these trainings together, steps those of each. The quality that
        the model states is then that of all images, see `folds`.
    on_plan : callable, optional
        Called once before the first step with the contract, the number of images trained on, and of images held out.
        ``contract.provenance["plan"]`` says in plain words what will be done, and why.
    on_step, on_validation : callable, optional
        Called with a `Progress` after each step; with the step and an `Evaluation` after each validation.
    on_folds : callable, optional
        Called with a `FoldsState` before the first fold, after each, and when all images are scored.
    clock : Clock, optional
        Of a caller who began earlier: the minutes count from when it was made.

    Returns
    -------
    Model
        As it was at the end of the schedule: of the few held-out images a score along the way says too little to stop
        at it.

    Raises
    ------
    InputError, FileError
        If images and labels do not fit each other or the recipe.
    TrainingError
        If the energy is no longer finite.

    Examples
    --------
    >>> from ubend.data.simulated import simulate
    >>> rng = np.random.default_rng(0)
    >>> samples = [simulate("nuclei", rng, (128, 128)) for _ in range(2)]
    >>> model = train([s.image for s in samples], [s.labels for s in samples], steps=2)
    >>> model.segment(samples[0].image).shape
    (128, 128)
    """
    clock, chosen = clock or Clock(), choose_device(device)
    check_seed(seed)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe = with_length(recipe, minutes, steps)
    annotated = annotated_images(images, labels)
    seen = infer_task([image.labels for image in annotated], kind=task, ignore=ignore)
    count_channels(annotated)
    check_finite(annotated)
    dealt = None if folds is None else deal(annotated, seen, folds, seed=seed)
    if dealt is None:
        rest, held_out = hold_out(annotated, recipe.training.held_out, seed, few_values=seen.kind != "instances")
    else:
        rest, held_out = annotated, []
        recipe = with_share(recipe, dealt.number + 1)
    with told_if_out_of_memory(recipe):
        job = plan_job(recipe, seen, rest, held_out, trial=trial, device=chosen, seed=seed, clock=clock)
    contract = job.contract
    if dealt is not None and on_folds is not None:
        on_folds(FoldsState(dealt))
    if on_plan is not None:
        on_plan(contract, len(rest), len(held_out))
    hashes = [{image.name: fingerprint(image) for image in images} for images in (rest, held_out)]
    found: OutOfFold | None = None
    of_model = clock
    if dealt is not None:
        found, of_model = _train_folds(
            annotated, dealt, contract, device=chosen, seed=seed, clock=clock, on_step=on_step, on_folds=on_folds
        )
        contract = replace(contract, objects=found.rules)
        on_step = of_all_trainings(on_step, dealt.number, dealt.number + 1, fold=0, folds=dealt.number)
    net, quality, steps_done = train_on(
        rest, job, device=chosen, seed=seed, clock=of_model, on_step=on_step, on_validation=on_validation
    )
    contract = tune_objects(net.to(chosen), job.tuned_on, contract, seconds_left=clock.until_closing)
    provenance = contract.provenance | {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "images": hashes[0],
        "held_out": hashes[1],
        "steps": steps_done,
        "minutes": round(clock.seconds() / 60, 2),
        "seed": seed,
        "machine": f"{platform.system()} {platform.machine()}, {chosen.type}",
        "versions": {name: version(name) for name in ("ubend", "torch", "numpy", "scipy")},
    }
    if dealt is not None and found is not None:
        quality, provenance["folds"] = found.evaluation.overall, described(annotated, dealt, found)
    known = {name: score for name, score in quality.items() if math.isfinite(score)}  # NaN is no JSON
    return Model(net.cpu(), replace(contract, quality=known, provenance=provenance), device=device)


def train_on(
    images: Sequence[Annotated],
    job: Job,
    *,
    device: torch.device,
    seed: int,
    clock: Clock,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
) -> tuple[UNet, dict[str, float], int]:
    """Prepare images and train a network on them; see `fit`.

    Raises
    ------
    OutOfMemory
        If a step does not fit the memory; the message names one that may.
    """
    prepared = prepare(images, job.contract, job.parts)
    with told_if_out_of_memory(job.contract.recipe):
        return fit(prepared, job, device=device, seed=seed, clock=clock, on_step=on_step, on_validation=on_validation)


def _train_folds(
    images: Sequence[Annotated],
    dealt: Dealt,
    contract: Contract,
    *,
    device: torch.device,
    seed: int,
    clock: Clock,
    on_step: OnStep | None,
    on_folds: OnFolds | None,
) -> tuple[OutOfFold, Clock]:
    """Train the networks of all folds; return what they say, and the clock of the model."""
    shared = SharedTime(clock, contract.recipe.training.minutes)
    shared.calibrate(contract, images[0], device, views=contract.views)

    def train_one(others: Sequence[Annotated], of_fold: Contract, fold: int) -> UNet:
        pixels = sum(image.labels.size for image in dealt.parted(images, fold)[1])
        told = of_all_trainings(on_step, fold - 1, dealt.number + 1, fold=fold, folds=dealt.number)
        of_one = shared.clock_of(fold, pixels)
        return train_on(others, Job(of_fold), device=device, seed=seed, clock=of_one, on_step=told)[0].to(device)

    found = out_of_fold(images, dealt, contract, train_one=train_one, shared=shared, on_folds=on_folds)
    return found, shared.clock_of(dealt.number + 1)


def of_all_trainings(on_step: OnStep | None, done: int, of: int, *, fold: int, folds: int) -> OnStep | None:
    """Tell of a step of one training, after `done` others, as a step of all `of` them."""
    if on_step is None:
        return None
    tell = on_step

    def told(progress: Progress) -> None:
        left = progress.seconds_left + (of - done - 1) * (progress.seconds + progress.seconds_left)
        share = (done + progress.share) / of
        tell(replace(progress, share=share, seconds_left=left, fold=fold, folds=folds))

    return told


def train_folder(
    data: str | Path,
    out: str | Path,
    *,
    labels: str | None = None,
    overwrite: bool = False,
    on_step: OnStep | None = None,
    on_folds: OnFolds | None = None,
    **choices: Any,
) -> Model:
    """Train on a folder and leave model.safetensors, recipe.toml and log.csv in the folder `out`; folds.csv with folds.

    Raises
    ------
    FileError
        If `out` already holds one of them and `overwrite` is not given, or is no folder.
    """
    out, clock = Path(out), Clock()
    check_free(out, (FILE_NAME, RECIPE, LOG, FOLDS), overwrite=overwrite)
    annotated = read_pairs(find_pairs(data, labels=labels))
    with contextlib.ExitStack() as files:
        log: list[Any] = []
        table: list[list[str | float]] = []

        def record(progress: Progress) -> None:
            if progress.fold:  # the log is that of the model
                if on_step is not None:
                    on_step(progress)
                return
            if not log:  # with the first step: a run that never begins leaves nothing
                out.mkdir(parents=True, exist_ok=True)
                log.append(csv.writer(files.enter_context((out / LOG).open("w", newline="", encoding="utf-8"))))
                log[0].writerow(["step", "seconds", "energy", "learning_rate", "waiting"])
            log[0].writerow([progress.step, f"{progress.seconds:.2f}", f"{progress.energy:.6f}",
                           f"{progress.learning_rate:.3e}", f"{progress.waiting:.4f}"])  # fmt: skip
            if on_step is not None:
                on_step(progress)

        def keep(state: FoldsState) -> None:
            if state.of_all is not None:
                names, *rows = state.of_all.to_table()
                table.append(["image", "fold", *names[1:]])
                table.extend([row[0], fold, *row[1:]] for row, fold in zip(rows, state.dealt.fold_of, strict=True))
            if on_folds is not None:
                on_folds(state)

        model = train(annotated, on_step=record, on_folds=keep, clock=clock, **choices)
    if table:
        _write_table(out / FOLDS, table, overwrite=overwrite)
    elif overwrite:
        (out / FOLDS).unlink(missing_ok=True)  # of the model that is replaced
    model.save(out / FILE_NAME, overwrite=overwrite)
    recipe = to_toml(model.contract.recipe)
    write_atomically(out / RECIPE, lambda path: path.write_text(recipe, encoding="utf-8"), overwrite=overwrite)
    return model


def _write_table(path: Path, rows: Sequence[Sequence[str | float]], *, overwrite: bool) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, lambda part: part.write_text(text.getvalue(), encoding="utf-8"), overwrite=overwrite)


def check_free(out: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Raise FileError if the folder `out` cannot be written into, or already holds one of the files."""
    check_writable(out)
    taken = [name for name in names if (out / name).exists()]
    if taken and not overwrite:
        raise FileError(f"{out} already holds {' and '.join(taken)}; choose another folder or say --overwrite")


@kept_memory
def fit(
    images: Sequence[TrainingImage],
    job: Job,
    *,
    device: torch.device,
    seed: int,
    clock: Clock,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
) -> tuple[UNet, dict[str, float], int]:
    """Run the training loop until the clock says that its schedule is done.

    Returns
    -------
    network : UNet
        With the weights of the last step, or their running mean.
    quality : dict of str to float
        Scores of the last validation; empty without held-out images.
    steps : int
        Done in all.
    """
    contract, recipe = job.contract, job.contract.recipe
    net = _new_network(contract, device, seed)
    optimiser = _optimiser(net, recipe)
    mean = copy.deepcopy(net) if recipe.optimiser.averaging > 0 else net
    dtype = mixed_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    pending = list(job.validated_at)
    clock.begin(recipe.training, validations=len(pending), validation=job.validation, after=job.after)
    batches = _batches(images, contract, seed=seed, ahead=_ahead(device))
    quality: dict[str, float] = {}
    waited = 0.0
    step, share = 0, 0.0
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else None):
        while share < 1:
            net.train()
            torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))  # dropout
            began = clock.now()
            batch = _to_device(next(batches), device)
            waited += clock.now() - began
            rate = _learning_rate(recipe, share)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with autocast(device, dtype):
                scores = net(batch.images)
            energy = _energy(scores, batch, recipe.energy)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(energy).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimiser)
            scaler.update()
            step += 1
            _follow(mean, net, recipe.optimiser.averaging, step)
            value = float(energy.detach())
            if not math.isfinite(value):
                raise TrainingError(_why_not_finite(step, value, rate, batch))
            share = clock.share(step)
            if on_step is not None:
                working = clock.working()
                on_step(
                    Progress(
                        step, share, clock.seconds(), clock.left(step), value, rate, waited / working, step / working
                    )
                )
            if pending and share >= pending[0]:
                pending = [at for at in pending if at > share]
                began = clock.now()
                _check_weights(net, step, rate)
                evaluation = validate(mean, job.held_out, contract)
                if on_validation is not None:
                    on_validation(step, evaluation)
                quality = dict(evaluation.overall)
                pending = clock.validated(clock.now() - began, pending)
                if pending and clock.budget > 0:
                    clock.expect(job.rehearse(mean))
    _check_weights(net, step, rate)
    return mean.cpu().eval(), quality, step


def check_seed(seed: int) -> None:
    """Raise InputError if a seed is none."""
    if not 0 <= seed < 2**63:
        raise InputError(f"a seed is a whole number from 0 to {2**63 - 1}, not {seed}")


def trial(contract: Contract, images: Sequence[TrainingImage], device: torch.device) -> Callable[[], None]:
    """Return a function that does one training step as `fit` does it, of a network that is thrown away.

    A device that is no CPU has its batches made meanwhile, and so is not asked to wait for them.
    """
    net = _new_network(contract, device, seed=0).train()
    optimiser, dtype = _optimiser(net, contract.recipe), mixed_precision(device)
    batches = _batches(images, contract, seed=0, ahead=0)
    ready = None if device.type == "cpu" else _to_device(next(batches), device)

    def step() -> None:
        batch = ready or _to_device(next(batches), device)
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else None):
            with autocast(device, dtype):
                scores = net(batch.images)
            energy = _energy(scores, batch, contract.recipe.energy)
            optimiser.zero_grad(set_to_none=True)
            energy.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            float(energy.detach())

    return step


@contextlib.contextmanager
def told_if_out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Raise OutOfMemory, with what would fit, where memory has run out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemory):
            raise
        raise OutOfMemory(_smaller_tiles(recipe)) from None


def _smaller_tiles(recipe: Recipe) -> str:
    tiles, step = recipe.tiles, 2**recipe.network.depth
    size = f"batch = {tiles.batch // 2}" if tiles.batch > 1 else f"size = {tiles.size // 2 // step * step}"
    if tiles.batch == 1 and recipe.network.padding == "none":
        size = f"size = {nearest_valid_inputs(tiles.size // 2, recipe.network.depth)[0]}"
    return (
        f"{tiles.batch} × {tiles.size}×{tiles.size} a step do not fit the memory; "
        f"try {size} in the [tiles] of the recipe, about half of it"
    )


def with_length(recipe: Recipe, minutes: float | None, steps: int | None) -> Recipe:
    """Put the length that was asked for into the recipe."""
    if minutes is not None and steps is not None:
        raise InputError("say how long by minutes or by steps, not both")
    if (minutes is not None and not minutes > 0) or (steps is not None and steps < 1):
        came = steps if minutes is None else minutes
        raise InputError(f"a run takes more than 0 minutes or at least 1 step, not {came}")
    length = recipe.training
    if minutes is not None:
        length = replace(length, minutes=float(minutes), steps=0)
    elif steps is not None:
        length = replace(length, minutes=0.0, steps=steps)
    if length.minutes <= 0 and length.steps < 1:
        raise InputError("the recipe says neither minutes nor steps: say how long to train")
    return replace(recipe, training=length)


def with_share(recipe: Recipe, trainings: int) -> Recipe:
    """Give each of some trainings its part of the minutes; steps are those of each."""
    return replace(recipe, training=replace(recipe.training, minutes=recipe.training.minutes / trainings))


def _energy(scores: torch.Tensor, batch: Batch, config: EnergyConfig) -> torch.Tensor:
    distance, scores = (scores[:, -1], scores[:, :-1]) if batch.distance is not None else (None, scores)
    energy = weighted_cross_entropy(scores, batch.labels, batch.weights)
    if config.dice > 0:
        energy = energy + config.dice * dice_term(scores, batch.labels, batch.weights)
    if distance is not None and batch.distance is not None:
        energy = energy + config.distance * distance_term(distance, batch.distance, batch.labels)
    return energy


def _new_network(contract: Contract, device: torch.device, seed: int) -> UNet:
    with torch.random.fork_rng(devices=[]):  # PyTorch draws weights of its own before ours
        net = UNet(contract.network, generator=torch.Generator().manual_seed(seed))
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _optimiser(net: UNet, recipe: Recipe) -> torch.optim.Optimizer:
    chosen: OptimiserConfig = recipe.optimiser
    if chosen.kind != "adamw":
        return torch.optim.SGD(
            net.parameters(), lr=chosen.learning_rate, momentum=chosen.momentum, weight_decay=chosen.weight_decay,
            nesterov=chosen.kind == "nesterov",
        )  # fmt: skip
    return torch.optim.AdamW(net.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay, fused=True)


def _follow(mean: UNet, net: UNet, share: float, step: int) -> None:
    """Move the running mean of weights and statistics, over about the last `share` of `step` steps, to what is now."""
    if mean is net:
        return
    part = 1 / max(1.0, share * step)
    with torch.no_grad():
        for slow, now in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
            if part < 1 and slow.is_floating_point():
                slow.lerp_(now, part)
            else:
                slow.copy_(now)


def _learning_rate(recipe: Recipe, share: float) -> float:
    """Rate at a share of the run: a linear rise, then constant or half a cosine down to 0."""
    chosen = recipe.optimiser
    if share < chosen.warm_up:
        return chosen.learning_rate * max(share / chosen.warm_up, 0.01)
    if chosen.schedule == "constant":
        return chosen.learning_rate
    rest = (share - chosen.warm_up) / (1 - chosen.warm_up)
    return chosen.learning_rate * 0.5 * (1 + math.cos(math.pi * rest))


def _batches(images: Sequence[TrainingImage], contract: Contract, *, seed: int, ahead: int) -> Iterator[Batch]:
    """Make the batches of all steps in order, `ahead` of them in advance by threads."""
    recipe = contract.recipe

    def make(step: int) -> Batch:
        return draw_batch(
            images, recipe.tiles, recipe.augmentation, margin=margin(contract.network), seed=seed, step=step
        )

    if ahead == 0:
        step = 0
        while True:
            yield make(step)
            step += 1
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        queue: list[Future[Batch]] = [pool.submit(make, step) for step in range(ahead)]
        step = ahead
        while True:
            queue.append(pool.submit(make, step))
            yield queue.pop(0).result()
            step += 1


def _ahead(device: torch.device) -> int:
    """How many batches to make in advance: on a CPU one, which uses the core that the network leaves idle now and then.

    With one thread there is no such core, and a second one would only stand in the way.
    """
    return READ_AHEAD if device.type != "cpu" else int(torch.get_num_threads() > 1)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    images = batch.images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    maps = (None if one is None else one.to(device, non_blocking=True) for one in (batch.weights, batch.distance))
    return Batch(images, batch.labels.to(device, non_blocking=True), *maps)


def _why_not_finite(step: int, energy: float, rate: float, batch: Batch) -> str:
    if not bool(torch.isfinite(batch.images).all()):
        return f"step {step}: an image holds values that are not finite (NaN or infinite); mend or remove it"
    return f"step {step}: the energy became {energy} {_run_away(rate)}"


def _check_weights(net: UNet, step: int, rate: float) -> None:
    """Raise TrainingError if the last step has spoilt the weights, which no energy shows any more."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values()):
        raise TrainingError(f"step {step}: the weights are no longer finite {_run_away(rate)}")


def _run_away(rate: float) -> str:
    return (
        f"at a learning rate of {rate:.1e}, training has run away; "
        f'try a tenth of the learning rate, or normalisation = "batch" in the recipe\'s [network]'
    )

"""Training: from annotated images to a model (Ronneberger et al. 2015, Section 3).

`train` prepares the images, holds some out, and runs `fit`, which is the method from top to bottom: tiles, forward,
energy, backward, step, report.
"""

import contextlib
import copy
import datetime
import itertools
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

from ubend.data.annotated import Annotated, Kind, Task, infer_task
from ubend.data.tiles import Batch, TrainingImage, draw_batch
from ubend.errors import InputError, OutOfMemory, Stopped, TrainingError
from ubend.method.energy import Total, alone, dice_term, distance_term, weighted_cross_entropy
from ubend.method.geometry import nearest_valid_inputs
from ubend.method.network import UNet
from ubend.run.batch_statistics import statistics_for
from ubend.run.checkpoint import Checkpoint, differences
from ubend.run.clock import Clock
from ubend.run.contract import Contract
from ubend.run.device import autocast, choose_device, is_out_of_memory, kept_memory, mixed_precision
from ubend.run.evaluation import Evaluation
from ubend.run.folds import Dealt, FoldsState, OnFolds, OutOfFold, SharedTime, deal, described, out_of_fold
from ubend.run.keeper import Keeper, OnResume, Resumed, State
from ubend.run.model import Model
from ubend.run.planning import Job, plan_job
from ubend.run.prediction import margin
from ubend.run.preparation import (
    annotated_images,
    check_finite,
    count_channels,
    count_copies,
    fingerprint,
    hold_out,
    like_before,
    prepare,
    same_pixels,
    still_held_out,
    with_copies,
)
from ubend.run.processes import ALONE, Processes
from ubend.run.recipe import EnergyConfig, OptimiserConfig, Recipe, load_recipe
from ubend.run.stopping import EVERY, Watch
from ubend.run.validation import tune_objects, validate

READ_AHEAD = 8
"""Batches that are made in advance for a device that is no CPU."""


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


OnStep = Callable[[Progress], object]
"""Called after each step; a true answer ends the run there."""
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
    start: Model | None = None,
    on_plan: OnPlan | None = None,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
    on_folds: OnFolds | None = None,
    on_resume: OnResume | None = None,
    clock: Clock | None = None,
    keeper: Keeper | None = None,
    processes: Processes = ALONE,
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
    start : Model, optional
        Train on from its weights. It keeps its network, and the images that it has held out stay held out, by name;
        of all others it may have seen the pixels.
    on_plan : callable, optional
        Called once before the first step with the contract, the number of images trained on, and of images held out.
        ``contract.provenance["plan"]`` says in plain words what will be done, and why.
    on_step, on_validation : callable, optional
        Called with a `Progress` after each step, where a true answer ends the run as if its time were over; with the
        step and an `Evaluation` after each validation.
    on_folds : callable, optional
        Called with a `FoldsState` before the first fold, after each, and when all images are scored.
    on_resume : callable, optional
        Called with a `Resumed` where a run goes on.
    clock : Clock, optional
        Of a caller who began earlier: the minutes count from when it was made.
    keeper : Keeper, optional
        Keeps checkpoints, and goes on at one; see `runs.train_folder`.
    processes : Processes, optional
        Those that share the work; see `processes.joined`. Each then takes the tiles a step of the recipe.

    Returns
    -------
    Model
        As it was at the end of the schedule: of the few held-out images a score along the way says too little to stop
        at it.

    Raises
    ------
    InputError, FileError
        If images and labels do not fit each other or the recipe, or the model to start from.
    TrainingError
        If training comes to nonsense: an energy that is not finite or does not fall, a network that says the same
        everywhere or never says a class.
    Stopped
        If a signal stops a run that has a keeper.

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
    recipe, dealt, rest, held_out = _parted(annotated, seen, recipe, folds=folds, start=start, seed=seed)
    hashes = [{image.name: fingerprint(image) for image in images} for images in (rest, held_out)]
    job = None if keeper is None else _resume(keeper, rest, held_out, hashes, clock, processes, chosen, on_resume)
    if job is None and processes.first:
        with told_if_out_of_memory(recipe), processes.telling_errors():
            job = plan_job(recipe, seen, rest, held_out, trial=trial, device=chosen, seed=seed, clock=clock)
        job.contract = with_words(with_batch_of(job.contract, processes), _alike(annotated))
    job = _told(job, rest, held_out, processes)
    job.weights = None if start is None else start.network.state_dict()
    contract = job.contract
    if keeper is not None:
        keeper.clock, keeper.run = clock, processes.told(keeper.run)
        keeper.about |= {
            "job": job.to_dict(),
            "images": [list(part.items()) for part in hashes],
            "machine": machine(chosen),
        }
    if dealt is not None and on_folds is not None:
        on_folds(FoldsState(dealt))
    if on_plan is not None:
        on_plan(contract, len(rest), len(held_out))
    found: OutOfFold | None = None
    of_model = clock
    if dealt is not None:
        found, of_model = _train_folds(
            annotated, dealt, job, device=chosen, seed=seed, clock=clock, on_step=on_step, on_folds=on_folds,
            keeper=keeper, processes=processes,
        )  # fmt: skip
        contract = replace(contract, objects=found.rules)
        on_step = of_all_trainings(on_step, dealt.number, dealt.number + 1, fold=0, folds=dealt.number)
    net, quality, steps_done = train_on(
        rest, job, device=chosen, seed=seed, clock=of_model, on_step=on_step, on_validation=on_validation,
        keeper=keeper, processes=processes,
    )  # fmt: skip
    if processes.first:
        scored = {image.name: image.labels.size for image in held_out}
        contract = tune_objects(net.to(chosen), job.tuned_on, contract, scored=scored, seconds_left=clock.until_closing)
    provenance = contract.provenance | {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "images": hashes[0] if start is None else start.contract.provenance.get("images", {}) | hashes[0],
        "held_out": hashes[1],
        "steps": steps_done,
        "minutes": round(clock.seconds() / 60, 2),
        "seed": seed,
        "machine": f"{platform.system()} {platform.machine()}, {chosen.type}",
        "versions": versions(),
    }
    if contract.quality:  # of the model as it predicts
        quality = dict(contract.quality)
    if dealt is not None and found is not None:
        quality, provenance["folds"] = found.evaluation.overall, described(annotated, dealt, found)
    known = {name: score for name, score in quality.items() if math.isfinite(score)}  # NaN is no JSON
    return Model(net.cpu(), replace(contract, quality=known, provenance=provenance), device=device)


def _parted(
    images: Sequence[Annotated], task: Task, recipe: Recipe, *, folds: int | None, start: Model | None, seed: int
) -> tuple[Recipe, Dealt | None, list[Annotated], list[Annotated]]:
    """Settle who is trained on and who is held out, and what of the recipe follows from it."""
    if start is not None:
        if folds is not None:
            raise InputError("folds train networks from nothing: those of a model to start from have seen all images")
        return like_before(recipe, start.contract, images, task), None, *still_held_out(images, start.contract)
    if folds is None:
        share, few_values = recipe.training.held_out, task.kind != "instances"
        return recipe, None, *hold_out(images, share, seed, few_values=few_values)
    dealt = deal(images, task, folds, seed=seed)
    return with_share(recipe, dealt.number + 1), dealt, list(images), []


def versions() -> dict[str, str]:
    """Name the versions of what the weights depend on."""
    return {name: version(name) for name in ("ubend", "torch", "numpy", "scipy")}


def machine(device: torch.device) -> dict[str, Any]:
    """Say what the last digits of a result depend on."""
    arithmetic = str(mixed_precision(device) or torch.float32).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    processor = f"{platform.machine()} {name}"
    return {"threads": torch.get_num_threads(), "processor": processor, "arithmetic": arithmetic} | versions()


def _resume(
    keeper: Keeper,
    rest: Sequence[Annotated],
    held_out: Sequence[Annotated],
    hashes: Sequence[dict[str, str]],
    clock: Clock,
    processes: Processes,
    device: torch.device,
    on_resume: OnResume | None,
) -> Job | None:
    """Take up the job of a checkpoint, if there is one and the images are those it was planned for."""
    if keeper.saved is None:
        return None
    state = keeper.saved.state
    then = [(name, of) for part in state["images"] for name, of in part]
    if changed := differences(then, [item for part in hashes for item in part.items()]):
        raise InputError(
            f"these are not the images that the run was begun with: {'; '.join(changed[:3])}"
            f"{', …' if len(changed) > 3 else ''}; bring them back, or train anew with --overwrite"
        )
    clock.start = clock.now() - float(state["elapsed"])
    if on_resume is not None:
        on_resume(_resumed(keeper.saved, keeper.checkpoints.damaged, processes, device))
    return Job.from_dict(state["job"], rest, held_out)


def _told(job: Job | None, rest: Sequence[Annotated], held_out: Sequence[Annotated], processes: Processes) -> Job:
    """Give all processes the job of the first, or why there is none."""
    settled = processes.told({} if job is None else {"job": job.to_dict()})
    if job is None and "job" not in settled:
        raise InputError(settled["error"])
    return Job.from_dict(settled["job"], rest, held_out) if job is None else job


def _resumed(saved: Checkpoint, damaged: Sequence[str], processes: Processes, device: torch.device) -> Resumed:
    state, notes = saved.state, [f"{name} was damaged: the one before counts." for name in damaged]
    then, now = state["machine"], machine(device)
    differ = [f"{name} {now[name]} for {then.get(name)}" for name in now if now[name] != then.get(name)]
    if state["processes"] != processes.number:
        differ.append(f"{processes.number} processes for {state['processes']}")
    if differ:
        notes.append(f"Not to the last digit what it would have been: {', '.join(differ)}.")
    return Resumed(state["step"], state["share"], state["fold"], notes)


def _alike(images: Sequence[Annotated]) -> list[str]:
    """Say which images have the same pixels."""
    alike = [[images[k].name for k in members] for members in same_pixels(images) if len(members) > 1]
    return [
        f"{' and '.join(names)} are the same image: none of them is held out while another is trained on."
        for names in alike[:3]
    ]


def with_words(contract: Contract, words: Sequence[str]) -> Contract:
    """Add sentences to the plan."""
    return replace(contract, provenance=contract.provenance | {"plan": [*contract.provenance["plan"], *words]})


def with_batch_of(contract: Contract, processes: Processes) -> Contract:
    """Give each process the tiles a step that were planned for one."""
    tiles = replace(contract.recipe.tiles, batch=contract.recipe.tiles.batch * processes.number)
    recipe = replace(contract.recipe, tiles=tiles)
    return replace(contract, recipe=recipe, statistics=statistics_for(recipe))


def train_on(
    images: Sequence[Annotated],
    job: Job,
    *,
    device: torch.device,
    seed: int,
    clock: Clock,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
    keeper: Keeper | None = None,
    fold: int = 0,
    processes: Processes = ALONE,
) -> tuple[UNet, dict[str, float], int]:
    """Prepare images and train a network on them; see `fit`.

    Raises
    ------
    OutOfMemory
        If a step does not fit the memory; the message names one that may.
    """
    recipe, task = job.contract.recipe, job.contract.task
    more = with_copies(images, count_copies(images, recipe, task, job.copied_pixels), task, seed)
    prepared = prepare(more, job.contract, job.parts)
    with told_if_out_of_memory(job.contract.recipe):
        return fit(
            prepared, job, device=device, seed=seed, clock=clock, on_step=on_step, on_validation=on_validation,
            keeper=keeper, fold=fold, processes=processes,
        )  # fmt: skip


def _train_folds(
    images: Sequence[Annotated],
    dealt: Dealt,
    job: Job,
    *,
    device: torch.device,
    seed: int,
    clock: Clock,
    on_step: OnStep | None,
    on_folds: OnFolds | None,
    keeper: Keeper | None,
    processes: Processes,
) -> tuple[OutOfFold, Clock]:
    """Train the networks of all folds; return what they say, and the clock of the model."""
    resumed, contract = keeper is not None and keeper.saved_in(0) is not None, job.contract
    shared = SharedTime(clock, contract.recipe.training.minutes, chooses_again=resumed)
    shared.calibrate(contract, images[0], device, views=contract.views)

    def train_one(others: Sequence[Annotated], of_fold: Contract, fold: int) -> UNet:
        pixels = sum(image.labels.size for image in dealt.parted(images, fold)[1])
        told = of_all_trainings(on_step, fold - 1, dealt.number + 1, fold=fold, folds=dealt.number)
        of_one = shared.clock_of(fold, pixels)
        if keeper is not None and (weights := keeper.network_of(fold)) is not None:
            net = _new_network(of_fold, device, seed)
            net.load_state_dict(weights)
            return net.eval()
        net, _, _ = train_on(
            others, Job(of_fold, copied_pixels=job.copied_pixels), device=device, seed=seed, clock=of_one, on_step=told,
            keeper=keeper, fold=fold, processes=processes,
        )  # fmt: skip
        if keeper is not None and processes.first:
            keeper.keep_network(fold, net)
        return net.to(device)

    found = out_of_fold(images, dealt, contract, train_one=train_one, shared=shared, on_folds=on_folds)
    return found, shared.clock_of(dealt.number + 1)


def of_all_trainings(on_step: OnStep | None, done: int, of: int, *, fold: int, folds: int) -> OnStep | None:
    """Tell of a step of one training, after `done` others, as a step of all `of` them."""
    if on_step is None:
        return None
    tell = on_step

    def told(progress: Progress) -> object:
        left = progress.seconds_left + (of - done - 1) * (progress.seconds + progress.seconds_left)
        share = (done + progress.share) / of
        return tell(replace(progress, share=share, seconds_left=left, fold=fold, folds=folds))

    return told


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
    keeper: Keeper | None = None,
    fold: int = 0,
    processes: Processes = ALONE,
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
    state, watch = _begin(contract, device, seed, job.weights), Watch(_names(contract))
    state.pending = list(job.validated_at)

    def keep() -> None:
        if keeper is not None and processes.first and all_finite(state.net):  # a checkpoint is good, or is none
            here = state.numbers() | {"watch": watch.to_dict(), "processes": processes.number}
            here |= {} if fold else {"job": job.to_dict()}
            keeper.keep(fold, state.tensors(), here, clock)

    if keeper is not None and (saved := keeper.saved_in(fold)) is not None:
        state.restore(saved)
        watch.restore(saved.state["watch"])
        clock.resume(saved.state["clock"])
    else:
        clock.begin(recipe.training, validations=len(state.pending), validation=job.validation, after=job.after)
        began = clock.now()
        keep()
        clock.keep_free(clock.now() - began)  # for the checkpoint at the end
    batches = _batches(images, contract, seed=seed, ahead=_ahead(device), start=state.step, processes=processes)
    network = processes.parallel(state.net, device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        if keeper is not None:
            stack.enter_context(keeper.signals.deferring())
        while state.share < 1:
            began = clock.now()
            batch = _to_device(next(batches), device)
            state.waited += clock.now() - began
            rate = _learning_rate(recipe, state.share)
            try:
                energy, scores = _step(
                    state, network, batch, recipe, rate, key=_key(seed, state.step, processes), total=processes.total
                )
                step, share, working = state.step, clock.share(state.step), clock.working()
                if on_step is not None:
                    left, waiting = clock.left(step), state.waited / working
                    now = Progress(step, share, clock.seconds(), left, energy, rate, waiting, step / working)
                    share = 1.0 if on_step(now) else share
                state.share = processes.told(share)
                if step % EVERY == 0 and (nonsense := processes.told(_look(watch, state, energy, scores, batch))):
                    raise TrainingError(f"step {step}: {nonsense}")
            except TrainingError:
                keep()
                raise
            if state.pending and state.share >= state.pending[0]:
                _validate(state, job, clock, rate, on_validation, first=processes.first)
            asked = 0 if keeper is None else processes.largest(keeper.signals.asked)
            if asked or state.share >= 1 or (keeper is not None and keeper.checkpoints.due):
                _check_weights(state.net, step, rate)
                keep()
            if asked:
                raise Stopped(f"stopped after step {step} ({state.share:.0%})", signal=asked)
    return state.mean.cpu().eval(), state.quality, state.step


def _begin(
    contract: Contract, device: torch.device, seed: int, weights: dict[str, torch.Tensor] | None = None
) -> State:
    net, recipe = _new_network(contract, device, seed), contract.recipe
    if weights is not None:
        net.load_state_dict(weights)
    scaled = mixed_precision(device) is torch.float16
    return State(
        net,
        copy.deepcopy(net) if recipe.optimiser.averaging > 0 else net,
        _optimiser(net, recipe),
        torch.amp.GradScaler(device.type, enabled=scaled),
    )


def _look(watch: Watch, state: State, energy: float, scores: torch.Tensor, batch: Batch) -> str:
    return watch.look(state.step, state.share, energy, scores, batch.labels)


def _key(seed: int, step: int, processes: Processes) -> tuple[int, ...]:
    """Key of the random numbers that a network draws in a step (dropout)."""
    return (seed, step) if processes.first else (seed, step, processes.rank)


def _step(
    state: State,
    network: torch.nn.Module,
    batch: Batch,
    recipe: Recipe,
    rate: float,
    *,
    key: tuple[int, ...] = (0, 0),
    total: Total = alone,
) -> tuple[float, torch.Tensor]:
    """Do one step: forward, energy, backward, weights, their running mean.

    Returns
    -------
    energy : float
    scores : Tensor of float, shape (batch, classes, rows, columns)
        Of the classes, without a gradient.
    """
    state.net.train()
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    device = batch.images.device
    with autocast(device, mixed_precision(device)):
        scores = network(batch.images, averaged=True)
    energy = _energy(scores, batch, recipe.energy, total)
    if device.type == "cpu" and not bool(torch.isfinite(energy)):  # weights are still good; a GPU would have to wait
        raise TrainingError(_why_not_finite(state.step + 1, float(energy), rate, batch))
    state.optimiser.zero_grad(set_to_none=True)
    state.scaler.scale(energy).backward()  # type: ignore[no-untyped-call]
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.step += 1
    _follow(state.mean, state.net, recipe.optimiser.averaging, state.step)
    value = float(energy.detach())
    if not math.isfinite(value):
        raise TrainingError(_why_not_finite(state.step, value, rate, batch))
    return value, scores.detach()[:, : scores.shape[1] - (batch.distance is not None)]


def _validate(
    state: State, job: Job, clock: Clock, rate: float, on_validation: OnValidation | None, *, first: bool
) -> None:
    """Score the network on the held-out images; what that takes, the clock keeps free for those to come."""
    state.pending = [at for at in state.pending if at > state.share]
    _check_weights(state.net, state.step, rate)
    if not first:
        return
    began = clock.now()
    evaluation = validate(state.mean, job.held_out, job.contract)
    if on_validation is not None:
        on_validation(state.step, evaluation)
    state.quality = dict(evaluation.overall)
    state.pending = clock.validated(clock.now() - began, state.pending)
    if state.pending:
        clock.expect(job.rehearse(state.mean))


def _names(contract: Contract) -> list[str]:
    """Name the classes that the network tells apart."""
    if contract.task.kind == "instances":
        return ["background", "objects"]
    return [f"label {value}" for value in contract.task.values]


def check_seed(seed: int) -> None:
    """Raise InputError if a seed is none."""
    if not 0 <= seed < 2**63:
        raise InputError(f"a seed is a whole number from 0 to {2**63 - 1}, not {seed}")


def trial(contract: Contract, images: Sequence[TrainingImage], device: torch.device) -> Callable[[], None]:
    """Return a function that does one training step as `fit` does it, of a network that is thrown away.

    A device that is no CPU has its batches made meanwhile, and so is not asked to wait for them.
    """
    state = _begin(contract, device, seed=0)
    batches = _batches(images, contract, seed=0, ahead=0)
    ready = None if device.type == "cpu" else _to_device(next(batches), device)
    rate = contract.recipe.optimiser.learning_rate

    def step() -> None:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            _step(state, state.net, ready or _to_device(next(batches), device), contract.recipe, rate)

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
    tiles, depth = recipe.tiles, recipe.network.core.depth
    size = f"batch = {tiles.batch // 2}" if tiles.batch > 1 else f"size = {tiles.size // 2 >> depth << depth}"
    if tiles.batch == 1 and recipe.network.padding == "none":
        size = f"size = {nearest_valid_inputs(tiles.size // 2, depth)[0]}"
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


def _energy(scores: torch.Tensor, batch: Batch, config: EnergyConfig, total: Total = alone) -> torch.Tensor:
    distance, scores = (scores[:, -1], scores[:, :-1]) if batch.distance is not None else (None, scores)
    energy = weighted_cross_entropy(scores, batch.labels, batch.weights, total=total)
    if config.dice > 0:
        energy = energy + config.dice * dice_term(scores, batch.labels, batch.weights, total=total)
    if distance is not None and batch.distance is not None:
        energy = energy + config.distance * distance_term(distance, batch.distance, batch.labels, total=total)
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


def _batches(
    images: Sequence[TrainingImage],
    contract: Contract,
    *,
    seed: int,
    ahead: int,
    start: int = 0,
    processes: Processes = ALONE,
) -> Iterator[Batch]:
    """Make the batches of all steps from `start` in order, `ahead` of them in advance by threads."""
    recipe = contract.recipe
    samples = processes.samples(recipe.tiles.batch)

    def make(step: int) -> Batch:
        return draw_batch(
            images, recipe.tiles, recipe.augmentation, margin=margin(contract.network), seed=seed, step=step,
            samples=samples,
        )  # fmt: skip

    if ahead == 0:
        yield from map(make, itertools.count(start))
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        queue: list[Future[Batch]] = [pool.submit(make, step) for step in range(start, start + ahead)]
        for step in itertools.count(start + ahead):
            queue.append(pool.submit(make, step))
            yield queue.pop(0).result()


def _ahead(device: torch.device) -> int:
    """How many batches to make in advance: on a CPU none.

    Operations of a second thread take the cores from those of the network, which at each of them wait for the slowest
    core: a step on two cores took 1.3 times as long. With one core for that thread nothing was gained either.
    """
    return READ_AHEAD if device.type != "cpu" else 0


def _to_device(batch: Batch, device: torch.device) -> Batch:
    images = batch.images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    maps = (None if one is None else one.to(device, non_blocking=True) for one in (batch.weights, batch.distance))
    return Batch(images, batch.labels.to(device, non_blocking=True), *maps)


def _why_not_finite(step: int, energy: float, rate: float, batch: Batch) -> str:
    if not bool(torch.isfinite(batch.images).all()):
        return f"step {step}: an image holds values that are not finite (NaN or infinite); mend or remove it"
    return f"step {step}: the energy became {energy} {_run_away(rate)}"


def all_finite(net: UNet) -> bool:
    """Whether all weights and statistics of a network are numbers."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values())


def _check_weights(net: UNet, step: int, rate: float) -> None:
    """Raise TrainingError if the last step has spoilt the weights, which no energy shows any more."""
    if not all_finite(net):
        raise TrainingError(f"step {step}: the weights are no longer finite {_run_away(rate)}")


def _run_away(rate: float) -> str:
    return (
        f"at a learning rate of {rate:.1e}, training has run away; "
        f'try a tenth of the learning rate, or normalisation = "batch" in the recipe\'s [network]'
    )

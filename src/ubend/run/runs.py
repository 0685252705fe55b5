"""A run in a folder: model, recipe, log and checkpoints. Stopped at any moment, it goes on as if it had not been."""

import contextlib
import csv
import dataclasses
import datetime
import inspect
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ubend.data.annotated import Annotated, find_pairs, read_pairs
from ubend.data.formats import check_writable, write_atomically
from ubend.errors import FileError, InputError, Stopped, TrainingError, UbendError
from ubend.run.checkpoint import FOLDER, Checkpoint, Checkpoints, part_of
from ubend.run.clock import Clock
from ubend.run.contract import Contract
from ubend.run.folds import FoldsState, OnFolds
from ubend.run.keeper import Keeper
from ubend.run.model import FILE_NAME, Model, load, network_of
from ubend.run.processes import Processes, joined, told_if_gone
from ubend.run.recipe import Recipe, load_recipe, recipe_from_dict, to_toml
from ubend.run.stopping import Signals
from ubend.run.training import OnStep, Progress, train, versions

RECIPE, LOG, FOLDS, REPORT = "recipe.toml", "log.csv", "folds.csv", "report.html"
"""What a run leaves beside its model."""
ASKED = ("recipe", "minutes", "steps", "task", "ignore", "seed", "folds")
"""Choices that a run which goes on keeps."""


def train_folder(
    data: str | Path,
    out: str | Path,
    *,
    labels: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str | None = None,
    clock: Clock | None = None,
    on_step: OnStep | None = None,
    on_folds: OnFolds | None = None,
    **choices: Any,
) -> Model:
    """Train on a folder and leave model.safetensors, recipe.toml and log.csv in the folder `out`; folds.csv with folds.

    While it lasts, a run keeps checkpoints in a folder of its own beside them. SIGINT (Ctrl-C) and SIGTERM end it after
    the step that it is at, with a checkpoint and the model so far.

    Parameters
    ----------
    data, out : str or Path
        Folder with images and labels; folder of the run.
    labels : str, optional
        Name of the label folder, if there are several.
    overwrite : bool
        Whether another run in `out` may be replaced.
    resume : bool
        Go on with the run in `out`; it keeps what it was asked for. One that is done is returned as it is, and where
        there is none, one begins: the same call may be given as often as it is stopped.
    device, clock, on_step, on_folds, **choices
        As in `training.train`.

    Raises
    ------
    FileError
        If `out` already holds a run and neither `overwrite` nor `resume` is given, or is no folder.
    InputError
        If a run that goes on is asked for something else, or its images have changed.
    Stopped
        If a signal has stopped the run, or another of several processes has gone.
    TrainingError
        If training came to nonsense; the last good model is kept.
    """
    if unknown := [name for name in choices if name not in ASKED and not name.startswith("on_")]:
        raise TypeError(f"train_folder knows no {', '.join(unknown)}")
    out, clock = Path(out), clock or Clock()
    checkpoints = Checkpoints(out / FOLDER)
    if resume and overwrite:
        raise InputError("say --resume to go on with a run or --overwrite to begin anew, not both")
    saved = checkpoints.latest() if resume else None
    _check_complete(saved, checkpoints)
    if resume and saved is None and (out / FILE_NAME).is_file():
        return _done(out, choices, device)
    if saved is None:
        check_free(out, (FILE_NAME, RECIPE, LOG, FOLDS), overwrite=overwrite)
        check_no_run(checkpoints, overwrite=overwrite)
    recipe, asked = _settled(saved, choices)
    checkpoints.minutes = recipe.training.checkpoint_minutes
    asked |= {"recipe": recipe}
    with joined(device) as (processes, device), Signals() as signals, contextlib.ExitStack() as files:
        annotated = read_pairs(find_pairs(data, labels=labels))
        _check_shared(saved, out, processes)
        if saved is not None and processes.first:
            checkpoints.lock()
        files.callback(checkpoints.unlock)
        keeper = Keeper(checkpoints, signals, saved, about={"asked": _as_json(asked)})
        table: list[list[str | float]] = []
        calls = {name: call if processes.first else None for name, call in choices.items() if name.startswith("on_")}
        log = _Log(out / LOG, files) if processes.first else None

        def record(progress: Progress) -> object:
            if log is not None and not progress.fold:  # the log is that of the model
                log.record(progress)
            return on_step(progress) if on_step is not None and processes.first else None

        def keep(state: FoldsState) -> None:
            if state.of_all is not None:
                names, *rows = state.of_all.to_table()
                table.append(["image", "fold", *names[1:]])
                table.extend([row[0], fold, *row[1:]] for row, fold in zip(rows, state.dealt.fold_of, strict=True))
            if on_folds is not None and processes.first:
                on_folds(state)

        model = _train(
            annotated, out, keeper, processes,
            clock=clock, device=device, on_step=record, on_folds=keep, **calls, **asked,
        )  # fmt: skip
        if not processes.first:
            return model
        again = overwrite or saved is not None
        if table:
            _write_table(out / FOLDS, table, overwrite=again)
        elif again:
            (out / FOLDS).unlink(missing_ok=True)  # of the model that is replaced
        model.save(out / FILE_NAME, overwrite=again)
        text = to_toml(model.contract.recipe)
        write_atomically(out / RECIPE, lambda path: path.write_text(text, encoding="utf-8"), overwrite=again)
        checkpoints.remove()
    return model


def _train(images: Sequence[Annotated], out: Path, keeper: Keeper, processes: Processes, **choices: Any) -> Model:
    """Train; where that is stopped, leave the model so far, and say how to go on."""
    try:
        with told_if_gone():
            return train(images, keeper=keeper, processes=processes, **choices)
    except Stopped as stopped:
        with keeper.signals.deferring():
            said = _left(out, keeper) if processes.first else "the first process has the checkpoints"
        raise Stopped(f"{stopped}; {said}", signal=stopped.signal) from stopped
    except TrainingError as error:
        if processes.first and keeper.begun and (left := so_far(keeper.checkpoints.latest())) is not None:
            _save_so_far(left, out)
            steps = left.contract.provenance["steps"]
            raise TrainingError(
                f"{error}. The last good model, of step {steps}, is in {out}; begin anew with --overwrite"
            ) from error
        raise
    except FileError as error:
        if keeper.begun and processes.first:
            raise FileError(f"{error}; {out} holds the checkpoints until then: go on with --resume") from error
        raise


def _done(out: Path, choices: dict[str, Any], device: str | None) -> Model:
    """Return the model of a run that is done, if it is the one that is asked for."""
    model = load(out, device=device)
    made, length = model.contract.provenance, model.contract.recipe.training
    if "stopped" in made:
        raise FileError(
            f"{out} holds the model of a run that was stopped, and its checkpoints are gone: "
            f"begin anew with --overwrite"
        )
    was = {"steps": length.steps or None, "minutes": length.minutes or None, "seed": made.get("seed")}
    if "folds" in made:  # a length is that of each training, minutes those of all
        was["minutes"] = None if was["minutes"] is None else was["minutes"] * (made["folds"]["number"] + 1)
    for name, stored in was.items():
        given, usual = choices.get(name), inspect.signature(train).parameters[name].default
        if given is not None and given != usual and (stored is None or abs(given - stored) > 1e-6 * abs(given)):
            raise InputError(
                f"{out} holds a run that is done, with {name} {stored}, not {given}: begin anew with --overwrite"
            )
    return model


def _check_complete(saved: Checkpoint | None, checkpoints: Checkpoints) -> None:
    """Raise FileError if a checkpoint is whole but none of a run: somebody else has written it."""
    if saved is None:
        return
    state = saved.state
    try:
        Contract.from_dict(state["job"]["contract"])
        recipe_from_dict(state["asked"]["recipe"])
        Clock(now=lambda: 0.0).resume(state["clock"])
        numbers = [state["step"], state["fold"], state["processes"], state["share"], state["elapsed"], state["waited"]]
        sound = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        sound = sound and isinstance(state["run"], str) and tuple(state["asked"]) == ASKED
        sound = sound and {"machine", "images", "pending", "quality", "scaler", "watch"} <= state.keys()
    except (UbendError, KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise FileError(f"the checkpoint in {checkpoints.folder} is none that ubend train wrote: remove the folder")


def _check_shared(saved: Checkpoint | None, out: Path, processes: Processes) -> None:
    """Raise InputError if this process does not see the checkpoint that the first goes on from."""
    here = [0, 0] if saved is None else [saved.state["fold"], saved.state["step"]]
    if processes.told(here) != here:
        raise InputError(f"this process finds another checkpoint in {out} than the first: all must share that folder")


def _left(out: Path, keeper: Keeper) -> str:
    """Write the model so far; say what is left and how to go on."""
    saved = keeper.checkpoints.latest() if keeper.begun else None
    if saved is None:
        return "nothing was trained yet"
    model = so_far(saved)
    if model is not None:
        _save_so_far(model, out)
    what = "a checkpoint" if model is None else "the model so far and a checkpoint"
    return f"{out} holds {what}: go on by the same command with --resume"


def _save_so_far(model: Model, out: Path) -> None:
    """Write the model of a run that has not ended; what another run left beside one that it replaces goes."""
    model.save(out / FILE_NAME, overwrite=True)
    text = to_toml(model.contract.recipe)
    write_atomically(out / RECIPE, lambda path: path.write_text(text, encoding="utf-8"), overwrite=True)
    for stale in (FOLDS, REPORT):
        (out / stale).unlink(missing_ok=True)


def so_far(saved: Checkpoint | None) -> Model | None:
    """Return the model of a checkpoint; None if training of the model itself had not begun."""
    if saved is None or saved.state["fold"] or not saved.state["step"]:
        return None
    contract = Contract.from_dict(saved.state["job"]["contract"])
    network = network_of(contract.network, part_of(saved.tensors, "mean.") or part_of(saved.tensors, "net."))
    state = saved.state
    provenance = contract.provenance | {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "images": dict(state["images"][0]),
        "held_out": dict(state["images"][1]),
        "steps": state["step"],
        "minutes": round(state["elapsed"] / 60, 2),
        "seed": state["asked"]["seed"],
        "versions": versions(),
        "stopped": round(state["share"], 4),
    }
    known = {name: score for name, score in state["quality"].items() if math.isfinite(score)}  # NaN is no JSON
    return Model(network.eval(), replace(contract, quality=known, provenance=provenance))


def _settled(saved: Checkpoint | None, choices: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe and the other choices of a run: those it was begun with, where it goes on.

    Raises
    ------
    InputError
        If it goes on and is asked for something else.
    """
    usual = {name: inspect.signature(train).parameters[name].default for name in ASKED}
    given = {name: choices.get(name, usual[name]) for name in ASKED}
    recipe = given["recipe"] if isinstance(given["recipe"], Recipe) else load_recipe(given["recipe"])
    if saved is None:
        return recipe, given
    begun = saved.state["asked"]
    for name in ASKED:
        stored = begun[name]
        now = _as_json({"recipe": recipe})["recipe"] if name == "recipe" else given[name]
        if given[name] not in (usual[name], None) and now != stored:
            said = "another recipe" if name == "recipe" else f"{name} {stored}, not {now}"
            raise InputError(f"the run was begun with {said}: resume it with the same, or begin anew with --overwrite")
    return recipe_from_dict(begun["recipe"]), {name: begun[name] for name in ASKED}


def _as_json(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: dataclasses.asdict(value) if isinstance(value, Recipe) else value for name, value in asked.items()}


class _Log:
    """The log of a run, a row a step; where the run goes on, rows of steps that are done again are dropped."""

    def __init__(self, path: Path, files: contextlib.ExitStack) -> None:
        self._path, self._files = path, files
        self._row: Callable[[Sequence[Any]], Any] | None = None

    def record(self, progress: Progress) -> None:
        if self._row is None:  # with the first step: a run that never begins leaves nothing
            self._begin(progress.step)
        if self._row is not None:
            self._row([progress.step, f"{progress.seconds:.2f}", f"{progress.energy:.6f}",
                       f"{progress.learning_rate:.3e}", f"{progress.waiting:.4f}"])  # fmt: skip

    def _begin(self, step: int) -> None:
        kept: list[list[str]] = [["step", "seconds", "energy", "learning_rate", "waiting"]]
        if step > 1 and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                kept += [row for row in csv.reader(file) if len(row) == 5 and row[0].isdecimal() and int(row[0]) < step]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _write_table(self._path, kept, overwrite=True)
        file = self._files.enter_context(self._path.open("a", newline="", encoding="utf-8", buffering=1))
        self._row = csv.writer(file).writerow


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


def check_no_run(checkpoints: Checkpoints, *, overwrite: bool) -> None:
    """Raise FileError if there is a run that has been stopped."""
    if checkpoints.exist() and not overwrite:
        raise FileError(
            f"{checkpoints.folder.parent} holds a run that was stopped: go on with --resume, or say --overwrite"
        )

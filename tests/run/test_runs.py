"""A run in a folder: what it leaves, and that it can be stopped at any moment."""

import csv
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ubend.data.annotated import find_pairs, read_pairs
from ubend.errors import FileError, InputError, Stopped, TrainingError
from ubend.method.network import NetworkConfig
from ubend.run import training
from ubend.run.checkpoint import Checkpoints
from ubend.run.model import load
from ubend.run.recipe import TrainingConfig, load_recipe
from ubend.run.runs import train_folder
from ubend.run.training import train


def weights(model):
    return model.network.state_dict()


def same(one, two):
    return all(torch.equal(value, weights(two)[key]) for key, value in weights(one).items())


def logged(run, *columns):
    rows = csv.DictReader((run / "log.csv").read_text().splitlines())
    return [tuple(row[column] for column in columns) for row in rows]


def often(recipe, **changes):
    """The same recipe with a checkpoint after every step."""
    return replace(recipe, training=TrainingConfig(checkpoint_minutes=1e-9, **changes))


def stop_at(step, by=signal.SIGTERM, fold=0):
    """Send this process a signal in the middle of a step."""

    def on_step(progress):
        if progress.step == step and progress.fold == fold:
            os.kill(os.getpid(), by)

    return on_step


@pytest.fixture
def folder(discs, write_folder):
    return write_folder(*discs)


def test_a_run_leaves_model_recipe_and_log(folder, tiny, tmp_path, discs):
    out = tmp_path / "run"
    model = train_folder(folder, out, recipe=tiny, steps=3, device="cpu")
    assert sorted(path.name for path in out.iterdir()) == ["log.csv", "model.safetensors", "recipe.toml"]
    assert (load(out).segment(discs[0][0]) == model.segment(discs[0][0])).all()
    assert load_recipe(out / "recipe.toml") == model.contract.recipe
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["energy"]) > 0
    assert same(model, train(folder, recipe=tiny, steps=3, device="cpu"))
    assert same(model, train(read_pairs(find_pairs(folder)), recipe=tiny, steps=3, device="cpu"))


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.toml", "log.csv"])
def test_a_run_replaces_nothing(name, folder, tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(FileError, match=f"run already holds {name}; choose another folder or say --overwrite"):
        train_folder(folder, tmp_path / "run", recipe=tiny, steps=1)
    assert (tmp_path / "run" / name).read_text() == "mine"
    train_folder(folder, tmp_path / "run", recipe=tiny, steps=1, overwrite=True)
    assert (tmp_path / "run" / name).read_bytes() != b"mine"


def test_a_run_that_never_begins_leaves_nothing(folder, tiny, tmp_path):
    with pytest.raises(InputError, match="not both"):
        train_folder(folder, tmp_path / "run", recipe=tiny, steps=1, minutes=1.0)
    with pytest.raises(FileError, match="no folder"):
        train_folder(tmp_path / "none", tmp_path / "run", recipe=tiny, steps=1)
    assert not (tmp_path / "run").exists()


def test_out_is_a_folder(folder, tiny, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FileError, match="run is a file, not a folder: nothing can be written"):
        train_folder(folder, tmp_path / "run", recipe=tiny, steps=1)


# stopped, and going on


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_resumed_it_ends_with_the_same_weights(by, folder, tiny, tmp_path):
    """Also with dropout, momentum of AdamW, averaged weights and validations."""
    recipe = replace(tiny, network=replace(tiny.network, dropout=0.3),
                     optimiser=replace(tiny.optimiser, averaging=0.2))  # fmt: skip
    out, other = tmp_path / "run", tmp_path / "other"
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    whole = train_folder(folder, other, recipe=recipe, steps=9, device="cpu", seed=5)
    with pytest.raises(
        Stopped, match=r"stopped after step 4 \(44%\); .*run holds the model so far .* with --resume"
    ) as e:
        train_folder(folder, out, recipe=recipe, steps=9, device="cpu", seed=5, on_step=stop_at(4, by))
    assert e.value.signal == by
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    so_far = load(out)
    assert so_far.contract.provenance["steps"] == 4
    assert so_far.contract.provenance["stopped"] == 0.4444
    assert so_far.segment(np.zeros((20, 20), np.uint8)).shape == (20, 20)
    seen, told = [], []
    again = train_folder(folder, out, resume=True, on_step=seen.append, on_resume=told.append)  # keeps what was asked
    assert [progress.step for progress in seen] == [5, 6, 7, 8, 9]
    assert (told[0].step, told[0].fold, told[0].notes) == (4, 0, [])
    assert same(whole, again)
    assert again.contract.quality == whole.contract.quality
    assert again.contract.objects == whole.contract.objects
    assert "stopped" not in load(out).contract.provenance
    assert sorted(path.name for path in out.iterdir()) == ["log.csv", "model.safetensors", "recipe.toml"]
    assert logged(out, "step", "energy") == logged(other, "step", "energy")


@pytest.mark.parametrize("kind", ["sgd", "nesterov"])
@pytest.mark.parametrize("padding", ["none", "same"])
def test_also_with_the_optimisers_of_the_paper(kind, padding, folder, tiny, tmp_path):
    recipe = replace(tiny, optimiser=replace(tiny.optimiser, kind=kind, learning_rate=1e-3))
    if padding == "none":
        network = NetworkConfig(width=4, depth=1, padding="none", normalisation="none", dropout=0.5)
        recipe = replace(recipe, network=network, tiles=replace(tiny.tiles, size=60))
    whole = train_folder(folder, tmp_path / "other", recipe=recipe, steps=6)
    with pytest.raises(Stopped):
        train_folder(folder, tmp_path / "run", recipe=recipe, steps=6, on_step=stop_at(3))
    assert same(whole, train_folder(folder, tmp_path / "run", resume=True))


@pytest.mark.parametrize(("fold", "step"), [(1, 2), (2, 1), (2, 3), (0, 2)])
def test_a_run_of_folds_goes_on_in_its_fold(fold, step, folder, tiny, tmp_path):
    whole = train_folder(folder, tmp_path / "other", recipe=tiny, steps=3, folds=2, task="instances")
    out = tmp_path / "run"
    with pytest.raises(Stopped) as e:
        train_folder(folder, out, recipe=tiny, steps=3, folds=2, task="instances", on_step=stop_at(step, fold=fold))
    assert ("the model so far" in str(e.value)) == (fold == 0) == (out / "model.safetensors").exists()
    trained = []
    again = train_folder(folder, out, resume=True, on_step=lambda p: trained.append((p.fold, p.step)))
    folds = len(read_pairs(find_pairs(folder)))  # fewer than five images: each is one
    expected = [(k, s) for k in [*range(1, folds + 1), 0] for s in (1, 2, 3)]
    assert trained == expected[expected.index((fold, step)) + 1 :]
    assert same(whole, again)
    assert again.contract.quality == whole.contract.quality
    assert (out / "folds.csv").read_text() == (tmp_path / "other" / "folds.csv").read_text()
    assert not (out / "checkpoint").exists()


def test_a_timed_run_goes_on_for_the_rest_of_its_time(folder, tiny, tmp_path):
    last = []

    def stop(progress):
        last.append(progress)
        if progress.share > 0.4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train_folder(folder, tmp_path / "run", recipe=tiny, minutes=0.05, on_step=stop)
    seen = []
    model = train_folder(folder, tmp_path / "run", resume=True, on_step=seen.append)
    assert seen[0].step == last[-1].step + 1
    assert seen[0].share >= last[-1].share
    assert seen[0].learning_rate <= last[-1].learning_rate
    assert seen[0].seconds < last[-1].seconds + 1  # reading the images again does not count
    assert seen[-1].share == 1
    assert model.contract.provenance["minutes"] < 0.1


def test_where_nothing_is_to_resume_a_run_begins(folder, tiny, tmp_path):
    """One command in a script of a scheduler, however often it is started."""
    out, steps = tmp_path / "run", []
    first = train_folder(folder, out, recipe=tiny, steps=3, resume=True, on_step=steps.append)
    done = train_folder(folder, out, recipe=tiny, steps=3, resume=True, on_step=steps.append)
    assert len(steps) == 3
    assert same(first, done)


def test_a_stopped_run_is_not_replaced_without_being_asked(folder, tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=tiny, steps=3, on_step=stop_at(2))
    for name in ("model.safetensors", "log.csv", "recipe.toml"):
        (out / name).unlink()
    with pytest.raises(FileError, match="run holds a run that was stopped: go on with --resume, or say --overwrite"):
        train_folder(folder, out, recipe=tiny, steps=3)
    with pytest.raises(InputError, match="not both"):
        train_folder(folder, out, recipe=tiny, steps=3, resume=True, overwrite=True)
    seen = []
    train_folder(folder, out, recipe=tiny, steps=2, overwrite=True, on_step=seen.append)
    assert [progress.step for progress in seen] == [1, 2]
    assert not (out / "checkpoint").exists()


def test_a_stopped_run_leaves_nothing_of_the_one_it_replaces_beside_its_model(folder, tiny, tmp_path):
    out = tmp_path / "run"
    train_folder(folder, out, recipe=tiny, steps=1, folds=2)
    (out / "report.html").write_text("of the first")
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=often(tiny), steps=3, overwrite=True, on_step=stop_at(2))
    names = sorted(path.name for path in out.iterdir())
    assert names == ["checkpoint", "log.csv", "model.safetensors", "recipe.toml"]
    assert load_recipe(out / "recipe.toml") == load(out).contract.recipe


def test_what_replaces_a_stopped_run_and_never_begins_leaves_it(folder, tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=tiny, steps=3, on_step=stop_at(2))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError):
        train_folder(folder, out, recipe=tiny, steps=3, seed=-1, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": 4}, "begun with steps 3, not 4"),
        ({"minutes": 1.0}, "begun with minutes None, not 1.0"),
        ({"seed": 1}, "begun with seed 7, not 1"),
        ({"folds": 2}, "begun with folds None, not 2"),
        ({"task": "classes"}, "begun with task None, not classes"),
        ({"recipe": "paper"}, "begun with another recipe"),
    ],
)
def test_a_run_that_goes_on_is_asked_for_the_same(changed, said, folder, tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=tiny, steps=3, seed=7, on_step=stop_at(1))
    with pytest.raises(InputError, match=f"{said}.*resume it with the same, or begin anew with --overwrite"):
        train_folder(folder, out, resume=True, **changed)
    train_folder(folder, out, recipe=tiny, steps=3, seed=7, resume=True)


def test_a_run_goes_on_with_the_same_images(folder, tiny, tmp_path):
    with pytest.raises(Stopped):
        train_folder(folder, tmp_path / "run", recipe=tiny, steps=3, on_step=stop_at(1))
    for part in ("images", "masks"):
        (folder / part / "disc_0.tif").rename(folder / part / "new.tif")
    with pytest.raises(InputError, match=r"not the images that the run was begun with: .*disc_0.* is missing"):
        train_folder(folder, tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder, tiny, tmp_path):
    recipe, out = often(tiny), tmp_path / "run"
    whole = train_folder(folder, tmp_path / "other", recipe=recipe, steps=6)
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=recipe, steps=6, on_step=stop_at(4))
    _, last = sorted((out / "checkpoint").iterdir())
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    told = []
    again = train_folder(folder, out, resume=True, on_resume=told.append)
    assert told[0].step == 3
    assert told[0].notes == [f"{last.name} was damaged: the one before counts."]
    assert same(whole, again)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.clear(),
        lambda state: state.pop("asked"),
        lambda state: state["asked"].pop("seed"),
        lambda state: state["job"]["contract"].pop("network"),
        lambda state: state.update(step="many"),
        lambda state: state.update(clock=[]),
        lambda state: state.update(job=None),
    ],
)
def test_a_checkpoint_of_somebody_else_is_refused(spoil, folder, tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=tiny, steps=6, on_step=stop_at(1))
    kept = Checkpoints(out / "checkpoint")
    saved = kept.latest()
    spoil(saved.state)
    kept.write(saved.tensors, saved.state)
    kept.unlock()
    with pytest.raises(FileError, match="is none that ubend train wrote: remove the folder"):
        train_folder(folder, out, resume=True)


def test_if_all_are_damaged_it_says_so(folder, tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=tiny, steps=6, on_step=stop_at(4))
    for path in (out / "checkpoint").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match=r"all checkpoints in .* are damaged .*: train anew with --overwrite"):
        train_folder(folder, out, resume=True)


def test_another_number_of_threads_is_told(folder, tiny, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        train_folder(folder, tmp_path / "run", recipe=tiny, steps=3, on_step=stop_at(1))
    monkeypatch.setattr(training, "machine", lambda _device: {"threads": 64, "processor": "other", "torch": "1"})
    told = []
    train_folder(folder, tmp_path / "run", resume=True, on_resume=told.append)
    assert "Not to the last digit what it would have been: threads 64 for" in told[0].notes[0]


def test_nonsense_leaves_the_last_good_model(folder, tiny, tmp_path, monkeypatch):
    step = training._step

    def spoilt(state, *args, **kwargs):
        if state.step == 4:
            raise TrainingError("step 5: the energy became nan")
        return step(state, *args, **kwargs)

    monkeypatch.setattr(training, "_step", spoilt)
    with pytest.raises(TrainingError, match=r"became nan\. The last good model, of step 4, is in .*run; begin anew"):
        train_folder(folder, tmp_path / "run", recipe=tiny, steps=9)  # no checkpoint on the way
    assert load(tmp_path / "run").contract.provenance["steps"] == 4


@pytest.mark.parametrize(("kills", "steps"), [(5, 70), pytest.param(20, 250, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_with_the_same_weights(kills, steps, folder, tiny, tmp_path):
    """SIGKILL at random moments of a real run: in a step, in a validation, while it writes a checkpoint."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["ubend.run.runs"])
    moments, out = random.Random(0), tmp_path / "run"

    def begin(folder_of_run):
        choices = {"recipe": often(tiny), "steps": steps, "resume": True, "device": "cpu", "seed": 3}
        process = start.Process(target=train_folder, args=(folder, folder_of_run), kwargs=choices)
        process.start()
        return process

    def newest():
        return max((path.name[:6] for path in (out / "checkpoint").glob("0*.safetensors")), default="")

    def killed_after(checkpoints):
        """Start or resume the run, and kill it soon after so many checkpoints; whether it was in its training."""
        process, seen = begin(out), {newest()}
        while process.is_alive() and len(seen) <= checkpoints:
            seen.add(newest())
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        return len(seen) > 1

    whole = begin(tmp_path / "other")
    killed = sum(killed_after(moments.randrange(1, 10)) for _ in range(kills))
    last = begin(out)
    for process in (whole, last):
        process.join()
        assert process.exitcode == 0
    assert killed >= kills - 1
    assert same(load(tmp_path / "other"), load(out))
    assert logged(out, "step", "energy") == logged(tmp_path / "other", "step", "energy")


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.parametrize(
    "place", ["training.validate", "training.tune_objects", "model.Model.save", "runs.write_atomically", "remove"]
)
def test_killed_at_the_end_it_ends_with_the_same_weights(place, folder, tiny, tmp_path, monkeypatch):
    out, other = tmp_path / "run", tmp_path / "other"
    choices = {"recipe": often(tiny), "steps": 6, "task": "instances", "folds": 2 if place == "remove" else None}
    whole = train_folder(folder, other, **choices)

    def killed(*_arguments, **_choices):
        raise Killed

    def removed_in_part(checkpoints):
        for path in sorted(checkpoints.folder.iterdir())[-2:]:
            path.unlink()
        raise Killed

    with monkeypatch.context() as patch:
        if place == "remove":
            patch.setattr("ubend.run.checkpoint.Checkpoints.remove", removed_in_part)
        else:
            patch.setattr(f"ubend.run.{place}", killed)
        with pytest.raises(Killed):
            train_folder(folder, out, **choices)
    again = train_folder(folder, out, resume=True)
    assert same(whole, again)
    assert again.contract.objects == whole.contract.objects
    assert again.contract.quality == whole.contract.quality
    assert not (out / "checkpoint").exists()


def test_a_run_takes_nothing_from_the_folds_of_one_that_it_replaces(folder, tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=tiny, steps=3, folds=2, on_step=stop_at(2, fold=3))
    seen = []
    wider = replace(tiny, network=replace(tiny.network, width=5))
    train_folder(folder, out, recipe=wider, steps=2, folds=2, overwrite=True, on_step=lambda p: seen.append(p.fold))
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4, 0, 0]


@pytest.mark.parametrize(("asked", "said"), [({"steps": 4}, "steps 3, not 4"), ({"seed": 9}, "seed 7, not 9")])
def test_a_run_that_is_done_is_the_one_asked_for(asked, said, folder, tiny, tmp_path):
    train_folder(folder, tmp_path / "run", recipe=tiny, steps=3, seed=7)
    train_folder(folder, tmp_path / "run", recipe=tiny, steps=3, seed=7, resume=True)
    with pytest.raises(InputError, match=f"run that is done, with {said}: begin anew with --overwrite"):
        train_folder(folder, tmp_path / "run", recipe=tiny, resume=True, **asked)


def test_a_model_of_a_stopped_run_is_not_taken_for_the_whole(folder, tiny, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train_folder(folder, out, recipe=tiny, steps=3, on_step=stop_at(2))
    for path in (out / "checkpoint").iterdir():
        path.unlink()
    with pytest.raises(FileError, match="was stopped, and its checkpoints are gone: begin anew with --overwrite"):
        train_folder(folder, out, resume=True)


def test_a_full_disk_on_the_way_says_how_to_go_on(folder, tiny, tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"holds the checkpoints until then: go on with --resume"):
        train_folder(folder, tmp_path / "run", recipe=often(tiny), steps=9)
    monkeypatch.undo()
    whole = train_folder(folder, tmp_path / "other", recipe=often(tiny), steps=9)
    assert same(whole, train_folder(folder, tmp_path / "run", resume=True))

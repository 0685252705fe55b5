"""Everything trains; the minutes are kept; a run by steps knows no machine."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from ubend.data.annotated import Annotated, infer_task
from ubend.data.simulated import simulate
from ubend.errors import OutOfMemory
from ubend.run import planning, training
from ubend.run.clock import CLOSING, Clock
from ubend.run.model import load
from ubend.run.planning import SELDOM, VALIDATED_AT, plan_job
from ubend.run.preparation import hold_out
from ubend.run.recipe import BudgetConfig, TrainingConfig, load_recipe, to_toml
from ubend.run.training import train

FREE = BudgetConfig(width=True, depth=True, size=True, batch=True)


class Simulated:
    """A machine whose time only passes when it steps, validates or chooses rules, each with fluctuations."""

    def __init__(self, monkeypatch, minutes, *, noise, tuning=0.05, validation=0.02, steps=60):
        self.time, self.rng, self.noise, self.budget = 0.0, np.random.default_rng(0), noise, 60 * minutes
        self.clock = Clock(lambda: self.time)
        self.slow(monkeypatch, training, "_energy", lambda *_: self.budget / steps)
        self.slow(monkeypatch, training, "validate", lambda *_: validation * self.budget)
        self.slow(monkeypatch, training, "prepare", lambda *_: 0.05 * self.budget)
        tuned = tuning * self.budget
        monkeypatch.setattr(
            planning, "tuning_cost", lambda _net, image, _contract: self.later(0) or tuned / image.labels.size / 4
        )
        monkeypatch.setattr(
            training, "tune_objects", lambda _net, _images, contract, **_: self.later(tuned) or contract
        )
        monkeypatch.setattr(planning, "fewer_pixels", lambda images, _pixels: list(images))

    def later(self, seconds):
        self.time += seconds * 2 ** self.rng.uniform(-self.noise, self.noise)

    def slow(self, monkeypatch, module, name, seconds):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **more: self.later(seconds(*args)) or function(*args, **more))


@pytest.mark.parametrize("noise", [0, 0.5])
@pytest.mark.parametrize("minutes", [1, 3, 10, 60, 600])
def test_a_run_takes_the_minutes_it_was_given(minutes, noise, discs, tiny, monkeypatch):
    """From `train` to the model; only what is written afterwards is missing."""
    images, masks = discs
    machine = Simulated(monkeypatch, minutes, noise=noise)
    shares = []
    train(images, [mask // 255 for mask in masks], task="instances", recipe=tiny, minutes=minutes, device="cpu",
          clock=machine.clock, on_step=lambda progress: shares.append(progress.share))  # fmt: skip
    assert machine.time + CLOSING == pytest.approx(60 * minutes, rel=0.05)
    assert shares[-1] == 1
    assert all(earlier <= later for earlier, later in pairwise(shares))


# all of these train


@pytest.fixture
def free(tiny):
    """The tiny network with everything else left to the data."""
    return replace(tiny, budget=replace(FREE, width=False), tiles=replace(tiny.tiles, size=256, batch=1))


def scenes(kind, number, *shape):
    made = [simulate(kind, np.random.default_rng(k), shape) for k in range(number)]
    return [one.image for one in made], [one.labels for one in made]


@pytest.mark.parametrize("number", [1, 2])
def test_one_image_and_two(number, free):
    images, labels = scenes("nuclei", number, 96, 96)
    model = train(images, labels, recipe=free, steps=2, device="cpu")
    assert model.contract.recipe.tiles.size == 96
    assert model.segment(images[0]).shape == (96, 96)


def test_tiny_images():
    images, labels = scenes("cells", 3, 32, 32)
    model = train(images, labels, recipe="default", steps=2, task="instances", device="cpu")
    recipe = model.contract.recipe
    assert (recipe.tiles.size, recipe.tiles.batch, recipe.network.depth) == (32, 16, 3)
    assert model.segment(images[0]).shape == (32, 32)


def test_images_of_mixed_sizes(free):
    images, labels = [], []
    for k, shape in enumerate([(32, 32), (100, 300), (257, 129), (64, 64)]):
        one = simulate("nuclei", np.random.default_rng(k), shape)
        images, labels = [*images, one.image], [*labels, one.labels]
    model = train(images, labels, recipe=free, steps=3, device="cpu")
    assert 100 <= model.contract.recipe.tiles.size <= 144
    assert model.segment(images[1]).shape == (100, 300)


@pytest.mark.parametrize("channels", [3, 7])
def test_channels(channels, free, discs):
    images = [np.stack([np.roll(image, k, axis=0) for k in range(channels)], -1) for image in discs[0]]
    model = train(images, discs[1], recipe=free, steps=2, device="cpu")
    assert model.contract.network.in_channels == channels
    assert model.segment(images[0]).shape == discs[1][0].shape


def stripes(number, classes, missing=None):
    """Images whose gray value tells the class; each lacks another class if asked to."""
    labels = [np.roll(np.repeat(np.arange(classes), 8), 5 * k)[None].repeat(64, axis=0) for k in range(number)]
    if missing is not None:
        labels = [np.where(one == missing(k), 0, one) for k, one in enumerate(labels)]
    return [(one * 20).astype(np.uint8) for one in labels], [one.astype(np.uint8) for one in labels]


def test_twelve_classes(free):
    images, labels = stripes(3, 12)
    model = train(images, labels, recipe=free, steps=2, task="classes", device="cpu")
    assert model.contract.network.classes == 12
    assert model.predict(images[0]).shape == (12, 64, 96)


@pytest.mark.parametrize("balance", ["none", "frequency"])
@pytest.mark.parametrize("seed", range(3))
def test_a_class_that_each_image_lacks(balance, seed, free):
    images, labels = stripes(4, 4, missing=lambda k: 1 + k % 3)
    recipe = replace(free, energy=replace(free.energy, balance=balance))
    model = train(images, labels, recipe=recipe, steps=2, task="classes", seed=seed, device="cpu")
    assert model.contract.task.values == (0, 1, 2, 3)
    assert np.isfinite(model.contract.quality["mean IoU"])


@pytest.mark.parametrize("seed", range(3))
def test_a_class_of_one_image_only_is_trained_on(seed, free):
    images, labels = stripes(4, 4, missing=lambda k: None if k == 2 else 3)
    model = train(images, labels, recipe=free, steps=1, task="classes", seed=seed, device="cpu")
    assert "image 2" in model.contract.provenance["images"]


@pytest.mark.slow
def test_a_huge_image(free):
    """8192×8192 by the clock: parts of it are prepared, and the model comes."""
    one = simulate("nuclei", np.random.default_rng(0), (512, 512))
    image = np.tile((one.image // 256).astype(np.uint8), (16, 16))
    model = train([image], [np.tile(one.labels, (16, 16))], recipe=free, minutes=0.5, device="cpu")
    assert any("there is no time to prepare more" in words for words in model.contract.provenance["plan"])


# a plan meets the machine


def annotated(number, *shape):
    """Images of squares of 10 px, each a cell."""
    rows, columns = np.indices(shape)
    cells = np.where((rows % 20 < 10) & (columns % 20 < 10), 1 + rows // 20 * 1000 + columns // 20, 0)
    return [Annotated(f"{k}", (cells > 0).astype(np.uint8) * 200, cells.astype(np.int32), None) for k in range(number)]


def job(recipe, images, held_out=(), *, step=0.001, clock=None):
    """Plan on a machine that prepares in no time, and on which a step takes `step` seconds."""
    time = [0.0]

    def trial(_contract, _images, _device):
        def one():
            time[0] += step

        return one

    task = infer_task([image.labels for image in images], kind="instances")
    return plan_job(recipe, task, images, list(held_out), trial=trial, device=torch.device("cpu"), seed=0,
                    clock=clock or Clock(lambda: time[0]))  # fmt: skip


def minutes(recipe, number):
    return replace(recipe, training=TrainingConfig(minutes=number))


def test_a_quick_machine_takes_all_and_a_wide_network(monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda _device: 10**12)
    images = annotated(3, 64, 64)
    found = job(minutes(load_recipe("default"), 10), images[:2], images[2:])
    assert found.contract.network.width == 64
    assert found.parts is None
    assert found.validated_at == VALIDATED_AT
    assert [one.labels.shape for one in found.held_out] == [(64, 64)]
    assert found.contract.recipe.budget == BudgetConfig()


def test_a_slow_machine_validates_less_and_says_so(monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda _device: 10**12)
    images = annotated(4, 600, 600)
    found = job(minutes(load_recipe("default"), 1), images[:2], images[2:], step=8.0)
    assert found.validated_at == SELDOM
    assert [one.labels.shape for one in found.held_out] == [(256, 256)]
    assert found.contract.network.width == 8
    assert "Validated on 256×256 px in the middle of 1 held-out image" in found.contract.provenance["plan"][-1]


def test_memory_that_ends_while_measuring_is_told(discs, tiny, monkeypatch):
    def trial(*_):
        raise MemoryError

    monkeypatch.setattr(training, "trial", trial)
    with pytest.raises(OutOfMemory, match=r"2 × 64×64 a step do not fit the memory; try batch = 1"):
        train(*discs, recipe=tiny, minutes=1, device="cpu")


def test_little_memory_is_told(monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda _device: 300 * 10**6)
    found = job(minutes(load_recipe("default"), 10), annotated(1, 300, 300))
    assert "300 MB of memory are free" in " ".join(found.contract.provenance["plan"])


def test_what_takes_too_long_to_prepare_is_cut_down(monkeypatch):
    monkeypatch.setattr(planning, "PREPARATION_SHARE", 0.0)
    time = iter(np.arange(0.0, 1e4, 0.01))
    found = job(minutes(load_recipe("default"), 10), annotated(1, 1100, 1100), clock=Clock(lambda: float(next(time))))
    assert len(found.parts) == 1
    assert "Trained on 1 part with 25% of all pixels" in " ".join(found.contract.provenance["plan"])


def test_cells_are_copied_where_there_is_time(monkeypatch):
    recipe = load_recipe("default")
    recipe = replace(recipe, augmentation=replace(recipe.augmentation, copies=2))
    found = job(minutes(recipe, 10), annotated(2, 100, 100))
    assert found.copied_pixels > 4 * 100**2
    assert "in up to 4 more images" in " ".join(found.contract.provenance["plan"])
    again = planning.Job.from_dict(json.loads(json.dumps(found.to_dict())), [], [])
    assert again.copied_pixels == found.copied_pixels
    by_steps = job(replace(recipe, training=TrainingConfig(minutes=0, steps=5)), annotated(2, 100, 100))
    assert by_steps.copied_pixels == math.inf
    assert "in up to 4 more images" in " ".join(by_steps.contract.provenance["plan"])
    monkeypatch.setattr(planning, "PREPARATION_SHARE", 0.0)
    found = job(minutes(recipe, 10), annotated(2, 100, 100))
    assert found.copied_pixels <= 0
    assert "copied" not in " ".join(found.contract.provenance["plan"])


def test_copies_are_trained_on_too(tiny, monkeypatch):
    seen = []
    prepare = training.prepare
    monkeypatch.setattr(training, "prepare", lambda images, *more: seen.extend(images) or prepare(images, *more))
    images, labels = scenes("nuclei", 2, 64, 64)
    recipe = replace(tiny, augmentation=replace(tiny.augmentation, copies=1))
    model = train(images, labels, recipe=recipe, steps=1, device="cpu")
    assert [one.labels.max() > labels[k % 2].max() for k, one in enumerate(seen)] == [False, False, True, True]
    assert len(model.contract.provenance["images"]) == 2


def test_choosing_rules_that_would_take_too_long_is_done_on_fewer_pixels(tiny, monkeypatch):
    found = replace_recipe(job(replace(tiny, training=TrainingConfig(minutes=0, steps=1)), annotated(3, 600, 600)), 1)
    found.tuned_on = annotated(2, 600, 600)
    monkeypatch.setattr(planning, "tuning_cost", lambda *_: 1e-4)
    assert found.rehearse(None) == pytest.approx(4.8, rel=0.4)
    assert found.tuned_on[0].labels.shape == (256, 256)
    found.tuned_on = []
    assert found.rehearse(None) == 0


def replace_recipe(found, number):
    found.contract = replace(found.contract, recipe=minutes(found.contract.recipe, number))
    return found


def test_a_run_by_steps_asks_no_machine(monkeypatch):
    def forbidden(*_):
        raise AssertionError

    monkeypatch.setattr(planning, "free_memory", forbidden)
    monkeypatch.setattr(planning, "Speed", forbidden)
    images = annotated(4, 100, 100)
    rest, held_out = hold_out(images, 0.2, 0)
    found = job(replace(load_recipe("default"), training=TrainingConfig(minutes=0, steps=5)), rest, held_out)
    assert found.parts is None
    assert found.held_out == held_out
    assert (found.contract.network.width, found.contract.recipe.tiles.size) == (16, 112)


# what is stored


def test_the_recipe_of_a_run_repeats_it(tmp_path):
    images, labels = scenes("nuclei", 1, 48, 48)
    first = train(images, labels, recipe="default", steps=2, device="cpu")
    assert first.contract.recipe.budget == BudgetConfig()
    assert first.contract.recipe.tiles.size == 48
    (tmp_path / "recipe.toml").write_text(to_toml(first.contract.recipe), encoding="utf-8")
    again = train(images, labels, recipe=tmp_path / "recipe.toml", device="cpu")
    states = [model.network.state_dict() for model in (first, again)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_the_plan_is_stored_with_the_model(discs, free, tmp_path):
    plans = []
    model = train(*discs, recipe=free, steps=1, device="cpu",
                  on_plan=lambda contract, *_: plans.append(contract.provenance["plan"]))  # fmt: skip
    model.save(tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").contract.provenance["plan"] == plans[0]
    assert plans[0][0].startswith("1 step of ")


def test_models_from_before_there_was_a_budget_load(model, tmp_path, monkeypatch):
    def without_budget(self):
        values = json.loads(json.dumps(to_dict(self)))
        del values["recipe"]["budget"]
        return values

    to_dict = type(model.contract).to_dict
    monkeypatch.setattr(type(model.contract), "to_dict", without_budget)
    model.save(tmp_path / "old.safetensors")
    assert load(tmp_path / "old.safetensors").contract.recipe.budget == BudgetConfig()

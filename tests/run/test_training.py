import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from ubend.data.annotated import Annotated, infer_task
from ubend.data.simulated import simulate
from ubend.data.tiles import Batch
from ubend.errors import InputError, RecipeError, TrainingError
from ubend.method.network import NetworkConfig, UNet
from ubend.method.resampling import averaged, commonest
from ubend.run import training
from ubend.run.labels import predict_labels
from ubend.run.memory import smallest_tile
from ubend.run.model import Model, load
from ubend.run.preparation import make_contract, prepare
from ubend.run.recipe import EnergyConfig, OptimiserConfig, PredictionConfig, Recipe, TrainingConfig, load_recipe
from ubend.run.training import train


class Watch:
    """Remembers what a run tells."""

    def __init__(self):
        self.steps, self.validations, self.plan = [], [], None

    def on_step(self, progress):
        self.steps.append(progress)

    def on_validation(self, step, evaluation):
        self.validations.append((step, evaluation))

    def on_plan(self, contract, trained_on, held_out):
        self.plan = (contract, trained_on, held_out)

    @property
    def energies(self):
        return [progress.energy for progress in self.steps]

    def calls(self):
        return {"on_step": self.on_step, "on_validation": self.on_validation, "on_plan": self.on_plan}


@pytest.fixture
def watch():
    return Watch()


def weights(model):
    return model.network.state_dict()


def same(one, two):
    return all(torch.equal(value, weights(two)[key]) for key, value in weights(one).items())


def falls(energies, to=0.75):
    return np.mean(energies[-5:]) < to * np.mean(energies[:5])


# three kinds of labels


def test_binary(discs, tiny, watch):
    model = train(*discs, recipe=tiny, steps=40, device="cpu", **watch.calls())
    assert falls(watch.energies)
    assert model.contract.task.kind == "binary"
    assert set(np.unique(model.segment(discs[0][0]))) == {0, 255}
    assert model.contract.quality["IoU"] > 0.7


def test_classes_in_colour(tiny, watch):
    scenes = [simulate("landscape", np.random.default_rng(k), (96, 96)) for k in range(3)]
    fast = replace(tiny, optimiser=OptimiserConfig(learning_rate=2e-2))
    model = train([s.image for s in scenes], [s.labels for s in scenes], recipe=fast, steps=40, **watch.calls())
    assert falls(watch.energies, to=0.85)
    assert model.contract.task.kind == "classes"
    assert model.contract.network.in_channels == 3
    assert "mean IoU" in model.contract.quality


def test_instances(tiny, watch):
    scenes = [simulate("nuclei", np.random.default_rng(k), (96, 96)) for k in range(3)]
    model = train([s.image for s in scenes], [s.labels for s in scenes], recipe=tiny, steps=50, **watch.calls())
    assert falls(watch.energies)
    assert model.contract.task.kind == "instances"
    assert model.segment(scenes[0].image).max() > 1


@pytest.mark.parametrize("task", ["binary", "instances"])
def test_a_network_at_half_the_resolution(task, discs, tiny, watch, tmp_path):
    images, masks = [image[:79] for image in discs[0]], [mask[:79] // 255 for mask in discs[1]]  # an odd number of rows
    half = replace(tiny, network=replace(tiny.network, depth=3, coarse=1), tiles=replace(tiny.tiles, size=32, batch=4))
    half = replace(half, energy=replace(half.energy, w0=0.0))
    model = train(images, masks, recipe=half, task=task, steps=60, device="cpu", **watch.calls())
    assert falls(watch.energies)
    found = model.segment(images[0])
    assert found.shape == images[0].shape
    assert ((found > 0) & (masks[0] > 0)).sum() > 0.85 * ((found > 0) | (masks[0] > 0)).sum()
    assert model.contract.quality["IoU"] > 0.75  # of one image, from one view
    model.save(tmp_path / "half.safetensors")
    again = load(tmp_path / "half.safetensors", device="cpu")
    assert again.contract.network.coarse == 1
    assert (again.segment(images[0], tile=smallest_tile(again.contract.network) + 16) == found).all()


def test_folds_and_training_on_at_half_the_resolution(discs, tiny):
    half = replace(tiny, network=replace(tiny.network, depth=3, coarse=1), tiles=replace(tiny.tiles, size=32))
    model = train(*discs, recipe=half, steps=8, folds=2, device="cpu")
    assert model.contract.network.coarse == 1
    assert "IoU" in model.contract.quality
    on = train(*discs, recipe=tiny, steps=2, start=model, device="cpu")
    assert on.contract.network == model.contract.network


def test_an_unpadded_network_at_half_the_resolution(discs, tiny):
    network = replace(tiny.network, depth=3, coarse=1, padding="none")
    half = replace(tiny, network=network, tiles=replace(tiny.tiles, size=76))
    model = train(*discs, recipe=half, steps=3, device="cpu")
    assert model.segment(discs[0][0]).shape == discs[0][0].shape


def test_what_touches_comes_back_whole_at_half_the_resolution(tiny):
    """What is cut as a gap from averaged pixels is given back in pixels of the image."""
    labels = np.zeros((64, 64), np.int32)
    labels[8:56, 8:32], labels[8:56, 32:56] = 1, 2
    half = replace(tiny, network=replace(tiny.network, depth=3, coarse=1), tiles=replace(tiny.tiles, size=32))
    contract = make_contract(half, infer_task([labels], kind="instances"), [Annotated("a", labels, labels, None)])
    [source] = prepare([Annotated("a", labels.astype(np.uint8), labels, None)], contract)
    seen = np.kron(source.classes == 1, np.ones((2, 2))).astype(np.float32)
    found = predict_labels(contract, np.stack([1 - seen, seen]))
    assert contract.objects.gap == 2
    assert len(np.unique(found)) == 3
    assert ((found > 0) & (labels > 0)).sum() == (labels > 0).sum()  # the gap was 4 × 48 px
    assert ((found > 0) & (labels == 0)).sum() < 20  # a few at its ends


def test_a_step_at_half_the_resolution_is_one_on_averaged_images(discs, tiny):
    images, masks = discs
    tiny = replace(tiny, energy=replace(tiny.energy, w0=0.0), training=replace(tiny.training, held_out=0.0))
    half = replace(tiny, network=replace(tiny.network, depth=3, coarse=1), tiles=replace(tiny.tiles, size=32))
    whole = replace(tiny, tiles=replace(tiny.tiles, size=32), prediction=PredictionConfig(normalisation="range"))
    half = replace(half, prediction=whole.prediction)
    one = train(images, masks, recipe=half, steps=3, device="cpu")
    smaller = [commonest(mask, 1) for mask in masks]
    two = train(
        [averaged(image[None], 1)[0].astype(np.float32) / 255 for image in images], smaller, recipe=whole, steps=3
    )
    for key, value in weights(one).items():
        torch.testing.assert_close(value, weights(two)[key], rtol=1e-3, atol=1e-4)


def test_the_papers_kind_of_network(discs, watch):
    """Unpadded, without normalisation, SGD with momentum 0.99, frequencies balanced, dropout, seven rotations."""
    paper = load_recipe("paper")
    small = replace(
        paper,
        network=replace(paper.network, width=8, depth=2),
        tiles=replace(paper.tiles, size=76, batch=2),
        optimiser=replace(paper.optimiser, learning_rate=3e-3),
    )
    train(*discs, recipe=small, steps=60, device="cpu", **watch.calls())
    assert falls(watch.energies, to=0.6)


def test_dice_joins_the_energy(discs, tiny, watch):
    train(*discs, recipe=replace(tiny, energy=EnergyConfig(dice=1.0)), steps=1, **watch.calls())
    plain = Watch()
    train(*discs, recipe=replace(tiny, energy=EnergyConfig()), steps=1, **plain.calls())
    assert 0 < watch.energies[0] - plain.energies[0] < 1


# a run that ends early, and one that goes on from a model


def test_a_true_answer_ends_the_run_as_if_its_time_were_over(discs, tiny, watch):
    calls = watch.calls() | {"on_step": lambda progress: watch.on_step(progress) or progress.step == 7}
    model = train(*discs, recipe=tiny, steps=1000, **calls)
    assert len(watch.steps) == model.contract.provenance["steps"] == 7
    assert [step for step, _ in watch.validations] == [7]
    assert model.contract.quality["IoU"] >= 0


def test_training_goes_on_from_the_weights_of_a_model(discs, tiny, watch):
    first = train(*discs, recipe=tiny, steps=40)
    still = replace(tiny, optimiser=replace(tiny.optimiser, kind="sgd", learning_rate=1e-12))
    again = train(*discs, recipe=still, steps=1, start=first)
    names = [name for name, _ in first.network.named_parameters()]
    assert all(torch.allclose(weights(first)[name], weights(again)[name], atol=1e-6) for name in names)
    train(*discs, recipe=tiny, steps=5, start=first, on_step=watch.on_step)
    fresh = Watch()
    train(*discs, recipe=tiny, steps=5, on_step=fresh.on_step)
    assert np.mean(watch.energies) < 0.8 * np.mean(fresh.energies)


def test_what_a_model_has_seen_is_not_held_out_when_training_goes_on(discs, tiny):
    images, labels = discs
    first = train(images[:3], labels[:3], recipe=tiny, steps=2)
    made = first.contract.provenance
    assert len(made["held_out"]) == 1
    again = train(images, labels, recipe=tiny, steps=2, start=first, seed=5).contract.provenance
    assert again["held_out"] == made["held_out"]
    assert set(again["images"]) == {f"image {k}" for k in range(len(images))} - set(made["held_out"])
    only = [int(name.split()[1]) for name in made["held_out"]]
    with pytest.raises(InputError, match="has held out all of these"):
        train([images[k] for k in only], [labels[k] for k in only], recipe=tiny, steps=2, start=_renamed(first))


def _renamed(model):
    """A model that held out image 0, whichever it was."""
    made = model.contract.provenance
    held = dict.fromkeys(["image 0"], next(iter(made["held_out"].values())))
    return Model(model.network, replace(model.contract, provenance=made | {"held_out": held}))


def test_a_model_of_other_images_is_nothing_to_start_from(discs, tiny):
    images, labels = discs
    first = train(images, labels, recipe=tiny, steps=1)
    with pytest.raises(InputError, match="takes 1 channels, these images have 3"):
        train([np.stack([i, i // 2, i], -1) for i in images], labels, recipe=tiny, steps=1, start=first)
    with pytest.raises(InputError, match="binary 0, 255, these are binary 0, 1: train anew"):
        train(images, [label // 255 for label in labels], recipe=tiny, steps=1, start=first)
    with pytest.raises(InputError, match="folds train networks from nothing"):
        train(images, labels, recipe=tiny, steps=1, folds=2, start=first)


# randomness


def test_same_seed_same_weights_bit_for_bit(discs, tiny):
    dropout = replace(tiny, network=replace(tiny.network, dropout=0.3))
    one, two, other = (train(*discs, recipe=dropout, steps=4, device="cpu", seed=seed) for seed in (3, 3, 4))
    assert same(one, two)
    assert not same(one, other)


def test_batches_made_in_advance_are_the_same(discs, tiny, monkeypatch):
    """What a GPU is fed by threads is what a CPU makes step by step."""
    steps = {}
    for ahead in (0, 3):
        seen = steps[ahead] = []
        images, masks = discs
        annotated = training.annotated_images(images, masks)
        contract = make_contract(tiny, training.infer_task(masks), annotated)
        batches = training._batches(training.prepare(annotated, contract), contract, seed=5, ahead=ahead)
        seen.extend(next(batches) for _ in range(6))
        batches.close()
    for one, two in zip(steps[0], steps[3], strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)
        assert torch.equal(one.weights, two.weights)


def test_the_callers_random_numbers_stay(discs, tiny):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(*discs, recipe=tiny, steps=3, device="cpu").segment(discs[0][0])
    assert torch.equal(torch.rand(3), expected)


# how long


def test_a_run_by_the_clock_ends_its_schedule(discs, tiny, watch):
    train(*discs, recipe=tiny, minutes=0.02, device="cpu", **watch.calls())
    shares = [progress.share for progress in watch.steps]
    assert shares[-1] == 1
    assert all(earlier <= later for earlier, later in pairwise(shares))
    peak = max(progress.learning_rate for progress in watch.steps)
    assert len(watch.steps) < 20 or watch.steps[-1].learning_rate < 0.05 * peak  # a busy machine does few steps
    assert watch.validations[-1][0] == watch.steps[-1].step


def test_a_run_by_steps(discs, tiny, watch):
    model = train(*discs, recipe=tiny, steps=10, device="cpu", **watch.calls())
    assert [progress.step for progress in watch.steps] == list(range(1, 11))
    assert [progress.share for progress in watch.steps] == pytest.approx([k / 10 for k in range(1, 11)])
    assert [step for step, _ in watch.validations] == [3, 5, 8, 10]
    assert 0 <= watch.steps[-1].seconds_left < watch.steps[0].seconds_left  # the last validation is still to come
    assert all(0 <= progress.waiting <= 1 for progress in watch.steps)
    assert model.contract.provenance["steps"] == 10
    assert model.contract.recipe.training.steps == 10
    assert model.contract.recipe.training.minutes == 0


def test_one_step_is_a_run(discs, tiny, watch):
    train(*discs, recipe=tiny, steps=1, device="cpu", **watch.calls())
    assert len(watch.steps) == len(watch.validations) == 1


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"minutes": 1, "steps": 1}, "by minutes or by steps, not both"),
        ({"minutes": 0.0}, r"more than 0 minutes or at least 1 step, not 0\.0"),
        ({"minutes": math.nan}, "not nan"),
        ({"steps": 0}, "at least 1 step, not 0"),
        ({"steps": -3}, "at least 1 step, not -3"),
    ],
)
def test_a_length_that_is_none(discs, tiny, length, message):
    with pytest.raises(InputError, match=message):
        train(*discs, recipe=tiny, **length)


def test_a_recipe_without_length_needs_one(discs, tiny):
    with pytest.raises(InputError, match="the recipe says neither minutes nor steps"):
        train(*discs, recipe=replace(tiny, training=TrainingConfig(minutes=0, steps=0)))


def test_learning_rate_by_hand():
    def rates(**config):
        recipe = Recipe(optimiser=OptimiserConfig(learning_rate=2.0, **config))
        return [training._learning_rate(recipe, share) for share in (0, 0.05, 0.1, 0.55, 1)]

    assert rates(schedule="constant", warm_up=0) == [2, 2, 2, 2, 2]
    assert rates(schedule="constant", warm_up=0.1) == pytest.approx([0.02, 1, 2, 2, 2])
    assert rates(schedule="cosine", warm_up=0.1) == pytest.approx([0.02, 1, 2, 1, 0])
    assert rates(schedule="cosine", warm_up=0)[0] == 2


def test_momentum_by_hand(tiny):
    """v = γ·v + g and θ = θ − η·v, as Caffe and the paper have it."""
    recipe = replace(tiny, optimiser=OptimiserConfig(kind="sgd", learning_rate=0.1, momentum=0.9))
    net = UNet(NetworkConfig(width=1, depth=1), generator=torch.Generator().manual_seed(0))
    optimiser = training._optimiser(net, recipe)
    theta = net.head.bias.detach().clone()
    velocity = torch.zeros_like(theta)
    for gradient in (torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5]), torch.tensor([0.0, 3.0])):
        net.head.bias.grad = gradient
        optimiser.step()
        velocity = 0.9 * velocity + gradient
        theta = theta - 0.1 * velocity
        torch.testing.assert_close(net.head.bias.detach(), theta)


def test_weight_decay_is_the_recipes(tiny):
    for kind, name in (("sgd", "SGD"), ("adamw", "AdamW")):
        recipe = replace(tiny, optimiser=OptimiserConfig(kind=kind, weight_decay=0.3))
        optimiser = training._optimiser(UNet(NetworkConfig(width=1, depth=1)), recipe)
        assert type(optimiser).__name__ == name
        assert optimiser.param_groups[0]["weight_decay"] == 0.3


# what is held out


def test_held_out_images_are_never_trained_on(discs, tiny, watch, monkeypatch):
    trained_on = []
    prepare = training.prepare
    monkeypatch.setattr(training, "prepare", lambda images, *more: trained_on.extend(images) or prepare(images, *more))
    model = train(*discs, recipe=tiny, steps=2, device="cpu", **watch.calls())
    made = model.contract.provenance
    assert len(made["images"]) == watch.plan[1] == 3
    assert len(made["held_out"]) == watch.plan[2] == 1
    assert not made["images"].keys() & made["held_out"].keys()
    assert not set(made["images"].values()) & set(made["held_out"].values())
    assert {image.name for image in trained_on} == made["images"].keys()
    assert [row.name for row in watch.validations[0][1].rows] == list(made["held_out"])


@pytest.mark.parametrize("number", [1, 2])
def test_of_few_images_none_is_held_out(number, discs, tiny, watch):
    images, masks = discs
    model = train(images[:number], masks[:number], recipe=tiny, steps=2, **watch.calls())
    assert watch.plan[1:] == (number, 0)
    assert watch.validations == []
    assert model.contract.quality == {}


def test_the_model_and_its_quality_are_those_of_the_end(discs, tiny, watch):
    model = train(*discs, recipe=tiny, steps=40, device="cpu", **watch.calls())
    assert [step for step, _ in watch.validations] == [10, 20, 30, 40]
    at_the_end = watch.validations[-1][1].overall["IoU"]
    assert model.contract.quality["IoU"] == at_the_end
    held = next(iter(model.contract.provenance["held_out"]))
    number = int(held.split()[-1])
    result = model.predict(discs[0][number], views="one").argmax(0) > 0
    truth = discs[1][number] > 0
    assert (result & truth).sum() / (result | truth).sum() == pytest.approx(at_the_end)


# images that are hard to cut


def test_images_smaller_than_a_tile(discs, tiny, watch):
    images, masks = discs
    train([image[20:60, 30:63] for image in images], [mask[20:60, 30:63] for mask in masks], recipe=tiny, steps=2)


def test_one_pixel_each(tiny):
    images = [np.full((1, 1), value, np.uint8) for value in (0, 255)]
    train(images, [image // 255 for image in images], recipe=tiny, steps=2).segment(images[0])


def test_a_class_that_some_images_lack(discs, tiny):
    images, masks = discs
    model = train(images, [masks[0], masks[1] * 0, masks[2], masks[3]], recipe=tiny, steps=2)
    assert model.contract.task.values == (0, 255)


def test_ignored_pixels_change_nothing(discs, tiny, watch):
    """What lies under pixels that are not labelled is as good as any other label."""
    images, masks = discs
    labels = [np.where(mask > 0, 1, 0).astype(np.int16) for mask in masks]
    by_sign, by_value = [label.copy() for label in labels], [label.copy() for label in labels]
    for one, two in zip(by_sign, by_value, strict=True):
        one[:, :30], two[:, :30] = -1, 9
    one = train(images, by_sign, recipe=tiny, steps=3, device="cpu", **watch.calls())
    two = train(images, by_value, recipe=tiny, steps=3, device="cpu", ignore=9)
    assert same(one, two)
    assert two.contract.task.ignore_label == 9
    assert not same(one, train(images, labels, recipe=tiny, steps=3, device="cpu"))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64])
def test_any_type_of_pixels(dtype, discs, tiny):
    images, masks = discs
    model = train([(image > 100).astype(dtype) for image in images[:2]], masks[:2], recipe=tiny, steps=1)
    assert np.isfinite(model.predict((images[0] > 100).astype(dtype), views="one")).all()


def test_labels_may_be_masks_of_true_and_false(discs, tiny):
    images, masks = discs
    assert train(images, [mask > 0 for mask in masks], recipe=tiny, steps=1).contract.task.values == (0, 1)


# mistakes


@pytest.mark.parametrize("seed", range(4))  # whichever image is held out
def test_nan_in_an_image_names_it(seed, discs, tiny):
    images = [image.astype(np.float32) for image in discs[0]]
    images[2][5, 5] = np.nan
    with pytest.raises(TrainingError, match="image 2 is NaN or infinite at 1 place; put numbers there"):
        train(images, discs[1], recipe=tiny, steps=2, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_mixed_channels(seed, discs, tiny):
    images, masks = discs
    colour = np.stack([images[0], images[1], images[2]], -1)
    with pytest.raises(InputError, match=r"1 \(image 0\) and 3 \(image 3\); train one model for each kind"):
        train([*images[:3], colour], masks, recipe=tiny, steps=2, seed=seed)


def sgd(recipe, rate):
    chosen = OptimiserConfig(kind="sgd", learning_rate=rate, schedule="constant", warm_up=0)
    return replace(recipe, optimiser=chosen)


@pytest.mark.parametrize("task", ["binary", "instances"])
@pytest.mark.parametrize(("rate", "steps"), [(1e10, 8), (1e38, 3)])
def test_a_huge_learning_rate_is_stopped(rate, steps, task, discs, tiny):
    images, masks = discs
    with pytest.raises(TrainingError, match=r"(step \d: .* run away|without bound); try a tenth of the learning rate"):
        train(images, [m // 255 for m in masks], task=task, recipe=sgd(tiny, rate), steps=steps, device="cpu")


def test_no_labelled_pixel(discs, tiny):
    with pytest.raises(InputError, match=r"No pixel .* is labelled"):
        train(discs[0], [np.full(mask.shape, -1) for mask in discs[1]], recipe=tiny, steps=1)


def test_one_label_only(discs, tiny):
    with pytest.raises(InputError, match=r"all labelled pixels .* are label 0: there is nothing to tell apart"):
        train(discs[0], [mask * 0 for mask in discs[1]], recipe=tiny, steps=1)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_is_none(seed, discs, tiny):
    with pytest.raises(InputError, match=f"a seed is a whole number from 0 to {2**63 - 1}, not {seed}"):
        train(*discs, recipe=tiny, steps=1, seed=seed)


def test_other_choices_that_are_none(discs, tiny):
    with pytest.raises(InputError, match="one of binary, classes, instances"):
        train(*discs, recipe=tiny, steps=1, task="cells")
    with pytest.raises(InputError, match="no device 'tpu' here"):
        train(*discs, recipe=tiny, steps=1, device="tpu")
    with pytest.raises(RecipeError, match=r"no recipe 'defalt'.*did you mean 'default'"):
        train(*discs, recipe="defalt", steps=1)


# folders


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(discs, tiny, watch):
    model = train(*discs, recipe=tiny, steps=40, device="cuda", **watch.calls())
    assert falls(watch.energies)
    on_cpu = Model(model.network, model.contract, device="cpu").predict(discs[0][0], exact=True)
    np.testing.assert_allclose(model.predict(discs[0][0], exact=True), on_cpu, atol=2e-3)


def test_a_distance_is_learned_beside_the_foreground(discs, tiny, tmp_path):
    images, masks = discs
    recipe = replace(tiny, energy=replace(tiny.energy, distance=1.0))
    made = train(images, [mask // 255 for mask in masks], recipe=recipe, task="instances", steps=120, device="cpu")
    assert made.contract.learns_distance
    assert made.contract.network.classes == 3
    maps = made.predict(images[0])
    np.testing.assert_allclose(maps[:2].sum(axis=0), 1, atol=1e-5)
    assert maps[2].min() >= 0
    assert maps[2].max() <= 1
    depth = ndimage.distance_transform_edt(masks[0])
    near_border, deep = maps[2][(depth > 0) & (depth < 4)].mean(), maps[2][depth > 14].mean()
    assert maps[2][masks[0] == 0].mean() + 0.2 < near_border < deep
    made.save(tmp_path / "cells.safetensors")
    assert (load(tmp_path / "cells.safetensors", device="cpu").segment(images[0]) == made.segment(images[0])).all()


def test_classes_have_no_distance(discs, tiny):
    recipe = replace(tiny, energy=replace(tiny.energy, distance=1.0))
    made = train(*discs, recipe=recipe, steps=1, device="cpu")
    assert not made.contract.learns_distance
    assert made.predict(discs[0][0]).shape[0] == 2


def test_an_image_that_is_trained_on_is_not_held_out_under_another_name(discs, tiny, watch):
    images = [*discs[0][:2], discs[0][0], discs[0][0].copy(), discs[0][1]]
    masks = [*discs[1][:2], discs[1][0], discs[1][0], discs[1][1]]
    for seed in range(4):
        model = train(images, masks, recipe=tiny, steps=1, seed=seed, **watch.calls())
        trained, held = (set(model.contract.provenance[part].values()) for part in ("images", "held_out"))
        assert not trained & held
    assert any(
        "image 0 and image 2 and image 3 are the same image" in words for words in watch.plan[0].provenance["plan"]
    )


def test_batches_made_in_advance_change_nothing(discs, tiny, monkeypatch):
    made = []
    for ahead in (0, 1, 5):
        monkeypatch.setattr(training, "_ahead", lambda _device, ahead=ahead: ahead)
        made.append(train(*discs, recipe=tiny, steps=6, device="cpu", seed=2))
    assert same(made[0], made[1])
    assert same(made[0], made[2])


def test_the_distance_joins_the_energy_without_weights():
    """Two pixels, both of the foreground and undecided: the second weighs three times, but for the distance."""
    maps = torch.tensor([0.5, 0.75])
    scores = torch.cat([torch.zeros(1, 2, 1, 2), maps.view(1, 1, 1, 2)], dim=1)
    labels, weights = torch.ones(1, 1, 2, dtype=torch.int64), torch.tensor([[[1.0, 3.0]]])
    batch = Batch(torch.zeros(1, 1, 1, 2), labels, weights, torch.ones(1, 1, 2))
    energy = training._energy(scores, batch, EnergyConfig(distance=2.0))
    assert energy.item() == pytest.approx(2 * math.log(2) + 2 * (0.5 + 0.25) / 2)

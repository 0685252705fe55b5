import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ubend.data.annotated import Annotated, Task
from ubend.errors import TrainingError
from ubend.method.network import NetworkConfig, UNet
from ubend.method.objects import ObjectRules
from ubend.run import validation
from ubend.run.contract import Contract
from ubend.run.normalisation import Normalisation
from ubend.run.preparation import SPLIT_BY_DISTANCE
from ubend.run.validation import (
    SPLITS_OF_DISTANCE,
    best_rules,
    count_choices,
    match,
    mean_precisions,
    tune_objects,
    tuned_on,
    tuning_cost,
    validate,
)

INSTANCES = Task("instances", (), None)


def two_discs(joined):
    """An image that is the probability of foreground itself, and its two cells."""
    rows, columns = np.indices((40, 50))
    cells = ((rows - 20) ** 2 + (columns - 13) ** 2 <= 64) * 1 + ((rows - 20) ** 2 + (columns - 35) ** 2 <= 64) * 2
    bar = (abs(rows - 20) <= 2) & (columns > 13) & (columns < 35) if joined else False
    return np.where((cells > 0) | bar, 0.9, 0.1).astype(np.float32), cells.astype(np.int32)


@pytest.fixture
def contract():
    network = NetworkConfig(width=2, depth=1)
    return Contract(network=network, task=INSTANCES, normalisation=Normalisation("range", together=False), views="one")


@pytest.fixture
def image_is_probability(monkeypatch):
    def probabilities(_network, _contract, image, **_choices):
        return np.stack([1 - image, image])

    monkeypatch.setattr(validation, "predict_probabilities", probabilities)


def held_out(joined):
    return [Annotated(f"{k}", *two_discs(joined), None) for k in range(2)]


@pytest.mark.usefixtures("image_is_probability")
def test_objects_that_hang_together_are_parted(contract):
    net = UNet(contract.network)
    before = validate(net, held_out(joined=True), contract)
    tuned = tune_objects(net, held_out(joined=True), contract)
    assert tuned.objects.split > 0
    after = validate(net, held_out(joined=True), tuned)
    assert before.overall[before.headline] < after.overall[after.headline] == 1


@pytest.mark.usefixtures("image_is_probability")
def test_what_is_held_out_is_scored_as_the_model_predicts(contract):
    net, [one, two] = UNet(contract.network), held_out(joined=True)
    tuned = tune_objects(net, [one, two], contract, scored={"0": one.labels.size})
    assert tuned.quality["AP@0.5 (pooled)"] == 1  # by the rules that were chosen
    assert tuned.provenance["scored_share"] == 1
    assert tune_objects(net, [one, two], contract).quality == {}
    some = tune_objects(net, [one], contract, scored={"0": one.labels.size, "left out": 3 * one.labels.size})
    assert some.quality["AP@0.5 (pooled)"] == 1
    assert some.provenance["scored_share"] == 0.25
    late = tune_objects(net, [one, two], contract, scored={"0": one.labels.size}, seconds_left=lambda: -1.0)
    assert late.objects == contract.objects  # there is no time to choose
    assert late.quality["AP@0.5 (pooled)"] < 1  # but to see how good the model is


@pytest.mark.usefixtures("image_is_probability")
def test_nothing_better_leaves_the_choice(contract):
    assert tune_objects(UNet(contract.network), held_out(joined=False), contract) == contract


def test_no_objects_or_no_images_leave_the_contract(contract):
    net = UNet(contract.network)
    assert tune_objects(net, [], contract) is contract
    binary = replace(contract, task=Task("binary", (0, 1), None))
    assert tune_objects(net, held_out(joined=True), binary) is binary


def test_weights_without_bound_are_told(contract):
    net = UNet(contract.network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1e30)
    with pytest.raises(TrainingError, match="returns no numbers any more: its weights have grown"):
        validate(net, held_out(joined=False), contract)


def choice(contract, image, truth, times=5):
    """Choose on an image that is there `times` × `times` times over, side by side: of two objects all is chance."""
    many = np.kron(np.arange(times**2).reshape(times, times), np.full(truth.shape, truth.max()))
    truth = np.where(np.tile(truth, (times, times)) > 0, np.tile(truth, (times, times)) + many, 0).astype(np.int32)
    one = Annotated("one", np.tile(image, (times, times)).astype(np.float32), truth, None)
    return tune_objects(UNet(contract.network), [one], contract).objects


def squares(side=60):
    """Two squares of 20 px, their probability 0.9, of the rest 0.1."""
    truth = np.zeros((side, 2 * side), np.int32)
    truth[10:30, 10:30], truth[10:30, 70:90] = 1, 2
    return np.where(truth > 0, 0.9, 0.1), truth


@pytest.mark.usefixtures("image_is_probability")
def test_the_threshold_is_chosen(contract):
    image, truth = squares()
    image[5:35, 5:35] = np.where(truth[5:35, 5:35] > 0, 0.9, 0.65)  # a rim that is not of the object
    assert choice(contract, image, truth).threshold == 0.7


@pytest.mark.usefixtures("image_is_probability")
def test_the_smallest_object_is_chosen(contract):
    image, truth = squares()
    image[50:53, 50:53] = 0.9  # 9 pixels
    truth[50:53, 50:53] = 3
    assert choice(replace(contract, objects=ObjectRules(smallest=12)), image, truth).smallest == 6


@pytest.mark.usefixtures("image_is_probability")
def test_of_few_objects_a_choice_is_left_only_for_one_that_is_much_better(contract):
    image, truth = squares()
    image[16:24, 16:24] = 0.1  # a hole in one of two
    assert choice(contract, image, truth, times=5).fill_holes
    assert choice(contract, image, truth, times=1) == contract.objects


@pytest.mark.usefixtures("image_is_probability")
def test_one_image_alone_decides_nothing(contract):
    """Two images with many cells, of which one would gain by holes that are filled: both must."""
    image, truth = squares()
    hollow = image.copy()
    hollow[16:24, 16:24] = 0.1
    many, few = (np.tile(one, (3, 3)) for one in (hollow, image))
    labels = np.tile(truth, (3, 3)) + 2 * np.kron(np.arange(9).reshape(3, 3), np.ones_like(truth)) * (
        np.tile(truth, (3, 3)) > 0
    )

    def chosen(*images):
        held = [
            Annotated(f"{k}", one.astype(np.float32), labels.astype(np.int32), None) for k, one in enumerate(images)
        ]
        return tune_objects(UNet(contract.network), held, contract).objects.fill_holes

    assert chosen(many, many)
    assert chosen(many)
    assert not chosen(many, few)


@pytest.mark.parametrize(
    ("images", "gain", "taken"),
    [(1, 0.09, False), (1, 0.11, True), (4, 0.04, False), (4, 0.06, True), (25, 0.03, True)],
)
def test_of_few_images_a_choice_must_be_better_by_more(contract, images, gain, taken):
    def score(rules):
        return (0.5 + gain * rules.fill_holes,) * (1 if images == 1 else images + 1)

    assert best_rules(ObjectRules(), contract, score, objects=10**6).fill_holes == taken


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        ((0.0, 0.0, 0.0, 0.0), (0.02, 0.03, 0.03, 0.0), True),  # what finds something, be it in one image
        ((0.1, 0.1, 0.1, 0.1), (0.13, 0.112, 0.112, 0.112), True),
        ((0.1, 0.1, 0.1, 0.1), (0.125, 0.112, 0.112, 0.112), False),
        ((0.1, 0.1, 0.1, 0.1), (0.13, 0.112, 0.112, 0.101), False),
        ((0.5, 0.5, 0.5, 0.5), (0.513, 0.52, 0.52, 0.52), False),
    ],
)
def test_where_little_is_found_little_more_is_much(contract, before, after, taken):
    rules = ObjectRules(certainty=0.8)

    def score(candidate):
        return after if candidate.certainty == 0.0 else before

    assert (best_rules(rules, contract, score, objects=10**6).certainty == 0.0) == taken


@pytest.mark.usefixtures("image_is_probability")
def test_rules_that_find_nothing_give_way(contract):
    image, truth = squares()
    image[truth > 0] = 0.7
    start = replace(contract, objects=ObjectRules(certainty=0.8))
    assert choice(start, image, truth, times=1).certainty == 0.0


def test_the_depth_that_is_tried_first_is_that_of_the_start():
    assert SPLITS_OF_DISTANCE[0] == SPLIT_BY_DISTANCE


def test_precision_of_all_and_without_each():
    truth = np.zeros((10, 20), np.int32)
    truth[2:8, 2:8], truth[2:8, 12:18] = 1, 2
    good, half, none = (match(truth, truth), match(truth, np.where(truth == 1, 1, 0)), match(0 * truth, 0 * truth))
    assert mean_precisions([good]) == (1.0,)
    assert mean_precisions([good, none]) == (1.0,)  # leaving out what has no objects tells nothing
    assert mean_precisions([good, half]) == pytest.approx((0.75, 0.5, 1.0))
    assert mean_precisions([half, good, none]) == pytest.approx((0.75, 1.0, 0.5))


@pytest.mark.usefixtures("image_is_probability")
def test_how_sure_an_object_must_be_is_chosen(contract):
    image, truth = squares()
    image[truth > 0], image[50:53, 50:53] = 0.95, 0.82  # a speck, sure enough for 0.8
    start = replace(contract, objects=ObjectRules(certainty=0.8, smallest=1))
    assert choice(start, image, truth).certainty == 0.85


@pytest.mark.usefixtures("image_is_probability")
def test_whether_holes_are_filled_is_chosen(contract):
    image, truth = squares()
    image[16:24, 16:24] = 0.1
    assert choice(contract, image, truth).fill_holes
    assert not choice(contract, image, np.where(image > 0.5, truth, 0)).fill_holes


@pytest.mark.usefixtures("image_is_probability")
def test_whether_gaps_are_closed_is_chosen(contract):
    truth = np.zeros((40, 40), np.int32)
    truth[10:30, 10:19], truth[10:30, 21:30] = 1, 2  # two pixels of true background between them
    image = np.where(truth > 0, 0.9, 0.1)
    assert choice(contract, image, truth).gap == 0
    truth[10:30, 19], truth[10:30, 20] = 1, 2
    assert choice(contract, image, truth).gap == 1


@pytest.mark.usefixtures("image_is_probability")
def test_nothing_to_find_leaves_the_rules(contract):
    assert choice(contract, np.full((40, 50), 0.1), np.zeros((40, 50), np.int32)) == contract.objects


def test_a_learned_distance_is_parted_by_shares(contract, monkeypatch):
    """One bar, two cells: only the distance tells them apart, and it falls by 0.25."""
    truth = np.zeros((20, 40), np.int32)
    truth[5:15, 2:20], truth[5:15, 20:38] = 1, 2
    image = np.where(truth > 0, 0.9, 0.1).astype(np.float32)
    distance = np.where(truth > 0, 0.5 + 0.25 * np.minimum(abs(np.arange(40) - 19.5) / 9, 1), 0)
    maps = np.tile(np.stack([1 - image, image, distance]), (5, 5)).astype(np.float32)
    monkeypatch.setattr(validation, "predict_probabilities", lambda *_args, **_choices: maps)
    learns = replace(contract, network=replace(contract.network, classes=3), objects=ObjectRules(split=0.3))
    assert choice(learns, image, truth).split == 0.2


@pytest.mark.usefixtures("image_is_probability")
def test_rules_are_chosen_on_maps_as_prediction_averages_them(contract, monkeypatch):
    seen = []

    def probabilities(_network, _contract, image, *, views):
        seen.append(views)
        return np.stack([1 - image, image])

    monkeypatch.setattr(validation, "predict_probabilities", probabilities)
    averaged = replace(contract, views="dihedral")
    tune_objects(UNet(contract.network), held_out(joined=True), averaged)
    validate(UNet(contract.network), held_out(joined=True), averaged)
    assert seen == ["dihedral"] * 2 + ["one"] * 2


@pytest.mark.usefixtures("image_is_probability")
def test_a_speck_is_no_reason_to_drop_small_cells(contract):
    image, truth = squares()
    image[50:53, 50:53] = 0.9  # a speck of 9 pixels in the only held-out image
    one = Annotated("held out", image.astype(np.float32), truth, None)
    start = replace(contract, objects=ObjectRules(smallest=6))
    assert tune_objects(UNet(contract.network), [one], start).objects.smallest == 6


def test_what_is_chosen_on(contract, monkeypatch):
    images = held_out(joined=True)
    assert tuned_on([], contract) == []
    assert tuned_on(images, replace(contract, task=Task("binary", (0, 1), None))) == []
    assert tuned_on(images, contract) == images
    monkeypatch.setattr(validation, "MOST_TUNED_ON", images[0].labels.size)
    assert tuned_on(images, contract) == images[:1]


@pytest.mark.usefixtures("image_is_probability")
@pytest.mark.parametrize(("views", "seconds"), [("one", 1.5 + 14 * 2), ("dihedral", 8.5 + 14 * 2)])
def test_what_the_choice_costs(views, seconds, contract, monkeypatch):
    """A view takes one second here, the first half a second more, and a choice two; 14 choices are compared."""
    times = iter([0.0, 1.0, 2.5, 4.5])
    monkeypatch.setattr(validation, "perf_counter", lambda: next(times))
    image = held_out(joined=True)[0]
    assert count_choices(contract) == 14
    cost = tuning_cost(UNet(contract.network), image, replace(contract, views=views))
    assert cost == pytest.approx(seconds / image.labels.size)


@pytest.mark.usefixtures("image_is_probability")
@pytest.mark.parametrize(("looks", "split"), [(0, 0.0), (1, 0.0), (2, 0.75), (100, 0.75)])
def test_when_time_is_up_the_best_so_far_is_kept(looks, split, contract, monkeypatch):
    """Time is asked for before each choice; the first image is looked at in any case."""
    left = iter([math.inf] * looks + [-1.0] * 100)
    tuned = tune_objects(UNet(contract.network), held_out(joined=True)[:1], contract, seconds_left=lambda: next(left))
    assert tuned.objects.split == split

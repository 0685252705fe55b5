import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.data.annotated import Annotated, Task, find_pairs, read_pairs
from ubend.errors import FileError, InputError
from ubend.method.network import NetworkConfig
from ubend.method.objects import ObjectRules
from ubend.run import folds, training
from ubend.run.clock import Clock
from ubend.run.contract import Contract
from ubend.run.folds import Dealt, SharedTime, deal
from ubend.run.model import load
from ubend.run.normalisation import Normalisation
from ubend.run.preparation import fingerprint
from ubend.run.runs import train_folder
from ubend.run.training import train

BINARY = Task("binary", (0, 1), None)
CLASSES = Task("classes", (0, 10, 20, 30), None)


def annotated(number, values=(0, 1)):
    """A small image, unlike any of another number, that shows some label values."""
    labels = np.resize(np.array(sorted(values), np.int32), (2, 4))
    return Annotated(f"image {number}", np.full((2, 4), number), labels, None)


# who is in which fold


@given(images=st.integers(2, 14), asked=st.integers(2, 20), seed=st.integers(0, 2**63 - 1))
def test_every_image_is_in_one_fold(images, asked, seed):
    all_of_them = [annotated(k) for k in range(images)]
    dealt = deal(all_of_them, BINARY, asked, seed=seed)
    assert dealt.number == (images if images < 5 else min(asked, images))
    sizes = [dealt.fold_of.count(fold) for fold in range(1, dealt.number + 1)]
    assert sum(sizes) == images
    assert max(sizes) - min(sizes) <= 1
    assert dealt == deal(all_of_them, BINARY, asked, seed=seed)
    for fold in range(1, dealt.number + 1):
        others, held = dealt.parted(all_of_them, fold)
        names = [image.name for image in (*others, *held)]
        assert held
        assert sorted(names) == sorted(image.name for image in all_of_them)


def test_another_seed_deals_otherwise():
    images = [annotated(k) for k in range(12)]
    assert len({deal(images, BINARY, 3, seed=seed).fold_of for seed in range(5)}) > 1


@given(
    shown=st.lists(st.sampled_from([(0, 10), (0, 10, 20), (0, 20), (0, 10, 30)]), min_size=6, max_size=12),
    number=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_a_class_of_several_images_is_in_several_folds(shown, number, seed):
    dealt = deal([annotated(k, values) for k, values in enumerate(shown)], CLASSES, number, seed=seed)
    for value in (0, 10, 20, 30):
        at = [fold for values, fold in zip(shown, dealt.fold_of, strict=True) if value in values]
        assert len(at) < 2 or len(set(at)) > 1


@given(copies=st.lists(st.integers(0, 4), min_size=6, max_size=12), seed=st.integers(0, 99))
def test_the_same_pixels_are_in_one_fold(copies, seed):
    images = [annotated(k) for k in copies]
    if len(set(copies)) < 2:
        with pytest.raises(InputError, match="images that are all the same nothing would be left"):
            deal(images, BINARY, 3, seed=seed)
        return
    dealt = deal(images, BINARY, 3, seed=seed)
    assert len(set(zip(copies, dealt.fold_of, strict=True))) == len(set(copies))
    assert any("kept in one fold" in note for note in dealt.notes)


def test_of_few_images_each_is_a_fold():
    dealt = deal([annotated(k) for k in range(3)], BINARY, 2, seed=0)
    assert sorted(dealt.fold_of) == [1, 2, 3]
    assert dealt.notes == ("Of fewer than 5 images each is a fold: leave-one-out, 3 folds.",)


def test_not_more_folds_than_images():
    dealt = deal([annotated(k) for k in range(6)], BINARY, 10, seed=0)
    assert sorted(dealt.fold_of) == [1, 2, 3, 4, 5, 6]
    assert dealt.notes == ("There are 6 images, so 6 folds of one image each, not 10.",)


def test_a_class_that_one_image_has_is_told():
    images = [annotated(k, (0, 10, 30) if k == 4 else (0, 10, 20)) for k in range(6)]
    assert deal(images, CLASSES, 3, seed=0).notes == (
        "The label 30 is in one image only: whoever is scored on that image has never seen it, so expect a low score.",
    )


@pytest.mark.parametrize("asked", [1, 0, -3])
def test_fewer_than_two_folds(asked):
    with pytest.raises(InputError, match=f"at least 2 folds, not {asked}"):
        deal([annotated(k) for k in range(6)], BINARY, asked, seed=0)


def test_one_image_cannot_be_held_out():
    with pytest.raises(InputError, match=r"with one image nothing .* annotate a second image, or train without folds"):
        deal([annotated(0)], BINARY, 2, seed=0)


def test_what_leaves_nothing_to_tell_apart_is_refused_before_anything_is_trained():
    images = [annotated(k, (0, 1) if k == 2 else (0,)) for k in range(6)]
    with pytest.raises(InputError, match=r"without .*image 2.* the other images show 1 label and nothing to tell"):
        deal(images, BINARY, 3, seed=0)


# training


class Watch:
    def __init__(self, monkeypatch):
        self.trained_on, self.states, self.steps, self.plans = [], [], [], []
        prepare = training.prepare

        def watched(images, contract, parts=None):
            self.trained_on.append({image.name: fingerprint(image) for image in images})
            return prepare(images, contract, parts)

        monkeypatch.setattr(training, "prepare", watched)

    def calls(self):
        return {
            "on_folds": self.states.append,
            "on_step": self.steps.append,
            "on_plan": lambda *plan: self.plans.append(plan),
        }


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


@pytest.fixture(scope="module")
def six():
    """Six images with a disc each."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:48, :56]
    masks = [((rows - 20 - k) ** 2 + (columns - 28) ** 2 < 12**2).astype(np.uint8) for k in range(6)]
    return [(40 + 120 * mask + rng.normal(0, 10, mask.shape)).astype(np.uint8) for mask in masks], masks


def test_networks_of_folds_are_trained_on_copies_as_the_model_is(tiny, monkeypatch):
    masks = [np.pad(np.ones((6 + k, 6), np.uint8), 20) for k in range(6)]
    images = [40 + 120 * mask for mask in masks]
    recipe = replace(tiny, augmentation=replace(tiny.augmentation, copies=1))
    given, prepare = [], training.prepare
    monkeypatch.setattr(training, "prepare", lambda images, *more: given.append(len(images)) or prepare(images, *more))
    train(images, masks, recipe=recipe, steps=1, device="cpu", folds=3, task="instances")
    assert given == [8, 8, 8, 12]


def test_no_network_has_seen_what_it_is_scored_on(six, tiny, watch):
    model = train(*six, recipe=tiny, steps=2, device="cpu", folds=3, **watch.calls())
    made = model.contract.provenance
    *of_folds, of_all = watch.trained_on
    assert len(of_folds) == made["folds"]["number"] == 3
    assert of_all == made["images"]
    assert len(set(of_all.values())) == 6
    for fold, seen in enumerate(of_folds, 1):
        held = {name for name, of in made["folds"]["of"].items() if of == fold}
        assert len(held) == 2
        assert seen.keys() == of_all.keys() - held
        assert not {of_all[name] for name in held} & set(seen.values())
    assert made["held_out"] == {}


def test_a_score_is_that_of_a_network_trained_on_the_others(six, tiny):
    """The same as to train by hand on all but the fold, and to look at the fold."""
    states = []
    train(*six, recipe=tiny, steps=15, device="cpu", folds=2, seed=3, on_folds=states.append)
    dealt, rows = states[-1].dealt, states[-1].of_all.rows
    all_of_it = replace(tiny, training=replace(tiny.training, held_out=0.0))
    for fold in (1, 2):
        others = [k for k in range(6) if dealt.fold_of[k] != fold]
        model = train(*([part[k] for k in others] for part in six), recipe=all_of_it, steps=15, device="cpu", seed=3)
        for k in sorted({*range(6)} - {*others}):
            found, truth = model.segment(six[0][k]) > 0, six[1][k] > 0
            assert rows[k].scores["IoU"] == pytest.approx((found & truth).sum() / (found | truth).sum(), nan_ok=True)


def test_what_is_told(six, tiny, watch):
    model = train(*six, recipe=tiny, steps=2, device="cpu", folds=2, **watch.calls())
    assert [(state.done, bool(state.of_fold), bool(state.of_all)) for state in watch.states] == [
        (0, False, False), (1, True, False), (2, True, False), (2, False, True),
    ]  # fmt: skip
    assert [len(state.of_fold.names) for state in watch.states if state.of_fold] == [3, 3]
    of_all = watch.states[-1].of_all
    assert list(of_all.names) == [f"image {k}" for k in range(6)]
    assert model.contract.quality == {name: v for name, v in of_all.overall.items() if np.isfinite(v)}
    assert model.contract.provenance["folds"]["intervals"]["IoU"] == list(of_all.intervals["IoU"])
    json.dumps(model.contract.to_dict(), allow_nan=False)
    assert [(p.fold, p.folds) for p in watch.steps] == [(1, 2), (1, 2), (2, 2), (2, 2), (0, 2), (0, 2)]
    assert [p.share for p in watch.steps] == pytest.approx([k / 6 for k in range(1, 7)])
    [(_, trained_on, held_out)] = watch.plans
    assert (trained_on, held_out) == (6, 0)


def test_the_minutes_are_those_of_the_whole_command(six, tiny):
    model = train(*six, recipe=tiny, minutes=0.03, device="cpu", folds=2)
    assert model.contract.recipe.training.minutes == pytest.approx(0.01)


def test_the_model_is_that_of_all_images(six, tiny):
    """Folds change what is known about the model, not the model."""
    all_of_it = replace(tiny, training=replace(tiny.training, held_out=0.0))
    plain = train(*six, recipe=all_of_it, steps=3, device="cpu")
    model = train(*six, recipe=all_of_it, steps=3, device="cpu", folds=2)
    assert (model.predict(six[0][0]) == plain.predict(six[0][0])).all()
    assert plain.contract.quality == {}


def test_colour_of_which_some_is_gray(tiny):
    """What network is trained follows from all images, not from those of a fold."""
    rng = np.random.default_rng(0)
    masks = [np.eye(20, dtype=np.uint8)] * 4
    images = [np.repeat(rng.integers(0, 255, (20, 20, 1), np.uint8), 3, axis=2) for _ in masks]
    images[2][..., 0] = 7
    model = train(images, masks, recipe=tiny, steps=1, device="cpu", folds=2)
    assert model.contract.network.in_channels == 3


# objects


def discs(joined):
    """The probability of foreground of two discs, maybe with a bar between them, and their labels."""
    rows, columns = np.indices((40, 50))
    cells = ((rows - 20) ** 2 + (columns - 13) ** 2 <= 64) * 1 + ((rows - 20) ** 2 + (columns - 35) ** 2 <= 64) * 2
    bar = (abs(rows - 20) <= 2) & (columns > 13) & (columns < 35) if joined else False
    return np.where((cells > 0) | bar, 0.9, 0.1).astype(np.float16), cells.astype(np.int32)


def test_rules_for_an_image_are_chosen_on_other_folds():
    """Joined objects in one fold, none in the other: only the other one's rules part them."""
    contract = Contract(
        network=NetworkConfig(width=2, depth=1), task=Task("instances", (), None),
        normalisation=Normalisation("range", together=False), views="one",
    )  # fmt: skip
    found = [discs(joined=k < 2) for k in range(4)]
    images = [Annotated(f"{k}", maps.astype(np.float32), cells, None) for k, (maps, cells) in enumerate(found)]
    labels, rules = folds._objects_out_of_fold(
        images, {k: maps[None] for k, (maps, _) in enumerate(found)}, Dealt(2, (1, 1, 2, 2)), contract,
        {1: ObjectRules(), 2: ObjectRules()}, lambda: math.inf,
    )  # fmt: skip
    assert [int(one.max()) for one in labels] == [1, 1, 2, 2]  # by their own fold's rules the first two were parted
    assert rules.split > 0


def test_without_time_to_choose_the_rules_stay():
    contract = Contract(
        network=NetworkConfig(width=2, depth=1), task=Task("instances", (), None),
        normalisation=Normalisation("range", together=False), views="one",
    )  # fmt: skip
    maps, cells = discs(joined=True)
    images = [Annotated(f"{k}", maps.astype(np.float32), cells, None) for k in range(2)]
    rules = ObjectRules(smallest=8)
    labels, chosen = folds._objects_out_of_fold(
        images, dict.fromkeys(range(2), maps[None]), Dealt(2, (1, 2)), contract, {1: rules, 2: rules}, lambda: -1.0
    )
    assert [int(one.max()) for one in labels] == [1, 1]
    assert chosen == replace(contract.objects, smallest=0)


def test_objects_end_with_rules_of_all_folds(six, tiny, watch):
    images, masks = six
    model = train(images, masks, recipe=tiny, steps=20, device="cpu", task="instances", folds=2, **watch.calls())
    assert model.contract.quality["AP@0.5 (pooled)"] == watch.states[-1].of_all.overall["AP@0.5 (pooled)"]
    assert model.segment(images[0]).max() >= 0


def test_no_more_images_are_tuned_on_than_needed(monkeypatch):
    monkeypatch.setattr(folds, "MOST_TUNED_ON", 3 * 8)
    images = [annotated(k) for k in range(8)]
    assert folds._tuned_on(images, Dealt(2, (1, 1, 1, 1, 2, 2, 2, 2))) == [0, 4, 1]
    assert folds._tuned_on(images, Dealt(4, (1, 1, 2, 2, 3, 3, 4, 4))) == [0, 2, 4, 6]  # one of each fold at least


def test_round_numbers_of_pixels():
    assert [folds._rounded(n) for n in (0, 1, 3, 5, 6, 7, 11, 15, 16, 40)] == [0, 1, 3, 4, 6, 6, 8, 12, 16, 32]


# time


def test_trainings_share_the_time():
    now = [990.0]
    clock = Clock(lambda: now[0])
    shared = SharedTime(clock, minutes=1.0)
    now[0] = 1000.0
    assert shared.clock_of(1).start == 990  # reading the images took ten seconds: they are its own
    shared.measured(998.0, pixels=100)  # 2 seconds for 100 pixels
    assert shared.clock_of(1, pixels=500).start == 980
    now[0] = 1051.0
    assert shared.clock_of(2, pixels=0).start == 1050
    now[0] = 1100.0
    assert shared.clock_of(2).start == 1070  # late, but half of its time it keeps
    now[0] = 1020.0
    assert shared.clock_of(2).start == 1020  # early: it takes no more than its share
    assert shared.clock_of(2).seconds() == 0
    assert SharedTime(clock, minutes=0.0).clock_of(3, pixels=10).start == 1020  # by steps


def test_choosing_the_rules_leaves_the_model_most_of_its_time():
    now = [1000.0]
    shared = SharedTime(Clock(lambda: now[0]), minutes=1.0)
    now[0] = 1000.0 + 2 * 60  # both folds are done, just in time
    assert shared.left_to_choose(2) == pytest.approx(60 * folds.CHOOSING_SHARE)
    now[0] += 60
    assert shared.left_to_choose(2) < 0
    assert SharedTime(Clock(), minutes=0.0).left_to_choose(2) == math.inf


# folders


@pytest.fixture
def folder(six, write_folder):
    return write_folder(*six)


def test_folds_leave_a_table(folder, tiny, tmp_path):
    states = []
    train_folder(folder, tmp_path / "run", recipe=tiny, steps=2, device="cpu", folds=2, on_folds=states.append)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "folds.csv", "log.csv", "model.safetensors", "recipe.toml",
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "run" / "folds.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [image.name for image in read_pairs(find_pairs(folder))]
    assert tuple(int(row["fold"]) for row in rows) == states[-1].dealt.fold_of
    assert float(rows[0]["IoU"]) == states[-1].of_all.rows[0].scores["IoU"]
    log = list(csv.DictReader((tmp_path / "run" / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in log] == ["1", "2"]  # those of the model
    assert load(tmp_path / "run").contract.provenance["folds"]["number"] == 2


def test_a_table_of_another_model_does_not_stay(folder, tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "folds.csv").write_text("of an earlier model")
    with pytest.raises(FileError, match=r"run already holds folds\.csv; choose another folder or say --overwrite"):
        train_folder(folder, tmp_path / "run", recipe=tiny, steps=1)
    train_folder(folder, tmp_path / "run", recipe=tiny, steps=1, overwrite=True)
    assert not (tmp_path / "run" / "folds.csv").exists()

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.data.annotated import Annotated, Task
from ubend.errors import InputError
from ubend.run import learning_curve as module
from ubend.run import training
from ubend.run.evaluation import Evaluation
from ubend.run.learning_curve import CurvePlan, LearningCurve, learning_curve, plan_curve
from ubend.run.pooling import Score, mean_of_images
from ubend.run.preparation import fingerprint

BINARY = Task("binary", (0, 1), None)


def annotated(number, values=(0, 1)):
    return Annotated(f"image {number}", np.full((2, 4), number), np.resize(np.int32(sorted(values)), (2, 4)), None)


def curve_of(scores, repeats=4, images=12):
    """A curve of scores, shape (sizes, images), image k held out by repeat k modulo the repeats."""
    scores = np.asarray(scores)
    sizes = {3: (1, 2, 4), 4: (1, 2, 4, 9), 2: (1, 2)}[len(scores)]
    repeat_of = [k % repeats for k in range(images)]
    order = np.argsort(repeat_of, kind="stable")
    names = tuple(f"image {k}" for k in order)
    evaluations = tuple(
        Evaluation("binary", names, (mean_of_images(Score("IoU", "overlap", "images"), row[order]),)) for row in scores
    )
    held = tuple(tuple(k for k in range(images) if k % repeats == r) for r in range(repeats))
    plan = CurvePlan(images, sizes, held, tuple(() for _ in held), minutes=0.5)
    return LearningCurve(plan, evaluations, tuple(sorted(repeat_of)))


def simulated(rng, law, images=12, repeats=4, noise=1.0):
    """Images that are easy or hard; trainings on few images that turned out well or badly."""
    sizes = np.array([1.0, 2.0, 4.0, 9.0])
    of_image = rng.normal(0, 0.08 * noise, images)
    of_training = rng.normal(0, 1, (4, repeats)) * noise * (0.006 + 0.04 / np.sqrt(sizes))[:, None]
    scores = law(sizes)[:, None] + of_image + of_training[:, np.arange(images) % repeats]
    return curve_of(scores + rng.normal(0, 0.02 * noise, scores.shape), repeats, images)


# the plan


@given(images=st.integers(4, 20), repeats=st.integers(2, 8), seed=st.integers(0, 999))
def test_every_image_is_held_out_once_and_never_trained_on_then(images, repeats, seed):
    plan = plan_curve([annotated(k) for k in range(images)], BINARY, repeats=repeats, seed=seed)
    assert sorted(k for held in plan.held_out for k in held) == list(range(images))
    for held, order in zip(plan.held_out, plan.orders, strict=True):
        assert not set(held) & set(order)
        assert len(set(order)) == len(order) == plan.sizes[-1]
    assert plan.sizes[0] == 1
    assert all(one < other for one, other in pairwise(plan.sizes))
    assert plan.trainings == plan.repeats * len(plan.sizes)


def test_repeats_take_the_images_in_other_orders():
    plan = plan_curve([annotated(k) for k in range(16)], BINARY, repeats=4, seed=0)
    assert plan.sizes == (1, 2, 4, 8, 12)
    assert len({order[0] for order in plan.orders}) > 1


def test_the_first_image_shows_something_to_tell_apart():
    images = [annotated(k, (0, 1) if k in (3, 7) else (0,)) for k in range(8)]
    plan = plan_curve(images, BINARY, repeats=2, seed=0)
    assert {order[0] for order in plan.orders} == {3, 7}


@pytest.mark.parametrize(
    ("number", "repeats", "message"),
    [
        (3, 4, "takes at least 4 images, and here are 3: annotate more; `ubend train --folds` says with two images"),
        (1, 4, "at least 4 images, and here is 1"),
        (8, 1, "is repeated at least 2 times, not 1"),
    ],
)
def test_what_is_no_curve(number, repeats, message):
    with pytest.raises(InputError, match=message):
        plan_curve([annotated(k) for k in range(number)], BINARY, repeats=repeats, seed=0)


def test_no_image_to_begin_with():
    with pytest.raises(InputError, match="no single image shows two labels to tell apart"):
        plan_curve([annotated(k, (k % 2,)) for k in range(8)], BINARY, repeats=2, seed=0)


# what the scores say


def test_scores_are_those_of_all_repeats_together():
    scores = np.array([[0.2, 0.4] * 4, [0.4, 0.6] * 4, [0.6, 0.7] * 4])
    curve = curve_of(scores, repeats=2, images=8)
    assert curve.scores == pytest.approx((0.3, 0.5, 0.65))
    assert curve.of_repeats[0] == pytest.approx((0.2, 0.4))
    assert curve.rise[0] == pytest.approx(0.35)
    assert curve.score_name == "IoU"


def test_draws_are_of_repeats_and_then_of_images():
    times = module._two_level_draws((0, 0, 0, 1, 1), np.random.default_rng(0))
    of_repeat = np.stack([times[:, :3].sum(axis=1), times[:, 3:].sum(axis=1)], axis=1)
    assert {tuple(row) for row in of_repeat.astype(int).tolist()} == {(6, 0), (3, 2), (0, 4)}
    assert times.mean(axis=0) == pytest.approx(1.0, abs=0.1)


def test_an_interval_of_few_repeats_is_that_of_t():
    """Two repeats that score 0.5 ± 0.01: the draws are 0.49, 0.5 and 0.51, and t with one degree of freedom 12.71."""
    scores = np.array([[0.49, 0.51] * 4, [0.6] * 8, [0.7] * 8])
    reach = 12.706 / 1.96 * np.sqrt(2) * 0.01
    assert curve_of(scores, repeats=2, images=8).intervals[0] == pytest.approx((0.5 - reach, 0.5 + reach), abs=1e-4)
    assert module._stretch(20) == pytest.approx(2.093 / 1.96 * np.sqrt(20 / 19), abs=1e-3)


def test_a_known_law_is_followed_to_twice_the_images():
    law = lambda n: 0.9 - 0.5 * n**-0.7  # noqa: E731
    curve = simulated(np.random.default_rng(1), law, noise=0.05)
    outlook = curve.outlook
    assert curve.why_no_outlook == ""
    assert (outlook.images, outlook.more) == (12, 12)
    assert outlook.score == pytest.approx(law(12.0), abs=0.01)
    assert outlook.gain == pytest.approx(law(24.0) - law(12.0), abs=0.005)
    assert outlook.gain_interval[0] <= outlook.gain <= outlook.gain_interval[1]
    assert outlook.interval[0] <= outlook.score <= outlook.interval[1]
    drawn = curve.drawn()
    assert (drawn[0][0], drawn[-1][0]) == pytest.approx((1, 24))
    assert all(low - 1e-9 <= score <= high + 1e-9 for _, score, low, high in drawn)


def test_never_more_than_four_times_what_was_measured():
    scores = np.array([[0.3], [0.5], [0.6]]) + np.zeros(12)
    curve = curve_of(scores)  # measured with up to 4
    assert curve.outlook.images + curve.outlook.more == 16


def test_flat_scores_tell_nothing():
    curve = simulated(np.random.default_rng(0), lambda n: np.full(n.size, 0.8))
    assert curve.outlook is None
    assert curve.drawn() == []
    assert "from 1 to 9 images the score changed by" in curve.why_no_outlook
    assert "which may be chance" in curve.why_no_outlook


def test_scores_too_noisy_tell_nothing():
    """The rise is sure, what comes after it is not: some repeats have come to rest, others rise on."""
    rng = np.random.default_rng(0)
    of_repeat = np.array([[0.1, 0.1, 0.1, 0.1], [0.5, 0.2, 0.5, 0.2], [0.5, 0.35, 0.5, 0.35], [0.5, 0.6, 0.5, 0.6]])
    curve = curve_of(of_repeat[:, np.arange(12) % 4] + rng.normal(0, 0.01, (4, 12)))
    assert curve.rise[1][0] > 0
    assert curve.outlook is None
    assert curve.why_no_outlook.startswith("12 more could bring anything from +0.00 to +0.")


def test_two_sizes_tell_nothing():
    curve = curve_of(np.array([[0.3] * 12, [0.5] * 12]))
    assert curve.why_no_outlook.startswith("there are scores at 2 sizes only, and it takes 3")


def test_nothing_to_score_tells_nothing():
    curve = curve_of(np.full((4, 12), np.nan))
    assert curve.why_no_outlook == "too few of the images have something to score"
    assert curve.to_dict()["points"][0]["score"] is None
    assert curve.to_table()[1] == [1, "", "", "", "measured"]


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch):
    """Of 80 data sets from known laws; where images differ most, as here, rather more often for the score."""
    monkeypatch.setattr(module, "RESAMPLES", 300)
    rng = np.random.default_rng(5)
    gain, score = [], []
    for _ in range(80):
        a, b, c = rng.uniform(0.75, 0.9), rng.uniform(0.25, 0.5), rng.uniform(0.5, 1.2)
        now, then = a - b * 12**-c, a - b * 24**-c
        outlook = simulated(rng, lambda n, a=a, b=b, c=c: a - b * n**-c).outlook
        if outlook is not None:
            (least, most), (low, high) = outlook.gain_interval, outlook.interval
            gain.append(least <= then - now <= most)
            score.append(low <= now <= high)
    assert len(gain) > 60
    assert 0.87 <= np.mean(gain) < 1
    assert np.mean(score) >= 0.95


def test_what_is_written():
    curve = simulated(np.random.default_rng(1), lambda n: 0.9 - 0.5 * n**-0.7, noise=0.05)
    written = json.loads(json.dumps(curve.to_dict(), allow_nan=False))
    assert (written["format"], written["format_version"]) == ("ubend-learning-curve", 1)
    assert [point["images"] for point in written["points"]] == [1, 2, 4, 9]
    assert written["points"][0]["score"] == curve.scores[0]
    assert len(written["points"][0]["of_repeats"]) == 4
    assert written["outlook"]["gain"] == curve.outlook.gain
    assert written["minutes_each"] == 0.5
    assert written["steps_each"] is None
    assert sorted(name for held in written["held_out"] for name in held) == sorted(f"image {k}" for k in range(12))
    table = curve.to_table()
    assert table[0] == ["images", "score", "low", "high", "how"]
    assert [(row[0], row[-1]) for row in table[-3:]] == [(9, "measured"), (12, "foreseen"), (24, "foreseen")]
    assert table[-2][1] == pytest.approx(curve.outlook.score)


# training


def test_training_on_ever_more_images(discs, tiny, monkeypatch):
    trained_on, plans, steps = [], [], []
    prepare = training.prepare

    def watched(images, contract, parts=None):
        trained_on.append([fingerprint(image) for image in images])
        return prepare(images, contract, parts)

    monkeypatch.setattr(training, "prepare", watched)
    curve = learning_curve(
        *discs, recipe=tiny, steps=2, device="cpu", on_plan=lambda plan, _: plans.append(plan), on_step=steps.append
    )
    plan = curve.plan
    assert plans == [plan]
    assert (plan.sizes, plan.repeats, plan.trainings, plan.steps) == ((1, 2, 3), 4, 12, 2)
    images = training.annotated_images(*discs)
    for repeat, held in enumerate(plan.held_out):
        one, two, three = trained_on[3 * repeat : 3 * repeat + 3]
        assert one == two[:1] == three[:1]
        assert two == three[:2]
        assert {fingerprint(images[k]) for k in held}.isdisjoint(three)
    assert [name for evaluation in curve.evaluations for name in evaluation.names] == [
        images[k].name for _ in plan.sizes for held in plan.held_out for k in held
    ]
    assert [(p.fold, p.folds) for p in steps] == [(k, 12) for k in range(1, 13) for _ in range(2)]
    assert steps[-1].share == 1


def test_a_score_is_that_of_a_model_of_these_images(discs, tiny):
    curve = learning_curve(*discs, recipe=tiny, steps=10, device="cpu")
    order, [held] = curve.plan.orders[0], curve.plan.held_out[0]
    model = training.train(*([part[k] for k in order[:2]] for part in discs), recipe=tiny, steps=10, device="cpu")
    found, truth = model.predict(discs[0][held], views="one").argmax(0) > 0, discs[1][held] > 0
    score = curve.evaluations[1].rows[0].scores["IoU"]
    assert score == pytest.approx((found & truth).sum() / (found | truth).sum())


def test_the_minutes_are_those_of_all_trainings(discs, tiny):
    curve = learning_curve(*discs, recipe=tiny, minutes=0.06, device="cpu")
    assert curve.plan.minutes == pytest.approx(0.005)


def test_a_length_or_a_seed_that_is_none(discs, tiny):
    with pytest.raises(InputError, match="by minutes or by steps, not both"):
        learning_curve(*discs, recipe=tiny, minutes=1.0, steps=1)
    with pytest.raises(InputError, match="a seed is a whole number"):
        learning_curve(*discs, recipe=tiny, steps=1, seed=-1)

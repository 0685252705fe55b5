"""Pooling and intervals, against numbers worked out by hand and against a plain loop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.run.pooling import RESAMPLES, Column, Score, intervals, mean_of_images

PIXELS = Score("IoU", "overlap", "pixels")
IMAGES = Score("AP@0.5 (mean of images)", "found", "images")


def column(numerator, denominator, **choices):
    return Column(PIXELS, np.array(numerator, float), np.array(denominator, float), **choices)


def test_counts_are_summed_before_they_are_divided():
    one = column([[1], [9]], [[10], [10]])
    assert one.of_images().tolist() == [0.1, 0.9]
    assert one.overall() == 0.5
    assert column([[1], [9]], [[10], [90]]).overall() == 0.1


def test_images_with_nothing_to_score():
    one = column([[0], [9]], [[0], [10]])
    assert math.isnan(one.of_images()[0])
    assert one.overall() == 0.9
    assert math.isnan(column([[0]], [[0]]).overall())


def test_parts_are_averaged_after_the_division():
    one = column([[1, 0, 3], [0, 0, 3]], [[2, 0, 4], [2, 0, 4]])
    assert one.of_images().tolist() == [(1 / 2 + 3 / 4) / 2, 3 / 8]
    assert one.overall() == (1 / 4 + 6 / 8) / 2


def test_a_cost_is_subtracted_and_never_makes_less_than_0():
    one = column([[5], [30]], [[10], [10]], cost=True)
    assert one.of_images().tolist() == [0.5, 0]
    assert one.overall() == 0


def test_the_mean_of_images_leaves_out_those_without_a_score():
    one = mean_of_images(IMAGES, [1, 0.5, math.nan])
    assert one.score.image_name == "AP@0.5"
    assert one.overall() == 0.75
    assert one.of_images().tolist()[:2] == [1, 0.5]


def test_an_interval_is_the_same_every_time_and_holds_the_score():
    one = mean_of_images(IMAGES, np.linspace(0, 1, 20))
    [(low, high)] = intervals([one]).values()
    assert intervals([one])[IMAGES.name] == (low, high)
    assert 0.3 < low < one.overall() < high < 0.7


def test_the_interval_is_that_of_a_plain_loop():
    rng = np.random.default_rng(2015)
    draws = rng.integers(4, size=(RESAMPLES, 4))
    shared, of = np.array([1, 2, 3, 40]), np.array([10, 10, 10, 80])
    plain = np.percentile([shared[draw].sum() / of[draw].sum() for draw in draws], (2.5, 97.5))
    assert intervals([column(shared[:, None], of[:, None])])["IoU"] == pytest.approx(tuple(plain))


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    scores = np.random.default_rng(0).uniform(size=200)
    [(low, high)] = intervals([mean_of_images(IMAGES, scores)]).values()
    assert (high - low) / 2 == pytest.approx(1.96 * scores.std() / math.sqrt(200), rel=0.1)


def test_all_images_alike_leave_no_doubt():
    assert intervals([mean_of_images(IMAGES, [0.5] * 5)])[IMAGES.name] == (0.5, 0.5)


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, 0.5], [1.0, 0.5, math.nan, math.nan]])
def test_fewer_than_three_images_have_no_interval(scores):
    assert intervals([mean_of_images(IMAGES, scores)]) == {IMAGES.name: None}


def test_a_score_that_is_fixed_has_no_interval():
    one = column([[1]] * 4, [[2]] * 4, fixed=0.7)
    assert one.overall() == 0.7
    assert intervals([one]) == {"IoU": None}


def test_draws_without_anything_to_score_are_left_out():
    """Of 3 images in 12 some resamples draw none of the three."""
    one = mean_of_images(IMAGES, [1.0, 0.5, 0.0, *[math.nan] * 9])
    low, high = intervals([one])[IMAGES.name]
    assert 0 <= low < 0.5 < high <= 1


def test_many_images_are_drawn_in_portions():
    few = intervals([mean_of_images(IMAGES, np.arange(1500) % 2)])[IMAGES.name]
    assert few == pytest.approx((0.475, 0.525), abs=0.005)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12))
def test_pooled_scores_lie_between_those_of_the_images(counts):
    right, rest = np.array(counts).T
    one = column(right[:, None], (right + rest)[:, None])
    scores = one.of_images()[~np.isnan(one.of_images())]
    if scores.size:
        assert scores.min() - 1e-12 <= one.overall() <= scores.max() + 1e-12

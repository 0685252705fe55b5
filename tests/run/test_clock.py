import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.run.clock import CLOSING, Clock
from ubend.run.recipe import TrainingConfig


class Time:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_run_by_steps_knows_no_time():
    time = Time()
    clock = Clock(time)
    clock.begin(TrainingConfig(minutes=0, steps=4), validations=4)
    time.seconds = 1e6
    assert [clock.share(step) for step in (1, 2, 4, 5)] == [0.25, 0.5, 1, 1]
    assert clock.until_closing() == math.inf
    assert clock.validated(1e6, [0.5, 0.75, 1.0]) == [0.5, 0.75, 1.0]


def test_the_end_is_kept_free_for_what_follows():
    time = Time()
    clock = Clock(time)
    time.seconds = 10.0  # preparing
    clock.begin(TrainingConfig(minutes=1), validations=1, validation=5.0, after=15.0)
    time.seconds = 25.0
    assert clock.share(15) == pytest.approx(15 / 30)  # steps until second 40
    time.seconds = 40.0
    assert clock.share(30) == 1
    assert clock.until_closing() == pytest.approx(20 - CLOSING)


def test_validations_take_no_leap():
    time = Time()
    clock = Clock(time)
    clock.begin(TrainingConfig(minutes=1), validations=2, validation=10.0, after=0.0)
    time.seconds = 20.0
    before = clock.share(20)
    time.seconds = 30.0
    assert clock.validated(10.0, [1.0]) == [1.0]
    assert clock.share(20) == pytest.approx(before) == 0.5
    assert clock.working() == pytest.approx(20)


def test_validations_that_are_too_slow_are_left_out():
    time = Time()
    clock = Clock(time)
    clock.begin(TrainingConfig(minutes=1), validations=4)
    assert clock.validated(2.9, [0.5, 0.75, 1.0]) == [0.5, 0.75, 1.0]
    assert clock.validated(3.1, [0.5, 0.75, 1.0]) == [1.0]
    assert clock.to_come == 1


@given(
    minutes=st.floats(1, 600),
    seed=st.integers(0, 1000),
    steps=st.integers(40, 400),
    noise=st.floats(0, 1),
    preparing=st.floats(0, 0.2),
    validation=st.floats(0, 0.03),
    tuning=st.floats(0, 0.08),
)
def test_a_timed_run_ends_when_it_was_promised(minutes, seed, steps, noise, preparing, validation, tuning):
    """Steps and validations take now twice, now half as long, and nothing is known of them in advance."""
    rng, time, budget = np.random.default_rng(seed), Time(), 60 * minutes
    clock = Clock(time)

    def work(seconds, noise):
        began = time.seconds
        time.seconds += seconds * 2 ** rng.uniform(-noise, noise)
        return time.seconds - began

    time.seconds += preparing * budget
    pending, shares, step = [0.25, 0.5, 0.75, 1.0], [0.0], 0
    clock.begin(TrainingConfig(minutes=minutes), validations=4)
    while shares[-1] < 1:
        work(budget / steps, noise)
        step += 1
        shares.append(clock.share(step))
        if shares[-1] >= pending[0]:
            pending = [at for at in pending if at > shares[-1]]
            pending = clock.validated(work(validation * budget, 0.3 * noise), pending)
            clock.expect(tuning * budget)
    work(tuning * budget + CLOSING, 0.3 * noise)
    assert time.seconds == pytest.approx(budget, rel=0.05)
    assert all(earlier <= later for earlier, later in pairwise(shares))

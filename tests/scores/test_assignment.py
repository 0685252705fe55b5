"""Sparse assignment against the dense one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from ubend.scores.assignment import assign


def test_nothing_to_assign():
    assert assign(np.zeros(0, int), np.zeros(0, int), np.zeros(0)).tolist() == []


def test_who_competes_with_no_one_is_taken():
    assert assign(np.array([5, 2]), np.array([0, 9]), np.array([0.1, 0.9])).tolist() == [0, 1]


def test_the_better_of_two_is_taken():
    assert assign(np.array([0, 1, 2]), np.array([0, 0, 0]), np.array([0.2, 0.7, 0.7 - 1e-9])).tolist() == [1]


@given(st.integers(0, 10**6))
def test_the_gain_is_that_of_the_dense_assignment(seed):
    rng = np.random.default_rng(seed)
    dense = rng.random(rng.integers(1, 8, 2)) * (rng.random() < 0.9)
    dense[rng.random(dense.shape) < rng.random()] = 0
    rows, columns = np.nonzero(dense)
    chosen = assign(rows, columns, dense[rows, columns])
    assert len(set(rows[chosen])) == len(set(columns[chosen])) == len(chosen)
    best = dense[linear_sum_assignment(dense, maximize=True)].sum()
    np.testing.assert_allclose(dense[rows, columns][chosen].sum(), best, atol=1e-12)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import InputError
from ubend.run.power_law import fit

SIZES = np.array([1, 2, 4, 8, 16])


@given(a=st.floats(0.5, 1.0), b=st.floats(0.05, 0.5), c=st.floats(0.2, 1.8))
def test_a_known_law_is_found(a, b, c):
    found = fit(SIZES, a - b * SIZES**-c)
    assert found.at(SIZES)[0] == pytest.approx(a - b * SIZES**-c, abs=2e-3)
    assert found.at([32])[0, 0] == pytest.approx(a - b * 32**-c, abs=4e-3)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=5))
def test_whatever_the_scores_the_law_keeps_its_limits(scores):
    found = fit(SIZES[: len(scores)], scores)
    assert (found.a <= 1).all()
    assert (found.b >= 0).all()
    assert ((found.c > 0) & (found.c <= 2)).all()
    assert (np.diff(found.at([1, 2, 4, 8])[0]) >= -1e-12).all()


def test_a_law_is_the_best_within_its_limits():
    """Beyond 1 by a straight fit: then a = 1, and b by hand."""
    y = np.array([0.5, 0.95, 0.99])
    found = fit([1, 2, 4], y)
    power = np.array([1, 2, 4.0]) ** -found.c[0]
    assert found.a[0] == 1
    assert found.b[0] == pytest.approx((power * (1 - y)).sum() / (power**2).sum())


def test_falling_scores_are_flat_to_a_law():
    assert fit([1, 2, 4], [0.8, 0.7, 0.6]).at([1, 8])[0] == pytest.approx([0.7, 0.7])


def test_many_curves_at_once_are_those_one_by_one():
    scores = np.random.default_rng(0).uniform(0.3, 0.9, (5, 4))
    together = fit(SIZES[:4], scores).at([16])
    assert together[:, 0] == pytest.approx([fit(SIZES[:4], one).at([16])[0, 0] for one in scores])


def test_points_that_are_less_sure_count_less():
    truth = 0.9 - 0.4 / SIZES
    spoilt = truth + np.array([0.2, 0, 0, 0, 0])
    alike, unlike = (fit(SIZES, spoilt, spread).at(SIZES)[0] for spread in (None, [0.3, 0.1, 0.1, 0.1, 0.1]))
    assert abs(unlike - truth)[1:].max() < abs(alike - truth)[1:].max()


def test_nothing_is_said_far_beyond_what_was_measured():
    found = fit([1, 2, 4], [0.5, 0.6, 0.65])
    assert found.at([16]).shape == (1, 1)
    with pytest.raises(InputError, match="measured with up to 4 images: what 17 would bring they do not tell"):
        found.at([1, 17])


def test_two_points_are_no_curve():
    with pytest.raises(InputError, match="3 sizes at least, not 2"):
        fit([1, 2], [0.5, 0.6])

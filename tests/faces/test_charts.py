import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ubend.faces.charts import curve, histogram, interval

HOSTILE = "<script>alert(1)</script>\"&'"


def parsed(svg):
    return ElementTree.fromstring(svg)


def points(svg, kind):
    [element] = [one for one in parsed(svg).iter() if one.get("class") == kind and one.get("points")]
    return [tuple(map(float, pair.split(","))) for pair in element.get("points").split()]


def test_a_curve_goes_from_left_to_right_and_down_as_it_falls():
    at = points(curve([0, 1, 2], [3.0, 2.0, 1.0], title="t", x_label="x", y_label="y"), "one")
    assert [x for x, _ in at] == sorted(x for x, _ in at)
    assert at[0][1] < at[1][1] < at[2][1]  # down the page


def test_many_points_become_few_with_a_band():
    rng = np.random.default_rng(0)
    svg = curve(np.arange(20_000), rng.random(20_000), title="t", x_label="x", y_label="y")
    assert len(svg) < 10_000
    assert len(points(svg, "one")) == 90
    assert len(points(svg, "band")) == 180


@pytest.mark.parametrize(("x", "y"), [([0.0], [0.0]), ([1.0], [5.0]), ([0, 1], [2, 2]), ([3, 3], [1e-9, 1e9])])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_odd_curves_have_finite_places(x, y, logarithmic):
    svg = curve(x, np.maximum(y, 1e-12), title="t", x_label="x", y_label="y", logarithmic=logarithmic)
    assert "nan" not in svg
    assert "inf" not in svg
    parsed(svg)


def test_ticks_are_round_and_small_numbers_short():
    svg = curve([0, 10], [0, 0.002], title="t", x_label="x", y_label="y")
    texts = [one.text for one in parsed(svg).iter("{http://www.w3.org/2000/svg}text")] or re.findall(r">([^<]+)<", svg)
    assert {"0", "5e-4", "1e-3", "1.5e-3", "2e-3"} <= set(texts)


def test_a_histogram_counts_both_sets():
    svg = histogram([1, 1, 1, 9], [9, 9], title="t", x_label="px", names=("found", "annotated"))
    heights = [float(one.get("height")) for one in parsed(svg).iter() if one.get("class") == "bar"]
    bars = heights[:-1]  # the last is the key
    assert len(bars) == 2
    assert bars[0] == pytest.approx(3 * bars[1], abs=0.2)
    assert len(points(svg, "two")) == 2 + 2 * 16
    parsed(histogram([], [2.0], title="t", x_label="px", names=("a", "b")))


def test_an_interval_lies_around_its_score():
    svg = parsed(interval(0.5, (0.25, 1.0), title="t"))
    [dot] = [one for one in svg.iter() if one.get("class") == "dot"]
    [span] = [one for one in svg.iter() if one.get("class") == "range"]
    assert float(span.get("x1")) < float(dot.get("cx")) < float(span.get("x2"))
    assert not [one for one in parsed(interval(0.5, None, title="t")).iter() if one.get("class") == "range"]


def test_words_are_escaped_and_read_out():
    for svg in (
        curve([0], [1], title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE),
        histogram([1], [1], title=HOSTILE, x_label=HOSTILE, names=(HOSTILE, HOSTILE)),
        interval(0.5, None, title=HOSTILE),
    ):
        assert "<script" not in svg
        assert parsed(svg).get("aria-label") == HOSTILE
        assert parsed(svg).get("role") == "img"

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ubend.errors import InputError
from ubend.method.border_weight import border_weights, class_balance, class_weights_map, falk2019_weights
from ubend.method.nearest_cells import two_nearest_cells
from ubend.method.touching import separate_touching

THREE_CELLS = np.array([[1, 1, 1, 2, 2, 0, 0, 3], [1, 1, 1, 2, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, -1]])


def test_class_balance_by_hand():
    np.testing.assert_allclose(class_balance([60, 30, 10]), [100 / 180, 100 / 90, 100 / 30])


def test_absent_class_weighs_nothing_and_does_not_count():
    np.testing.assert_allclose(class_balance([75, 0, 25]), [100 / 150, 0, 2])
    np.testing.assert_array_equal(class_balance([0, 0]), [0, 0])


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6).filter(any))
def test_mean_weight_over_the_pixels_is_one(counts):
    assert np.dot(class_balance(counts), counts) / sum(counts) == pytest.approx(1)


@pytest.mark.parametrize("counts", [[-1, 2], [[1, 2]], [np.nan, 1], [np.inf, 1]])
def test_class_balance_refuses_what_is_no_count(counts):
    with pytest.raises(InputError, match="number of pixels of each class"):
        class_balance(counts)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_class_weights_map(dtype):
    weights = class_weights_map(np.array([[0, 2], [1, 1]], dtype), [0.5, 1.5, 3.0])
    np.testing.assert_array_equal(weights, np.array([[0.5, 3.0], [1.5, 1.5]], np.float32))
    assert weights.dtype == np.float32


def test_class_weights_map_gives_unlabelled_pixels_nothing():
    np.testing.assert_array_equal(class_weights_map(np.array([[-1, 0, -100]]), [2.0]), [[0, 2, 0]])


def test_class_weights_map_names_the_missing_class():
    with pytest.raises(InputError, match=r"classes up to 2, but there are 2 class weights.*give 3"):
        class_weights_map(np.array([[0, 2]]), [1.0, 1.0])


@pytest.mark.parametrize("weights", [[1.0, -1.0], [np.nan, 1.0], [[1.0, 1.0]]])
def test_class_weights_map_refuses_what_is_no_weight(weights):
    with pytest.raises(InputError, match="class weights are"):
        class_weights_map(np.array([[0, 1]]), weights)


def test_border_weights_are_equation_2():
    distances = np.array([[0 + 3, 0 + 2, 1 + 1, 2 + 0, 3 + 0, 4 + 1]], float)
    expected = [1, 1, 0.5, 1, 1, 0.5] + 10 * np.exp(-(distances**2) / (2 * 5**2))
    weights = border_weights(np.array([[1, 1, 0, 2, 2, 0]]), class_weights=(0.5, 1.0))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights.dtype == np.float32


def test_distances_are_those_before_the_gap_and_classes_those_after():
    weights = border_weights(np.array([[1, 1, 1, 2, 2, 2]]), class_weights=(1.0, 0.0), w0=8.0, sigma=2.0)
    ridge = 8 * np.exp(-(np.array([3.0, 2, 1, 1, 2, 3]) ** 2) / 8)
    np.testing.assert_allclose(weights, [ridge + np.array([0, 0, 1, 1, 0, 0])], rtol=1e-6)


def test_default_class_weights_are_the_balance_of_the_labelled_pixels():
    weights = border_weights(np.array([[-1, 4, 0, 0, 0]]))  # one cell: no ridge
    np.testing.assert_allclose(weights, [[0, 2, 2 / 3, 2 / 3, 2 / 3]], rtol=1e-6)


def test_ridge_on_background_only():
    everywhere = border_weights(THREE_CELLS, class_weights=(1.0, 1.0))
    background = border_weights(THREE_CELLS, class_weights=(1.0, 1.0), border_on="background")
    is_background = separate_touching(THREE_CELLS) == 0
    np.testing.assert_array_equal(background[is_background], everywhere[is_background])
    np.testing.assert_array_equal(background[separate_touching(THREE_CELLS) > 0], 1)


@pytest.mark.parametrize("weigh", [border_weights, falk2019_weights])
def test_unlabelled_pixels_weigh_nothing(weigh):
    weights = weigh(THREE_CELLS)
    np.testing.assert_array_equal(weights == 0, THREE_CELLS < 0)


@given(
    hnp.arrays(
        np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([-1, 0, 0, 1, 2])
    ),
    st.sampled_from([0.4, 2.0, 5.0]),
)
def test_cutting_the_ridge_off_is_invisible_in_float32(labels, sigma):
    d1, d2 = two_nearest_cells(labels)
    ridge = 10 * np.exp(-((d1.astype(float) + d2) ** 2) / (2 * sigma**2))
    weights = border_weights(labels, sigma=sigma, class_weights=(1.0, 1.0))
    np.testing.assert_allclose(weights, np.where(labels < 0, 0, 1 + ridge), rtol=1e-6)


def test_image_without_cells_or_without_labels():
    np.testing.assert_array_equal(border_weights(np.zeros((2, 3), int)), np.ones((2, 3)))
    np.testing.assert_array_equal(border_weights(np.full((2, 3), -1)), np.zeros((2, 3)))


def test_falk2019_by_hand():
    weights = falk2019_weights(np.array([[1, 0, 2, 0, 0, 0]]))
    d1, d2 = np.array([1.0, 1, 2, 3]), np.array([1.0, 3, 4, 5])
    background = 0.1 + 0.9 * np.exp(-(d1**2) / 200) + 50 * np.exp(-((d1 + d2) ** 2) / 72)
    np.testing.assert_allclose(weights[0, [1, 3, 4, 5]], background, rtol=1e-6)
    np.testing.assert_array_equal(weights[0, [0, 2]], 1)


def test_falk2019_far_background():
    labels = np.zeros((1, 200), int)
    labels[0, 0] = 1
    assert falk2019_weights(labels)[0, -1] == np.float32(0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"w0": -1.0}, "w0 is -1.0"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": np.inf}, "sigma is inf"),
        ({"border_on": "cells"}, "border_on is 'cells'.*everywhere.*background"),
        ({"class_weights": (1.0, 2.0, 3.0)}, "pair"),
        ({"class_weights": (1.0, -2.0)}, "class weights are"),
        ({"gap": -1}, "gap is -1"),
    ],
)
def test_border_weights_refuses(wrong, message):
    with pytest.raises(InputError, match=message):
        border_weights(THREE_CELLS, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"background": 1.5}, {"sigma_near": 0.0}, {"w_border": -1.0}, {"sigma_border": float("nan")}]
)
def test_falk2019_refuses(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        falk2019_weights(THREE_CELLS, **wrong)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from ubend.errors import InputError
from ubend.method.elastic import Bend, deform, displacement_field, draw_elastic


def test_drawing_is_deterministic_and_gaussian():
    one, two = (draw_elastic(np.random.default_rng(3), (64, 64)).displacements for _ in range(2))
    assert (one == two).all()
    many = draw_elastic(np.random.default_rng(0), (64, 64), points=100, sigma=10).displacements
    assert many.std() == pytest.approx(10, rel=0.02)
    assert abs(many.mean()) < 0.2


def test_the_field_passes_through_the_control_points():
    bend = draw_elastic(np.random.default_rng(1), (101, 61))
    field = displacement_field(bend, (101, 61))
    assert field.shape == (2, 101, 61)
    np.testing.assert_allclose(field[:, ::50, ::30], bend.displacements, atol=1e-4)


def test_the_field_is_a_natural_bicubic_spline():
    bend = draw_elastic(np.random.default_rng(2), (41, 31), points=4)
    rows, columns = np.linspace(0, 3, 41), np.linspace(0, 3, 31)
    down = CubicSpline(np.arange(4), bend.displacements[0], axis=0, bc_type="natural")(rows)
    expected = CubicSpline(np.arange(4), down, axis=1, bc_type="natural")(columns)
    np.testing.assert_allclose(displacement_field(bend, (41, 31))[0], expected, atol=1e-4)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_no_displacement_changes_nothing(order):
    image = np.random.default_rng(0).random((33, 47)).astype(np.float32)
    np.testing.assert_allclose(deform(image, Bend(np.zeros((2, 3, 3))), order=order), image, atol=2e-5)


def test_a_constant_displacement_shifts_and_mirrors():
    image = np.arange(12, dtype=np.int32).reshape(3, 4)
    moved = deform(image, Bend(np.stack([np.zeros((3, 3)), np.full((3, 3), 2.0)])), order=0)
    assert moved.tolist() == [[2, 3, 2, 1], [6, 7, 6, 5], [10, 11, 10, 9]]


def test_linear_interpolation_by_hand():
    image = np.array([[0.0, 10.0, 20.0, 30.0]], dtype=np.float32)
    moved = deform(image, Bend(np.stack([np.zeros((3, 3)), np.full((3, 3), 0.25)])))
    np.testing.assert_allclose(moved, [[2.5, 12.5, 22.5, 27.5]], atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), top=st.sampled_from([3, 255, 70_000, 2**31 - 1]))
def test_labels_get_no_new_values(seed, top):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, size=2))
    labels = rng.choice([0, 1, top - 1, top], size=shape).astype(np.int32)
    bent = deform(labels, draw_elastic(rng, shape), order=0)
    assert bent.dtype == labels.dtype
    assert bent.shape == labels.shape
    assert np.isin(bent, labels).all()


def test_channels_are_deformed_alike_and_dtypes_kept():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    bend = draw_elastic(rng, image.shape, sigma=3)
    bent = deform(image, bend, order=3)
    assert bent.dtype == np.uint8
    assert bent.shape == image.shape
    for channel in range(3):
        assert (bent[..., channel] == deform(image[..., channel], bend, order=3)).all()


def test_image_and_labels_stay_together():
    """A bright disc and its label: after any bend the label lies on the disc."""
    rows, columns = np.mgrid[:128, :128]
    labels = ((rows - 60) ** 2 + (columns - 70) ** 2 < 30**2).astype(np.uint8)
    bend = draw_elastic(np.random.default_rng(5), labels.shape)
    bent_image, bent_labels = deform(labels * 1.0, bend), deform(labels, bend, order=0)
    assert ((bent_image > 0.5) == (bent_labels > 0)).mean() > 0.999


def test_what_cannot_be_deformed():
    bend = Bend(np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match="complex128"):
        deform(np.zeros((3, 3), complex), bend)
    with pytest.raises(InputError, match=r"\(2, 2, 2, 2\)"):
        deform(np.zeros((2, 2, 2, 2)), bend)
    with pytest.raises(InputError, match=r"order is 0 .nearest., 1 .linear. or 3 .cubic., not 2"):
        deform(np.zeros((3, 3)), bend, order=2)
    with pytest.raises(InputError, match="points >= 1"):
        draw_elastic(np.random.default_rng(0), (3, 3), points=0)

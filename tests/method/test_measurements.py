"""Measurements against skimage.measure.regionprops, and by hand."""

from dataclasses import fields

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.measure import regionprops

from ubend.errors import InputError
from ubend.method import measurements
from ubend.method.measurements import measure_objects, measure_objects_in_blocks

LABELS = np.array(
    [
        [0, 7, 7, 0, 0, 0],
        [0, 7, 7, 0, 2, 0],
        [0, 0, 0, 0, 2, 0],
        [0, 0, 0, 0, 2, 0],
        [0, 0, 0, 0, 0, 0],
    ]
)


def test_two_objects_by_hand():
    found = measure_objects(LABELS, np.arange(30).reshape(5, 6), pixel_size=0.5)
    assert found.id.tolist() == [2, 7]
    assert found.area.tolist() == [3, 4]
    assert found.centroid_row.tolist() == [2, 0.5]
    assert found.centroid_column.tolist() == [4, 1.5]
    assert found.eccentricity.tolist() == [1, 0]  # a line, a square
    assert found.mean_intensity.tolist() == [[16], [4.5]]
    assert found.touches_border.tolist() == [False, True]
    np.testing.assert_allclose(found.equivalent_diameter, [2 * np.sqrt(3 / np.pi), 2 * np.sqrt(4 / np.pi)])


def test_the_columns_carry_their_units():
    columns = measure_objects(LABELS, np.zeros((5, 6, 2)), pixel_size=0.5).columns()
    assert list(columns) == [
        "id", "centroid_row_px", "centroid_column_px", "area_px", "equivalent_diameter_px", "eccentricity",
        "mean_intensity_1", "mean_intensity_2", "touches_border",
        "centroid_row_um", "centroid_column_um", "area_um2", "equivalent_diameter_um",
    ]  # fmt: skip
    assert columns["area_um2"].tolist() == [0.75, 1.0]
    assert columns["centroid_row_um"].tolist() == [1, 0.25]
    assert columns["touches_border"].tolist() == [0, 1]


def test_micrometres_are_unknown_without_a_pixel_size():
    with_size, without = measure_objects(LABELS, pixel_size=2.0).columns(), measure_objects(LABELS).columns()
    assert list(with_size) == list(without)
    assert np.isnan(without["area_um2"]).all()
    assert without["area_px"].tolist() == [3, 4]


def test_no_object():
    assert [len(values) for values in measure_objects(np.zeros((3, 3), int)).columns().values()] == [0] * 11
    assert len(measure_objects(np.full((3, 3), -1)).id) == 0
    assert len(measure_objects(np.zeros((0, 3), int)).id) == 0


@given(
    arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 4)),
    st.sampled_from([1, 3, 10**8]),
    st.sampled_from([4, 2**20]),
)
def test_as_regionprops(labels, factor, pixels_at_once):
    labels = labels * factor
    image = np.random.default_rng(0).random((*labels.shape, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "_PIXELS_AT_ONCE", pixels_at_once)
        found = measure_objects(labels, image)
    small = np.where(labels > 0, labels // factor, 0)  # regionprops needs a slice for every number up to the highest
    expected = regionprops(small, image)
    assert found.id.tolist() == [one.label * factor for one in expected]
    assert found.area.tolist() == [one.area for one in expected]
    for k, one in enumerate(expected):
        np.testing.assert_allclose((found.centroid_row[k], found.centroid_column[k]), one.centroid)
        np.testing.assert_allclose(found.equivalent_diameter[k], one.equivalent_diameter_area)
        np.testing.assert_allclose(found.eccentricity[k], one.eccentricity, atol=1e-6)
        np.testing.assert_allclose(found.mean_intensity[k], one.intensity_mean)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_labels_of_any_type(dtype):
    found = measure_objects(LABELS.astype(dtype), LABELS.astype(np.uint8))
    assert found.id.tolist() == [2, 7]
    assert found.mean_intensity.tolist() == [[2], [7]]


def test_large_numbers_are_told_apart():
    """As float64, to which NumPy brings uint64 beside int64, the two are equal."""
    found = measure_objects(np.array([[2**60 + 1, 2**60 + 1, 2**60]], np.uint64))
    assert found.id.tolist() == [2**60, 2**60 + 1]
    assert found.area.tolist() == [1, 2]


def test_a_disc_far_from_the_origin_stays_round():
    """Second moments about the origin would leave no digit of the eccentricity."""
    rows, columns = np.ogrid[:41, :41]
    labels = np.zeros((41, 200_000), np.uint8)
    labels[:, -41:] = (rows - 20) ** 2 + (columns - 20) ** 2 <= 400
    assert measure_objects(labels).eccentricity[0] < 1e-6


@pytest.mark.parametrize(
    ("labels", "image", "pixel_size", "message"),
    [
        (np.zeros(3, int), None, None, r"label image, .*; got int64, shape \(3,\)"),
        (np.zeros((3, 3)), None, None, "got float64"),
        ([[1]], None, None, "got list"),
        (LABELS, np.zeros((5, 5)), None, r"image has the shape \(5, 5\), the labels \(5, 6\)"),
        (LABELS, None, 0.0, "above 0; got 0.0"),
        (np.array([[2**64 - 1]], np.uint64), None, None, "numbers up to 9223372036854775807; these labels hold 18446"),
    ],
)
def test_what_cannot_be_measured(labels, image, pixel_size, message):
    with pytest.raises(InputError, match=message):
        measure_objects(labels, image, pixel_size=pixel_size)


# in blocks


@given(
    arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 4)),
    st.sampled_from([1, 3, 10**8]),
    st.integers(1, 10),
)
def test_blocks_change_only_the_last_digits(labels, factor, block):
    labels = labels * factor
    image = np.random.default_rng(0).random((*labels.shape, 2)).astype(np.float32)
    whole = measure_objects(labels, image, pixel_size=0.5)
    found = measure_objects_in_blocks(
        labels, lambda rows, columns: image[rows, columns].transpose(2, 0, 1), pixel_size=0.5, block=block
    )
    for field in fields(whole):
        one, other = getattr(found, field.name), getattr(whole, field.name)
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7, err_msg=field.name)
        assert np.asarray(one).dtype == np.asarray(other).dtype


def test_an_object_of_all_blocks_far_from_the_origin(tmp_path):
    rows, columns = np.ogrid[:41, :41]
    labels = zarr.create_array(tmp_path / "labels", shape=(41, 100_041), chunks=(20, 20_000), dtype="uint32")
    labels[:, -41:] = ((rows - 20) ** 2 + (columns - 20) ** 2 <= 400).astype(np.uint32) * 7
    found = measure_objects_in_blocks(labels, lambda rows, columns: labels[rows, columns][None], block=20_000)
    assert found.id.tolist() == [7]
    assert (found.centroid_row[0], found.centroid_column[0]) == (20, 100_020)
    assert found.eccentricity[0] < 1e-6
    assert found.mean_intensity.tolist() == [[7]]
    assert found.touches_border.tolist() == [True]


def test_no_image_no_intensities():
    assert measure_objects_in_blocks(LABELS, block=2).mean_intensity.shape == (2, 0)


def test_an_image_that_is_read_with_another_shape():
    with pytest.raises(InputError, match=r"read with the shape \(2, 2\) where the labels have \(2, 2\); give"):
        measure_objects_in_blocks(LABELS, lambda rows, columns: LABELS[rows, columns], block=2)

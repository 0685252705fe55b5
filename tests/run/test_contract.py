import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.data.annotated import Task
from ubend.errors import InputError, ModelFileError
from ubend.method.network import NetworkConfig
from ubend.method.objects import ObjectRules
from ubend.run.contract import Contract, Unlike, unlike, unlike_diameter
from ubend.run.drift import image_statistics, reference_of
from ubend.run.normalisation import Normalisation, channels_first, is_gray
from ubend.run.recipe import load_recipe

LOOK = image_statistics(np.random.default_rng(0).integers(0, 4000, (1, 64, 64)).astype(np.uint16))
CONTRACT = Contract(
    network=NetworkConfig(width=4, depth=2, classes=3),
    task=Task("classes", (0, 1, 7), 255),
    normalisation=Normalisation("percentile", together=False),
    views="dihedral",
    objects=ObjectRules(gap=2, smallest=5),
    pixel_size=0.25,
    channel_names=("DAPI",),
    class_names=("ground", "cell", "nucleus"),
    reference=reference_of([LOOK], [12.5]),
    quality={"mean IoU": 0.5},
    recipe=load_recipe("paper"),
    provenance={"images": {"a": "12ab"}},
)


def applied(kind, image, *, together=False):
    offset, gain = Normalisation(kind, together=together).offset_and_gain(image)
    assert offset.dtype == gain.dtype == np.float32
    return (image.astype(np.float32) - offset[:, None, None]) * gain[:, None, None]


def test_survives_json():
    assert Contract.from_dict(json.loads(json.dumps(CONTRACT.to_dict()))) == CONTRACT


@pytest.mark.parametrize(
    "lost",
    ["network", "task", "normalisation", "views", "objects", "recipe", "channel_names", "class_names", "reference"],
)
def test_a_lost_key_is_damage(lost):
    values = CONTRACT.to_dict()
    del values[lost]
    with pytest.raises(ModelFileError, match=f"contract is damaged: .*{lost}"):
        Contract.from_dict(values)


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"width": 0}},
        {"network": {"wide": 4}},
        {"network": 3},
        {"task": None},
        {"task": {"kind": "classes"}},
        {"normalisation": {"kind": "range"}},
        {"recipe": {"netwrk": {}}},
        {"recipe": [1]},
        {"objects": {"threshold": 0.5}},
        {"objects": {**asdict(ObjectRules()), "threshold": 2}},
        {"objects": {**asdict(ObjectRules()), "fill_holes": "no"}},
        {"objects": {**asdict(ObjectRules()), "treshold": 0.5}},
        {"colour": "red"},
        {"normalisation": {"kind": "rang", "together": False}},
        {"normalisation": {"kind": "percentile", "together": False, "low": 99, "high": 1}},
        {"channel_names": ["DAPI", "GFP"]},
        {"channel_names": 3},
        {"class_names": ["cell"]},
        {"reference": []},
        {"reference": asdict(reference_of([LOOK])) | {"channels": []}},
        {"reference": {"images": 1}},
        {"provenance": {"held_out": ["a"]}},
        {"provenance": {"plan": "all"}},
        {"provenance": {"plan": [1]}},
    ],
)
def test_a_wrong_value_is_damage(change):
    with pytest.raises(ModelFileError, match=r"contract is damaged: .") as caught:
        Contract.from_dict({**CONTRACT.to_dict(), **change})
    assert "\n" not in str(caught.value)


def test_range_is_that_of_the_type():
    for dtype, largest in ((np.uint8, 255), (np.uint16, 65535), (np.int16, 32767), (np.float32, 1)):
        values = applied("range", np.array([[[0, largest]]], dtype))
        np.testing.assert_allclose(values, [[[0, 1]]], rtol=1e-6)


def test_percentiles_by_hand():
    image = np.arange(1001, dtype=np.uint16).reshape(1, 7, 143)
    np.testing.assert_allclose(applied("percentile", image), (image - 10.0) / 988, atol=1e-5)


def test_standardised_by_hand():
    values = applied("standardise", np.array([[[1, 3]]], np.uint8))
    np.testing.assert_allclose(values, [[[-1, 1]]])


def test_other_percentiles_are_kept_and_used():
    other = replace(CONTRACT, normalisation=Normalisation("percentile", together=False, low=0, high=50))
    found = Contract.from_dict(json.loads(json.dumps(other.to_dict()))).normalisation
    image = np.arange(101, dtype=np.uint16).reshape(1, 1, 101)
    offset, gain = found.offset_and_gain(image)
    assert (offset, gain) == (0, pytest.approx(1 / 50))


def test_channels_have_one_scale_or_each_its_own():
    image = np.stack([np.arange(100).reshape(10, 10), 2 * np.arange(100).reshape(10, 10)]).astype(np.uint8)
    apart = applied("percentile", image)
    np.testing.assert_allclose(apart[0], apart[1], atol=1e-5)
    together = applied("percentile", image, together=True)
    assert together[1].max() > 1.9 * together[0].max()


@pytest.mark.parametrize("kind", ["percentile", "range", "standardise"])
def test_a_constant_image_stays_finite(kind):
    assert np.isfinite(applied(kind, np.full((1, 4, 5), 65535, np.uint16))).all()


def test_few_bright_pixels_do_not_run_out_of_scale():
    image = np.zeros((1, 100, 100), np.uint16)
    image[0, 50, 50:55] = 60000  # 0.05 %: the 1st and the 99.8th percentile are 0
    assert applied("percentile", image).max() == 1


def test_large_images_are_sampled_alike():
    image = np.random.default_rng(0).integers(0, 4096, (1, 2500, 2500)).astype(np.uint16)
    np.testing.assert_allclose(
        Normalisation("percentile", together=False).offset_and_gain(image)[0], np.percentile(image, 1), rtol=0.05
    )


@given(shape=st.tuples(st.integers(1, 6), st.integers(1, 6)), channels=st.integers(2, 5))
def test_channels_come_first_or_last(shape, channels):
    rows, columns = shape
    last = np.arange(rows * columns * channels).reshape(rows, columns, channels)
    first = np.moveaxis(last, -1, 0)
    assert (channels_first(last, channels) == first).all()
    if columns != channels:
        assert (channels_first(first, channels) == first).all()


def test_gray_images_saved_as_colour():
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    alpha = np.full((2, 3), 255, np.uint8)
    assert is_gray(np.stack([gray, gray, gray], -1))
    assert (channels_first(np.stack([gray, gray, gray], -1), 1) == gray).all()
    assert channels_first(np.stack([gray, gray, gray, alpha], -1), 1).shape == (1, 2, 3)
    colour = np.stack([gray, gray, gray + 1], -1)
    assert not is_gray(colour)
    with pytest.raises(InputError, match="the image has 3 channels, the model takes 1"):
        channels_first(colour, 1)
    with pytest.raises(InputError, match="the image has 1 channel, the model takes 3"):
        channels_first(gray, 3)


def test_a_mask_is_an_image_of_0_and_1():
    image = channels_first(np.array([[False, True]]), 1)
    assert image.tolist() == [[[0.0, 1.0]]]
    assert applied("range", image).tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros(3),
        np.zeros((2, 2, 2, 2)),
        np.zeros((0, 3)),
        np.zeros((2, 2), complex),
        np.array([["a"]]),
        np.array([[None]]),
    ],
)
def test_what_is_no_image(wrong):
    with pytest.raises(InputError, match="an image is a non-empty array of real numbers"):
        channels_first(wrong, 1)


def test_nan_is_no_gray_value():
    image = np.zeros((3, 4))
    image[1, 1], image[2, 2] = np.nan, -np.inf
    with pytest.raises(InputError, match="the image is NaN or infinite at 2 places: put numbers there"):
        channels_first(image, 1)


def test_network_of_the_contract_is_kept():
    changed = replace(CONTRACT, network=replace(CONTRACT.network, in_channels=3), channel_names=(), reference=None)
    assert Contract.from_dict(changed.to_dict()).network.in_channels == 3


def test_an_image_like_those_trained_on():
    assert unlike(CONTRACT, LOOK) is None
    assert unlike(CONTRACT, LOOK, ("dapi",)) is None
    assert unlike(CONTRACT, LOOK, ("0", "1")) is None  # of another number of channels: nothing to compare


def test_a_model_that_does_not_know_its_images_finds_none_unlike():
    old = replace(CONTRACT, reference=None)
    assert unlike(old, LOOK, ("GFP",)) is None
    assert not unlike_diameter(old, 1000.0)


def test_an_image_unlike_those_trained_on():
    assert unlike(CONTRACT, replace(LOOK, dtype="uint8")) == Unlike(dtype="uint8")
    assert unlike(CONTRACT, LOOK, ("GFP",)) == Unlike(channel_names=("GFP",))
    flat = unlike(CONTRACT, image_statistics(np.zeros((1, 64, 64), np.uint16)))
    assert flat.drift.is_far
    assert flat.dtype is None


def test_diameters_are_alike_up_to_a_factor_of_two():
    assert [unlike_diameter(CONTRACT, d) for d in (6.2, 6.3, 12.5, 24.9, 25.1, None)] == [
        True, False, False, False, True, False,
    ]  # fmt: skip

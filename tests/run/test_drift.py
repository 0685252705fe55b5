import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ubend.run.drift import (
    FLOORS,
    LIMIT,
    ImageStatistics,
    Reference,
    Spread,
    compare,
    diameter_factor,
    image_statistics,
    median_diameter,
    reference_of,
    sampled_statistics,
    spread_of,
)


def field(rng, shape, size):
    """A smooth random field with mean 0 and variance 1."""
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), size, mode="wrap")
    return smooth / smooth.std()


def nuclei(number, shape=(256, 256)):
    """Bright blobs on a dark ground with noise, 16 bit."""
    rng = np.random.default_rng(number)
    blobs = ndimage.gaussian_filter((field(rng, shape, 5) > 1).astype(float), 1)
    return np.rint(500 + 4000 * blobs + rng.normal(0, 100, shape)).astype(np.uint16)


def membranes(number, shape=(256, 256)):
    """Dark lines on a bright ground with noise, 16 bit."""
    rng = np.random.default_rng(number)
    lines = ndimage.gaussian_filter((abs(field(rng, shape, 5)) < 0.2).astype(float), 1)
    return np.rint(4500 - 4000 * lines + rng.normal(0, 100, shape)).astype(np.uint16)


def looks(*images):
    return [image_statistics(image[None]) for image in images]


@pytest.fixture(scope="module")
def reference():
    return reference_of(looks(*map(nuclei, range(5))), [20.0, 30.0])


def drift_of(image, reference):
    return compare(image_statistics(image[None]), reference)


def names(drift):
    return [difference.name for difference in drift.differences]


def test_numbers_by_hand():
    noise = np.random.default_rng(0).normal(1000, 10, (300, 300)).astype(np.float32)
    [found] = image_statistics(noise[None]).channels
    low, high = 1000 - 2.326 * 10, 1000 + 2.878 * 10
    assert found.low == pytest.approx(low, abs=1)
    assert found.high == pytest.approx(high, abs=1)
    assert found.extent == pytest.approx(math.log2(high - low), abs=0.05)
    assert found.brightness == pytest.approx((1000 - low) / (high - low), abs=0.02)
    assert found.noise == pytest.approx(math.log2(10 / (high - low)), abs=0.03)
    assert abs(found.polarity) < 0.5


def test_white_noise_is_as_sharp_as_can_be():
    """Mixed differences have 4 times its variance, of which a quarter is taken; differences twice, along two axes."""
    [found] = image_statistics(np.random.default_rng(0).random((1, 512, 512))).channels
    assert found.sharpness == pytest.approx(math.log2(1 / 4) / 2, abs=0.02)


@given(scale=st.sampled_from([0.01, 3.0, 200.0]), shift=st.sampled_from([-1000.0, 0.0, 5e4]))
def test_only_the_extent_tells_scale(scale, shift):
    image = np.random.default_rng(1).random((64, 64))
    (before,), (after,) = (image_statistics(one[None]).channels for one in (image, image * scale + shift))
    assert after.extent - before.extent == pytest.approx(math.log2(scale), abs=1e-4)
    for name in FLOORS.keys() - {"extent"}:
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 7), (9, 9), (600, 20)])
def test_any_type_and_shape_gives_numbers(dtype, shape):
    for image in (np.zeros(shape), np.arange(math.prod(shape)).reshape(shape) % 100):
        found = image_statistics(image.astype(dtype)[None])
        assert found.dtype == dtype
        assert np.isfinite(list(asdict(found.channels[0]).values())).all()


def test_large_whole_numbers_keep_their_differences():
    image = np.random.default_rng(0).integers(0, 100, (64, 64))
    (low,), (high,) = (image_statistics(one[None]).channels for one in (image, image + 2**40))
    assert high.noise == pytest.approx(low.noise)


def test_very_bright_specks_are_no_noise():
    image = np.random.default_rng(0).normal(100, 5, (256, 256))
    specks = image.copy()
    specks[::64, ::64] = 1e6  # 0.02 % of the pixels
    (before,), (after,) = (image_statistics(one[None]).channels for one in (image, specks))
    assert after.noise - before.noise < 0.2


def test_a_large_image_looks_like_a_small_one(reference):
    """Percentiles of every n-th pixel, and windows at full resolution: as sharp as it is."""
    large = nuclei(9, (1100, 900))
    assert not drift_of(large, reference).is_far
    places = []

    def read(rows, columns):
        places.append((rows, columns))
        return large[None, rows, columns]

    found = sampled_statistics(large[None, ::3, ::3], *large.shape, read)
    assert len(places) == 16
    assert sum((r.stop - r.start) * (c.stop - c.start) for r, c in places) == 16 * 128 * 128
    assert not compare(found, reference).is_far


def test_others_of_the_same_kind_are_alike(reference):
    assert [number for number in range(5, 25) if drift_of(nuclei(number), reference).is_far] == []


def test_what_was_trained_on_has_not_drifted(reference):
    for number in range(5):
        assert drift_of(nuclei(number), reference).score == 0


def blurred(image):
    return np.rint(ndimage.gaussian_filter(image.astype(float), 3)).astype(image.dtype)


def faint(image):
    rng = np.random.default_rng(3)
    middle = np.median(image)
    return np.rint(middle + 0.2 * (image - middle) + rng.normal(0, 0.03 * np.ptp(image), image.shape)).clip(0)


def enlarged(image):
    return np.rint(ndimage.zoom(image.astype(float), 2.5, order=1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (blurred, "noise"),
        (blurred, "sharpness"),
        (faint, "noise"),
        (lambda image: image.max() - image, "brightness"),
        (lambda image: image.max() - image, "polarity"),
        (enlarged, "noise"),
        (lambda image: image * 40.0, "extent"),
        (lambda image: np.full(image.shape, 7), "extent"),
        (lambda image: membranes(0), "brightness"),
    ],
)
@pytest.mark.parametrize("trained_on", [1, 5])
def test_what_looks_otherwise_is_told(change, said, trained_on):
    known = reference_of(looks(*map(nuclei, range(trained_on))))
    drift = drift_of(change(nuclei(7)), known)
    assert drift.is_far
    assert said in names(drift)
    aways = [abs(difference.away) for difference in drift.differences]
    assert aways == sorted(aways, reverse=True)
    assert drift.score >= aways[0] >= 1


def test_the_score_by_hand():
    [look] = looks(nuclei(0))
    [channel] = look.channels
    known = reference_of([look, look])

    def score(**changes):
        return compare(ImageStatistics("uint16", (replace(channel, **changes),)), known).score

    assert score(noise=channel.noise + 3 * FLOORS["noise"]) == pytest.approx(3)
    assert score(noise=channel.noise - 3 * FLOORS["noise"], extent=channel.extent + 4) == pytest.approx(5)
    [lower] = compare(ImageStatistics("uint16", (replace(channel, extent=channel.extent - 2),)), known).differences
    assert (lower.name, lower.channel, lower.away) == ("extent", 0, pytest.approx(-2))
    one = compare(ImageStatistics("uint16", (replace(channel, extent=channel.extent - 3),)), reference_of([look]))
    assert one.score == pytest.approx(2)  # of one image the least spread is half as much again


def test_few_images_show_less_than_their_spread():
    """Of three images with deviation 2, a fourth may lie as far out again: the spread counts twice."""
    [look] = looks(nuclei(0))
    [channel] = look.channels
    some = [ImageStatistics("uint16", (replace(channel, noise=value),)) for value in (-8.0, -6.0, -4.0)]
    known = reference_of(some)
    assert known.channels[0]["noise"] == Spread(-6.0, -8.0, -4.0, 2.0)
    outside = ImageStatistics("uint16", (replace(channel, noise=4.0),))
    assert compare(outside, known).score == pytest.approx(8 / (2 * 2))


def test_the_furthest_channel_counts_and_an_order_is_found():
    first, second = nuclei(0), membranes(0)
    known = reference_of([image_statistics(np.stack([first, second]))])
    other = np.stack([nuclei(6), membranes(6)])
    assert not compare(image_statistics(other), known).is_far
    swapped = compare(image_statistics(other[::-1]), known)
    assert swapped.is_far
    assert swapped.order == (1, 0)
    assert {difference.channel for difference in swapped.differences} == {0, 1}
    assert compare(image_statistics(np.stack([blurred(first), blurred(second)])), known).order is None


def test_a_reference_survives_json(reference):
    for one in (reference, replace(reference, diameters=None)):
        assert Reference.from_dict(json.loads(json.dumps(asdict(one)))) == one


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 3},
        {"channels": [{}]},
        {"images": "many"},
        {"diameters": {"median": 1.0}},
        {"diameters": {"median": math.nan, "least": 1.0, "most": 1.0, "deviation": 0.0}},
    ],
)
def test_a_damaged_reference(change, reference):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Reference.from_dict({**asdict(reference), **change})


def test_diameters(reference):
    assert median_diameter(np.full(4, 100)) is None
    assert median_diameter(np.array([100, 100, 100, 1, 1e6])) == pytest.approx(2 * math.sqrt(100 / math.pi))
    factors = [diameter_factor(diameter, reference) for diameter in (5.0, 20.0, 25.0, 30.0, 75.0, None)]
    assert factors == [0.25, 1, 1, 1, 2.5, 1]
    assert diameter_factor(5.0, replace(reference, diameters=None)) == 1


def test_one_image_has_no_deviation():
    assert spread_of([3.0]) == Spread(3.0, 3.0, 3.0, 0.0)
    assert LIMIT > 1

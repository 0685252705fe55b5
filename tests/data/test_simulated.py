"""The simulated scenes: exact, repeatable, of any shape, and beyond a global threshold."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu

from ubend.data.simulated import SCENES, Sample, simulate
from ubend.errors import InputError

FORM = {  # dtype of the image, channels, dtype of the labels
    "cells": (np.uint8, (), np.uint16),
    "membranes": (np.uint8, (), np.uint8),
    "nuclei": (np.uint16, (), np.uint16),
    "landscape": (np.uint8, (3,), np.uint8),
}
INSTANCES = ("cells", "nuclei")


def draw(scene: str, seed: int, shape=(256, 256)) -> Sample:
    return simulate(scene, np.random.default_rng(seed), shape)


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def touching_pairs(labels: np.ndarray) -> set[tuple[int, int]]:
    """Labels that lie side by side, with no background between them."""
    pairs = [
        np.stack([labels[1:].ravel(), labels[:-1].ravel()], 1),
        np.stack([labels[:, 1:].ravel(), labels[:, :-1].ravel()], 1),
    ]
    beside = np.concatenate(pairs)
    beside = beside[(beside > 0).all(axis=1) & (beside[:, 0] != beside[:, 1])]
    return {(int(min(pair)), int(max(pair))) for pair in beside}


def test_the_scenes_are_named():
    assert SCENES == ("cells", "membranes", "nuclei", "landscape")


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("shape", [(32, 32), (33, 200), (200, 33), (256, 256), (300, 411)])
def test_image_and_labels_have_the_promised_form(scene, shape):
    sample = draw(scene, 1, shape)
    image_type, channels, label_type = FORM[scene]
    assert sample.image.shape == (*shape, *channels)
    assert sample.image.dtype == image_type
    assert sample.labels.shape == shape
    assert sample.labels.dtype == label_type


@pytest.mark.parametrize("scene", SCENES)
def test_same_seed_same_sample_and_other_seed_another(scene):
    first, again, other = draw(scene, 5, (64, 80)), draw(scene, 5, (64, 80)), draw(scene, 6, (64, 80))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.labels != other.labels).any()
    assert (first.image != other.image).mean() > 0.5


@pytest.mark.parametrize("scene", SCENES)
def test_one_generator_gives_different_samples_in_turn(scene):
    rng = np.random.default_rng(0)
    assert (simulate(scene, rng, (48, 48)).labels != simulate(scene, rng, (48, 48)).labels).any()


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(32, 130), columns=st.integers(32, 130))
def test_every_sample_has_something_to_learn(scene, seed, rows, columns):
    sample = draw(scene, seed, (rows, columns))
    classes = np.unique(sample.labels if scene not in INSTANCES else sample.labels > 0)
    assert classes.tolist() == ([0, 1, 2] if scene == "landscape" else [0, 1])
    assert sample.image.std() > 0.02 * np.ptp(sample.image)
    assert (sample.image == np.iinfo(sample.image.dtype).max).mean() < 0.5  # not burnt out


@pytest.mark.parametrize("scene", INSTANCES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), side=st.integers(32, 160))
def test_instances_are_numbered_without_gaps_and_each_is_one_piece(scene, seed, side):
    labels = draw(scene, seed, (side, side)).labels
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))
    assert labels.max() >= 2
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels == number)[1] == 1


@pytest.mark.parametrize("seed", range(6))
def test_most_cells_touch_a_neighbour_and_background_stays_free(seed):
    labels = draw("cells", seed).labels
    pairs = touching_pairs(labels)
    assert len({number for pair in pairs for number in pair}) > 0.6 * labels.max()
    assert 0.25 < (labels == 0).mean() < 0.8


@pytest.mark.parametrize("seed", range(6))
def test_cells_vary_in_size_and_nuclei_in_brightness(seed):
    areas = np.bincount(draw("cells", seed).labels.ravel())[1:]
    assert areas.max() > 3 * areas.min()
    nuclei = draw("nuclei", seed)
    numbers = np.arange(1, nuclei.labels.max() + 1)
    brightness = ndimage.mean(nuclei.image, nuclei.labels, numbers) - np.median(nuclei.image[nuclei.labels == 0])
    assert brightness.max() > 4 * brightness.min()
    assert touching_pairs(nuclei.labels)


@pytest.mark.parametrize("seed", range(6))
def test_membranes_are_dark_and_separate_cells(seed):
    sample = draw("membranes", seed)
    inside = sample.labels == 1
    assert 0.6 < inside.mean() < 0.9  # 75 % in the ISBI 2012 stack
    assert sample.image[~inside].mean() < sample.image[inside].mean() - 25
    assert ndimage.label(inside)[1] > 15


def test_a_threshold_does_not_solve_cells_or_membranes():
    for scene, limit in (("cells", 0.55), ("membranes", 0.60)):
        reached = []
        for seed in range(8):
            sample = draw(scene, seed)
            truth = (sample.labels == 0) if scene == "membranes" else (sample.labels > 0)
            bright = sample.image > threshold_otsu(sample.image)
            reached.append(max(iou(bright, truth), iou(~bright, truth)))
        assert np.mean(reached) < limit


def test_a_threshold_misses_dim_nuclei_and_even_the_true_foreground_merges_touching_ones():
    reached = []
    for seed in range(6):
        sample = draw("nuclei", seed)
        reached.append(iou(sample.image > threshold_otsu(sample.image), sample.labels > 0))
        assert ndimage.label(sample.labels > 0)[1] < 0.8 * sample.labels.max()
    assert np.mean(reached) < 0.65


def test_brightness_and_colour_do_not_solve_the_landscape():
    samples = [draw("landscape", seed, (128, 128)) for seed in range(24)]
    by_brightness, by_colour = [], []
    means = np.array(
        [
            np.mean([sample.image[sample.labels == number].mean(axis=0) for sample in samples[:12]], axis=0)
            for number in range(3)
        ]
    )
    for sample in samples[12:]:
        grey = sample.image.mean(axis=2)
        band = np.digitize(grey, threshold_multiotsu(grey))
        trees = sample.labels == 1
        by_brightness.append(max(iou(band == number, trees) for number in range(3)))
        nearest = ((sample.image[:, :, None] - means) ** 2).sum(axis=-1).argmin(axis=-1)
        by_colour.append(np.mean([iou(nearest == number, sample.labels == number) for number in range(3)]))
    assert np.mean(by_brightness) < 0.7
    assert np.mean(by_colour) < 0.65


def test_landscapes_differ_in_colour():
    means = np.array([draw("landscape", seed, (64, 64)).image.mean(axis=(0, 1)) for seed in range(12)])
    assert (np.ptp(means, axis=0) > 60).all()


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_large_images_have_more_structures_not_larger_ones(scene):
    small, large = draw(scene, 0), draw(scene, 0, (2048, 2048))
    assert large.labels.shape == (2048, 2048)
    if scene in INSTANCES:
        assert large.labels.max() > 40 * small.labels.max()


def test_simulated_membranes_are_about_as_hard_as_real_ones():
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "isbi2012_em"
    if not folder.exists():
        pytest.skip("the ISBI 2012 images are not beside the repository")
    tifffile = pytest.importorskip("tifffile")
    first = sorted((folder / "images").glob("*.tif"))[0]
    image, membrane = tifffile.imread(first), tifffile.imread(folder / "masks" / first.name) == 0
    real = iou(image < threshold_otsu(image), membrane)
    sample = draw("membranes", 0)
    simulated = iou(sample.image < threshold_otsu(sample.image), sample.labels == 0)
    assert abs(simulated - real) < 0.2


@pytest.mark.parametrize(("typed", "meant"), [("cell", "cells"), ("Membrane", "membranes"), ("nucleus", "nuclei")])
def test_an_unknown_scene_names_the_nearest(typed, meant):
    with pytest.raises(InputError, match=f"no scene '{typed}'; the scenes are cells, .* Did you mean '{meant}'"):
        simulate(typed, np.random.default_rng(0))


@pytest.mark.parametrize("typed", ["", "%", 3, None, ["cells"]])
def test_any_other_scene_is_refused_kindly(typed):
    with pytest.raises(InputError, match="the scenes are cells, membranes, nuclei, landscape"):
        simulate(typed, np.random.default_rng(0))


def test_a_small_shape_is_refused_with_one_that_works():
    with pytest.raises(InputError, match=r"shape \(16, 64\) is too small.* at least 32; \(32, 64\) works"):
        simulate("cells", np.random.default_rng(0), (16, 64))


@pytest.mark.parametrize("shape", [256, (256,), (64, 64, 3), (64.5, 64), "large", None])
def test_a_shape_that_is_none_is_refused(shape):
    with pytest.raises(InputError, match=r"it is rows and columns, such as \(256, 256\)"):
        simulate("cells", np.random.default_rng(0), shape)


def test_a_bare_seed_is_refused_with_what_to_pass():
    with pytest.raises(InputError, match=r"rng is 7.*pass np\.random\.default_rng\(7\)"):
        simulate("cells", 7)

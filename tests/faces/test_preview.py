from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ubend.data.annotated import Annotated
from ubend.data.formats import read_images
from ubend.data.simulated import simulate
from ubend.data.tiles import draw_tile
from ubend.errors import FileError
from ubend.faces import preview
from ubend.faces.preview import draw_maps, files_of, prepare_preview, save_preview
from ubend.method.border_weight import border_weights
from ubend.method.network import NetworkConfig
from ubend.method.touching import separate_touching
from ubend.run.recipe import load_recipe


def annotated(scene, number=2, shape=(96, 130)):
    samples = [simulate(scene, np.random.default_rng(k), shape) for k in range(number)]
    return [Annotated(f"{scene} {k}$x$", s.image, s.labels.astype(np.int32), None) for k, s in enumerate(samples)]


def test_target_and_weights_are_those_of_training(tiny):
    images = annotated("cells")
    ready = prepare_preview(images, recipe=tiny)
    for image, source in zip(images, ready.prepared, strict=True):
        assert (source.classes == (separate_touching(image.labels, gap=1) > 0)).all()
    balanced = replace(tiny, energy=replace(tiny.energy, balance="none"))
    [source, _] = prepare_preview(images, recipe=balanced).prepared
    np.testing.assert_allclose(source.weights, border_weights(images[0].labels, class_weights=(1.0, 1.0)))


def test_images_with_copies_of_cells_are_shown_among_the_samples(tiny, tmp_path, monkeypatch):
    recipe = replace(tiny, augmentation=replace(tiny.augmentation, copies=2))
    images = annotated("nuclei", 1)
    ready = prepare_preview(images, recipe=recipe)
    given = preview._copies(images[0], ready.contract, 0)
    assert len(given) == 2
    assert all((one.classes > 0).sum() > (ready.prepared[0].classes > 0).sum() for one in given)
    drawn_from = []
    monkeypatch.setattr(
        preview, "draw_tile", lambda of, *a, **more: drawn_from.append(len(of)) or draw_tile(of, *a, **more)
    )
    save_preview(tmp_path / "a.png", ready, 0)
    assert drawn_from == [3] * 8
    assert "copied beside others" in " ".join(text for _, text in preview._legend(ready.contract, 64, 20, 1))
    without = prepare_preview(images, recipe=tiny).contract
    assert preview._copies(images[0], without, 0) == []
    assert "copied" not in " ".join(text for _, text in preview._legend(without, 64, 20, 1))


def test_the_gaps_are_what_the_target_has_lost(tiny):
    labels = np.zeros((40, 40), np.int32)
    labels[5:30, 5:15], labels[5:30, 15:25] = 1, 2
    ready = prepare_preview([Annotated("a", labels.astype(np.uint8), labels, None)], recipe=tiny, task="instances")
    gaps = preview._gaps(ready.images[0], ready.prepared[0], ready.contract)
    assert sorted(set(np.nonzero(gaps)[1].tolist())) == [14, 15]
    assert gaps.sum() == 2 * 25


def test_a_preview_at_half_the_resolution(tiny, tmp_path):
    half = replace(tiny, network=replace(tiny.network, depth=3, coarse=1), tiles=replace(tiny.tiles, size=32))
    labels = np.zeros((41, 60), np.int32)
    labels[4:32, 4:20], labels[4:32, 20:36] = 1, 2
    ready = prepare_preview([Annotated("a", labels.astype(np.uint8), labels, None)], recipe=half, task="instances")
    assert ready.prepared[0].classes.shape == (21, 30)
    gaps = preview._gaps(ready.images[0], ready.prepared[0], ready.contract)
    assert sorted(set(np.nonzero(gaps)[1].tolist())) == [9, 10]
    save_preview(tmp_path / "a.png", ready, 0)
    axes = Figure().subplots(1, 5)
    draw_maps(axes, ready.images[0], ready.prepared[0], ready.contract)
    assert axes[2].images[0].get_array().shape[:2] == (21, 30)


def test_the_grid_is_bent_as_the_sample_is(tiny):
    """A sample whose image is the grid itself shows the grid where it is drawn."""
    calm = replace(
        tiny.augmentation, contrast=0.0, brightness=0.0, gamma=1.0, noise=0.0, shading=0.0, zoom=1.0, elastic_sigma=3.0
    )
    [image] = annotated("membranes", 1)
    [source] = prepare_preview([image], recipe=tiny).prepared
    lines = preview.grid_lines(source.classes.shape)
    source = replace(
        source, image=lines[None], offset=np.zeros((1, 1, 1), np.float32), gain=np.ones((1, 1, 1), np.float32)
    )
    drawn, grid = (
        draw_tile([one], tiny.tiles, calm, margin=0, key=(0, 1, 0))
        for one in (source, replace(source, weights=lines, distance=None))
    )
    np.testing.assert_allclose(drawn.image[0], grid.weights, atol=1e-5)
    assert 0.05 < float(grid.weights.mean()) < 0.3


@pytest.mark.parametrize("scene", ["cells", "membranes", "landscape"])
def test_every_kind_of_labels_has_its_picture(scene, tiny, tmp_path):
    recipe = replace(tiny, energy=replace(tiny.energy, distance=float(scene == "cells")))
    save_preview(tmp_path / "a.png", prepare_preview(annotated(scene), recipe=recipe), 1)
    [picture] = read_images(tmp_path / "a.png")
    assert picture.pixels.shape[1] == 1265
    assert (picture.pixels[:, :5] == 255).all()  # nothing is cut off at the left
    assert picture.pixels.std() > 30
    with pytest.raises(FileError, match="exists already"):
        save_preview(tmp_path / "a.png", prepare_preview(annotated(scene), recipe=recipe), 1)


def test_where_no_object_is_near_another_weights_look_low(tiny):
    images = annotated("cells", 1)
    images[0].labels[:, :65], images[0].labels[:, 65:] = 1, 0
    ready = prepare_preview(images, recipe=tiny, task="instances")
    axes = Figure().subplots(1, 4)
    draw_maps(axes, ready.images[0], ready.prepared[0], ready.contract)
    [weights] = axes[-1].images
    np.testing.assert_allclose(weights.get_array(), 1)
    assert weights.get_clim() == (0, 1 + tiny.energy.w0)


def test_an_unpadded_network_and_a_large_image(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "LARGEST_SIDE", 60)
    recipe = replace(tiny, network=NetworkConfig(width=4, depth=2), tiles=replace(tiny.tiles, size=76))
    ready = prepare_preview(annotated("cells", 1), recipe=recipe)
    assert ready.images[0].labels.shape == (60, 60)
    save_preview(tmp_path / "a.png", ready, 0)
    assert (tmp_path / "a.png").is_file()


def test_the_same_seed_draws_the_same_samples(tiny, tmp_path):
    ready = prepare_preview(annotated("membranes", 1), recipe=tiny)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_preview(tmp_path / f"{name}.png", ready, 0, seed=seed)
    first, second, other = (read_images(tmp_path / f"{name}.png")[0].pixels for name in "abc")
    assert (first == second).all()
    assert (first != other).any()


def test_the_recipes_as_shipped_can_be_previewed():
    images = annotated("cells", 1, (200, 220))
    for name in ("default", "paper"):
        ready = prepare_preview(images, recipe=name)
        assert ready.contract.recipe.augmentation == load_recipe(name).augmentation
        assert ready.prepared[0].weights is not None


def test_where_pictures_go(tiny, tmp_path):
    ready = prepare_preview(annotated("membranes"), recipe=tiny)
    names = ["membranes 0$x$_preview.png", "membranes 1$x$_preview.png"]
    assert files_of(tmp_path / "new", ready, overwrite=False) == [tmp_path / "new" / name for name in names]
    assert files_of(tmp_path / "one.png", ready, overwrite=False) == [tmp_path / "one.png"]
    (tmp_path / names[1]).write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        files_of(tmp_path, ready, overwrite=False)
    with pytest.raises(FileError, match="no picture that ubend drew"):
        files_of(tmp_path, ready, overwrite=True)
    save_preview(tmp_path / names[1], ready, 1, overwrite=True)
    assert len(files_of(tmp_path, ready, overwrite=True)) == 2
    twice = replace(ready, images=(ready.images[0], ready.images[0]))
    with pytest.raises(FileError, match="two images have the same name"):
        files_of(tmp_path / "new", twice, overwrite=False)

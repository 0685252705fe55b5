import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
import zarr

from ubend.data.formats import write_labels
from ubend.data.large import open_large
from ubend.data.simulated import simulate
from ubend.errors import FileError, InputError, OutOfMemory
from ubend.run import scale
from ubend.run.drift import spread_of
from ubend.run.folders import predict_folder
from ubend.run.model import load
from ubend.run.recipe import BudgetConfig, load_recipe
from ubend.run.scale import compute_block, in_this_process, predict_large
from ubend.run.training import train

TILE = 108  # of a network of depth 2: it gives 68 rows


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A model of single objects, good enough to find some, in a file."""
    recipe = replace(load_recipe("default"), budget=BudgetConfig())
    recipe = replace(
        recipe,
        network=replace(recipe.network, width=4, depth=2),
        tiles=replace(recipe.tiles, size=64, batch=2),
    )
    samples = [simulate("nuclei", np.random.default_rng(k), (96, 96)) for k in range(3)]
    images, labels = [s.image for s in samples], [s.labels for s in samples]
    model = train(images, labels, recipe=recipe, steps=60, task="instances", device="cpu")
    path = tmp_path_factory.mktemp("model") / "cells.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def pixels():
    return simulate("nuclei", np.random.default_rng(9), (211, 175)).image


@pytest.fixture
def big(pixels, tmp_path):
    """The image as a plain Zarr array."""
    zarr.create_array(tmp_path / "big.zarr", data=pixels, chunks=(64, 64))
    return tmp_path / "big.zarr"


def labels_of(result):
    found = open_large(result.labels / "labels" / "ubend") if result.labels.is_dir() else open_large(result.labels)
    return found.read(found.planes[0], slice(None), slice(None))[0]


def test_the_result_is_that_of_the_whole_image(cells, big, pixels, tmp_path):
    model = load(cells)
    expected = model.segment(pixels, tile=TILE)
    result = predict_large(cells, big, tmp_path / "out", tile=TILE, probabilities=True)
    assert result.blocks == 12
    assert result.objects == expected.max() > 3
    assert (labels_of(result) == expected).all()
    maps = open_large(result.probabilities).read((), slice(None), slice(None))
    assert (maps == model.predict(pixels, tile=TILE)).all()


def test_a_tiff_goes_out_as_tiff(cells, pixels, tmp_path):
    tifffile.imwrite(tmp_path / "big.tif", pixels, tile=(64, 64), resolution=(2e4, 2e4), resolutionunit=3)
    result = predict_large(cells, tmp_path / "big.tif", tmp_path / "out", tile=TILE)
    assert result.labels == tmp_path / "out" / "big.tif"
    assert (tifffile.imread(result.labels) == load(cells).segment(pixels, tile=TILE)).all()
    assert open_large(result.labels).pixel_size == pytest.approx(0.5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["big.tif", "big_objects.csv"]


def test_every_plane_is_segmented_and_axes_are_kept(cells, pixels, tmp_path):
    stack = np.stack([pixels, pixels[::-1], pixels[:, ::-1]])
    tifffile.imwrite(tmp_path / "film.ome.tif", stack, metadata={"axes": "TYX"})
    result = predict_large(cells, tmp_path / "film.ome.tif", tmp_path / "out", tile=TILE)
    model, written = load(cells), open_large(result.labels)
    assert written.stack == (("t", 3),)
    for plane, image in zip(written.planes, stack, strict=True):
        assert (written.read(plane, slice(None), slice(None))[0] == model.segment(image, tile=TILE)).all()
    assert [path.name for path in result.tables] == [f"film_{k:04d}_objects.csv" for k in range(3)]


def test_the_table_is_that_of_a_small_image(cells, big, pixels, tmp_path):
    write_labels(tmp_path / "small.tif", pixels)
    predict_folder(load(cells), tmp_path / "small.tif", tmp_path / "small", tile=TILE)
    result = predict_large(cells, big, tmp_path / "out", tile=TILE)
    one, other = rows_of(tmp_path / "small" / "small_objects.csv"), rows_of(result.tables[0])
    assert one[0] == other[0]
    assert len(one) == len(other) > 4
    for row, same in zip(one[1:], other[1:], strict=True):
        assert [float(cell or 0) for cell in row] == pytest.approx([float(cell or 0) for cell in same], rel=1e-6)


def rows_of(table):
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def classes(tmp_path):
    """A model of three classes with odd label values, in colour."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2)]
    labels = [np.digitize(image[..., 0], (90, 170)) * 40 for image in images]
    recipe = replace(load_recipe("default"), budget=BudgetConfig())
    recipe = replace(recipe, network=replace(recipe.network, width=4, depth=1), tiles=replace(recipe.tiles, size=32))
    train(images, labels, recipe=recipe, steps=5, task="classes", device="cpu").save(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def test_classes_keep_their_values(classes, tmp_path):
    colour = np.random.default_rng(5).integers(0, 255, (75, 61, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    result = predict_large(classes, tmp_path / "colour.tif", tmp_path / "out", tile=44, probabilities=True)
    model = load(classes)
    assert (tifffile.imread(result.labels) == model.segment(colour, tile=44)).all()
    assert (tifffile.imread(result.probabilities) == model.predict(colour, tile=44)).all()
    assert result.objects is None
    assert result.tables == ()


# stopped and continued


class Stopped(Exception):
    pass


def stopping_after(number):
    """An engine that does some blocks, the last first, and is then stopped."""

    def engine(work, blocks, done):
        for block in blocks[::-1][:number]:
            done(block, compute_block(work, block))
        raise Stopped

    return engine


def counting(seen):
    def engine(work, blocks, done):
        seen.extend(block.number for block in blocks)
        in_this_process(work, blocks, done)

    return engine


def test_a_stopped_job_goes_on(cells, big, tmp_path):
    whole = predict_large(cells, big, tmp_path / "whole", tile=TILE, probabilities=True)
    with pytest.raises(Stopped):
        predict_large(cells, big, tmp_path / "out", tile=TILE, probabilities=True, engine=stopping_after(5))
    assert not (tmp_path / "out" / "big.ome.zarr").exists()
    with pytest.raises(FileError, match=r"big\.unfinished holds what a stopped job has done: --resume"):
        predict_large(cells, big, tmp_path / "out", tile=TILE, probabilities=True)
    seen = []
    result = predict_large(
        cells, big, tmp_path / "out", probabilities=True, resume=True, engine=counting(seen)
    )  # the tile is that of the job
    assert seen == list(range(7))
    assert (result.kept, result.damaged, result.tile) == (5, 0, whole.tile)
    assert (labels_of(result) == labels_of(whole)).all()
    assert not (tmp_path / "out" / "big.unfinished").exists()


def test_what_has_not_its_checksum_is_computed_again(cells, big, tmp_path):
    whole = predict_large(cells, big, tmp_path / "whole", tile=TILE)
    with pytest.raises(Stopped):
        predict_large(cells, big, tmp_path / "out", tile=TILE, engine=stopping_after(4))
    unfinished = tmp_path / "out" / "big.unfinished"
    chunks = sorted(path for path in (unfinished / "maps.zarr" / "c").rglob("*") if path.is_file())
    chunks[0].write_bytes(chunks[0].read_bytes()[:-9])  # cut
    shutil.copy(chunks[1], chunks[2])  # whole, but another's
    with (unfinished / "blocks.jsonl").open("a") as file:
        file.write('{"block": 0, "sha')  # the line under way
    result = predict_large(cells, big, tmp_path / "out", resume=True)
    assert (result.kept, result.damaged) == (2, 2)
    assert (labels_of(result) == labels_of(whole)).all()


def test_another_job_is_not_continued(cells, big, pixels, tmp_path):
    with pytest.raises(Stopped):
        predict_large(cells, big, tmp_path / "out", tile=TILE, engine=stopping_after(4))
    with pytest.raises(FileError, match=r"was begun otherwise \(probabilities False, now True\): --overwrite"):
        predict_large(cells, big, tmp_path / "out", resume=True, probabilities=True)
    with pytest.raises(FileError, match=r"tile 108, now 188"):
        predict_large(cells, big, tmp_path / "out", resume=True, tile=188)
    array = zarr.open_array(big, mode="r+")
    array[:50] = array[:50] // 2
    with pytest.raises(FileError, match="pixels"):
        predict_large(cells, big, tmp_path / "out", resume=True)
    (tmp_path / "out" / "big.unfinished" / "job.json").write_text("{")
    with pytest.raises(FileError, match=r"job\.json is damaged"):
        predict_large(cells, big, tmp_path / "out", resume=True)
    result = predict_large(cells, big, tmp_path / "out", tile=TILE, overwrite=True)
    assert result.kept == 0


def test_with_nothing_to_go_on_from_resume_begins(cells, big, tmp_path):
    assert predict_large(cells, big, tmp_path / "out", tile=TILE, resume=True).kept == 0


# refusals


def test_nothing_is_replaced_unasked(cells, big, tmp_path):
    result = predict_large(cells, big, tmp_path / "out", tile=TILE)
    with pytest.raises(FileError, match=r"big\.ome\.zarr exists already"):
        predict_large(cells, big, tmp_path / "out", tile=TILE)
    before = labels_of(result)
    assert (labels_of(predict_large(cells, big, tmp_path / "out", tile=TILE, overwrite=True)) == before).all()


def test_the_image_is_never_replaced(cells, pixels, tmp_path):
    tifffile.imwrite(tmp_path / "big.tif", pixels)
    with pytest.raises(FileError, match="would be the image itself"):
        predict_large(cells, tmp_path / "big.tif", tmp_path, tile=TILE, overwrite=True)
    assert (tifffile.imread(tmp_path / "big.tif") == pixels).all()


def test_what_does_not_fit_the_model(cells, classes, big, pixels, tmp_path):
    with pytest.raises(InputError, match="1 channel, the model takes 3"):
        predict_large(classes, big, tmp_path / "out")
    spoilt = pixels.astype(np.float32)
    spoilt[200, 100] = np.nan
    tifffile.imwrite(tmp_path / "spoilt.tif", spoilt)
    with pytest.raises(InputError, match="NaN"):
        predict_large(cells, tmp_path / "spoilt.tif", tmp_path / "out", tile=TILE)
    model = load(cells)
    model.contract = replace(model.contract, views="rotations")
    model.save(tmp_path / "turning.safetensors")
    with pytest.raises(InputError, match="averages rotations of the whole image"):
        predict_large(tmp_path / "turning.safetensors", big, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_full_disk_leaves_what_is_done(cells, big, tmp_path, monkeypatch):
    number = iter(range(100))
    write = scale._Store._write

    def full(*arguments):
        if next(number) == 3:
            raise OSError(28, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(scale._Store, "_write", full)
    with pytest.raises(FileError, match=r"what is done stays in .*big\.unfinished, and --resume goes on there"):
        predict_large(cells, big, tmp_path / "out", tile=TILE)
    assert predict_large(cells, big, tmp_path / "out", resume=True).kept == 3


def test_stopped_while_results_are_written(cells, big, tmp_path, monkeypatch):
    """The tables are there already then: --resume still goes on."""
    whole = predict_large(cells, big, tmp_path / "whole", tile=TILE)
    monkeypatch.setattr(
        scale, "_write_planes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(FileError, match="what is done stays in"):
        predict_large(cells, big, tmp_path / "out", tile=TILE)
    monkeypatch.undo()
    assert (tmp_path / "out" / "big_objects.csv").exists()
    result = predict_large(cells, big, tmp_path / "out", resume=True)
    assert result.kept == result.blocks
    assert (labels_of(result) == labels_of(whole)).all()


def test_a_process_that_lives_on_opens_the_next_job(cells, big, pixels, tmp_path):
    """As the workers of a scheduler do: another model under the same name, another tile, the same folder."""
    spoilt = load(cells)
    with torch.no_grad():
        spoilt.network.head.bias += 3.0
    path = tmp_path / "model.safetensors"
    spoilt.save(path)
    first = predict_large(path, big, tmp_path / "out", tile=TILE, probabilities=True)
    opened = scale._opened
    opened.cache_clear = lambda: None  # a worker is never told that a job is over
    try:
        load(cells).save(path, overwrite=True)
        second = predict_large(path, big, tmp_path / "out", tile=188, probabilities=True, overwrite=True)
    finally:
        del opened.cache_clear
    assert first.tile != second.tile
    maps = open_large(second.probabilities).read((), slice(None), slice(None))
    assert (maps == load(cells).predict(pixels, tile=188)).all()


def test_a_foreign_zarr_is_refused_before_anything_is_computed(cells, big, tmp_path):
    (tmp_path / "out").mkdir()
    zarr.create_array(tmp_path / "out" / "big.ome.zarr", data=np.ones((4, 4)))
    with pytest.raises(FileError, match="is no result of ubend, and is not replaced"):
        predict_large(cells, big, tmp_path / "out", tile=TILE, overwrite=True, engine=stopping_after(0))


def test_without_memory_the_tile_becomes_smaller(cells, big, pixels, tmp_path, monkeypatch):
    predict, told = scale.predict_part, []

    def little(network, contract, part, *arguments, **options):
        if part.shape[1] > 120:
            raise torch.OutOfMemoryError
        return predict(network, contract, part, *arguments, **options)

    monkeypatch.setattr(scale, "predict_part", little)
    result = predict_large(cells, big, tmp_path / "out", on_smaller_tile=lambda *tiles: told.append(tiles))
    assert told[0][0] > told[0][1]
    assert result.tile[0] <= 120
    with pytest.raises(OutOfMemory, match="does not fit the memory of cpu; try a smaller --tile"):
        predict_large(cells, big, tmp_path / "again", tile=200)


def test_another_precision_is_not_continued(cells, big, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        predict_large(cells, big, tmp_path / "out", tile=TILE, exact=True, engine=stopping_after(4))
    monkeypatch.setattr(scale, "mixed_precision", lambda _device: torch.bfloat16)
    with pytest.raises(FileError, match="dtype float32, now bfloat16"):
        predict_large(cells, big, tmp_path / "out", resume=True)


def test_planes_unlike_those_trained_on_are_told_before_anything_is_computed(cells, pixels, tmp_path):
    stack = np.stack([pixels, pixels.max() - pixels]).astype(np.float64)
    zarr.create_array(tmp_path / "stack.zarr", data=stack, chunks=(1, 64, 64))
    told = []

    def on_unlike(planes):
        told.append(planes)
        assert not (tmp_path / "out").exists()

    result = predict_large(cells, tmp_path / "stack.zarr", tmp_path / "out", tile=TILE, on_unlike=on_unlike)
    assert told == [result.unlike]
    assert list(result.unlike) == ["stack_0000", "stack_0001"]
    first, second = result.unlike.values()
    assert (first.drift, first.dtype) == (None, "float64")
    assert second.drift.is_far
    assert result.other_diameters == {}


def test_objects_of_another_size_are_told(cells, big, tmp_path):
    model = load(cells)
    small = replace(model.contract.reference, diameters=spread_of([1.0]))
    model.contract = replace(model.contract, reference=small)
    model.save(tmp_path / "small.safetensors")
    result = predict_large(tmp_path / "small.safetensors", big, tmp_path / "out", tile=TILE)
    assert result.unlike == {}
    assert list(result.other_diameters) == ["big"]
    assert result.other_diameters["big"] > 2

import csv
import errno
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ubend.data import rois
from ubend.data.annotated import find_pairs, read_pairs
from ubend.data.formats import image_files, read_images, read_labels, read_probabilities, write_labels
from ubend.data.rois import labels_from_drawn, read_drawn
from ubend.errors import FileError, InputError
from ubend.faces.pictures import outlined
from ubend.method.resampling import resized
from ubend.run import drift, folders
from ubend.run.drift import spread_of
from ubend.run.evaluation import evaluate_folders
from ubend.run.folders import Extras, predict_folder
from ubend.run.pipeline import Limit


@pytest.fixture
def images(discs, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(discs[0][:2]):
        tifffile.imwrite(folder / f"disc {number}.tif", image)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "results"


@pytest.fixture
def many(discs, tmp_path):
    """More images than are read ahead."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(12):
        tifffile.imwrite(folder / f"d{number}.tif", np.roll(discs[0][number % 4], number, axis=1))
    return folder


def no_threads():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("ubend")]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_result_for_each_image(images, out, model, discs):
    told = []
    result = predict_folder(model, images, out, on_image=lambda *where: told.append(where))
    assert names(out) == ["disc 0.tif", "disc 1.tif"]
    assert [path.name for path in result.written] == names(out)
    assert result.objects == result.failed == {}
    assert told == [(1, 2, "disc 0.tif"), (2, 2, "disc 1.tif")]
    for number in range(2):
        found = read_labels(out / f"disc {number}.tif")[0].pixels
        assert (found == model.segment(discs[0][number])).all()
        assert set(np.unique(found)) == {0, 255}


def test_probabilities_beside_them(images, out, model, discs):
    result = predict_folder(model, images / "disc 0.tif", out, probabilities=True)
    assert names(out) == ["disc 0.tif", "disc 0_probabilities.tif"]
    assert len(result.written) == 1
    assert (read_probabilities(out / "disc 0_probabilities.tif") == model.predict(discs[0][0])).all()


def test_objects_are_counted(images, out, instance_model):
    result = predict_folder(instance_model, images, out)
    assert {name: read_labels(out / f"{name}.tif")[0].pixels.max() for name in result.objects} == result.objects
    assert set(result.objects) == {"disc 0", "disc 1"}


def test_other_formats_and_pixel_size(tmp_path, out, model, discs):
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "a.ome.tif", discs[0][0], metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    from PIL import Image

    Image.fromarray(discs[0][1]).save(folder / "b.png")
    predict_folder(model, folder, out)
    assert names(out) == ["a.tif", "b.tif"]
    assert read_images(out / "a.tif")[0].pixel_size == 0.5


def test_a_stack_page_by_page(tmp_path, out, model, discs):
    tifffile.imwrite(tmp_path / "film.tif", np.stack(discs[0][:3]), photometric="minisblack")
    result = predict_folder(model, tmp_path / "film.tif", out)
    assert names(out) == ["film_0000.tif", "film_0001.tif", "film_0002.tif"]
    assert len(result.written) == 3
    for page in range(3):
        assert (read_labels(out / f"film_000{page}.tif")[0].pixels == model.segment(discs[0][page])).all()


def test_results_that_are_there(images, out, model):
    out.mkdir(parents=True)
    write_labels(out / "disc 1.tif", np.ones((2, 2), int))
    before = contents(out)
    with pytest.raises(FileError, match=r"disc 1\.tif exists already: give --out another folder, or say --overwrite"):
        predict_folder(model, images, out)
    assert contents(out) == before
    predict_folder(model, images, out, overwrite=True)
    assert read_labels(out / "disc 1.tif")[0].pixels.shape == (80, 96)


def saved_by_another_program(path):
    tifffile.imwrite(path, tifffile.imread(path), software="ImageJ")


def test_what_another_program_wrote_is_not_replaced(images, out, model):
    predict_folder(model, images, out)
    saved_by_another_program(out / "disc 1.tif")  # corrected by hand
    before = contents(out)
    with pytest.raises(FileError, match=r"disc 1\.tif was not written by ubend: it is not replaced"):
        predict_folder(model, images, out, overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize("place", ["masks", "images/masks", "GT"])
def test_the_labels_of_the_images_are_not_replaced(tmp_path, model, discs, place):
    """Not even those that ubend wrote: they may have been checked, and this is where `ubend train` looks for them."""
    for folder, arrays in (("images", discs[0]), (place, discs[1])):
        (tmp_path / folder).mkdir()
        write_labels(tmp_path / folder / "a.tif", arrays[0])
    (tmp_path / "link").symlink_to(tmp_path / place)
    before = contents(tmp_path / place)
    for out in (tmp_path / place, tmp_path / "link", tmp_path / "images" / ".." / place):
        with pytest.raises(FileError, match="in the folder of their labels nothing is replaced"):
            predict_folder(model, tmp_path / "images", out, overwrite=True)
    assert contents(tmp_path / place) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_that_leads_nowhere_is_not_replaced(images, out, model, overwrite):
    out.mkdir(parents=True)
    (out / "disc 1.tif").symlink_to("to be mounted")
    with pytest.raises(FileError, match=r"disc 1\.tif"):
        predict_folder(model, images, out, overwrite=overwrite)
    assert (out / "disc 1.tif").is_symlink()


def test_probabilities_that_are_there(images, out, model):
    out.mkdir(parents=True)
    (out / "disc 1_probabilities.tif").write_text("mine")
    with pytest.raises(FileError, match=r"disc 1_probabilities\.tif exists already"):
        predict_folder(model, images, out, probabilities=True)
    assert contents(out) == {"disc 1_probabilities.tif": b"mine"}


def test_results_of_a_stack_that_are_there(tmp_path, out, model, discs):
    tifffile.imwrite(tmp_path / "film.tif", np.stack(discs[0][:2]), photometric="minisblack")
    out.mkdir(parents=True)
    (out / "film_0001.tif").write_text("mine")
    result = predict_folder(model, tmp_path / "film.tif", out)
    assert "film_0001.tif exists already" in result.failed[tmp_path / "film.tif"]
    assert contents(out) == {"film_0001.tif": b"mine"}


@pytest.mark.parametrize("probabilities", [False, True])
def test_images_are_never_replaced(images, model, probabilities):
    before = contents(images)
    with pytest.raises(FileError, match="is an image of yours, its result would replace it"):
        predict_folder(model, images, images, overwrite=True, probabilities=probabilities)
    assert contents(images) == before


def test_images_are_never_replaced_through_a_link(images, out, model):
    out.mkdir(parents=True)
    (out / "disc 1.tif").symlink_to(images / "disc 1.tif")
    before = contents(images)
    with pytest.raises(FileError, match="is an image of yours"):
        predict_folder(model, images, out, overwrite=True)
    assert contents(images) == before


def test_images_are_never_replaced_by_pages(images, model, discs):
    """The page film_0000 would become the result of the image of that name, and in this folder the image itself."""
    tifffile.imwrite(images / "film.tif", np.stack(discs[0][:2]), photometric="minisblack")
    tifffile.imwrite(images / "film_0000.tif", discs[0][0])
    before = contents(images)
    result = predict_folder(model, images / "film.tif", images.parent / "one")
    assert result.failed == {}
    with pytest.raises(FileError, match="is an image of yours"):
        predict_folder(model, images, images, overwrite=True)
    assert contents(images) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_pages_that_have_the_name_of_an_image(images, out, model, discs, overwrite):
    tifffile.imwrite(images / "film.tif", np.stack(discs[0][:2]), photometric="minisblack")
    tifffile.imwrite(images / "film_0000.tif", discs[0][3])
    result = predict_folder(model, images, out, overwrite=overwrite)
    [(file, reason)] = result.failed.items()
    assert file.name in ("film.tif", "film_0000.tif")
    assert "the result of another image: rename one" in reason


@pytest.mark.parametrize(
    ("first", "second", "probabilities"),
    [("a.tif", "a.png", False), ("a.tif", "A.tiff", False), ("a.tif", "a_probabilities.tif", True)],
)
def test_images_that_would_have_one_result(first, second, probabilities, tmp_path, out, model):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / first).write_text("never read")
    (folder / second).write_text("never read")
    with pytest.raises(FileError, match=r"would both become .*: rename one"):
        predict_folder(model, folder, out, probabilities=probabilities)
    assert not out.exists()


def test_a_broken_file_does_not_stop_the_others(images, out, model):
    content = (images / "disc 0.tif").read_bytes()
    (images / "broken.tif").write_bytes(content[: len(content) // 2])
    (images / "text.png").write_text("no image")
    tifffile.imwrite(images / "nan.tif", np.full((9, 9), np.nan, np.float32))
    tifffile.imwrite(images / "rgb.tif", np.random.default_rng(0).integers(0, 9, (9, 9, 3)).astype(np.uint8))
    result = predict_folder(model, images, out)
    assert names(out) == ["disc 0.tif", "disc 1.tif"]
    reasons = {path.name: reason for path, reason in result.failed.items()}
    assert reasons.keys() == {"broken.tif", "text.png", "nan.tif", "rgb.tif"}
    assert "truncated" in reasons["broken.tif"]
    assert "truncated or no PNG" in reasons["text.png"]
    assert "NaN" in reasons["nan.tif"]
    assert "the image has 3 channels, the model takes 1" in reasons["rgb.tif"]


def test_an_image_too_large_for_rois_does_not_stop_the_others(tmp_path, out, instance_model, discs, monkeypatch):
    monkeypatch.setattr(rois, "_LARGEST_COORDINATE", 90)  # the discs are 80 × 96
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", discs[0][0])
    tifffile.imwrite(tmp_path / "images" / "b.tif", discs[0][1][:, :80])
    monkeypatch.setattr(instance_model, "predict", not_for_width(96, instance_model.predict))
    result = predict_folder(instance_model, tmp_path / "images", out, extras=Extras(rois=True))
    [(file, reason)] = result.failed.items()
    assert file.name == "a.tif"
    assert "80 × 96 pixels (rows × columns) is too large for ImageJ ROIs, which end at pixel 90: write GeoJ" in reason
    assert names(out) == ["b.tif", "b_objects.csv", "b_rois.zip", "objects.csv"]
    assert {row["image"] for row in table(out / "objects.csv")} == {"b"}


def not_for_width(width, predict):
    """Predict as before, but fail the test where an image of that width is to be computed."""

    def checked(image, **choices):
        assert image.shape[1] != width
        return predict(image, **choices)

    return checked


@pytest.mark.parametrize("error", [InputError, FileError])
@pytest.mark.parametrize("step", ["predict_labels", "measure_objects", "write_geojson"])
def test_what_fails_for_one_image_leaves_none_of_its_files(step, error, images, out, finding_two, monkeypatch):
    monkeypatch.setattr(folders, "WRITERS", 1)  # the first call is that of the first image
    calls, before = [], getattr(folders, step)

    def failing_first(*args, **kwargs):
        calls.append(step)
        if len(calls) == 1:
            raise error("this one is odd")
        return before(*args, **kwargs)

    monkeypatch.setattr(folders, step, failing_first)
    result = predict_folder(finding_two, images, out, extras=Extras(geojson=True))
    assert result.failed == {images / "disc 0.tif": "this one is odd"}
    assert names(out) == ["disc 1.geojson", "disc 1.tif", "disc 1_objects.csv", "objects.csv"]
    assert {row["image"] for row in table(out / "objects.csv")} == {"disc 1"} == set(result.objects)


def test_the_table_of_an_earlier_run_does_not_outlive_its_images(images, out, finding_two, monkeypatch):
    predict_folder(finding_two, images, out)
    before, calls = finding_two.predict, []

    def stopped_at_the_second(image, **choices):
        calls.append(image)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return before(image, **choices)

    monkeypatch.setattr(finding_two, "predict", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(finding_two, images, out, overwrite=True)
    assert not (out / "objects.csv").exists()


def test_pages_before_one_that_fails_stay_and_are_in_the_table(tmp_path, out, finding_two, discs, monkeypatch):
    tifffile.imwrite(tmp_path / "film.tif", np.stack(discs[0][:3]), photometric="minisblack")
    predict, calls = finding_two.predict, []

    def failing_at_the_third(image, **choices):
        calls.append(image)
        if len(calls) == 3:
            raise InputError("this page is odd")
        return predict(image, **choices)

    monkeypatch.setattr(finding_two, "predict", failing_at_the_third)
    result = predict_folder(finding_two, tmp_path / "film.tif", out)
    assert result.failed == {tmp_path / "film.tif": "this page is odd"}
    assert [path.name for path in result.written] == ["film_0000.tif", "film_0001.tif"]
    assert {row["image"] for row in table(out / "film_objects.csv")} == {"film_0000", "film_0001"}


@pytest.mark.parametrize("where", ["replace", "write"])
def test_a_full_disk_leaves_nothing_half_written(where, images, out, model, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Path, "replace") if where == "replace" else (tifffile, "imwrite")), full)
    with pytest.raises(FileError, match="no space left on the disk"):
        predict_folder(model, images, out)
    assert names(out) == []


@pytest.mark.parametrize("writers", [1, 2])
def test_a_disk_that_fills_up_stops_after_whole_images(writers, many, out, finding_two, monkeypatch):
    monkeypatch.setattr(folders, "WRITERS", writers)
    before = folders.write_labels

    def full_at_the_third(path, labels, **choices):
        if path.name == "d2.tif":
            raise FileError("no space left on the disk") from OSError(errno.ENOSPC, "No space left on device")
        before(path, labels, **choices)

    monkeypatch.setattr(folders, "write_labels", full_at_the_third)
    with pytest.raises(FileError, match="no space left on the disk"):
        predict_folder(finding_two, many, out)
    assert names(out) == ["d0.tif", "d0_objects.csv", "d1.tif", "d1_objects.csv"]
    assert no_threads()


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_folder_is_segmented_as_its_images_are_one_by_one(many, tmp_path, out, instance_model, probabilities):
    result = predict_folder(instance_model, many, out, probabilities=probabilities)
    files = image_files(many)
    for file in files:
        alone = predict_folder(instance_model, file, tmp_path / "alone", probabilities=probabilities)
        assert alone.objects == {file.stem: result.objects[file.stem]}
    assert [path.stem for path in result.written] == list(result.objects) == [file.stem for file in files]
    together = contents(out)
    assert list(dict.fromkeys(row["image"] for row in table(out / "objects.csv"))) == list(result.objects)
    del together["objects.csv"]
    assert together == contents(tmp_path / "alone")
    assert 0 <= result.waiting <= 1


def test_a_broken_file_in_the_middle_of_many(many, out, finding_two):
    for name in ("d1", "d4"):
        (many / f"{name}.tif").write_text("no image")
    result = predict_folder(finding_two, many, out)
    assert [file.stem for file in result.failed] == ["d1", "d4"]
    assert list(result.objects) == ["d0", "d2", "d3", "d5", "d6", "d7", "d8", "d9", "d10", "d11"]


def test_pages_after_one_that_could_not_be_written_are_not(tmp_path, out, finding_two, discs, monkeypatch):
    tifffile.imwrite(tmp_path / "film.tif", np.stack(discs[0]), photometric="minisblack")
    before = folders.write_labels

    def failing_at_the_second(path, labels, **choices):
        if path.name == "film_0001.tif":
            raise FileError("this page is odd")
        before(path, labels, **choices)

    monkeypatch.setattr(folders, "write_labels", failing_at_the_second)
    result = predict_folder(finding_two, tmp_path / "film.tif", out)
    assert result.failed == {tmp_path / "film.tif": "this page is odd"}
    assert names(out) == ["film_0000.tif", "film_0000_objects.csv", "film_objects.csv"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_what_stops_the_network_leaves_the_images_before_it(many, out, finding_two, monkeypatch, stop):
    predict, calls = finding_two.predict, []

    def stopped_at_the_fourth(image, **choices):
        calls.append(image)
        if len(calls) == 4:
            raise stop
        return predict(image, **choices)

    monkeypatch.setattr(finding_two, "predict", stopped_at_the_fourth)
    with pytest.raises(stop):
        predict_folder(finding_two, many, out)
    assert names(out) == [f"d{number}{ending}" for number in range(3) for ending in (".tif", "_objects.csv")]
    assert no_threads()


def test_large_images_do_not_pile_up(many, out, finding_two, monkeypatch):
    """What is larger than the limits is read, segmented and written before the next is read."""
    monkeypatch.setattr(folders, "AHEAD", Limit(8, 1000))
    monkeypatch.setattr(folders, "BEHIND", Limit(8, 1000))
    said = []

    def saying(name):
        before = getattr(folders, name)

        def said_and_done(first, *args, **kwargs):
            said.append(name)
            return before(first, *args, **kwargs)

        monkeypatch.setattr(folders, name, said_and_done)

    saying("read_images")
    saying("write_labels")
    predict_folder(finding_two, many, out)
    assert said == ["read_images", "write_labels"] * 12


def test_nothing_to_segment(tmp_path, out, model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no image that can be read: TIFF, PNG, JPEG, BMP"):
        predict_folder(model, tmp_path / "empty", out)
    with pytest.raises(FileError, match="There is no folder"):
        predict_folder(model, tmp_path / "none", out)
    assert not out.exists()


def test_out_is_a_folder(images, tmp_path, model):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match="file is a file, not a folder: nothing can be written"):
        predict_folder(model, images, tmp_path / "file")


# pixel sizes


def with_pixel_size(path, image, size):
    sizes = {} if size is None else {"PhysicalSizeX": size, "PhysicalSizeY": size}
    tifffile.imwrite(path, image, metadata=sizes)


@pytest.fixture
def half_a_micrometre(instance_model, monkeypatch):
    """A model of images with pixels of half a micrometre."""
    monkeypatch.setattr(instance_model, "contract", replace(instance_model.contract, pixel_size=0.5))
    return instance_model


def test_images_with_other_pixels_are_told(tmp_path, out, half_a_micrometre, model, discs):
    (tmp_path / "images").mkdir()
    for number, size in enumerate((0.5, 0.54, 0.4, 0.7, None)):
        with_pixel_size(tmp_path / "images" / f"{number}.ome.tif", discs[0][0], size)
    assert predict_folder(half_a_micrometre, tmp_path / "images", out).other_sizes == {"2": 0.4, "3": 0.7}
    assert predict_folder(model, tmp_path / "images", out, overwrite=True).other_sizes == {}


@pytest.mark.parametrize("zoom", [2, 3])
def test_resampled_to_the_pixels_of_the_model_and_back(tmp_path, out, half_a_micrometre, discs, zoom):
    image = discs[0][0].repeat(zoom, 0).repeat(zoom, 1)
    with_pixel_size(tmp_path / "fine.ome.tif", image, 0.5 / zoom)
    result = predict_folder(half_a_micrometre, tmp_path / "fine.ome.tif", out, probabilities=True, resample=True)
    assert result.other_sizes == {}
    seen = resized(image[None], discs[0][0].shape, order=1)[0]
    expected = half_a_micrometre.segment(seen)
    found = read_images(out / "fine.tif")[0]
    assert expected.max() > 0
    assert found.pixel_size == pytest.approx(0.5 / zoom)
    assert (found.pixels == expected.repeat(zoom, 0).repeat(zoom, 1)).all()
    written = read_probabilities(out / "fine_probabilities.tif")
    assert (written == resized(half_a_micrometre.predict(seen), image.shape, order=1)).all()
    assert len(table(out / "fine_objects.csv")) == result.objects["fine"] == expected.max()


def test_objects_smaller_than_a_pixel_are_not_counted(tmp_path, out, half_a_micrometre, monkeypatch):
    labels = np.zeros((40, 60), np.uint8)
    labels[0, 0], labels[8:20, 8:20], labels[30:38, 30:50] = 1, 2, 3
    monkeypatch.setattr(folders, "predict_labels", lambda _contract, _probabilities: labels)
    with_pixel_size(tmp_path / "coarse.ome.tif", np.arange(150, dtype=np.uint8).reshape(10, 15), 2.0)
    result = predict_folder(half_a_micrometre, tmp_path / "coarse.ome.tif", out, resample=True)
    found = read_labels(out / "coarse.tif")[0].pixels
    assert result.objects == {"coarse": 2}
    assert np.unique(found).tolist() == [0, 1, 2]
    assert [row["area_px"] for row in table(out / "coarse_objects.csv")] == ["9", "10"]


def test_the_same_pixels_are_not_resampled(tmp_path, out, half_a_micrometre, discs):
    with_pixel_size(tmp_path / "a.ome.tif", discs[0][0], 0.5)
    predict_folder(half_a_micrometre, tmp_path / "a.ome.tif", out / "as it is")
    predict_folder(half_a_micrometre, tmp_path / "a.ome.tif", out / "resampled", resample=True)
    assert contents(out / "as it is") == contents(out / "resampled")


def test_no_resampling_without_both_pixel_sizes(images, out, instance_model, half_a_micrometre, monkeypatch):
    with_pixel_size(images / "d.ome.tif", np.zeros((9, 9), np.uint8), 0.0005)
    result = predict_folder(half_a_micrometre, images, out, resample=True)
    assert "more than 10 times larger or smaller than the model's, 0.5 µm" in result.failed.pop(images / "d.ome.tif")
    assert len(result.failed) == 2
    for reason in result.failed.values():
        assert "does not say its pixel size, which --resample compares with the model's 0.5 µm" in reason
    monkeypatch.setattr(instance_model, "contract", replace(instance_model.contract, pixel_size=None))
    with pytest.raises(InputError, match="--resample needs the pixel size of the model"):
        predict_folder(instance_model, images, out, resample=True)
    assert not out.exists()


# objects


TWO = np.zeros((80, 96), np.uint8)
TWO[0:10, 0:10], TWO[40:50, 40:60] = 1, 2


@pytest.fixture
def finding_two(instance_model, monkeypatch):
    """A model that finds two objects in every image."""
    monkeypatch.setattr(folders, "predict_labels", lambda _contract, _probabilities: TWO)
    return instance_model


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_objects_are_measured(tmp_path, out, finding_two, discs):
    (tmp_path / "images").mkdir()
    for number, image in enumerate(discs[0][:2]):
        sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5} if number == 0 else {}
        tifffile.imwrite(tmp_path / "images" / f"d{number}.ome.tif", image, metadata=sizes)
    result = predict_folder(finding_two, tmp_path / "images", out)
    assert names(out) == ["d0.tif", "d0_objects.csv", "d1.tif", "d1_objects.csv", "objects.csv"]
    assert result.table == out / "objects.csv"
    first, second = table(out / "d0_objects.csv")
    assert (first["id"], first["area_px"], first["area_um2"], first["touches_border"]) == ("1", "100", "25", "1")
    assert (second["centroid_row_px"], second["centroid_column_um"], second["touches_border"]) == ("44.5", "24.75", "0")
    assert float(second["mean_intensity_1"]) == pytest.approx(discs[0][0][40:50, 40:60].mean(), rel=1e-6)
    rows = table(out / "objects.csv")
    assert [(row["image"], row["id"], row["area_um2"]) for row in rows] == [
        ("d0", "1", "25"), ("d0", "2", "50"), ("d1", "1", ""), ("d1", "2", ""),
    ]  # fmt: skip
    assert list(rows[0])[1:] == list(first)


def test_the_pages_of_a_stack_share_a_table(tmp_path, out, finding_two, discs):
    tifffile.imwrite(tmp_path / "film.tif", np.stack(discs[0][:2]), photometric="minisblack")
    predict_folder(finding_two, tmp_path / "film.tif", out)
    assert [row["image"] for row in table(out / "film_objects.csv")] == [
        "film_0000",
        "film_0000",
        "film_0001",
        "film_0001",
    ]


def test_images_may_be_segmented_one_by_one_into_one_folder(images, out, finding_two):
    for path in sorted(images.iterdir()):
        result = predict_folder(finding_two, path, out)
        assert result.table == out / f"{path.stem}_objects.csv"
        assert len(table(result.table)) == 2
    assert not (out / "objects.csv").exists()


def test_a_gray_image_in_three_channels_is_measured_in_one(tmp_path, out, finding_two, discs):
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([discs[0][0]] * 3, axis=-1), photometric="rgb")
    predict_folder(finding_two, tmp_path / "rgb.tif", out)
    assert [name for name in table(out / "rgb_objects.csv")[0] if name.startswith("mean")] == ["mean_intensity_1"]


def test_other_models_measure_nothing(images, out, model):
    assert predict_folder(model, images, out).table is None
    assert names(out) == ["disc 0.tif", "disc 1.tif"]


def test_no_image_no_table(images, out, instance_model):
    for path in images.iterdir():
        path.write_text("no image")
    assert predict_folder(instance_model, images, out).table is None
    assert not out.exists()


@pytest.mark.parametrize(
    "name",
    ["objects.csv", "disc 1_objects.csv", "disc 1_rois.zip", "disc 0.geojson", "disc 0_outlines.png"],
)
def test_tables_and_outlines_that_are_there(images, out, instance_model, name):
    out.mkdir(parents=True)
    (out / name).write_text("mine")
    extras = Extras(rois=True, geojson=True, paint=outlined)
    with pytest.raises(FileError, match="exists already: give --out another folder, or say --overwrite"):
        predict_folder(instance_model, images, out, extras=extras)
    with pytest.raises(FileError, match="was not written by ubend"):
        predict_folder(instance_model, images, out, extras=extras, overwrite=True)
    assert contents(out) == {name: b"mine"}
    (out / name).unlink()
    predict_folder(instance_model, images, out, extras=extras)
    before = contents(out)
    predict_folder(instance_model, images, out, extras=extras, overwrite=True)
    assert len(names(out)) == 11
    assert contents(out) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["a.geojson", "a_rois.zip", "a.tif", "a_objects.csv", "objects.csv"])
def test_nothing_beside_the_images_is_replaced(tmp_path, instance_model, discs, name, overwrite):
    """Outlines drawn by hand lie there, under the names that those of found objects would have."""
    from PIL import Image

    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(discs[0][0]).save(folder / "a.png")
    (folder / name).write_text("drawn by hand")
    before = contents(folder)
    images = folder if name == "objects.csv" else folder / "a.png"
    with pytest.raises(FileError, match=r"nothing is replaced, give --out another folder$"):
        predict_folder(
            instance_model, images, folder / ".", extras=Extras(rois=True, geojson=True), overwrite=overwrite
        )
    assert contents(folder) == before


def test_results_may_lie_beside_the_images(tmp_path, finding_two, discs):
    from PIL import Image

    Image.fromarray(discs[0][0]).save(tmp_path / "a.png")
    predict_folder(finding_two, tmp_path, tmp_path, extras=Extras(geojson=True))
    assert names(tmp_path) == ["a.geojson", "a.png", "a.tif", "a_objects.csv", "objects.csv"]


def test_a_folder_in_the_place_of_a_result(images, out, instance_model):
    (out / "disc 1.geojson").mkdir(parents=True)
    with pytest.raises(FileError, match=r"disc 1\.geojson is a folder, in the place of a result"):
        predict_folder(instance_model, images, out, extras=Extras(geojson=True), overwrite=True)
    assert names(out) == ["disc 1.geojson"]


def test_a_picture_never_replaces_an_image(tmp_path, instance_model, discs):
    from PIL import Image

    Image.fromarray(discs[0][0]).save(tmp_path / "a.png")
    Image.fromarray(discs[0][1]).save(tmp_path / "a_outlines.png")
    with pytest.raises(FileError, match=r"a_outlines\.png is an image of yours"):
        predict_folder(instance_model, tmp_path, tmp_path, extras=Extras(paint=outlined), overwrite=True)


def test_outlines_for_other_tools(images, out, finding_two):
    predict_folder(finding_two, images / "disc 0.tif", out, extras=Extras(rois=True, geojson=True, paint=outlined))
    for name in ("disc 0_rois.zip", "disc 0.geojson"):
        assert (labels_from_drawn(read_drawn(out / name), TWO.shape) == TWO).all()
    content = json.loads((out / "disc 0.geojson").read_text())
    assert [one["properties"]["measurements"]["area_px"] for one in content["features"]] == [100, 200]
    assert read_images(out / "disc 0_outlines.png")[0].pixels.shape == (640, 768, 3)


@pytest.mark.parametrize("ending", ["_rois.zip", ".geojson"])
def test_an_image_without_objects_comes_back_as_a_label_image(images, out, instance_model, monkeypatch, ending):
    monkeypatch.setattr(folders, "WRITERS", 1)  # in the order of the images
    found = iter([TWO, np.zeros_like(TWO)])
    monkeypatch.setattr(folders, "predict_labels", lambda _contract, _probabilities: next(found))
    predict_folder(instance_model, images, out, extras=Extras(rois=True, geojson=True))
    for number in range(2):
        (out / f"disc {number}{ending}").rename(images / f"disc {number}{ending}")
    first, second = read_pairs(find_pairs(images))
    assert (first.labels == TWO).all()
    assert (second.labels == 0).all()


def test_outlines_of_a_model_without_objects(images, out, model):
    for extras in (Extras(rois=True), Extras(geojson=True)):
        with pytest.raises(InputError, match="this model was trained on binary labels: train it with --task instances"):
            predict_folder(model, images, out, extras=extras)
    predict_folder(model, images, out, extras=Extras(paint=outlined))
    assert "disc 0_outlines.png" in names(out)


def test_rois_without_roifile_are_refused_at_once(images, out, instance_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(InputError, match=r"need the package roifile: pip install roifile"):
        predict_folder(instance_model, images, out, extras=Extras(rois=True))
    assert not out.exists()


def test_more_objects_than_16_bits_count(tmp_path, out, instance_model, monkeypatch):
    """From the label image through its table to its score."""
    labels = np.zeros((530, 530), np.uint32)
    labels[::2, ::2] = np.arange(1, 265**2 + 1).reshape(265, 265)
    monkeypatch.setattr(folders, "predict_labels", lambda _contract, _probabilities: labels)
    tifffile.imwrite(tmp_path / "many.tif", labels.astype(np.uint16))
    result = predict_folder(instance_model, tmp_path / "many.tif", out)
    assert result.objects == {"many": 70_225}
    [picture] = read_labels(out / "many.tif")
    assert picture.pixels.dtype == np.uint32
    assert (picture.pixels == labels).all()
    rows = table(out / "many_objects.csv")
    assert (len(rows), rows[-1]["id"]) == (70_225, "70225")
    (tmp_path / "truth").mkdir()
    write_labels(tmp_path / "truth" / "many.tif", labels)
    assert evaluate_folders(out, tmp_path / "truth", task="instances").overall["AP@0.5 (pooled)"] == 1


def test_tables_are_no_results_to_evaluate(tmp_path, images, out, finding_two):
    predict_folder(finding_two, images, out, extras=Extras(rois=True, geojson=True))
    truth = tmp_path / "truth"
    truth.mkdir()
    for number in range(2):
        write_labels(truth / f"disc {number}.tif", TWO)
    evaluation = evaluate_folders(out, truth, task="instances")
    assert [row.name for row in evaluation.rows] == ["disc 0", "disc 1"]


# images unlike those trained on


@pytest.fixture
def others(tmp_path):
    (tmp_path / "others").mkdir()
    return tmp_path / "others"


def test_images_that_look_otherwise_are_told(others, out, model, discs):
    like, other = discs[0][:2]
    tifffile.imwrite(others / "like.tif", like)
    tifffile.imwrite(others / "inverted.tif", like.max() - other)
    tifffile.imwrite(others / "wide.tif", other.astype(np.uint16) * 2)
    unlike = predict_folder(model, others, out).unlike
    assert set(unlike) == {"inverted", "wide"}
    assert (unlike["inverted"].drift.is_far, unlike["inverted"].dtype) == (True, None)
    assert (unlike["wide"].drift, unlike["wide"].dtype) == (None, "uint16")


def test_channels_in_another_order_are_told(others, out, model, discs, monkeypatch):
    monkeypatch.setattr(model, "contract", replace(model.contract, channel_names=("DAPI",)))
    for name, channel in (("like", "DAPI"), ("other", "GFP")):
        tifffile.imwrite(others / f"{name}.ome.tif", discs[0][0], metadata={"Channel": {"Name": channel}})
    tifffile.imwrite(others / "none.tif", discs[0][0])
    unlike = predict_folder(model, others, out).unlike
    assert {name: one.channel_names for name, one in unlike.items()} == {"other": ("GFP",)}


def trained_on(model, diameters):
    """The model, as if it had been trained on objects of this size; five of them are needed."""
    contract = model.contract
    return replace(contract, reference=replace(contract.reference, diameters=spread_of(diameters)))


def test_objects_of_another_size_are_told(others, out, instance_model, discs, monkeypatch):
    monkeypatch.setattr(drift, "FEWEST_OBJECTS", 1)
    tifffile.imwrite(others / "disc.tif", discs[0][0])
    found = {}
    for diameters in ([15.0], [100.0], [41.0]):
        monkeypatch.setattr(instance_model, "contract", trained_on(instance_model, diameters))
        found[diameters[0]] = predict_folder(instance_model, others, out, overwrite=True).other_diameters
    assert found[41.0] == {}
    assert found[15.0] == found[100.0]
    assert found[15.0]["disc"] == pytest.approx(40, rel=0.2)


def test_resampled_images_are_compared_as_they_are_segmented(others, out, half_a_micrometre, discs, monkeypatch):
    monkeypatch.setattr(drift, "FEWEST_OBJECTS", 1)
    monkeypatch.setattr(half_a_micrometre, "contract", trained_on(half_a_micrometre, [41.0]))
    image = discs[0][0].repeat(4, 0).repeat(4, 1)
    with_pixel_size(others / "fine.ome.tif", image, 0.5 / 4)
    coarse = predict_folder(half_a_micrometre, others, out)
    assert coarse.unlike["fine"].drift.is_far
    fine = predict_folder(half_a_micrometre, others, out, resample=True, overwrite=True)
    assert (fine.unlike, fine.other_diameters) == ({}, {})


def test_nothing_is_told_of_the_images_trained_on(others, out, instance_model, discs):
    for number, image in enumerate(discs[0]):
        tifffile.imwrite(others / f"{number}.tif", image)
    result = predict_folder(instance_model, others, out)
    assert (result.unlike, result.other_diameters) == ({}, {})

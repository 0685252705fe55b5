import errno
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ubend.data.formats import read_images, read_labels, read_probabilities
from ubend.errors import FileError
from ubend.run.folders import predict_folder


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


@pytest.mark.parametrize("overwrite", [False, True])
def test_results_that_are_there(images, out, model, overwrite, monkeypatch):
    out.mkdir(parents=True)
    (out / "disc 1.tif").write_text("mine")
    if overwrite:
        predict_folder(model, images, out, overwrite=True)
        assert read_labels(out / "disc 1.tif")[0].pixels.shape == (80, 96)
        return
    with pytest.raises(FileError, match=r"disc 1\.tif exists already: give --out another folder, or say --overwrite"):
        predict_folder(model, images, out)
    assert contents(out) == {"disc 1.tif": b"mine"}


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


@pytest.mark.parametrize("where", ["replace", "write"])
def test_a_full_disk_leaves_nothing_half_written(where, images, out, model, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Path, "replace") if where == "replace" else (tifffile, "imwrite")), full)
    with pytest.raises(FileError, match="no space left on the disk"):
        predict_folder(model, images, out)
    assert names(out) == []


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

import numpy as np
import pytest
from typer.testing import CliRunner

from ubend.data.annotated import find_pairs, infer_task, read_pairs
from ubend.data.formats import image_files, read_images
from ubend.errors import FileError, InputError
from ubend.faces import demo
from ubend.faces.cli import DEMO_SCENES, app
from ubend.faces.demo import clear_earlier_demo, simulate_folders

KINDS = {"cells": "instances", "membranes": "binary", "nuclei": "instances", "landscape": "classes"}


@pytest.fixture
def small(monkeypatch):
    """Few and small images, so that a demo takes seconds."""
    for name, value in (
        ("TRAINING_IMAGES", 3), ("TEST_IMAGES", 2), ("TRAINING_SHAPE", (96, 96)), ("TEST_SHAPE", (70, 90)),
    ):  # fmt: skip
        monkeypatch.setattr(demo, name, value)


def run(*arguments):
    return CliRunner().invoke(app, ["demo", *map(str, arguments)], catch_exceptions=False)


def check(out, scene, result):
    assert result.exit_code == 0
    for words in (f"Simulated {DEMO_SCENES[scene]}", "$ ubend train", "$ ubend predict", "Over all:", "demo.png"):
        assert words in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
    [picture] = read_images(out / "demo.png")
    assert picture.pixels.shape[2] == 3
    assert len(image_files(out / "results")) == len(image_files(out / "test" / "images"))
    assert (out / "model" / "model.safetensors").is_file()


def test_a_demo_from_start_to_end(small, tmp_path):
    check(tmp_path / "demo", "membranes", run("--out", tmp_path / "demo", "--minutes", 0.02, "--sample", "membranes"))


@pytest.mark.slow
@pytest.mark.parametrize("scene", DEMO_SCENES)
def test_every_sample(scene, tmp_path):
    check(tmp_path, scene, run("--out", tmp_path, "--minutes", 0.05, "--sample", scene))


@pytest.mark.parametrize("scene", DEMO_SCENES)
def test_what_is_simulated_is_an_annotated_folder(scene, small, tmp_path):
    simulate_folders(scene, tmp_path, seed=3)
    train, test = (read_pairs(find_pairs(tmp_path / part)) for part in ("train", "test"))
    assert (len(train), len(test)) == (3, 2)
    assert infer_task([one.labels for one in [*train, *test]]).kind == KINDS[scene]
    images = [one.image for one in [*train, *test]]
    assert not any(np.array_equal(one, two) for k, one in enumerate(images) for two in images[:k])


def test_the_same_seed_simulates_the_same(small, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate_folders("nuclei", tmp_path / name, seed)
    first, second, other = (read_images(tmp_path / n / "train/images/nuclei_00.tif")[0].pixels for n in "abc")
    assert (first == second).all()
    assert (first != other).any()


def test_a_demo_again(small, tmp_path):
    """Another sample into the same folder leaves nothing of the first."""
    simulate_folders("nuclei", tmp_path, seed=0)
    (tmp_path / "demo.png").write_text("of the demo before")
    refused = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert isinstance(refused.exception, FileError)
    assert "is not empty: give --out another folder, or say --overwrite" in str(refused.exception)
    clear_earlier_demo(tmp_path, overwrite=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    simulate_folders("cells", tmp_path, seed=0)


@pytest.mark.parametrize(
    "name", ["train/images/mine.tif", "model/notes.txt", "results/x.csv", "thesis.docx", "train/a"]
)
def test_no_file_of_yours_is_ever_removed(name, small, tmp_path):
    simulate_folders("nuclei", tmp_path, seed=0)
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match=f"holds what no demo wrote, {name}: give --out another folder"):
        clear_earlier_demo(tmp_path, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_and_none_at_all_are_free(tmp_path):
    clear_earlier_demo(tmp_path, overwrite=False)
    clear_earlier_demo(tmp_path / "none", overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file is a file"):
        clear_earlier_demo(tmp_path / "file", overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sample", "cats"), "no sample 'cats': there are cells, membranes, nuclei, landscape"),
        (("--minutes", "-1"), "training takes more than 0 minutes, not -1"),
        (("--minutes", "nan"), "training takes more than 0 minutes, not nan"),
    ],
)
def test_a_mistake_leaves_nothing(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run("--out", tmp_path / "demo", *arguments)
    assert not (tmp_path / "demo").exists()

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ubend
from ubend.data.annotated import Task
from ubend.data.formats import read_images, read_labels, write_labels, write_picture
from ubend.errors import UbendError
from ubend.faces import cli
from ubend.faces.napari.files import results_reader
from ubend.method.network import UNet
from ubend.run import drift, prediction, scale, training
from ubend.run.drift import spread_of
from ubend.run.memory import tile_bytes
from ubend.run.model import Model
from ubend.run.recipe import BudgetConfig, load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trained(model, tmp_path):
    """The folder of a run."""
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "model.safetensors")
    return tmp_path / "run"


def run(*arguments):
    """Run a command that succeeds, and return what it says."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    return result.output


def fail(*arguments, capsys, monkeypatch):
    """Run a command that fails as from a shell: exit code 2, one line, no traceback; return the line."""
    monkeypatch.setattr(sys, "argv", ["ubend", *(str(argument) for argument in arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.run()
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert said.err.startswith("ubend: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.out + said.err
    assert "\x1b" not in said.out + said.err
    return said.err


@pytest.fixture
def failing(capsys, monkeypatch):
    return lambda *arguments: fail(*arguments, capsys=capsys, monkeypatch=monkeypatch)


# from start to end


def test_train_predict_evaluate(data, recipe, tmp_path):
    out = tmp_path / "a run"
    said = run("train", data, "--out", out, "--recipe", recipe, "--steps", 30, "--device", "cpu", "--seed", 1)
    assert "3 images to train on, 1 held out; 1 channel; labels: foreground and background (binary)" in said
    assert "Plan: 30 steps of 2 tiles of 64×64; width 4, depth 2, 7,500 parameters, 160 MB of memory" in said
    assert "after step 8, on held-out images: IoU 0." in said
    assert re.search(r"Trained on 3 images, 30 steps in \d+:\d\d; waited for tiles \d+\.\d% of the time\.", said), said
    assert re.search(r"Quality, of 1 held-out image:\n  score +value\n  IoU +0\.\d{4}\n  Dice +0\.\d{4}\n", said)
    assert f"ubend predict '{out}' IMAGES --out RESULTS" in said
    said = run("predict", out, data / "images", "--out", tmp_path / "results", "--probabilities")
    assert re.search(r"image +seconds\ndisc_0 +\d+\.\d\n(disc_\d +\d+\.\d\n){3}4 images +\d+\.\d\n", said)
    assert f"Wrote 4 label images into {tmp_path / 'results'}." in said
    assert "Labels: 0, 255, as in training." in said
    assert f"ubend evaluate {tmp_path / 'results'} TRUTH" in said
    assert len(list((tmp_path / "results").iterdir())) == 8
    said = run(
        "evaluate", tmp_path / "results", data, "--json", tmp_path / "scores.json", "--csv", tmp_path / "scores.csv"
    )
    assert said.startswith(f"Results: {tmp_path / 'results'}, truth: {data}\n")
    assert "Over all: IoU 0." in said
    assert "disc_3" in said
    assert "probabilities" in said
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"disc_{number}" for number in range(4)]
    assert all(0.3 < float(row["IoU"]) <= 1 for row in rows)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["kind"] == "binary"
    assert [row["name"] for row in scores["rows"]] == [f"disc_{number}" for number in range(4)]
    assert 0.3 < scores["overall"]["IoU"] <= 1


def test_train_with_folds(data, recipe, tmp_path):
    out = tmp_path / "run"
    said = run("train", data, "--out", out, "--recipe", recipe, "--steps", 15, "--device", "cpu", "--folds", 3)
    assert "4 images to train on, 0 held out" in said
    assert "4 folds of 15 steps, then the model 15 steps, on all images" in said
    assert "Of fewer than 5 images each is a fold: leave-one-out, 4 folds." in said
    assert "fold 4 of 4, on its images: IoU " in said
    assert "Over all: IoU " in said
    assert re.search(r"Trained the model itself on 4 images, 15 steps in \d+:\d\d with the folds", said)
    assert "Quality, of 4 folds (4 images, each scored by a network that has not seen it):\n" in said
    assert re.search(r"  IoU +0\.\d{4} +–\n", said) or re.search(r"  IoU +0\.\d{4}  0\.\d{4}–0\.\d{4}\n", said)
    assert re.search(r"folds\.csv +scores of each image", said)
    assert "No image was held out" not in said
    described = " ".join(run("describe", out).split())
    assert "all 4 images in 4 folds, each by a network that has not seen it" in described
    assert "95 % interval 0." in described


def test_folds_by_the_clock_say_how_the_time_is_shared(data, recipe, tmp_path):
    said = run("train", data, "-o", tmp_path / "run", "-r", recipe, "--minutes", 0.05, "--device", "cpu", "--folds", 4)
    assert "4 folds of 0.01 minutes, then the model 0.01 minutes, on all images" in said


def test_folds_that_cannot_be(data, recipe, tmp_path, failing):
    wanted = ("train", data, "-o", tmp_path / "run", "-r", recipe, "--steps", 1, "--folds")
    assert "there are at least 2 folds, not 1" in failing(*wanted, 1)
    for number in (1, 2, 3):
        (data / "images" / f"disc_{number}.tif").unlink()
        (data / "masks" / f"disc_{number}.tif").unlink()
    assert "with one image nothing would be left to train on: annotate a second image" in failing(*wanted, 2)
    assert not (tmp_path / "run").exists()


def test_a_learning_curve(data, recipe, tmp_path, failing):
    out = tmp_path / "curve"
    wanted = ("learning-curve", data, "--out", out, "-r", recipe, "--steps", 4, "--device", "cpu")
    said = run(*wanted)
    assert "4 images; labels: binary" in said
    assert (
        "4 repeats, each of which holds out 1 image and trains on 1, 2 and 3 of the others: 12 trainings of 4 " in said
    )
    assert "Training 12 of 12 100%" in said
    assert "images     IoU  95 % interval" in said
    assert " of your 4 images: IoU 0." in said or "With your 4 images: IoU 0." in said
    assert "Every point comes from trainings of 4 steps" in said
    assert sorted(path.name for path in out.iterdir()) == ["curve.csv", "curve.json", "curve.png"]
    assert json.loads((out / "curve.json").read_text())["trainings"] == 12
    rows = list(csv.DictReader((out / "curve.csv").read_text().splitlines()))
    assert [row["images"] for row in rows[:3]] == ["1", "2", "3"]
    assert "already holds curve.csv and curve.json and curve.png" in failing(*wanted)
    run(*wanted, "--overwrite")
    (data / "images" / "disc_0.tif").unlink()
    (data / "masks" / "disc_0.tif").unlink()
    line = failing("learning-curve", data, "--out", tmp_path / "new", "-r", recipe, "--steps", 1)
    assert "a learning curve takes at least 4 images, and here are 3: annotate more" in line
    assert not (tmp_path / "new").exists()


def test_rules_for_objects_are_told_and_can_be_others(data, instance_model, tmp_path):
    instance_model.save(tmp_path / "cells.safetensors")
    rules = instance_model.contract.objects
    said = run("describe", tmp_path / "cells.safetensors")
    assert f"pixels of a probability above {rules.threshold:g} (threshold); " in said
    assert f"of fewer than {rules.smallest} pixels (smallest)" in said
    image = data / "images" / "disc_0.tif"
    said = run("predict", tmp_path / "cells.safetensors", image, "--out", tmp_path / "one")
    assert "as asked for" not in said
    assert re.search(r"disc_0 +1 ", said)
    wanted = ("--threshold", 0.9, "--smallest", 9999, "--keep-holes", "--gap", 0, "--clear-border", "--split", 2,
              "--certainty", 0.95)  # fmt: skip
    said = run("predict", tmp_path / "cells.safetensors", image, "--out", tmp_path / "none", *wanted)
    assert (
        "Objects, as asked for: pixels of a probability above 0.9 (threshold); cut apart at narrow places (split 2 px)"
        "; without objects of fewer than 9999 pixels (smallest) or below 0.95 on average (certainty) or cut by the "
        "border of the image; holes kept; gaps between them kept"
    ) in said
    assert re.search(r"disc_0 +0 ", said)


def test_results_are_shown_where_they_can_be_looked_at(data, trained, instance_model, tmp_path):
    instance_model.save(tmp_path / "cells.safetensors")
    of_cells = ("predict", tmp_path / "cells.safetensors")
    said = run(*of_cells, data / "images", "--out", tmp_path / "a")
    assert "(or predict with --outlines, for pictures):\n" in said
    assert f"\n  napari --plugin ubend {tmp_path / 'a' / 'objects.csv'}\nThen, with the truth at hand:\n" in said
    said = run(*of_cells, data / "images", "--out", tmp_path / "b", "--outlines")
    assert f"Drew the outlines on the images: {tmp_path / 'b' / 'disc_0_outlines.png'} and 3 more.\n" in said
    assert "or predict with" not in said
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((2, 40, 50), np.uint8), photometric="minisblack")
    said = run(*of_cells, tmp_path / "stack.tif", "--out", tmp_path / "c")
    [table] = re.findall(r"napari --plugin ubend (.*)", said)
    assert results_reader(table) is not None  # of a stack the plugin opens one page
    said = run("predict", trained, data / "images", "--out", tmp_path / "d")
    assert "napari" not in said
    assert "Pictures to look at: predict with --outlines.\n" in said


def test_rules_for_objects_that_cannot_be(data, trained, instance_model, tmp_path, failing):
    instance_model.save(tmp_path / "cells.safetensors")
    images, out = data / "images", tmp_path / "out"
    said = failing("predict", tmp_path / "cells.safetensors", images, "--out", out, "--threshold", 1.5)
    assert "threshold is 1.5; allowed is a probability from 0 to below 1" in said
    said = failing("predict", trained, images, "--out", out, "--fill-holes", "--split", 1)
    assert "--split, --fill-holes shape single objects, and this model was trained on binary labels" in said
    assert not out.exists()


def test_by_the_clock_and_few_images(data, recipe, tmp_path):
    for number in (2, 3):
        (data / "images" / f"disc_{number}.tif").unlink()
        (data / "masks" / f"disc_{number}.tif").unlink()
    said = run("train", data, "--out", tmp_path / "run", "--recipe", recipe, "--minutes", 0.01, "--device", "cpu")
    assert "2 images to train on, 0 held out" in said
    assert "0.01 minutes" in said
    assert "its quality is unknown" in said


def test_objects(data, recipe, tmp_path):
    said = run("train", data, "-o", tmp_path / "run", "-r", recipe, "--steps", 30, "--task", "instances")
    assert "labels: single objects (instances)" in said
    said = run("predict", tmp_path / "run", data / "images" / "disc_0.tif", "-o", tmp_path / "results")
    assert "Wrote 1 label image into" in said
    assert re.search(r"image +objects +seconds\ndisc_0 +\d+ ", said)
    assert "Labels: 0 is background, 1 to n are the objects." in said


def test_objects_for_other_tools(instance_model, data, tmp_path):
    (tmp_path / "run").mkdir()
    instance_model.save(tmp_path / "run" / "model.safetensors")
    out = tmp_path / "results"
    said = run("predict", tmp_path / "run", data / "images", "-o", out, "--rois", "--geojson", "--outlines")
    assert f"Measured the objects: {out / 'objects.csv'}.\n" in said
    written = {f"disc_0{ending}" for ending in (".tif", "_objects.csv", "_rois.zip", ".geojson", "_outlines.png")}
    assert {path.name for path in out.glob("disc_0*")} == written


def test_the_table_of_one_image_is_told_once(instance_model, data, tmp_path):
    instance_model.save(tmp_path / "cells.safetensors")
    out = tmp_path / "results"
    said = run("predict", tmp_path / "cells.safetensors", data / "images" / "disc_0.tif", "-o", out)
    assert f"Measured the objects: {out / 'disc_0_objects.csv'}.\n" in said


def test_other_pixel_sizes_are_one_line(instance_model, data, tmp_path):
    images, saved = tmp_path / "images", tmp_path / "cells.safetensors"
    images.mkdir()
    Model(instance_model.network, replace(instance_model.contract, pixel_size=0.5)).save(saved)
    image = read_images(data / "images" / "disc_0.tif")[0].pixels
    for number in range(11):
        size = 0.25 if number < 5 else 0.5
        tifffile.imwrite(images / f"{number}.ome.tif", image, metadata={"PhysicalSizeX": size, "PhysicalSizeY": size})
    done = CliRunner().invoke(cli.app, ["predict", str(saved), str(images), "--out", str(tmp_path / "r")])
    assert done.stderr.splitlines() == [
        "ubend: 5 images with pixels of 0.25 µm, and the model was trained on pixels of 0.5 µm: --resample segments at "
        "that size"
    ]
    assert re.search(r"The network waited for files \d+\.\d% of the time\.", done.stdout)
    again = ["predict", str(saved), str(images / "0.ome.tif"), "--out", str(tmp_path / "s"), "--resample"]
    done = CliRunner().invoke(cli.app, again)
    assert done.exit_code == 0
    assert "--resample" not in done.stderr
    assert "waited" not in done.stdout


def test_an_ignored_label(data, recipe, tmp_path):
    truth = np.zeros((80, 96), np.uint8)
    truth[:, :20], truth[20:60, 30:60] = 9, 255
    write_labels(data / "masks" / "disc_0.tif", truth, overwrite=True)
    said = run("train", data, "-o", tmp_path / "run", "-r", recipe, "--steps", 2, "--ignore", 9)
    assert "Pixels with the label 9 count as not labelled" in said


def test_names_with_brackets_are_said_as_they_are(trained, discs, tmp_path):
    images, out = tmp_path / "[bold] images", tmp_path / "[red]results"
    images.mkdir()
    tifffile.imwrite(images / "[dim]x.tif", discs[0][0])
    assert str(out) in run("predict", trained, images, "--out", out)
    write_labels(tmp_path / "truth.tif", discs[1][0])
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth.tif").rename(tmp_path / "truth" / "[dim]x.tif")
    assert "[dim]x" in run("evaluate", out, tmp_path / "truth")


def test_what_fails_beside_what_succeeds(trained, data, tmp_path):
    (data / "images" / "broken.tif").write_text("no image")
    result = CliRunner().invoke(cli.app, ["predict", str(trained), str(data / "images"), "--out", str(tmp_path / "r")])
    assert result.exit_code == 1
    assert "Wrote 4 label images" in result.stdout
    assert "skipped broken.tif: Cannot read" in result.stderr


# describe


def test_the_paper_described():
    said = run("describe", "paper")
    for words in (
        "64·(1·3·3+1) = 640", "31,030,658 parameters in 23 convolutional layers", "572×572 → 388×388", "150.428 GMAC",
        "Halo 92 px a side", "1.36 times at 572 px", "1.07 times at 2044 px",
        "receptive field 188 or 204 px", "1024·(512·3·3+1) = 4,719,616", "Ronneberger",
    ):  # fmt: skip
        assert words in said


def test_another_size_described(failing):
    assert "188×188 → 4×4" in run("describe", "paper", "--size", 188)
    assert "the nearest sizes to 570 are 556 and 572" in failing("describe", "paper", "--size", 570)


def test_a_recipe_file_described(recipe):
    assert "16·(8·3·3) = 1,152" in run("describe", recipe)  # no bias beside a batch normalisation
    assert "Batch normalisation: " in run("describe", recipe)


def test_a_model_described(trained, model, tmp_path):
    for what in (trained, trained / "model.safetensors"):
        said = run("describe", what)
        for words in (
            f"Model {what}", "foreground and background", "0, 255", "8, rotated by quarter turns and mirrored",
            "by the averages of the training",
            "percentile 1 becomes 0, percentile 99.8 becomes 1", "not known: the training images did not say theirs",
            "uint8; darkest ", "sharpness", "3: image ", "4, a hash of the pixels and labels of each image",
            f"{model.contract.quality['IoU']:.4f}", "1 held-out image, in one view", "40 steps in ", "width 4 (16)",
            f"ubend {ubend.__version__}", "7,500 parameters", "conv_d0a-b",
        ):  # fmt: skip
            assert words in said
    assert "Object size" not in said
    assert "conv_d0a-b" not in said.split("Its layers")[0]


def test_a_model_described_for_programs(trained, model, tmp_path, failing):
    path = tmp_path / "card.json"
    assert f"Wrote {path}" in run("describe", trained, "--json", path)
    card = json.loads(path.read_text())
    assert card["format"] == "ubend-model-card"
    assert card["parameters"] == 7482
    assert card["provenance"]["images"] == model.contract.provenance["images"]
    assert card["reference"]["dtypes"] == ["uint8"]
    assert "exists already" in failing("describe", trained, "--json", path)
    run("describe", trained, "--json", path, "--overwrite")
    assert "paper is a recipe" in failing("describe", "paper", "--json", tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


def test_all_that_a_model_may_state_is_described(instance_model, tmp_path):
    reference = instance_model.contract.reference
    stated = replace(
        instance_model.contract,
        pixel_size=0.5,
        channel_names=("DAPI [1]",),
        reference=replace(reference, diameters=spread_of([10.0, 20.0])),
        provenance={"folds": {"number": 2, "of": {"a": 0, "b": 1}, "intervals": {"IoU": [0.25, 0.75]}}},
        quality={"IoU": 0.5, "Dice": 0.625},
    )
    Model(instance_model.network, stated).save(tmp_path / "model.safetensors")
    said = run("describe", tmp_path / "model.safetensors")
    for words in (
        "single objects, each with a number of its own", "1: DAPI [1]", "0.5 µm; other sizes are told",
        "10 to 20 px, median diameter of an image (5 to 10 µm)", "0.5000  95 % interval 0.2500 to 0.7500", "0.6250\n",
        "all 2 images in 2 folds, each by a network that has not seen it", "not known steps",
    ):  # fmt: skip
        assert words in said
    classes = replace(stated, task=Task("classes", (0, 7), None), class_names=("ground", "wall"))
    Model(instance_model.network, classes).save(tmp_path / "classes.safetensors")
    assert "0 ground, 7 wall" in run("describe", tmp_path / "classes.safetensors")


def test_a_model_that_states_little_is_described(model, tmp_path):
    little = replace(model.contract, reference=None, provenance={}, quality={})
    Model(model.network, little).save(tmp_path / "old.safetensors")
    said = run("describe", tmp_path / "old.safetensors")
    assert "not known: the file is older than format version 4" in said
    assert "no image was held out" in said


def test_the_card_fits_a_narrow_terminal(trained):
    environ = {**os.environ, "COLUMNS": "60", "FORCE_COLOR": "1"}
    code = "import sys; sys.stdout.isatty = lambda: True; from ubend.faces.cli import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "describe", str(trained)], env=environ, capture_output=True, text=True, check=True
    )
    card = re.sub(r"\x1b\[[\d;]*m", "", done.stdout).split("Its layers")[0]
    assert max(map(len, card.splitlines()[2:])) <= 60
    assert "\x1b[1mWhat it does" in done.stdout


# images unlike those trained on


def told(*arguments):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()


def test_what_is_unlike_is_told_once_for_a_folder(trained, data, tmp_path):
    folder = tmp_path / "unlike"
    folder.mkdir()
    image = read_images(data / "images" / "disc_0.tif")[0].pixels
    for number in range(12):
        tifffile.imwrite(folder / f"[{number}].tif", image.max() - image if number < 7 else image)
    tifffile.imwrite(folder / "wide.tif", image.astype(np.uint16))
    looks, dtype = told("predict", trained, folder, "--out", tmp_path / "r")
    assert re.match(
        r"ubend: 7 images unlike those trained on, most of all \[0\] \(drift \d+\.\d, up to 2 is alike\): ", looks
    )
    assert re.search(r"brighter \(median at \d\d % of its range, trained on \d+( to \d+)?\)", looks)
    assert looks.endswith(
        "Look at the results (--outlines); where they are wrong, annotate some of these images and train again"
    )
    assert dtype == (
        "ubend: 1 image of uint16 values, and the model was trained on uint8: a conversion may have cut values off; "
        "give images as they were recorded (the first is wide)"
    )
    assert told("predict", trained, data / "images", "--out", tmp_path / "s") == []


def test_channels_in_another_order_are_told(tmp_path):
    """The order that the names say, and the order in which they would look like those trained on."""
    rng = np.random.default_rng(0)
    blobs, noise = rng.random((2, 64, 64)), rng.normal(size=(2, 64, 64))
    blobs = 200 * (np.kron(blobs[:, ::8, ::8], np.ones((8, 8))) > 0.7) + 3 * noise
    images = [np.stack([one, rng.normal(100, 20, (64, 64))], -1).clip(0, 255).astype(np.uint8) for one in blobs]
    masks = [(image[..., 0] > 100).astype(np.uint8) for image in images]
    tiny = replace(load_recipe("default"), budget=BudgetConfig())
    tiny = replace(tiny, network=replace(tiny.network, width=2, depth=2), tiles=replace(tiny.tiles, size=32))
    model = ubend.train(images, masks, recipe=tiny, steps=1, device="cpu")
    model.contract = replace(model.contract, channel_names=("DAPI", "GFP"))
    model.save(tmp_path / "two.safetensors")
    named = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite(tmp_path / "x.ome.tif", np.moveaxis(images[0][..., ::-1], -1, 0), metadata=named)
    looks, names = told("predict", tmp_path / "two.safetensors", tmp_path / "x.ome.tif", "--out", tmp_path / "r")
    assert looks.startswith("ubend: 1 image unlike those trained on: x (drift ")
    assert looks.endswith("; with its channels in the order 2, 1 it would be like them: bring them into that order")
    assert names == (
        "ubend: 1 image whose channels are named otherwise: GFP, DAPI in x, and the model was trained on DAPI, GFP: "
        "bring them into that order"
    )


def test_objects_of_another_size_are_told(instance_model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "FEWEST_OBJECTS", 1)
    reference = replace(instance_model.contract.reference, diameters=spread_of([10.0, 15.0]))
    contract = replace(instance_model.contract, reference=reference)
    Model(instance_model.network, contract).save(tmp_path / "small.safetensors")
    [said] = told("predict", tmp_path / "small.safetensors", data / "images", "--out", tmp_path / "r")
    assert re.match(r"ubend: 4 images with objects of \d\d(\.\d)? to \d\d(\.\d)? px", said)
    assert "and those trained on have 10 to 15 px: of another magnification?" in said


def test_a_large_image_unlike_those_trained_on_is_told(big, tmp_path):
    zarr.create_array(tmp_path / "inverted.zarr", data=big.max() - big, chunks=(64, 64))
    [said] = told("predict", "RUN", "inverted.zarr", "--out", "out")
    assert said.startswith("ubend: 1 image unlike those trained on: inverted (drift ")
    assert told("predict", "RUN", "big.ome.zarr", "--out", "out") == []


# mistakes


def test_a_folder_that_is_missing(failing, data, trained, tmp_path):
    assert "There is no folder" in failing("train", tmp_path / "dat", "--out", tmp_path / "new")
    assert "the nearest name in" in failing("train", tmp_path / "dat", "--out", tmp_path / "new")
    assert "There is no folder" in failing("predict", trained, tmp_path / "imgs", "--out", tmp_path / "new")
    assert "There is no folder" in failing("evaluate", tmp_path / "results", data)
    assert not (tmp_path / "new").exists()


def test_an_empty_folder(failing, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no annotated images: it is empty" in failing("train", tmp_path / "empty", "--out", tmp_path / "new")
    assert "holds no image that can be read" in failing("predict", trained, tmp_path / "empty", "--out", tmp_path / "n")


def test_an_image_without_mask(failing, data, tmp_path):
    (data / "masks" / "disc_2.tif").unlink()
    assert "disc_2.tif" in failing("train", data, "--out", tmp_path / "new")


def test_sizes_that_differ(failing, data, tmp_path):
    write_labels(data / "masks" / "disc_2.tif", np.eye(50, dtype=int), overwrite=True)
    assert "image and labels must have the same rows and columns" in failing("train", data, "--out", tmp_path / "new")


def test_a_truncated_file(failing, data, trained, tmp_path):
    path = data / "images" / "disc_1.tif"
    path.write_bytes(path.read_bytes()[:300])
    assert "disc_1.tif: it is truncated" in failing("train", data, "--out", tmp_path / "new")


def test_a_model_that_is_none(failing, data, tmp_path):
    (tmp_path / "model").write_text("hello")
    assert "is no model file, or damaged" in failing(
        "predict", tmp_path / "model", data / "images", "-o", tmp_path / "r"
    )
    assert "no model file" in failing("predict", tmp_path / "none", data / "images", "-o", tmp_path / "r")


def test_a_model_that_is_newer(failing, data, trained, tmp_path):
    from safetensors import safe_open

    path = trained / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, "format_version": "99"})
    assert "has the format version 99" in failing("predict", trained, data / "images", "-o", tmp_path / "r")
    assert "update ubend" in failing("describe", trained)


def test_channels_that_do_not_fit(trained, tmp_path):
    (tmp_path / "rgb").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "rgb" / "a.tif", image)
    result = CliRunner().invoke(cli.app, ["predict", str(trained), str(tmp_path / "rgb"), "--out", str(tmp_path / "r")])
    assert isinstance(result.exception, UbendError)
    assert "a.tif: the image has 3 channels, the model takes 1" in str(result.exception)


def test_gray_images_of_a_model_of_colour(failing, tmp_path, discs):
    colour = [np.stack([image, image // 2, image // 3], -1) for image in discs[0]]
    tiny = replace(load_recipe("default"), budget=BudgetConfig())
    tiny = replace(tiny, network=replace(tiny.network, width=2, depth=2), tiles=replace(tiny.tiles, size=32))
    ubend.train(colour, discs[1], recipe=tiny, steps=1, device="cpu").save(tmp_path / "colour.safetensors")
    for name, image in (("gray", discs[0][0]), ("two", colour[0][..., :2])):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
        said = failing("predict", tmp_path / "colour.safetensors", tmp_path / f"{name}.tif", "--out", tmp_path / "r")
        assert re.search(r"the image has [12] channels?, the model takes 3", said)
    assert not (tmp_path / "r").exists()


def test_rois_of_a_model_without_objects(failing, data, trained, tmp_path):
    line = failing("predict", trained, data / "images", "--out", tmp_path / "r", "--rois")
    assert "this model was trained on binary labels" in line
    assert not (tmp_path / "r").exists()


def test_a_tile_too_large_for_the_memory(failing, data, trained, model, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "mixed_precision", lambda _device: None)
    monkeypatch.setattr(prediction, "free_memory", lambda _device: 2 * tile_bytes(model.contract.network, 60, views=8))
    line = failing("predict", trained, data / "images", "--out", tmp_path / "r", "--tile", 500)
    assert "--tile 60 fits" in line
    run("predict", trained, data / "images", "--out", tmp_path / "r", "--tile", 60)


def test_stated_memory(failing, data, trained, tmp_path):
    line = failing("predict", trained, data / "images" / "disc_0.tif", "--out", tmp_path / "r", "--memory", "30MB")
    assert "disc_0.tif: an image of 80×96 px does not fit 30MB: the program and the image hold " in line
    needed = line.split("--memory ")[1].split()[0]
    run("predict", trained, data / "images" / "disc_0.tif", "--out", tmp_path / "r", "--memory", needed)
    assert "'2 gigs' is no amount of memory" in failing(
        "predict", trained, data / "images", "--out", tmp_path / "n", "--memory", "2 gigs"
    )


def test_memory_that_runs_out_is_told_once(data, trained, tmp_path, monkeypatch):
    forward, calls = UNet.forward, []

    def fail_first(self, image):
        calls.append(image.shape)
        if len(calls) <= 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, image)

    monkeypatch.setattr(UNet, "forward", fail_first)
    said = run("predict", trained, data / "images", "--out", tmp_path / "r")
    assert said.count("px do not fit the memory: again with") == 1
    assert "Wrote 4 label images" in said


# verify-tiling


def test_tiles_verified(trained, data):
    said = run("verify-tiling", trained, data / "images" / "disc_0.tif", "--tile", 60, "--tile", 100)
    assert "Image of 80×96 px, compared with one piece" in said
    assert said.count("PASS") == 3
    assert "60×60" in said


def test_tiles_that_show_exit_with_1(trained, data, monkeypatch):
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda self, x: forward(self, x - x.mean()))
    image = data / "images" / "disc_0.tif"
    result = CliRunner().invoke(cli.app, ["verify-tiling", str(trained), str(image), "--tile", "60"])
    assert result.exit_code == 1
    assert result.output.count("FAIL") == 2
    assert "a label changes, or a probability by more than 1e-05" in result.output


def test_what_is_there_is_not_replaced(failing, data, recipe, trained, tmp_path):
    assert "already holds model.safetensors" in failing(
        "train", data, "--out", trained, "--recipe", recipe, "--steps", 1
    )
    run("predict", trained, data / "images", "--out", tmp_path / "results")
    before = read_labels(tmp_path / "results" / "disc_0.tif")[0].pixels
    assert "exists already" in failing("predict", trained, data / "images", "--out", tmp_path / "results")
    assert (read_labels(tmp_path / "results" / "disc_0.tif")[0].pixels == before).all()
    run("predict", trained, data / "images", "--out", tmp_path / "results", "--overwrite")
    (tmp_path / "scores.json").write_text("mine")
    assert "exists already" in failing("evaluate", tmp_path / "results", data, "--json", tmp_path / "scores.json")
    assert (tmp_path / "scores.json").read_text() == "mine"
    line = failing("evaluate", tmp_path / "results", data, "--csv", tmp_path / "x", "--json", tmp_path / "x")
    assert "cannot be both the table and the JSON" in line
    assert "There is no folder" in failing("evaluate", tmp_path / "results", data, "--csv", tmp_path / "no" / "x.csv")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (("--recipe", "papr"), "did you mean 'paper'?"),
        (("--minutes", 1, "--steps", 1), "by minutes or by steps, not both"),
        (("--minutes", 0), "more than 0 minutes"),
        (("--task", "cells"), "one of binary, classes, instances"),
        (("--device", "tpu"), "no device 'tpu' here"),
        (("--labels", "nuclei"), "nuclei"),
    ],
)
def test_a_choice_that_is_none(choice, message, failing, data, tmp_path):
    assert message in failing("train", data, "--out", tmp_path / "new", *choice)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied", "secret.tif"), MemoryError(), UbendError("two\nlines [red]with[/] tags")],
)
def test_any_error_is_one_line(error, failing, monkeypatch):
    def raise_it(**_choices):
        raise error

    monkeypatch.setattr(cli, "app", raise_it)
    line = failing()
    expected = {
        PermissionError: "secret.tif: Permission denied",
        MemoryError: "out of memory",
        UbendError: "two lines [red]",
    }
    assert expected[type(error)] in line


def test_nothing_is_scored_by_mistake(failing, data, tmp_path):
    masks = data / "masks"
    assert "the results come first, then the truth" in failing("evaluate", data, masks)
    assert "would be compared with itself" in failing("evaluate", masks, data)
    assert "is an image of" in failing("evaluate", data / "images", data)
    (tmp_path / "few").mkdir()
    for number in range(3):
        (tmp_path / "few" / f"disc_{number}.tif").write_bytes((masks / f"disc_{number}.tif").read_bytes())
    assert "has no result for disc_3: 1 of the 4 images" in failing("evaluate", tmp_path / "few", data)
    assert "for membranes, a binary task" in failing(
        "evaluate", tmp_path / "few" / "disc_0.tif", masks / "disc_0.tif", "--task", "instances", "--em2012"
    )


# a real shell


def shell(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "ubend", *(str(argument) for argument in arguments)],
        capture_output=True, text=True, check=False, encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
    )  # fmt: skip


def test_version_help_and_usage():
    version = shell("--version")
    assert (version.returncode, version.stdout.strip(), version.stderr) == (0, ubend.__version__, "")
    help_page = shell("--help")
    assert help_page.returncode == 0
    assert all(
        verb in help_page.stdout
        for verb in ("demo", "train", "predict", "evaluate", "describe", "learning-curve", "verify-tiling")
    )
    nothing = shell()
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (2, help_page.stdout, "")


def test_each_option_of_predict_is_explained_by_a_whole_sentence():
    from typer.main import get_command

    options = get_command(cli.app).commands["predict"].params
    for option in options:
        assert option.help is not None
        assert option.help[0].isalpha(), option.name
        assert len(option.help.split()) > 3, option.name


def test_a_mistake_in_a_shell(tmp_path):
    done = shell("train", tmp_path / "none", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"ubend: There is no folder {tmp_path / 'none'}")
    assert done.stderr.count("\n") == 1


def test_nothing_heavy_is_imported_for_help():
    code = "import sys, ubend.faces.cli; print(sorted({'torch', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pipe_gets_no_colours_and_whole_lines():
    done = shell("describe", "paper", COLUMNS="40", TERM="xterm-256color")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "1024·(512·3·3+1) = 4,719,616" in done.stdout


def test_a_reader_that_goes_away():
    """`ubend describe paper | head -1`."""
    with subprocess.Popen(
        [sys.executable, "-m", "ubend", "describe", "paper"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


# large images


@pytest.fixture
def big(instance_model, discs, tmp_path, monkeypatch):
    """A model and an OME-Zarr, as docs/large-images.md has them, and a small image and a TIFF in a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    instance_model.save(tmp_path / "RUN" / "model.safetensors")
    pixels = np.tile(discs[0][1], (2, 2))[:150, :140]
    zarr.create_array(tmp_path / "big.ome.zarr", data=pixels, chunks=(64, 64))
    tifffile.imwrite(tmp_path / "big.tif", pixels)
    return pixels


def test_a_zarr_goes_block_by_block(big, instance_model, tmp_path):
    said = run("predict", "RUN", "big.ome.zarr", "--out", "out", "--tile", "108")
    assert "big.ome.zarr: 150×140 px." in said
    assert re.search(r"9 blocks of \d+×\d+ px with their context\.", said)
    assert "napari --plugin napari-ome-zarr out/big.ome.zarr/labels/ubend" in said
    assert "is finished: nothing to go on with" in run("predict", "RUN", "big.ome.zarr", "--out", "out", "--resume")
    written = zarr.open_array(tmp_path / "out" / "big.ome.zarr" / "labels" / "ubend" / "0", mode="r")
    assert (written[:] == instance_model.segment(big)).all()


def test_a_folder_of_both_kinds(big, tmp_path):
    (tmp_path / "both").mkdir()
    (tmp_path / "big.ome.zarr").rename(tmp_path / "both" / "big.ome.zarr")
    write_labels(tmp_path / "both" / "small.tif", big)
    said = run("predict", "RUN", "both", "--out", "out")
    assert re.search(r"big\.ome\.zarr +\d+ +\d+\.\d\nsmall +\d+ +\d+\.\d\n2 images +\d+ +\d+\.\d\n", said)
    assert "Measured the objects: out/big_objects.csv, out/objects.csv." in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "big.ome.zarr", "big_objects.csv", "objects.csv", "small.tif", "small_objects.csv",
    ]  # fmt: skip


def test_a_tiff_that_does_not_fit_the_memory(big, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "OBJECT_BYTES", 10**9)
    assert "big.tif: 150×140 px." in run("predict", "RUN", "big.tif", "--out", "out")
    assert (tmp_path / "out" / "big.tif").is_file()


def test_missing_chunks_are_told(big, tmp_path):
    (tmp_path / "big.ome.zarr" / "c" / "1" / "0").unlink()
    assert "Chunks that are not there: 1." in run("predict", "RUN", "big.ome.zarr", "--out", "out")


def test_another_pixel_size_of_a_large_image_is_told(big, instance_model, tmp_path):
    tifffile.imwrite("big.tif", big, resolution=(1e4, 1e4), resolutionunit=3)
    contract = replace(instance_model.contract, pixel_size=0.5)
    Model(instance_model.network, contract).save(tmp_path / "RUN" / "model.safetensors", overwrite=True)
    said = run("predict", "RUN", "big.tif", "--out", "out", "--resume")
    assert "a pixel of big.tif measures 1 µm, those of the training images 0.5 µm" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--outlines",), "--rois, --geojson and --outlines are for images that fit the memory, not big.ome.zarr"),
        (("--resample",), "--resample is for images that fit the memory"),
        (("--workers", "0"), "at least 1 worker, not 0"),
        (("--workers", "2", "--scheduler", "tcp://x:1"), "say one of them"),
    ],
)
def test_what_large_images_do_not_know(options, message, big, failing):
    assert message in failing("predict", "RUN", "big.ome.zarr", "--out", "out", *options)


def test_two_images_of_one_name(big, failing, tmp_path):
    (tmp_path / "both").mkdir()
    (tmp_path / "big.ome.zarr").rename(tmp_path / "both" / "big.ome.zarr")
    write_labels(tmp_path / "both" / "big.tif", big)
    line = failing("predict", "RUN", "both", "--out", "out")
    assert "the results of big.ome.zarr and big.tif would have the same names: rename one" in line
    assert not (tmp_path / "out").exists()


def test_stopped_by_hand(big, capsys, monkeypatch):
    number, compute = iter(range(100)), scale.compute_block

    def stopped(work, block):
        if next(number) == 4:
            raise KeyboardInterrupt
        return compute(work, block)

    monkeypatch.setattr(scale, "compute_block", stopped)
    monkeypatch.setattr(sys, "argv", ["ubend", "predict", "RUN", "big.ome.zarr", "--out", "out", "--tile", "108"])
    with pytest.raises(SystemExit) as caught:
        cli.run()
    assert caught.value.code == 130
    said = capsys.readouterr().err
    assert said == "ubend: stopped; 4 of 9 blocks are kept: the same command with --resume goes on\n"
    assert "4 blocks were done before" in run("predict", "RUN", "big.ome.zarr", "--out", "out", "--resume")


def test_verify_tiling_of_a_zarr(big):
    assert "PASS" in run("verify-tiling", "RUN", "big.ome.zarr", "--tile", "108")


def test_workers_of_small_images(big, failing, tmp_path):
    write_picture(tmp_path / "small.png", [np.stack([big] * 3, axis=-1)])
    assert "holds no Zarr and no TIFF" in failing("predict", "RUN", "small.png", "--out", "out", "--workers", "2")


def test_the_commands_of_the_page_run(big):
    """Those of docs/large-images.md, word for word, but with the memory of this machine."""
    page = (ROOT / "docs" / "large-images.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^|\n)(?P<before>[^\n]*)\n```sh\n(.*?)```", page, re.DOTALL)
    commands = [line for before, block in blocks if "not run" not in before for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in commands if line.startswith("ubend ")]
    assert len(commands) >= 5
    tifffile.imwrite("image.tif", big)
    for words in commands:
        shutil.rmtree("RESULTS", ignore_errors=True)
        run(*words)


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_how_to_go_on(by, code, data, recipe, tmp_path, capsys, monkeypatch):
    step = training._step

    def stopped(state, *args, **kwargs):
        if state.step == 2:
            os.kill(os.getpid(), by)
        return step(state, *args, **kwargs)

    monkeypatch.setattr(training, "_step", stopped)
    out = tmp_path / "stopped"
    command = ["train", data, "--out", out, "--recipe", recipe, "--steps", 5]
    monkeypatch.setattr(sys, "argv", ["ubend", *(str(argument) for argument in command)])
    with pytest.raises(SystemExit) as caught:
        cli.run()
    said = capsys.readouterr().err
    assert caught.value.code == code
    assert said.count("\n") == 1
    assert "stopped after step 3 (60%)" in said
    assert "the model so far and a checkpoint: go on by the same command with --resume" in said
    monkeypatch.setattr(training, "_step", step)
    line = fail(*command, capsys=capsys, monkeypatch=monkeypatch)
    assert "stopped already holds" in line or "was stopped" in line
    said = run(*command, "--resume")
    assert "Going on after step 3 (60% of it is done)." in said
    assert "Trained on 3 images, 5 steps" in said
    assert "is done already" in run(*command, "--resume")


# the report and the preview


def test_a_run_leaves_a_report_and_it_can_be_written_anew(data, recipe, tmp_path, failing):
    out = tmp_path / "run"
    said = run("train", data, "--out", out, "--recipe", recipe, "--steps", 2, "--device", "cpu")
    assert re.search(f"{re.escape(str(out / 'report.html'))} +look at it in a browser", said)
    first = (out / "report.html").read_bytes()
    assert "exists already" in failing("report", out, data)
    said = run("report", out, data, "--images", data / "images", "--device", "cpu", "--overwrite")
    assert f"Wrote {out / 'report.html'}: look at it in a browser." in said
    assert (out / "report.html").read_bytes() != first


def test_a_report_that_is_in_the_way_is_told_before_training(data, recipe, tmp_path, failing):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").write_text("mine")
    assert "already holds report.html" in failing("train", data, "--out", tmp_path / "run", "--recipe", recipe)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report.html"]


def test_a_model_is_there_even_where_no_report_can_be(data, recipe, tmp_path, monkeypatch):
    def fails(*_arguments, **_choices):
        raise UbendError("no room for it")

    monkeypatch.setattr("ubend.faces.report.write_report", fails)
    result = CliRunner().invoke(
        cli.app, ["train", str(data), "--out", str(tmp_path / "run"), "--recipe", str(recipe), "--steps", "1"]
    )
    assert result.exit_code == 0
    assert "no report: no room for it" in result.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_preview(data, recipe, tmp_path, failing):
    said = run("preview", data, "--out", tmp_path / "one.png", "--recipe", recipe)
    assert f"Wrote {tmp_path / 'one.png'}: look at it." in said
    assert "exists already" in failing("preview", data, "--out", tmp_path / "one.png", "--recipe", recipe)
    said = run("preview", data, "--out", tmp_path / "new" / "folder", "--recipe", recipe)
    assert "and 3 more: look at them.\nNext:\n  ubend train" in said
    assert len(list((tmp_path / "new" / "folder").glob("disc_?_preview.png"))) == 4


def test_who_says_what_labels_mean_is_not_stopped_by_the_doctor(tmp_path, recipe, failing):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for k in range(3):
        mask = (rng.random((80, 80)) < 0.5).astype(np.uint8)
        for part in ("images", "masks"):
            write_labels(tmp_path / "data" / part / f"{k}.tif", mask)
    command = ["train", tmp_path / "data", "--out", tmp_path / "run", "--recipe", recipe, "--steps", 1]
    assert "or say by --task that the labels are right" in failing(*command)
    assert "--task says what the labels mean, so training goes on" in run(*command, "--task", "binary")


def test_a_preview_replaces_only_a_preview(data, recipe, tmp_path, failing):
    mask = tmp_path / "mine.png"
    mask.write_bytes(b"drawn by hand")
    assert "is no picture that ubend drew" in failing("preview", data, "--out", mask, "--recipe", recipe, "--overwrite")
    assert "is no picture that ubend drew" in failing("check", data, "--picture", mask, "--overwrite")
    assert mask.read_bytes() == b"drawn by hand"
    for _ in range(2):
        run("preview", data, "--out", tmp_path / "one.png", "--recipe", recipe, "--overwrite")
    for _ in range(2):
        run("check", data, "--picture", tmp_path / "sheet.png", "--overwrite")

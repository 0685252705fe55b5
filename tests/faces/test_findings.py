"""`ubend check` on a terminal, as JSON and as a picture; and what `ubend train` says of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import ubend
from ubend.data.doctor import check
from ubend.data.findings import Finding
from ubend.data.formats import read_images
from ubend.faces import cli
from ubend.faces.findings import save_contact_sheet, summary
from ubend.run.recipe import to_toml


@pytest.fixture
def data(tmp_path):
    """Four images without fault."""
    for k in range(4):
        sample = ubend.simulate("nuclei", np.random.default_rng(k), (128, 128))
        for part, pixels in (("images", sample.image), ("masks", sample.labels)):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "data" / part / f"a{k}.tif", pixels)
    return tmp_path / "data"


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "\x1b" not in result.output
    return result.output


def spoil(data, k, part="masks"):
    """Make labels the image itself, or an image blank."""
    path = data / part / f"a{k}.tif"
    other = tifffile.imread(data / "images" / f"a{k}.tif")
    tifffile.imwrite(path, other if part == "masks" else np.zeros_like(other))


def empty(data, k):
    tifffile.imwrite(data / "masks" / f"a{k}.tif", np.zeros((128, 128), np.uint8))


def test_nothing_wrong(data):
    said = run("check", data)
    assert f"{data}, 4 images; labels: single objects (instances): nothing found to be wrong" in said
    assert said.endswith(
        f"Next, look at what training makes of them:\n  ubend preview {data} --out preview.png\n"
        f"Then, a model:\n  ubend train {data} --out RUN --minutes 10\n"
    )


def test_warnings_do_not_fail(data):
    empty(data, 1)
    said = run("check", data, "--task", "instances")
    assert "Warning  Images whose labels are empty\n  masks/a1.tif\n  Why it matters: The network learns" in said
    assert "\n  What to do: If there are cells, label them" in said
    assert "1 warning" in said
    assert said.endswith(f"warnings do not stop it:\n  ubend train {data} --task instances --out RUN --minutes 10\n")


def test_errors_fail(data):
    for k in range(4):
        spoil(data, k)
    said = run("check", data, code=1)
    assert (
        "Error  The labels are the image itself\n  masks/a0.tif\n  masks/a1.tif\n  masks/a2.tif; and 1 more\n" in said
    )
    assert said.endswith(f"1 error\nNext, mend the errors, then again:\n  ubend check {data}\n")
    assert max(map(len, said.splitlines())) < 250


def test_wrong_use(data, capsys, monkeypatch):
    for arguments in (("none",), ("--task", "cells", str(data))):
        monkeypatch.setattr(sys, "argv", ["ubend", "check", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.run()
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_json_into_a_file_or_printed(data, tmp_path):
    empty(data, 1)
    said = run("check", data, "--json", tmp_path / "found.json")
    assert f"Wrote {tmp_path / 'found.json'}" in said
    written = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert written == check(data).to_dict()
    assert json.loads(run("check", data, "--json", "-")) == written
    assert isinstance(
        CliRunner().invoke(cli.app, ["check", str(data), "--json", str(tmp_path / "found.json")]).exception, OSError
    )


def test_a_picture_of_the_worst(data, tmp_path):
    spoil(data, 0)
    spoil(data, 1, "images")
    tifffile.imwrite(data / "masks" / "a2.tif", np.zeros((60, 50), np.uint8))
    said = run("check", data, "--picture", tmp_path / "worst.png", code=1)
    assert f"Wrote {tmp_path / 'worst.png'}: look at it" in said
    [picture] = read_images(tmp_path / "worst.png")
    assert picture.pixels.ndim == 3


def test_what_is_wrong_stands_whole_over_its_picture(data, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda _axis, said, **_how: titles.append(said))
    empty(data, 1)
    report = check(data)
    said = "One label covers what look like several cells, and this goes on for more than a line holds"
    monkeypatch.setattr(Finding, "fault", replace(report.warnings[0].fault, what=said))
    assert save_contact_sheet(tmp_path / "a.png", report) == 1
    lines = titles[0].split("\n")
    assert " ".join(lines) == f"a1.tif: {said}"
    assert max(map(len, lines)) <= 60


def test_no_picture_of_nothing(data, tmp_path):
    assert "No picture: there is nothing to show" in run("check", data, "--picture", tmp_path / "worst.png")
    assert not (tmp_path / "worst.png").exists()


def test_a_picture_has_each_fault_before_more_of_one(data, tmp_path):
    for k in (0, 1, 2):
        empty(data, k)
    (data / "images" / "a3.tif").write_bytes(b"no image")
    assert save_contact_sheet(tmp_path / "worst.png", check(data)) == 4


def test_the_summary(data):
    assert summary(check(data)) == "nothing found to be wrong"
    empty(data, 1)
    spoil(data, 2)
    spoil(data, 3)
    assert summary(check(data)) == "1 error, 1 warning"


@pytest.fixture
def recipe(tiny, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(tiny), encoding="utf-8")
    return path


def test_training_tells_of_warnings_and_goes_on(data, recipe, tmp_path):
    empty(data, 1)
    said = run("train", data, "--out", tmp_path / "run", "--recipe", recipe, "--steps", 1, "--device", "cpu")
    assert said.startswith("Warning  Images whose labels are empty: masks/a1.tif\n")
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_training_stops_at_errors(data, recipe, tmp_path, capsys, monkeypatch):
    spoil(data, 1)
    command = ["ubend", "train", str(data), "--out", str(tmp_path / "run"), "--recipe", str(recipe), "--steps", "1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        cli.run()
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert "Error  The labels are the image itself" in said.out
    assert said.err.startswith("ubend: The labels are the image itself: mend ")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()

"""What reaches a pipe, what a terminal shows, and the time that is left."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME
from typer.testing import CliRunner

from ubend.data.formats import write_labels
from ubend.faces import cli, terminal
from ubend.faces.terminal import Estimate, Lines, duration

ESCAPE = "\x1b"


@pytest.fixture
def saved(instance_model, tmp_path):
    """A model file."""
    instance_model.save(tmp_path / "cells.safetensors")
    return tmp_path / "cells.safetensors"


def invoke(*arguments):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


# lines in place of a bar


def lines_of(*told):
    """The lines that come of (seconds, share) one after the other."""
    put, now = [], [0.0]
    lines = Lines(put.append, now=lambda: now[0])
    for seconds, share in told:
        now[0] = seconds
        lines.tell("Training", share, "x", None)
    return [float(line.split("%")[0].split()[-1]) for line in put]


def test_a_line_each_tenth():
    assert lines_of(*((40 * k, k / 40) for k in range(41))) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


def test_a_quick_job_has_a_first_and_a_last_line():
    assert lines_of(*((k / 1000, k / 100) for k in range(101))) == [0, 100]


def test_no_ten_minutes_without_a_line():
    told = lines_of(*((60 * k, k / 10_000) for k in range(101)))
    assert len(told) == 11


def test_another_job_begins_anew():
    assert lines_of((0, 0.0), (9, 1.0), (18, 0.25), (27, 1.0)) == [0, 100, 25, 100]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (36_001, "10:00:01")])
def test_times(seconds, shown):
    assert duration(seconds) == shown


# the time that is left


def test_the_time_left_follows_from_what_is_done():
    now = [0.0]
    estimate = Estimate(now=lambda: now[0])
    assert estimate.left("a", 0.0) is None
    now[0] = 0.5
    assert estimate.left("a", 0.5) is None  # too early to tell
    now[0] = 10.0
    assert estimate.left("a", 0.25) == 30.0
    assert estimate.left("a", 1.0) == 0.0
    assert estimate.left("b", 0.0) is None  # another job
    now[0] = 15.0
    assert estimate.left("b", 0.5) == 5.0


# colours and lines


@pytest.mark.parametrize("style", [terminal.ERROR, terminal.WARNING, terminal.NOTE, terminal.DONE, terminal.LEFT])
def test_colours_are_read_on_white_and_on_black(style):
    triplet = Style.parse(style).color.get_truecolor(SVG_EXPORT_THEME)
    linear = [((part / 255 + 0.055) / 1.055) ** 2.4 for part in triplet]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) > 3
    assert (luminance + 0.05) / 0.05 > 3


def test_a_warning_is_broken_between_words(monkeypatch):
    wide = io.StringIO()
    monkeypatch.setattr(terminal, "problems", Console(file=wide, width=40, force_terminal=True, color_system=None))
    terminal.warn("stopped after step 300: the same command with --resume goes on")
    assert wide.getvalue() == "ubend: stopped after step 300: the same \ncommand with --resume goes on\n"


# a pipe


def piped(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "ubend", *map(str, arguments)], capture_output=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("environment", [{"FORCE_COLOR": "1"}, {"TERM": "xterm-256color", "GITHUB_ACTIONS": "1"}])
@pytest.mark.parametrize("arguments", [("describe", "paper"), ("--help",), ("train", "--help"), ("train", "none")])
def test_no_escape_code_reaches_a_pipe(arguments, environment):
    done = piped(*arguments, **environment)
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr


def test_no_verb_is_cut_off_in_the_list():
    _, verbs = piped("--help", COLUMNS="80").stdout.decode().split("Commands:")
    assert re.search(r"\n  check +Say what is wrong with a data set, and how to mend it\.\n", verbs)
    assert "..." not in verbs


def test_characters_that_a_pipe_does_not_know_stop_nothing():
    done = piped("describe", "paper", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"1024?(512?3?3+1) = 4,719,616" in done.stdout


# a terminal


def on_a_terminal(*arguments, columns, **environment):
    """What a command writes on a pseudo-terminal."""
    main, other = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "ubend", *map(str, arguments)], stdout=other, stderr=other, env=environ
    ) as process:
        os.close(other)
        said = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:
                break
            if not chunk:
                break
            said += chunk
    os.close(main)
    assert process.returncode == 0, said
    return said.decode()


def without_codes(text):
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("columns", [60, 120])
def test_a_bar_keeps_to_its_line(columns, data):
    said = on_a_terminal("check", data, columns=columns)
    assert "\x1b[?25l" in said  # a bar hides the cursor
    drawn = [line for line in re.split(r"[\r\n]", without_codes(said)) if "Looking" in line]
    assert drawn
    assert max(map(len, drawn)) <= columns
    assert any("━━━━" in line for line in drawn)


def test_no_colour_where_none_is_wanted(data):
    colour = r"\x1b\[[\d;]*3\d"
    assert re.search(colour, on_a_terminal("check", data, columns=100))
    plain = on_a_terminal("check", data, columns=100, NO_COLOR="1")
    assert not re.search(colour, plain)


def test_a_dumb_terminal_gets_lines(data):
    said = on_a_terminal("check", data, columns=100, TERM="dumb")
    assert ESCAPE not in said
    assert "Looking 100%" in said


def test_a_warning_is_not_written_into_a_bar(monkeypatch):
    """It goes through the console that draws the bar, which makes room for it."""
    printed = []

    class Bar:
        class console:
            @staticmethod
            def print(line, **_choices):
                printed.append(line)

    monkeypatch.setattr(terminal, "_drawn", [Bar])
    monkeypatch.setattr(terminal.problems, "_force_terminal", True)
    terminal.warn("two\nlines")
    assert printed == [f"[{terminal.WARNING}]ubend:[/] two lines"]


# --quiet


def test_quiet_training(data, recipe, tmp_path):
    out = tmp_path / "run"
    done = invoke("train", data, "--out", out, "-r", recipe, "--steps", 2, "--device", "cpu", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "recipe.toml", "log.csv", "report.html"}


def test_quiet_verbs(data, saved, recipe, tmp_path):
    images, out = data / "images", tmp_path / "results"
    for command in (
        ("check", data),
        ("preview", data, "--out", tmp_path / "p.png", "-r", recipe),
        ("predict", saved, images, "--out", out),
        ("evaluate", out, data, "--task", "instances"),
        ("verify-tiling", saved, images / "disc_0.tif", "--tile", 60),
    ):
        done = invoke(*command, "--quiet")
        assert (done.stdout, done.stderr) == ("", ""), command
    assert invoke("describe", saved).stdout  # the next command speaks again


def test_quiet_does_not_hide_what_went_wrong(saved, data, tmp_path):
    image = tifffile.imread(data / "images" / "disc_0.tif")
    tifffile.imwrite(tmp_path / "wide.tif", image.astype(np.uint16))
    done = invoke("predict", saved, tmp_path / "wide.tif", "--out", tmp_path / "r", "-q")
    assert done.stdout == ""
    assert "1 image of uint16 values" in done.stderr
    done = CliRunner().invoke(
        cli.app, ["predict", str(saved), str(tmp_path / "none"), "--out", str(tmp_path / "r"), "-q"]
    )
    assert "There is no folder" in str(done.exception)


# --json


def test_training_for_programs(data, recipe, tmp_path):
    out, file = tmp_path / "run", tmp_path / "run.json"
    run = ("train", data, "--out", out, "-r", recipe, "--steps", 2, "--device", "cpu")
    assert f"Wrote {file}" in invoke(*run, "--json", file).stdout
    found = json.loads(file.read_text())
    assert list(found) == [
        "format", "format_version", "run", "task", "values", "images", "held_out", "steps", "seconds", "waited",
        "quality_of", "quality", "intervals", "files",
    ]  # fmt: skip
    assert (found["format"], found["format_version"]) == ("ubend-training", 1)
    assert (found["task"], found["values"], found["images"], found["held_out"]) == ("binary", [0, 255], 3, 1)
    assert (found["steps"], found["quality_of"]) == (2, "held-out images")
    assert set(found["quality"]) == {"IoU", "Dice", "precision", "recall"} or "IoU" in found["quality"]
    assert found["files"] == {
        what: str(out / name)
        for what, name in (
            ("model", "model.safetensors"),
            ("recipe", "recipe.toml"),
            ("log", "log.csv"),
            ("report", "report.html"),
        )
    }
    assert 0 < found["seconds"] < 600
    again = json.loads(invoke(*run, "--resume", "--json", "-").stdout)
    assert (again["quality"], again["waited"]) == (found["quality"], None)


def test_prediction_for_programs(data, saved, tmp_path):
    (data / "images" / "broken.tif").write_text("no image")
    image = tifffile.imread(data / "images" / "disc_0.tif")
    tifffile.imwrite(data / "images" / "wide.tif", image.astype(np.uint16))
    result = CliRunner().invoke(
        cli.app, ["predict", str(saved), str(data / "images"), "--out", str(tmp_path / "r"), "--json", "-"]
    )
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert list(found) == [
        "format", "format_version", "out", "task", "seconds", "objects", "images", "failed", "tables"
    ]  # fmt: skip
    assert (found["format"], found["format_version"], found["task"]) == ("ubend-prediction", 1, "instances")
    assert [row["name"] for row in found["images"]] == ["disc_0", "disc_1", "disc_2", "disc_3", "wide"]
    first = found["images"][0]
    assert list(first) == ["name", "labels", "objects", "seconds", "warnings"]
    assert (first["labels"], first["objects"], first["warnings"]) == (str(tmp_path / "r" / "disc_0.tif"), 1, [])
    assert 0 < first["seconds"] < 60
    assert "dtype" in found["images"][-1]["warnings"]
    assert found["objects"] == sum(row["objects"] for row in found["images"])
    assert [row["file"] for row in found["failed"]] == ["broken.tif"]
    assert found["tables"] == [str(tmp_path / "r" / "objects.csv")]


def test_verification_for_programs(data, saved):
    done = invoke("verify-tiling", saved, data / "images" / "disc_0.tif", "--tile", 60, "--json", "-")
    found = json.loads(done.stdout)
    assert (found["format"], found["passed"], found["shape"]) == ("ubend-verification", True, [80, 96])
    assert found["reference"]["tiles"] == 1
    [check] = found["checks"]
    assert list(check) == ["tile", "tiles", "difference", "changed", "passed"]
    assert check["difference"] <= found["tolerance"]


def test_the_other_verbs_print_json_alone(data, saved, recipe, tmp_path):
    invoke("predict", saved, data / "images", "--out", tmp_path / "r", "-q")
    for command, form in (
        (("check", data), None),
        (("evaluate", tmp_path / "r", data, "--task", "instances"), "ubend-scores"),
        (("describe", saved), "ubend-model-card"),
        (
            ("learning-curve", data, "--out", tmp_path / "c", "-r", recipe, "--steps", 1, "--repeats", 2),
            "ubend-learning-curve",
        ),
    ):
        done = invoke(*command, "--json", "-")
        assert json.loads(done.stdout).get("format") == form


def test_what_is_there_is_told_before_anything_is_computed(data, saved, tmp_path):
    (tmp_path / "x.json").write_text("mine")
    result = CliRunner().invoke(
        cli.app,
        ["predict", str(saved), str(data / "images"), "-o", str(tmp_path / "r"), "--json", str(tmp_path / "x.json")],
    )
    assert "x.json exists already" in str(result.exception)
    assert not (tmp_path / "r").exists()


# tables


def test_many_images_are_ten_rows_and_a_sum(data, saved, tmp_path):
    image = tifffile.imread(data / "images" / "disc_0.tif")
    (tmp_path / "many").mkdir()
    for number in range(12):
        tifffile.imwrite(tmp_path / "many" / f"{number:02d}.tif", image)
    said = invoke("predict", saved, tmp_path / "many", "--out", tmp_path / "r").stdout
    assert [row for row in said.splitlines() if re.match(r"\d\d +1 +\d+\.\d", row)][-1].startswith("09 ")
    assert re.search(r"and 2 more *\n12 images +12 +\d+\.\d", said)


def test_classes_have_a_row_each(recipe, tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for k in range(4):
        labels = np.repeat(np.repeat(rng.integers(0, 3, (5, 6)), 16, 0), 16, 1).astype(np.uint8)
        write_labels(tmp_path / "data" / "masks" / f"{k}.tif", labels)
        tifffile.imwrite(
            tmp_path / "data" / "images" / f"{k}.tif", (60 * labels + rng.normal(20, 3, labels.shape)).astype(np.uint8)
        )
    said = invoke(
        "train", tmp_path / "data", "--out", tmp_path / "run", "-r", recipe, "--steps", 20, "--device", "cpu"
    ).stdout
    assert re.search(r"  mean IoU +0\.\d{4}\n", said)
    assert re.search(r"  class +IoU +Dice\n(  [012] +0\.\d{4}  0\.\d{4}\n){3}", said)


def test_the_clock_of_a_bar_goes_on(monkeypatch):
    column = terminal._TimeLeft()
    now = [100.0]
    monkeypatch.setattr(terminal, "perf_counter", lambda: now[0])

    class Task:
        fields = {"end": 165.0}  # noqa: RUF012

    assert str(column.render(Task)) == "1:05 left"
    now[0] = 160.0
    assert str(column.render(Task)) == "0:05 left"
    now[0] = 170.0
    assert str(column.render(Task)) == "0:00 left"

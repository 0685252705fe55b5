"""Completion in a shell, and a wrong command line in one line."""

import os
import subprocess
import sys
from typing import get_args

import pytest

from ubend.data.annotated import Kind
from ubend.data.simulated import SCENES
from ubend.faces import cli, options
from ubend.run.recipe import RECIPES


def test_what_is_completed_is_what_there_is():
    assert set(RECIPES) <= set(options.recipes())
    assert [name for name, _ in options.tasks()] == list(get_args(Kind))
    assert {name for name, _ in options.scenes()} == set(SCENES)


def complete(**environment):
    """What the program answers to a shell, as its completion script asks it."""
    code = "import sys; sys.argv[0] = 'ubend'; from ubend.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def bash(line):
    words = line.split(" ")
    said = complete(_UBEND_COMPLETE="complete_bash", COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1))
    return said.split()


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("ubend tr", ["train"]),
        ("ubend train DATA --task i", ["instances"]),
        ("ubend train DATA --recipe ", ["default", "paper"]),
        ("ubend predict RUN IMAGES --device c", ["cpu", "cuda"]),
        ("ubend export RUN --to ", ["onnx", "bioimageio"]),
        ("ubend demo --sample n", ["nuclei"]),
        ("ubend predict --qu", ["--quiet"]),
    ],
)
def test_bash_completes(line, completed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no recipe
    assert bash(line) == completed


def test_recipes_here_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").touch()
    assert bash("ubend train DATA --recipe m") == ["mine.toml"]


def test_zsh_and_fish_complete_with_what_it_means():
    asked = "ubend train DATA --task "
    said = complete(_UBEND_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=asked)
    assert '"binary":"foreground and background"' in said
    said = complete(_UBEND_COMPLETE="complete_fish", _TYPER_COMPLETE_ARGS=asked, _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert "binary\tforeground and background\n" in said


def test_a_completion_imports_nothing_heavy():
    code = (
        "import sys, atexit; sys.argv[0] = 'ubend'\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "from ubend.__main__ import main; main()"
    )
    asked = {"_UBEND_COMPLETE": "complete_bash", "COMP_WORDS": "ubend train --recipe ", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "no such command 'trian'. Did you mean 'train'?"),
        ("xyz", "no such command 'xyz'; there are demo, train, check, predict, evaluate, "),
        ("train", "train needs DATA: `ubend train DATA --out OUT`; `ubend train --help` says all"),
        ("train data", "train needs --out OUT: `ubend train DATA --out OUT`; "),
        ("train data --minuts 3 --out x", "train knows no option --minuts: did you mean --minutes?"),
        ("train data --zzz", "train knows no option --zzz; `ubend train --help` says all"),
        ("train data --out", "'--out' requires an argument"),
        ("train data more --out x", "unexpected extra argument"),
        ("demo --seed -1", "invalid value for '--seed'"),
        ("train data --out x --minutes soon", "invalid value for '--minutes'"),
    ],
)
def test_a_wrong_command_line_is_one_line(line, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ubend", *line.split()])
    with pytest.raises(SystemExit) as caught:
        cli.run()
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert said.out == ""
    assert said.err.startswith("ubend: ")
    assert said.err.count("\n") == 1
    assert message in said.err


def test_a_bug_shows_where_it_is(monkeypatch):
    def bug(**_choices):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", bug)
    with pytest.raises(ZeroDivisionError):
        cli.run()

"""The names that users import, and what importing them costs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ubend

HEAVY = {"torch", "numpy", "scipy", "skimage", "matplotlib", "tifffile", "PIL", "safetensors"}


def modules_loaded_by(*command: str) -> set[str]:
    """Names of all modules that a fresh interpreter imports while it runs a command that succeeds."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True)
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_the_list_of_names_is_sorted_and_complete():
    assert ubend.__all__ == sorted(ubend.__all__)
    assert set(ubend.__all__) == {*ubend._HOME, "scores"}
    assert dir(ubend) == sorted([*ubend.__all__, "__version__"])


@pytest.mark.parametrize("name", ubend.__all__)
def test_each_name_comes_from_its_home_and_says_what_it_is(name):
    thing = getattr(ubend, name)
    home = "ubend" if name == "scores" else ubend._HOME[name]
    assert thing is getattr(importlib.import_module(home), name)
    assert thing.__doc__


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(ubend.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {entry.asname: f"{node.module}.{entry.name}" for node in block.body for entry in node.names}
    assert seen == {"scores": "ubend.scores", **{name: f"{home}.{name}" for name, home in ubend._HOME.items()}}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ubend' has no attribute 'unet'"):
        _ = ubend.unet


def test_the_package_is_typed():
    assert Path(ubend.__file__).with_name("py.typed").is_file()


def test_importing_the_package_loads_nothing_heavy():
    loaded = modules_loaded_by("-c", "import ubend")
    assert "ubend" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("verb", [[], ["train"], ["predict"]], ids=["ubend", "train", "predict"])
def test_help_loads_nothing_heavy(verb):
    loaded = modules_loaded_by("-m", "ubend", *verb, "--help")
    assert "ubend.faces.cli" in loaded
    assert loaded & HEAVY == set()

"""What the tests of the command line share: a folder and a recipe, as a user has them."""

import pytest

from ubend.run.recipe import to_toml


@pytest.fixture
def data(discs, write_folder):
    """An annotated folder."""
    return write_folder(*discs)


@pytest.fixture
def recipe(tiny, tmp_path):
    """A recipe file whose steps take milliseconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(tiny), encoding="utf-8")
    return path

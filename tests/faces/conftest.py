"""What the tests of the command line share: a folder and a recipe, as a user has them."""

import pytest

from ubend.data.formats import write_labels
from ubend.run.recipe import to_toml


@pytest.fixture
def data(discs, tmp_path):
    """An annotated folder."""
    for part, arrays in zip(("images", "masks"), discs, strict=True):
        (tmp_path / "data" / part).mkdir(parents=True)
        for number, array in enumerate(arrays):
            write_labels(tmp_path / "data" / part / f"disc_{number}.tif", array)
    return tmp_path / "data"


@pytest.fixture
def recipe(tiny, tmp_path):
    """A recipe file whose steps take milliseconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(tiny), encoding="utf-8")
    return path

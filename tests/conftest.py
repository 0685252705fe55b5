"""What many tests share: images that are learnt in seconds, and a recipe for them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings

from ubend.data.formats import write_labels
from ubend.data.tiles import TileConfig
from ubend.method.network import NetworkConfig
from ubend.run.recipe import OptimiserConfig, Recipe
from ubend.run.training import train

settings.register_profile("no clock", deadline=None)  # a busy machine is no fault
settings.load_profile("no clock")

TINY = Recipe(
    network=NetworkConfig(width=4, depth=2, padding="same", normalisation="batch", dropout=0.0),
    tiles=TileConfig(size=64, batch=2),
    optimiser=OptimiserConfig(learning_rate=5e-3),
)


def disc(number, shape=(80, 96)):
    """A bright disc on a dark ground, and its mask of 0 and 255."""
    rng = np.random.default_rng(number)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    mask = (rows - shape[0] / 2 - 3 * number) ** 2 + (columns - shape[1] / 2) ** 2 < 20**2
    return (40 + 120 * mask + rng.normal(0, 10, shape)).astype(np.uint8), mask.astype(np.uint8) * 255


@pytest.fixture(scope="session")
def tiny():
    """A recipe whose steps take milliseconds."""
    return TINY


@pytest.fixture(scope="session")
def discs():
    """Four images, and their masks."""
    pairs = [disc(number) for number in range(4)]
    return [image for image, _ in pairs], [mask for _, mask in pairs]


@pytest.fixture
def write_folder(tmp_path):
    """Write images and masks as a user has them; returns the folder."""

    def write(images, masks):
        for part, arrays in (("images", images), ("masks", masks)):
            (tmp_path / "data" / part).mkdir(parents=True)
            for number, array in enumerate(arrays):
                write_labels(tmp_path / "data" / part / f"disc_{number}.tif", array)
        return tmp_path / "data"

    return write


@pytest.fixture(scope="session")
def model(discs):
    """A model that has learnt the discs; not to be changed."""
    return train(*discs, recipe=replace(TINY, energy=replace(TINY.energy, w0=0.0)), steps=40, device="cpu")


@pytest.fixture(scope="session")
def instance_model(discs):
    """The same for single objects."""
    images, masks = discs
    return train(images, [mask // 255 for mask in masks], recipe=TINY, task="instances", steps=40, device="cpu")

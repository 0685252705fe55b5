import numpy as np
import pytest

from ubend.errors import InputError
from ubend.run import verification
from ubend.run.verification import TOLERANCE, TileCheck, verify_tiling


@pytest.fixture(scope="module")
def image():
    return disc((80, 55))


def disc(shape):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < 20**2
    noise = np.random.default_rng(0).normal(0, 10, shape)
    return (40 + 120 * inside + noise).astype(np.uint8)


def test_tiles_pass(model, instance_model, image):
    for one in (model, instance_model):
        told = []
        found = verify_tiling(one, image, on_tile=lambda *done: told.append(done))  # noqa: B023
        assert found.passed
        assert found.whole
        assert found.shape == (80, 55)
        assert found.reference == TileCheck(120, (120, 96), 1, 0.0, 0)
        assert [check.tile for check in found.checks] == [48, 72, 96]
        assert all(0 <= check.difference <= TOLERANCE for check in found.checks)
        assert found.checks[0].tiles > found.checks[1].tiles > 1
        assert told == [(number, 4) for number in range(1, 5)]


def test_tiles_asked_for(model, image):
    found = verify_tiling(model, image, tiles=[60, 500])  # 500 is one piece, as the reference is
    assert [(check.tile, check.shape) for check in found.checks] == [(60, (60, 60))]


def test_tiles_that_show_fail(model, image, monkeypatch):
    """A network that sees the mean of its tile, as instance normalisation would."""
    forward = type(model.predictor).forward
    monkeypatch.setattr(type(model.predictor), "forward", lambda self, x: forward(self, x - x.mean()))
    found = verify_tiling(model, image, tiles=[60])
    assert not found.passed
    assert max(check.difference for check in found.checks) > 1e-2
    assert any(check.changed for check in found.checks)


@pytest.mark.parametrize(("difference", "changed", "passed"), [
    (0.0, 0, True), (TOLERANCE, 0, True), (2 * TOLERANCE, 0, False), (0.0, 1, False)
])  # fmt: skip
def test_when_a_tile_passes(difference, changed, passed):
    assert TileCheck(60, (60, 60), 4, difference, changed).passed is passed


def test_an_image_of_one_tile(model):
    with pytest.raises(
        InputError, match="an image of 3×4 px is one tile whatever the size: give one of more than 4 px"
    ):
        verify_tiling(model, np.eye(3, 4))


def test_a_tile_that_is_too_small(model, image):
    with pytest.raises(InputError, match="a tile of 20 px is too small for this network; the smallest is 44"):
        verify_tiling(model, image, tiles=[20])


def test_little_memory_compares_with_the_largest_tile_that_fits(model, image, monkeypatch):
    monkeypatch.setattr(verification, "choose_tile", lambda *_args, **_kwargs: 72)
    found = verify_tiling(model, image)
    assert found.passed
    assert not found.whole
    assert found.reference.tile == 72

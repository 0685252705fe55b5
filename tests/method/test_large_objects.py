"""Objects in blocks against objects in memory."""

import tracemalloc

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ubend.errors import InputError
from ubend.method import large_objects
from ubend.method.large_objects import objects_in_blocks
from ubend.method.objects import ObjectRules, foreground_to_objects

RULES = st.builds(
    ObjectRules,
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    split=st.sampled_from([0.0, 0.02, 0.3, 0.75]),
    smallest=st.sampled_from([0, 3, 12]),
    certainty=st.sampled_from([0.0, 0.6, 0.8]),
    fill_holes=st.booleans(),
    gap=st.integers(0, 2),
    clear_border=st.booleans(),
)


def in_blocks(foreground, rules, block, distance=None, parting=1024):
    """Objects and their number; `out` begins with anything."""
    out = np.random.default_rng(0).integers(0, 2**32, foreground.shape, dtype=np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_objects, "_PARTING", parting)
        count = objects_in_blocks(foreground, rules, out, distance=distance, block=block)
    return out, count


def compare(foreground, rules, block, distance=None, parting=1024):
    """Blocks change no number of any pixel."""
    expected = foreground_to_objects(foreground, rules, distance=distance)
    found, count = in_blocks(foreground, rules, block, distance, parting)
    np.testing.assert_array_equal(found, expected)
    assert count == expected.max()
    return found


def noise(rng, shape, scale):
    """From 0 to 1; of scale 0 a speck on every other pixel."""
    values = ndimage.gaussian_filter(rng.random(shape), scale)
    return (values - values.min()) / max(np.ptp(values), 1e-9)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 35), st.integers(1, 35)),
    scale=st.sampled_from([0, 0.7, 1.5, 3]),
    kind=st.sampled_from(["bodies", "snakes", "nets"]),
    rules=RULES,
    block=st.sampled_from([3, 7, 12, 20, 100]),
    parting=st.sampled_from([3, 1024]),
    learned=st.booleans(),
)
def test_blocks_change_nothing(seed, shape, scale, kind, rules, block, parting, learned):
    rng = np.random.default_rng(seed)
    foreground = noise(rng, shape, scale).astype(rng.choice([np.float16, np.float32, np.float64]))
    if kind != "bodies":  # a line where the noise is in the middle, or all but that
        ridge = np.abs(foreground - 0.5) * 2
        foreground = ridge if kind == "nets" else 1 - ridge
    distance = noise(rng, shape, 1) if learned else None
    compare(foreground, rules, block, distance, parting)


def spiral(side):
    """A line one pixel thin with a gap of one, from the corner to the middle."""
    image, (row, column), (down, right) = np.zeros((side, side), bool), (0, 0), (0, 1)
    image[0, 0] = True
    for length in [side - 1, *np.repeat(np.arange(side - 1, 0, -2), 2)]:
        for _ in range(length):
            row, column = row + down, column + right
            image[row, column] = True
        down, right = right, -down
    return image


def comb(side):
    image = np.zeros((side, side), bool)
    image[:, ::3] = True
    image[-1] = True
    return image


def frames(side):
    """A ring along the border of the image, a ring in that, and so on."""
    row, column = np.indices((side, side))
    return np.minimum.reduce([row, column, side - 1 - row, side - 1 - column]) % 4 < 2


def ring_of_one_pixel(side):
    """Around the image, but for the outermost pixels; objects in it; its background joins at corners only."""
    image = np.zeros((side, side), bool)
    image[1:-1, 1:-1] = True
    image[2:-2, 2:-2] = False
    image[5:9, 5:9] = image[side // 2 : side // 2 + 2, 12:30] = True
    diagonal = np.arange(10, side - 10)
    image[diagonal, diagonal] = image[diagonal + 1, diagonal] = True
    return image


@pytest.mark.parametrize("shape", [spiral, comb, frames, ring_of_one_pixel])
@pytest.mark.parametrize("block", [7, 16, 64])
@pytest.mark.parametrize(
    "rules",
    [
        ObjectRules(gap=0),
        ObjectRules(gap=0, fill_holes=True),
        ObjectRules(gap=1, fill_holes=True, split=0.3, smallest=4),
        ObjectRules(gap=0, fill_holes=True, clear_border=True),
    ],
)
def test_objects_through_all_blocks(shape, block, rules):
    compare(shape(35).astype(np.float32), rules, block, parting=8)


def test_the_spiral_is_one_object_and_the_frames_are_six():
    assert in_blocks(spiral(41), ObjectRules(gap=0), 7)[1] == 1
    assert in_blocks(frames(41), ObjectRules(gap=0), 7)[1] == 6


def test_one_object_of_all_pixels():
    for rules in (ObjectRules(), ObjectRules(split=0.5, fill_holes=True), ObjectRules(clear_border=True)):
        compare(np.ones((20, 13), np.float32), rules, 6)


def test_a_hole_through_many_blocks_is_filled_and_one_with_two_neighbours_is_not():
    foreground = np.zeros((30, 30), np.float32)
    foreground[2:28, 2:28] = 1
    foreground[5:25, 5:25] = 0
    filled = compare(foreground, ObjectRules(gap=0, fill_holes=True), 7)
    assert (filled[2:28, 2:28] == 1).all()
    foreground[14, 14] = 1
    kept = compare(foreground, ObjectRules(gap=0, fill_holes=True), 7)
    assert (kept[6:13, 6:13] == 0).all()


def test_the_gap_goes_to_the_object_that_a_scan_meets_first():
    """The pixel between two objects lies in the block of the second, which has the smaller number in that block."""
    foreground = np.zeros((9, 9), np.float32)
    foreground[0:4, 3], foreground[3:8, 5] = 1, 1
    found = compare(foreground, ObjectRules(gap=1), 4)
    assert found[3, 4] == 1


@pytest.mark.parametrize("learned", [False, True])
def test_a_component_of_many_blocks_falls_into_parts(learned):
    row, column = np.indices((40, 120))
    chain = ((row - 20) ** 2 + (column % 24 - 12) ** 2 <= 150).astype(np.float32)
    distance = 1 - np.hypot(row - 20, column % 24 - 12) / 20 if learned else None
    found = compare(chain, ObjectRules(split=0.2 if learned else 2.0), 16, distance, parting=16)
    assert found.max() == 5


@pytest.mark.parametrize("block", [32, 50])
def test_zarr_arrays_in_and_out(tmp_path, block):
    rng = np.random.default_rng(1)
    foreground, distance = noise(rng, (90, 70), 2).astype(np.float32), noise(rng, (90, 70), 1)
    rules = ObjectRules(split=0.05, fill_holes=True)
    stored, heights, out = (
        zarr.create_array(tmp_path / name, shape=(90, 70), chunks=(16, 16), dtype=dtype)
        for name, dtype in (("foreground", "float32"), ("distance", "float64"), ("out", "uint32"))
    )
    stored[:], heights[:] = foreground, distance
    count = objects_in_blocks(stored, rules, out, distance=heights, block=block)
    np.testing.assert_array_equal(out[:], foreground_to_objects(foreground, rules, distance=distance))
    assert count == out[:].max() > 10


class Discs:
    """An image that is computed where it is read: pairs of discs that touch, in a grid."""

    dtype = np.dtype(np.float32)

    def __init__(self, side):
        self.shape = (side, side)

    def __getitem__(self, window):
        rows, columns = (np.arange(side.start, side.stop) for side in window)
        across = np.minimum((columns % 64 - 17) ** 2, (columns % 64 - 44) ** 2)
        return ((rows[:, None] % 40 - 20) ** 2 + across[None] <= 240).astype(np.float32)


@pytest.mark.parametrize(
    ("side", "block", "split", "objects"),
    [(960, 64, 0.0, 24 * 15), pytest.param(3840, 256, 2.0, 2 * 96 * 60, marks=pytest.mark.slow)],
)
def test_the_memory_does_not_grow_with_the_image(tmp_path, side, block, split, objects):
    out = np.memmap(tmp_path / "out", np.uint32, "w+", shape=(side, side))
    tracemalloc.start()
    count = objects_in_blocks(Discs(side), ObjectRules(split=split, fill_holes=True), out, block=block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == objects
    assert peak < out.nbytes / 3


def test_progress_grows_to_the_end():
    for rules in (ObjectRules(), ObjectRules(gap=0), ObjectRules(split=0.1, fill_holes=True)):
        told, out = [], np.zeros((20, 20), np.uint32)
        foreground = noise(np.random.default_rng(0), (20, 20), 1)
        objects_in_blocks(foreground, rules, out, block=8, on_block=lambda done, of, told=told: told.append((done, of)))
        done = [at for at, _ in told]
        assert done == sorted(set(done))
        assert {of for _, of in told} == {4 * 9}
        assert done[-1] == 36


@pytest.mark.parametrize(
    ("foreground", "out", "more", "message"),
    [
        (np.zeros((3, 3)), np.zeros((3, 4), np.uint32), {}, r"out is of uint32, shape \(3, 4\);.*\(3, 3\)"),
        (np.zeros((3, 3)), np.zeros((3, 3), np.int32), {}, "out is of int32"),
        (np.zeros((3, 3)), np.zeros((3, 3), np.uint32), {"block": 0}, "block is 0"),
        (np.zeros((2, 3, 3)), np.zeros((3, 3), np.uint32), {}, r"shape \(2, 3, 3\).*channel"),
        (np.full((3, 3), np.nan), np.zeros((3, 3), np.uint32), {}, "foreground_probability holds NaN"),
        (np.ones((3, 3)), np.zeros((3, 3), np.uint32), {"distance": np.zeros((2, 3))}, r"distance has the shape"),
        (np.ones((3, 3)), np.zeros((3, 3), np.uint32), {"distance": np.full((3, 3), np.nan)}, "distance holds NaN"),
    ],
)
def test_what_cannot_be_done(foreground, out, more, message):
    with pytest.raises(InputError, match=message):
        objects_in_blocks(foreground, ObjectRules(split=0.1), out, **more)

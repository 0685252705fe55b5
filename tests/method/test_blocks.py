import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import InputError
from ubend.method.blocks import blocks_of, border_lines, widened, within

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(shape=SIZES, block=st.integers(1, 15))
def test_each_pixel_lies_in_one_block(shape, block):
    seen = np.zeros(shape, int)
    windows = blocks_of(shape, block)
    for window in windows:
        seen[window] += 1
        assert max(seen[window].shape) <= block
    assert (seen == 1).all()
    corners = [(rows.start, columns.start) for rows, columns in windows]
    assert corners == sorted(corners)


@given(shape=SIZES, block=st.integers(1, 15))
def test_the_border_of_the_image_is_found(shape, block):
    border = np.zeros(shape, bool)
    for window in blocks_of(shape, block):
        for line in border_lines(window, shape):
            border[line] = True
    inside = np.zeros(shape, bool)
    inside[1:-1, 1:-1] = True
    np.testing.assert_array_equal(border, ~inside)


@given(shape=SIZES, block=st.integers(1, 15), margin=st.integers(0, 4))
def test_a_block_is_found_in_its_surroundings(shape, block, margin):
    image = np.arange(shape[0] * shape[1]).reshape(shape)
    for window in blocks_of(shape, block):
        wide = widened(window, margin, shape)
        np.testing.assert_array_equal(image[wide][within(window, wide)], image[window])


@pytest.mark.parametrize("block", [0, -1, 2.0, True])
def test_no_block(block):
    with pytest.raises(InputError, match=f"block is {block}; allowed is a whole number of pixels from 1 on"):
        blocks_of((3, 3), block)

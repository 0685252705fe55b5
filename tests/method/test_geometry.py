import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import InputError
from ubend.method import geometry


def test_paper_sizes():
    assert geometry.output_size(572, 4) == 388
    assert geometry.halo(4) == 92
    assert [s for s in range(180, 260) if geometry.is_valid_input(s, 4)] == [188, 204, 220, 236, 252]
    assert geometry.receptive_field(4) == (188, 204)
    assert [geometry.skip_crop(level, 4) for level in range(4)] == [88, 40, 16, 4]


def test_a_wrong_size_names_the_nearest():
    with pytest.raises(InputError, match=r"570 px does not fit .* depth 4; the nearest sizes are 556 and 572"):
        geometry.output_size(570, 4)
    with pytest.raises(InputError, match="nearest sizes are 188"):
        geometry.output_size(100, 4)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("output", [1, 4, 5, 17, 20, 388, 512])
def test_smallest_input_is_enough_and_the_next_smaller_is_not(depth, output):
    size = geometry.smallest_input_for(output, depth)
    assert geometry.output_size(size, depth) >= output
    smaller = size - 2**depth
    if geometry.is_valid_input(smaller, depth):
        assert geometry.output_size(smaller, depth) < output


@given(length=st.integers(1, 3000), depth=st.integers(1, 5), extra=st.integers(0, 900))
def test_spans_cover_each_pixel_once_in_phase(length, depth, extra):
    largest = geometry.smallest_input_for(2**depth, depth) + extra
    spans = geometry.tile_spans(length, largest_input=largest, depth=depth)
    covered = np.concatenate([np.arange(s.start, s.stop) for s in spans])
    assert covered.tolist() == list(range(length))
    for span in spans:
        assert span.start % 2**depth == 0
        assert span.first == span.start - geometry.halo(depth)
        assert span.size <= largest
        assert geometry.output_size(span.size, depth) >= span.stop - span.start


def test_a_tile_too_small_is_refused():
    with pytest.raises(InputError, match=r"tile of 187 px is too small .* the smallest is 204"):
        geometry.tile_spans(512, largest_input=187, depth=4)


@given(length=st.integers(1, 9), before=st.integers(0, 30), after=st.integers(0, 30))
def test_mirror_is_numpys_reflect(length, before, after):
    positions = geometry.mirror(np.arange(-before, length + after), length)
    expected = np.pad(np.arange(length), (before, after), mode="reflect")
    assert positions.tolist() == expected.tolist()


@given(length=st.integers(1, 9), start=st.integers(-40, 40), count=st.integers(0, 60))
def test_mirrored_slices_are_mirror(length, start, count):
    read = np.full(count, -1)
    for here, there in geometry.mirrored_slices(start, start + count, length):
        read[here] = np.arange(length)[there]
    assert read.tolist() == geometry.mirror(np.arange(start, start + count), length).tolist()

"""Which sizes a U-Net takes and what each output pixel sees (Ronneberger et al. 2015, Fig. 1 and Fig. 2).

Integers only. A network of depth d halves its maps d times; every level has two 3×3 convolutions on the way down
and two on the way up. Without padding each 3×3 convolution costs one pixel a side, and so::

    input   S = 2^d·k + 4·(2^d − 1)   with k >= 8     (depth 4: 188, 204, …, 572, …)
    output  O = S − 2·halo            with halo = 6·2^d − 4     (depth 4: 92)

The pooling grid makes the network equivariant to translations by multiples of 2^d only: tiles give the values of
the whole image if their origins are congruent modulo 2^d.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError

SMALLEST_BOTTOM = 8
"""Smallest k: rows or columns that enter the lowest level so that every map of the way up is at least one pixel."""


def halo(depth: int) -> int:
    """Pixels of context that each side of an output needs and loses: 6·2^depth − 4.

    Parameters
    ----------
    depth : int
        How often the network halves its maps.

    Returns
    -------
    int

    Examples
    --------
    >>> halo(4)
    92
    """
    return 6 * _step(depth) - 4


def _step(depth: int) -> int:
    return 1 << depth


def is_valid_input(size: int, depth: int) -> bool:
    """Whether an unpadded network of this depth takes `size` rows or columns.

    Parameters
    ----------
    size : int
        Rows or columns of the input.
    depth : int
        How often the network halves its maps.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_valid_input(572, 4), is_valid_input(570, 4)
    (True, False)
    """
    bottom, rest = divmod(size - 4 * (_step(depth) - 1), _step(depth))
    return rest == 0 and bottom >= SMALLEST_BOTTOM


def nearest_valid_inputs(size: int, depth: int) -> tuple[int, ...]:
    """Return the valid input sizes next to `size`: one below and one above, or the smallest of all.

    Parameters
    ----------
    size : int
        Rows or columns.
    depth : int
        How often the network halves its maps.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> nearest_valid_inputs(570, 4)
    (556, 572)
    >>> nearest_valid_inputs(20, 4)
    (188,)
    """
    constant = 4 * (_step(depth) - 1)
    smallest = SMALLEST_BOTTOM * _step(depth) + constant
    if size <= smallest:
        return (smallest,)
    below = (size - constant) // _step(depth) * _step(depth) + constant
    return (below,) if below == size else (below, below + _step(depth))


def output_size(size: int, depth: int) -> int:
    """Rows or columns that an unpadded network returns for `size`; the size must be valid.

    Parameters
    ----------
    size : int
        Rows or columns of the input.
    depth : int
        How often the network halves its maps.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If the size does not fit; the message names the nearest that do.

    Examples
    --------
    >>> output_size(572, 4)
    388
    """
    if not is_valid_input(size, depth):
        nearest = " and ".join(str(s) for s in nearest_valid_inputs(size, depth))
        raise InputError(
            f"an input of {size} px does not fit an unpadded network of depth {depth}; the nearest sizes are {nearest}"
        )
    return size - 2 * halo(depth)


def smallest_input_for(output: int, depth: int) -> int:
    """Return the smallest valid input whose output has at least `output` rows or columns.

    Parameters
    ----------
    output : int
        Rows or columns.
    depth : int
        How often the network halves its maps.

    Returns
    -------
    int

    Examples
    --------
    >>> smallest_input_for(388, 4), smallest_input_for(512, 4), smallest_input_for(1, 4)
    (572, 700, 188)
    """
    step = _step(depth)
    bottom = max(SMALLEST_BOTTOM, -(-(output - 4) // step) + SMALLEST_BOTTOM)
    return step * bottom + 4 * (step - 1)


def tile_step(output: int, depth: int) -> int:
    """Return the largest stride between tiles that keeps their pooling grids in phase: a multiple of 2^depth.

    Parameters
    ----------
    output : int
        Rows or columns that a tile returns.
    depth : int
        How often the network halves its maps.

    Returns
    -------
    int

    Examples
    --------
    >>> tile_step(388, 4)
    384
    """
    return output // _step(depth) * _step(depth)


def receptive_field(depth: int) -> tuple[int, ...]:
    """Return the widths of input that one output pixel sees; they depend on its place modulo 2^depth.

    Parameters
    ----------
    depth : int
        How often the network halves its maps.

    Returns
    -------
    tuple of int
        In pixels, the smallest first.

    Examples
    --------
    >>> receptive_field(4)
    (188, 204)
    """
    widths = set()
    for position in range(_step(depth)):
        first, last = _window(position, position, level=0, depth=depth)
        widths.add(last - first + 1)
    return tuple(sorted(widths))


def _window(first: int, last: int, *, level: int, depth: int) -> tuple[int, int]:
    """First and last input pixel that outputs first..last of the way up at `level` depend on."""
    last += 4  # two unpadded 3x3 convolutions
    if level == depth:
        return _through_encoder(first, last, level)
    deep = _window(first // 2, last // 2, level=level + 1, depth=depth)
    crop = skip_crop(level, depth)
    skip = _through_encoder(first + crop, last + crop, level, before_convolutions=False)
    return min(deep[0], skip[0]), max(deep[1], skip[1])


def _through_encoder(first: int, last: int, level: int, *, before_convolutions: bool = True) -> tuple[int, int]:
    """From the input (or output) of the convolutions of `level` on the way down back to the image."""
    if not before_convolutions:
        last += 4
    for _ in range(level):
        first, last = 2 * first, 2 * last + 1 + 4
    return first, last


def skip_crop(level: int, depth: int) -> int:
    """Pixels cut from each side of the skip connection of `level` before it is concatenated.

    Parameters
    ----------
    level : int
        Counted from 0 at full resolution.
    depth : int
        How often the network halves its maps.

    Returns
    -------
    int

    Examples
    --------
    >>> [skip_crop(level, 4) for level in range(4)]
    [88, 40, 16, 4]
    """
    return 6 * _step(depth - level) - 8


@dataclass(frozen=True)
class Span:
    """Where one tile lies along one axis, in pixels of the image.

    Attributes
    ----------
    start, stop : int
        The output pixels that this tile is responsible for.
    first : int
        The input pixel at which the tile begins; negative where it reaches beyond the border.
    size : int
        Input pixels of the tile.
    """

    start: int
    stop: int
    first: int
    size: int


def tile_spans(length: int, *, largest_input: int, depth: int) -> tuple[Span, ...]:
    """Cover one axis of an image with tiles of one size, their origins congruent modulo 2^depth.

    The tiles are as few as `largest_input` allows and then as small as that number allows.

    Parameters
    ----------
    length : int
        Rows or columns of the image.
    largest_input : int
        Rows or columns that a tile may have at most; must hold at least one step of 2^depth output pixels.
    depth : int
        Depth of the network.

    Returns
    -------
    tuple of Span

    Raises
    ------
    InputError
        If `largest_input` is too small for any tile.

    Examples
    --------
    >>> [(s.start, s.stop, s.first, s.size) for s in tile_spans(512, largest_input=572, depth=4)]
    [(0, 256, -92, 444), (256, 512, 164, 444)]
    >>> [(s.start, s.stop, s.first, s.size) for s in tile_spans(512, largest_input=700, depth=4)]
    [(0, 512, -92, 700)]
    """
    smallest = smallest_input_for(_step(depth), depth)
    if largest_input < smallest:
        raise InputError(
            f"a tile of {largest_input} px is too small for a network of depth {depth}; the smallest is {smallest}"
        )
    border = halo(depth)
    largest_output = nearest_valid_inputs(largest_input, depth)[0] - 2 * border
    step = tile_step(largest_output, depth)
    count = 1 if length <= largest_output else -(-length // step)
    share = -(-length // count)
    if count > 1:
        share = -(-share // _step(depth)) * _step(depth)
    size = smallest_input_for(share, depth)
    starts = range(0, length, share)
    return tuple(Span(start, min(start + share, length), start - border, size) for start in starts)


def mirror(positions: NDArray[np.integer], length: int) -> NDArray[np.integer]:
    """Fold positions beyond the border back into the image, without repeating the border pixel.

    Works at any distance: a short image is mirrored again and again. This is numpy's ``reflect``.

    Parameters
    ----------
    positions : ndarray of int
        Rows or columns, also negative or beyond the end.
    length : int
        Rows or columns that the image has.

    Returns
    -------
    ndarray of int, shape of `positions`

    Examples
    --------
    >>> mirror(np.arange(-3, 7), 4).tolist()
    [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    """
    if length == 1:
        return np.zeros_like(positions)
    period = 2 * (length - 1)
    folded = np.mod(positions, period)
    inside: NDArray[np.integer] = np.minimum(folded, period - folded)
    return inside


def mirrored_slices(start: int, stop: int, length: int) -> list[tuple[slice, slice]]:
    """Part positions start to stop of a mirrored axis into runs that a slice reads: `mirror` without a lookup a pixel.

    Parameters
    ----------
    start, stop : int
        First position, and one after the last; also negative or beyond the end.
    length : int
        Rows or columns that the image has.

    Returns
    -------
    list of (slice, slice)
        For each run where it comes to, from `start` on, and where in the image it is read.

    Examples
    --------
    >>> mirrored_slices(-2, 4, 4)
    [(slice(0, 2, None), slice(2, 0, -1)), (slice(2, 6, None), slice(0, 4, 1))]
    """
    if length == 1:
        return [(slice(0, stop - start), slice(0, 1))]
    period = 2 * (length - 1)
    runs, at = [], start
    while at < stop:
        phase = at % period
        if phase < length:  # as it is
            first, count, step = phase, min(length - phase, stop - at), 1
        else:  # mirrored: down to position 1
            first, count, step = period - phase, min(period - phase, stop - at), -1
        runs.append((slice(at - start, at - start + count), slice(first, first + count * step, step)))
        at += count
    return runs

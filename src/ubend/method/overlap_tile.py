"""The overlap-tile strategy: images of any size, without a seam (Ronneberger et al. 2015, Section 2 and Fig. 2).

A network that uses only valid convolutions returns each pixel with its full context, so tiles can be computed one by
one and put side by side. Context beyond the border of the image is extrapolated by mirroring. The right answer is the
network applied to the whole mirrored image; tiles give just that, whatever their size, if their origins are congruent
modulo 2^depth (the phase of the pooling grid). Tiles of the paper's size, put edge to edge at multiples of 388, would
not: 388 is no multiple of 16. So tiles step by 384.

Nothing here knows of a network: `predict` is any callable from tile to scores.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.method.geometry import Span, mirror, tile_spans

Tile = NDArray[Any]


def predict_tiles(
    image: NDArray[Any],
    predict: Callable[[Tile], NDArray[np.float32]],
    *,
    depth: int,
    largest_tile: int,
    on_tile: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Apply a network to a whole image, tile by tile.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
        Of any size, also smaller than the context a pixel needs.
    predict : callable
        Maps a tile (channels, S, T) to scores (classes, S − 2·halo, T − 2·halo), as an unpadded network of `depth`.
    depth : int
        Depth of the network: gives the halo, the valid sizes and the step (`geometry`).
    largest_tile : int
        Rows and columns that a tile may have at most. Tiles are as few as that allows, and then as small.
    on_tile : callable, optional
        Called with (tiles done, tiles in all) after each tile.

    Returns
    -------
    ndarray of float32, shape (classes, rows, columns)

    Raises
    ------
    InputError
        If the image is not (channels, rows, columns), is empty, or the tile is too small.

    Examples
    --------
    A "network" that only cuts its border off returns the image:

    >>> import numpy as np
    >>> image = np.random.default_rng(0).random((1, 30, 45)).astype(np.float32)
    >>> cut = lambda tile: tile[:, 92:-92, 92:-92]
    >>> bool((predict_tiles(image, cut, depth=4, largest_tile=204) == image).all())
    True
    """
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(f"an image to be tiled is (channels, rows, columns) and not empty; came {image.shape}")
    rows, columns = image.shape[1:]
    row_spans, column_spans = (
        tile_spans(length, largest_input=largest_tile, depth=depth) for length in (rows, columns)
    )
    count = len(row_spans) * len(column_spans)
    result: NDArray[np.float32] | None = None
    for number, (row, column) in enumerate(((r, c) for r in row_spans for c in column_spans), start=1):
        scores = predict(cut_tile(image, row, column))
        if result is None:
            result = np.empty((scores.shape[0], rows, columns), dtype=np.float32)
        height, width = row.stop - row.start, column.stop - column.start
        result[:, row.start : row.stop, column.start : column.stop] = scores[:, :height, :width]
        del scores  # or the next tile would find less memory than this one
        if on_tile is not None:
            on_tile(number, count)
    assert result is not None  # there is at least one tile
    return result


def cut_tile(image: NDArray[Any], row: Span, column: Span) -> NDArray[Any]:
    """Cut the input of one tile out of an image, mirrored where it reaches beyond the border.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
    row, column : Span
        Where the tile lies, from `geometry.tile_spans`.

    Returns
    -------
    ndarray, shape (channels, row.size, column.size)
    """
    r = mirror(np.arange(row.first, row.first + row.size), image.shape[1])
    c = mirror(np.arange(column.first, column.first + column.size), image.shape[2])
    return image.take(r, axis=1).take(c, axis=2)

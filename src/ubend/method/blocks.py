"""Images too large for memory, read and written in blocks."""

from collections.abc import Iterator
from typing import Any, Protocol

from ubend.errors import InputError

__all__ = ["ReadableArray", "Window", "WritableArray", "blocks_of", "border_lines", "widened", "within"]

Window = tuple[slice, slice]


class ReadableArray(Protocol):
    """What can be read in windows of rows and columns: a NumPy array, a zarr array, or the like."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    @property
    def dtype(self) -> Any:
        """Type of a pixel, as NumPy knows it."""

    def __getitem__(self, window: Any, /) -> Any:
        """Give the pixels of a window (slice of rows, slice of columns)."""


class WritableArray(ReadableArray, Protocol):
    """What can also be written in windows of rows and columns."""

    def __setitem__(self, window: Any, pixels: Any, /) -> None:
        """Write the pixels of a window (slice of rows, slice of columns)."""


def blocks_of(shape: tuple[int, ...], block: int) -> list[Window]:
    """Cut an image into blocks, in the order of a scan along the rows.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    block : int
        Rows and columns of a block, in pixels; those at the end are smaller where it does not divide the image.

    Returns
    -------
    list of (slice, slice)
        The rows and the columns of each block.

    Raises
    ------
    InputError
        If `block` is no whole number from 1 on.

    Examples
    --------
    >>> blocks_of((2, 5), 3)
    [(slice(0, 2, None), slice(0, 3, None)), (slice(0, 2, None), slice(3, 5, None))]
    """
    if isinstance(block, bool) or not isinstance(block, int) or block < 1:
        raise InputError(f"block is {block!r}; allowed is a whole number of pixels from 1 on, usually 2048.")
    rows, columns = ([slice(at, min(at + block, n)) for at in range(0, n, block)] for n in shape)
    return [(row, column) for row in rows for column in columns]


def widened(window: Window, margin: int, shape: tuple[int, ...]) -> Window:
    """Add pixels on all sides of a window, as far as the image goes.

    Parameters
    ----------
    window : (slice, slice)
        Rows and columns.
    margin : int
        Pixels.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    (slice, slice)

    Examples
    --------
    >>> widened((slice(2, 4), slice(0, 3)), 1, (4, 9))
    (slice(1, 4, None), slice(0, 4, None))
    """
    rows, columns = (
        slice(max(0, side.start - margin), min(side.stop + margin, n)) for side, n in zip(window, shape, strict=True)
    )
    return rows, columns


def within(inner: Window, outer: Window) -> Window:
    """Tell where a window lies in another one, which holds it.

    Parameters
    ----------
    inner, outer : (slice, slice)
        Rows and columns of the image.

    Returns
    -------
    (slice, slice)
        Rows and columns of the outer window.

    Examples
    --------
    >>> within((slice(3, 5), slice(2, 4)), (slice(2, 9), slice(2, 9)))
    (slice(1, 3, None), slice(0, 2, None))
    """
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return rows, columns


def border_lines(window: Window, shape: tuple[int, ...]) -> Iterator[Window]:
    """Give what of a window lies on the border of the image, one row or column each.

    Parameters
    ----------
    window : (slice, slice)
        Rows and columns.
    shape : tuple of int
        Rows and columns of the image.

    Yields
    ------
    (slice, slice)

    Examples
    --------
    >>> list(border_lines((slice(0, 3), slice(2, 4)), (9, 9)))
    [(slice(0, 1, None), slice(2, 4, None))]
    """
    rows, columns = window
    for row in sorted({rows.start, rows.stop - 1} & {0, shape[0] - 1}):
        yield slice(row, row + 1), columns
    for column in sorted({columns.start, columns.stop - 1} & {0, shape[1] - 1}):
        yield rows, slice(column, column + 1)

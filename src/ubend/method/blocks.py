"""Images too large for memory, read and written in blocks."""

from typing import Any, Protocol

from ubend.errors import InputError

__all__ = ["ReadableArray", "Window", "WritableArray", "blocks_of"]

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

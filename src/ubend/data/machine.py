"""How much memory this machine has left, and what is to be read for which that is not enough."""

import contextlib
import os
from pathlib import Path

from ubend.errors import FileError

__all__ = ["check_fits_memory", "free_here"]

CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux tells what memory a container may use."""

_NOT_WORTH_ASKING = 2**26
"""Bytes of pixels up to which an image is read without asking."""
_COPIES = 2
"""How often the pixels of an image are held at a time while it is read."""


def free_here() -> int:
    """Return the bytes that the machine can still give, counting the limits of a container.

    Examples
    --------
    >>> free_here() > 0
    True
    """
    free = _available_bytes()
    for folder, limit, used, cache in (
        (CONTAINER, "memory.max", "memory.current", "inactive_file"),
        (CONTAINER / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):
            taken = int((folder / used).read_text())
            taken -= _statistic(folder / "memory.stat", cache)  # files that were read; given back when asked for
            free = min(free, int((folder / limit).read_text()) - taken)
    return max(free, 0)


def check_fits_memory(path: Path, size: int) -> None:
    """Raise FileError before pixels are read for which the machine has no room.

    Parameters
    ----------
    path : Path
        The file; for the message.
    size : int
        Bytes of its pixels, unpacked.

    Raises
    ------
    FileError
        If they need more than what is free.

    Examples
    --------
    >>> check_fits_memory(Path("cell.tif"), 10**6)
    """
    if size <= _NOT_WORTH_ASKING:
        return
    free = free_here()
    if _COPIES * size > free:
        raise FileError(
            f"{path} takes {_COPIES * size / 1e9:.1f} GB to read whole, and {free / 1e9:.1f} GB are free: `ubend "
            "predict` reads a TIFF or OME-Zarr of any size block by block; for all else cut it into smaller images."
        )


def _statistic(file: Path, name: str) -> int:
    lines = (line.split() for line in file.read_text().splitlines())
    return next((int(line[1]) for line in lines if line[0] == name), 0)


def _available_bytes() -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 * 2**30

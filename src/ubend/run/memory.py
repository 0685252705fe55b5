"""What a prediction holds in memory, and the largest tile that a stated memory holds.

The figures are derived from the network: the maps that are held at the same time where they are most, which is at full
resolution, on the way down or on the way up (`method.network.UNet.forward`). The constants were measured
(``benchmarks/memory.py``), in float32 on a CPU, with pages of its own for each map (`device.own_pages`). In 16 bits
nothing was measured: there the maps are counted as half as large, a quarter is added, and the rest is as in float32.
"""

import math
import re
from collections.abc import Iterator

from ubend.errors import InputError
from ubend.method.geometry import halo, smallest_input_for
from ubend.method.network import NetworkConfig, count_parameters

FIXED = 15 * 10**6
"""Bytes that the first prediction of a process takes for itself: code that is loaded, plans of convolutions."""
SLACK = 1.06
"""What is added to the counted bytes, so that the measured peak stays below."""
KEPT = 2.5
"""How many times as much a prediction takes that keeps freed memory (`device.kept_memory`), which is faster."""
OBJECT_BYTES = 70
"""Peak of the search for objects, in bytes a pixel, beside the probabilities."""
CLASS_BYTES = 17
"""The same of choosing the most probable class."""

SIXTEEN_BITS = 1.25
"""What is added in 16 bits, where the maps have not been measured."""

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_bytes(text: str) -> int:
    """Read an amount of memory.

    Parameters
    ----------
    text : str
        A number and a unit: B, kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of 1024.

    Raises
    ------
    InputError
        If it is no such amount.

    Examples
    --------
    >>> parse_bytes("2GB"), parse_bytes("500 MB"), parse_bytes("1.5GiB")
    (2000000000, 500000000, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([KMGT]I?)?B?\s*", text.upper())
    if found is None:
        raise InputError(f"{text!r} is no amount of memory: say it as 2GB, 500MB or 1.5GiB")
    return int(float(found[1]) * UNITS[found[2] or ""])


def say_bytes(amount: float, *, up: bool = False) -> str:
    """Say an amount of memory so that `parse_bytes` reads it, rounded to the nearest or up.

    Examples
    --------
    >>> say_bytes(2.34e9), say_bytes(2.34e9, up=True), say_bytes(96e6)
    ('2.3GB', '2.4GB', '96MB')
    """
    unit, digits = (10**9, 1) if amount >= 10**9 else (10**6, 0)
    number = amount / unit * 10**digits
    whole = math.ceil(number) if up else round(number)
    return f"{max(whole, 1) / 10**digits:.{digits}f}{'GB' if digits else 'MB'}"


def tile_bytes(config: NetworkConfig, size: int, *, sixteen_bits: bool = False, views: int = 1) -> int:
    """Tell how many bytes the prediction of a tile takes at its peak, above what the process held before.

    Not counted: the image, and the probabilities of the whole image.

    Parameters
    ----------
    config : NetworkConfig
        The network; it predicts unpadded, whatever it was trained with.
    size : int
        Rows and columns of the tile; must be valid for the network (`geometry.is_valid_input`).
    sixteen_bits : bool
        Whether the maps are of 16 bits, as on a device that computes natively in them.
    views : int
        Over how many views of a tile the probabilities are averaged (1 or 8).

    Returns
    -------
    int
        Bytes. In float32 the measured peak is 80 to 100 % of it (docs/benchmarks.md).

    Examples
    --------
    >>> config = NetworkConfig(width=16)
    >>> [tile_bytes(config, size) // 10**6 for size in (572, 1020)]
    [72, 241]
    """
    width = 2 if sixteen_bits else 4
    pixels, output = size**2, (size - 2 * halo(config.depth)) ** 2
    tile = config.in_channels * pixels * (8 + 4 + (4 if views > 1 else 0))  # as cut out, as normalised, as seen
    tile += config.in_channels * pixels if config.coarse else 0  # as averaged over 2×2
    seen = (1 if views > 1 else 0) * 4 * config.classes * output  # the sum over views, while the next is computed
    maps = max(width * values + 4 * weights for values, weights in _held(config, size))
    last = output >> 2 * config.coarse  # pixels of the last map before the scores
    interpolated = 4 if config.coarse else 2  # copies of the scores at a time
    scores = max(
        (4 * config.width * last if sixteen_bits else 0) + width * config.width * last,
        4 * interpolated * config.classes * output,
    )
    weights = 2 * count_parameters(config) if sixteen_bits else 0  # their copies in 16 bits
    maps = int(SIXTEEN_BITS * maps) + weights if sixteen_bits else maps
    return int(FIXED + SLACK * (tile + seen + max(maps, scores + 4 * config.classes * output)))


def _held(config: NetworkConfig, size: int) -> Iterator[tuple[int, int]]:
    """Values of all maps held during each convolution, and the weights that it brings into its own order."""
    skips: list[int] = []

    def two(inputs: int, outputs: int, size: int, *, keep_input: bool) -> Iterator[tuple[int, int]]:
        source, first, second = inputs * size**2, outputs * (size - 2) ** 2, outputs * (size - 4) ** 2
        yield sum(skips) + source + first, 9 * inputs * outputs
        yield sum(skips) + first + second + (source if keep_input else 0), 9 * outputs**2

    channels = 0  # the image itself is counted as a tile
    for _ in range(config.coarse):
        size = (size - 4) // 2
    for level in range(config.coarse, config.depth + 1):
        yield from two(channels, config.channels(level), size, keep_input=True)
        channels, size = config.channels(level), size - 4
        if level < config.depth:
            skips.append(channels * size**2)
            size //= 2
            yield sum(skips) + channels * size**2, 0
    for level in reversed(range(config.coarse, config.depth)):
        up = config.up_channels(level)
        yield sum(skips) + channels * size**2 + up * (2 * size) ** 2, 4 * channels * up
        size *= 2
        joined = up + config.channels(level)
        yield sum(skips) + (up + joined) * size**2, 0
        skips.pop()
        yield from two(joined, config.channels(level), size, keep_input=False)
        channels, size = config.channels(level), size - 4


def largest_tile_within(
    config: NetworkConfig, memory: float, *, sixteen_bits: bool = False, views: int = 1
) -> int | None:
    """Return the largest tile whose prediction takes at most so many bytes, or None if not even the smallest fits.

    Parameters
    ----------
    config : NetworkConfig
    memory : float
        Bytes for the tile alone; see `tile_bytes` for what is not counted.
    sixteen_bits, views
        As for `tile_bytes`.

    Examples
    --------
    >>> largest_tile_within(NetworkConfig(width=16), 235 * 10**6)
    1004
    """
    smallest = smallest_tile(config)
    step = 1 << config.depth

    def fits(steps: int) -> bool:
        return tile_bytes(config, smallest + steps * step, sixteen_bits=sixteen_bits, views=views) <= memory

    if not fits(0):
        return None
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return smallest + low * step


def result_bytes(config: NetworkConfig, shape: tuple[int, int], *, rotations: bool = False) -> int:
    """Tell how many bytes the probabilities of a whole image take; with rotated views, also those of a view.

    Parameters
    ----------
    config : NetworkConfig
    shape : (int, int)
        Rows and columns of the image.
    rotations : bool
        Whether the probabilities are averaged over rotated images.

    Examples
    --------
    >>> result_bytes(NetworkConfig(), (1000, 1000))
    8000000
    """
    pixels = shape[0] * shape[1]
    if not rotations:
        return 4 * config.classes * pixels
    turned = (math.ceil(math.hypot(*shape)) + 2) ** 2  # and the places that are sampled, there and back
    return 4 * (2 * config.classes * pixels + (config.classes + config.in_channels) * turned) + 24 * (pixels + turned)


def label_bytes(shape: tuple[int, int], *, instances: bool) -> int:
    """Tell how many bytes it takes to make labels of probabilities, at the peak.

    Examples
    --------
    >>> label_bytes((1000, 1000), instances=False) // 10**6
    17
    """
    return (OBJECT_BYTES if instances else CLASS_BYTES) * shape[0] * shape[1]


def smallest_tile(config: NetworkConfig) -> int:
    """Return the smallest tile that covers one step of the pooling grid.

    Examples
    --------
    >>> smallest_tile(NetworkConfig(depth=4))
    204
    """
    return smallest_input_for(2**config.depth, config.depth)

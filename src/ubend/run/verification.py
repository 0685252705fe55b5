"""Whether tiles show: the same image predicted in one piece and in tiles of several sizes, compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError
from ubend.method.geometry import nearest_valid_inputs, tile_spans
from ubend.run.device import free_memory, resident_memory
from ubend.run.memory import result_bytes, smallest_tile
from ubend.run.model import Model
from ubend.run.normalisation import channels_first
from ubend.run.prediction import check_tile, choose_tile

TOLERANCE = 1e-5
"""Largest difference of a probability that is allowed, in float32."""


@dataclass(frozen=True)
class TileCheck:
    """How one tile size compares with the largest.

    Attributes
    ----------
    tile : int
        Rows and columns a tile may have at most.
    shape : (int, int)
        Rows and columns of the tiles that were computed.
    tiles : int
        How many they were.
    difference : float
        Largest difference of a probability.
    changed : int
        Pixels whose label is another; with single objects, pixels that are foreground with one and not with the other.
    """

    tile: int
    shape: tuple[int, int]
    tiles: int
    difference: float
    changed: int

    @property
    def passed(self) -> bool:
        """Whether no label changes, and no probability by more than `TOLERANCE`."""
        return self.difference <= TOLERANCE and self.changed == 0


@dataclass(frozen=True)
class Verification:
    """What `verify_tiling` found.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the image.
    reference : TileCheck
        The largest tile, with which all are compared.
    checks : tuple of TileCheck
        The others.
    """

    shape: tuple[int, int]
    reference: TileCheck
    checks: tuple[TileCheck, ...]

    @property
    def whole(self) -> bool:
        """Whether the reference is the image in one piece."""
        return self.reference.tiles == 1

    @property
    def passed(self) -> bool:
        """Whether all tile sizes passed."""
        return all(check.passed for check in self.checks)


def verify_tiling(
    model: Model,
    image: NDArray[Any],
    *,
    tiles: Sequence[int] | None = None,
    memory: int | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> Verification:
    """Predict an image in one piece, or in the largest tiles that fit, and in smaller tiles, all in float32.

    Parameters
    ----------
    model : Model
    image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
    tiles : sequence of int, optional
        Tile sizes to compare; without them some between the smallest and the largest.
    memory : int, optional
        Bytes that the process may hold, as for `Model.predict`.
    on_tile : callable, optional
        Called with (predictions done, predictions in all).

    Raises
    ------
    InputError
        If a tile is too small for the network, or the image is one tile with all of them.
    OutOfMemory
        If the image does not fit the memory.

    Examples
    --------
    >>> import numpy as np
    >>> import ubend
    >>> from ubend.data.tiles import TileConfig
    >>> from ubend.run.recipe import Recipe
    >>> small = ubend.NetworkConfig(width=2, depth=1, padding="same", normalisation="batch")
    >>> discs = [np.hypot(*np.mgrid[-40:40, -40:40]) < radius for radius in (20, 25, 30)]
    >>> recipe = Recipe(network=small, tiles=TileConfig(size=32))
    >>> model = ubend.train([disc * 90 for disc in discs], discs, recipe=recipe, steps=1, device="cpu")
    >>> verify_tiling(model, discs[0] * 90, tiles=[60]).passed
    True
    """
    network = model.contract.network
    rows, columns = channels_first(image, network.in_channels).shape[1:]
    if memory is None:
        held = resident_memory() if model.device.type == "cpu" else 0
        memory = held + free_memory(model.device) // 2
    compared = 2 * result_bytes(network, (rows, columns))  # what is held beside the probabilities under way
    largest = choose_tile(model.contract, (rows, columns), model.device, memory=memory - compared, exact=True)
    sizes = tiles or _sizes(network.depth, smallest_tile(network), largest)
    for tile in sizes:
        check_tile(network, tile)
    parts = {tile: _parts(tile, (rows, columns), network.depth) for tile in (largest, *sizes)}
    others = [tile for tile in parts if parts[tile] != parts[largest]]
    if not others:
        raise InputError(
            f"an image of {rows}×{columns} px is one tile whatever the size: give one of more than "
            f"{2**network.depth} px a side"
        )

    def predicted(number: int, tile: int) -> NDArray[np.float32]:
        result = model.predict(image, tile=tile, memory=memory, exact=True)
        if on_tile is not None:
            on_tile(number, len(others) + 1)
        return result

    expected = predicted(1, largest)
    labels = _most_probable(expected, model)
    checks = []
    for number, tile in enumerate(others, start=2):
        found = predicted(number, tile)
        changed = int((_most_probable(found, model) != labels).sum())
        np.abs(np.subtract(found, expected, out=found), out=found)
        checks.append(TileCheck(tile, *parts[tile], float(found.max()), changed))
    return Verification((rows, columns), TileCheck(largest, *parts[largest], 0.0, 0), tuple(checks))


def _parts(tile: int, shape: tuple[int, int], depth: int) -> tuple[tuple[int, int], int]:
    """Rows and columns of the tiles of an image, and their number."""
    rows, columns = (tile_spans(length, largest_input=tile, depth=depth) for length in shape)
    return (rows[0].size, columns[0].size), len(rows) * len(columns)


def _most_probable(probabilities: NDArray[np.float32], model: Model) -> NDArray[np.integer]:
    """Label each pixel; of single objects with foreground or background, so that a pixel counts for itself alone."""
    is_instances = model.contract.task.kind == "instances"
    chosen = probabilities[1] > model.contract.objects.threshold if is_instances else probabilities.argmax(0)
    labels: NDArray[np.integer] = chosen.astype(np.uint16)
    return labels


def _sizes(depth: int, smallest: int, largest: int) -> list[int]:
    """Some sizes below the largest; not the smallest, which take very long on a large image."""
    shares = (nearest_valid_inputs(round(largest * share), depth)[0] for share in (0.4, 0.6, 0.8))
    return sorted({max(size, smallest) for size in shares} - {largest})

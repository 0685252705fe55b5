"""The statistics by which batch normalisation works on an image: of the image itself, the same for all its tiles.

A network with batch normalisation that sees one tile a step is trained by the mean and the variance of that tile, in
each layer. Averages over the training, which are the custom in prediction, are then another network: one that knows
nothing of how bright the image at hand is. So the statistics are measured on the image, on parts of the size of a
training tile that are spread over it and seen together, and hold for all of it: unlike instance normalisation, this
leaves no seam between tiles.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ubend.method.geometry import mirror
from ubend.method.network import UNet, count_parameters, for_prediction, measure_statistics, training_statistics
from ubend.method.resampling import averaged
from ubend.run.contract import Contract
from ubend.run.recipe import Recipe

MOST_PARTS = 2
"""Along rows and along columns: four parts of an image are seen at most."""
SURER, SURE = 0.03, 0.85
"""An image goes by its own statistics where the mean probability of what the network finds in it is higher by so much
than by those of the training, and at least so high, and it still finds half as much. In noise it finds things by its
own, but is not sure of them (docs/benchmarks.md)."""
FIXED_BYTES = 8 << 20
"""Of measuring, beside its maps and weights."""

Read = Callable[[slice, slice], NDArray[Any]]
"""Gives the channels of a part of an image, shape (channels, rows, columns)."""


def adapts(contract: Contract) -> bool:
    """Whether a model measures each image before it predicts it."""
    return contract.statistics == "image" and contract.network.normalisation == "batch"


def statistics_for(recipe: Recipe) -> Literal["training", "image"]:
    """Say by which statistics a model is to work that a recipe has trained.

    Where a step has several tiles, training has had the statistics of all together, which its averages are nearer to
    than what one image gives.

    Examples
    --------
    >>> from ubend.run.recipe import load_recipe
    >>> default = load_recipe("default")
    >>> default.prediction.statistics, default.tiles.batch, statistics_for(default)
    ('image', 1, 'image')
    """
    works = recipe.tiles.batch == 1 and recipe.network.normalisation == "batch"
    return recipe.prediction.statistics if works else "training"


def network_for_image(
    net: UNet, contract: Contract, pixels: NDArray[Any], offset: NDArray[np.float32], gain: NDArray[np.float32]
) -> UNet:
    """Return the network that predicts an image: `network.for_prediction`, by the statistics of the image.

    Parameters
    ----------
    net : UNet
        As trained, or from `network.for_prediction`, which is returned as it is.
    contract : Contract
    pixels : ndarray, shape (channels, rows, columns)
        The whole image.
    offset, gain : ndarray of float32, shape (channels, 1, 1)
        Its normalisation.

    Returns
    -------
    UNet
        On the device of `net`.
    """
    if net.config == replace(net.config, padding="none", normalisation="none", dropout=0.0):
        return net
    found = None
    if adapts(contract):
        found = measure_image(net, contract, pixels.shape[1:], lambda r, c: pixels[:, r, c], offset, gain)
    return on_device_of(net, for_prediction(net, found))


def on_device_of(net: UNet, other: UNet) -> UNet:
    """Move another network to the device of one, in the order of memory in which it predicts."""
    device = next(net.parameters()).device
    return other.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def measure_image(
    net: UNet,
    contract: Contract,
    shape: tuple[int, ...],
    read: Read,
    offset: NDArray[np.float32],
    gain: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Measure the statistics of an image; where the network is not surer by them, return the averages of the training.

    By its own statistics, noise alone would look as rich as an image full of cells, and cells would be found in it.

    Parameters
    ----------
    net : UNet
        As trained.
    contract : Contract
    shape : (int, int)
        Rows and columns of the image.
    read : callable
        Gives a part of the image.
    offset, gain : ndarray of float32, shape (channels, 1, 1)

    Returns
    -------
    ndarray of float32
        For `network.for_prediction`.
    """
    coarse, device = contract.network.coarse, next(net.parameters()).device
    side = contract.recipe.tiles.size << coarse
    offset, gain = offset.reshape(-1, 1, 1), gain.reshape(-1, 1, 1)

    def tile(top: int, left: int) -> torch.Tensor:
        rows, columns = (
            mirror(np.arange(first, first + side), length) for first, length in zip((top, left), shape, strict=True)
        )
        part = read(slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        part = averaged(part.take(rows - rows.min(), axis=1).take(columns - columns.min(), axis=2), coarse)
        seen = torch.from_numpy((part.astype(np.float32) - offset) * gain)[None]
        return seen.to(device).contiguous(memory_format=torch.channels_last)

    places = [starts(length, side) for length in shape]
    found = measure_statistics(net, torch.cat([tile(top, left) for top in places[0] for left in places[1]]))
    sure, area = how_sure(found.scores, contract)
    sure_before, area_before = how_sure(found.by_training, contract)
    surer = sure >= max(SURE, sure_before + SURER) and area >= area_before / 2 > 0
    return found.statistics if surer and np.isfinite(found.statistics).all() else training_statistics(net)


def how_sure(scores: torch.Tensor, contract: Contract) -> tuple[float, int]:
    """Tell how probable what a network finds is to itself: the mean over its pixels, and their number.

    Parameters
    ----------
    scores : Tensor of float, shape (tiles, maps, rows, columns)
    contract : Contract

    Returns
    -------
    float, int
        Of the foreground alone where there is one: most of an image may be background, of which a network is sure that
        sees nothing. 0 and 0 where nothing is found.
    """
    classes = scores[:, :-1] if contract.learns_distance else scores
    highest, which = torch.softmax(classes, dim=1).max(dim=1)
    counted = highest if contract.task.kind == "classes" else highest[which > 0]
    return (float(counted.mean()), counted.numel()) if counted.numel() else (0.0, 0)


def measuring_bytes(contract: Contract, shape: tuple[int, ...]) -> int:
    """Tell how many bytes measuring an image takes at its peak, above what the process held before; 0 if none is.

    Fitted to peaks of widths 8 to 32 and tiles of 128 to 384: 16 to 168 MB.
    """
    if not adapts(contract):
        return 0
    network, side = contract.network, contract.recipe.tiles.size
    parts: int = math.prod(len(starts(length, side << network.coarse)) for length in shape)
    maps = 4.3 * network.width + 3 * (network.in_channels << 2 * network.coarse) + 4 * network.classes
    values = parts * side**2 * maps
    return round(FIXED_BYTES + 4 * values) + 2 * weight_bytes(contract)


def weight_bytes(contract: Contract) -> int:
    """Tell what the network takes that is made for one image; 0 if there is none."""
    return 4 * count_parameters(contract.network) if adapts(contract) else 0


def starts(length: int, side: int) -> list[int]:
    """First pixels of parts of an image that are spread evenly from its one end to its other; of one the middle.

    Examples
    --------
    >>> starts(200, 256), starts(300, 256), starts(600, 256), starts(5000, 256)
    ([0], [22], [0, 344], [0, 4744])
    """
    number, rest = min(max(1, round(length / side)), MOST_PARTS), max(0, length - side)
    return [rest // 2] if number == 1 else [k * rest // (number - 1) for k in range(number)]

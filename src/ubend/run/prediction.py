"""Prediction: image → normalised → tiles → probabilities."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubend.errors import InputError, OutOfMemory
from ubend.method.augmentation import affine_about
from ubend.method.geometry import halo, nearest_valid_inputs, smallest_input_for
from ubend.method.network import NetworkConfig, UNet
from ubend.method.overlap_tile import predict_tiles
from ubend.method.resampling import resized, sample, sampling_grid
from ubend.run.batch_statistics import measuring_bytes, network_for_image, weight_bytes
from ubend.run.contract import Contract
from ubend.run.device import (
    autocast,
    free_memory,
    is_out_of_memory,
    kept_memory,
    mixed_precision,
    own_pages,
    resident_memory,
)
from ubend.run.memory import (
    KEPT,
    label_bytes,
    largest_tile_within,
    result_bytes,
    say_bytes,
    smallest_tile,
    tile_bytes,
)
from ubend.run.normalisation import channels_first

LARGEST_TILE = 1532
"""Rows and columns beyond which a larger tile saves little: the halo costs 9 % there. Stated memory may hold more."""
ROTATIONS = 7
"""Rotated versions of the input that the paper averages at test time."""
LIKE_SIZE = 1.1
"""Pixels larger or smaller by a factor up to this count as those trained on."""
LARGEST_SCALE = 10
"""Nobody trains at a tenth of the size wanted: a pixel size in other units is likelier."""

OnTile = Callable[[int, int], None]
OnSmallerTile = Callable[[int, int], None]
"""Called with the tile that did not fit the memory and the smaller one that is tried instead."""
Views = Literal["one", "dihedral", "rotations"]
VIEWS: dict[Views, int] = {"one": 1, "dihedral": 8, "rotations": ROTATIONS}
"""How many of each there are."""


def predict_probabilities(
    network: UNet,
    contract: Contract,
    image: NDArray[Any],
    *,
    tile: int | None = None,
    memory: int | None = None,
    views: str | None = None,
    exact: bool = False,
    on_tile: OnTile | None = None,
    on_smaller_tile: OnSmallerTile | None = None,
) -> NDArray[np.float32]:
    """Give the probability of each class at each pixel; after them the distance, where a model has learned it.

    Parameters
    ----------
    network : UNet
        On its device: as trained, or from `network.for_prediction`, which works by the statistics it was made with.
    contract : Contract
        What the network was trained for.
    image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
    tile : int, optional
        Rows and columns a tile may have at most; without it what the memory allows. It changes time and memory,
        not the result.
    memory : int, optional
        Bytes that this process may hold at its peak, choosing labels counted too; on a GPU, bytes of its memory.
        The tile is the largest that fits. Without it a share of what is free is used.
    views : {"one", "dihedral", "rotations"}, optional
        Other views than the contract's.
    exact : bool
        Compute in float32 also where the device is faster in 16 bits.
    on_tile : callable, optional
        Called with (tiles done, tiles in all); with the rotated views once for each of them.
    on_smaller_tile : callable, optional
        Called with (tile, smaller tile) where memory runs out on the way and no tile was asked for: all tiles are
        then computed again, smaller.

    Returns
    -------
    ndarray of float32, shape (classes, rows, columns)
        Sums to 1 over the classes. With a learned distance, one map more: 0 on the border of a cell to 1 in its middle.

    Raises
    ------
    InputError
        If the image has other channels than the model, holds NaN, or the tile or the views are not possible.
    OutOfMemory
        If the tile asked for, or the image, does not fit; the message names what does.
    """
    pixels = channels_first(image, contract.network.in_channels)
    offset, gain = (value.reshape(-1, 1, 1) for value in contract.normalisation.offset_and_gain(pixels))
    device = next(network.parameters()).device
    sixteen_bits = not exact and mixed_precision(device) is not None
    chosen = views or contract.views
    if chosen not in get_args(Views):
        raise InputError(f"views is {' or '.join(map(repr, get_args(Views)))}, not {chosen!r}")
    shape = pixels.shape[1], pixels.shape[2]
    room = _Room(contract, shape, device, memory, sixteen_bits=sixteen_bits, views=chosen)
    network = room.network_for(network, pixels, offset, gain)
    budget = room.budget()
    largest = room.tile(tile, budget)

    def whole(part: NDArray[Any], on_tile: OnTile | None) -> NDArray[np.float32]:
        predict = partial(predict_part, network, contract, offset=offset, gain=gain, views=chosen, exact=exact)
        return predict_tiles(part, predict, depth=contract.network.depth, largest_tile=largest, on_tile=on_tile)

    def image_by(tile: int) -> NDArray[np.float32] | None:
        """Predict the image; None where memory runs out."""
        nonlocal largest
        largest = tile
        try:
            with kept_memory if room.may_keep(tile, budget) else own_pages():
                if chosen == "rotations":
                    return _mean_over_rotations(pixels, lambda part: whole(part, None), on_tile)
                return whole(pixels, on_tile)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    while (result := image_by(largest)) is None:
        smaller = next_smaller(contract.network, min(largest, smallest_input_for(max(shape), contract.network.depth)))
        if tile is not None or smaller is None:
            advice = f"; try --tile {smaller}" if smaller else ", and there is no smaller one"
            raise OutOfMemory(f"tiles of {largest} px do not fit the memory of {device}{advice}")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if on_smaller_tile is not None:
            on_smaller_tile(largest, smaller)
        largest = smaller
    return result


@torch.inference_mode()
def predict_part(
    network: UNet,
    contract: Contract,
    part: NDArray[Any],
    offset: NDArray[np.float32],
    gain: NDArray[np.float32],
    *,
    views: str | None = None,
    exact: bool = False,
) -> NDArray[np.float32]:
    """Apply a network to one tile, in one view or in 8.

    Parameters
    ----------
    network : UNet
        From `network.for_prediction`, on its device.
    contract : Contract
    part : ndarray, shape (channels, rows, columns)
        The tile with its context, in the dtype of the image; `overlap_tile.cut_tile`.
    offset, gain : ndarray of float32, shape (channels, 1, 1)
        Normalisation of the whole image.
    views : {"one", "dihedral", "rotations"}, optional
        Other views than the contract's. Of rotations, which turn the whole image, a tile is one.
    exact : bool
        Compute in float32 also where the device is faster in 16 bits.

    Returns
    -------
    ndarray of float32, shape (maps, rows − 2·halo, columns − 2·halo)
    """
    device = next(network.parameters()).device
    dtype = None if exact else mixed_precision(device)
    x = torch.from_numpy((part.astype(np.float32) - offset) * gain).unsqueeze(0).to(device)

    def one_view(quarter_turns: int, flip: bool) -> Tensor:
        seen = _turned(x, quarter_turns, flip).contiguous(memory_format=torch.channels_last)
        with autocast(device, dtype):
            scores = network(seen)
        return _turned_back(_to_probabilities(scores.float(), contract), quarter_turns, flip)

    first, *others = DIHEDRAL if (views or contract.views) == "dihedral" else DIHEDRAL[:1]
    total = one_view(*first)
    for view in others:
        total += one_view(*view)
    found: NDArray[np.float32] = total[0].div_(len(others) + 1).cpu().numpy()
    return found


def differs_in_size(contract: Contract, pixel_size: float | None) -> bool:
    """Whether the pixels of an image are known to be more than 10 % larger or smaller than those trained on."""
    if contract.pixel_size is None or pixel_size is None:
        return False
    return max(contract.pixel_size / pixel_size, pixel_size / contract.pixel_size) > LIKE_SIZE


def shape_for_model(contract: Contract, shape: tuple[int, int], pixel_size: float | None) -> tuple[int, int]:
    """Return the rows and columns that an image has with pixels of the size trained on.

    Parameters
    ----------
    contract : Contract
    shape : (int, int)
        Rows and columns of the image.
    pixel_size : float or None
        Micrometres a pixel of the image.

    Raises
    ------
    InputError
        If one of the two sizes is not known, or they are so far apart that one must be wrong.
    """
    check_resampling(contract)
    assert contract.pixel_size is not None  # else it was refused
    if pixel_size is None:
        raise InputError(
            f"the image does not say its pixel size, which --resample compares with the model's "
            f"{contract.pixel_size:g} µm: store it in the file, or leave --resample out"
        )
    scale = pixel_size / contract.pixel_size
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise InputError(
            f"pixels of {pixel_size:g} µm are more than {LARGEST_SCALE} times larger or smaller than the model's, "
            f"{contract.pixel_size:g} µm: one of the two is wrong, or the model is for other images"
        )
    rows, columns = (max(1, round(length * scale)) for length in shape)
    return rows, columns


def check_resampling(contract: Contract) -> None:
    """Raise InputError if the model does not know the pixel size of its training images."""
    if contract.pixel_size is None:
        raise InputError(
            "--resample needs the pixel size of the model, and its training images did not say theirs: train on files "
            "that do, or leave --resample out"
        )


def labels_resized(contract: Contract, labels: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[np.integer]:
    """Bring labels onto the pixels of the image; objects that no pixel is left of are not counted.

    Returns
    -------
    ndarray of unsigned int, shape `shape`
    """
    values: NDArray[np.integer] = resized(labels[None], shape, order=0)[0]
    if contract.task.kind != "instances":
        return values
    left = np.bincount(values.ravel(), minlength=1) > 0
    left[0] = False
    numbers: NDArray[np.integer] = (np.cumsum(left) * left).astype(labels.dtype)[values]
    return numbers


def _to_probabilities(scores: Tensor, contract: Contract) -> Tensor:
    if not contract.learns_distance:
        return soft_max(scores)
    return torch.cat([soft_max(scores[:, :-1]), scores[:, -1:].clamp(0, 1)], dim=1)


def soft_max(scores: Tensor) -> Tensor:
    """Soft-max over the classes, pixel by pixel: PyTorch's own rounds otherwise where threads divide an image."""
    exponentials = (scores - scores.amax(dim=1, keepdim=True)).exp_()
    return exponentials.div_(exponentials.sum(dim=1, keepdim=True))


DIHEDRAL = tuple((quarter_turns, flip) for flip in (False, True) for quarter_turns in range(4))


def _turned(x: Tensor, quarter_turns: int, flip: bool) -> Tensor:
    return torch.rot90(x.flip(-1) if flip else x, quarter_turns, (-2, -1))


def _turned_back(x: Tensor, quarter_turns: int, flip: bool) -> Tensor:
    x = torch.rot90(x, -quarter_turns, (-2, -1))
    return x.flip(-1) if flip else x


def _mean_over_rotations(
    image: NDArray[Any], predict: Callable[[NDArray[Any]], NDArray[np.float32]], on_view: OnTile | None
) -> NDArray[np.float32]:
    """Average over 7 versions of the image, rotated about its middle by multiples of 360°/7 (Section 4)."""
    shape = image.shape[1], image.shape[2]
    side = int(np.ceil(np.hypot(*shape))) + 2
    middle, canvas = ((shape[0] - 1) / 2, (shape[1] - 1) / 2), ((side - 1) / 2, (side - 1) / 2)
    total = predict(image)
    for number in range(1, ROTATIONS):
        if on_view is not None:
            on_view(number, ROTATIONS)
        angle = 2 * np.pi * number / ROTATIONS
        there = sampling_grid((side, side), affine=affine_about(middle, (side, side), angle=angle))
        seen = predict(sample(image, there, order=1).numpy())
        back = sampling_grid(shape, affine=affine_about(canvas, shape, angle=-angle))
        total += sample(seen, back, order=1).numpy()
    if on_view is not None:
        on_view(ROTATIONS, ROTATIONS)
    return (total / ROTATIONS).astype(np.float32)


@dataclass(frozen=True)
class _Room:
    """The memory that one image has for its tiles."""

    contract: Contract
    shape: tuple[int, int]
    device: torch.device
    memory: int | None
    sixteen_bits: bool
    views: str

    def tile(self, asked: int | None, budget: float) -> int:
        """Choose the largest tile that fits, or check the one asked for.

        No memory stated, half of what is free is left to the image; the tile is then so small that freed memory can be
        kept.
        """
        config = self.contract.network
        check_tile(config, asked)
        needed = smallest_input_for(max(self.shape), config.depth) if self.views != "rotations" else None
        fitting = self._largest_within(budget)
        if fitting is None:
            self._refuse(budget)
        if asked is not None:
            wanted = nearest_valid_inputs(min(asked, needed or asked), config.depth)[0]
            if wanted > fitting:
                raise OutOfMemory(
                    f"a tile of {asked} px needs about {say_bytes(self._bytes(wanted))}, and "
                    f"{say_bytes(max(budget, 0))} are free for it; --tile {fitting} fits"
                )
            return asked
        if self.memory is None:
            keeping = self._largest_within(budget / KEPT) if self.device.type == "cpu" else fitting
            fitting = min(keeping or fitting, max(LARGEST_TILE << config.coarse, smallest_tile(config)))
        return min(fitting, max(needed or fitting, smallest_tile(config)))

    def network_for(
        self, net: UNet, pixels: NDArray[Any], offset: NDArray[np.float32], gain: NDArray[np.float32]
    ) -> UNet:
        """Return `batch_statistics.network_for_image`, or say that measuring does not fit."""
        needed = measuring_bytes(self.contract, self.shape)
        if not needed:
            return network_for_image(net, self.contract, pixels, offset, gain)
        if self.memory is not None and self.device.type == "cpu" and needed > self.memory - resident_memory():
            self._refuse(0)
        try:
            with own_pages():
                return network_for_image(net, self.contract, pixels, offset, gain)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise OutOfMemory(f"measuring the image takes {say_bytes(needed)}, which {self.device} does not have")

    def may_keep(self, tile: int, budget: float) -> bool:
        """Whether freed memory can be kept, which is faster and takes more."""
        return KEPT * self._bytes(nearest_valid_inputs(tile, self.contract.network.depth)[0]) <= budget

    def budget(self) -> float:
        """Bytes for the tiles; negative if the image alone is too much."""
        free = free_memory(self.device)
        if self.memory is None:
            return free / 2
        if self.device.type != "cpu":
            return min(self.memory, free)
        left = min(self.memory - resident_memory(), free)
        labels = label_bytes(self.shape, instances=self.contract.task.kind == "instances")
        result = self._result_bytes()
        return left - result if result + labels <= left else -labels

    def _result_bytes(self) -> int:
        return result_bytes(self.contract.network, self.shape, rotations=self.views == "rotations")

    def _bytes(self, tile: int) -> int:
        views = VIEWS["dihedral"] if self.views == "dihedral" else 1
        return tile_bytes(self.contract.network, tile, sixteen_bits=self.sixteen_bits, views=views)

    def _largest_within(self, memory: float) -> int | None:
        views = VIEWS["dihedral"] if self.views == "dihedral" else 1
        return largest_tile_within(self.contract.network, memory, sixteen_bits=self.sixteen_bits, views=views)

    def _refuse(self, budget: float) -> NoReturn:
        smallest = smallest_tile(self.contract.network)
        tile = self._bytes(smallest)
        if self.memory is None:
            raise OutOfMemory(
                f"the smallest tile of this network, {smallest} px, needs {say_bytes(tile)}, and half of the "
                f"{say_bytes(2 * budget)} that are free is kept for the image"
            )
        if self.device.type != "cpu":
            raise OutOfMemory(
                f"the smallest tile of this network, {smallest} px, needs {say_bytes(tile)} of {self.device}"
            )
        labels = label_bytes(self.shape, instances=self.contract.task.kind == "instances")
        held, result = resident_memory(), self._result_bytes()
        measuring = measuring_bytes(self.contract, self.shape)
        least = 1.02 * (held + max(weight_bytes(self.contract) + result + max(labels, tile), measuring))
        measured = f", measuring the image {say_bytes(measuring)}" if measuring else ""
        raise OutOfMemory(
            f"an image of {self.shape[0]}×{self.shape[1]} px does not fit {say_bytes(self.memory)}: the program and "
            f"the image hold {say_bytes(held)}, the probabilities take {say_bytes(result)}, tiles at least "
            f"{say_bytes(tile)}, labels {say_bytes(labels)}{measured}; --memory {say_bytes(least, up=True)} would do"
        )


def choose_tile(
    contract: Contract, shape: tuple[int, int], device: torch.device, *, memory: int | None = None, exact: bool = False
) -> int:
    """Choose the tile as `predict_probabilities` does for an image of rows × columns.

    Raises
    ------
    OutOfMemory
        If the image does not fit.
    """
    sixteen_bits = not exact and mixed_precision(device) is not None
    room = _Room(contract, shape, device, memory, sixteen_bits=sixteen_bits, views=contract.views)
    return room.tile(None, room.budget())


def next_smaller(config: NetworkConfig, tile: int) -> int | None:
    """About half as many pixels; None if there is no smaller tile."""
    smaller = max(nearest_valid_inputs(int(0.7 * tile), config.depth)[0], smallest_tile(config))
    return smaller if smaller < tile else None


def check_tile(config: NetworkConfig, tile: int | None) -> None:
    """Raise InputError if the tile asked for is too small for a network."""
    smallest = smallest_tile(config)
    if tile is not None and tile < smallest:
        raise InputError(f"a tile of {tile} px is too small for this network; the smallest is {smallest}")


def margin(config: NetworkConfig) -> int:
    """Return what a network in training loses at each side of a tile."""
    return halo(config.core.depth) if config.padding == "none" else 0

"""Training tiles: which image, which place, which augmentation, all given by (seed, step, sample).

There is no global state and no order to remember: any tile can be made again from its three numbers, on any machine
and by any number of workers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubend.errors import InputError
from ubend.method.augmentation import AugmentationConfig, Tile, augment, draw_augmentation

ANCHORS = 4096
"""Pixels of each class that an image remembers as places for a tile."""


@dataclass(frozen=True)
class TrainingImage:
    """An annotated image, ready to be cut into tiles; made by `training_image`.

    Attributes
    ----------
    image : ndarray, shape (channels, rows, columns)
        In the dtype of its file.
    offset, gain : ndarray of float32, shape (channels, 1, 1)
        (image − offset)·gain is what the network sees.
    classes : ndarray of int16, shape (rows, columns)
        True class of each pixel, negative where not labelled.
    weights : ndarray of float32, shape (rows, columns), or None
        w(x).
    distance : ndarray of float32, shape (rows, columns), or None
        `relative_distance.relative_distance`, where it is to be learned.
    anchors : tuple of ndarray of int64
        Some flat positions of each class that occurs.
    unevenness : float
        How much its background varies over it, of its standard deviation (`augmentation.unevenness`).
    """

    image: NDArray[Any]
    offset: NDArray[np.float32]
    gain: NDArray[np.float32]
    classes: NDArray[np.int16]
    weights: NDArray[np.float32] | None
    distance: NDArray[np.float32] | None
    anchors: tuple[NDArray[np.int64], ...]
    unevenness: float = 0.0


@dataclass(frozen=True)
class Batch:
    """What one training step works on.

    Attributes
    ----------
    images : Tensor of float32, shape (batch, channels, tile, tile)
    labels : Tensor of int64, shape (batch, tile − 2·margin, tile − 2·margin)
    weights, distance : Tensor of float32 of the same shape, or None
    """

    images: Tensor
    labels: Tensor
    weights: Tensor | None
    distance: Tensor | None


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """How tiles are drawn.

    Attributes
    ----------
    size : int
        Rows and columns of a tile as it enters the network.
    batch : int
        Tiles a step.
    aimed : float
        Share of the tiles whose middle is a pixel of a class drawn evenly from those of the image, so that rare
        classes are seen; the others lie anywhere.
    """

    size: int = 256
    batch: int = 4
    aimed: float = 0.33

    def __post_init__(self) -> None:
        if self.size < 1 or self.batch < 1 or not 0 <= self.aimed <= 1:
            raise InputError(
                f"tiles need size >= 1, batch >= 1 and aimed from 0 to 1, not {self.size}, {self.batch}, {self.aimed}"
            )


def training_image(
    image: NDArray[Any],
    classes: NDArray[np.integer],
    weights: NDArray[np.float32] | None = None,
    distance: NDArray[np.float32] | None = None,
    *,
    offset: NDArray[np.float32],
    gain: NDArray[np.float32],
    unevenness: float = 0.0,
) -> TrainingImage:
    """Collect what the tiles of one image need.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
    classes : ndarray of int, shape (rows, columns)
        Negative where a pixel is not labelled.
    weights, distance : ndarray of float32, shape (rows, columns), optional
    offset, gain : ndarray of float32, shape (channels,)
        The normalisation of this image.
    unevenness : float
        How much its background varies over it (`augmentation.unevenness`).

    Returns
    -------
    TrainingImage
    """
    anchors = []
    for number in np.unique(classes[classes >= 0]):
        found = np.flatnonzero(classes == number)
        anchors.append(found[:: -(-found.size // ANCHORS)])
    return TrainingImage(
        image=image,
        offset=np.asarray(offset, np.float32).reshape(-1, 1, 1),
        gain=np.asarray(gain, np.float32).reshape(-1, 1, 1),
        classes=classes.astype(np.int16),
        weights=weights,
        distance=distance,
        anchors=tuple(anchors),
        unevenness=unevenness,
    )


def draw_tile(
    images: Sequence[TrainingImage],
    tiles: TileConfig,
    augmentation: AugmentationConfig,
    *,
    margin: int,
    key: tuple[int, int, int],
) -> Tile:
    """Make one tile; the same key makes the same.

    In one round every image gives as many tiles as it takes to cover it, in an order drawn anew for each round.

    Parameters
    ----------
    images : sequence of TrainingImage
    tiles : TileConfig
    augmentation : AugmentationConfig
    margin : int
        Pixels that an unpadded network loses at each side.
    key : (int, int, int)
        Seed, step, and which sample of the step.

    Returns
    -------
    Tile
    """
    seed, step, sample = key
    turns = np.repeat(np.arange(len(images)), [_tiles_to_cover(image, tiles.size - 2 * margin) for image in images])
    epoch, place = divmod(step * tiles.batch + sample, len(turns))
    order = np.random.default_rng((seed, epoch, 0, 1)).permutation(turns)  # 4 numbers: no stream of a tile
    source = images[order[place]]
    rng = np.random.default_rng(key)
    shape = (tiles.size, tiles.size)
    like = images[int(rng.integers(len(images)))]  # whose light the tile is seen in
    draw = draw_augmentation(rng, augmentation, shape, unevenness=like.unevenness)
    centre = _centre(rng, source, tiles, tiles.size - 2 * margin)
    maps = source.weights, source.distance
    tile = augment(draw, source.image, source.classes, *maps, centre=centre, shape=shape, margin=margin)
    tile.image.sub_(torch.from_numpy(source.offset)).mul_(torch.from_numpy(source.gain))
    return tile


def _tiles_to_cover(image: TrainingImage, output: int) -> int:
    """Tiles that have as many pixels as the image: a large one has more to teach, but none is left out."""
    return max(1, round(image.classes.size / output**2))


def _centre(rng: np.random.Generator, source: TrainingImage, tiles: TileConfig, output: int) -> tuple[float, float]:
    """Draw where in the image the middle of a tile lies."""
    rows, columns = source.classes.shape
    if source.anchors and rng.random() < tiles.aimed:
        anchors = source.anchors[rng.integers(len(source.anchors))]
        anchor = divmod(int(anchors[rng.integers(anchors.size)]), columns)
        return anchor[0] + rng.uniform(-0.5, 0.5), anchor[1] + rng.uniform(-0.5, 0.5)
    inset = [min(output, length) / 4 for length in (rows, columns)]  # at most a quarter lies beyond the border
    row, column = (rng.uniform(i, length - i) for i, length in zip(inset, (rows, columns), strict=True))
    return row, column


def draw_batch(
    images: Sequence[TrainingImage],
    tiles: TileConfig,
    augmentation: AugmentationConfig,
    *,
    margin: int,
    seed: int,
    step: int,
    samples: Iterable[int] | None = None,
) -> Batch:
    """Make the tiles of one step.

    Parameters
    ----------
    images : sequence of TrainingImage
    tiles : TileConfig
    augmentation : AugmentationConfig
    margin, seed, step : int
        As for `draw_tile`.
    samples : iterable of int, optional
        Those that one of several processes computes; without it all.

    Returns
    -------
    Batch
    """
    drawn = [
        draw_tile(images, tiles, augmentation, margin=margin, key=(seed, step, sample))
        for sample in (range(tiles.batch) if samples is None else samples)
    ]
    weights = [tile.weights for tile in drawn if tile.weights is not None]
    distance = [tile.distance for tile in drawn if tile.distance is not None]
    return Batch(
        images=torch.stack([tile.image for tile in drawn]),
        labels=torch.stack([tile.labels for tile in drawn]),
        weights=torch.stack(weights) if weights else None,
        distance=torch.stack(distance) if distance else None,
    )

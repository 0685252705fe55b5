"""Data augmentation: shift, rotation, flip, gray values and elastic deformation (Ronneberger et al. 2015, Section 3.1).

One draw fixes everything random; one resampling then reads image, labels and weights at the same positions. Image and
weights are interpolated linearly, labels take the nearest pixel, and beyond the border the image is mirrored.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubend.errors import InputError
from ubend.method.elastic import Bend, draw_elastic
from ubend.method.resampling import sample, sampling_grid, smooth_field

SHADING_POINTS = 3
"""Control points along each axis on which the brightness of a tile, and haze over it, changes."""
PARTS, LEAST_BACKGROUND, LOOKED_AT = 4, 100, 512
"""Parts along each axis in which the background of an image is looked at; pixels of it that a part must have; rows and
columns that are looked at of a large image, at least."""
EVEN = 0.1
"""Standard deviation of an even background from part to part, of that of the image: noise, and the glow of cells."""
MOST_HAZE = 1.0
"""Standard deviation of haze at the most, of that of the tile: more than the image shows of itself would drown it."""


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How far augmentation goes; 0 switches a part off.

    Attributes
    ----------
    elastic_points : int
        Control points an axis (`elastic.draw_elastic`).
    elastic_sigma : float
        Standard deviation of their displacement, in pixels.
    rotation : float
        Largest angle in degrees, either way.
    flip : bool
        Mirror half of the samples.
    zoom : float
        Largest factor of magnification, or of its inverse; 1 leaves the size as it is.
    contrast : float
        Largest relative change of the contrast.
    brightness : float
        Largest shift, as a share of the tile's standard deviation.
    gamma : float
        Largest exponent of the gray-value curve, or of its inverse; 1 leaves the curve straight.
    noise : float
        Largest standard deviation of added Gaussian noise as a share of the tile's standard deviation; little noise is
        drawn more often than much.
    shading : float
        Standard deviation of the logarithm of a brightness that changes smoothly over the tile, drawn on a grid of 3×3
        points as the elastic deformation is.
    haze : float
        A light that changes as smoothly is added or taken away; at the control points it is drawn with a standard
        deviation of haze · `unevenness` of one of the annotated images, 1 at the most, times that of the tile's values,
        of each channel.
    copies : int
        Times that an image of single cells is trained on once more with copies of its cells beside others
        (`copy_paste.copy_paste`).
    """

    elastic_points: int = 3
    elastic_sigma: float = 10.0
    rotation: float = 180.0
    flip: bool = True
    zoom: float = 1.0
    contrast: float = 0.3
    brightness: float = 0.3
    gamma: float = 1.3
    noise: float = 0.0
    shading: float = 0.0
    haze: float = 0.0
    copies: int = 0

    def __post_init__(self) -> None:
        if self.elastic_sigma > 1000 or self.elastic_points > 100 or self.copies > 100:
            raise InputError(
                "elastic_sigma of the augmentation is at most 1000 px, elastic_points and copies at most 100"
            )
        for name in ("elastic_sigma", "rotation", "contrast", "brightness", "noise", "shading", "haze", "copies"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} of the augmentation is 0 or more, not {getattr(self, name)}")
        if self.contrast >= 1:
            raise InputError(f"contrast of the augmentation is below 1, not {self.contrast}")
        if self.zoom < 1 or self.gamma < 1 or self.elastic_points < 1:
            raise InputError("zoom, gamma and elastic_points of the augmentation are 1 or more")


@dataclass(frozen=True)
class Augmentation:
    """Everything random about one sample.

    Attributes
    ----------
    bend : Bend
        The elastic part.
    angle : float
        Rotation in radians.
    flip : bool
        Whether columns are mirrored.
    zoom, gain, offset, gamma, noise : float
        Drawn values of what `AugmentationConfig` limits.
    noise_seed : int
        Seed of the noise.
    shading : ndarray of float64, shape (3, 3)
        Logarithm of the brightness at the control points.
    haze : ndarray of float64, shape (3, 3)
        Light that is added at the control points, in standard deviations of the tile.
    """

    bend: Bend
    angle: float
    flip: bool
    zoom: float
    gain: float
    offset: float
    gamma: float
    noise: float
    noise_seed: int
    shading: NDArray[np.float64]
    haze: NDArray[np.float64]


def draw_augmentation(
    rng: np.random.Generator, config: AugmentationConfig, shape: tuple[int, int], *, unevenness: float = 0.0
) -> Augmentation:
    """Draw one augmentation for a tile.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness.
    config : AugmentationConfig
    shape : (int, int)
        Rows and columns of the tile.
    unevenness : float
        Of the background of an image like those to come, for the haze.

    Returns
    -------
    Augmentation

    Examples
    --------
    >>> import numpy as np
    >>> draw = draw_augmentation(np.random.default_rng(0), AugmentationConfig(rotation=10), (64, 64))
    >>> bool(abs(draw.angle) <= np.deg2rad(10))
    True
    """
    return Augmentation(
        bend=draw_elastic(rng, shape, points=config.elastic_points, sigma=config.elastic_sigma),
        angle=float(np.deg2rad(rng.uniform(-config.rotation, config.rotation))),
        flip=bool(config.flip and rng.random() < 0.5),
        zoom=_around_one(rng, config.zoom),
        gain=float(1 + rng.uniform(-config.contrast, config.contrast)),
        offset=float(rng.uniform(-config.brightness, config.brightness)),
        gamma=_around_one(rng, config.gamma),
        noise=float(config.noise * rng.random() ** 2),
        noise_seed=int(rng.integers(2**32)),
        shading=rng.normal(0.0, config.shading, size=(SHADING_POINTS, SHADING_POINTS)),
        haze=rng.normal(0.0, min(config.haze * unevenness, MOST_HAZE), size=(SHADING_POINTS, SHADING_POINTS)),
    )


def unevenness(image: NDArray[Any], labels: NDArray[np.integer]) -> float:
    """Measure how much the background of an image varies over it: haze, or light from one side.

    The standard deviation of its brightness over the 4×4 parts of the image, as a share of that of all labelled gray
    values; what an even background has of it, 0.1, is taken off. Brightness is the mean of the middle half of the
    values, so that the glow of cells and debris in a corner count little.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
        Of any real dtype.
    labels : ndarray of int, shape (rows, columns)
        0 is background, negative is not labelled and does not count.

    Returns
    -------
    float
        Of the most uneven channel. 0 for an even background, and where there is nothing else than background, or fewer
        than four parts with 100 pixels of it: noise would pass for light.

    Examples
    --------
    >>> labels = np.zeros((64, 64), np.uint8)
    >>> labels[20:40, 20:40] = 1
    >>> ramp = np.arange(64.0) * np.ones((1, 64, 1))
    >>> round(unevenness(ramp, labels), 1), unevenness(ramp % 2, labels)
    (0.9, 0.0)
    """
    step = max(1, min(labels.shape) // LOOKED_AT)
    image, labels = image[:, ::step, ::step], labels[::step, ::step]
    if not (labels > 0).any():
        return 0.0
    of_rows, of_columns = (np.linspace(0, length, PARTS + 1).astype(int) for length in labels.shape)
    parts = [(slice(*rows), slice(*columns)) for rows in pairwise(of_rows) for columns in pairwise(of_columns)]
    parts = [part for part in parts if np.count_nonzero(labels[part] == 0) >= LEAST_BACKGROUND]
    if len(parts) < PARTS:
        return 0.0
    found = [0.0]
    for channel in image:
        spread = float(channel[labels >= 0].std(dtype=np.float64))
        brightness = [_middle_half(channel[part][labels[part] == 0]) for part in parts]
        if spread > 0:
            found.append(float(np.std(brightness)) / spread - EVEN)
    return max(found)


def _middle_half(values: NDArray[Any]) -> float:
    """Mean of the values between the quarters; of integers it does not leap as a median does."""
    quarter = values.size // 4
    return float(np.sort(values)[quarter : values.size - quarter].mean(dtype=np.float64))


def _around_one(rng: np.random.Generator, limit: float) -> float:
    """Draw a factor from 1/limit to limit, evenly on a logarithmic scale."""
    return float(np.exp(rng.uniform(-np.log(limit), np.log(limit))))


def affine_about(
    centre: tuple[float, float], shape: tuple[int, int], *, angle: float, flip: bool = False, zoom: float = 1.0
) -> NDArray[np.float64]:
    """Map (row, column, 1) of a tile to the image.

    Parameters
    ----------
    centre : (float, float)
        Row and column of the image that the tile's middle comes to.
    shape : (int, int)
        Rows and columns of the tile.
    angle : float
        By which the tile is turned, in radians.
    flip : bool
        Whether it is mirrored.
    zoom : float
        By which it is magnified.

    Returns
    -------
    ndarray of float64, shape (2, 3)
    """
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([1.0, -1.0 if flip else 1.0])
    middle = (np.array(shape) - 1) / 2
    return np.column_stack([turn, np.asarray(centre) - turn @ middle])


class Tile(NamedTuple):
    """A piece of an annotated image, as training sees it.

    Attributes
    ----------
    image : Tensor of float32, shape (channels, rows, columns)
    labels : Tensor of int64, shape (rows − 2·margin, columns − 2·margin)
    weights, distance : Tensor of float32 of the shape of the labels, or None
    """

    image: Tensor
    labels: Tensor
    weights: Tensor | None
    distance: Tensor | None


def augment(
    draw: Augmentation,
    image: NDArray[Any],
    labels: NDArray[Any],
    weights: NDArray[np.float32] | None = None,
    distance: NDArray[np.float32] | None = None,
    *,
    centre: tuple[float, float],
    shape: tuple[int, int],
    margin: int = 0,
) -> Tile:
    """Read one tile of an image, with its labels, weights and distances, through one augmentation.

    Parameters
    ----------
    draw : Augmentation
        From `draw_augmentation`.
    image : ndarray, shape (channels, rows, columns)
        The whole image, of any dtype.
    labels : ndarray of int, shape (rows, columns)
        Its labels.
    weights : ndarray of float32, shape (rows, columns), optional
        Its weights.
    distance : ndarray of float32, shape (rows, columns), optional
        Its relative distances, which do not depend on the size of a cell and so need not be computed anew.
    centre : (float, float)
        Row and column of the image in the middle of the tile: the shift.
    shape : (int, int)
        Rows and columns of the tile.
    margin : int
        Pixels at each side of the tile for which an unpadded network returns nothing: all but the image leave
        them out.

    Returns
    -------
    Tile
        Gray values in the unit of the image.
    """
    affine = affine_about(centre, shape, angle=draw.angle, flip=draw.flip, zoom=draw.zoom)
    grid = sampling_grid(shape, affine=affine, displacements=draw.bend.displacements)
    inner = grid.without_border(margin)
    maps = (None if values is None else sample(values[None], inner, order=1)[0] for values in (weights, distance))
    return Tile(
        change_gray_values(draw, sample(image, grid, order=1)), sample(labels[None], inner, order=0)[0].long(), *maps
    )


def change_gray_values(draw: Augmentation, tile: Tensor) -> Tensor:
    """Vary shading, haze, contrast, brightness, curve and noise of a tile, in its own unit and about its own mean.

    Parameters
    ----------
    draw : Augmentation
        From `draw_augmentation`.
    tile : Tensor of float32, shape (channels, rows, columns)

    Returns
    -------
    Tensor of the same shape
    """
    if draw.shading.any():
        brightness = torch.from_numpy(smooth_field(draw.shading, (tile.shape[1], tile.shape[2]))).exp_()
        dark = tile.min()
        tile = (tile - dark).mul_(brightness).add_(dark)
    if draw.haze.any():
        haze = torch.from_numpy(smooth_field(draw.haze, (tile.shape[1], tile.shape[2])))
        tile = tile + haze * tile.std((1, 2), correction=0, keepdim=True)
    if draw.gamma != 1:
        least, most = torch.aminmax(tile)
        span = (most - least).clamp(min=1e-12)
        tile = ((tile - least) / span).pow_(draw.gamma).mul_(span).add_(least)
    mean, spread = tile.mean(), tile.std(correction=0)
    tile = (tile - mean).mul_(draw.gain).add_(mean + draw.offset * spread)
    if draw.noise > 0:
        generator = torch.Generator().manual_seed(draw.noise_seed)
        tile.add_(torch.randn(tile.shape, generator=generator).mul_(draw.noise * spread))
    return tile

"""What the images trained on looked like, and how far another image is from them.

Of each channel five numbers are taken: how far its values extend, how bright most of it is, its noise, its focus, and
whether details are bright on dark or dark on bright. All but the first stay as they are when the values of an image are
multiplied or shifted, as normalisation does it. A model keeps their range over its training images (`Reference`). The
drift of another image is how far outside that range it lies, in units of the spread that the training images have among
each other, of which a least is assumed: there may be only one.

The numbers are those of a sample: every n-th pixel for the values, and up to 16 windows at full resolution for what
neighbouring pixels have to do with each other. So they cost the same for an image of any size.
`benchmarks/drift.py` measures how often images of the same kind are taken for others, and others for the same kind.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FLOORS",
    "LIKE_DIAMETER",
    "LIMIT",
    "ChannelStatistics",
    "Difference",
    "Drift",
    "ImageStatistics",
    "Reference",
    "Spread",
    "compare",
    "diameter_factor",
    "image_statistics",
    "median_diameter",
    "reference_of",
    "sampled_statistics",
    "spread_of",
]

LIMIT = 2.0
"""An image that has drifted further looks unlike those trained on."""
FLOORS = {"extent": 1.0, "brightness": 0.1, "noise": 0.75, "sharpness": 0.6, "polarity": 0.6}
"""The least spread that training images count as having, in the units of `ChannelStatistics`."""
ONE_IMAGE = 1.5
"""How much larger it is of a single image, which shows nothing of their spread."""
LIKE_DIAMETER = 2.0
"""Objects larger or smaller than all trained on, by more than this factor, are those of another magnification."""
FEWEST_OBJECTS = 5
"""From so many objects on an image has a median diameter."""
MOST_IMAGES = 64
"""Of more training images so many are looked at."""
VALUES = 2**16
"""About how many pixels the percentiles are taken from."""
WINDOW, WINDOWS = 128, 4
"""Rows and columns of a window, and how many there are along each side of a large image."""
FAR = 8
"""Pixels that the structure of an image is looked at across; twice the distance at which detail is."""
LEVELS = (1.0, 50.0, 99.8)
"""Percentiles of the values: the darkest, the middle, the brightest."""
TINY = 1e-9
SKEWED = 0.1
"""Skewness from which on it counts as its logarithm: it has no upper end."""
MOST_ORDERED = 4
"""Channels of which all orders are tried."""

ReadWindow = Callable[[slice, slice], NDArray[Any]]
"""Gives (channels, rows, columns) of an image."""


@dataclass(frozen=True)
class ChannelStatistics:
    """How one channel of an image looks.

    Attributes
    ----------
    low, high : float
        1st and 99.8th percentile of its values.
    extent : float
        log2 of high − low.
    brightness : float
        Where the median lies between the two, 0 to 1.
    noise : float
        log2 of the standard deviation that white noise would need for the mixed differences of neighbouring pixels, as
        a share of high − low: the lower the contrast to noise, the higher.
    sharpness : float
        log2 of the root mean square of mixed second differences over 2 pixels, over that of differences over 8: low
        where the image is out of focus or enlarged.
    polarity : float
        Above 0 where details are brighter than what is around them, below 0 where they are darker: the inverse
        hyperbolic sine of ten times the skewness of the difference between a pixel and the mean of four, 4 pixels away.
    """

    low: float
    high: float
    extent: float
    brightness: float
    noise: float
    sharpness: float
    polarity: float


@dataclass(frozen=True)
class ImageStatistics:
    """How an image looks.

    Attributes
    ----------
    dtype : str
        Of its values.
    channels : tuple of ChannelStatistics
    """

    dtype: str
    channels: tuple[ChannelStatistics, ...]


@dataclass(frozen=True)
class Spread:
    """One number over several images.

    Attributes
    ----------
    median, least, most : float
    deviation : float
        Standard deviation, (n − 1) in its denominator; 0 of one image.
    """

    median: float
    least: float
    most: float
    deviation: float


@dataclass(frozen=True)
class Reference:
    """What the images that a model was trained on looked like.

    Attributes
    ----------
    images : int
        How many were looked at.
    dtypes : tuple of str
        All types of values there were.
    channels : tuple of dict of str to Spread
        For each channel the fields of `ChannelStatistics` over the images.
    diameters : Spread or None
        Of single objects: the median diameter in an image, in pixels of the disc of equal area, over the images. None
        where objects are not told apart.
    """

    images: int
    dtypes: tuple[str, ...]
    channels: tuple[dict[str, Spread], ...]
    diameters: Spread | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Reference":
        """Build from what `dataclasses.asdict` gives; a KeyError, TypeError or ValueError if that is damaged."""
        diameters = values["diameters"]
        channels = tuple({name: Spread(**channel[name]) for name in _NAMES} for channel in values["channels"])
        found = cls(
            images=int(values["images"]),
            dtypes=tuple(map(str, values["dtypes"])),
            channels=channels,
            diameters=None if diameters is None else Spread(**diameters),
        )
        spreads = [*itertools.chain(*(channel.values() for channel in channels)), found.diameters]
        if not all(math.isfinite(value) for one in spreads if one is not None for value in vars(one).values()):
            raise ValueError("reference: what the training images looked like is finite numbers")
        return found


_NAMES = tuple(one.name for one in fields(ChannelStatistics))


@dataclass(frozen=True)
class Difference:
    """One number in which an image is unlike those trained on.

    Attributes
    ----------
    name : str
        Key of `FLOORS`.
    channel : int
        From 0.
    away : float
        How far outside the range of the training images, in units of their spread; below 0 where it is too low.
    """

    name: str
    channel: int
    away: float


@dataclass(frozen=True)
class Drift:
    """How far an image is from those trained on.

    Attributes
    ----------
    score : float
        Root of the sum of squares of all that is away; of several channels the largest. 0 within the range.
    differences : tuple of Difference
        What is away by 1 or more, the furthest first.
    image : ImageStatistics
    order : tuple of int or None
        Which channel should stand first, second, … for the image to look like those trained on; None where its own
        order is as good as any, or no order helps.
    """

    score: float
    differences: tuple[Difference, ...]
    image: ImageStatistics
    order: tuple[int, ...] | None

    @property
    def is_far(self) -> bool:
        """Whether the image looks unlike those trained on."""
        return self.score > LIMIT


def image_statistics(image: NDArray[Any]) -> ImageStatistics:
    """Look at an image that is in memory.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
        Finite numbers, as in the file.

    Returns
    -------
    ImageStatistics

    Examples
    --------
    >>> ramp = np.arange(4096, dtype=np.uint16).reshape(1, 64, 64)
    >>> found = image_statistics(ramp)
    >>> found.dtype, round(found.channels[0].brightness, 2)
    ('uint16', 0.5)
    """
    step = max(1, math.isqrt(image.shape[1] * image.shape[2] // VALUES))
    return sampled_statistics(
        image[:, ::step, ::step], image.shape[1], image.shape[2], lambda rows, columns: image[:, rows, columns]
    )


def sampled_statistics(sample: NDArray[Any], rows: int, columns: int, read: ReadWindow) -> ImageStatistics:
    """Look at an image of which only parts are read.

    Parameters
    ----------
    sample : ndarray, shape (channels, …)
        Every n-th row and column of the image; thinned out further if it is large.
    rows, columns : int
        Of the image.
    read : callable
        From slices of rows and columns to the pixels there, (channels, rows, columns).

    Returns
    -------
    ImageStatistics
    """
    step = max(1, math.isqrt(sample[0].size // VALUES))
    wide = np.float64 if sample.dtype.itemsize > 4 else np.float32
    values: NDArray[Any] = sample[:, ::step, ::step].reshape(sample.shape[0], -1).astype(wide)
    percentiles = np.percentile(values, LEVELS, axis=1).T
    windows = [read(*place) for place in itertools.product(_spans(rows), _spans(columns))]
    channels = tuple(
        _channel(levels, float(one.max()), [window[number] for window in windows])
        for number, (levels, one) in enumerate(zip(percentiles, values, strict=True))
    )
    return ImageStatistics(sample.dtype.name, channels)


def _spans(length: int) -> list[slice]:
    """Cut out some windows of a long side, and all of a short one."""
    if length <= WINDOW * WINDOWS:
        return [slice(0, length)]
    return [slice(first, first + WINDOW) for first in np.linspace(0, length - WINDOW, WINDOWS).astype(int).tolist()]


def _channel(levels: NDArray[Any], largest: float, windows: Sequence[NDArray[Any]]) -> ChannelStatistics:
    low, middle, high = map(float, levels)
    high = high if high > low else largest  # all that is not background is very little
    width = high - low if high > low else 1.0
    sums = np.zeros(5)
    for window in windows:
        sums += _texture(_normalised(window, low, width))
    near, detail, far, square, cube = sums / len(windows)
    return ChannelStatistics(
        low=low,
        high=high,
        extent=math.log2(max(high - low, TINY)),
        brightness=(middle - low) / width,
        noise=math.log2(near + TINY) / 2,
        sharpness=math.log2((detail + TINY) / (far + TINY)) / 2,
        polarity=math.asinh(cube / (square + TINY) ** 1.5 / SKEWED),
    )


def _normalised(window: NDArray[Any], low: float, width: float) -> NDArray[np.float32]:
    """Bring the values to 0 to 1, cut off what lies far outside, and mirror what is too small."""
    missing = [(0, max(0, FAR + 1 - length)) for length in window.shape]
    if any(after for _, after in missing):
        window = np.pad(window, missing, mode="symmetric")
    wide = np.float64 if window.dtype.itemsize > 4 else np.float32  # large integers differ by less than float32 tells
    values: NDArray[Any] = window.astype(wide)
    values -= wide(low)
    values *= wide(1 / width)
    return np.clip(values, -0.5, 1.5, out=values).astype(np.float32, copy=False)


def _texture(pixels: NDArray[np.float32]) -> list[float]:
    """Return mean squares: of mixed differences over 1 and 2 pixels, of differences over 8; of bumps, and their cubes.

    The mixed difference of white noise has 4 times its variance, and there is none of an edge along rows or columns.
    """
    half = FAR // 2
    around = pixels[:-FAR, half:-half] + pixels[FAR:, half:-half]
    around += pixels[half:-half, :-FAR]
    around += pixels[half:-half, FAR:]
    bumps = pixels[half:-half, half:-half] - around / 4
    return [
        _mean_square(_mixed(pixels, 1)) / 4,
        _mean_square(_mixed(pixels, 2)) / 4,
        _mean_square(pixels[FAR:] - pixels[:-FAR]) + _mean_square(pixels[:, FAR:] - pixels[:, :-FAR]),
        _mean_square(bumps),
        float(np.vdot(bumps * bumps, bumps)) / bumps.size,
    ]


def _mixed(pixels: NDArray[np.float32], lag: int) -> NDArray[np.floating[Any]]:
    down = pixels[lag:] - pixels[:-lag]
    return np.asarray(down[:, lag:] - down[:, :-lag])


def _mean_square(values: NDArray[np.floating[Any]]) -> float:
    return float(np.vdot(values, values)) / values.size


def median_diameter(areas: NDArray[Any]) -> float | None:
    """Median diameter of the objects of an image, in pixels of the disc of equal area.

    Parameters
    ----------
    areas : ndarray, shape (objects,)
        Pixels of each object.

    Returns
    -------
    float or None
        None of fewer than 5 objects.

    Examples
    --------
    >>> round(median_diameter(np.array([100, 100, 100, 10, 9000])), 2)
    11.28
    """
    return None if areas.size < FEWEST_OBJECTS else float(np.sqrt(4 / np.pi * np.median(areas)))


def spread_of(values: Iterable[float]) -> Spread:
    """Summarise one number over several images."""
    found = np.array(list(values), np.float64)
    deviation = float(found.std(ddof=1)) if found.size > 1 else 0.0
    return Spread(float(np.median(found)), float(found.min()), float(found.max()), deviation)


def reference_of(images: Sequence[ImageStatistics], diameters: Sequence[float] = ()) -> Reference:
    """Summarise what several images look like.

    Parameters
    ----------
    images : sequence of ImageStatistics
        At least one; all of as many channels.
    diameters : sequence of float
        Median diameters of the objects of images, where there are objects.

    Returns
    -------
    Reference
    """
    channels = tuple(
        {name: spread_of(getattr(image.channels[number], name) for image in images) for name in _NAMES}
        for number in range(len(images[0].channels))
    )
    dtypes = tuple(sorted({image.dtype for image in images}))
    return Reference(len(images), dtypes, channels, spread_of(diameters) if diameters else None)


def compare(image: ImageStatistics, reference: Reference) -> Drift:
    """Say how far an image is from those trained on.

    Parameters
    ----------
    image : ImageStatistics
    reference : Reference
        Of as many channels.

    Returns
    -------
    Drift

    Examples
    --------
    >>> sharp, other = np.random.default_rng(0).random((2, 1, 64, 64))
    >>> reference = reference_of([image_statistics(sharp)])
    >>> compare(image_statistics(other), reference).is_far
    False
    >>> enlarged = sharp.repeat(8, axis=1).repeat(8, axis=2)
    >>> drift = compare(image_statistics(enlarged), reference)
    >>> drift.is_far, "sharpness" in [difference.name for difference in drift.differences]
    (True, True)
    """
    found = _differences(image.channels, reference)
    large = [one for one in itertools.chain(*found) if abs(one.away) >= 1]
    score = _score(found)
    order = _fitting_order(image, reference) if score > LIMIT else None
    return Drift(score, tuple(sorted(large, key=lambda one: -abs(one.away))), image, order)


def _differences(channels: Sequence[ChannelStatistics], reference: Reference) -> list[list[Difference]]:
    return [
        [
            Difference(name, number, _away(getattr(channel, name), known[name], floor, reference.images))
            for name, floor in FLOORS.items()
        ]
        for number, (channel, known) in enumerate(zip(channels, reference.channels, strict=True))
    ]


def _score(found: Sequence[Sequence[Difference]]) -> float:
    return max(math.hypot(*(one.away for one in channel)) for channel in found)


def _away(value: float, known: Spread, floor: float, images: int) -> float:
    """Say how far a value is outside its range; few images are likely to show less than their whole spread."""
    outside = min(value - known.least, 0.0) + max(value - known.most, 0.0)
    if images == 1:
        return outside / (ONE_IMAGE * floor)
    return outside / max(known.deviation * (images + 1) / (images - 1), floor)


def _fitting_order(image: ImageStatistics, reference: Reference) -> tuple[int, ...] | None:
    if not 1 < len(image.channels) <= MOST_ORDERED:
        return None
    orders = itertools.permutations(range(len(image.channels)))
    scores = {order: _score(_differences([image.channels[k] for k in order], reference)) for order in orders}
    best = min(scores, key=scores.__getitem__)
    return best if scores[best] <= LIMIT else None


def diameter_factor(diameter: float | None, reference: Reference) -> float:
    """By what factor objects are larger (above 1) or smaller (below 1) than all those trained on; 1 if they are not."""
    if diameter is None or reference.diameters is None:
        return 1.0
    known = reference.diameters
    return max(diameter / known.most, 1.0) if diameter > known.most else min(diameter / known.least, 1.0)

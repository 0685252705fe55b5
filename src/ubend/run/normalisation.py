"""From the array that a user gives to what the network sees: channels in their order, gray values near 0 to 1."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ubend.errors import InputError

SAMPLED_PIXELS = 2**20


@dataclass(frozen=True)
class Normalisation:
    """How gray values become numbers near 0 to 1; computed for each image as a whole, never for a tile.

    Attributes
    ----------
    kind : {"percentile", "range", "standardise"}
        See `recipe.PredictionConfig`.
    together : bool
        One scale for all channels, as colour needs; otherwise each channel has its own.
    low, high : float
        The percentiles that become 0 and 1, where `kind` is "percentile".
    """

    kind: Literal["percentile", "range", "standardise"]
    together: bool
    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        if self.kind not in ("percentile", "range", "standardise"):
            raise InputError(f"normalisation is percentile, range or standardise, not {self.kind!r}")
        if not 0 <= self.low < self.high <= 100:
            raise InputError(f"percentiles go from 0 up to 100, not from {self.low} to {self.high}")

    def offset_and_gain(self, image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return offset and gain of each channel, so that (image − offset)·gain is what the network sees.

        Parameters
        ----------
        image : ndarray, shape (channels, rows, columns)

        Returns
        -------
        offset, gain : ndarray of float32, shape (channels,)
            A constant image has the gain 1.
        """
        stride = self.stride(image.shape[1], image.shape[2])
        return self.of_sample(image if self.kind == "range" else image[:, ::stride, ::stride])

    def stride(self, rows: int, columns: int) -> int:
        """Every how many-th row and column of an image is looked at: enough to know its gray values."""
        return max(1, int(np.sqrt(rows * columns / SAMPLED_PIXELS)))

    def of_sample(self, image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return offset and gain from every `stride`-th row and column of an image."""
        channels = image.shape[0]
        if self.kind == "range":
            if image.dtype.kind == "f" and (image.min() < 0 or image.max() > 1):
                raise InputError(
                    f'normalisation = "range" takes float images from 0 to 1, these go from {image.min():g} to '
                    f'{image.max():g}; "percentile" or "standardise" take any'
                )
            largest = np.iinfo(image.dtype).max if image.dtype.kind in "iu" else 1.0
            return np.zeros(channels, np.float32), np.full(channels, 1 / largest, np.float32)
        values = image.reshape(1 if self.together else channels, -1).astype(np.float32)
        if self.kind == "percentile":
            low, high = np.percentile(values, (self.low, self.high), axis=1)
            high = np.where(high > low, high, values.max(1))  # all that is not background is very little
        else:
            low = values.mean(1, dtype=np.float64)
            high = low + values.std(1, dtype=np.float64)
        gain = 1 / np.where(high > low, high - low, 1.0)
        return tuple(np.broadcast_to(value.astype(np.float32), channels).copy() for value in (low, gain))  # type: ignore[return-value]


def channels_first(image: NDArray[Any], channels: int) -> NDArray[Any]:
    """Bring an image into the order (channels, rows, columns) and check that it has the channels of the model.

    Parameters
    ----------
    image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
    channels : int
        What the model was trained on. A colour image whose channels are all equal counts as gray.

    Raises
    ------
    InputError
        If the image has another shape or other channels, or is no array of finite numbers.
    """
    if image.dtype.kind not in "buif" or image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(
            f"an image is a non-empty array of real numbers, (rows, columns) or (rows, columns, channels); "
            f"came {image.dtype} {image.shape}"
        )
    if image.ndim == 2:
        image = image[..., None]
    elif image.shape[-1] != channels and image.shape[0] == channels:
        image = np.moveaxis(image, 0, -1)
    if channels == 1 and image.shape[-1] in (3, 4) and is_gray(image):
        image = image[..., :1]
    if image.shape[-1] != channels:
        raise InputError(
            f"the image has {count(image.shape[-1], 'channel')}, the model takes {channels}: "
            f"give images like those it was trained on"
        )
    if not_finite(image):
        raise InputError(
            f"the image is NaN or infinite at {count(not_finite(image), 'place')}: put numbers there, for example 0"
        )
    first = np.moveaxis(image, -1, 0)
    return first.astype(np.float32) if first.dtype.kind == "b" else first


def not_finite(image: NDArray[Any]) -> int:
    """Count the values that are NaN or infinite."""
    return int(image.size - np.count_nonzero(np.isfinite(image))) if image.dtype.kind == "f" else 0


def is_gray(image: NDArray[Any]) -> bool:
    """Whether the three colours of an image (rows, columns, 3 or 4) are equal."""
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())


def count(number: int, noun: str) -> str:
    """Say "1 channel", "3 channels"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")

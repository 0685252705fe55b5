"""What a score will be with more images: a power law through the scores of fewer, and how sure it is.

score(n) = a − b·n^(−c) with b ≥ 0, 0 < c ≤ 2, a ≤ 1: it rises ever more slowly towards a, which it never passes.
Errors of many learners fall so (Hestness et al. 2017). For a given c the best a and b are those of a straight line with
limits, so c is looked for on a grid and the rest follows exactly; thousands of resamples are fitted at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubend.errors import InputError

__all__ = ["FEWEST_SIZES", "MOST_EXTRAPOLATED", "PowerLaw", "fit"]

FEWEST_SIZES = 3
"""Three unknowns take three points."""
MOST_EXTRAPOLATED = 4
"""Times the largest size measured, beyond which nothing is said."""
_EXPONENTS = np.geomspace(0.05, 2.0, 30)
_HALVINGS = 6


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """One or many curves score(n) = a − b·n^(−c).

    Attributes
    ----------
    a, b, c : ndarray of float64, shape (curves,)
        The score that is approached, what one image lacks of it, and how fast that shrinks.
    largest : float
        The largest size measured.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    c: NDArray[np.float64]
    largest: float

    def at(self, sizes: ArrayLike) -> NDArray[np.float64]:
        """Return the scores, shape (curves, sizes).

        Raises
        ------
        InputError
            If a size is more than four times the largest that was measured.
        """
        n = np.asarray(sizes, dtype=np.float64)
        if n.size and n.max() > MOST_EXTRAPOLATED * self.largest:
            raise InputError(
                f"scores were measured with up to {self.largest:g} images: what {n.max():g} would bring they do not "
                f"tell; at most {MOST_EXTRAPOLATED * self.largest:g}"
            )
        scores: NDArray[np.float64] = self.a[:, None] - self.b[:, None] * n ** -self.c[:, None]
        return scores


def fit(sizes: ArrayLike, scores: ArrayLike, spread: ArrayLike | None = None) -> PowerLaw:
    """Fit a power law to each row of scores, by least squares within the limits of a, b and c.

    Parameters
    ----------
    sizes : array of float, shape (sizes,)
        Numbers of images; three or more.
    scores : array of float, shape (sizes,) or (curves, sizes)
    spread : array of float, shape (sizes,), optional
        Standard error of the score at each size: points that are less sure count less.

    Returns
    -------
    PowerLaw

    Raises
    ------
    InputError
        If there are fewer than three sizes.

    References
    ----------
    J. Hestness et al.: Deep learning scaling is predictable, empirically. 2017, arXiv:1712.00409.

    Examples
    --------
    >>> n = np.array([1, 2, 4, 8])
    >>> found = fit(n, 0.9 - 0.4 / n)
    >>> [round(float(value[0]), 2) for value in (found.a, found.b, found.c)]
    [0.9, 0.4, 1.0]
    >>> round(float(found.at([16])[0, 0]), 3)
    0.875
    """
    n, y = np.asarray(sizes, np.float64), np.atleast_2d(np.asarray(scores, np.float64))
    if n.size < FEWEST_SIZES:
        raise InputError(f"a power law takes scores at {FEWEST_SIZES} sizes at least, not {n.size}")
    weight = np.ones(n.size) if spread is None else _weights(np.asarray(spread, np.float64))
    best = np.full(len(y), np.inf)
    a, b, c = (np.zeros(len(y)) for _ in range(3))

    def attempt(exponent: NDArray[np.float64]) -> None:
        """Keep for each curve what fits better than all before."""
        power = n ** -exponent[:, None]
        for a_now, b_now in _lines_within_limits(power, y, weight):
            wrong = (weight * (y - a_now[:, None] + b_now[:, None] * power) ** 2).sum(axis=1)
            better = (wrong < best) & (b_now >= 0) & (a_now <= 1)
            for kept, new in ((best, wrong), (a, a_now), (b, b_now), (c, np.broadcast_to(exponent, len(y)))):
                kept[better] = new[better]

    for exponent in _EXPONENTS:
        attempt(np.array([exponent]))
    ratio = _EXPONENTS[1] / _EXPONENTS[0]
    for _ in range(_HALVINGS):  # between the best and its neighbours on the grid
        ratio = np.sqrt(ratio)
        middle = c.copy()
        for exponent in (middle / ratio, middle * ratio):
            attempt(np.clip(exponent, _EXPONENTS[0], _EXPONENTS[-1]))
    return PowerLaw(a, b, c, float(n.max()))


def _weights(spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weigh by 1/spread², but no point more than ten times the middle one: a spread is itself only estimated."""
    known = np.maximum(spread, max(float(np.median(spread)) / np.sqrt(10), 1e-6))
    weight = known**-2
    normed: NDArray[np.float64] = weight / weight.sum()
    return normed


def _lines_within_limits(
    power: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Give for y ≈ a − b·power the best a and b, those with a = 1, and those with b = 0: one is the solution."""
    total = weight.sum()
    mean_power, mean_y = (weight * power).sum(axis=1) / total, (weight * y).sum(axis=1) / total
    away = weight * (power - mean_power[:, None])
    slope = (away * (y - mean_y[:, None])).sum(axis=1) / (away * (power - mean_power[:, None])).sum(axis=1)
    at_limit = np.maximum((weight * power * (1 - y)).sum(axis=1) / (weight * power**2).sum(axis=1), 0)
    return [
        (mean_y - slope * mean_power, -slope),
        (np.ones(len(y)), at_limit),
        (np.minimum(mean_y, 1), np.zeros(len(y))),
    ]

"""How the scores of single images become one score, and how sure that one is.

Every score here is a ratio of two sums over the images. Pixels or objects may be counted over all images first, so that
a large image weighs more; or each image counts the same, and the sums are those of its score and of 1. The interval is
a percentile bootstrap over images (Efron 1979, doi:10.1214/aos/1176344552): pixels and objects of one image resemble
each other, so images, not pixels, are what is drawn again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CONFIDENCE", "FEWEST_IMAGES", "RESAMPLES", "Column", "PooledOver", "Score", "intervals", "mean_of_images"]

PooledOver = Literal["pixels", "objects", "classes", "images"]
"""What is summed over all images before the division; "classes": pixels of each class, whose scores are averaged then;
"images": the scores of the images themselves, so that it is their mean."""

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_IMAGES = 3
"""With fewer images that have something to score there is no interval."""

_SEED = 2015
_MOST_DRAWN = 2_000_000
"""Numbers drawn at once: bounds the memory for 10,000 images."""


@dataclass(frozen=True)
class Score:
    """What a score is called, what it means, and how its images are joined.

    Attributes
    ----------
    name : str
        Of the score over all images. What stands in brackets at its end says how they were joined, where there is a
        choice: "AP@0.5 (pooled)".
    meaning : str
        One line for a person who has not heard of it.
    pooled_over : {"pixels", "objects", "classes", "images"}
        See `PooledOver`.
    higher_is_better : bool
        False for errors and distances.
    of_class : int or None
        The label value, of a score of one class.

    Examples
    --------
    >>> Score("AP@0.5 (pooled)", "cells found", "objects").image_name
    'AP@0.5'
    """

    name: str
    meaning: str
    pooled_over: PooledOver
    higher_is_better: bool = True
    of_class: int | None = None

    @property
    def image_name(self) -> str:
        """What the score of a single image is called."""
        return self.name.split(" (")[0]


@dataclass(frozen=True, eq=False)
class Column:
    """One score of every image, as the two sides of a ratio.

    Attributes
    ----------
    score : Score
    numerator, denominator : ndarray of float64, shape (images, parts)
        Each part is a ratio of its own, and the score the mean of those that are not 0/0: the parts of a mean IoU are
        the classes. Most scores have one part.
    cost : bool
        The ratio is a cost; the score is 1 less the cost, and at least 0.
    fixed : float or None
        The score of all images, where it does not follow from the two sides. It has no interval.

    Examples
    --------
    >>> column = Column(Score("IoU", "overlap", "pixels"), np.array([[1.0], [0.0]]), np.array([[2.0], [8.0]]))
    >>> column.of_images().tolist(), column.overall()
    ([0.5, 0.0], 0.1)
    """

    score: Score
    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]
    cost: bool = False
    fixed: float | None = None

    def of_images(self) -> NDArray[np.float64]:
        """Return the score of each image, shape (images,); nan where there is nothing to score."""
        return self._value(self.numerator, self.denominator)

    def overall(self) -> float:
        """Return the score of all images; nan where there is nothing to score."""
        if self.fixed is not None:
            return self.fixed
        return float(self._value(self.numerator.sum(axis=0), self.denominator.sum(axis=0)))

    def resampled(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the overall score of other choices of the same images.

        Parameters
        ----------
        times : ndarray of float64, shape (resamples, images)
            How often each image was drawn.

        Returns
        -------
        ndarray of float64, shape (resamples,)
        """
        return self._value(times @ self.numerator, times @ self.denominator)

    def has_interval(self) -> bool:
        """Whether enough images have something to score."""
        scored = int((self.denominator > 0).any(axis=1).sum())
        return self.fixed is None and scored >= FEWEST_IMAGES and bool(np.isfinite(self.numerator).all())

    def _value(self, numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
        ratio = _divided(numerator, denominator)
        if self.cost:
            ratio = np.maximum(1 - ratio, 0)
        known = denominator > 0
        return _divided(np.where(known, ratio, 0).sum(axis=-1), known.sum(axis=-1))


def mean_of_images(score: Score, values: ArrayLike) -> Column:
    """Make the column of a score of which the images are averaged.

    Parameters
    ----------
    score : Score
    values : array of float, shape (images,)
        The score of each image; one that is nan has nothing to score and does not enter the mean.

    Returns
    -------
    Column

    Examples
    --------
    >>> mean_of_images(Score("AJI", "objects agree", "images"), [1.0, 0.5, np.nan]).overall()
    0.75
    """
    scores = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    known = ~np.isnan(scores)
    return Column(score, np.where(known, scores, 0.0), known.astype(np.float64))


def intervals(columns: Sequence[Column]) -> dict[str, tuple[float, float] | None]:
    """Say within which limits each overall score stays if the images are drawn anew from those at hand.

    Parameters
    ----------
    columns : sequence of Column
        All of the same images.

    Returns
    -------
    dict
        By the name of the score the limits of the middle 95 % of 2,000 resamples, the same at every call; None if
        fewer than three images have something to score.

    References
    ----------
    Efron 1979, "Bootstrap methods: another look at the jackknife", doi:10.1214/aos/1176344552.

    Examples
    --------
    Of 4 images of which one scores 0, three or more zeros in four draws are rare, none at all is not:

    >>> intervals([mean_of_images(Score("AJI", "objects agree", "images"), [1.0, 1.0, 1.0, 0.0])])
    {'AJI': (0.25, 1.0)}
    """
    enough = [column for column in columns if column.has_interval()]
    found: dict[str, tuple[float, float] | None] = {column.score.name: None for column in columns}
    if not enough:
        return found
    rounds = [[column.resampled(times) for column in enough] for times in _draws(len(enough[0].numerator))]
    outside = 100 * (1 - CONFIDENCE) / 2
    for column, *parts in zip(enough, *rounds, strict=True):
        low, high = np.nanpercentile(np.concatenate(parts), (outside, 100 - outside))
        found[column.score.name] = (float(low), float(high))
    return found


def _draws(images: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each image is drawn, (resamples, images) at a time."""
    rng = np.random.default_rng(_SEED)
    most = max(1, _MOST_DRAWN // images)
    for start in range(0, RESAMPLES, most):
        count = min(most, RESAMPLES - start)
        drawn = rng.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def _divided(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=np.asarray(denominator) > 0)
    return ratio

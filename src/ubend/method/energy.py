"""The energy: pixel-wise soft-max and weighted cross entropy (Ronneberger et al. 2015, Section 3, Eq. 1).

The soft-max over the scores a_k of K classes is p_k(x) = exp(a_k(x)) / Σ_k' exp(a_k'(x)), and the energy of a tile::

    E = −(1/n) Σ_x w(x) · ln p_l(x)(x)

with the true class l(x), the weight w(x) of Eq. 2, and n the number of pixels with w(x) > 0. The paper prints neither
the minus sign nor the scale; summed instead of averaged, the same learning rate acts 150,544 times as strongly on a
tile of 388×388.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""Sums a number of this process over all that share a batch; one process alone is its own total."""


def alone(value: Tensor) -> Tensor:
    """Return the total of one process.

    Parameters
    ----------
    value : Tensor

    Returns
    -------
    Tensor
        The same.
    """
    return value


def weighted_cross_entropy(
    scores: Tensor, labels: Tensor, weights: Tensor | None = None, *, total: Total = alone
) -> Tensor:
    """Mean over the labelled pixels of −w·ln p of the true class.

    Parameters
    ----------
    scores : Tensor of float, shape (batch, classes, rows, columns)
        Before the soft-max.
    labels : Tensor of int64, shape (batch, rows, columns)
        True classes 0..classes−1; negative where a pixel is not labelled.
    weights : Tensor of float, shape (batch, rows, columns), optional
        w(x) >= 0; 0 leaves a pixel out. Without weights all labelled pixels count 1.
    total : callable, optional
        Where several processes share a batch: sums over all of them.

    Returns
    -------
    Tensor of float32, shape ()
        0 if no pixel counts.

    Examples
    --------
    Undecided between two classes costs ln 2 a pixel:

    >>> scores, labels = torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64)
    >>> float(weighted_cross_entropy(scores, labels))  # doctest: +ELLIPSIS
    0.69314...
    """
    log_p = torch.log_softmax(scores.float(), dim=1)
    true_log_p = log_p.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    w = _labelled(labels, weights)
    return -total((w * true_log_p).sum()) / total((w > 0).sum().float()).clamp(min=1)


def dice_term(scores: Tensor, labels: Tensor, weights: Tensor | None = None, *, total: Total = alone) -> Tensor:
    """One minus the mean over the classes of the soft Dice overlap of a batch (Milletari et al. 2016).

    Parameters
    ----------
    scores, labels, weights, total
        As in `weighted_cross_entropy`; of the weights only whether they are 0 matters here. Classes that the batch
        does not contain are left out.

    Returns
    -------
    Tensor of float32, shape ()

    References
    ----------
    doi:10.1109/3DV.2016.79

    Examples
    --------
    >>> labels = torch.tensor([[[0, 1]]])
    >>> sure = torch.tensor([[[[50.0, -50.0]], [[-50.0, 50.0]]]])
    >>> float(dice_term(sure, labels))
    0.0
    """
    counted = (_labelled(labels, weights) > 0).float().unsqueeze(1)
    p = torch.softmax(scores.float(), dim=1) * counted
    truth = torch.zeros_like(p).scatter_(1, labels.clamp(min=0).unsqueeze(1), 1.0) * counted
    axes = (0, 2, 3)
    both, of_p, of_truth = total(torch.stack(((p * truth).sum(axes), p.sum(axes), truth.sum(axes))))
    present = of_truth > 0
    overlap = 2 * both / (of_p + of_truth).clamp(min=1e-6)
    return 1 - overlap[present].mean() if present.any() else scores.sum() * 0


def distance_term(predicted: Tensor, distance: Tensor, labels: Tensor, *, total: Total = alone) -> Tensor:
    """Mean over the labelled pixels of the absolute error of the distance to the border of a cell.

    Parameters
    ----------
    predicted : Tensor of float, shape (batch, rows, columns)
        As the network returns it.
    distance : Tensor of float, shape (batch, rows, columns)
        `relative_distance.relative_distance`, 0 to 1.
    labels : Tensor of int64, shape (batch, rows, columns)
        Negative where a pixel is not labelled.
    total : callable, optional
        As in `weighted_cross_entropy`.

    Returns
    -------
    Tensor of float32, shape ()
        0 if no pixel is labelled.

    Examples
    --------
    >>> labels = torch.tensor([[[1, 1, -1]]])
    >>> float(distance_term(torch.tensor([[[0.5, 1.0, 9.0]]]), torch.ones(1, 1, 3), labels))
    0.25
    """
    known = labels >= 0
    error = (predicted.float() - distance).abs()
    return total(torch.where(known, error, 0.0).sum()) / total(known.sum().float()).clamp(min=1)


def _labelled(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Weights with 0 where no label is."""
    known = labels >= 0
    return known.float() if weights is None else torch.where(known, weights, 0.0)

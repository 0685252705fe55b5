"""Where a network is unsure: it sees the image turned and mirrored, and does not say the same each time.

A network that has learnt what it should gives one answer, however the image lies. Where its answers differ it guesses,
and an annotation of what is there would teach it most.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.method.overlap_tile import predict_tiles
from ubend.run.batch_statistics import network_for_image
from ubend.run.contract import Contract
from ubend.run.model import Model
from ubend.run.normalisation import channels_first
from ubend.run.prediction import DIHEDRAL, choose_tile, predict_part

__all__ = ["disagreement_of", "predict_with_disagreement"]


def predict_with_disagreement(
    model: Model, image: NDArray[Any], *, rows: slice = slice(None), columns: slice = slice(None)
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predict an image, and say how far its 8 views (4 rotations, mirrored or not) differ.

    Parameters
    ----------
    model : Model
    image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
    rows, columns : slice
        The part to predict; its gray values are normalised as in the whole image.

    Returns
    -------
    probabilities : ndarray of float32, shape (classes, rows, columns)
        Those of `Model.predict`, with the distance where one is learned.
    disagreement : ndarray of float32, shape (rows, columns)
        See `disagreement_of`.

    Raises
    ------
    InputError
        If the image has other channels than the model, or holds NaN.
    OutOfMemory
        If the smallest tile does not fit.
    """
    contract = model.contract
    whole = channels_first(image, contract.network.in_channels)
    offset, gain = (value.reshape(-1, 1, 1) for value in contract.normalisation.offset_and_gain(whole))
    part = whole[:, rows, columns]
    network = network_for_image(model.network, contract, whole, offset, gain)
    see = partial(predict_part, network, contract, offset=offset, gain=gain, views="one")
    tile = choose_tile(contract, (part.shape[1], part.shape[2]), model.device)
    found = predict_tiles(
        part, lambda one: _mean_and_disagreement(one, see, contract), depth=contract.network.depth, largest_tile=tile
    )
    probabilities, disagreement = found[:-1], found[-1]
    if contract.views == "rotations":  # of the whole image, not of its tiles
        probabilities = model.predict(np.moveaxis(part, 0, -1))
    return probabilities, disagreement


def _mean_and_disagreement(
    tile: NDArray[Any], see: Callable[[NDArray[Any]], NDArray[np.float32]], contract: Contract
) -> NDArray[np.float32]:
    """Return what `predict_part` does, and below it one map more."""
    views = []
    for quarter_turns, flip in DIHEDRAL:
        turned = np.rot90(tile[..., ::-1] if flip else tile, quarter_turns, (-2, -1))
        back = np.rot90(see(np.ascontiguousarray(turned)), -quarter_turns, (-2, -1))
        views.append(back[..., ::-1] if flip else back)
    classes = contract.network.classes - contract.learns_distance
    disagreement = disagreement_of(np.stack([view[:classes] for view in views]))
    mean = views[0] if contract.views == "one" else _mean(views)
    return np.concatenate([mean, disagreement[None]])


def _mean(views: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Sum up one after the other, as `predict_part` does: another order would round otherwise."""
    total = views[0].copy()
    for view in views[1:]:
        total += view
    return total / np.float32(len(views))


def disagreement_of(views: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure how far the probabilities of several views lie from their mean.

    Parameters
    ----------
    views : ndarray of float32, shape (views, classes, rows, columns)
        Turned back, so that they lie on each other.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        The mean over the views of the probability that lies in other classes than in the mean of all: 0 where all say
        the same, 0.5 where half of them are sure of one class and half of another.

    Examples
    --------
    >>> agree, differ = [0.9, 0.9], [1.0, 0.0]
    >>> views = np.array([[1 - np.array(p), p] for p in zip(agree, differ)], np.float32)[:, :, None]
    >>> disagreement_of(views).round(2).tolist()
    [[0.0, 0.5]]
    """
    away: NDArray[np.float32] = np.abs(views - views.mean(0)).sum(1).mean(0) / 2
    return away

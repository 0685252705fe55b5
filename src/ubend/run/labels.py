"""Probabilities → labels: what a user asked for, single objects or classes."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Task
from ubend.method.objects import ObjectRules, foreground_to_objects


class SaysLabels(Protocol):
    """What labels need of a `contract.Contract`; it can be had without one, as from an exported model."""

    @property
    def task(self) -> Task:
        """What is labelled."""

    @property
    def objects(self) -> ObjectRules:
        """How foreground becomes objects."""

    @property
    def learns_distance(self) -> bool:
        """Whether the last map is not a class but the distance to the border of a cell."""


def predict_labels(
    contract: SaysLabels, probabilities: NDArray[np.float32], *, objects: ObjectRules | None = None
) -> NDArray[np.integer]:
    """Turn probabilities into a label image.

    Parameters
    ----------
    contract : SaysLabels
        Says whether objects are counted or classes named.
    probabilities : ndarray of float32, shape (classes, rows, columns)
        As `predict_probabilities` gives them, with the distance where there is one.
    objects : ObjectRules, optional
        Other rules for single objects than the contract's.

    Returns
    -------
    ndarray of unsigned int, shape (rows, columns)
        Instances: 0 is background, 1..n are objects. Otherwise the label values of the training images.
    """
    if contract.task.kind == "instances":
        distance = probabilities[2] if contract.learns_distance else None
        return foreground_to_objects(probabilities[1], objects or contract.objects, distance=distance)
    values = np.array(contract.task.values)
    labels: NDArray[np.integer] = values.astype(np.min_scalar_type(int(values.max())))[probabilities.argmax(0)]
    return labels

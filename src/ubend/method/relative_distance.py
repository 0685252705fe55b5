"""How far inside its cell a pixel lies: what a network may learn beside the foreground, so that touching cells part.

Where two cells touch, foreground says nothing, and a gap of two pixels is easily missed. The distance to the border
falls to 0 there from both sides, over the whole width of the cells: much harder to miss. Not of the paper of 2015.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.method.nearest_cells import check_labels, two_nearest_cells


def relative_distance(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Measure how far inside its cell each pixel lies, as a share of the cell's own deepest point.

    The Euclidean distance to the nearest pixel outside of the cell, divided by the largest of the cell. It falls
    towards every border, also where two cells touch, and is the same for a small cell and a large one.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        Cells by number, 0 background, negative unlabelled.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        0 outside of the cells, above 0 to 1 inside. Where nobody labelled, and beyond the border of the image, no
        border is known: only background and other cells are outside.

    Raises
    ------
    InputError
        If `labels` is not a two-dimensional array of integers.

    References
    ----------
    T. Scherr, K. Löffler, M. Böhland, R. Mikut: Cell segmentation and tracking using CNN-based distance predictions and
    a graph-based matching strategy. PLOS ONE 15:e0243219 (2020), doi:10.1371/journal.pone.0243219, whose cell distance
    this is.

    Examples
    --------
    >>> import numpy as np
    >>> relative_distance(np.array([[0, 5, 5, 5, 5, 6, 6, 6]]))
    array([[0.        , 0.5       , 1.        , 1.        , 0.5       ,
            0.33333334, 0.6666667 , 1.        ]], dtype=float32)
    """
    check_labels(labels)
    inside, background = labels > 0, labels == 0
    if not inside.any():
        return np.zeros(labels.shape, dtype=np.float32)
    to_other_cell = two_nearest_cells(labels)[1]
    to_background = ndimage.distance_transform_edt(~background) if background.any() else np.float64(np.inf)
    distance = np.where(inside, np.minimum(to_background, to_other_cell), 0)
    distance[np.isinf(distance)] = 1  # one cell that fills the image has no border
    numbers, of_pixel = np.unique(labels, return_inverse=True)
    deepest = ndimage.maximum(distance, of_pixel.reshape(labels.shape), np.arange(numbers.size))
    share: NDArray[np.float32] = (distance / np.where(deepest > 0, deepest, 1)[of_pixel.reshape(labels.shape)]).astype(
        np.float32
    )
    return share

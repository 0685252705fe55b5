"""The weight map of U-Net (Ronneberger et al. 2015, Section 3, Eq. 2).

Each pixel's weight in the loss: a balance of the class frequencies, and a ridge on the narrow background between cells,
so that the network learns the gaps that keep them apart.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubend.errors import InputError
from ubend.method.nearest_cells import check_labels, two_nearest_cells
from ubend.method.touching import separate_touching

_SIGMAS = 7.0  # beyond 7 σ the Gaussian is below 2.3e-11 of its height: nothing in float32 beside a class weight


def class_balance(counts: ArrayLike) -> NDArray[np.float64]:
    """Weigh the classes so that each has the same total weight (the w_c of Eq. 2).

    ``w_c = N / (K * N_c)`` for N pixels in K classes that occur, N_c in class c: the mean weight over all pixels is 1.
    The paper gives no formula.

    Parameters
    ----------
    counts : array_like of numbers, shape (classes,)
        Pixels of each class, of one image or summed over all of them.

    Returns
    -------
    ndarray of float64, shape (classes,)
        Weight of each class; 0 for a class without pixels.

    Raises
    ------
    InputError
        If `counts` is not a list of finite numbers from 0 on.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox: U-Net. MICCAI 2015, Section 3, Eq. 2, doi:10.1007/978-3-319-24574-4_28

    Examples
    --------
    Three times as many background as foreground pixels:

    >>> class_balance([75, 25]).round(3).tolist()
    [0.667, 2.0]
    """
    numbers = np.asarray(counts, dtype=np.float64)
    if numbers.ndim != 1 or not np.all(np.isfinite(numbers)) or np.any(numbers < 0):
        raise InputError(f"counts is {counts!r}; allowed is a list with the number of pixels of each class, from 0 on.")
    present = numbers > 0
    weights = np.zeros(numbers.shape)
    weights[present] = numbers.sum() / (present.sum() * numbers[present])
    return weights


def class_weights_map(classes: NDArray[Any], weights: ArrayLike) -> NDArray[np.float32]:
    """Give each pixel the weight of its class.

    Parameters
    ----------
    classes : ndarray of int, shape (rows, columns)
        Class of each pixel, from 0 on; negative values are unlabelled.
    weights : array_like of float, shape (classes,)
        Weight of each class, as from `class_balance`.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        The weights; 0 where unlabelled.

    Raises
    ------
    InputError
        If `classes` is not a two-dimensional array of integers, if it holds a class without a weight, or if a weight is
        negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> class_weights_map(np.array([[0, 1, -1]]), [0.5, 2.0]).tolist()
    [[0.5, 2.0, 0.0]]
    """
    check_labels(classes)
    of_class = np.asarray(weights, dtype=np.float32)
    if of_class.ndim != 1 or not np.all(np.isfinite(of_class)) or np.any(of_class < 0):
        raise InputError(f"The class weights are {weights!r}; allowed is one finite number from 0 on for each class.")
    highest = int(classes.max())
    if highest >= len(of_class):
        raise InputError(
            f"The pixels have classes up to {highest}, but there are {len(of_class)} class weights, "
            f"for the classes 0 to {len(of_class) - 1}; give {highest + 1} weights."
        )
    with_unlabelled = np.append(of_class, np.float32(0))  # index -1
    unlabelled_last = np.maximum(classes, -1) if classes.dtype.kind == "i" else classes
    weight_of_pixel: NDArray[np.float32] = with_unlabelled[unlabelled_last]
    return weight_of_pixel


def border_weights(
    labels: NDArray[Any],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    gap: int = 1,
    class_weights: tuple[float, float] | None = None,
    border_on: Literal["everywhere", "background"] = "everywhere",
) -> NDArray[np.float32]:
    """Weigh each pixel: class balance plus a ridge between neighbouring cells (Eq. 2).

    ``w(x) = w_c(x) + w0 * exp(-(d1(x) + d2(x))**2 / (2 * sigma**2))``, where d1 and d2 are the distances to the nearest
    and the second nearest cell as annotated, and the class is that after `separate_touching` has cut the gaps.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        Cells by number, 0 background, negative unlabelled.
    w0 : float
        Height of the ridge.
    sigma : float
        Width of the ridge, in pixels.
    gap : int
        Pixels that touching cells lose on each side, as in `separate_touching`.
    class_weights : tuple of float, (background, foreground), optional
        The weights w_c; without it `class_balance` of this image, which suits a single image. For several, sum up their
        counts and pass the balance of all.
    border_on : {"everywhere", "background"}
        Where the ridge lies: also inside cells near others, as Eq. 2 is written, or on background (with the gaps) only,
        as in the authors' later code.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        The weights; 0 where unlabelled. The ridge is cut off where d2 exceeds 7 `sigma`.

    Raises
    ------
    InputError
        If `labels` is no label image, or a parameter is out of range.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox: U-Net. MICCAI 2015, Section 3, Eq. 2, doi:10.1007/978-3-319-24574-4_28

    Examples
    --------
    The pixel between two cells outweighs the background beside them:

    >>> import numpy as np
    >>> border_weights(np.array([[1, 1, 0, 2, 2, 0, 0]]), class_weights=(1.0, 2.0)).round(2)
    array([[10.35, 11.23, 10.23, 11.23, 10.35,  7.07,  4.75]], dtype=float32)
    """
    _check_not_negative("w0", w0)
    _check_positive("sigma", sigma)
    if border_on not in ("everywhere", "background"):
        raise InputError(f'border_on is {border_on!r}; allowed is "everywhere" (Eq. 2) or "background".')
    separated = separate_touching(labels, gap=gap)
    classes = np.sign(separated).astype(np.int8)  # -1 unlabelled, 0 background, 1 foreground
    if class_weights is None:
        balance = class_balance([np.count_nonzero(classes == 0), np.count_nonzero(classes == 1)])
    else:
        balance = _pair(class_weights)
    d1, d2 = two_nearest_cells(labels, within=_SIGMAS * sigma)
    ridge = _gaussian(d1 + d2, height=w0, sigma=sigma)
    ridge[(classes < 0) if border_on == "everywhere" else (classes != 0)] = 0
    weights: NDArray[np.float32] = class_weights_map(classes, balance) + ridge
    return weights


def falk2019_weights(
    labels: NDArray[Any],
    *,
    background: float = 0.1,
    sigma_near: float = 10.0,
    w_border: float = 50.0,
    sigma_border: float = 6.0,
    gap: int = 1,
) -> NDArray[np.float32]:
    """Weigh each pixel as the authors' later plugin does (Falk et al. 2019).

    The foreground weighs 1. The background weighs `background` far from all cells, 1 right beside a cell, and more
    where two cells are near: ``b + (1 - b) * exp(-d1**2 / (2 * s1**2)) + w_border * exp(-(d1 + d2)**2 / (2 * s2**2))``
    with b `background`, s1 `sigma_near` and s2 `sigma_border`. Foreground and background are those after
    `separate_touching`, which cuts both of two touching cells where the plugin cuts one.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)
        Cells by number, 0 background, negative unlabelled.
    background : float
        Weight of background far from all cells, 0 to 1.
    sigma_near : float
        How far the weight of the background around a cell reaches, in pixels.
    w_border : float
        Height of the ridge between cells.
    sigma_border : float
        Width of that ridge, in pixels.
    gap : int
        Pixels that touching cells lose on each side, as in `separate_touching`.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        The weights; 0 where unlabelled.

    Raises
    ------
    InputError
        If `labels` is no label image, or a parameter is out of range.

    References
    ----------
    T. Falk et al.: U-Net: deep learning for cell counting, detection, and morphometry. Nature Methods 16:67-70 (2019),
    doi:10.1038/s41592-018-0261-2

    Examples
    --------
    >>> import numpy as np
    >>> falk2019_weights(np.array([[1, 0, 2, 0, 0, -1]])).round(2)
    array([[ 1.  , 48.29,  1.  , 41.03, 31.31,  0.  ]], dtype=float32)
    """
    if not 0 <= background <= 1:
        raise InputError(f"background is {background}; allowed is a weight from 0 to 1, usually 0.1.")
    _check_not_negative("w_border", w_border)
    _check_positive("sigma_near", sigma_near)
    _check_positive("sigma_border", sigma_border)
    separated = separate_touching(labels, gap=gap)
    d1, d2 = two_nearest_cells(labels, within=_SIGMAS * max(sigma_near, sigma_border))
    weights = np.float32(background) + _gaussian(d1, height=1 - background, sigma=sigma_near)
    weights += _gaussian(d1 + d2, height=w_border, sigma=sigma_border)
    weights[separated > 0] = 1
    weights[separated < 0] = 0
    return weights


def _gaussian(distance: NDArray[np.float32], *, height: float, sigma: float) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.float32(height) * np.exp(-np.square(distance / np.float32(math.sqrt(2) * sigma)))
    return values


def _pair(class_weights: tuple[float, float]) -> NDArray[np.float64]:
    weights = np.asarray(class_weights, dtype=np.float64)
    if weights.shape != (2,):
        raise InputError(f"class_weights is {class_weights!r}; allowed is a pair (background, foreground).")
    return weights


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name} is {value}; allowed is a finite number above 0.")


def _check_not_negative(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise InputError(f"{name} is {value}; allowed is a finite number from 0 on.")

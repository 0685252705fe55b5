"""One image and its labels, looked at once: what the doctor keeps of them, as numbers."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as connected_pieces

from ubend.data.duplicates import Look, look_of
from ubend.data.turned import fits

_FEW_LEVELS = 2**16
_PICTURE_VALUES, _PICTURE_BETWEEN, _EDGES_ALL_OVER, _MANY_EDGES, _SMALL_STEPS = 30, 0.3, 0.8, 0.15, 0.12
_SAME_CORRELATION, _SAME_SAMPLES = 0.999, 2**12
_NECK, _LEAST_LOBE, _ROUNDEST, _LONGEST_LOBE = 0.6, 0.3, 0.75, 2.5
_LARGER, _LEAST_CLUMP, _MOST_CLUMPS, _CLUMP_SIDE = 1.3, 60, 30, 48
_MOST_OBJECTS_FOR_SHAPES = 20_000
_MAY_BE_OVEREXPOSED = 0.002


@dataclass(frozen=True)
class ImageFacts:
    """What is seen in an image.

    Attributes
    ----------
    shape : tuple of int
        Rows, columns and, where there are several, channels.
    dtype : str
        As in the file.
    gray : bool
        Whether it has one channel, or all are equal.
    lowest, highest : float
        Of the finite values.
    not_finite : int
        How many values are none.
    levels : int
        How many different gray values there are; of a float image 3 where there are more.
    at_top : float
        Share of pixels at the highest value.
    middle : float
        Where the median lies between the 1st and the 99th percentile, 0 to 1.
    colour : float
        Mean difference of the strongest and the weakest of red, green and blue, as a share of the highest value.
    channels_in_order : bool
        Whether each channel of many is likest to its neighbours, as slices are.
    look : Look
        To recognise it.
    digest : bytes
        Of the pixels.
    """

    shape: tuple[int, ...]
    dtype: str
    gray: bool
    lowest: float
    highest: float
    not_finite: int
    levels: int
    at_top: float
    middle: float
    colour: float
    channels_in_order: bool
    look: Look
    digest: bytes


@dataclass(frozen=True)
class Pieces:
    """The connected pieces of a label image, eight neighbours each; background 0 has none.

    Attributes
    ----------
    value, size : ndarray of int, shape (pieces,)
        Label value and pixels of each.
    inside : ndarray of int, shape (pieces,)
        How many of its pixels have only pixels of its own value around them.
    cut : ndarray of bool, shape (pieces,)
        Whether it touches the border of the image.
    """

    value: NDArray[np.int64]
    size: NDArray[np.int64]
    inside: NDArray[np.int64]
    cut: NDArray[np.bool_]


@dataclass(frozen=True)
class LabelFacts:
    """What is seen in labels, and in their image below them.

    Attributes
    ----------
    values : ndarray of int, shape (values,)
        Each once, sorted.
    pieces : Pieces
        Empty where the labels look like a photograph.
    between : float
        Share of the pixels at edges that lie between the lowest and the highest value around them, as smoothing leaves.
    is_picture, is_image : bool
        Whether values change nearly everywhere, or in many places by little; whether they equal the image.
    fit : ndarray of float64, shape (8,)
        How well they fit the image in each way to lay them, `ubend.data.turned.fits`; NaN where nothing is labelled.
    several : tuple of (int, float)
        Label values whose shape is that of several cells, and the pixels of the second largest of these.
    widest : float
        Diameter of the largest circle that fits into a label, in pixels; 0 where nothing is so large as to matter.
    contrast : float
        How much brighter than the rest what is labelled is, in standard deviations of the image.
    top_in_labels : float
        Share of what is labelled that is at the highest value of the image; 0 where few pixels are.
    digest : bytes
        Of the pixels.
    """

    values: NDArray[np.int64]
    pieces: Pieces
    between: float
    is_picture: bool
    is_image: bool
    fit: NDArray[np.float64]
    several: tuple[tuple[int, float], ...]
    widest: float
    contrast: float
    top_in_labels: float
    digest: bytes

    @property
    def fits_known(self) -> bool:
        """Whether there are edges, in labels and in the image, to tell how they lie."""
        return bool(np.isfinite(self.fit[0]))


def gray_of(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean of the channels, of four the first three; 0 where it is not finite.

    Examples
    --------
    >>> gray_of(np.array([[[0, 30, 60]]], np.uint8))
    array([[30.]], dtype=float32)
    """
    with np.errstate(over="ignore"):  # of float64 beyond float32: not finite there, and told as such
        values = image.astype(np.float32)
    if image.ndim == 3:
        values = values[..., :3].mean(-1) if image.shape[-1] == 4 else values.mean(-1)
    return values if np.isfinite(values).all() else np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def inspect_image(image: NDArray[Any], gray: NDArray[np.float32]) -> ImageFacts:
    """Look at an image; `gray` is what `gray_of` makes of it.

    Examples
    --------
    >>> image = np.array([[0, 9], [9, 9]], np.uint8)
    >>> facts = inspect_image(image, gray_of(image))
    >>> facts.levels, facts.at_top, facts.dtype
    (2, 0.75, 'uint8')
    """
    finite = np.isfinite(image) if image.dtype.kind in "fc" else None
    good = gray if finite is None or finite.all() else image[finite].astype(np.float32)
    values, counts = _histogram(image if image.ndim == 2 and finite is None else gray)
    low, middle, high = _quantiles(values, counts, (0.01, 0.5, 0.99))
    channels = image[..., :3] if image.ndim == 3 and image.shape[-1] in (3, 4) else image[..., None]
    is_colour = channels.shape[-1] == 3 and not (channels == channels[..., :1]).all()
    spread = np.ptp(channels[::2, ::2].astype(np.float32), axis=-1).mean() if is_colour else 0.0
    highest = float(good.max(initial=0)) if good.size else 0.0
    return ImageFacts(
        shape=image.shape,
        dtype=image.dtype.name,
        gray=image.ndim == 2 or (channels.shape[-1] == 3 and not is_colour),
        lowest=float(good.min(initial=highest)) if good.size else 0.0,
        highest=highest if image.ndim == 2 else float(np.nanmax(image, initial=0)),
        not_finite=0 if finite is None else int(finite.size - np.count_nonzero(finite)),
        levels=len(values),
        at_top=float(counts[-1] / counts.sum()),
        middle=(middle - low) / (high - low) if high > low else 0.0,
        colour=float(spread / highest) if highest > 0 else 0.0,
        channels_in_order=image.ndim == 3 and image.shape[-1] > 4 and _in_order(image),
        look=look_of(gray),
        digest=hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=12).digest(),
    )


def _histogram(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Different values and how often each is there; of floats at most some thousand steps."""
    if values.dtype.kind in "bu" and values.dtype.itemsize <= 2:
        counts = np.bincount(values.ravel())
        present = np.flatnonzero(counts)
        return present.astype(np.float64), counts[present]
    flat = values.ravel().astype(np.float64)
    low, high = float(flat.min()), float(flat.max())
    if high <= low:
        return np.array([low]), np.array([flat.size])
    steps = np.rint((flat - low) * (4095 / (high - low))).astype(np.int64)
    counts = np.bincount(steps)
    counts_at_top = int(np.count_nonzero(flat == high))
    counts[-1] -= counts_at_top
    present = np.flatnonzero(counts[:-1])
    rest = [4094.5] if counts[-1] else []
    levels = np.concatenate([present, rest, [4095]]) * ((high - low) / 4095) + low
    return levels, np.concatenate([counts[present], counts[-1:] if counts[-1] else [], [counts_at_top]]).astype(
        np.int64
    )


def _quantiles(values: NDArray[np.float64], counts: NDArray[np.int64], shares: tuple[float, ...]) -> tuple[float, ...]:
    below = np.cumsum(counts)
    return tuple(float(values[np.searchsorted(below, share * below[-1])]) for share in shares)


def _in_order(image: NDArray[Any]) -> bool:
    """Whether the correlation of channels falls with their distance, as that of slices does."""
    rows, columns = (max(1, length // 128) for length in image.shape[:2])
    flat = np.nan_to_num(image[::rows, ::columns].reshape(-1, image.shape[2]).T.astype(np.float64))
    flat = flat[flat.std(axis=1) > 0]
    if len(flat) < 5:
        return False
    alike = np.corrcoef(flat)
    next_, far = np.diagonal(alike, 1), np.diagonal(alike, len(flat) // 2)
    return bool(np.median(next_) > 0.5 and np.median(next_) > np.median(far) + 0.02)


def inspect_labels(
    labels: NDArray[np.int32], image: NDArray[Any], gray: NDArray[np.float32], *, field: int
) -> LabelFacts:
    """Look at labels and the image below them.

    Parameters
    ----------
    labels : ndarray of int32, shape (rows, columns)
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    gray : ndarray of float32, shape (rows, columns)
        What `gray_of` makes of the image.
    field : int
        The widest that a label may be without being measured, in pixels.

    Returns
    -------
    LabelFacts

    Examples
    --------
    >>> labels = np.array([[1, 1, 0, 2], [1, 1, 0, 0], [1, 1, 0, 2]], np.int32)
    >>> facts = inspect_labels(labels, labels, gray_of(labels), field=188)
    >>> facts.values.tolist(), facts.pieces.value.tolist(), facts.pieces.size.tolist(), facts.is_image
    ([0, 1, 2], [1, 2, 2], [6, 1, 1], True)
    """
    values = _values(labels)
    edges, at_edges, between, is_picture = _edges(labels, len(values))
    pieces, numbered = (_no_pieces(), None) if is_picture else _pieces_of(labels, edges)
    inside = labels > 0
    deviation = float(gray.std())
    return LabelFacts(
        values=values,
        pieces=pieces,
        between=between / max(1, at_edges),
        is_picture=is_picture,
        is_image=_are_equal(gray, labels),
        fit=fits(gray, edges, inside) if at_edges and deviation > 0 else np.full(8, np.nan),
        several=_clumps(labels, pieces) if len(values) > 2 else (),
        widest=_widest(numbered, pieces, field),
        contrast=_contrast(gray, inside) / deviation if deviation > 0 else 0.0,
        top_in_labels=_share_at_top(gray, inside),
        digest=hashlib.blake2b(labels.tobytes(), digest_size=12).digest(),
    )


def _contrast(gray: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    labelled = int(np.count_nonzero(inside))
    if not 0 < labelled < inside.size:
        return 0.0
    sum_in, sum_all = float(gray.ravel() @ inside.ravel().astype(np.float32)), float(gray.sum(dtype=np.float64))
    return sum_in / labelled - (sum_all - sum_in) / (inside.size - labelled)


def _share_at_top(gray: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    at_top = gray >= gray.max()
    if np.count_nonzero(at_top) < _MAY_BE_OVEREXPOSED * gray.size or not inside.any():
        return 0.0
    return float(np.count_nonzero(at_top & inside) / np.count_nonzero(inside))


def _values(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    if labels.min() >= 0 and labels.max() < _FEW_LEVELS:
        return np.flatnonzero(np.bincount(labels.ravel()))
    return np.unique(labels).astype(np.int64)


def _around(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lowest and highest value of the 3 × 3 pixels around each."""
    low, high = labels, labels
    for axis in (0, 1):
        low, high = _of_three(low, axis, np.minimum), _of_three(high, axis, np.maximum)
    return low, high


def _of_three(array: NDArray[np.int32], axis: int, extreme: np.ufunc) -> NDArray[np.int32]:
    found = array.copy()
    moved, source = np.moveaxis(found, axis, 0), np.moveaxis(array, axis, 0)
    extreme(moved[1:], source[:-1], out=moved[1:])
    extreme(moved[:-1], source[1:], out=moved[:-1])
    return found


def looks_like_a_picture(labels: NDArray[np.integer[Any]]) -> bool:
    """Whether values change nearly everywhere, or in many places by little: a photograph, and no labels.

    Parameters
    ----------
    labels : ndarray of int, shape (rows, columns)

    Returns
    -------
    bool

    Examples
    --------
    >>> noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    >>> looks_like_a_picture(noise), looks_like_a_picture(np.repeat(np.repeat(noise, 9, 0), 9, 1))
    (True, False)
    """
    small = labels.astype(np.int32)
    return _edges(small, len(_values(small)))[3]


def _edges(labels: NDArray[np.int32], values: int) -> tuple[NDArray[np.bool_], int, int, bool]:
    """Find the pixels at edges, how many they are and lie between their neighbours, and whether it is a picture."""
    lowest, highest = _around(labels)
    edges = lowest != highest
    at_edges = int(np.count_nonzero(edges))
    between = int(np.count_nonzero((lowest < labels) & (labels < highest)))
    is_picture = (
        values > _PICTURE_VALUES
        and between > _PICTURE_BETWEEN * at_edges
        and at_edges
        > (_MANY_EDGES if _mean_step(lowest, highest, edges) < _SMALL_STEPS else _EDGES_ALL_OVER) * labels.size
    )
    return edges, at_edges, between, is_picture


def _mean_step(lowest: NDArray[np.int32], highest: NDArray[np.int32], edges: NDArray[np.bool_]) -> float:
    """How large steps are at edges, as a share of the largest that there could be."""
    return float(np.mean(highest[edges] - lowest[edges])) / max(1, int(highest.max()) - int(lowest.min()))


def _no_pieces() -> Pieces:
    none = np.zeros(0, np.int64)
    return Pieces(none, none, none, none.astype(bool))


def _pieces_of(labels: NDArray[np.int32], edges: NDArray[np.bool_]) -> tuple[Pieces, NDArray[np.int64]]:
    numbered = connected_pieces(np.maximum(labels, 0), background=0, connectivity=2)
    size = np.bincount(numbered.ravel())
    inside = size - np.bincount(numbered[edges], minlength=len(size))
    value = np.zeros(len(size), np.int64)
    value[numbered.ravel()] = labels.ravel()
    cut = np.zeros(len(size), bool)
    for side in (numbered[0], numbered[-1], numbered[:, 0], numbered[:, -1]):
        cut[side] = True
    return Pieces(value[1:], size[1:].astype(np.int64), inside[1:].astype(np.int64), cut[1:]), numbered


def _are_equal(gray: NDArray[np.float32], labels: NDArray[np.int32]) -> bool:
    """Whether labels are the image, up to brightness and contrast."""
    step = max(1, math.isqrt(labels.size // _SAME_SAMPLES))
    for stride in {step, 1}:
        one, other = (array[::stride, ::stride].astype(np.float64).ravel() for array in (gray, labels))
        one, other = one - one.mean(), other - other.mean()
        lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
        if lengths == 0 or one @ other < _SAME_CORRELATION * lengths:
            return False
    return True


def _widest(numbered: NDArray[np.int64] | None, pieces: Pieces, field: int) -> float:
    """Diameter of the largest circle in a piece that is so large that it may be wider than the field."""
    large = np.flatnonzero(pieces.inside > math.pi / 4 * field**2)
    if numbered is None or large.size == 0:
        return 0.0
    boxes = ndimage.find_objects(numbered)
    found = 0.0
    for piece in large:
        box = boxes[piece]
        inside = numbered[box] == piece + 1
        step = max(1, min(inside.shape) // 256)
        depth = ndimage.distance_transform_edt(np.pad(inside[::step, ::step], 1, mode="edge"))
        found = max(found, 2 * step * float(depth.max()))
    return found


# Several cells under one label


def _clumps(labels: NDArray[np.int32], pieces: Pieces) -> tuple[tuple[int, float], ...]:
    """Find labels that are two round bodies with a narrow neck, larger than others of the image."""
    if not 0 < len(pieces.size) < _MOST_OBJECTS_FOR_SHAPES:
        return ()
    usual = float(np.median(pieces.size))
    rim = np.maximum(pieces.size - pieces.inside, 1)
    not_round = 4 * math.pi * pieces.size < _ROUNDEST * rim.astype(np.float64) ** 2
    asked = np.flatnonzero((pieces.size > max(_LEAST_CLUMP, _LARGER * usual)) & not_round & (pieces.inside > 0))
    if asked.size == 0:
        return ()
    asked = asked[np.argsort(-pieces.size[asked], kind="stable")[:_MOST_CLUMPS]]
    boxes = ndimage.find_objects(labels)
    found = []
    for value in np.unique(pieces.value[asked]):
        second = _second_lobe(labels[boxes[value - 1]] == value)
        if second >= _LEAST_LOBE * usual:
            found.append((int(value), second))
    return tuple(found)


def _second_lobe(mask: NDArray[np.bool_]) -> float:
    """Return the pixels of the second largest of the round bodies that a narrow neck joins; 0 where there is one."""
    step = max(1, -(-max(mask.shape) // _CLUMP_SIDE))
    depth = ndimage.distance_transform_edt(np.pad(ndimage.binary_fill_holes(mask)[::step, ::step], 1))
    top = float(depth.max())
    for level in (share * top for share in np.arange(0.85, 0.15, -0.1) if share <= _NECK):  # no neck is thicker
        bodies, number = ndimage.label(depth > level, np.ones((3, 3)))
        if number < 2:
            continue
        heights = ndimage.maximum(depth, bodies, np.arange(1, number + 1))
        second = float(np.sort(heights)[-2])
        if level <= _NECK * second:
            return _area_of_second(depth, bodies, heights) * float(step**2)
    return 0.0


def _area_of_second(depth: NDArray[np.float64], bodies: NDArray[np.int32], heights: NDArray[np.float64]) -> float:
    """Give each pixel to its nearest body; 0 unless both large ones are about round."""
    nearest = ndimage.distance_transform_edt(bodies == 0, return_distances=False, return_indices=True)
    areas = np.bincount((bodies[tuple(nearest)] * (depth > 0)).ravel(), minlength=len(heights) + 1)[1:]
    two = np.argsort(-areas)[:2]
    is_round = areas[two] <= _LONGEST_LOBE * math.pi * heights[two] ** 2
    return float(areas[two[1]]) if is_round.all() else 0.0

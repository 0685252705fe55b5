"""Pictures for people: an image, its truth and the result, side by side."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Task, class_indices
from ubend.data.formats import write_atomically
from ubend.method.resampling import resized
from ubend.scores.overlap import object_pairs

CLASS_COLOURS = np.array(
    [(86, 180, 233), (0, 158, 115), (230, 159, 0), (213, 94, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178)],
    dtype=np.float64,
)
"""Told apart with every kind of colour vision (Okabe and Ito)."""
FOREGROUND = np.array([230.0, 159.0, 0.0])
TRUTH, RESULT, MISSED, INVENTED = (86, 180, 233), (230, 159, 0), (240, 228, 66), (204, 121, 167)
"""Of `compared`: lines of the truth and of the result; areas that only the one has, and only the other."""
HEAT = ((87, 16, 110), (138, 34, 106), (188, 55, 84), (228, 90, 49), (249, 142, 9), (249, 203, 53), (252, 255, 164))
"""From dark to bright, in gray, too: seven colours of matplotlib's inferno, from a quarter on, evenly spaced."""

_PIXELS_AT_ONCE = 2**20
_SMALLEST_PICTURE = 1024
_SMALLEST_WITH_RIM = 30.0
_COMPARED = 560
_FILLED = 0.45
_HATCH = 6
_GOLDEN = 0.618034
_HUES_APART, _HUES_TRIED = 1 / 7, 24
"""Of neighbours, in turns of the circle of hues; numbers three apart are so by themselves."""
_NEAR = (1, 4, 16)
"""Pixels along rows and columns within which objects are neighbours."""


def displayed(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch an image to 8-bit RGB between its 0.5th and 99.5th percentile.

    Parameters
    ----------
    image : ndarray, shape (rows, columns) or (rows, columns, channels)

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        Of two channels, or more than three, the first.
    """
    values = _shown_channels(image)
    return _stretched(values, *_darkest_and_brightest(values))


def _shown_channels(image: NDArray[Any]) -> NDArray[Any]:
    values = image[..., None] if image.ndim == 2 else image
    return values[..., :3] if values.shape[-1] in (3, 4) else values[..., :1]


def _darkest_and_brightest(values: NDArray[Any]) -> tuple[float, float]:
    stride = max(1, int(np.sqrt(values.shape[0] * values.shape[1] / (4 * _PIXELS_AT_ONCE))))
    low, high = np.percentile(values[::stride, ::stride].astype(np.float64), (0.5, 99.5))
    return float(low), float(high)


def _stretched(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    stretched = np.clip((values.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1) * 255
    return np.broadcast_to(stretched, (*values.shape[:2], 3)).astype(np.uint8)


def outlined(image: NDArray[Any], labels: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """Draw the outline of each object, in a colour unlike its neighbours', onto the displayed image; band by band.

    Lines are drawn inside the objects, so that two that touch have a line each. Small images are enlarged, so that the
    lines are thinner than the pixels. Lines of objects that are large enough have a dark rim inside, to be seen on
    bright ones too.

    Parameters
    ----------
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    labels : ndarray of int, shape (rows, columns)
        Objects by number, or classes; 0 and negative values get no line.

    Yields
    ------
    ndarray of uint8, shape (rows, columns, 3)
        The rows of the picture from top to bottom, some at a time.
    """
    values = _shown_channels(image)
    low, high = _darkest_and_brightest(values)
    rows, columns = labels.shape
    zoom = max(1, min(8, _SMALLEST_PICTURE // max(rows, columns)))
    line, rim = (2, 1) if _mean_side(labels) * zoom >= _SMALLEST_WITH_RIM else (1, 0)
    height = max(line + rim, _PIXELS_AT_ONCE // (columns * zoom**2))
    others = _other_hues(labels)
    for first in range(0, rows, height):
        last = min(first + height, rows)
        above, below = min(line + rim, first), min(line + rim, rows - last)
        seen = _zoomed(labels[first - above : last + below], zoom)
        inner = slice(above * zoom, seen.shape[0] - below * zoom)
        picture = _zoomed(_stretched(values[first:last], low, high), zoom)
        picture[_edges(seen, line + rim)[inner]] = 0
        edge = _edges(seen, line)[inner]
        picture[edge] = _line_colours(seen[inner][edge], *others)
        yield picture


def _mean_side(labels: NDArray[Any]) -> float:
    """Return the side of a square of the mean area of the objects, about."""
    return float(np.sqrt(np.count_nonzero(labels > 0) / max(1, int(labels.max(initial=0)))))


def _zoomed(array: NDArray[Any], zoom: int) -> NDArray[Any]:
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _edges(labels: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Find the pixels of objects within `width` of another value along a row or column; the image's border is none."""
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        for shift in range(1, width + 1):
            one, other = (np.moveaxis(a, axis, 0) for a in (labels, edge))
            differs = one[shift:] != one[:-shift]
            other[shift:] |= differs
            other[:-shift] |= differs
    return edge & (labels > 0)


def _other_hues(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Find objects whose hue by number is too near to a neighbour's, and give them another, in the order of numbers."""
    hues: dict[int, float] = {}
    neighbours: dict[int, list[int]] = {}
    for low, high in _neighbours(labels).tolist():
        neighbours.setdefault(high, []).append(low)
    for number in sorted(neighbours):
        around = [hues.get(one, _hue(one)) for one in neighbours[number]]
        if _apart(_hue(number), around) < _HUES_APART:
            turned = [_hue(number + k) for k in range(_HUES_TRIED)]
            apart = [min(_apart(hue, around), _HUES_APART) for hue in turned]
            hues[number] = turned[apart.index(max(apart))]  # the first that is far enough, or the farthest
    return np.array(list(hues), labels.dtype), np.array(list(hues.values()), np.float64)


def _apart(hue: float, others: Sequence[float]) -> float:
    """Return how far the nearest of other hues is, around the circle."""
    return min(abs((hue - other + 0.5) % 1 - 0.5) for other in others)


def _neighbours(labels: NDArray[Any]) -> NDArray[Any]:
    """Return pairs of numbers, the lower first, that are near each other: touching, or some pixels apart, about."""
    pairs = [np.zeros(0, np.uint64)]
    for step in _NEAR:
        seen = labels[::step, ::step]
        for one, other in (
            (seen[1:], seen[:-1]),
            (seen[:, 1:], seen[:, :-1]),
            (seen[1:, 1:], seen[:-1, :-1]),
            (seen[1:, :-1], seen[:-1, 1:]),
        ):
            near = (one != other) & (one > 0) & (other > 0)
            low, high = (take(one[near], other[near]).astype(np.uint64) for take in (np.minimum, np.maximum))
            pairs.append(np.unique(low << 32 | high))
    both = np.unique(np.concatenate(pairs))
    return np.stack([both >> 32, both & 0xFFFFFFFF], axis=-1)


def _hue(numbers: Any) -> Any:
    """Take hues from 0 to 1, those of neighbours in number far apart."""
    return numbers * _GOLDEN % 1


def _line_colours(numbers: NDArray[Any], others: NDArray[Any], other_hues: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Bright colours, none dark or gray, by number, but for those with other hues; these are in order."""
    hue = _hue(numbers.astype(np.float64))
    if len(others):
        place = np.minimum(np.searchsorted(others, numbers), len(others) - 1)
        hue = np.where(others[place] == numbers, other_hues[place], hue)
    hue = 6 * hue
    rgb = np.stack([np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4)], axis=-1)
    bright: NDArray[np.float64] = 100 + 155 * np.clip(rgb, 0, 1)
    return bright.astype(np.uint8)


@dataclass(frozen=True)
class Compared:
    """An image, and truth and result drawn on it; each uint8 (rows, columns, 3), small images enlarged.

    Attributes
    ----------
    image, truth, result : ndarray of uint8, shape (rows, columns, 3)
    missed, invented : int
        Objects of the truth without one of the result that covers them (IoU ≥ 0.5), and the other way round; pixels if
        no objects are counted.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    result: NDArray[np.uint8]
    missed: int
    invented: int


def compared(image: NDArray[Any], truth: NDArray[Any], result: NDArray[Any], task: Task) -> Compared:
    """Draw truth and result onto an image, and what is wrong with either.

    Objects and foreground get a line inside their border, blue for the truth and orange for the result; what only the
    truth has is filled with yellow there, what only the result has with pink. Classes are painted, and those of the
    result hatched where they are wrong. Colours are those of Okabe and Ito, and nothing is told by colour alone.

    Parameters
    ----------
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    truth, result : ndarray of int, shape (rows, columns)
        As annotated, and as `predict_labels` gives them.
    task : Task

    Returns
    -------
    Compared
    """
    indices, found = class_indices(truth, task), class_indices(result, task)
    zoom = max(1, min(8, _COMPARED // max(truth.shape)))
    base = _zoomed(displayed(image), zoom)
    if task.kind == "classes":
        wrong = (indices >= 0) & (indices != found)
        painted = [_painted(base, _zoomed(one, zoom)) for one in (indices, found)]
        return Compared(base, painted[0], _hatched(painted[1], _zoomed(wrong, zoom)), int(wrong.sum()), 0)
    if task.kind == "instances":
        (missed, of_truth), (invented, of_result) = _unmatched(indices, found)
    else:
        missed, invented = (indices == 1) & (found == 0), (indices == 0) & (found == 1)
        of_truth, of_result = int(missed.sum()), int(invented.sum())
    return Compared(
        base,
        _drawn(base, _zoomed(indices, zoom), _zoomed(missed, zoom), line=TRUTH, fill=MISSED),
        _drawn(base, _zoomed(found, zoom), _zoomed(invented, zoom), line=RESULT, fill=INVENTED),
        of_truth,
        of_result,
    )


def _unmatched(
    truth: NDArray[Any], result: NDArray[Any]
) -> tuple[tuple[NDArray[np.bool_], int], tuple[NDArray[np.bool_], int]]:
    """Find the objects of either that no object of the other covers, and how many they are."""
    pairs = object_pairs(truth, result)
    matched = pairs.iou >= 0.5
    found = []
    scored = np.where(truth >= 0, result, 0)  # an object where nothing is scored is neither right nor wrong
    for labels, places in ((truth, pairs.rows[matched]), (scored, pairs.columns[matched])):
        alone = np.delete(np.unique(labels[labels > 0]), places)
        found.append((np.isin(labels, alone), len(alone)))
    return found[0], found[1]


def _drawn(
    base: NDArray[np.uint8],
    labels: NDArray[Any],
    filled: NDArray[np.bool_],
    *,
    line: tuple[int, int, int],
    fill: tuple[int, int, int],
) -> NDArray[np.uint8]:
    picture = base.astype(np.float64)
    picture[labels < 0] *= 0.5
    picture[filled] = (1 - _FILLED) * picture[filled] + _FILLED * np.array(fill)
    width, rim = (2, 1) if min(base.shape[:2]) >= _COMPARED // 2 else (1, 0)
    picture[_edges(labels, width + rim)] *= 0.4
    picture[_edges(labels, width)] = line
    return picture.astype(np.uint8)


def _painted(base: NDArray[np.uint8], indices: NDArray[Any]) -> NDArray[np.uint8]:
    share = np.where(indices >= 0, 0.55, 0.0)[..., None]
    colours = CLASS_COLOURS[np.maximum(indices, 0) % len(CLASS_COLOURS)]
    gray = base.mean(axis=-1, keepdims=True)  # colours of the image would change those of the classes
    mixed: NDArray[np.float64] = np.where(share > 0, gray, base) * (1 - share) + colours * share
    return mixed.astype(np.uint8)


def _hatched(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    diagonal = np.add.outer(np.arange(where.shape[0]), np.arange(where.shape[1])) % _HATCH
    picture[where & (diagonal < 2)] = 0
    picture[where & (diagonal == 2)] = 255
    return picture


def heat(image: NDArray[Any], values: NDArray[np.floating], *, highest: float) -> NDArray[np.uint8]:
    """Lay values over the gray image: nothing at 0, the brightest of `HEAT` from `highest` on.

    Parameters
    ----------
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    values : ndarray of float, shape (rows, columns)
    highest : float

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        Small images are enlarged.
    """
    zoom = max(1, min(8, _COMPARED // max(values.shape)))
    share = np.clip(_zoomed(values, zoom) / max(highest, 1e-9), 0, 1)
    gray = 0.55 * _zoomed(displayed(image), zoom).mean(axis=-1, keepdims=True)
    places = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(share, places, channel) for channel in np.array(HEAT, np.float64).T], axis=-1)
    strength = (share**0.75)[..., None]
    mixed: NDArray[np.float64] = gray * (1 - strength) + colours * strength
    return mixed.astype(np.uint8)


def data_uri(picture: NDArray[np.uint8], *, longest: int = 1024, quality: int = 84) -> str:
    """Encode a picture as a JPEG that stands in a page itself.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
    longest : int
        Rows or columns at most; a larger picture is made smaller.
    quality : int
        Of the JPEG.

    Returns
    -------
    str
        ``data:image/jpeg;base64,…``
    """
    from PIL import Image

    factor = longest / max(picture.shape[:2])
    if factor < 1:
        shape = max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor))
        picture = np.moveaxis(resized(np.moveaxis(picture, -1, 0), shape, order=1), 0, -1)
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(encoded, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def overlay(image: NDArray[Any], labels: NDArray[Any], task: Task) -> NDArray[np.uint8]:
    """Paint labels over an image: each object its own colour and outline, each class its colour.

    Parameters
    ----------
    image : ndarray, shape (rows, columns) or (rows, columns, channels)
    labels : ndarray of int, shape (rows, columns)
    task : Task
        What the labels mean.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    base = displayed(image).astype(np.float64)
    indices = class_indices(labels, task)
    if task.kind == "instances":
        colours = _object_colours(int(indices.max(initial=0)))
        painted, share = colours[np.maximum(indices, 0)], np.where(indices > 0, 0.35, 0.0)
        share[_outlines(indices)] = 0.95
    elif task.kind == "binary":
        painted, share = FOREGROUND, np.where(indices > 0, 0.3, 0.0)
        share[_outlines(indices)] = 0.9
    else:
        painted, share = CLASS_COLOURS[np.maximum(indices, 0) % len(CLASS_COLOURS)], np.where(indices >= 0, 0.6, 0.0)
    mixed: NDArray[np.float64] = base * (1 - share[..., None]) + painted * share[..., None]
    return mixed.astype(np.uint8)


def _object_colours(count: int) -> NDArray[np.float64]:
    """Bright colours, neighbours in number far apart in hue; 0 is black."""
    import matplotlib

    hues = _hue(np.arange(count + 1))
    colours = matplotlib.colormaps["hsv"](hues)[:, :3] * 255
    colours[0] = 0
    return np.asarray(colours, dtype=np.float64)


def _outlines(indices: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels of a labelled piece with another value below or to the right, or the other way round."""
    edge = np.zeros(indices.shape, dtype=bool)
    down, right = indices[1:] != indices[:-1], indices[:, 1:] != indices[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge & (indices > 0)


Row = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]


def save_comparison(path: Path, rows: Sequence[Row], task: Task, *, title: str, overwrite: bool = False) -> None:
    """Write one picture: for each row the image, the truth and the result.

    Parameters
    ----------
    path : Path
        Of a PNG.
    rows : sequence of (caption, image, truth, result)
    task : Task
    title : str
        One line above all.
    overwrite : bool
    """
    from matplotlib.figure import Figure

    aspect = max(image.shape[0] / image.shape[1] for _, image, _, _ in rows)
    figure = Figure(figsize=(9.0, (2.95 * aspect + 0.3) * len(rows) + 0.6), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=12, x=0.012, ha="left", weight="bold")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, (caption, image, truth, result) in zip(axes, rows, strict=True):
        panels = (displayed(image), overlay(image, truth, task), overlay(image, result, task))
        for axis, panel in zip(line, panels, strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set_axis_off()
        line[2].set_title(caption, fontsize=9, loc="right", color="#555555")
    for axis, name in zip(axes[0], ("image", "truth", "result"), strict=True):
        axis.set_title(name, fontsize=11, loc="left")
    write: Callable[[Path], object] = lambda temporary: figure.savefig(temporary, format="png")  # noqa: E731
    write_atomically(path, write, overwrite=overwrite)

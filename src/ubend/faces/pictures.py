"""Pictures for people: an image, its truth and the result, side by side."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Task, class_indices
from ubend.data.formats import write_atomically

CLASS_COLOURS = np.array(
    [(86, 180, 233), (0, 158, 115), (230, 159, 0), (213, 94, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178)],
    dtype=np.float64,
)
"""Told apart with every kind of colour vision (Okabe and Ito)."""
FOREGROUND = np.array([230.0, 159.0, 0.0])

_PIXELS_AT_ONCE = 2**20
_SMALLEST_PICTURE = 1024
_SMALLEST_WITH_RIM = 30.0


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
    """Draw the outline of each object, in a colour of its own, onto the displayed image; band by band.

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
    for first in range(0, rows, height):
        last = min(first + height, rows)
        above, below = min(line + rim, first), min(line + rim, rows - last)
        seen = _zoomed(labels[first - above : last + below], zoom)
        inner = slice(above * zoom, seen.shape[0] - below * zoom)
        picture = _zoomed(_stretched(values[first:last], low, high), zoom)
        picture[_edges(seen, line + rim)[inner]] = 0
        edge = _edges(seen, line)[inner]
        picture[edge] = _line_colours(seen[inner][edge])
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


def _line_colours(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Bright colours, none dark or gray; neighbours in number far apart in hue."""
    hue = 6 * (numbers.astype(np.float64) * 0.618034 % 1)
    rgb = np.stack([np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4)], axis=-1)
    bright: NDArray[np.float64] = 100 + 155 * np.clip(rgb, 0, 1)
    return bright.astype(np.uint8)


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

    hues = np.arange(count + 1) * 0.618034 % 1
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

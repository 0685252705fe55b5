"""What training makes of annotated images, as pictures: `ubend preview`.

For each image one picture, laid out as Figures 2 and 3 of the paper: image, labels, target with its gaps, weights w(x);
samples as the network sees them, with a grid that was bent as they are; and the tile of prediction with its mirrored
border. All of it comes from the code that trains and predicts, none is drawn after it.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Annotated, Kind, Task, class_indices, infer_task
from ubend.data.formats import check_free, check_writable, write_atomically
from ubend.data.origin import MARK, was_written_here
from ubend.data.tiles import TrainingImage, draw_tile
from ubend.errors import FileError
from ubend.faces.pictures import CLASS_COLOURS, displayed, overlay
from ubend.method.geometry import halo, tile_spans
from ubend.method.overlap_tile import cut_tile
from ubend.method.resampling import commonest
from ubend.run.budget import Facts, Part, at_resolution, diameters, make_plan, middle_of
from ubend.run.contract import Contract
from ubend.run.normalisation import channels_first, count
from ubend.run.prediction import margin
from ubend.run.preparation import (
    annotated_images,
    check_finite,
    count_channels,
    count_copies,
    count_maps,
    make_contract,
    prepare,
    with_copies,
)
from ubend.run.recipe import Recipe, load_recipe

__all__ = ["Preview", "draw_maps", "draw_tiling", "grid_lines", "prepare_preview", "save_preview"]

LARGEST_SIDE = 768
"""Rows and columns of the middle of a larger image, which is shown instead."""
SAMPLES = 4
GRID = 32
"""Pixels between the lines of the grid that is bent."""
PAPERS_TILE = 572
_WIDTH, _EDGE, _GAP, _BAR, _CAPTION, _TILE = 11.5, 0.25, 0.16, 0.4, 0.36, 4.6
"""Of the picture, in inches."""
_LINE = 88
"""Characters beside the tile."""
_INK, _PALE = "#222222", "#666666"
_OUTPUT, _INPUT = "#f0e442", "#56b4e9"
"""Yellow and blue, as in Fig. 2."""


@dataclass(frozen=True, eq=False)
class Preview:
    """Annotated images, made ready as for training.

    Attributes
    ----------
    images : tuple of Annotated
        Of large ones the middle.
    prepared : tuple of TrainingImage
        The same, with targets and weights.
    contract : Contract
        What would be trained: the recipe, with what it leaves to the data settled.
    """

    images: tuple[Annotated, ...]
    prepared: tuple[TrainingImage, ...]
    contract: Contract


def prepare_preview(
    data: str | Path | Sequence[Annotated],
    *,
    recipe: Recipe | str | Path = "default",
    labels: str | None = None,
    task: Kind | None = None,
    ignore: int | None = None,
) -> Preview:
    """Prepare a folder as `train` does with a run by steps; one by minutes may take smaller tiles.

    Parameters
    ----------
    data : str, Path or sequence of Annotated
    recipe, labels, task, ignore
        As of `train`.

    Returns
    -------
    Preview

    Raises
    ------
    InputError, FileError, TrainingError
        As `train` does.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    images = annotated_images(data, labels)
    seen = infer_task([image.labels for image in images], kind=task, ignore=ignore)
    check_finite(images)
    sizes = tuple((image.labels.shape[0], image.labels.shape[1]) for image in images)
    small, large = diameters(images, seen)
    facts = Facts(sizes, count_channels(images), count_maps(recipe, seen), large, small)
    contract = make_contract(make_plan(recipe, facts).recipe, seen, images)
    parts: list[Part] = [(k, *middle_of(image.labels.shape, LARGEST_SIDE)) for k, image in enumerate(images)]
    prepared = prepare(images, contract, parts)
    shown = (
        replace(images[k], image=images[k].image[rows, columns], labels=images[k].labels[rows, columns])
        for k, rows, columns in parts
    )
    return Preview(tuple(shown), tuple(prepared), contract)


def _copies(image: Annotated, contract: Contract, seed: int) -> list[TrainingImage]:
    """Prepare an image as training has it once more, with copies of its cells beside others."""
    more = with_copies([image], count_copies([image], contract.recipe, contract.task), contract.task, seed)[1:]
    return prepare(more, contract, check=False) if more else []


def save_preview(path: Path, preview: Preview, number: int, *, seed: int = 0, overwrite: bool = False) -> None:
    """Draw one image of a preview.

    Parameters
    ----------
    path : Path
        Of a PNG.
    preview : Preview
    number : int
        Of the image, from 0.
    seed : int
        Of the samples.
    overwrite : bool

    Raises
    ------
    FileError
        If the file exists and may not be overwritten, or cannot be written.
    """
    from matplotlib.figure import Figure

    image, source, contract = preview.images[number], preview.prepared[number], preview.contract
    panels = 4 + (source.distance is not None)
    across = (_WIDTH - 2 * _EDGE - _GAP * (panels - 1) - _BAR) / panels
    sample = (_WIDTH - 2 * _EDGE - _GAP * (SAMPLES - 1)) / SAMPLES
    maps = across * min(max(image.labels.shape[0] / image.labels.shape[1], 0.3), 1.7)
    height = 0.6 + maps + 2 * sample + _TILE + 4 * _CAPTION
    figure = Figure(figsize=(_WIDTH, height), dpi=110, facecolor="white")
    figure.text(_EDGE / _WIDTH, 1 - 0.22 / height, _plain(image.name), fontsize=13, va="top", weight="bold", color=_INK)
    tops = np.cumsum([0.55 + _CAPTION, maps + _CAPTION, sample + _CAPTION, sample + _CAPTION])
    rows = [
        _row(figure, top, size, number) for top, size, number in zip(
            tops, ((across, maps), (sample, sample), (sample, sample)), (panels, SAMPLES, SAMPLES), strict=False)
    ]  # fmt: skip
    draw_maps(rows[0], image, source, contract)
    _draw_samples(rows[1], rows[2], (source, *_copies(image, contract, seed)), contract, seed)
    picture, legend = _row(figure, tops[3], (_TILE, _TILE), 2)
    letter = "h" if source.distance is not None else "g"
    _explain(legend, contract, *draw_tiling(picture, image, contract, letter=letter))
    write: Callable[[Path], object] = lambda part: figure.savefig(part, format="png", facecolor="white", metadata=MARK)  # noqa: E731
    write_atomically(path, write, overwrite=overwrite)


def _row(figure: Any, top: float, size: tuple[float, float], number: int) -> list[Any]:
    """Add axes beside each other, in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    return [
        figure.add_axes(
            ((_EDGE + k * (size[0] + _GAP)) / width, 1 - (top + size[1]) / height, size[0] / width, size[1] / height),
            anchor="NW",
        )
        for k in range(number)
    ]


def files_of(out: Path, preview: Preview, *, overwrite: bool) -> list[Path]:
    """Name the pictures, one for each image, or only the first if `out` is a PNG; refuse what could not be written.

    Raises
    ------
    FileError
        If one exists and `overwrite` is not given or ubend did not draw it, or cannot be written.
    """
    names = [f"{image.name}_preview.png" for image in preview.images]
    files = [out] if out.suffix.lower() == ".png" else [out / name for name in names]
    check_writable(files[0].parent)
    for path in files:
        check_free(path, overwrite=overwrite)
        if path.exists() and not was_written_here(path):
            raise FileError(f"{path} is no picture that ubend drew, and is not replaced: name another file")
    if len(set(files)) < len(files):
        raise FileError(f"two images have the same name: {out} cannot hold the pictures of both")
    return files


def _plain(text: str) -> str:
    """Matplotlib takes what stands between two dollars for a formula."""
    return text.replace("$", r"\$")


def _show(axis: Any, letter: str, caption: str, picture: NDArray[Any], **how: Any) -> Any:
    shown = axis.imshow(picture, interpolation="nearest", **how)
    axis.set_axis_off()
    _caption(axis, letter, caption)
    return shown


def _caption(axis: Any, letter: str, caption: str) -> None:
    start = rf"$\bf{{{letter}}}$  " if letter else ""
    axis.set_title(start + caption, fontsize=9, loc="left", color=_INK)


# a to d: the image, and what is learned from it


def draw_maps(axes: Sequence[Any], image: Annotated, source: TrainingImage, contract: Contract) -> None:
    """Draw image, labels, target, the distance where it is learned, and weights, beside each other.

    Parameters
    ----------
    axes : sequence of matplotlib.axes.Axes
        Four, or five with the distance.
    image : Annotated
    source : TrainingImage
        The same, from a `Preview`.
    contract : Contract
    """
    task = contract.task
    rows, columns = image.labels.shape
    _show(axes[0], "a", f"image, {rows}×{columns} px", displayed(image.image))
    _show(axes[1], "b", _labels_in_words(image, task), overlay(image.image, image.labels, task))
    _show(axes[2], "c", _target_in_words(image, source, contract), _target(image, source, contract))
    if source.distance is not None:
        _show(axes[3], "d", "distance to the border", source.distance, cmap="gray", vmin=0, vmax=1)
    _draw_weights(
        axes[-1], "d" if source.distance is None else "e", source, contract
    )  # last: its scale stands beside it


def _labels_in_words(image: Annotated, task: Task) -> str:
    if task.kind == "classes":
        return f"labels: {len(task.values)} classes"
    if task.kind == "binary":
        return f"labels: {np.mean(class_indices(image.labels, task) == 1):.0%} foreground"
    return f"labels: {count(int(np.count_nonzero(np.unique(class_indices(image.labels, task)) > 0)), 'object')}"


def _target_in_words(image: Annotated, source: TrainingImage, contract: Contract) -> str:
    if contract.task.kind != "instances":
        return f"target:{at_resolution(contract.network.coarse) or ' as labelled'}"
    gaps = int(np.count_nonzero(_gaps(image, source, contract)))
    return f"target: {gaps:,} px cut as gaps" if gaps else "target: no objects touch"


def _gaps(image: Annotated, source: TrainingImage, contract: Contract) -> NDArray[np.bool_]:
    objects = commonest(class_indices(image.labels, contract.task), contract.network.coarse)
    return np.asarray((objects > 0) & (source.classes == 0))


def _target(image: Annotated, source: TrainingImage, contract: Contract) -> NDArray[np.uint8]:
    painted = _painted(source.classes, contract.task)
    if contract.task.kind == "instances":
        painted[_gaps(image, source, contract)] = (213, 94, 0)
    return painted


def _painted(classes: NDArray[Any], task: Task) -> NDArray[np.uint8]:
    """Background black, foreground white, classes in their colours, gray where not labelled."""
    colours: NDArray[np.uint8]
    if task.kind == "classes":
        colours = CLASS_COLOURS[np.maximum(classes, 0) % len(CLASS_COLOURS)].astype(np.uint8)
    else:
        colours = np.repeat(np.where(classes > 0, 235, 20).astype(np.uint8)[..., None], 3, axis=-1)
    colours[classes < 0] = 128
    return colours


def _draw_weights(axis: Any, letter: str, source: TrainingImage, contract: Contract) -> None:
    if source.weights is None:
        _show(axis, letter, "weights w(x): 1 everywhere", np.full((*source.classes.shape, 3), 235, np.uint8))
        return
    border = 0.0 if contract.task.kind == "classes" else contract.recipe.energy.w0
    highest = max(1 + border, float(source.weights.max()))  # at least w0 more: 1 everywhere looks low, as it is
    shown = _show(axis, letter, "weights w(x)", source.weights, cmap="inferno", vmin=0, vmax=highest)
    bar = axis.figure.colorbar(shown, cax=axis.inset_axes((1.03, 0, 0.035, 1)))
    bar.ax.tick_params(labelsize=7.5, colors=_INK, length=2)
    bar.outline.set_visible(False)


# samples


def _draw_samples(
    above: Sequence[Any], below: Sequence[Any], sources: Sequence[TrainingImage], contract: Contract, seed: int
) -> None:
    """Draw samples as training does, and beneath each its target; the grid is bent in the place of the weights."""
    letters = "f" if sources[0].distance is not None else "e"
    low, high = _gray_limits(sources[0])
    lines = [replace(one, weights=grid_lines(one.classes.shape), distance=None) for one in sources]
    size, border = contract.recipe.tiles.size, margin(contract.network)
    inside = (border - 0.5, size - border - 0.5, size - border - 0.5, border - 0.5)
    for number in range(SAMPLES):
        tile, grid = (
            draw_tile(each, contract.recipe.tiles, contract.recipe.augmentation, margin=border, key=(seed, number, 0))
            for each in (sources, lines)
        )
        seen = f"samples as the network sees them, {size}×{size} px{at_resolution(contract.network.coarse)}"
        caption = seen if number == 0 else ""
        _show(above[number], letters if number == 0 else "", caption, _tile_picture(tile.image.numpy(), low, high))
        assert grid.weights is not None
        ink = np.zeros((*grid.weights.shape, 4))
        ink[..., 1:3], ink[..., 3] = (0.78, 1.0), np.clip(grid.weights.numpy(), 0, 1) * 0.75
        above[number].imshow(ink, interpolation="nearest", extent=inside)
        caption = "their targets, bent alike" if number == 0 else ""
        target = _painted(tile.labels.numpy(), contract.task)
        _show(below[number], chr(ord(letters) + 1) if number == 0 else "", caption, target, extent=inside)
        for axis in (above[number], below[number]):
            axis.set_xlim(-0.5, size - 0.5)
            axis.set_ylim(size - 0.5, -0.5)


def grid_lines(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Lines of 2 pixels, every `GRID` pixels: 1 on a line, 0 elsewhere.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    ndarray of float32, of that shape

    Examples
    --------
    >>> grid_lines((1, 5)).tolist(), grid_lines((5, 5))[3].tolist()
    ([[1.0, 1.0, 1.0, 1.0, 1.0]], [1.0, 1.0, 0.0, 0.0, 0.0])
    """
    on = [np.arange(length) % GRID < 2 for length in shape]
    return np.logical_or.outer(*on).astype(np.float32)


def _gray_limits(source: TrainingImage) -> tuple[float, float]:
    """What is black and white in all samples, so that one sees their contrast change."""
    low, high = np.percentile((source.image - source.offset) * source.gain, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def _tile_picture(tile: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    channels = tile[:3] if len(tile) == 3 else np.repeat(tile[:1], 3, axis=0)
    shown: NDArray[np.float32] = np.clip((np.moveaxis(channels, 0, -1) - low) / (high - low), 0, 1)
    return shown


# the tile of Fig. 2


def draw_tiling(axis: Any, image: Annotated, contract: Contract, *, letter: str = "") -> tuple[int, int]:
    """Draw the tiles of an image, the input of the first one, and the mirrored border.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    image : Annotated
    contract : Contract
    letter : str
        Before the caption.

    Returns
    -------
    size, tiles : int
        Rows and columns of a tile's input, and how many tiles there are.
    """
    depth, (rows, columns) = contract.network.depth, image.labels.shape
    border = halo(depth)
    spans = [tile_spans(length, largest_input=PAPERS_TILE, depth=depth) for length in (rows, columns)]
    ends = [max(length + border, of_axis[0].first + of_axis[0].size)
            for of_axis, length in zip(spans, (rows, columns), strict=True)]  # fmt: skip
    around = [replace(of_axis[0], first=-border, size=end + border) for of_axis, end in zip(spans, ends, strict=True)]
    pixels = channels_first(image.image, contract.network.in_channels)
    canvas = displayed(np.moveaxis(cut_tile(pixels, *around), 0, -1)).astype(np.float64)
    mirrored = np.ones(canvas.shape[:2], bool)
    mirrored[border : border + rows, border : border + columns] = False
    canvas[mirrored] = 0.55 * canvas[mirrored] + 70
    _show(axis, letter, "a tile of prediction, and the mirrored border", canvas.astype(np.uint8),
          extent=(-border - 0.5, ends[1] - 0.5, ends[0] - 0.5, -border - 0.5))  # fmt: skip
    for r in spans[0]:
        for c in spans[1]:
            _frame(axis, (r.start, r.stop), (c.start, c.stop), _OUTPUT, 0.8, ":")
    r, c = spans[0][0], spans[1][0]
    _frame(axis, (r.first, r.first + r.size), (c.first, c.first + c.size), _INPUT, 2.2, "-")
    _frame(axis, (r.start, r.stop), (c.start, c.stop), _OUTPUT, 2.2, "-")
    axis.set_xlim(-border - 4, ends[1] + 4)
    axis.set_ylim(ends[0] + 4, -border - 4)
    return r.size, len(spans[0]) * len(spans[1])


def _frame(axis: Any, rows: tuple[int, int], columns: tuple[int, int], colour: str, width: float, style: str) -> None:
    from matplotlib.patches import Rectangle

    corner = columns[0] - 0.5, rows[0] - 0.5
    axis.add_patch(
        Rectangle(corner, columns[1] - columns[0], rows[1] - rows[0], fill=False, color=colour, lw=width, ls=style)
    )


def _explain(axis: Any, contract: Contract, size: int, tiles: int) -> None:
    axis.set_axis_off()
    at = 1.0
    for name, text in _legend(contract, size, halo(contract.network.depth), tiles):
        lines = textwrap.wrap(text, _LINE)
        axis.text(0.08, at, name, fontsize=9, weight="bold", color=_INK, va="top", transform=axis.transAxes)
        axis.text(
            0.08,
            at - 0.05,
            "\n".join(lines),
            fontsize=9,
            color=_PALE,
            va="top",
            transform=axis.transAxes,
            linespacing=1.4,
        )
        at -= 0.078 + 0.037 * len(lines)


def _legend(contract: Contract, size: int, border: int, tiles: int) -> Iterator[tuple[str, str]]:
    energy, bend = contract.recipe.energy, contract.recipe.augmentation
    yield (
        "Tiles (Fig. 2)",
        f"To give the yellow, the network needs the blue: {border} px more on each side, mirrored where there is "
        f"no image. {count(tiles, 'tile')} of {size}×{size} px here: the result does not depend on their size.",
    )
    if contract.network.coarse:
        words = at_resolution(contract.network.coarse).strip()
        yield (
            "Resolution",
            f"The network works {words}: all but a, b and the tiles is shown so, and told in its pixels.",
        )
    if contract.task.kind == "instances":
        yield (
            "Gaps (orange in c)",
            f"Objects that touch lose {energy.gap} px each, so that they can be told apart; prediction gives it back.",
        )
    if contract.learns_distance:
        yield (
            "Distance (d)",
            "How deep in its object a pixel lies, 0 at the border to 1 in the middle: learned beside the foreground, "
            "and by it objects that touch are parted.",
        )
    if contract.task.kind != "classes":
        yield (
            "Weights (Eq. 2, Fig. 3)",
            f"Background between near objects weighs up to {energy.w0:g} more; σ = {energy.sigma:g} px. "
            f"Classes are {'balanced by their frequency' if energy.balance == 'frequency' else 'not balanced'}.",
        )
    copied = (
        ", and cells that differ from the background are copied beside others"
        if bend.copies and contract.task.kind == "instances"
        else ""
    )
    added = "noise and haze are" if bend.haze and contract.task.kind != "classes" else "noise is"
    yield (
        "Samples",
        f"Bent on a {bend.elastic_points}×{bend.elastic_points} grid by σ = {bend.elastic_sigma:g} px, turned up to "
        f"±{bend.rotation:g}°{', mirrored' if bend.flip else ''}, magnified up to ×{bend.zoom:g}; contrast, "
        f"brightness and curve vary, {added} added{copied}. All at random, by the seed.",
    )
    yield (
        "The grid",
        f"Its lines were {GRID} px apart and straight. It is drawn for you; the network does not see it.",
    )

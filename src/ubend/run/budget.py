"""Minutes, memory and the size of the objects → resolution, width, depth, tile, batch: a plan in plain words.

`make_plan` decides, from numbers alone. `Speed` measures what it asks for, with a few real steps. A run by steps asks
for no speed and no memory, so that its plan, and its model, are the same on every machine.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.data.annotated import Annotated, Task, class_indices
from ubend.errors import InputError
from ubend.method.geometry import nearest_valid_inputs, receptive_field, smallest_input_for
from ubend.method.network import NetworkConfig, check_input_size, count_parameters, layer_table
from ubend.run.normalisation import count
from ubend.run.recipe import BudgetConfig, Recipe

WIDTHS = (8, 16, 24, 32, 48, 64)
"""Widths that a budget chooses from."""
STEPS_WANTED, STEPS_LEAST = 8000, 300
"""A wider network is taken if the budget still affords the first; a smaller step, if it does not afford the second.
8,000 steps of one tile at width 16 are some 10 minutes on two cores. At a sixth of them, width 24 did worse in the same
time (docs/benchmarks.md, "How the default recipe was chosen")."""
COARSE_FROM = (40, 160)
"""Diameters of large objects, in pixels, from which the network works at half and at a quarter of the resolution. What
that brings is in docs/benchmarks.md, "Resolution"."""
SMALLEST_OBJECT, SMALLEST_IMAGE = 20, 64
"""Diameter of small objects, and rows and columns of an image, that must be left at that resolution."""
OBJECTS_A_TILE = 1.5
"""Diameters of a large object that a tile covers. Larger tiles mean fewer steps, and did worse in the same time
(docs/benchmarks.md, "How the default recipe was chosen")."""
LARGEST_TILE = 384
"""Rows and columns of a tile that follows the objects."""
MOST_TILES = 16
"""Tiles a step when they are small: beyond, more steps teach more than larger ones."""
SMALLEST_BOTTOM = 4
"""Rows and columns that the lowest maps of a padded network have at least."""
DEEPEST = 5
"""Depth for objects wider than what a network of the recipe's depth sees."""
BYTES_FIXED, BYTES_A_PIXEL, BYTES_A_VALUE, BYTES_A_PARAMETER = 150 << 20, 500, 75, 16
"""Peak memory of a step in 16 bits: in all; of each pixel of its tiles, and times the width; of each parameter with
gradient and two moments. Fitted to the peaks of widths 8 to 64, 1 to 4 tiles of 256×256: 259 to 1,658 MB."""
USABLE = 0.8
"""Share of the free memory that a step may take."""
CALIBRATION_SHARE, LONGEST_CALIBRATION = 0.03, 20.0
"""Of the budget, and in seconds, what measuring may take."""
PILOT_TILE = 128
"""Rows and columns of the one tile that is tried before whole steps are."""
MEASURED_ON = 2**22
"""Pixels of labels in which the objects are measured at most."""


SMALLEST_PART, LARGEST_PART = 256, 1024
"""Rows and columns of parts of images, where whole ones would take too long."""
FEW_VALUES = 64
"""Of labels; up to so many each is looked for in the parts."""

Part = tuple[int, slice, slice]
"""Number of an image, rows, columns."""


@dataclass(frozen=True)
class Facts:
    """What a plan needs to know of the images to train on.

    Attributes
    ----------
    sizes : tuple of (int, int)
        Rows and columns of each image.
    channels, classes : int
        Maps that the network takes and gives.
    diameter : float or None
        Of the large objects, in pixels; None where labels are classes, or there is no object.
    small : float or None
        Diameter of the small ones; None also where labels are foreground, of which not each piece is an object.
    """

    sizes: tuple[tuple[int, int], ...]
    channels: int
    classes: int
    diameter: float | None = None
    small: float | None = None


@dataclass(frozen=True)
class Plan:
    """What a run will do, and why.

    Attributes
    ----------
    recipe : Recipe
        With the numbers that were chosen, and nothing left to choose: trained again it chooses the same.
    steps : int
        As many as were asked for, or as the time affords as far as one can tell.
    seconds_a_step : float or None
        As measured; None in a run by steps.
    memory : int
        Bytes that a step takes, about.
    words : tuple of str
        The plan in plain words.
    """

    recipe: Recipe
    steps: int
    seconds_a_step: float | None
    memory: int
    words: tuple[str, ...]


def make_plan(
    recipe: Recipe,
    facts: Facts,
    *,
    seconds: float | None = None,
    speed: Callable[[Recipe], float] | None = None,
    memory: int | None = None,
    sixteen_bits: bool = True,
) -> Plan:
    """Settle what a recipe leaves to the budget.

    Parameters
    ----------
    recipe : Recipe
        Its length is settled already. Numbers that its table [budget] does not name stay.
    facts : Facts
    seconds : float, optional
        For all steps; without it the run is one by steps.
    speed : callable, optional
        Gives the seconds of a step of a recipe. Without it the width stays.
    memory : int, optional
        Bytes that are free; without it they do not matter.
    sixteen_bits : bool
        Whether the device computes in 16 bits.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If tile and depth that the recipe keeps do not fit each other.

    Examples
    --------
    >>> recipe = Recipe(budget=BudgetConfig(width=True, size=True, batch=True))
    >>> plan = make_plan(recipe, Facts(((40, 90),), channels=1, classes=2))
    >>> plan.recipe.tiles.size, plan.recipe.tiles.batch, plan.recipe.network.width
    (236, 5, 64)
    """
    asked = recipe.network
    recipe = replace(recipe, network=replace(asked, in_channels=facts.channels, classes=facts.classes))
    recipe, tile_words = _settle_tiles(recipe, facts)
    recipe, time_words = _settle_time(recipe, seconds, speed)
    recipe, memory_words = _settle_memory(recipe, memory, sixteen_bits=sixteen_bits)
    step = speed(recipe) if speed is not None else None
    steps = recipe.training.steps
    if step is not None and seconds is not None:
        steps = max(1, round(seconds / step))
    needed = step_bytes(recipe, sixteen_bits=sixteen_bits)
    words = (_in_short(recipe, steps, step, needed), *tile_words, *time_words, *memory_words)
    network = replace(recipe.network, in_channels=asked.in_channels, classes=asked.classes)
    return Plan(replace(recipe, network=network, budget=BudgetConfig()), steps, step, needed, words)


# what the data say


def _settle_tiles(recipe: Recipe, facts: Facts) -> tuple[Recipe, list[str]]:
    """Choose resolution, depth, tile and batch from the size of images and objects; about the pixels of a step stay.

    But for the first, all is told in pixels as the network sees them.
    """
    coarse, words = _resolution(recipe, facts)
    recipe, free, base = replace(recipe, network=recipe.network.core), recipe.budget, recipe.tiles
    sizes = tuple((-(-rows >> coarse), -(-columns >> coarse)) for rows, columns in facts.sizes)
    facts = replace(facts, sizes=sizes, diameter=None if facts.diameter is None else facts.diameter / 2**coarse)
    side = max(min(rows, columns) for rows, columns in facts.sizes)
    depth = recipe.network.depth
    if free.depth:
        depth = _depth(recipe, facts, side)
    network = replace(recipe.network, depth=depth)
    size = base.size
    if free.size:
        objects = OBJECTS_A_TILE * (facts.diameter or 0)
        wanted = min(max(base.size, objects), max(base.size, LARGEST_TILE))
        size = _fitting(network, min(wanted, side))
        why = "" if facts.diameter is None else f"large objects measure about {facts.diameter:.0f} px"
        if side < wanted:
            why = f"the images have {side} rows or columns at most" + (f", {why}" if why else "")
        if why and not coarse:
            words.append(f"Tiles of {size}×{size}: {why}.")
    check_input_size(network, size, size)
    batch = base.batch
    if free.batch:
        batch = round(base.batch * (base.size / size) ** 2)
        batch = min(max(MOST_TILES, base.batch), max(1, batch))
    if depth != recipe.network.depth:
        words.append(f"Depth {depth}: each pixel sees {receptive_field(depth)[0] << coarse} px around it.")
    network = replace(network, depth=depth + coarse, coarse=coarse)
    return replace(recipe, network=network, tiles=replace(base, size=size, batch=batch)), words


def _resolution(recipe: Recipe, facts: Facts) -> tuple[int, list[str]]:
    """How often the image is halved before the network works on it: more often where the objects are large."""
    free = recipe.budget
    if not (free.coarse and free.depth and free.size) or facts.diameter is None:
        return recipe.network.coarse, []
    side = max(min(rows, columns) for rows, columns in facts.sizes)
    small = math.inf if facts.small is None else facts.small
    coarse = sum(facts.diameter >= least for least in COARSE_FROM)
    while coarse and (side < SMALLEST_IMAGE << coarse or small < SMALLEST_OBJECT << coarse):
        coarse -= 1
    if coarse <= recipe.network.coarse:
        return recipe.network.coarse, []
    return coarse, [f"Why{at_resolution(coarse)}: large objects measure about {facts.diameter:.0f} px."]


def _depth(recipe: Recipe, facts: Facts, side: int) -> int:
    """One level more for objects that are wider than what the network sees; fewer where the tile is too small."""
    depth, base = recipe.network.depth, recipe.tiles
    if recipe.budget.size and facts.diameter is not None and facts.diameter > receptive_field(depth)[0]:
        depth = max(depth, min(depth + 1, DEEPEST))
    size = min(side, max(base.size, LARGEST_TILE)) if recipe.budget.size else base.size
    padded = recipe.network.padding == "same"
    while depth > 1 and (
        (padded and size < SMALLEST_BOTTOM * 2**depth)
        or (not recipe.budget.size and not _fits(replace(recipe.network, depth=depth), size))
    ):
        depth -= 1
    return depth


def _fits(network: NetworkConfig, size: int) -> bool:
    try:
        check_input_size(network, size, size)
    except InputError:
        return False
    return True


def _fitting(network: NetworkConfig, side: float) -> int:
    """Smallest tile that a network takes and that covers `side` rows."""
    if network.padding == "none":
        return smallest_input_for(math.ceil(side), network.depth)
    step = 1 << network.depth
    return max(SMALLEST_BOTTOM, math.ceil(side / step)) * step


# what the time says


def _settle_time(
    recipe: Recipe, seconds: float | None, speed: Callable[[Recipe], float] | None
) -> tuple[Recipe, list[str]]:
    """Take the widest network with which the time still affords the steps wanted; on a slow machine, smaller steps."""
    if seconds is None or speed is None:
        return recipe, []
    words, slow = [], False
    steps = seconds / speed(recipe)
    if recipe.budget.width and steps < STEPS_LEAST:
        for width in sorted((w for w in WIDTHS if w < recipe.network.width), reverse=True):
            recipe = _with_width(recipe, width)
            if seconds / speed(recipe) >= STEPS_LEAST:
                break
        words.append(f"Width {recipe.network.width}: of a wider network there is time for too few steps.")
    elif recipe.budget.width:
        for width in (w for w in WIDTHS if w > recipe.network.width):
            if steps * recipe.network.width / width < STEPS_WANTED:  # a step takes longer at least by that
                break
            wider = _with_width(recipe, width)
            found = seconds / speed(wider)
            if found < STEPS_WANTED:
                break
            recipe, steps = wider, found
    while recipe.budget.batch and recipe.tiles.batch > 1 and seconds / speed(recipe) < STEPS_LEAST:
        recipe = _with_tiles(recipe, batch=recipe.tiles.batch // 2)
        slow = True
    if slow:
        words.append(f"{count(recipe.tiles.batch, 'tile')} a step: this machine is slow for the time given.")
    return recipe, words


def _with_width(recipe: Recipe, width: int) -> Recipe:
    return replace(recipe, network=replace(recipe.network, width=width))


def _with_tiles(recipe: Recipe, **changes: int) -> Recipe:
    return replace(recipe, tiles=replace(recipe.tiles, **changes))


# what the memory says


def step_bytes(recipe: Recipe, *, sixteen_bits: bool = True) -> int:
    """Tell about how many bytes a training step takes at its peak.

    Examples
    --------
    >>> step_bytes(Recipe(network=NetworkConfig(width=16, padding="same"))) // 10**6
    633
    """
    network, tiles = recipe.network, recipe.tiles
    values = tiles.batch * tiles.size**2 * (BYTES_A_PIXEL + BYTES_A_VALUE * network.width)
    return BYTES_FIXED + BYTES_A_PARAMETER * count_parameters(network) + values * (1 if sixteen_bits else 2)


def _settle_memory(recipe: Recipe, memory: int | None, *, sixteen_bits: bool) -> tuple[Recipe, list[str]]:
    """Reduce the batch, then the tile, then the width until a step fits the free memory."""
    if memory is None:
        return recipe, []
    smaller = recipe
    while step_bytes(smaller, sixteen_bits=sixteen_bits) > USABLE * memory:
        step = _next_smaller(smaller)
        if step is None:
            break
        smaller = step
    if smaller == recipe:
        return recipe, []
    tiles, width = smaller.tiles, smaller.network.width
    wanted = step_bytes(recipe, sixteen_bits=sixteen_bits)
    return smaller, [
        f"{tiles.batch} × {tiles.size}×{tiles.size} at width {width}: {_bytes(memory)} of memory are free, "
        f"{_bytes(wanted)} would have been needed."
    ]


def _next_smaller(recipe: Recipe) -> Recipe | None:
    free, tiles, network = recipe.budget, recipe.tiles, recipe.network
    if free.batch and tiles.batch > 1:
        return _with_tiles(recipe, batch=tiles.batch // 2)
    if free.size:
        size = _smaller_tile(network.core, tiles.size)
        if size < tiles.size:
            return _with_tiles(recipe, size=size)
    narrower = [width for width in WIDTHS if width < network.width]
    return _with_width(recipe, narrower[-1]) if free.width and narrower else None


def _smaller_tile(network: NetworkConfig, size: int) -> int:
    """About two thirds of a tile; the same if there is no smaller one."""
    if network.padding == "none":
        return nearest_valid_inputs(size * 2 // 3, network.depth)[0]
    step = 1 << network.depth
    return min(size, max(SMALLEST_BOTTOM, size * 2 // 3 // step) * step)


# in words


def _in_short(recipe: Recipe, steps: int, step: float | None, memory: int) -> str:
    tiles, network, length = recipe.tiles, recipe.network, recipe.training
    if length.minutes:
        known = "steps" if step is None else f"about {_rounded(steps):,} steps"
        many = f"{length.minutes:g} {'minute' if length.minutes == 1 else 'minutes'} → {known}"
    else:
        many = count(steps, "step")
    speed = "" if step is None else f"; {_seconds(step)} a step"
    return (
        f"{many} of {count(tiles.batch, 'tile')} of {tiles.size}×{tiles.size}{at_resolution(network.coarse)}; "
        f"width {network.width}, depth {network.core.depth}, {_parameters(count_parameters(network))} parameters"
        f"{speed}, {_bytes(memory)} of memory"
    )


def at_resolution(coarse: int) -> str:
    """Say at which resolution of the image a network works, if it is not the whole.

    Examples
    --------
    >>> [at_resolution(coarse) for coarse in range(3)]
    ['', ' at half the resolution', ' at 1/4 of the resolution']
    """
    return " at half the resolution" if coarse == 1 else f" at 1/{2**coarse} of the resolution" if coarse else ""


def _rounded(number: int) -> int:
    """Two digits are as much as one can tell in advance."""
    digits = max(0, len(str(number)) - 2)
    return round(number, -digits)


def _parameters(number: int) -> str:
    return f"{number / 1e6:.1f} million" if number >= 10**6 else f"{_rounded(number):,}"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 10**9 else f"{_rounded(number // 10**6)} MB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


# measuring


class Speed:
    """Seconds a step of recipes: measured by real steps where the time allows, else from the measure of another one.

    Parameters
    ----------
    trial : callable
        Gives, for a recipe, a function that does one training step of it.
    allowed : float
        Seconds that all measuring may take.
    now : callable, optional
        Gives the seconds of a clock.
    """

    def __init__(
        self, trial: Callable[[Recipe], Callable[[], None]], allowed: float, now: Callable[[], float] = perf_counter
    ) -> None:
        self.trial, self.allowed, self.now = trial, allowed, now
        self.spent = 0.0
        self._seconds_a_mac = 0.0
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, recipe: Recipe) -> float:
        """Tell the seconds of one step of a recipe."""
        network, tiles = recipe.network, recipe.tiles
        key = (network.width, network.depth, network.coarse, tiles.size, tiles.batch)
        if key not in self._known:
            if not self._known:
                pilot = _with_tiles(recipe, batch=1, size=_pilot_tile(recipe))
                self._seconds_a_mac = self._measure(pilot, steps=2) / _macs(pilot)
            self._known[key] = self._seconds_a_mac * _macs(recipe)
            if self.spent + 3 * self._known[key] < self.allowed:
                self._known[key] = self._measure(recipe, steps=3)
                self._seconds_a_mac = self._known[key] / _macs(recipe)
        return self._known[key]

    def _measure(self, recipe: Recipe, steps: int) -> float:
        """Take the median of some steps after the first, which also sets up; the first alone if it took too long.

        Making the network and its optimiser does not count: in a new process that loads parts of torch, for seconds.
        """
        step = self.trial(recipe)
        began = self.now()
        times = []
        for _ in range(steps):
            before = self.now()
            step()
            times.append(self.now() - before)
            if self.spent + self.now() - began > self.allowed:
                break
        self.spent += self.now() - began
        return max(statistics.median(times[1:] or times), 1e-6)


def _pilot_tile(recipe: Recipe) -> int:
    network, size = recipe.network.core, recipe.tiles.size
    smaller = smallest_input_for(1, network.depth) if network.padding == "none" else PILOT_TILE
    step = 1 << network.depth
    return min(size, smaller if network.padding == "none" else max(smaller // step, 1) * step)


def _macs(recipe: Recipe) -> int:
    return recipe.tiles.batch * sum(layer.macs for layer in layer_table(recipe.network.core, recipe.tiles.size))


# fewer pixels


def fewer_pixels(images: Sequence[Annotated], pixels: float) -> list[Annotated]:
    """Keep of each image the middle, so that all have about so many pixels; of many images the first.

    Examples
    --------
    >>> one = Annotated("one", np.zeros((600, 600)), np.zeros((600, 600), np.int32), None)
    >>> [cut.labels.shape for cut in fewer_pixels([one, one], 2 * 300**2)]
    [(300, 300), (300, 300)]
    """
    if sum(image.labels.size for image in images) <= pixels:
        return list(images)
    number = int(min(len(images), max(1, pixels // SMALLEST_PART**2)))
    side = max(SMALLEST_PART, math.isqrt(int(pixels) // number))
    return [
        replace(image, image=middle(image.image, side), labels=middle(image.labels, side)) for image in images[:number]
    ]


def choose_parts(images: Sequence[Annotated], pixels: float, tile: int, seed: int) -> list[Part]:
    """Choose parts of images that have about so many pixels in all, among them one with each value of the labels.

    Parameters
    ----------
    images : sequence of Annotated
    pixels : float
        In all; one part is taken in any case.
    tile : int
        A part has at least so many rows and columns, where the image has.
    seed : int

    Returns
    -------
    list of (int, slice, slice)
        Number of the image, rows and columns; the whole images if they have no more pixels.
    """
    if sum(image.labels.size for image in images) <= pixels:
        return [(number, *whole(image)) for number, image in enumerate(images)]
    side = max(2 * tile, min(LARGEST_PART, math.isqrt(int(pixels) // 8)))
    places = [
        (number, rows, columns)
        for number, image in enumerate(images)
        for rows in _spans(image.labels.shape[0], side)
        for columns in _spans(image.labels.shape[1], side)
    ]
    shuffled = [places[k] for k in np.random.default_rng((seed, 2)).permutation(len(places))]
    values = [set(np.unique(images[n].labels[rows, columns]).tolist()) for n, rows, columns in shuffled]
    rare = {value: k for k, found in reversed(list(enumerate(values))) for value in found} if _few(values) else {}
    first = list(dict.fromkeys(rare.values()))
    rest = sorted((k for k in range(len(shuffled)) if k not in first), key=lambda k: len(values[k]) < 2)
    chosen, taken = [], 0
    for k in [*first, *rest]:
        _, rows, columns = shuffled[k]
        if taken and taken >= pixels and k not in first:
            break
        chosen.append(shuffled[k])
        taken += (rows.stop - rows.start) * (columns.stop - columns.start)
    return chosen


def _few(values: Sequence[set[int]]) -> bool:
    return len(set().union(*values)) <= FEW_VALUES


def _spans(length: int, side: int) -> list[slice]:
    """Cut a length into parts of about `side`."""
    number = max(1, round(length / side))
    edges = [length * k // number for k in range(number + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def whole(image: Annotated) -> tuple[slice, slice]:
    """Rows and columns of a whole image."""
    rows, columns = image.labels.shape
    return slice(0, rows), slice(0, columns)


# the facts


def diameters(images: Sequence[Annotated], task: Task) -> tuple[float | None, float | None]:
    """Diameters that a tenth and nine tenths of the objects do not exceed, in pixels: `Facts.small`, `Facts.diameter`.

    Instances: of the disc of equal area. Foreground: twice the largest distance to the border of each connected piece,
    so that a net of membranes counts as thin; a piece may be a speck, so nothing is small. Measured in the middle of
    the images, up to four megapixels in all; what its edge cuts is not small for that.
    """
    if task.kind == "classes":
        return None, None
    side = max(1, math.isqrt(MEASURED_ON // len(images)))
    found: list[NDArray[Any]] = []
    whole: list[NDArray[Any]] = []
    for image in images:
        indices = class_indices(middle(image.labels, side), task)
        if task.kind == "instances":
            numbers, areas = np.unique(indices[indices > 0], return_counts=True)
            found.append(np.sqrt(4 / np.pi * areas))
            edges = np.concatenate([indices[0], indices[-1], indices[:, 0], indices[:, -1]])
            whole.append(found[-1][~np.isin(numbers, edges)])
        else:
            pieces, number = ndimage.label(indices > 0)
            depth = ndimage.distance_transform_edt(np.pad(indices > 0, 1))[1:-1, 1:-1]
            found.append(2 * np.asarray(ndimage.maximum(depth, pieces, range(1, number + 1))))
    all_found = np.concatenate(found)
    if not all_found.size:
        return None, None
    large = float(np.quantile(all_found, 0.9))
    if task.kind != "instances":
        return None, large
    not_cut = np.concatenate(whole)
    return float(np.quantile(not_cut if not_cut.size else all_found, 0.1)), large


def middle(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    """Cut out the middle of an image (rows, columns, …): at most `side` rows and columns.

    Examples
    --------
    >>> middle(np.arange(5)[None], 3).tolist()
    [[1, 2, 3]]
    """
    rows, columns = middle_of(pixels.shape[:2], side)
    return pixels[rows, columns]


def middle_of(shape: tuple[int, ...], side: int) -> tuple[slice, slice]:
    """Rows and columns of the middle of an image: at most `side` of each.

    Examples
    --------
    >>> middle_of((5, 2), 3)
    (slice(1, 4, None), slice(0, 2, None))
    """
    starts = [max(0, (length - side) // 2) for length in shape[:2]]
    rows, columns = (slice(start, min(start + side, length)) for start, length in zip(starts, shape[:2], strict=True))
    return rows, columns

"""Simulated images with exact truth, in the manner of the data of Ronneberger et al. 2015, Section 4.

Four scenes, one for each kind of task: `cells` (touching cells in differential interference contrast, instances),
`membranes` (electron microscopy of neural tissue, binary), `nuclei` (fluorescence, instances) and `landscape` (a colour
picture, classes). Geometry comes first and is the label; the image is then rendered from that label.
Lengths are in pixels and brightness lies in 0...1 until the last step.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.errors import InputError

Plane: TypeAlias = NDArray[np.float64]  # one number for each pixel, or the coordinates of points
Labels: TypeAlias = NDArray[np.int64]
Shape: TypeAlias = tuple[int, int]

SMALLEST_SIDE = 32
SKY, TREE, GROUND = 0, 1, 2


@dataclass(frozen=True)
class Sample:
    """An image and its exact truth.

    Attributes
    ----------
    image : ndarray, shape (rows, columns) of uint8 or uint16, or (rows, columns, 3) of uint8
        Grey values or red, green, blue.
    labels : ndarray of uint8 or uint16, shape (rows, columns)
        Instances (0 is background) or classes, as the scene says; see `simulate`.
    """

    image: NDArray[np.uint8] | NDArray[np.uint16]
    labels: NDArray[np.uint8] | NDArray[np.uint16]


def simulate(scene: str, rng: np.random.Generator, shape: Shape = (256, 256)) -> Sample:
    """Draw one image of a scene together with its exact labels.

    Parameters
    ----------
    scene : str
        One of `SCENES`:

        - ``"cells"``: uint8 image, uint16 instances; cells that touch, and free background.
        - ``"membranes"``: uint8 image, uint8 classes; 1 inside a cell, 0 membrane.
        - ``"nuclei"``: uint16 image, uint16 instances.
        - ``"landscape"``: RGB uint8 image, uint8 classes; 0 sky, 1 tree, 2 ground.
    rng : numpy.random.Generator
        The only source of randomness: the same state gives the same sample.
    shape : (int, int)
        Rows and columns, at least 32 each. From 150 pixels on, structures keep their size and grow in number.

    Returns
    -------
    Sample
        The image and the labels, both of the given shape.

    Raises
    ------
    InputError
        If the scene is unknown, the shape is not two whole numbers of at least 32, or `rng` is not a generator.

    Examples
    --------
    >>> sample = simulate("cells", np.random.default_rng(1), shape=(64, 96))
    >>> sample.image.shape, sample.image.dtype.name, sample.labels.dtype.name
    ((64, 96), 'uint8', 'uint16')
    >>> bool(sample.labels.max() > 1)
    True
    """
    if scene not in SCENES:
        nearest = difflib.get_close_matches(str(scene), SCENES, n=1, cutoff=0.0)[0]
        raise InputError(f"no scene {scene!r}; the scenes are {', '.join(SCENES)}. Did you mean {nearest!r}?")
    if not isinstance(rng, np.random.Generator):
        raise InputError(
            f"rng is {rng!r}, not a random generator; pass np.random.default_rng({rng if isinstance(rng, int) else 0})"
        )
    return _PAINTERS[scene](_checked_shape(shape), rng)


def _checked_shape(shape: Shape) -> Shape:
    try:
        rows, columns = (index(side) for side in shape)
    except (TypeError, ValueError):
        raise InputError(f"shape is {shape!r}; it is rows and columns, such as (256, 256)") from None
    if min(rows, columns) < SMALLEST_SIDE:
        allowed = (max(rows, SMALLEST_SIDE), max(columns, SMALLEST_SIDE))
        raise InputError(f"shape {shape} is too small: each side is at least {SMALLEST_SIDE}; {allowed} works")
    return rows, columns


# Cells ------------------------------------------------------------------------------------------------------------


def _cells(shape: Shape, rng: np.random.Generator) -> Sample:
    radius = 23.0 * _scale(shape)
    centres, radii = _colonies(shape, radius, rng, covered=0.55, loners=0.15, spacing=0.84)
    ragged = 0.05 * _noise(shape, 5, rng) + 0.025 * _noise(shape, 2, rng)
    labels = _blobs(centres, radii, shape, rng, wobble=0.11, stretch=2.2, ragged=ragged)
    labels = _in_one_piece(labels, smallest=0.15 * np.pi * radius**2)

    inside = labels > 0
    optical_path = _cell_thickness(labels, radius, rng) + _debris(shape, rng)
    image = 0.5 + 0.19 * _relief(optical_path, rng)
    image += 0.10 * _halo(inside, width=0.14 * radius)
    image += 0.025 * inside * (rng.normal(0.0, 1.0, labels.max() + 1)[labels] + _noise(shape, 9, rng))
    image += 0.11 * _illumination(shape, rng)
    image = _blur(image, 0.6) + rng.normal(0.0, 0.018, shape) + 0.006 * _noise(shape, 1, rng)
    return Sample(_to_uint8(image), labels.astype(np.uint16))


def _cell_thickness(labels: Labels, radius: float, rng: np.random.Generator) -> Plane:
    """Optical path through the cells: a steep rim, a dome, a nucleus with nucleoli, rough cytoplasm and granules."""
    shape, inside = labels.shape, labels > 0
    depth = np.where(inside, _distance_to_border(labels), 0.0)
    dome = 2.2 * (1 - np.exp(-depth / 1.5)) + 2.0 * np.sqrt(np.minimum(depth / radius, 1.0))
    height: Plane = dome * rng.uniform(0.5, 1.3, labels.max() + 1)[labels]
    nuclear = 1 / (1 + np.exp(-(depth / radius - 0.42 + 0.03 * _noise(shape, 6, rng)) / 0.025))
    height += nuclear * (1.6 + 0.25 * _noise(shape, 3, rng))
    height += inside * (1 - 0.6 * nuclear) * np.minimum(depth / 4, 1) * 0.45 * _noise(shape, 2.2, rng)
    granules = 9.0 * _specks(shape, rng, density=0.012, width=1.2) * (_noise(shape, 10, rng) > 1.1)
    return height + np.where(depth > 2, 5.0 * _specks(shape, rng, density=0.008, width=1.1) - granules, 0.0)


def _relief(optical_path: Plane, rng: np.random.Generator) -> Plane:
    """Interference contrast: the slope of the optical path along the shear, light on one side and dark on the other."""
    angle = rng.uniform(0, 2 * np.pi)
    smooth = _blur(optical_path, 0.8)
    slope_rows, slope_columns = np.gradient(smooth)
    slope: Plane = np.cos(angle) * slope_rows + np.sin(angle) * slope_columns - 0.35 * ndimage.laplace(smooth)
    return np.tanh(slope)


def _halo(inside: NDArray[np.bool_], width: float) -> Plane:
    """Phase contrast: light that leaks out of a cell brightens the background beside it."""
    return np.where(inside, 0.0, np.exp(-_depth(~inside) / width))


def _debris(shape: Shape, rng: np.random.Generator) -> Plane:
    """Dust in the medium: lumps of unequal size, some out of focus, that belong to no cell."""
    sharp = _specks(shape, rng, density=0.0004, width=1.3)
    return 6.0 * sharp + 9.0 * _specks(shape, rng, density=0.00015, width=3.5)


# Membranes --------------------------------------------------------------------------------------------------------


def _membranes(shape: Shape, rng: np.random.Generator) -> Sample:
    neurites = _neurites(shape, rng)
    oblique = np.clip(_noise(shape, 26, rng) - 1.0, 0, 1)  # where the section cuts a membrane at a slant
    half_width = 1.7 + np.clip(0.45 * _noise(shape, 30, rng), -0.6, 1.2) + 1.5 * oblique
    inside = _rounded(_distance_to_border(neurites) > half_width, radius=3.0 * _scale(shape))
    depth = _depth(inside) - _depth(~inside)

    image = _cytoplasm(neurites, depth, rng)
    image = _add_mitochondria(image, depth, rng)
    contrast = np.clip(0.41 + 0.09 * _noise(shape, 24, rng), 0.22, 0.6) * (1 - 0.4 * oblique)
    image -= contrast * np.clip(0.55 - 0.3 * depth / (1 + 1.5 * oblique), 0, 1)
    image -= 0.3 * np.clip(_noise(shape, 18, rng) - 1.8, 0, 1)  # stain that precipitated
    image = _blur(image, 0.6) + 0.08 * _noise(shape, 1.2, rng) + rng.normal(0, 0.075, shape)
    return Sample(_to_uint8(image + 0.04 * _illumination(shape, rng)), inside.astype(np.uint8))


def _rounded(inside: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Round the corners of the cells, as the tension of their membranes does: an opening with a disc."""
    return _depth(_depth(inside) <= radius) < radius


def _neurites(shape: Shape, rng: np.random.Generator) -> Labels:
    """Fill the plane with cells of very unequal size: seeds that grow until they meet."""
    radii = np.sort(14.0 * _scale(shape) * rng.lognormal(-0.5, 0.6, int(shape[0] * shape[1] / 200) + 12))[::-1]
    centres, radii = _scattered(shape, radii, rng, spacing=1.05)
    ragged = 0.05 * _noise(shape, 6, rng)
    seeds = _blobs(centres, radii, shape, rng, wobble=0.16, stretch=1.5, ragged=ragged)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    grown: Labels = seeds[tuple(nearest)]
    return grown


def _cytoplasm(neurites: Labels, depth: Plane, rng: np.random.Generator) -> Plane:
    """Grey that differs a little from cell to cell, with filaments, and vesicles crowded in some cells."""
    shape, count = depth.shape, neurites.max() + 1
    grey: Plane = 0.64 + rng.normal(0.0, 0.06, count)[neurites] + 0.03 * _noise(shape, 12, rng)
    crowded = (rng.random(count) ** 2)[neurites]
    vesicles = _specks(shape, rng, density=0.016, width=1.2) - 0.8 * _specks(shape, rng, density=0.008, width=0.9)
    return grey + 0.06 * _noise(shape, 2, rng) - np.where(depth > 2, 0.6 * crowded * vesicles, 0.0)


def _add_mitochondria(image: Plane, depth: Plane, rng: np.random.Generator) -> Plane:
    """Draw dark bodies with a rim and cristae inside the larger cells: dark as membranes, but no membranes."""
    shape = depth.shape
    roomy = np.argwhere(depth > 8 * _scale(shape))
    if not roomy.size:
        return image
    number = max(1, shape[0] * shape[1] // 5000)
    centres = rng.choice(roomy, number).astype(float)
    radii = rng.uniform(7, 14, number) * _scale(shape)
    bodies = _blobs(centres, radii, shape, rng, wobble=0.08, stretch=2.0, ragged=0.03 * _noise(shape, 4, rng))
    bodies[depth < 3.5] = 0
    rim = np.exp(-_distance_to_border(bodies) / 1.2)
    tilt = rng.uniform(0, np.pi, number + 1)[bodies]
    rows, columns = np.indices(shape)
    phase = 1.25 * (np.cos(tilt) * rows + np.sin(tilt) * columns) + 1.2 * _noise(shape, 6, rng)
    matrix = 0.36 + 0.10 * np.sin(phase) + 0.03 * _noise(shape, 2, rng) - 0.16 * rim
    return np.where(bodies > 0, matrix, image)


# Nuclei -----------------------------------------------------------------------------------------------------------


def _nuclei(shape: Shape, rng: np.random.Generator) -> Sample:
    radius = 12.0 * _scale(shape)
    centres, radii = _colonies(shape, radius, rng, covered=0.26, loners=0.45, spacing=0.93)
    ragged = 0.02 * _noise(shape, 5, rng)
    labels = _blobs(centres, radii, shape, rng, wobble=0.05, stretch=2.0, ragged=ragged)
    labels = _in_one_piece(labels, smallest=0.2 * np.pi * radius**2)

    light = _chromatin(labels, radius, rng)
    light = _blur(light, 0.9) + _haze(light, radius, rng)
    light *= 1 + 0.12 * _illumination(shape, rng)
    photons = rng.poisson(np.clip(rng.uniform(150, 500) * light + 6.0, 0, None))
    camera = 100.0 + 12.0 * photons + rng.normal(0.0, 25.0, shape)  # offset, gain, read noise
    return Sample(np.clip(camera, 0, 65535).round().astype(np.uint16), labels.astype(np.uint16))


def _chromatin(labels: Labels, radius: float, rng: np.random.Generator) -> Plane:
    """Fluorescence of the nuclei: each with its own brightness, lumpy, darker nucleoli, a soft rim."""
    shape, count = labels.shape, labels.max() + 1
    brightness: Plane = np.clip(rng.lognormal(-1.25, 0.65, count), 0.09, 1.3)
    brightness[0] = 0.0
    depth = np.where(labels > 0, _distance_to_border(labels), 0.0)
    soft = 1 - 0.6 * np.exp(-depth / (0.12 * radius))
    nucleoli = 0.35 * np.clip(_noise(shape, 0.3 * radius, rng) - 1.0, 0, 1)
    lumps = 1 + 0.12 * _noise(shape, 2.5, rng) + 0.10 * _noise(shape, 5, rng) - nucleoli
    return brightness[labels] * soft * np.clip(lumps, 0.3, None)


def _haze(light: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Light from above and below the focus: a wide glow of the nuclei themselves and blurred ones that are not in."""
    glow = 0.12 * _blur(light, 0.9 * radius)
    blurred = _specks(light.shape, rng, density=0.04 / radius**2, width=0.8 * radius)
    return glow + 0.10 * np.minimum(blurred, 1.0)


# Landscape --------------------------------------------------------------------------------------------------------

# By time and weather: sky above, sky at the horizon, foliage, ground, in red, green, blue.
_PALETTES = np.array(
    [
        [[0.28, 0.50, 0.84], [0.74, 0.85, 0.95], [0.17, 0.33, 0.11], [0.36, 0.49, 0.17]],  # summer noon
        [[0.27, 0.25, 0.45], [0.96, 0.58, 0.32], [0.15, 0.13, 0.11], [0.33, 0.23, 0.18]],  # dusk
        [[0.50, 0.53, 0.57], [0.76, 0.78, 0.80], [0.20, 0.26, 0.18], [0.42, 0.43, 0.32]],  # overcast
        [[0.40, 0.58, 0.85], [0.86, 0.88, 0.88], [0.62, 0.33, 0.11], [0.56, 0.46, 0.22]],  # autumn
        [[0.55, 0.64, 0.76], [0.83, 0.86, 0.90], [0.23, 0.26, 0.25], [0.84, 0.87, 0.93]],  # snow
        [[0.07, 0.10, 0.24], [0.28, 0.34, 0.50], [0.05, 0.08, 0.09], [0.13, 0.16, 0.18]],  # blue hour
        [[0.62, 0.45, 0.42], [0.98, 0.80, 0.55], [0.30, 0.30, 0.12], [0.66, 0.53, 0.30]],  # dry season, sunrise
    ]
)


def _landscape(shape: Shape, rng: np.random.Generator) -> Sample:
    zenith, horizon_glow, foliage, soil = _palette(rng)
    horizon = _horizon(shape, rng)
    below = np.indices(shape)[0] - horizon  # rows below the horizon; negative in the sky
    nearness = np.clip(below / (shape[0] - horizon), 0, 1)

    image = np.where(
        (below < 0)[..., None],
        _sky(below, zenith, horizon_glow, rng),
        _ground(below, nearness, soil, horizon_glow, rng),
    )
    labels = np.where(below < 0, SKY, GROUND)
    _plant_trees(image, labels, horizon, foliage, horizon_glow, rng)
    image *= 1 + 0.08 * _illumination(shape, rng)[..., None]
    image = ndimage.gaussian_filter(image, (0.5, 0.5, 0)) + rng.normal(0, 0.012, image.shape)
    exposed = np.clip(image, 0, 1) ** rng.uniform(0.65, 1.15)
    return Sample(_to_uint8(exposed), labels.astype(np.uint8))


def _palette(rng: np.random.Generator) -> Plane:
    """Mix two palettes and tint the result, so that no two pictures share their colours."""
    first, second = rng.choice(len(_PALETTES), 2, replace=False)
    share = rng.uniform(0, 0.4)
    mixed: Plane = (1 - share) * _PALETTES[first] + share * _PALETTES[second]
    return np.clip(mixed * rng.uniform(0.9, 1.1, 3) * rng.uniform(0.92, 1.08, mixed.shape), 0.02, 0.98)


def _horizon(shape: Shape, rng: np.random.Generator) -> Plane:
    """Row of the skyline in each column: rolling hills."""
    hills = _noise((1, shape[1]), max(shape[1] / 4, 8), rng) + 0.25 * _noise((1, shape[1]), max(shape[1] / 14, 4), rng)
    level = rng.uniform(0.42, 0.62) + np.clip(0.03 * hills, -0.1, 0.1)
    return level * shape[0]


def _sky(below: Plane, zenith: Plane, glow: Plane, rng: np.random.Generator) -> Plane:
    """Gradient from zenith to horizon, a sun behind it, and clouds in two depths."""
    shape = (below.shape[0], below.shape[1])
    height = np.clip(-below / -below.min(), 0, 1)[..., None]
    sky = glow + (zenith - glow) * height**0.7
    rows, columns = np.indices(shape)
    far = np.hypot(rows - rng.uniform(0, 0.4) * shape[0], columns - rng.uniform(0, 1) * shape[1]) / max(shape)
    sky += rng.uniform(0, 0.35) * np.exp(-((far / 0.22) ** 2))[..., None]
    size = max(shape) / 4
    lumps = sum(_noise(shape, size / 2**k, rng, flat=2.2) / 1.6**k for k in range(6)) / 1.6
    cover = 1 / (1 + np.exp(-(lumps - rng.uniform(-0.4, 1.4)) / 0.22))
    lit = np.clip(glow.mean() + 0.12, 0, 1) * (0.6 * glow / glow.mean() + 0.4)
    shaded = lit * (1.0 - 0.14 * np.clip(lumps, -0.5, 2))[..., None]
    clouded: Plane = sky + (cover * rng.uniform(0.5, 0.95))[..., None] * (shaded - sky)
    return clouded


def _ground(below: Plane, nearness: Plane, soil: Plane, glow: Plane, rng: np.random.Generator) -> Plane:
    """Grass and earth in perspective: texture that coarsens towards the viewer, and a bleached distance."""
    shape = (below.shape[0], below.shape[1])
    depth = 1 / (nearness + 0.06)
    across = (np.arange(shape[1]) - rng.uniform(0.2, 0.8) * shape[1]) / shape[1] * depth
    texture = np.zeros(shape)
    for cells, strength in ((14, 0.10), (50, 0.12), (170, 0.16)):
        tile = _noise((256, 256), 1, rng)
        where = np.stack([0.35 * cells * depth, cells * across])
        seen = np.clip(shape[1] / (cells * depth), 0, 1)  # finer than a pixel: it averages out
        texture += strength * seen * ndimage.map_coordinates(tile, where, order=1, mode="grid-wrap")
    texture += 0.12 * nearness * _noise(shape, 1.2, rng, flat=0.5)
    bare = 1 / (1 + np.exp(-(_noise(shape, max(shape) / 8, rng, flat=3.0) - 0.6) / 0.2))
    earth = soil * np.array([1.15, 0.92, 0.78])
    colour = soil + bare[..., None] * (earth - soil)
    colour = colour * (1 + texture + 0.15 * (0.5 - nearness))[..., None]
    bleached: Plane = colour + (0.5 * np.exp(-nearness / 0.10))[..., None] * (0.85 * glow - colour)
    return bleached


def _plant_trees(
    image: Plane, labels: Labels, horizon: Plane, foliage: Plane, glow: Plane, rng: np.random.Generator
) -> None:
    """Draw trees into image and labels, the far ones first."""
    rows, columns = labels.shape
    number = int(rng.integers(8, 16) * max(1.0, columns / rows))
    nearness = np.sort(np.append(0.55 * rng.random(number) ** 1.5, rng.uniform(0.15, 0.3)))
    for near in nearness:
        column = rng.uniform(0.02, 0.98) * columns
        skyline = horizon[0, int(column)]
        foot = skyline + near * (rows - skyline) + 1
        height = min(rows, 2 * columns) * (0.10 + 0.75 * near) * rng.uniform(0.75, 1.25)
        colour = foliage * rng.uniform(0.75, 1.3) * rng.uniform(0.85, 1.18, 3)
        colour += 0.45 * np.exp(-near / 0.12) * (0.8 * glow - colour)
        _plant_tree(image, labels, foot, column, height, colour, rng)


def _plant_tree(
    image: Plane, labels: Labels, foot: float, column: float, height: float, foliage: Plane, rng: np.random.Generator
) -> None:
    """Draw one tree: trunk, ragged crown with gaps, leaves lit from above, and its shadow on the ground."""
    window = _window(foot - 0.5 * height, column, 0.62 * height, (labels.shape[0], labels.shape[1]))
    rows, columns = np.ogrid[window]
    up, aside = (foot - rows) / height, (columns - column) / height  # in tree heights
    shape = np.broadcast_shapes(up.shape, aside.shape)
    if 0 in shape:
        return
    leaves = _noise(shape, 0.035 * height, rng) + 0.8 * _noise(shape, 0.012 * height, rng)
    conifer = rng.random() < 0.4
    crown, light = _conifer(up, aside) if conifer else _broadleaf(up, aside, rng)
    raggedness = 0.008 if conifer else 0.025
    leafy = (crown + raggedness * leaves > 0) & (up > 0.12)
    trunk = (np.abs(aside - 0.02 * np.sin(7 * up)) < 0.035 - 0.02 * up) & (up > 0) & (up < 0.7)

    shadow = np.exp(-((aside / 0.3) ** 2) - (up / 0.035) ** 2) * (labels[window] == GROUND)
    image[window] *= 1 - 0.45 * shadow[..., None]
    shade = np.clip(0.85 + 0.55 * light + 0.22 * leaves, 0.25, 1.9)[..., None]
    bark = (0.55 * foliage + np.array([0.06, 0.04, 0.03])) * np.clip(1 + 6 * aside + 0.2 * leaves, 0.4, 1.5)[..., None]
    image[window] = np.where(leafy[..., None], foliage * shade, np.where(trunk[..., None], bark, image[window]))
    labels[window][leafy | trunk] = TREE


def _broadleaf(up: Plane, aside: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Crown of overlapping lumps; returns how far inside it a pixel lies, and how it is lit."""
    crown = np.full(np.broadcast_shapes(up.shape, aside.shape), -np.inf)
    light = np.zeros_like(crown)
    for _ in range(int(rng.integers(7, 12))):
        size, at_up, at_aside = rng.uniform(0.11, 0.19), rng.uniform(0.42, 0.82), rng.uniform(-0.24, 0.24)
        at_aside *= 1.3 - at_up  # narrower at the top
        lump = size - np.hypot(up - at_up, 0.85 * (aside - at_aside))
        light = np.where(lump > crown, (0.7 * (up - at_up) - 0.5 * (aside - at_aside)) / size, light)
        crown = np.maximum(crown, lump)
    return crown, light


def _conifer(up: Plane, aside: Plane) -> tuple[Plane, Plane]:
    """Crown of drooping tiers; returns how far inside it a pixel lies, and how it is lit."""
    tier = (9 * up + 4 * np.abs(aside)) % 1.0
    return 0.26 * (1.02 - up) * (1.15 - 0.5 * tier) - np.abs(aside), 0.9 * (0.5 - tier) - 1.2 * aside


# What the scenes share --------------------------------------------------------------------------------------------


def _scale(shape: Shape) -> float:
    """Shrink structures in small images, so that several of them fit."""
    return float(np.clip(min(shape) / 150, 0.36, 1.0))


def _noise(shape: Shape, size: float, rng: np.random.Generator, flat: float = 1.0) -> Plane:
    """Smooth random field of mean 0 and deviation 1 with lumps of `size` pixels, `flat` times as wide as high."""
    sizes = (size / flat, size)
    if size < 2:
        field = ndimage.gaussian_filter(rng.standard_normal(shape), [0.5 * s for s in sizes], mode="wrap")
    else:
        coarse = rng.standard_normal([int(np.ceil(n / s)) + 4 for n, s in zip(shape, sizes, strict=True)])
        field = ndimage.zoom(coarse, sizes, order=3, mode="mirror", prefilter=False)[: shape[0], : shape[1]]
    standardised: Plane = (field - field.mean()) / field.std()
    return standardised


def _illumination(shape: Shape, rng: np.random.Generator) -> Plane:
    """Uneven lighting: a tilt across the image and a broad lump, within about -1...1."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    lump = rng.uniform(-0.6, 0.6) * ((rows - rng.uniform(-0.5, 0.5)) ** 2 + (columns - rng.uniform(-0.5, 0.5)) ** 2)
    light: Plane = 0.7 * (np.cos(angle) * rows + np.sin(angle) * columns) + lump
    return light


def _specks(shape: Shape, rng: np.random.Generator, density: float, width: float) -> Plane:
    """Scattered round spots of unequal height, about 1 at most, `density` of them for each pixel."""
    spots = np.where(rng.random(shape) < density, rng.uniform(0.3, 1.0, shape), 0.0)
    return _blur(spots, width) * (2 * np.pi * width**2)


def _scattered(shape: Shape, radii: Plane, rng: np.random.Generator, spacing: float) -> tuple[Plane, Plane]:
    """Throw discs at the plane and keep those that stay clear of the earlier ones; returns centres and radii."""
    thrown = rng.uniform(0, 1, (radii.size, 2)) * shape
    kept = np.zeros(radii.size, bool)
    for disc in range(radii.size):
        gaps = np.linalg.norm(thrown[kept] - thrown[disc], axis=1)
        kept[disc] = np.all(gaps > spacing * (radii[kept] + radii[disc]))
    return thrown[kept], radii[kept]


def _colonies(
    shape: Shape, radius: float, rng: np.random.Generator, covered: float, loners: float, spacing: float
) -> tuple[Plane, Plane]:
    """Grow colonies: each new cell settles beside an earlier one, or alone with probability `loners`.

    Neighbours stand `spacing` times the sum of their radii apart: below 1 they touch. Growth stops at the `covered`
    share of the image, so that background remains.
    """
    number = max(3, int(covered * shape[0] * shape[1] / (np.pi * radius**2)))
    radii = radius * np.clip(rng.lognormal(0.0, 0.24, number), 0.55, 1.6)
    centres = np.empty((number, 2))
    centres[0] = rng.uniform(0.3, 0.7, 2) * shape
    placed = 1
    for _ in range(40 * number):
        if placed == number:
            break
        if placed > 1 and rng.random() < loners:
            candidate = rng.uniform(0, 1, 2) * shape
        else:
            mother, angle = rng.integers(placed), rng.uniform(0, 2 * np.pi)
            step = spacing * (radii[mother] + radii[placed])
            candidate = centres[mother] + step * np.array([np.sin(angle), np.cos(angle)])
        gaps = np.linalg.norm(centres[:placed] - candidate, axis=1)
        clear = np.all(gaps > 0.999 * spacing * (radii[:placed] + radii[placed]))
        if clear and np.all((candidate > 0) & (candidate < shape)):
            centres[placed] = candidate
            placed += 1
    return centres[:placed], radii[:placed]


def _window(row: float, column: float, reach: float, shape: Shape) -> tuple[slice, slice]:
    """Cut out the part of the image within `reach` of a point."""
    starts = (int(max(0, at - reach)) for at in (row, column))
    ends = (int(np.clip(at + reach + 2, 0, side)) for at, side in zip((row, column), shape, strict=True))
    rows, columns = map(slice, starts, ends)
    return rows, columns


def _blobs(
    centres: Plane,
    radii: Plane,
    shape: Shape,
    rng: np.random.Generator,
    wobble: float,
    stretch: float,
    ragged: Plane,
) -> Labels:
    """Label star-shaped outlines 1, 2, ...; where two overlap, the border runs where both are equally deep."""
    labels, nearest = np.zeros(shape, np.int64), np.ones(shape)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), 1):
        window = _window(centre[0], centre[1], 2.0 * radius * np.sqrt(stretch), shape)
        rows, columns = np.ogrid[window]
        tilt, longer = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, stretch))
        waves, phases = wobble * rng.normal(0, 1, 4) / np.sqrt([1, 2, 3, 4]), rng.uniform(0, 2 * np.pi, 4)
        along = np.cos(tilt) * (rows - centre[0]) + np.sin(tilt) * (columns - centre[1])
        across = np.cos(tilt) * (columns - centre[1]) - np.sin(tilt) * (rows - centre[0])
        angle = np.arctan2(across * longer, along / longer)
        outline = 1 + sum(waves[k] * np.sin((k + 2) * angle + phases[k]) for k in range(4))
        distance = np.hypot(along / longer, across * longer) / (radius * np.maximum(outline, 0.5)) + ragged[window]
        nearer = distance < nearest[window]
        labels[window][nearer] = number
        nearest[window][nearer] = distance[nearer]
    return labels


def _in_one_piece(labels: Labels, smallest: float) -> Labels:
    """Keep the largest piece of each label if it has `smallest` pixels, and number the labels 1, 2, ... again."""
    tidy, kept = np.zeros_like(labels), 0
    for number, window in enumerate(ndimage.find_objects(labels), 1):
        if window is None:  # covered by its neighbours
            continue
        pieces, _ = ndimage.label(labels[window] == number)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= smallest:
            kept += 1
            tidy[window][pieces == sizes.argmax() + 1] = kept
    return tidy


def _blur(image: Plane, width: float) -> Plane:
    blurred: Plane = ndimage.gaussian_filter(image, width)
    return blurred


def _depth(inside: NDArray[np.bool_]) -> Plane:
    """Distance from each pixel inside to the nearest one outside; 0 outside."""
    distance: Plane = ndimage.distance_transform_edt(inside)
    return distance


def _distance_to_border(labels: Labels) -> Plane:
    """Distance of each pixel to the nearest place where two labels meet; both sides of the meeting are 0."""
    cross = ndimage.generate_binary_structure(2, 1)
    return _depth(ndimage.morphological_gradient(labels, footprint=cross) == 0)


def _to_uint8(image: Plane) -> NDArray[np.uint8]:
    return (255 * np.clip(image, 0, 1)).round().astype(np.uint8)


_PAINTERS: dict[str, Callable[[Shape, np.random.Generator], Sample]] = {
    "cells": _cells,
    "membranes": _membranes,
    "nuclei": _nuclei,
    "landscape": _landscape,
}

SCENES: tuple[str, ...] = tuple(_PAINTERS)

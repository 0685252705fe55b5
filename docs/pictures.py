"""The pictures of docs/paper-in-code.md, each drawn by the code that it explains: docs/pictures/*.png.

    python docs/pictures.py                  # all of them, a minute
    python docs/pictures.py momentum         # one

They have at most 256 colours and 120 kB. The network of the energy is trained here, for some seconds.
"""

import argparse
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

import ubend
from ubend.data.annotated import Annotated, Task
from ubend.faces.pictures import displayed, heat, overlay
from ubend.faces.preview import draw_maps, draw_tiling, grid_lines, prepare_preview
from ubend.method.elastic import displacement_field
from ubend.method.energy import weighted_cross_entropy
from ubend.method.geometry import halo, mirror, skip_crop, tile_step
from ubend.method.network import for_prediction, layer_table
from ubend.method.overlap_tile import predict_tiles
from ubend.run.preparation import prepare
from ubend.run.recipe import load_recipe

DOCS = Path(__file__).resolve().parent
FOLDER = DOCS / "pictures"
MOST_BYTES = 120_000
WIDTH, DPI = 9.0, 100
INK, PALE = "#222222", "#777777"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"  # Okabe and Ito
STEPS = 120
"""Of the network whose energy is shown."""
DEPTH, OUTPUT = 3, 68
"""Of the network whose tiles are compared, and the size of what it returns: no multiple of 2^DEPTH."""


def cells(number: int, shape: tuple[int, int]) -> Annotated:
    """Simulate touching cells."""
    sample = ubend.simulate("cells", np.random.default_rng(number), shape)
    return Annotated("cells", sample.image, sample.labels.astype(np.int32), None)


def empty(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")


def show(axis: Any, picture: np.ndarray, caption: str, **how: Any) -> Any:
    shown = axis.imshow(picture, interpolation="nearest", **how)
    axis.set_axis_off()
    axis.set_title(caption, fontsize=9, loc="left", color=INK)
    return shown


def plot(axis: Any, across: str, up: str, caption: str) -> None:
    """Dress an axis as a plot."""
    axis.set_xlabel(across, fontsize=9, color=INK)
    axis.set_ylabel(up, fontsize=9, color=INK)
    axis.set_title(caption, fontsize=9, loc="left", color=INK)
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[["top", "right"]].set_visible(False)


# the network


class Boxes:
    """Maps as boxes on their levels, and arrows between them."""

    GAP, LEVEL = 0.42, 2.35

    def __init__(self) -> None:
        self.figure = empty(5.6)
        self.axis = self.figure.add_axes((0.01, 0.01, 0.98, 0.98))
        self.axis.set_axis_off()
        self.tops = [0.0]
        self.across = 0.0

    def add(self, level: int, channels: int, size: int, *, copied: int = 0) -> tuple[float, float, float, float]:
        """Draw a map after the last one, the copied channels white; return left, right, top and middle of the box."""
        while len(self.tops) <= level:
            self.tops.append(self.tops[-1] - self.LEVEL + 0.22 * len(self.tops))
        widths = [0.09 + 0.025 * part**0.5 for part in (copied, channels) if part]
        height, top, left = 0.25 + 1.05 * (size / 572) ** 0.7, self.tops[level], self.across
        for width, colour in zip(widths, ("white", "#cfe3f2")[-len(widths) :], strict=True):
            self.axis.add_patch(Rectangle((self.across, top - height), width, height, fc=colour, ec=BLUE, lw=1))
            self.across += width
        text = f"{copied}+{channels}" if copied else str(channels)
        self.axis.text((left + self.across) / 2, top + 0.07, text, fontsize=7.5, ha="center", color=INK)
        self.axis.text(
            left - 0.03, top - height, f"{size}²", fontsize=6.5, rotation=90, ha="right", va="bottom", color=PALE
        )
        box = left, self.across, top, top - height / 2
        self.across += self.GAP
        return box

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str, text: str = "") -> None:
        self.axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, lw=1.4, color=colour))
        if text:
            middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.08
            self.axis.text(*middle, text, fontsize=7.5, ha="center", color=PALE)


def network() -> Figure:
    """Draw Fig. 1 from the layer table: a box for each map, its height the size, its width the channels."""
    config = ubend.NetworkConfig()
    table, boxes, skips = iter(layer_table(config)), Boxes(), []
    last = None
    for level in range(config.depth + 1):
        first = next(table)
        if last is not None:
            boxes.across = last[0]  # pooled: straight below
        box = boxes.add(level, first.inputs, first.size_in)
        if last is not None:
            boxes.arrow((last[0] + 0.1, 2 * last[3] - last[2]), (box[0] + 0.1, box[2] + 0.2), RED)
        last = convolved(boxes, level, box, (first, next(table)))
        skips.append((last, first.outputs, first.size_out - 2))
    for level in reversed(range(config.depth)):
        up = next(table)
        skip, channels, size = skips[level]
        boxes.across = last[0]
        box = boxes.add(level, up.outputs, up.size_out, copied=channels)
        boxes.arrow((last[0] + 0.1, last[2] + 0.2), (box[0] + 0.1, 2 * box[3] - box[2]), GREEN)
        cut = f"{size - 2 * skip_crop(level, config.depth)}² of {size}²"
        boxes.arrow((skip[1] + 0.05, skip[3]), (box[0] - 0.17, skip[3]), PALE, cut)
        last = convolved(boxes, level, box, (next(table), next(table)))
    score = next(table)
    box = boxes.add(0, score.outputs, score.size_out)
    boxes.arrow((last[1], last[3]), (box[0] - 0.14, last[3]), ORANGE)
    legend(boxes)
    return boxes.figure


def convolved(boxes: Boxes, level: int, box: Any, layers: Any) -> Any:
    for layer in layers:
        after = boxes.add(level, layer.outputs, layer.size_out)
        boxes.arrow((box[1], box[3]), (after[0] - 0.14, box[3]), BLUE)
        box = after
    return box


def legend(boxes: Boxes) -> None:
    lowest, right = boxes.tops[-1] - 0.7, boxes.across + 0.3
    for number, (colour, text) in enumerate((
        (BLUE, "3×3 convolution, ReLU"), (RED, "2×2 max pooling"), (GREEN, "2×2 up-convolution"),
        (PALE, "copy the middle"), (ORANGE, "1×1 convolution"),
    )):  # fmt: skip
        height = lowest + 0.3 * (4 - number)
        boxes.arrow((right - 3.4, height), (right - 2.9, height), colour)
        boxes.axis.text(right - 2.8, height, text, fontsize=8, va="center", color=INK)
    boxes.axis.set_xlim(-0.35, right)
    boxes.axis.set_ylim(lowest - 0.1, 0.4)


# the energy


def energy() -> Figure:
    """Show what a pixel costs, and where a network that has just begun to learn pays."""
    figure = empty(2.75)
    curve = figure.add_axes((0.06, 0.19, 0.25, 0.68))
    p = np.linspace(0.005, 0.999, 200)
    scores = torch.from_numpy(np.stack([np.log(p), np.log(1 - p)])[:, :, None, None]).permute(1, 0, 2, 3)
    for w, colour in ((1.0, BLUE), (5.0, ORANGE)):
        cost = [
            float(weighted_cross_entropy(one[None], torch.zeros(1, 1, 1, dtype=torch.long), torch.full((1, 1, 1), w)))
            for one in scores
        ]
        curve.plot(p, cost, color=colour, lw=2)
        curve.text(0.04 + 0.07 * w, 2.2 + 0.75 * w, f"w = {w:g}", color=colour, fontsize=9)
    curve.set_ylim(0, 10)
    plot(curve, "probability of the true class", "−w·ln p", "what one pixel costs")
    images = [cells(number, (160, 160)) for number in range(4)]
    recipe = load_recipe("default")
    recipe = replace(
        recipe,
        network=replace(recipe.network, width=8, depth=3),
        tiles=replace(recipe.tiles, size=96, batch=2),
        energy=replace(recipe.energy, distance=0.0),
        training=replace(recipe.training, held_out=0.0),
        budget=replace(recipe.budget, width=False, depth=False, size=False, batch=False),
    )
    model = ubend.train(images[1:], recipe=recipe, task="instances", steps=STEPS, device="cpu")
    [seen] = prepare(images[:1], model.contract)
    probability = model.predict(images[0].image)
    labels = torch.from_numpy(seen.classes.astype(np.int64))[None]
    log_p = torch.from_numpy(np.log(np.clip(probability, 1e-6, 1)))[None]
    mean = float(weighted_cross_entropy(log_p, labels, torch.from_numpy(seen.weights)[None]))
    of_pixel = seen.weights * -log_p[0].gather(0, labels)[0].numpy()
    across = (0.355, 0.57, 0.785)
    axes = [figure.add_axes((left, 0.03, 0.2, 0.84)) for left in across]
    show(axes[0], overlay(images[0].image, seen.classes, Task("binary", (0, 1), None)), "foreground to be learned")
    show(axes[1], heat(images[0].image, probability[1], highest=1), f"foreground after {STEPS} steps")
    show(axes[2], heat(images[0].image, of_pixel, highest=5), f"energy, E = {mean:.2f}")
    return figure


# the weights


def weights() -> Figure:
    """Show image, labels, target and weights of the recipe `paper`, and the weights along a line between two cells."""
    image = cells(5, (200, 200))
    ready = prepare_preview([image], recipe="paper", task="instances")
    figure = empty(5.15)
    axes = [figure.add_axes((0.01 + 0.238 * k, 0.5, 0.215, 0.44)) for k in range(4)]
    draw_maps(axes, ready.images[0], ready.prepared[0], ready.contract)
    row = 122  # through two gaps
    axes[0].axhline(row, color=ORANGE, lw=1.2)
    axes[3].axhline(row, color="white", lw=1.2)
    d1, d2 = ubend.two_nearest_cells(image.labels)
    below = figure.add_axes((0.07, 0.1, 0.87, 0.33))
    columns = np.arange(image.labels.shape[1])
    below.fill_between(columns, 0, 17, where=image.labels[row] > 0, color="#e4eef6", step="mid", label="inside a cell")
    below.plot(columns, ready.prepared[0].weights[row], color=RED, lw=2, label="w(x)")
    below.plot(columns, (d1 + d2)[row], color=BLUE, lw=1.4, ls="--", label="d1 + d2, px")
    below.set_ylim(0, 17)
    below.set_xlim(0, columns[-1])
    below.legend(fontsize=8, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98))
    plot(below, "column", "", f"along row {row}, the line in a and d")
    return figure


# elastic deformation


def elastic() -> Figure:
    """Bend an image, its grid and its labels by one drawn deformation."""
    image = cells(2, (256, 256))
    shape = image.labels.shape
    bend = ubend.draw_elastic(np.random.default_rng(38), shape, points=3, sigma=10)
    figure = empty(3.2)
    axes = [figure.add_axes((0.005 + 0.334 * k, 0.01, 0.32, 0.9)) for k in range(3)]
    show(axes[0], with_grid(image.image, grid_lines(shape)), "9 points moved by N(0, 10 px)")
    field = displacement_field(bend, shape)
    for row in np.linspace(0, shape[0] - 1, 3):
        for column in np.linspace(0, shape[1] - 1, 3):
            down, right = (float(part[round(row), round(column)]) for part in field)
            start, end = (column, row), (column + right, row + down)
            axes[0].add_patch(
                FancyArrowPatch(
                    start,
                    end,
                    arrowstyle="-|>",
                    mutation_scale=11,
                    lw=2,
                    shrinkA=0,
                    shrinkB=0,
                    color=ORANGE,
                    clip_on=False,
                    zorder=3,
                )
            )
            axes[0].plot(column, row, "o", ms=3, color=ORANGE, clip_on=False)
    axes[0].set_xlim(-0.5, shape[1] - 0.5)
    axes[0].set_ylim(shape[0] - 0.5, -0.5)
    lines = ubend.deform(grid_lines(shape), bend, order=1)
    show(axes[1], with_grid(ubend.deform(image.image, bend), lines), "read there, linearly: order = 1")
    task = Task("instances", (), None)
    bent = ubend.deform(image.labels, bend, order=0)
    show(axes[2], overlay(ubend.deform(image.image, bend), bent, task), "labels, the nearest pixel: order = 0")
    return figure


def with_grid(image: np.ndarray, lines: np.ndarray) -> np.ndarray:
    share = 0.75 * np.clip(lines, 0, 1)[..., None]
    return (displayed(image) * (1 - share) + np.array((0, 200, 255)) * share).astype(np.uint8)


# the overlap-tile strategy


def overlap_tile() -> Figure:
    """Show the tiles of an image with their mirrored context, and what comes of tiles in and out of phase."""
    image = cells(7, (512, 512))
    ready = prepare_preview([image], recipe="paper", task="instances")
    figure = empty(3.35)
    axes = [figure.add_axes((0.005 + 0.334 * k, 0.01, 0.32, 0.89)) for k in range(3)]
    draw_tiling(axes[0], ready.images[0], ready.contract)
    side = 196
    part = image.image[None, :side, :side].astype(np.float32) / 255
    torch.manual_seed(1)
    net = for_prediction(ubend.UNet(ubend.NetworkConfig(width=8, depth=DEPTH)).eval()).requires_grad_(False)

    def predict(tile: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(np.ascontiguousarray(tile))[None]).softmax(1)[0].numpy()

    whole = predict_tiles(part, predict, depth=DEPTH, largest_tile=4 * side)
    for axis, step, words in ((axes[1], OUTPUT, "out of"), (axes[2], tile_step(OUTPUT, DEPTH), "in")):
        difference = np.abs(side_by_side(part, predict, step) - whole)[1]
        largest = f"{difference.max():.2f}" if difference.max() > 1e-5 else "nothing"
        show(axis, heat(part[0], difference, highest=0.02), f"tiles every {step} px, {words} phase: off by {largest}")
    return figure


def side_by_side(image: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], step: int) -> np.ndarray:
    """Put tiles beside each other, so many pixels apart."""
    side, border = image.shape[1], halo(DEPTH)
    result = np.zeros((2, side, side), np.float32)
    for row in range(0, side, step):
        for column in range(0, side, step):
            rows, columns = (
                mirror(np.arange(first - border, first + OUTPUT + border), side) for first in (row, column)
            )
            part = result[:, row : row + step, column : column + step]
            part[:] = predict(image[:, rows][:, :, columns])[:, : part.shape[1], : part.shape[2]]
    return result


# momentum


def momentum() -> Figure:
    """Show how long a gradient counts, and what PyTorch's optimiser makes of noisy ones."""
    figure = empty(2.9)
    left, right = figure.add_axes((0.07, 0.17, 0.4, 0.72)), figure.add_axes((0.56, 0.17, 0.42, 0.72))
    steps = np.arange(400)
    for gamma, colour in ((0.9, BLUE), (0.99, RED)):
        left.plot(steps, (1 - gamma) * gamma**steps, color=colour, lw=2, label=f"momentum {gamma}")
        half = np.log(0.5) / np.log(gamma)
        left.axvline(half, color=colour, lw=1, ls=":")
        left.text(half + 4, 0.065 - 0.02 * (gamma > 0.95), f"half in {half:.0f} steps", color=colour, fontsize=8)
    left.set_ylim(0, 0.105)
    left.legend(fontsize=8, frameon=False)
    plot(left, "steps ago", "share in the step", "how much a gradient still counts")
    noise = np.random.default_rng(0).normal(1.0, 3.0, 600)
    right.plot(noise, color="#cccccc", lw=0.7, label="gradient of one tile")
    for gamma, colour in ((0.9, BLUE), (0.99, RED)):
        right.plot(velocity(noise, gamma), color=colour, lw=1.8, label=f"momentum {gamma}")
    right.axhline(1.0, color=INK, lw=1, ls=":")
    right.set_ylim(-6, 7)
    right.legend(fontsize=8, frameon=False, ncols=3, loc="lower right")
    plot(right, "step", "", "gradients 1 ± 3, and the mean that moves the weights")
    return figure


def velocity(gradients: np.ndarray, gamma: float) -> np.ndarray:
    """Return (1 − γ)·v after each gradient, from the weight that PyTorch's SGD moves by v."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = torch.optim.SGD([weight], lr=1.0, momentum=gamma)
    places = [0.0]
    for gradient in gradients:
        weight.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimiser.step()
        places.append(float(weight.detach()))
    return -(1 - gamma) * np.diff(places)


# the slips of the notes


def slips() -> Figure:
    """Compare the parameters of each layer with those of the notes, as docs/paper.md tells them."""
    table = layer_table(ubend.NetworkConfig())
    typed = {1: 140, 5: 245_168, 11: 4_195_328, 14: 1_049_088, 17: 262_400, 18: 215_040, 20: 65_664, 21: 75_792}
    figure = empty(3.0)
    axis = figure.add_axes((0.09, 0.16, 0.9, 0.74))
    numbers = np.arange(1, len(table) + 1)
    right = np.array([row.parameters for row in table])
    notes = np.array([typed.get(number, row.parameters) for number, row in zip(numbers, table, strict=True)])
    axis.bar(numbers - 0.2, right, 0.4, color=BLUE, label="layer table")
    axis.bar(numbers + 0.2, notes, 0.4, color=["#d8d8d8" if a == b else RED for a, b in zip(notes, right, strict=True)])
    axis.bar([0], [0], color=RED, label="the notes, where they differ")
    axis.set_yscale("log")
    axis.set_xticks(numbers)
    axis.set_xlim(0.4, len(table) + 0.6)
    axis.legend(fontsize=8, frameon=False)
    plot(axis, "layer", "parameters", f"{right.sum():,} parameters; the notes state 33,816,898")
    return figure


# what we changed


def changes() -> Figure:
    """Draw the ablations of docs/benchmarks.md: the default recipe, and what comes of changing one thing."""
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    text = text.split("<!-- ablations: begin -->")[1].split("<!-- ablations: end -->")[0]
    scores = {"dsb2018": "AP@0.5 (pooled)", "isbi2012_em": "V_Rand"}
    found = {name: measured(text, name, score) for name, score in scores.items()}
    names = list(dict.fromkeys(name for of_set in found.values() for name in of_set))
    height = 0.9 + 0.2 * len(names)
    figure = empty(height)
    for number, (name, of_set) in enumerate(found.items()):
        axis = figure.add_axes((0.31 + 0.35 * number, 0.5 / height, 0.32, 1 - 0.9 / height))
        axis.axvline(of_set["default, without haze"][0], color=PALE, lw=1, ls=":")
        for changed, (value, spread) in of_set.items():
            axis.errorbar(value, names.index(changed), xerr=spread or None, fmt="o", ms=6, capsize=3, color=BLUE)
        axis.set_yticks(range(len(names)), names if number == 0 else [""] * len(names))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="y", color="#eeeeee")
        axis.set_axisbelow(True)
        plot(axis, scores[name], "", name)
    return figure


def measured(text: str, name: str, score: str) -> dict[str, tuple[float, float]]:
    """Read what was changed, its score and the spread over seeds, from the table of a set."""
    lines = text.split(f"\n{name}:\n")[1].strip().split("\n\n")[0].splitlines()
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    parts = {row[0]: row[heads.index(score)].split(" ± ") for row in rows}
    return {changed: (float(value), float(*spread or "0")) for changed, (value, *spread) in parts.items()}


PICTURES = {one.__name__: one for one in (network, energy, weights, elastic, overlap_tile, momentum, slips, changes)}


def small_png(figure: Figure) -> bytes:
    """Encode with as many colours as 120 kB allow."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    with Image.open(drawn) as read:
        image = read.convert("RGB")
    for colours in (256, 192, 128, 96, 64):
        small = io.BytesIO()
        image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
        if small.tell() <= MOST_BYTES:
            break
    return small.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    for name in parser.parse_args().names or PICTURES:
        picture = small_png(PICTURES[name]())
        (FOLDER / f"{name}.png").write_bytes(picture)
        print(f"{name}.png: {len(picture):,} bytes")


if __name__ == "__main__":
    main()

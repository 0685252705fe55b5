"""Border weights of Eq. 2: ubend against one distance transform per cell, side by side in one run.

    python benchmarks/border_weights.py

Writes its table into docs/benchmarks.md. For many cells only some of the transforms are timed and their mean is
multiplied up; the table says how many.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from report import machine, markdown_table, write_section
from scipy.ndimage import distance_transform_edt

from ubend.method.border_weight import border_weights
from ubend.method.nearest_cells import two_nearest_cells

CASES = [(512, 50), (512, 200), (1024, 400), (2048, 2), (2048, 2000), (2048, 20_000)]
TRANSFORMS_TIMED = 20


def disks(side: int, cells: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Draw disks at random places, later ones on top, their radius 0.2 to 0.45 of the spacing (at most 30 px)."""
    labels = np.zeros((side, side), np.int32)
    spacing = min(side / np.sqrt(cells), 67.0)
    for cell in range(1, cells + 1):
        row, column = rng.integers(0, side, 2)
        radius = rng.uniform(0.2, 0.45) * spacing
        rows = np.arange(max(row - 31, 0), min(row + 32, side))
        columns = np.arange(max(column - 31, 0), min(column + 32, side))
        inside = (rows[:, None] - row) ** 2 + (columns - column) ** 2 <= radius**2
        labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][inside] = cell
    return labels


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def one_transform_per_cell(labels: NDArray[np.int32]) -> tuple[float, int, int]:
    """Time the transforms of some cells: seconds for all of them, cells timed, cells in all."""
    cells = np.unique(labels[labels > 0])
    timed = cells[:: max(len(cells) // TRANSFORMS_TIMED, 1)][:TRANSFORMS_TIMED]
    each = [seconds(lambda cell=cell: distance_transform_edt(labels != cell), repeats=1) for cell in timed]
    return float(np.mean(each)) * len(cells), len(timed), len(cells)


def largest_error(labels: NDArray[np.int32]) -> float:
    """Compare with all transforms (small images only)."""
    nearest = np.full((2, *labels.shape), np.inf)
    for cell in np.unique(labels[labels > 0]):
        nearest = np.sort([*nearest, distance_transform_edt(labels != cell)], axis=0)[:2]
    return float(np.abs(np.stack(two_nearest_cells(labels)) - nearest).max())


def main() -> None:
    header = [
        "image",
        "cells",
        "one transform per cell",
        "two_nearest_cells",
        "ratio",
        "border_weights",
        "largest error",
    ]
    rows = []
    for side, cells in CASES:
        labels = disks(side, cells, np.random.default_rng(0))
        ours = seconds(lambda labels=labels: two_nearest_cells(labels))
        weights = seconds(lambda labels=labels: border_weights(labels))
        slow, timed, present = one_transform_per_cell(labels)
        how = "all timed" if timed == present else f"{timed} of {present} timed, multiplied up"
        error = f"{largest_error(labels):.1e} px" if side == 512 else "not compared"
        row = [f"{side}×{side}", str(present), f"{slow:.2f} s ({how})", f"{ours:.3f} s", f"{slow / ours:.3g}"]
        rows.append([*row, f"{weights:.3f} s", error])
        print(rows[-1], flush=True)
    table = markdown_table(header, rows)
    write_section("border_weights", f"{table}\n\n{machine()}\n\nCommand: `python benchmarks/border_weights.py`")


if __name__ == "__main__":
    main()

"""A hundred thousand touching objects in one image of 8192×8192: time and memory from probabilities to labels.

python benchmarks/objects.py               into docs/benchmarks.md
python benchmarks/objects.py --size 2048   smaller, a table on the screen
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import machine, markdown_table, write_section

from ubend.method.objects import ObjectRules, foreground_to_objects

SPACING, LARGEST = 25.3, 12.5
RULES = {
    "components, gap given back": ObjectRules(smallest=20),
    "the same, parted at waists, holes filled": ObjectRules(smallest=20, split=0.75, fill_holes=True),
}


def discs(size: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], int]:
    """Probabilities of discs on a shaken grid, so near that every other one touches a neighbour."""
    grid = np.linspace(13, size - 14, int(size / SPACING))
    rows, columns = (
        np.rint(axis + rng.uniform(-4, 4, axis.shape)).astype(int).ravel()
        for axis in np.meshgrid(grid, grid, indexing="ij")
    )
    reach = int(LARGEST) + 1
    offsets = np.arange(-reach, reach + 1)
    distance = np.hypot(*np.meshgrid(offsets, offsets, indexing="ij"))
    image = np.zeros((size + 2 * reach, size + 2 * reach), np.float32)
    for row, column, radius in zip(rows, columns, rng.uniform(7, LARGEST, rows.size), strict=True):
        window = image[row : row + len(offsets), column : column + len(offsets)]
        np.maximum(window, np.clip((radius + 0.5 - distance) / 2 + 0.5, 0, 1), out=window)
    return image[reach:-reach, reach:-reach].copy(), rows.size


def peak_memory() -> float:
    """Gigabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192)
    size = parser.parse_args().size
    image, drawn = discs(size, np.random.default_rng(0))
    before = peak_memory()
    rows = []
    for about, rules in RULES.items():
        start, worked = time.perf_counter(), time.process_time()
        labels = foreground_to_objects(image, rules)
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        rows.append(
            [about, f"{int(labels.max()):,}", labels.dtype.name, f"{seconds:.1f} s", f"{worked:.1f} s",
             f"{peak_memory() - before:.2f} GB"]
        )  # fmt: skip
    table = markdown_table(
        ["rules", "objects", "type", "time", "of it on the processor", "memory beyond the image"], rows
    )
    print(table)
    if size == 8192:
        write_section(
            "objects",
            f"{drawn:,} discs in {size}×{size}, {image.nbytes / 2**30:.2f} GB of probabilities, "
            f"{(image > 0.5).mean():.0%} of it foreground.\n\n{table}\n\n{machine()}\n\n"
            f"Command: `python benchmarks/{Path(__file__).name}`",
        )


if __name__ == "__main__":
    main()

"""Images larger than memory: time, memory and the same result by any number of workers.

    python benchmarks/scale.py                      5,000² and 10,000², then workers
    python benchmarks/scale.py --sizes 5000 10000 20000

The image is an OME-Zarr of simulated nuclei, repeated; the network is small (width 8, depth 3), since what is measured is
not the network. Each run is a process of its own, `ubend predict`, whose peak memory is read from the system.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import zarr

TILE = 1024


def simulated(path: Path, side: int) -> None:
    """Write an image of side × side, as OME-Zarr 0.5."""
    from ubend.data.simulated import simulate

    tile = simulate("nuclei", np.random.default_rng(0), (TILE, TILE)).image
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array("0", shape=(side, side), chunks=(TILE, TILE), dtype=tile.dtype)
    for row in range(0, side, TILE):
        for column in range(0, side, TILE):
            array[row : row + TILE, column : column + TILE] = np.roll(tile, (row // 7, column // 11), (0, 1))[
                : min(TILE, side - row), : min(TILE, side - column)
            ]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
    }


def model(path: Path) -> None:
    from dataclasses import replace

    from ubend import train
    from ubend.data.simulated import simulate
    from ubend.run.recipe import BudgetConfig, load_recipe

    rng = np.random.default_rng(1)
    samples = [simulate("nuclei", rng, (256, 256)) for _ in range(4)]
    recipe = replace(load_recipe("default"), budget=BudgetConfig())
    recipe = replace(
        recipe,
        network=replace(recipe.network, width=8, depth=3),
        prediction=replace(recipe.prediction, views="one"),
    )
    images, labels = [s.image for s in samples], [s.labels for s in samples]
    train(images, labels, recipe=recipe, steps=300, task="instances").save(path)


def predict(folder: Path, image: Path, out: str, *options: str) -> tuple[float, int, str]:
    """Run `ubend predict` in a process of its own: seconds, peak bytes of the process, what it printed."""
    command = [sys.executable, "-m", "ubend", "predict", str(folder / "model.safetensors"), str(image)]
    before = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--out", str(folder / out), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(said)
    return time.perf_counter() - before, used.ru_maxrss * 1024, said

"""Images larger than memory: time, memory and the same result by any number of workers.

    python benchmarks/scale.py                      5,000² and 10,000², then workers
    python benchmarks/scale.py --sizes 5000 10000 20000

The image is an OME-Zarr of simulated nuclei, repeated. The network is small (width 8, depth 3, one view): what is
measured is not the network. Each run is a process of its own, `ubend predict`, whose peak memory the system tells.
"""

import argparse
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from report import machine, markdown_table, write_section

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


def predict(folder: Path, image: Path, out: str, *options: str, kill_one: bool = False) -> tuple[float, int, str]:
    """Run `ubend predict` in a process of its own; return seconds, peak bytes of it or a worker, and its words."""
    command = [sys.executable, "-m", "ubend", "predict", str(folder / "model.safetensors"), str(image)]
    log = folder / f"{out}.log"
    began = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--out", str(folder / out), *options], stdout=file, stderr=subprocess.STDOUT
        )
        peak = 0
        while process.poll() is None:
            family = [process.pid, *descendants(process.pid)]
            peak = max(peak, *(peak_bytes(pid) for pid in family))
            done = folder / out / f"{image.name.split('.')[0]}.unfinished" / "blocks.jsonl"
            if kill_one and done.exists() and len(done.read_text().splitlines()) >= 3:
                workers = [pid for pid in family if b"spawn_main" in command_line(pid)]
                os.kill(workers[0], signal.SIGKILL)
                kill_one = False
            time.sleep(0.05)
    if process.returncode:
        sys.exit(log.read_text())
    return time.perf_counter() - began, peak, log.read_text()


def descendants(pid: int) -> list[int]:
    """Processes that the threads of a process have started, and theirs."""
    children = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += [int(child) for child in file.read_text().split()]
        except OSError:
            continue  # the thread has ended
    return [*children, *(pid for child in children for pid in descendants(child))]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def peak_bytes(pid: int) -> int:
    """Largest memory that a process has held so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def fingerprint(result: Path) -> str:
    array = zarr.open_array(result / "labels" / "ubend" / "0", mode="r")
    digest = hashlib.sha256()
    for row in range(0, array.shape[0], 1024):
        digest.update(np.asarray(array[row : row + 1024]).tobytes())
    return digest.hexdigest()


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--workers-size", type=int, default=3000, help="rows and columns for the workers")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--folder", type=Path, help="where to work; without it a temporary one")
    parser.add_argument("--no-report", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary)
        model(folder / "model.safetensors")
        growth, first = [], 0.0
        for side in chosen.sizes:
            image = folder / f"image{side}.ome.zarr"
            simulated(image, side)
            seconds, peak, said = predict(folder, image, f"out{side}", "--memory", chosen.memory)
            each = seconds / (side / 1000) ** 2
            first = first or each
            objects = re.findall(r"(\d+) objects?\.", said)[-1]
            growth.append([f"{side}×{side}", f"{seconds:.0f} s", f"{each:.2f} s ({each / first:.2f})",
                           f"{peak / 1e9:.2f} GB", objects])  # fmt: skip
            print(growth[-1], flush=True)
        side = chosen.workers_size
        image = folder / f"image{side}.ome.zarr"
        if not image.exists():
            simulated(image, side)
        runs = [
            ("this process", []),
            *((f"{n} {'worker' if n == 1 else 'workers'}", ["--workers", str(n)]) for n in chosen.workers),
        ]
        shared, expected = [], ""
        for name, options in [*runs, ("2 workers, one killed", ["--workers", "2"])]:
            out = name.replace(" ", "_").replace(",", "")
            options = [*options, "--tile", "572"]
            seconds, _, _ = predict(folder, image, out, *options, kill_one="killed" in name)
            found = fingerprint(folder / out / image.name)
            expected = expected or found
            same = "the same" if found == expected else "**another**"
            shared.append([name, f"{seconds:.0f} s", same, found[:12]])
            print(shared[-1], flush=True)
    if chosen.no_report:
        return
    cores = len(os.sched_getaffinity(0))
    write_section(
        "scale",
        f"`ubend predict --memory {chosen.memory}` of an OME-Zarr of simulated nuclei; width 8, depth 3, one view. "
        "Memory is the peak of the process.\n\n"
        + markdown_table(["image", "time", "a megapixel (ratio)", "memory", "objects"], growth)
        + f"\n\n{side}×{side} in tiles of 572, computed by processes of one thread each, on {counted(cores, 'core')}; "
        "the time holds starting them. Labels are compared by their SHA-256.\n\n"
        + markdown_table(["computed by", "time", "labels", "SHA-256"], shared)
        + f"\n\n{machine()}\n\nCommand: `python benchmarks/scale.py --sizes {' '.join(map(str, chosen.sizes))}`",
    )


if __name__ == "__main__":
    main()

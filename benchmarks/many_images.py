"""A folder of small images: images a second, and the share of the time that the network waits for files.

python benchmarks/many_images.py                           1,000 images, table into docs/benchmarks.md
python benchmarks/many_images.py --before FOLDER/src       the same, beside another version of the sources
python benchmarks/many_images.py --images 40 --no-report   fewer, a table on the screen

All that is compared takes turns, each in a process of its own, and must leave the same files, byte for byte. The time
is that of `predict_folder`, of which starting Python is no part; one pass before it is not timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from report import machine, markdown_table, write_section

SOURCES = Path(__file__).resolve().parents[1] / "src"
SIDE, WIDTH, STEPS = 256, 8, 60
VIEWS = ("one", "dihedral")


def prepare(folder: Path, images: int) -> None:
    """Simulate the images, and train a model for each kind of views."""
    from ubend.data.simulated import simulate
    from ubend.run.model import Model
    from ubend.run.recipe import load_recipe
    from ubend.run.training import train

    samples = [simulate("nuclei", np.random.default_rng(number), (SIDE, SIDE)) for number in range(4)]
    recipe = load_recipe("default")
    recipe = replace(recipe, network=replace(recipe.network, width=WIDTH))
    model = train(
        [one.image for one in samples],
        [one.labels for one in samples],
        recipe=recipe,
        steps=STEPS,
        task="instances",
        device="cpu",
    )
    for views in VIEWS:
        Model(model.network, replace(model.contract, views=views), device="cpu").save(folder / f"{views}.safetensors")
    (folder / "images").mkdir()
    for number in range(images):
        image = simulate("nuclei", np.random.default_rng(100 + number), (SIDE, SIDE)).image
        Image.fromarray(image).save(folder / "images" / f"{number:04d}.png")


def measure_here(folder: Path, views: str, out: Path) -> None:
    """Segment the folder in this process, and print the figures."""
    import torch

    from ubend.run.folders import predict_folder
    from ubend.run.model import load

    model = load(folder / f"{views}.safetensors", device="cpu")
    predict_folder(model, next((folder / "images").iterdir()), out / "first")
    start, worked = time.perf_counter(), time.process_time()
    result = predict_folder(model, folder / "images", out / "all")
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    figures = {
        "seconds": seconds,
        "worked": worked,
        "waiting": getattr(result, "waiting", None),  # earlier versions do not say
        "images": len(result.written),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


def measured(sources: Path, folder: Path, views: str, threads: int, out: Path) -> dict[str, float]:
    """Run `measure_here` with the sources of one version."""
    environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--here", str(folder), views, str(out)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def same_files(one: Path, other: Path) -> bool:
    first, second = ({path.name: path.read_bytes() for path in (out / "all").iterdir()} for out in (one, other))
    return first == second


def compare(folder: Path, versions: dict[str, Path], threads: list[int], rounds: int) -> list[list[str]]:
    """Measure all in turns; return the rows of the table."""
    figures: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for views in VIEWS:
            for count in threads:
                outs = []
                for name, sources in versions.items():
                    outs.append(folder / f"{name} {views} {count} {number}")
                    figures.setdefault((views, count, name), []).append(
                        measured(sources, folder, views, count, outs[-1])
                    )
                if not all(same_files(outs[0], other) for other in outs[1:]):
                    raise SystemExit(f"the files in {outs} differ")
    rows = []
    for (views, count, name), found in figures.items():
        speed = statistics.median(one["images"] / one["seconds"] for one in found)
        worked = statistics.median(one["worked"] / one["images"] for one in found)
        waiting = [one["waiting"] for one in found if one["waiting"] is not None]
        share = f"{statistics.median(waiting):.1%}" if waiting else "not known"
        rows.append([views, str(count), name, f"{speed:.2f}", f"{1000 * worked:.0f} ms", share])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="Of the network.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="Folder src of another version, measured in turns with this one.")
    parser.add_argument("--no-report", action="store_true", help="Only print.")
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        folder, views, out = asked.here
        measure_here(Path(folder), views, Path(out))
        return
    versions = {"one after the other": asked.before} if asked.before else {}
    versions["ahead and behind"] = SOURCES
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place), asked.images)
        rows = compare(Path(place), versions, asked.threads, asked.rounds)
    table = markdown_table(
        ["views", "threads of the network", "files", "images a second", "processor time an image", "network waited"],
        rows,
    )
    print(table)
    if not asked.no_report:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        write_section(
            "many_images",
            f"{asked.images} simulated images of nuclei, {SIDE}×{SIDE}, as PNG; a network of width {WIDTH} after "
            f"{STEPS} steps, on a CPU; a label image and a table for each. {cores} of the cores were to be used; "
            f"medians of {asked.rounds} rounds in turns. All leave the same files, byte for byte.\n\n"
            f"{table}\n\n{machine()}\n\n"
            f"Command: `python benchmarks/{Path(__file__).name}`",
        )


if __name__ == "__main__":
    main()

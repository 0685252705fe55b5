"""The `paper` recipe on this machine: a sweep of the learning rate, which the paper does not give, and a longer run.

    python benchmarks/paper_recipe.py --sweep 40
    python benchmarks/paper_recipe.py --steps 200

Every rate trains the same network on the same tiles (572×572, batch 1, momentum 0.99) of isbi2012_em, or of simulated
membranes where that set is absent. The tables go into docs/benchmarks.md.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, markdown_table, write_section

from ubend.data.formats import read_images, read_labels
from ubend.data.simulated import simulate
from ubend.errors import TrainingError
from ubend.run.recipe import load_recipe
from ubend.run.training import Progress, train

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "isbi2012_em"
COMMAND = "python benchmarks/paper_recipe.py"
RATES = (1e-5, 1e-4, 1e-3)


def annotated() -> tuple[list[Any], list[Any], str]:
    if not DATA.is_dir():
        samples = [simulate("membranes", np.random.default_rng(k), (512, 512)) for k in range(18)]
        return [s.image for s in samples], [s.labels for s in samples], "simulated membranes"
    names = sorted(path.name for path in (DATA / "images").iterdir())[:18]
    images = [read_images(DATA / "images" / name)[0].pixels for name in names]
    return images, [read_labels(DATA / "masks" / name)[0].pixels for name in names], "isbi2012_em, slices 0–17"


def energies(images: list[Any], labels: list[Any], rate: float, steps: int) -> tuple[list[float], float]:
    """Train; return the energy of each step, and the seconds a step took."""
    recipe = load_recipe("paper")
    recipe = replace(
        recipe,
        optimiser=replace(recipe.optimiser, learning_rate=rate),
    )
    seen: list[float] = []

    def on_step(progress: Progress) -> None:
        seen.append(progress.energy)
        if progress.step % 10 == 0:
            print(f"  rate {rate:.0e} step {progress.step}: mean of the last ten {np.mean(seen[-10:]):.4f}", flush=True)

    start = time.perf_counter()
    try:
        train(images, labels, recipe=recipe, steps=steps, on_step=on_step)
    except TrainingError as error:
        print(f"  {error}")
        seen.append(float("nan"))
    return seen, (time.perf_counter() - start) / len(seen)


def sweep(steps: int) -> None:
    images, labels, source = annotated()
    courses = {rate: energies(images, labels, rate, steps)[0] for rate in RATES}
    tenth = slice(-10, None)
    rows = [
        [
            f"{rate:.0e}",
            f"{course[0]:.3f}",
            f"{np.mean(course[steps // 2 - 10 : steps // 2]):.3f}",
            f"{np.mean(course[tenth]):.3f}",
        ]
        for rate, course in courses.items()
    ]
    half = f"mean of steps {steps // 2 - 9} to {steps // 2}"
    table = markdown_table(["learning rate", "step 1", half, f"mean of steps {steps - 9} to {steps}"], rows)
    write_section("paper_sweep", f"On {source}.\n\n{table}\n\n{machine()}\n\nCommand: `{COMMAND} --sweep {steps}`")


def course(steps: int) -> None:
    images, labels, source = annotated()
    rate = load_recipe("paper").optimiser.learning_rate
    seen, seconds = energies(images, labels, rate, steps)
    part = max(1, steps // 8)
    rows = [
        [f"{first + 1} to {min(first + part, steps)}", f"{np.mean(seen[first : first + part]):.4f}"]
        for first in range(0, steps, part)
    ]
    table = markdown_table(["steps", "mean energy"], rows)
    write_section(
        "paper_course",
        f"The shipped rate, {rate:.0e}, on {source}; {seconds:.1f} s a step.\n\n{table}"
        f"\n\n{machine()}\n\nCommand: `{COMMAND} --steps {steps}`",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=int, default=0, help="steps with each learning rate")
    parser.add_argument("--steps", type=int, default=0, help="steps with the rate of the recipe")
    chosen = parser.parse_args()
    if chosen.sweep:
        sweep(chosen.sweep)
    if chosen.steps:
        course(chosen.steps)


if __name__ == "__main__":
    main()

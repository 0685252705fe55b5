"""The `paper` recipe on this machine: a sweep of the learning rate, which the paper does not give, and a longer run.

    python benchmarks/paper_recipe.py --sweep-steps 30 --steps 200

Every rate trains the same network on the same tiles (572×572, batch 1, momentum 0.99) of isbi2012_em, or of simulated
membranes where that set is absent. The table goes into docs/benchmarks.md.
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
RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)


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
        training=replace(recipe.training, held_out=0.0),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep-steps", type=int, default=30)
    parser.add_argument("--steps", type=int, default=200)
    chosen = parser.parse_args()
    images, labels, source = annotated()
    sweep = {rate: energies(images, labels, rate, chosen.sweep_steps)[0] for rate in RATES}
    rows = [[f"{rate:.0e}", f"{e[0]:.3f}", f"{np.mean(e[-10:]):.3f}"] for rate, e in sweep.items()]
    table = markdown_table(
        ["learning rate", "energy of step 1", f"mean of the last 10 of {chosen.sweep_steps} steps"], rows
    )
    shipped = load_recipe("paper").optimiser.learning_rate
    run, seconds = energies(images, labels, shipped, chosen.steps)
    tenth = max(1, len(run) // 8)
    course = markdown_table(
        ["steps", "mean energy"],
        [
            [f"{k + 1}–{k + len(run[k : k + tenth])}", f"{np.mean(run[k : k + tenth]):.4f}"]
            for k in range(0, len(run), tenth)
        ],
    )
    write_section(
        "paper_recipe",
        f"Energy (mean over pixels, with the weights of Eq. 2) on {source}; one tile of 572×572 a step, momentum 0.99."
        f"\n\n{table}\n\nThe shipped rate, {shipped:.0e}, over {len(run)} steps of {seconds:.1f} s:\n\n{course}"
        f"\n\n{machine()}\n\nCommand: `python benchmarks/paper_recipe.py --sweep-steps {chosen.sweep_steps} "
        f"--steps {chosen.steps}`",
    )


if __name__ == "__main__":
    main()

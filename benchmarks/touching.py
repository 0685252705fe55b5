"""What each way to part touching cells brings: border weights, a learned distance, the watershed.

    python benchmarks/touching.py                            both sets, into docs/benchmarks.md
    python benchmarks/touching.py dsb2018 --steps 300        one set, a table on the screen

Each row of a set is one training, scored twice on images that were not trained on: connected components, and components
parted as the annotated images of the training say. The folds are not those of benchmarks/real_data.py.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from report import machine, markdown_table, write_section

from ubend.data.annotated import Annotated, find_pairs, read_pairs
from ubend.method.objects import foreground_to_objects
from ubend.run.evaluation import evaluate_arrays
from ubend.run.recipe import BudgetConfig, Recipe, load_recipe
from ubend.run.training import train

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DYNAMICS_OF_PROBABILITY = 0.1
SCORES = ("AP@0.5 (pooled)", "AP@0.75 (pooled)", "SEG", "pairs apart")
TRAININGS = {
    "foreground": {"w0": 0.0, "distance": 0.0},
    "foreground, border weights": {"w0": 10.0, "distance": 0.0},
    "foreground and distance": {"w0": 0.0, "distance": 1.0},
    "foreground and distance, border weights": {"w0": 10.0, "distance": 1.0},
}
FOLDS = {"dsb2018": (slice(48, 64), slice(260, 360)), "coelho2009_nuclei": (slice(0, 10), slice(10, 22))}
ABOUT = {
    "dsb2018": "16 fluorescence images, 100 others scored",
    "coelho2009_nuclei": "10 images, 12 others scored",
}


def read_fold(name: str) -> tuple[list[Annotated], list[Annotated]]:
    pairs = find_pairs(DATA / name)
    if name == "dsb2018":
        with (DATA / name / "manifest.csv").open(newline="") as file:
            chosen = {Path(row["file"]).stem: None for row in csv.DictReader(file) if row["modality"] == "fluorescence"}
        by_name = {pair.name: pair for pair in pairs}
        pairs = [by_name[stem] for stem in chosen]
    order = np.random.default_rng(11).permutation(len(pairs))
    train_on, score_on = ([pairs[k] for k in order[part]] for part in FOLDS[name])
    return read_pairs(train_on), read_pairs(score_on)


def recipe_of(energy: dict[str, float]) -> Recipe:
    recipe = load_recipe("default")
    return replace(recipe, energy=replace(recipe.energy, **energy), budget=BudgetConfig())


def measure(name: str, steps: int, seed: int) -> list[list[str]]:
    annotated, others = read_fold(name)
    rows = []
    for about, energy in TRAININGS.items():
        model = train(annotated, recipe=recipe_of(energy), steps=steps, task="instances", seed=seed)
        probabilities = [model.predict(image.image) for image in others]
        chosen = model.contract.objects
        ways = {"components": replace(chosen, split=0.0), "watershed": chosen}
        if not model.contract.learns_distance:
            ways["watershed on the probability"] = replace(chosen, split=DYNAMICS_OF_PROBABILITY)
        for way, rules in ways.items():
            height = 1 if way.endswith("probability") else 2
            found = [
                foreground_to_objects(p[1], rules, distance=p[height] if height < len(p) else None)
                for p in probabilities
            ]
            overall = evaluate_arrays(
                [image.labels for image in others], found, task=model.contract.task, extent="all"
            ).overall
            note = f"split {rules.split:g}, threshold {rules.threshold:g}"
            rows.append([name, about, way, *(f"{overall[score]:.3f}" for score in SCORES), note])
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table_of(rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(["set", "learned", "objects", *SCORES, "chosen rules"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*FOLDS, []], help="which sets; without it both")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the real images are not here: {DATA}")
    rows = [row for name in chosen.sets or FOLDS for row in measure(name, chosen.steps, chosen.seed)]
    print(table_of(rows))
    if not chosen.sets:
        about = "; ".join(f"{name}: {ABOUT[name]}" for name in FOLDS)
        write_section(
            "touching",
            f"{about}; {chosen.steps} steps each, seed {chosen.seed}.\n\n{table_of(rows)}\n\n{machine()}\n\n"
            f"Command: `python benchmarks/touching.py --steps {chosen.steps}`",
        )


if __name__ == "__main__":
    main()

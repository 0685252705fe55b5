"""What each ingredient of the default recipe brings: one training a row, the same images, the same time.

    python benchmarks/ablations.py                               what is missing of all rows, then docs/benchmarks.md
    python benchmarks/ablations.py dsb2018 --only elastic        some rows of one set
    python benchmarks/ablations.py --report                      docs/benchmarks.md from what has been measured

A row changes one choice of the recipe. What changes the cost of a step gets as many steps as fit into the same time,
measured beside the default in the same process; what is trained and scored, by seed, is the same for all rows. Every
row is kept in benchmarks/results/ablations.csv, and measured once.
"""

import argparse
import datetime
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_data import DATA, fluorescence_files
from report import keep, kept, markdown_table, processor, versions, write_section

from ubend.data.annotated import Annotated, Kind, find_pairs, read_pairs
from ubend.run.evaluation import evaluate_arrays
from ubend.run.labels import predict_labels
from ubend.run.model import Model
from ubend.run.prediction import Views
from ubend.run.recipe import BudgetConfig, Recipe, load_recipe
from ubend.run.training import Progress, train

RESULTS = Path(__file__).resolve().parent / "results" / "ablations.csv"


@dataclass(frozen=True)
class Fold:
    """Which images of a set are trained on, by seed, and which are scored; others than real_data.py scores."""

    task: Kind
    scores: tuple[str, ...]
    train_on: Callable[[Sequence[str], int], list[str]]
    score_on: Callable[[Sequence[str]], list[str]]


def fluorescence() -> list[str]:
    return [Path(file).stem for file in fluorescence_files()]


FOLDS = {
    "dsb2018": Fold(
        "instances",
        ("AP@0.5 (pooled)", "AP@0.75 (pooled)", "IoU"),
        lambda _, seed: fluorescence()[32 + 16 * seed : 48 + 16 * seed],
        lambda _: fluorescence()[270:320],
    ),
    "isbi2012_em": Fold(
        "binary",
        ("V_Rand", "V_Info", "IoU"),
        lambda names, seed: [names[k] for k in ((1, 5, 9, 19, 22), (0, 4, 8, 18, 21), (2, 6, 10, 20, 23))[seed]],
        lambda names: list(names[12:18]),
    ),
    "dic_hela": Fold(
        "binary",
        ("IoU", "Dice", "V_Rand"),
        lambda names, seed: list(names[seed : 20 + seed : 2]),
        lambda names: list(names[26:42:2]),
    ),
}


@dataclass(frozen=True)
class Row:
    """One choice, changed: of the recipe, or of how the model of the default recipe is used."""

    name: str
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: Views | None = None
    rules: dict[str, Any] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        return self.views is None and not self.rules

    def fits(self, task: Kind) -> bool:
        """Whether what it changes is there: distance, copies and rules are those of single objects."""
        of_objects = self.rules or any({"distance", "copies"} & values.keys() for values in self.changes.values())
        return task == "instances" or not of_objects


DEFAULT = Row("default, without haze")
ROWS = (
    DEFAULT,
    Row("no elastic deformation", {"augmentation": {"elastic_sigma": 0.0}}),
    Row("elastic σ 5 px", {"augmentation": {"elastic_sigma": 5.0}}),
    Row("elastic σ 20 px", {"augmentation": {"elastic_sigma": 20.0}}),
    Row(
        "no gray values",
        {"augmentation": {"contrast": 0, "brightness": 0, "gamma": 1, "noise": 0, "shading": 0}},
    ),
    Row("with haze", {"augmentation": {"haze": 8.0}}),
    Row("no zoom", {"augmentation": {"zoom": 1.0}}),
    Row("no copies of cells", {"augmentation": {"copies": 0}}),
    Row("no border weights", {"energy": {"w0": 0.0}}),
    Row("balanced classes", {"energy": {"balance": "frequency"}}),
    Row("with Dice", {"energy": {"dice": 1.0}}),
    Row("no distance", {"energy": {"distance": 0.0}}),
    Row("1 tile of 512 a step", {"tiles": {"size": 512}}),
    Row("4 tiles of 128 a step", {"tiles": {"batch": 4, "size": 128}}),
    Row("4 tiles of 256 a step", {"tiles": {"batch": 4}}),
    Row("16 tiles of 128 a step", {"tiles": {"batch": 16, "size": 128}}),
    Row("SGD, momentum 0.99, rate 0.01", {"optimiser": {"kind": "sgd", "learning_rate": 0.01}}),
    Row("SGD, momentum 0.99 Nesterov, rate 0.01", {"optimiser": {"kind": "nesterov", "learning_rate": 0.01}}),
    Row("learning rate 1e-3", {"optimiser": {"learning_rate": 1e-3}}),
    Row("learning rate 4e-3", {"optimiser": {"learning_rate": 4e-3}}),
    Row("constant rate", {"optimiser": {"schedule": "constant"}}),
    Row("last weights", {"optimiser": {"averaging": 0.0}}),
    Row("mean of the weights over 20 %", {"optimiser": {"averaging": 0.2}}),
    Row("width 8", {"network": {"width": 8}}),
    Row("width 32", {"network": {"width": 32}}),
    Row("depth 3", {"network": {"depth": 3}}),
    Row("depth 5", {"network": {"depth": 5}}),
    Row("half the resolution", {"network": {"coarse": 1, "depth": 5}}),
    Row("no normalisation layer", {"network": {"normalisation": "none"}}),
    Row("dropout 0.5", {"network": {"dropout": 0.5}}),
    Row("unpadded, tile of 380", {"network": {"padding": "none"}, "tiles": {"size": 380}}),
    Row("unpadded, tile of 572", {"network": {"padding": "none"}, "tiles": {"size": 572}}),
    Row("no image held out", {"training": {"held_out": 0.0}}),
    Row("one view", views="one"),
    Row("objects of any certainty", rules={"certainty": 0.0}),
)


def recipe_of(row: Row) -> Recipe:
    """Change the default recipe of full resolution; all rows are without haze, which came later, but its own."""
    recipe = load_recipe("default")
    recipe = replace(recipe, augmentation=replace(recipe.augmentation, haze=0.0))
    tables = {table: replace(getattr(recipe, table), **values) for table, values in row.changes.items()}
    return replace(recipe, **tables, budget=BudgetConfig())


def seconds_a_step(annotated: Sequence[Annotated], recipes: Sequence[Recipe], task: Kind) -> list[float]:
    """Time a few steps of each recipe, in turns; median."""
    taken: list[list[float]] = [[] for _ in recipes]
    few = annotated[:2]
    for _ in range(2):
        for recipe, times in zip(recipes, taken, strict=True):
            last = [0.0]

            def on_step(progress: Progress, last: list[float] = last, times: list[float] = times) -> None:
                now = time.perf_counter()
                if progress.step > 2:
                    times.append(now - last[0])
                last[0] = now

            train(few, recipe=recipe, steps=6, task=task, on_step=on_step)
    return [median(times) for times in taken]


def measure(name: str, row: Row, seed: int, steps: int, models: Path | None) -> list[dict[str, Any]]:
    fold = FOLDS[name]
    pairs = {pair.name: pair for pair in find_pairs(DATA / name)}
    names = sorted(pairs)
    annotated = read_pairs([pairs[n] for n in fold.train_on(names, seed)])
    others = read_pairs([pairs[n] for n in fold.score_on(names)])
    recipe, base = recipe_of(row), recipe_of(DEFAULT)
    if (recipe.network, recipe.tiles) != (base.network, base.tiles):
        now, then = seconds_a_step(annotated, (recipe, base), fold.task)
        steps = max(1, round(steps * then / now))
    began = time.perf_counter()
    model = train(annotated, recipe=recipe, steps=steps, task=fold.task, seed=seed)
    took = time.perf_counter() - began
    if models is not None:
        models.mkdir(parents=True, exist_ok=True)
        model.save(models / f"{name}-{row.name.replace(' ', '_').replace('/', '')}-{seed}.safetensors", overwrite=True)
    scored = [row] + [other for other in ROWS if row == DEFAULT and not other.trains and other.fits(fold.task)]
    maps = {
        views: [model.predict(image.image, views=views) for image in others] for views in {one.views for one in scored}
    }
    return [
        {"set": name, "row": one.name, "seed": seed, "steps": steps, "seconds": round(took)}
        | {f"score {k}": f"{value:.4f}" for k, value in enumerate(score(model, maps[one.views], others, fold, one), 1)}
        | {"date": datetime.date.today().isoformat(), "processor": processor()}
        for one in scored
    ]


def score(
    model: Model, probabilities: Sequence[NDArray[np.float32]], others: Sequence[Annotated], fold: Fold, row: Row
) -> list[float]:
    contract = replace(model.contract, objects=replace(model.contract.objects, **row.rules))
    overall = evaluate_arrays(
        [image.labels for image in others],
        [predict_labels(contract, p) for p in probabilities],
        task=contract.task,
        probabilities=probabilities if fold.task == "binary" else None,
        extent="all",
    ).overall
    return [overall[key] for key in fold.scores]


NOTHING = "Nothing has been measured yet: `python benchmarks/ablations.py`."
FIELDS = ("set", "row", "seed", "steps", "seconds", "score 1", "score 2", "score 3", "date", "processor")


def measured(rows: Sequence[dict[str, str]]) -> str:
    """Say when and on what the rows were measured."""
    dates = sorted({row["date"] for row in rows})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else ""
    return f"Measured {when} on one core of {'; '.join(sorted({row['processor'] for row in rows}))}, {versions()}."


def report() -> None:
    """Write what has been measured into docs/benchmarks.md: mean and spread, and by seed what was changed by it."""
    found: dict[tuple[str, str], dict[str, tuple[float, ...]]] = defaultdict(dict)
    for line in sorted(kept(RESULTS), key=lambda line: int(line["seed"])):
        found[line["set"], line["row"]][line["seed"]] = tuple(float(line[f"score {k}"]) for k in (1, 2, 3))
    names = [row.name for row in ROWS]
    tables = []
    for name, fold in FOLDS.items():
        rows = []
        of_default = found.get((name, DEFAULT.name), {})
        for row in (row for row in names if (name, row) in found):
            of_row = found[name, row]
            cells = [
                f"{mean(column):.3f}" + (f" ± {stdev(column):.3f}" if len(column) > 1 else "")
                for column in zip(*of_row.values(), strict=True)
            ]
            differences = [f"{of_row[seed][0] - of_default[seed][0]:+.3f}" for seed in of_row if seed in of_default]
            rows.append([row, str(len(of_row)), *cells, ", ".join(differences) if row != DEFAULT.name else ""])
        if rows:
            header = ["changed", "seeds", *fold.scores, f"{fold.scores[0]}: difference by seed"]
            tables.append(f"{name}:\n\n{markdown_table(header, rows)}")
    text = "\n\n".join([*tables, measured(kept(RESULTS)), "Command: `python benchmarks/ablations.py`"])
    write_section("ablations", text if tables else NOTHING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*FOLDS, []], help="which sets; without it all")
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these words")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help="of the default recipe")
    parser.add_argument("--models", type=Path, help="folder to keep the models in")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the real images are not here: {DATA}")
    rows = [row for row in ROWS if row.trains and (not chosen.only or any(word in row.name for word in chosen.only))]
    for seed in [] if chosen.report else chosen.seeds:
        for row in rows:
            for name in chosen.sets or FOLDS:
                if not row.fits(FOLDS[name].task):
                    continue
                if not any((name, row.name, str(seed)) == (r["set"], r["row"], r["seed"]) for r in kept(RESULTS)):
                    found = measure(name, row, seed, chosen.steps, chosen.models)
                    keep(RESULTS, FIELDS, found)
                    print(*(list(line.values()) for line in found), sep="\n", flush=True)
    report()


if __name__ == "__main__":
    main()

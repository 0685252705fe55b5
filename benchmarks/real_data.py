"""Real images, at most ten minutes of training each: the commands a user would give, and the scores.

    python benchmarks/real_data.py                      all sets, into docs/benchmarks.md
    python benchmarks/real_data.py dsb2018 --minutes 5  one set, a table on the screen

The training images are copied into a folder of their own; images that are scored are never seen by training, and other
folds than these were used to choose the default recipe.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import machine, markdown_table, write_section

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Split:
    """Which images of a set are trained on and which are scored, and the goal."""

    train: list[str]
    test: list[str]
    score: str
    goal: float
    about: str
    folder: str = ""


def isbi2012_em(names: list[str]) -> Split:
    return Split(names[:18], names[18:24], "V_Rand", 0.96, "slices 0–17, scored on 18–23")


def fluorescence_files() -> list[str]:
    """List the fluorescence images of dsb2018, shuffled as for all benchmarks."""
    with (DATA / "dsb2018" / "manifest.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["modality"] == "fluorescence"]
    return [names[k] for k in np.random.default_rng(11).permutation(len(names))]


def fluorescence(train: Sequence[int], test: Sequence[int]) -> Split:
    names = fluorescence_files()
    chosen = ([names[k] for k in part] for part in (train, test))
    return Split(*chosen, "AP@0.5 (pooled)", 0.80, "16 fluorescence images, scored on 100 others", "dsb2018")


def dsb2018(_names: list[str]) -> Split:
    return fluorescence(range(16, 32), range(160, 260))


def dsb2018_again(_names: list[str]) -> Split:
    """Other images, for which the recipe was not chosen."""
    return fluorescence(range(16), [*range(360, 429), *range(16, 47)])


def dic_hela(names: list[str]) -> Split:
    return Split(names[:20], names[-20:], "IoU", 0.85, "first 20 frames, scored on the last 20")


SETS = {"isbi2012_em": isbi2012_em, "dsb2018": dsb2018, "dsb2018_again": dsb2018_again, "dic_hela": dic_hela}


def run(command: Sequence[str]) -> None:
    print("$ ubend " + " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", "ubend", *command], check=True)


def measure(name: str, minutes: float, out: Path) -> list[str]:
    images = DATA / name / "images"
    split = SETS[name](sorted(path.name for path in images.iterdir()) if images.is_dir() else [])
    source = DATA / (split.folder or name)
    here = out / name
    shutil.rmtree(here, ignore_errors=True)
    for part, files in (("train", split.train), ("test", split.test)):
        for folder in ("images", "masks"):
            (here / part / folder).mkdir(parents=True)
            for file in files:
                shutil.copy(source / folder / file, here / part / folder)
    run(["train", str(here / "train"), "--out", str(here / "model"), "--minutes", f"{minutes:g}"])
    images, results = str(here / "test" / "images"), str(here / "results")
    run(["predict", str(here / "model"), images, "--out", results, "--probabilities"])
    run(["evaluate", results, str(here / "test"), "--json", str(here / "scores.json")])
    overall = json.loads((here / "scores.json").read_text())["overall"]
    with (here / "model" / "log.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    others = ", ".join(f"{key} {value:.3f}" for key, value in overall.items() if key != split.score)
    return [
        name,
        split.about,
        f"{float(last['seconds']) / 60:.1f} min, {last['step']} steps",
        f"{split.score} **{overall[split.score]:.4f}**",
        f"{split.goal:.2f}",
        others,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="which sets; without it all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    chosen = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the real images are not here: {DATA}")
    rows = [measure(name, chosen.minutes, chosen.out) for name in chosen.sets or SETS]
    table = markdown_table(["set", "split", "training", "score", "goal", "other scores"], rows)
    print(table)
    if not chosen.sets:
        write_section("real_data", f"{table}\n\n{machine()}\n\nCommand: `python benchmarks/real_data.py`")


if __name__ == "__main__":
    main()

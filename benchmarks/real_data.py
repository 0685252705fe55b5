"""Real images, at most ten minutes of training each: the commands a user would give, and the scores.

    python benchmarks/real_data.py                      all sets, into docs/benchmarks.md
    python benchmarks/real_data.py dsb2018 --minutes 5  one set
    python benchmarks/real_data.py --report             docs/benchmarks.md from the last row of each set

Each run adds a row to benchmarks/results/real_data.csv. The training images are copied into a folder of their own;
images that are scored are never seen by training. Choices of the default recipe were made on other folds, but for those
that docs/benchmarks.md names.
"""

import argparse
import csv
import datetime
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import keep, kept, markdown_table, processor, versions, write_section

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RESULTS = Path(__file__).resolve().parent / "results" / "real_data.csv"
FIELDS = (
    *("set", "split", "minutes", "command_minutes", "cores", "steps", "score", "goal", "others"),
    *("date", "processor", "versions"),
)


@dataclass(frozen=True)
class Split:
    """Which images of a set are trained on and which are scored, and the goal."""

    train: list[str]
    test: list[str]
    score: str
    goal: float
    about: str
    folder: str


def isbi2012_em(names: list[str]) -> Split:
    return Split(names[:18], names[18:24], "V_Rand", 0.98, "slices 0–17, scored on 18–23", "isbi2012_em")


def five_slices(names: list[str]) -> Split:
    chosen = [names[k] for k in (1, 5, 9, 13, 17)]
    return Split(chosen, names[18:24], "V_Rand", 0.9728, "slices 1, 5, 9, 13, 17, scored on 18–23", "isbi2012_em")


def spread(names: list[str]) -> Split:
    test = names[3::4]
    train = [name for name in names if name not in test]
    return Split(train, test, "V_Rand", 0.98, "18 slices, scored on 3, 7, 11, 15, 19, 23 between them", "isbi2012_em")


def five_spread(names: list[str]) -> Split:
    train = names[2::5]
    test = [name for name in names if name not in train]
    return Split(train, test, "V_Rand", 0.9728, "slices 2, 7, 12, 17, 22, scored on the 19 others", "isbi2012_em")


def one_slice(names: list[str]) -> Split:
    return Split(names[9:10], names[18:24], "V_Rand", math.nan, "slice 9, scored on 18–23", "isbi2012_em")


def vnc_sstem(names: list[str]) -> Split:
    return Split(names[:8], names[9:16:2], "V_Rand", 0.93, "slices 0–7, scored on 9, 11, 13, 15", "vnc_sstem")


def fluorescence_files() -> list[str]:
    """List the fluorescence images of dsb2018, shuffled as for all benchmarks."""
    with (DATA / "dsb2018" / "manifest.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["modality"] == "fluorescence"]
    return [names[k] for k in np.random.default_rng(11).permutation(len(names))]


def dsb2018(_names: list[str]) -> Split:
    names = fluorescence_files()
    about = "16 fluorescence images, scored on 100 others"
    return Split(names[16:32], names[160:260], "AP@0.5 (pooled)", 0.8352, about, "dsb2018")


def dic_hela(names: list[str]) -> Split:
    return Split(names[:20], names[-20:], "IoU", 0.92, "first 20 frames, scored on the last 20", "dic_hela")


SETS = {
    "isbi2012_em": isbi2012_em, "isbi2012_em, spread": spread, "isbi2012_em, 5": five_slices,
    "isbi2012_em, 5 spread": five_spread, "isbi2012_em, 1": one_slice, "vnc_sstem": vnc_sstem, "dsb2018": dsb2018,
    "dic_hela": dic_hela,
}  # fmt: skip


def run(command: Sequence[str]) -> float:
    """Run a command of ubend, and return the seconds that it took."""
    print("$ ubend " + " ".join(command), flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ubend", *command], check=True)
    return time.perf_counter() - start


def measure(name: str, minutes: float, out: Path) -> dict[str, str]:
    source = DATA / name.split(",")[0]
    split = SETS[name](sorted(path.name for path in (source / "images").iterdir()))
    here = out / name.replace(", ", "_")
    shutil.rmtree(here, ignore_errors=True)
    for part, files in (("train", split.train), ("test", split.test)):
        for folder in ("images", "masks"):
            (here / part / folder).mkdir(parents=True)
            for file in files:
                shutil.copy(source / folder / file, here / part / folder)
    taken = run(["train", str(here / "train"), "--out", str(here / "model"), "--minutes", f"{minutes:g}"])
    images, results = str(here / "test" / "images"), str(here / "results")
    run(["predict", str(here / "model"), images, "--out", results, "--probabilities"])
    run(["evaluate", results, str(here / "test"), "--json", str(here / "scores.json")])
    overall = json.loads((here / "scores.json").read_text())["overall"]
    with (here / "model" / "log.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {
        "set": name,
        "split": split.about,
        "minutes": f"{float(last['seconds']) / 60:.1f}",
        "command_minutes": f"{taken / 60:.2f}",
        "cores": str(cores()),
        "steps": last["step"],
        "score": f"{split.score} **{overall[split.score]:.4f}**",
        "goal": "" if math.isnan(split.goal) else f"{split.goal:g}",
        "others": ", ".join(f"{key} {value:.4f}" for key, value in overall.items() if key != split.score),
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "versions": versions(),
    }


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def report() -> None:
    """Write the last row of each set into docs/benchmarks.md."""
    last = {row["set"]: row for row in kept(RESULTS)}
    shown = [last[name] for name in SETS if name in last]
    rows = [
        [
            row["set"],
            row["split"],
            f"{row['command_minutes'] or row['minutes']} min, {row['cores']} core{'s' * (row['cores'] != '1')}, "
            f"{int(row['steps']):,} steps",
            row["score"],
            row["goal"],
            f"{row['date']}, {row['processor']}",
        ]
        for row in shown
    ]
    others = [[row["set"], row["others"]] for row in shown]
    tables = [
        markdown_table(["set", "split", "training", "score", "goal", "measured"], rows),
        "The minutes are those of the command `ubend train`, or, with one decimal, those of its log. Other scores:",
        markdown_table(["set", "other scores"], others),
        "Command: `python benchmarks/real_data.py`",
    ]
    write_section("real_data", "\n\n".join(tables))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="which sets; without it all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--report", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the real images are not here: {DATA}")
    for name in [] if chosen.report else chosen.sets or SETS:
        keep(RESULTS, FIELDS, [measure(name, chosen.minutes, chosen.out)])
    report()


if __name__ == "__main__":
    main()

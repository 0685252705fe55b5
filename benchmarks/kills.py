"""Kill a training at random moments, resume it each time, and compare the weights with those of a run left in peace.

    python benchmarks/kills.py                    20 kills of each of three commands, into docs/reliability.md
    python benchmarks/kills.py --kills 100

Each command is `ubend train` as a user gives it, on simulated cells, with a checkpoint after every step; moments are
drawn over the whole life of the process, from its start to the writing of the model. After each kill, one in four has
its newest checkpoint damaged as well.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from report import PAGE, machine, markdown_table, write_section

from ubend import load
from ubend.data.formats import write_labels
from ubend.data.simulated import simulate
from ubend.run.recipe import TrainingConfig, load_recipe, to_toml

COMMANDS = {
    "default recipe, cells": ["--steps", "40"],
    "three folds, cells": ["--steps", "12", "--folds", "3"],
    "the paper's optimiser, unpadded, dropout": ["--steps", "40", "--recipe", "PAPER"],
}


def write_data(folder: Path) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        sample = simulate("cells", np.random.default_rng(number), (192, 192))
        write_labels(folder / "images" / f"{number}.tif", sample.image)
        write_labels(folder / "masks" / f"{number}.tif", sample.labels)


def write_recipes(folder: Path) -> dict[str, Path]:
    recipes = {}
    for name in ("default", "paper"):
        recipe = load_recipe(name)
        small = replace(recipe.network, width=4, depth=2)
        size = 128 if name == "default" else 140
        recipe = replace(
            recipe, network=small, tiles=replace(recipe.tiles, size=size),
            training=TrainingConfig(checkpoint_minutes=1e-9),
        )  # fmt: skip
        recipes[name.upper()] = folder / f"{name}.toml"
        recipes[name.upper()].write_text(to_toml(recipe), encoding="utf-8")
    return recipes


def start(data: Path, out: Path, choices: list[str]) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "ubend",
        "train",
        str(data),
        "--out",
        str(out),
        "--resume",
        "--seed",
        "3",
        *choices,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a resumed run failed:\n{said}")


def damage(out: Path) -> bool:
    """Flip a bit of the newest checkpoint, if there is one before it."""
    states = sorted((out / "checkpoint").glob("[0-9]*.safetensors")) if (out / "checkpoint").is_dir() else []
    if len(states) < 2:
        return False
    content = bytearray(states[-1].read_bytes())
    content[len(content) // 2] ^= 1
    states[-1].write_bytes(content)
    return True


def measure(name: str, choices: list[str], kills: int, seed: int) -> list[str]:
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_data(folder / "data")
        recipes = write_recipes(folder)
        if "--recipe" not in choices:
            choices = [*choices, "--recipe", "DEFAULT"]
        choices = [str(recipes.get(choice, choice)) for choice in choices]
        began = time.perf_counter()
        finish(start(folder / "data", folder / "peace", choices))
        life = time.perf_counter() - began
        killed = damaged = runs = same = 0
        while killed < kills:
            runs += 1
            out = folder / f"killed{runs}"
            while killed < kills:
                process = start(folder / "data", out, choices)
                try:
                    process.communicate(timeout=moments.uniform(0, 1.2 * life))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    killed += 1
                    damaged += moments.random() < 0.25 and damage(out)
                else:
                    break
            finish(start(folder / "data", out, choices))
            one, two = (load(run).network.state_dict() for run in (folder / "peace", out))
            same += all(torch.equal(value, two[key]) for key, value in one.items())
    print(f"{name}: {killed} kills, {damaged} damaged, {same} of {runs} runs the same", flush=True)
    return [name, str(killed), str(damaged), f"{same} of {runs}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rows = [measure(name, choices, chosen.kills, chosen.seed) for name, choices in COMMANDS.items()]
    header = [
        "command",
        "killed by SIGKILL",
        "newest checkpoint damaged as well",
        "runs that end with the same weights",
    ]
    text = f"{markdown_table(header, rows)}\n\n{machine()}\n\nCommand: `python benchmarks/kills.py`"
    write_section("kills", text, PAGE.with_name("reliability.md"))


if __name__ == "__main__":
    main()

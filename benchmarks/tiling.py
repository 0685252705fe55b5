"""Tiles: ours against MONAI's sliding window, in time and in what they change.

    python -m venv monai && monai/bin/pip install torch==2.13.0 monai
    python benchmarks/tiling.py --python-monai monai/bin/python

The same network with the same weights predicts the same simulated image: ours unpadded on mirrored context, tile
beside tile; MONAI's sliding_window_inference as nnU-Net uses it, padded tiles of 512 that overlap by half, blended by a
Gaussian. Both are compared with the network applied to the whole mirrored image, in scores before the soft-max. Times
are medians of rounds in turns, on the cores that the script is given; start and reading are not counted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import machine, markdown_table, write_section
from safetensors.torch import save_file

from ubend import train
from ubend.data.simulated import simulate
from ubend.method.geometry import smallest_input_for, tile_spans
from ubend.method.network import UNet
from ubend.method.overlap_tile import predict_tiles
from ubend.run.contract import channels_first
from ubend.run.device import kept_memory
from ubend.run.model import Model
from ubend.run.prediction import LARGEST_TILE
from ubend.run.recipe import BudgetConfig, load_recipe

RIVAL = Path(__file__).resolve().parent / "rivals" / "monai_tiling.py"
TILE = 512
GOALS = {2048: 2.0, 4096: 2.5}


def trained(steps: int) -> Model:
    """Train a little, so that the scores are not noise."""
    rng = np.random.default_rng(0)
    samples = [simulate("nuclei", rng, (256, 256)) for _ in range(4)]
    recipe = replace(load_recipe("default"), budget=BudgetConfig())
    return train([s.image for s in samples], [s.labels for s in samples], recipe=recipe, steps=steps, task="instances")


def normalised(model: Model, side: int) -> NDArray[np.float32]:
    """Simulate an image, and normalise it as a whole: shape (1, side, side)."""
    tile = simulate("nuclei", np.random.default_rng(1), (1024, 1024)).image
    image = np.tile(tile, (side // 1024, side // 1024))
    pixels = channels_first(image, 1)
    offset, gain = (value.reshape(-1, 1, 1) for value in model.contract.normalisation.offset_and_gain(pixels))
    return ((pixels.astype(np.float32) - offset) * gain).astype(np.float32)


def scores_by(network: UNet, image: NDArray[np.float32], largest: int, views: int = 1) -> NDArray[np.float32]:
    """Predict in tiles of at most `largest`; with several views it is the time that counts."""

    @torch.inference_mode()
    def predict(part: NDArray[Any]) -> NDArray[np.float32]:
        x = torch.from_numpy(part)[None].contiguous(memory_format=torch.channels_last)
        for _ in range(views):
            scores = network(x)
        return scores[0].numpy()

    with kept_memory:
        return predict_tiles(image, predict, depth=network.config.depth, largest_tile=largest)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def theirs(python: str, folder: Path, threads: int) -> float:
    """Run MONAI once in its own Python; return the seconds of its inference."""
    command = [python, str(RIVAL), str(folder), "--tile", str(TILE), "--threads", str(threads)]
    source = Path(__file__).resolve().parents[1] / "src"
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def changed(one: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    """Count the pixels whose class changes."""
    return int(np.count_nonzero((one[1] > one[0]) != (other[1] > other[0])))


def compare(model: Model, side: int, python: str, rounds: int) -> tuple[list[list[str]], float]:
    """Return rows of the table for one size, and the ratio of times."""
    network, image = model.predictor, normalised(model, side)
    depth = network.config.depth
    whole = scores_by(network, image, smallest_input_for(side, depth))
    spread = float(whole[:2].std())
    times: dict[str, list[float]] = {"ours": [], "small": [], "theirs": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_file(
            {key: value.contiguous() for key, value in model.network.state_dict().items()}, folder / "net.safetensors"
        )
        (folder / "network.json").write_text(json.dumps(model.contract.to_dict()["network"]))
        np.save(folder / "image.npy", image)
        for _ in range(rounds):
            seconds, ours = timed(lambda: scores_by(network, image, LARGEST_TILE))
            times["ours"].append(seconds)
            seconds, small = timed(lambda: scores_by(network, image, TILE))
            times["small"].append(seconds)
            times["theirs"].append(theirs(python, folder, torch.get_num_threads()))
        sliding = np.load(folder / "scores.npy")
    eight, _ = timed(lambda: scores_by(network, image, LARGEST_TILE, views=8))
    middle = {name: median(values) for name, values in times.items()}

    def row(name: str, seconds: float, found: NDArray[np.float32] | None) -> list[str]:
        difference = "" if found is None else f"{float(np.abs(found[:2] - whole[:2]).max()) / spread:.1e}"
        labels = "" if found is None else str(changed(found, whole))
        ratio = f"{middle['theirs'] / seconds:.2f}"
        return [f"{side}×{side}", name, f"{seconds:.1f} s", ratio, difference, labels]

    largest = max(span.size for span in tile_spans(side, largest_input=LARGEST_TILE, depth=depth))
    rows = [
        row(f"MONAI, tiles of {TILE}, overlap 0.5, Gaussian", middle["theirs"], sliding),
        row(f"ubend, tiles of {largest}", middle["ours"], ours),
        row(f"ubend, tiles of at most {TILE}", middle["small"], small),
        row(f"ubend, tiles of {largest}, 8 views", eight, None),
    ]
    return rows, middle["theirs"] / middle["ours"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("UBEND_PYTHON_MONAI", sys.executable)
    parser.add_argument("--python-monai", default=default, metavar="PYTHON", help="that has monai")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096], help="multiples of 1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="of training before")
    chosen = parser.parse_args()
    model = trained(chosen.steps)
    rows, said = [], []
    for side in chosen.sizes:
        found, ratio = compare(model, side, chosen.python_monai, chosen.rounds)
        rows += found
        goal = f" (goal ≥ {GOALS[side]:g})" if side in GOALS else ""
        said.append(f"{ratio:.2f} times as fast at {side}×{side}{goal}")
        print(*(" | ".join(row) for row in found), sep="\n", flush=True)
    head = ["image", "tool", "time", "their time over it", "largest difference, σ of the scores", "classes changed"]
    write_section(
        "tiling",
        f"The same network (width 16, depth 4, float32, one view), {torch.get_num_threads()} threads, medians of "
        f"{chosen.rounds} rounds in turns. The difference is that to the network applied to the whole mirrored image."
        f"\n\n{markdown_table(head, rows)}\n\nOurs is {', and '.join(said)}. Eight views cost eight times one.\n\n"
        f"{machine()}\n\nCommand: `python benchmarks/tiling.py --python-monai monai/bin/python`",
    )


if __name__ == "__main__":
    main()

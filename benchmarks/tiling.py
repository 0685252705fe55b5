"""Tiles of ubend beside MONAI's sliding window with Gaussian weights: time, and how far from the whole-image result.

    python -m venv monai && monai/bin/pip install torch==2.13.0 monai
    taskset -c 0 env OMP_NUM_THREADS=1 python benchmarks/tiling.py --python monai/bin/python
    python benchmarks/tiling.py --python monai/bin/python --small      only prints, to see that it works

One network of width 16, trained for 60 steps on simulated nuclei, predicts the same large image in one view. MONAI runs
in a Python of its own, with our network class and the same weights: with the zero padding it was trained with, batch
normalisation folded in as in ours, channels last. Both take turns, three each; what counts is the median of the
processor's seconds, so that other work on the machine moves it little. Float32. Overlap 0.5, Gaussian weights and one
tile at a time are nnU-Net's way. The whole-image result is of ours the network on the image mirrored without end, of
MONAI's the padded network on the image.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import machine, markdown_table, write_section

ROOT = Path(__file__).resolve().parents[1]
SIDES = (2048, 4096)
TILE = 512
ROUNDS = 3
GOALS = {2048: 2.0, 4096: 2.5}


def processor_seconds(job: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = job()
    return time.process_time() - start, result


class Rival:
    """MONAI in its own Python: answers one job at a time."""

    def __init__(self, python: str, folder: Path, tile: int) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [python, __file__, "--serve", folder, "--tile", str(tile)], env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.versions = self._answer()["versions"]

    def ask(self, job: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{job}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("MONAI's process ended")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(folder: Path, tile: int) -> None:
    """Be the rival: read a job a line, write what it took a line; the image and the scores are files of the folder."""
    import monai
    import torch
    from monai.inferers import sliding_window_inference

    from ubend.method.network import NetworkConfig, UNet

    config = json.loads((folder / "network.json").read_text())
    net = UNet(NetworkConfig(**{**config, "padding": "same"})).eval()
    with np.load(folder / "weights.npz") as weights:
        net.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(json.dumps({"versions": f"monai {monai.__version__}, torch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        image = torch.from_numpy(np.load(folder / "image.npy"))[None].contiguous(memory_format=torch.channels_last)

        @torch.inference_mode()
        def whole(image: Any = image) -> Any:
            return net(image)

        @torch.inference_mode()
        def tiled(image: Any = image) -> Any:
            scores = sliding_window_inference(image, (tile, tile), 1, net, overlap=0.5, mode="gaussian")
            torch.softmax(scores, dim=1)
            return scores

        seconds, scores = processor_seconds(whole if line.strip() == "whole" else tiled)
        np.save(folder / f"{line.strip()}.npy", scores[0].numpy())
        print(json.dumps({"seconds": seconds}), flush=True)


def train(steps: int) -> Any:
    """Train the network that all predict with."""
    import ubend
    from ubend.method.network import NetworkConfig
    from ubend.run.recipe import load_recipe

    recipe = load_recipe("default")
    network = NetworkConfig(width=16, depth=4, padding="same", normalisation="batch", dropout=0.0)
    samples = [ubend.simulate("nuclei", np.random.default_rng(k), (256, 256)) for k in range(4)]
    return ubend.train(
        [s.image for s in samples], [(s.labels > 0).astype(np.uint8) for s in samples],
        recipe=replace(recipe, network=network), task="binary", steps=steps, device="cpu",
    )  # fmt: skip


def picture(side: int) -> NDArray[np.uint8]:
    """Draw nuclei of side × side pixels, in blocks of 256×256."""
    import ubend

    rng = np.random.default_rng(7)
    blocks = [ubend.simulate("nuclei", rng, (256, 256)).image for _ in range(8)]
    count = -(-side // 256)
    rows = [np.hstack([blocks[rng.integers(8)] for _ in range(count)]) for _ in range(count)]
    return np.vstack(rows)[:side, :side]


class Ours:
    """The model, and its scores before the soft-max."""

    def __init__(self, model: Any) -> None:
        import ubend

        self.model = ubend.Model(
            model.network, replace(model.contract, statistics="training")
        )  # one network for both ways
        self.network = self.model.predictor

    def predict(self, image: NDArray[Any], *, tile: int | None = None, views: str = "one") -> None:
        self.model.predict(image, tile=tile, views=views, exact=True)

    def normalised(self, image: NDArray[Any]) -> NDArray[np.float32]:
        offset, gain = self.model.contract.normalisation.offset_and_gain(image[None])
        return (image[None].astype(np.float32) - offset[:, None, None]) * gain[:, None, None]

    def scores(self, image: NDArray[Any], tile: int) -> NDArray[np.float32]:
        import torch

        from ubend.method.overlap_tile import predict_tiles
        from ubend.run.device import own_pages

        @torch.inference_mode()
        def predict(part: NDArray[Any]) -> NDArray[np.float32]:
            x = torch.from_numpy(part)[None].contiguous(memory_format=torch.channels_last)
            return self.network(x)[0].numpy()  # type: ignore[no-any-return]

        with own_pages():
            return predict_tiles(self.normalised(image), predict, depth=4, largest_tile=tile)


def difference(scores: NDArray[np.float32], whole: NDArray[np.float32]) -> list[str]:
    """Largest difference in standard deviations of the whole-image scores, and pixels with another label."""
    largest = float(np.abs(scores - whole).max() / whole.std())
    changed = int((scores.argmax(0) != whole.argmax(0)).sum())
    return [f"{largest:.1e}", f"{changed:,} ({changed / scores[0].size:.4%})"]


def compare(ours: Ours, rival: Rival, folder: Path, side: int, tile: int) -> list[list[str]]:
    """Rows of the table for one image."""
    from ubend.method.geometry import nearest_valid_inputs, smallest_input_for
    from ubend.run.prediction import choose_tile

    image = picture(side)
    np.save(folder / "image.npy", ours.normalised(image))
    near = nearest_valid_inputs(tile, 4)[0]  # to the rival's tile
    chosen = choose_tile(ours.model.contract, image.shape, ours.model.device, exact=True)  # type: ignore[arg-type]
    seconds: dict[str, list[float]] = {"monai": [], "near": [], "chosen": []}
    for turn in range(ROUNDS):
        seconds["monai"].append(rival.ask("tiled")["seconds"])
        for name, size in (("near", near), ("chosen", chosen)):
            seconds[name].append(processor_seconds(lambda size=size: ours.predict(image, tile=size))[0])
        print(side, turn, {name: round(found[-1], 1) for name, found in seconds.items()}, file=sys.stderr, flush=True)
    theirs = statistics.median(seconds["monai"])
    sizes = {"near": near, "chosen": chosen}
    rival_row = [
        f"{side}×{side}", f"MONAI, tiles of {tile}", f"{theirs:.1f} s", "1.0",
        *_difference_of_rival(rival, folder),
    ]  # fmt: skip
    rows = [rival_row]
    whole = ours.scores(image, smallest_input_for(side, 4))
    for name, size in sizes.items():
        took = statistics.median(seconds[name])
        ratio = statistics.median(a / b for a, b in zip(seconds["monai"], seconds[name], strict=True))
        goal = f" (goal ≥ {GOALS[side]:g})" if name == "chosen" and side in GOALS else ""
        what = f"ubend, tiles of at most {size}" + (", as chosen" if name == "chosen" else "")
        found = difference(ours.scores(image, size), whole)
        rows.append([f"{side}×{side}", what, f"{took:.1f} s", f"{ratio:.2f}{goal}", *found])
    return rows


def _difference_of_rival(rival: Rival, folder: Path) -> list[str]:
    rival.ask("whole")
    return difference(np.load(folder / "tiled.npy"), np.load(folder / "whole.npy"))


def views(ours: Ours, side: int) -> str:
    """Say what averaging over views costs."""
    image = picture(side)
    took = {}
    for name in ("one", "dihedral", "rotations"):
        ours.predict(image, views=name)
        took[name] = statistics.median(
            processor_seconds(lambda name=name: ours.predict(image, views=name))[0] for _ in range(ROUNDS)
        )
    return (
        f"Views averaged, {side}×{side}: one {took['one']:.1f} s; the 8 turned and mirrored {took['dihedral']:.1f} s "
        f"({took['dihedral'] / took['one']:.1f} times); the image in 7 rotations, as in the paper, "
        f"{took['rotations']:.1f} s ({took['rotations'] / took['one']:.1f} times)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="a Python that has MONAI")
    parser.add_argument("--small", action="store_true", help="small, and prints the section instead of writing it")
    parser.add_argument("--tile", type=int, default=TILE, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.tile)
        return
    import torch

    sides, tile, steps = ((400,), 256, 5) if chosen.small else (SIDES, TILE, 60)
    ours = Ours(train(steps))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = {name: getattr(ours.network.config, name) for name in ("in_channels", "classes", "width", "depth")}
        (folder / "network.json").write_text(json.dumps(config))
        np.savez(folder / "weights.npz", **{k: v.contiguous().numpy() for k, v in ours.network.state_dict().items()})
        rival = Rival(chosen.python, folder, tile)
        rows = [row for side in sides for row in compare(ours, rival, folder, side, tile)]
        rival.close()
    header = ["image", "how", "processor time", "MONAI's over ours", "largest difference, in σ", "labels changed"]
    threads = f"{torch.get_num_threads()} thread" + ("s" if torch.get_num_threads() > 1 else "")
    note = (
        f"{threads}, float32, width 16, depth 4; median of {ROUNDS} turns. Differences are to the whole-image result, "
        "σ is the standard deviation of its scores."
    )
    text = f"{note}\n\n{markdown_table(header, rows)}\n\n{views(ours, sides[0] // 2)}"
    text = f"{text}\n\n{machine()} Rival: {rival.versions}.\n\nCommand: `python benchmarks/tiling.py`"
    print(text)
    if not chosen.small:
        write_section("tiling", text)


if __name__ == "__main__":
    main()

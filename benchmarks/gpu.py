"""Speed on a GPU: the paper's network, a training step, tiles made ahead, and the minutes to a score on isbi2012_em.

    python benchmarks/gpu.py            on the GPU that is there, into docs/benchmarks.md
    python benchmarks/gpu.py --small    the same code at a small size on any machine, in about a minute; only prints

Inference is of the paper's network (572×572, without normalisation), weights in 16 bits and channels last, as it
is, as a CUDA graph, and compiled. Tiles are counted as training makes them, by threads, while the GPU is idle. The run
on isbi2012_em is one of `ubend.train` with more width and batch than the default, and is scored on slices left out.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import machine, markdown_table, write_section
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ubend.data.formats import read_images, read_labels
from ubend.data.simulated import simulate
from ubend.data.tiles import TileConfig, draw_tile, training_image
from ubend.method.energy import weighted_cross_entropy
from ubend.method.geometry import output_size
from ubend.method.network import NetworkConfig, UNet
from ubend.run.device import autocast, choose_device, mixed_precision
from ubend.run.recipe import BudgetConfig, load_recipe
from ubend.run.training import READ_AHEAD, Progress, train
from ubend.scores.em_challenge import v_info, v_rand

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "isbi2012_em"
LEFT_OUT = (2, 8, 14, 20)
"""Slices of isbi2012_em that are scored."""


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    paper: NetworkConfig
    side: int
    batches: tuple[int, ...]
    width: int
    tiles: TileConfig
    minutes: float
    rounds: int
    slices: int
    compiled: bool


FULL = Size(NetworkConfig(dropout=0.0), 572, (1, 16), 32, TileConfig(size=256, batch=16), 3.0, 30, 24, True)
SMALL = Size(NetworkConfig(width=8, dropout=0.0), 188, (1, 2), 8, TileConfig(size=128, batch=2), 0.2, 3, 4, False)


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median time of a call, after three that are not counted."""
    times = []
    for number in range(rounds + 3):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        if number >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def new_network(config: NetworkConfig, device: torch.device) -> UNet:
    net = UNet(config, generator=torch.Generator().manual_seed(0))
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def with_weights_in(dtype: torch.dtype, net: UNet) -> UNet:
    """Cast all but the last layer, whose scores keep their digits."""
    net.to(dtype)
    net.head.float()
    return net


def as_graph(net: UNet, images: Tensor) -> Callable[[], object]:
    """Record one pass as a CUDA graph, and return what plays it."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            net(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        net(images)
    return graph.replay


@torch.inference_mode()
def inference(size: Size, device: torch.device) -> list[list[str]]:
    types = (torch.bfloat16, torch.float16) if device.type == "cuda" else (torch.bfloat16,)
    rows = []
    for batch in size.batches:
        for dtype in types:
            images = torch.randn(batch, 1, size.side, size.side, device=device)
            images = images.contiguous(memory_format=torch.channels_last)
            plain, cast = (new_network(size.paper, device).eval() for _ in range(2))
            cast, few = with_weights_in(dtype, cast), images.to(dtype)

            def as_predicted(net: UNet = plain, images: Tensor = images, dtype: torch.dtype = dtype) -> Tensor:
                with autocast(device, dtype):
                    return net(images)  # type: ignore[no-any-return]

            ways: dict[str, Callable[[], object]] = {
                "autocast, as ubend predicts": as_predicted,
                "weights in 16 bits": lambda net=cast, few=few: net(few),
            }
            if device.type == "cuda":
                ways["weights in 16 bits, CUDA graph"] = as_graph(cast, few)
            if size.compiled:
                fast = torch.compile(cast, mode="max-autotune" if device.type == "cuda" else None)
                ways["weights in 16 bits, compiled"] = lambda net=fast, few=few: net(few)
            for name, work in ways.items():
                took = seconds(work, device, size.rounds)
                kind = str(dtype).removeprefix("torch.")
                rows.append([str(batch), kind, name, f"{1e3 * took:.2f} ms", f"{batch / took:.0f}"])
                print(rows[-1], flush=True)
    return rows


def training_work(config: NetworkConfig, tiles: TileConfig, device: torch.device, *, compiled: bool) -> Any:
    net = new_network(config, device).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    inside = tiles.size if config.padding == "same" else output_size(tiles.size, config.depth)
    images = torch.randn(tiles.batch, config.in_channels, tiles.size, tiles.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(tiles.batch, inside, inside, dtype=torch.int64, device=device)
    forward = torch.compile(net) if compiled else net
    dtype = mixed_precision(device)

    def step() -> None:
        with autocast(device, dtype):
            scores = forward(images)
        energy = weighted_cross_entropy(scores, labels)
        optimiser.zero_grad(set_to_none=True)
        energy.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def training(size: Size, device: torch.device) -> tuple[list[list[str]], float]:
    """Rows of training steps, and the tiles a second of the network that the run below trains."""
    padded = NetworkConfig(width=size.width, padding="same", normalisation="batch", dropout=0.0)
    unpadded = TileConfig(size=size.side, batch=1)
    rows, fastest = [], 0.0
    cases = ((f"padded, width {size.width}", padded, size.tiles), ("the paper's", size.paper, unpadded))
    for name, config, tiles in cases:
        for compiled in (False, True) if size.compiled else (False,):
            step = training_work(config, tiles, device, compiled=compiled)
            took = seconds(step, device, size.rounds)
            rate = tiles.batch / took
            if config is padded and not compiled:
                fastest = rate
            how = "compiled" if compiled else "as trained"
            rows.append(
                [name, f"{tiles.batch} × {tiles.size}×{tiles.size}", how, f"{1e3 * took:.1f} ms", f"{rate:.0f}"]
            )
            print(rows[-1], flush=True)
    return rows, fastest


def where_time_goes(size: Size, device: torch.device) -> str:
    padded = NetworkConfig(width=size.width, padding="same", normalisation="batch", dropout=0.0)
    step = training_work(padded, size.tiles, device, compiled=False)
    seconds(step, device, 1)
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
        for _ in range(3):
            step()
        synchronise(device)
    kind = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(recorded.key_averages(), key=lambda event: -getattr(event, kind))
    total = sum(getattr(event, kind) for event in events)
    rows = [[f"`{event.key[:60]}`", f"{getattr(event, kind) / total:.1%}"] for event in events[:10]]
    return markdown_table(["operation", "share of a training step"], rows)


def tiles_made(size: Size, threads: int) -> float:
    """Tiles a second that `threads` threads make, as `fit` has them made ahead for a GPU."""
    rng, recipe = np.random.default_rng(0), load_recipe("default")
    one = np.ones(1, np.float32)
    drawn = [simulate("membranes", rng, (512, 512)) for _ in range(3)]
    images = [
        training_image(d.image[None], (d.labels > 0).astype(np.int16), rng.random((512, 512), np.float32), None,
                       offset=0 * one, gain=one)
        for d in drawn
    ]  # fmt: skip

    def make(number: int) -> object:
        return draw_tile(images, size.tiles, recipe.augmentation, margin=0, key=(0, number, 0))

    make(0)
    count = 32 * threads
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(make, range(count)))
        return count / (time.perf_counter() - start)


def to_the_score(size: Size, device: torch.device) -> list[str]:
    """Train on isbi2012_em for the minutes, and score the slices left out."""
    names = sorted(path.name for path in (DATA / "images").iterdir())[: size.slices]
    images = [read_images(DATA / "images" / name)[0].pixels for name in names]
    labels = [read_labels(DATA / "masks" / name)[0].pixels for name in names]
    left_out = [number for number in LEFT_OUT if number < len(names)]
    rest = [number for number in range(len(names)) if number not in left_out]
    recipe = load_recipe("default")
    recipe = replace(
        recipe,
        network=replace(recipe.network, width=size.width),
        tiles=replace(recipe.tiles, size=size.tiles.size, batch=size.tiles.batch),
        training=replace(recipe.training, held_out=0.0),
        budget=BudgetConfig(),  # this very network, whose steps were timed
    )
    seen: list[Progress] = []
    start = time.perf_counter()
    model = train(
        [images[k] for k in rest], [labels[k] for k in rest], recipe=recipe, minutes=size.minutes,
        device=str(device), on_step=seen.append,
    )  # fmt: skip
    took = time.perf_counter() - start
    views = "one" if size is SMALL else None
    found = [model.predict(images[k], views=views)[1] for k in left_out]
    truth = [(labels[k] > 0).astype(np.uint8) for k in left_out]
    rand, info = v_rand(truth, found), v_info(truth, found)
    return [
        f"{len(rest)} slices, scored on {len(left_out)}", f"{took / 60:.2f} min", f"{len(seen)}",
        f"{seen[-1].waiting:.1%}", f"{rand.f_score:.4f}", f"{info.f_score:.4f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small, on any machine; nothing is written")
    parser.add_argument("--device", default=None)
    chosen = parser.parse_args()
    size, device = (SMALL if chosen.small else FULL), choose_device(chosen.device)
    if device.type != "cuda" and not chosen.small:
        parser.error("no GPU here; --small tries the same code on this machine")
    torch.manual_seed(0)
    print(f"on {device}: {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'no GPU'}", flush=True)
    passes, (steps, used) = inference(size, device), training(size, device)
    made = [[str(threads), f"{tiles_made(size, threads):.0f}"] for threads in (1, 2, 4, READ_AHEAD)]
    parts = [
        f"The paper's network at {size.side}×{size.side}; the goal is 1000 images/s of 16 at once in bfloat16:",
        markdown_table(["images at once", "type", "how", "time", "images/s"], passes),
        markdown_table(["training of", "tiles a step", "how", "a step", "tiles/s"], steps),
        where_time_goes(size, device),
        f"Tiles of {size.tiles.size}×{size.tiles.size} a second that threads make; the network takes {used:.0f}:",
        markdown_table(["threads", "tiles/s"], made),
    ]
    if DATA.is_dir():
        header = ["isbi2012_em", "training", "steps", "waiting", "V_Rand", "V_Info"]
        parts.append("The goal is a V_Rand of 0.975 in three minutes:")
        parts.append(markdown_table(header, [to_the_score(size, device)]))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    text = "\n\n".join([*parts, f"{machine()} GPU: {name}.", "Command: `python benchmarks/gpu.py`"])
    print(text)
    if not chosen.small:
        write_section("gpu", text)


if __name__ == "__main__":
    main()

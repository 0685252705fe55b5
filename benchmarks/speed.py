"""Speed and memory of ubend, and of the networks of MONAI and nnU-Net on the same work, side by side in one run.

    python benchmarks/speed.py                  environment in a temporary folder, table into docs/benchmarks.md
    python benchmarks/speed.py --venv FOLDER    the same, and keeps the environment for the next time
    python benchmarks/speed.py --small          only prints: the same code at a small size, to see that it works

The networks take turns, round by round, in one process; before each turn one step is not timed. The rivals run as their
trainers run them on a CPU: float32, channels first, with their own normalisation, activation and optimiser. All have
the same tiles and the same mean cross entropy; nnU-Net's deep supervision is left out, which favours it. Whoever is
not installed is left out. The machine's rate is that of the best product of two square bfloat16 matrices in the same
run; a training step counts three times the multiplications of a forward pass.
"""

import argparse
import contextlib
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from report import machine, markdown_table, write_section
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
BASE = ["numpy==2.4.6", "torch==2.13.0", "scipy==1.17.1"]
RIVALS = ["monai==1.6.1", "dynamic-network-architectures==0.4.4"]
SMALL = ["--small"] if "--small" in sys.argv else []
BATCH, SIDE = (2, 128) if SMALL else (4, 256)
STEPS_OF_A_RUN = 3 if SMALL else 60
WIDTHS = (16,) if SMALL else (16, 32, 64)
MATRICES = (512,) if SMALL else (1024, 2048, 4096)
TILED = 1 if SMALL else 4
"""Times that an image of 512×512 is repeated along each axis, to be predicted."""
ELASTIC = ("ubend", "MONAI Rand2DElasticd")


@dataclass(eq=False)
class Network:
    """A network as it is trained and applied, and the seconds that its turns took."""

    name: str
    net: nn.Module
    bfloat16: bool
    optimiser: torch.optim.Optimizer
    clip: float = 0.0
    ours: bool = False
    batch: int = BATCH
    macs: float = 0.0
    parameters: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"step": [], "inference": []})

    def __post_init__(self) -> None:
        self.macs, self.parameters = count_macs(self.net), sum(p.numel() for p in self.net.parameters())

    def images(self) -> Tensor:
        images = torch.randn(self.batch, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        return images.contiguous(memory_format=torch.channels_last) if self.ours else images

    def scores(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            return self.net(images)  # type: ignore[no-any-return]

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.net.train()
        energy = functional.cross_entropy(self.scores(images).float(), labels)
        self.optimiser.zero_grad(set_to_none=True)
        energy.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimiser.step()

    def turn(self, timed: int) -> None:
        """Let it train and predict; ubend keeps freed memory in both, as in its own runs."""
        images, labels = self.images(), (self.images()[:, 0] > 0).long()
        for what, seconds in self.seconds.items():
            with kept() if self.ours else contextlib.nullcontext():
                for number in range(timed + 1):
                    start = time.perf_counter()
                    if what == "step":
                        self.step(images, labels)
                    else:
                        self.net.eval()
                        with torch.inference_mode():
                            self.scores(images)
                    if number:
                        seconds.append(time.perf_counter() - start)

    def rate(self, what: str) -> float:
        """Floating-point operations a second."""
        passes = 3 if what == "step" else 1
        return 2 * passes * self.macs * self.batch / statistics.median(self.seconds[what])


def kept() -> contextlib.AbstractContextManager[None]:
    from ubend.run.device import kept_memory

    return kept_memory


def count_macs(net: nn.Module) -> float:
    """Count the multiplications with addition of all convolutions for one image."""
    counted = 0.0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module.weight, Tensor)
        positions = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        nonlocal counted
        counted += positions.shape[-1] * positions.shape[-2] * module.weight.numel()

    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [module.register_forward_hook(add) for module in convolutions]
    with torch.inference_mode():
        net.eval()(torch.zeros(1, 1, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    return counted


def ubend(width: int, *, bfloat16: bool = True, batch: int = BATCH) -> Network:
    from ubend.method.network import NetworkConfig, UNet

    net = UNet(NetworkConfig(width=width, padding="same", normalisation="batch", dropout=0.0))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    name = f"ubend, width {width}, {'bfloat16' if bfloat16 else 'float32'}"
    return Network(name, net, bfloat16, optimiser, ours=True, batch=batch)


def monai(features: int = 32) -> Network:
    """MONAI's BasicUNet, by default with its default features; its tutorials use Adam."""
    from monai.networks.nets import BasicUNet

    each = [features, *(features << level for level in range(4)), features]
    net = BasicUNet(spatial_dims=2, in_channels=1, out_channels=2, features=each)
    name = f"MONAI BasicUNet, {features} features, float32"
    return Network(name, net, False, torch.optim.Adam(net.parameters(), 1e-3))


def nnunet() -> Network:
    """nnU-Net's network as it plans it for tiles of 256×256, with the optimiser of its trainer."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = 7
    net = PlainConvUNet(
        1, stages, [min(32 << stage, 512) for stage in range(stages)], nn.Conv2d, 3, [1] + [2] * (stages - 1),
        2, 2, 2, conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    optimiser = torch.optim.SGD(net.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    return Network("nnU-Net PlainConvUNet, float32", net, False, optimiser, clip=12)


MAKERS: dict[str, Callable[[], Network]] = {"monai": monai, "nnunet": nnunet}


def installed() -> dict[str, Network]:
    rivals = {}
    for name, make in MAKERS.items():
        try:
            rivals[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return rivals


def width_of(macs: float) -> int:
    """Return the width, a multiple of 4, at which our network comes nearest to a number of multiplications."""
    at_32 = ubend(32).macs
    return 4 * round(8 * (macs / at_32) ** 0.5)


def matrix_rate() -> float:
    """Floating-point operations a second of the best of several bfloat16 matrix products."""
    best = 0.0
    for side in MATRICES:
        one, other = (torch.randn(side, side).bfloat16() for _ in range(2))
        for _ in range(4):
            start = time.perf_counter()
            one @ other
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def measure_networks(rounds: int, timed: int) -> dict[str, Any]:
    """Let the networks take turns; return all that the tables need."""
    rivals = installed()
    pairs = {}
    for name, rival in rivals.items():
        width = width_of(rival.macs)
        pairs[name] = (ubend(width), ubend(width, bfloat16=False))
    widths = [ubend(width, batch=BATCH if width < 64 else BATCH // 2) for width in WIDTHS]
    groups = [(rivals[name], *pairs[name]) for name in rivals]
    if "monai" in rivals and 32 in WIDTHS:  # 48 comes nearest to our width 32, and both suit the processor
        groups.append((monai(48), widths[WIDTHS.index(32)]))
    networks = list(dict.fromkeys([*(one for group in groups for one in group), *widths]))
    peak = 0.0
    for _ in range(rounds):
        peak = max(peak, matrix_rate())
        for network in networks:
            network.turn(timed)
    return {
        "threads": torch.get_num_threads(),
        "matrix_rate": peak,
        "rivals": [[row(one, group[0]) for one in group] for group in groups],
        "widths": [row(one, one) for one in widths],
        "elastic": elastic(rounds),
        "versions": versions(),
    }


def row(network: Network, rival: Network) -> dict[str, Any]:
    """Medians of one network, and how much faster per multiplication it is than the rival by its medians."""
    found: dict[str, Any] = {"name": network.name, "macs": network.macs, "parameters": network.parameters}
    for what in network.seconds:
        found[what] = statistics.median(network.seconds[what]) / network.batch
        found[f"{what}_rate"] = network.rate(what)
        found[f"{what}_ratio"] = network.rate(what) / rival.rate(what)
    return found


def elastic(rounds: int) -> float | None:
    """Ratio of the times of MONAI's elastic deformation and ours: two rows of benchmarks/elastic.py, anew."""
    from elastic import TOOLS, median_of_a_turn, sample

    try:
        ours, theirs = (TOOLS[name][0](1) for name in ELASTIC)
    except ImportError:
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    turns = [[median_of_a_turn(run, *sample()) for run in (ours, theirs)] for _ in range(rounds)]
    torch.set_num_threads(threads)
    return statistics.median(theirs / ours for ours, theirs in turns)


def versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for rival in RIVALS:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{rival.split('==')[0]} {version(rival.split('==')[0])}")
    return ", ".join(found)


def environment(folder: Path) -> Path:
    """Make a virtual environment with the rivals, as far as they install, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *BASE], check=True)
        for rival in RIVALS:
            subprocess.run([*install, *BASE, rival], check=False)
    return python


def elsewhere(python: Path, *arguments: str) -> Any:
    """Run this script with another Python, and return what it prints as JSON."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "ignore"}
    command = [python, __file__, *arguments, *SMALL]
    return json.loads(subprocess.run(command, check=True, env=environ, stdout=subprocess.PIPE, encoding="utf-8").stdout)


def peak_of(command: list[Any], **kwargs: Any) -> tuple[float, float]:
    """Run a command; return its seconds and its largest resident memory in MB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **kwargs)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            output.seek(0)
            raise RuntimeError(f"{command} failed: {output.read().decode(errors='replace')[-2000:]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, usage.ru_maxrss / unit


def two_steps(name: str) -> None:
    """Train two steps of one network and nothing else: for its memory."""
    network = ubend(int(name)) if name.isdecimal() else MAKERS[name]()
    network.seconds = {"step": []}
    network.turn(1)


def peaks_of_networks(python: Path, networks: list[str]) -> list[list[str]]:
    """Memory of two training steps of each network, in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    names = {"monai": "MONAI BasicUNet, float32", "nnunet": "nnU-Net PlainConvUNet, float32"}
    rows = []
    for network in networks:
        _, peak = peak_of([python, __file__, "--two-steps", network, *SMALL], env=environ)
        label = names.get(network, f"ubend, width {network}, bfloat16")
        rows.append([f"two training steps, {BATCH} tiles of {SIDE}×{SIDE}: {label}", f"{peak:.0f} MB"])
    return rows


def runs(folder: Path) -> tuple[float, list[list[str]]]:
    """Train and predict from the command line; return the share of waiting, and rows of time and memory."""
    import numpy as np

    from ubend.data.formats import write_labels
    from ubend.data.simulated import simulate

    rng = np.random.default_rng(0)
    for part in ("images", "labels", "large"):
        (folder / part).mkdir()
    for number in range(5):
        drawn = simulate("nuclei", rng, (512, 512))
        for part, pixels in (("images", drawn.image), ("labels", drawn.labels)):
            write_labels(folder / part / f"{number}.tif", pixels)
    write_labels(folder / "large" / "0.tif", np.tile(drawn.image, (TILED, TILED)))
    program = [sys.executable, "-m", "ubend"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    train = [*program, "train", folder, "--out", folder / "run", "--steps", str(STEPS_OF_A_RUN), "--seed", "0"]
    seconds, memory = peak_of(train, env=environ)
    rows = [[f"`ubend train --steps {STEPS_OF_A_RUN}`, five images of 512×512", f"{memory:.0f} MB in {seconds:.0f} s"]]
    with (folder / "run" / "log.csv").open(newline="", encoding="utf-8") as log:
        waiting = float(list(csv.DictReader(log))[-1]["waiting"])
    predict = [*program, "predict", folder / "run", folder / "large", "--out", folder / "result"]
    seconds, memory = peak_of(predict, env=environ)
    rows.append(
        ["`ubend predict`, one image of {0}×{0}, 8 views".format(512 * TILED), f"{memory:.0f} MB in {seconds:.0f} s"]
    )
    return waiting, rows


def start_of(command: list[Any], repeats: int = 7) -> float:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        environ.setdefault(folder, tempfile.gettempdir())
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first reads the files from the disk


def border_weights_row() -> list[str]:
    """How many times as long as our weights one distance transform per cell takes."""
    import border_weights as benchmark
    import numpy as np

    from ubend.method.border_weight import border_weights

    benchmark.TRANSFORMS_TIMED = 5
    side, cells = (512, 50) if SMALL else (2048, 2000)
    labels = benchmark.disks(side, cells, np.random.default_rng(0))
    ours = benchmark.seconds(lambda: border_weights(labels))
    slow, _, _ = benchmark.one_transform_per_cell(labels)
    return [
        f"border weights, {side}×{side}, {cells} cells: one distance transform per cell over ours",
        f"{slow / ours:.0f} ({ours:.2f} s; 5 transforms timed, multiplied up)",
        "≥ 200",
    ]


def tables(nets: dict[str, Any], others: list[list[str]], memory: list[list[str]]) -> str:
    header = ["network", "MACs a tile", "parameters", "step, ms a tile", "ratio", "inference, ms a tile", "ratio"]
    rows = []
    for group in nets["rivals"]:
        for one in group:
            sizes = [one["name"], f"{one['macs'] / 1e9:.2f} G", f"{one['parameters'] / 1e6:.2f} M"]
            times = [f"{1e3 * one['step']:.0f}", f"{one['step_ratio']:.1f}"]
            rows.append([*sizes, *times, f"{1e3 * one['inference']:.0f}", f"{one['inference_ratio']:.1f}"])
    peak = nets["matrix_rate"]
    rates = [
        [
            one["name"],
            *(
                f"{one[f'{what}_rate'] / 1e9:.0f} GFLOP/s, {one[f'{what}_rate'] / peak:.0%}"
                for what in ("step", "inference")
            ),
        ]
        for one in nets["widths"]
    ]
    return "\n\n".join(
        [
            f"Tiles of {SIDE}×{SIDE}, batch {BATCH}, {nets['threads']} threads. The ratio is the rival's time over "
            "ours, per multiplication. To a rival as it comes, our width is the multiple of 4 with the nearest number "
            "of multiplications; bfloat16 convolutions are slower per multiplication where that is no multiple of 16.",
            markdown_table(header, rows) if rows else "No rival is installed.",
            f"This machine multiplies bfloat16 matrices at {peak / 1e9:.0f} GFLOP/s. Of it, a network reaches",
            markdown_table(["network", "training step", "inference"], rates),
            markdown_table(["what", "figure", "goal"], others),
            markdown_table(["peak memory of", "figure"], memory),
        ]
    )


def measure(python: Path, rounds: int, timed: int, nnunet_train: str | None) -> str:
    nets = elsewhere(python, "--inside", "--rounds", str(rounds), "--timed", str(timed))
    with tempfile.TemporaryDirectory() as temporary:
        waiting, memory = runs(Path(temporary))
    present = [name for name, prefix in (("monai", "MONAI"), ("nnunet", "nnU-Net"))
               if any(group[0]["name"].startswith(prefix) for group in nets["rivals"])]  # fmt: skip
    ours = [group[1]["name"].split()[2].strip(",") for group in nets["rivals"]]
    memory += peaks_of_networks(python, [name for pair in zip(ours, present, strict=False) for name in pair])
    start = start_of([sys.executable, "-m", "ubend", "--help"])
    rival_start = "not installed"
    if nnunet_train:
        rival_start = f"{start_of([nnunet_train, '-h'], repeats=2):.1f} s"
    others = [
        ["waiting for tiles, share of a training run (width 16)", f"{waiting:.1%}", "≤ 3 %"],
        [f"`ubend --help`, median of 7 (`nnUNetv2_train -h` of nnU-Net: {rival_start})", f"{start:.2f} s", "≤ 0.3 s"],
        border_weights_row(),
    ]  # fmt: skip
    if nets["elastic"]:
        text = f"{nets['elastic']:.0f}; [five tools](#elastic-deformation)"
        others.append(["elastic deformation, 512×512, linear: MONAI over ours, one thread", text, "≥ 10"])
    end = f"{machine()} Rivals: {nets['versions'] or 'none'}.\n\nCommand: `python benchmarks/speed.py`"
    return f"{tables(nets, others, memory)}\n\n{end}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="folder of the rivals' environment, made if it is missing")
    parser.add_argument(
        "--nnunet-train", default=shutil.which("nnUNetv2_train"), help="nnU-Net's command, if installed"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--timed", type=int, default=3, help="timed steps of a turn")
    parser.add_argument("--small", action="store_true", help="small, and prints the section instead of writing it")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--two-steps", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    if chosen.two_steps:
        two_steps(chosen.two_steps)
        return
    if chosen.inside:
        print(json.dumps(measure_networks(chosen.rounds, chosen.timed)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        python = environment(chosen.venv or Path(temporary))
        text = measure(python, chosen.rounds, chosen.timed, chosen.nnunet_train)
    print(text)
    if not chosen.small:
        write_section("speed", text)


if __name__ == "__main__":
    main()

"""Elastic deformation of one image and its labels: ubend and five other tools, side by side in one process.

    python benchmarks/elastic.py                 environment in a temporary folder, table into docs/benchmarks.md
    python benchmarks/elastic.py --venv FOLDER   the same, and keeps the environment for the next time
    python benchmarks/elastic.py --inside        measures with the Python that runs it, and only prints

One of the tools needs NumPy < 2, so all of them, ubend too, run in an environment of their own. The image is 512×512
float32, its labels uint16 and read with the nearest pixel. Each time a new deformation is drawn, and drawing counts.
The tools take turns, round by round; the ratio is the median over the rounds of the ratio of their medians.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import machine, markdown_table, write_section

BASE = ["numpy==1.26.4", "torch==2.13.0", "scipy==1.17.1"]
RIVALS = [
    "elasticdeform==0.5.1",
    "monai==1.6.1",
    "batchgeneratorsv2==0.3.6",
    "albumentations==2.0.8",
    "torchio==1.2.1",
]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",  # importing it asks the network for its newest version otherwise
}
SIDE, SIGMA = 512, 10
SECONDS_PER_TURN = 0.4
OURS = {"linear": "ubend", "cubic": "ubend, cubic"}

Image, Labels = NDArray[np.float32], NDArray[np.uint16]
Deform = Callable[[Image, Labels], tuple[Any, Any]]


def ubend(order: int) -> Deform:
    from ubend.method.elastic import deform, draw_elastic

    rng = np.random.default_rng(0)

    def run(image: Image, labels: Labels) -> tuple[Any, Any]:
        bend = draw_elastic(rng, image.shape, points=3, sigma=SIGMA)
        return deform(image, bend, order=order), deform(labels, bend, order=0)

    return run


def ubend_training_tile(_: int) -> Deform:
    from ubend.method.augmentation import AugmentationConfig, augment, draw_augmentation

    rng, config = np.random.default_rng(0), AugmentationConfig(elastic_sigma=SIGMA, zoom=1.2)
    weights = np.random.default_rng(1).random((SIDE, SIDE)).astype(np.float32)
    middle = ((SIDE - 1) / 2, (SIDE - 1) / 2)

    def run(image: Image, labels: Labels) -> tuple[Any, Any]:
        draw = draw_augmentation(rng, config, image.shape)
        return augment(draw, image[None], labels, weights, centre=middle, shape=image.shape)[:2]

    return run


def elasticdeform(order: int) -> Deform:
    from elasticdeform import deform_random_grid

    def run(image: Image, labels: Labels) -> tuple[Any, Any]:
        bent, bent_labels = deform_random_grid([image, labels], sigma=SIGMA, points=3, order=[order, 0], mode="mirror")
        return bent, bent_labels

    return run


def monai(order: int) -> Deform:
    from monai.transforms import Rand2DElasticd

    bend = Rand2DElasticd(
        ["image", "labels"],
        spacing=(SIDE / 2, SIDE / 2),
        magnitude_range=(0, SIGMA),
        prob=1,
        mode=["bilinear" if order == 1 else "bicubic", "nearest"],
        padding_mode="reflection",
    )

    def run(image: Image, labels: Labels) -> tuple[Any, Any]:
        bent = bend({"image": image[None], "labels": labels[None]})
        return bent["image"], bent["labels"]

    return run


def batchgenerators(_: int) -> Deform:
    import torch
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    bend = SpatialTransform(
        (SIDE, SIDE),
        0,
        random_crop=False,
        p_elastic_deform=1,
        elastic_deform_scale=0.2,
        elastic_deform_magnitude=SIGMA,
        mode_seg="nearest",  # its default interpolates each label by itself and is slower
        border_mode_seg="reflection",
        padding_mode_image="reflection",
    )

    def run(image: Image, labels: Labels) -> tuple[Any, Any]:
        tensors = torch.from_numpy(image)[None], torch.from_numpy(labels.astype(np.int16))[None]
        bent = bend(image=tensors[0], segmentation=tensors[1])
        return bent["image"], bent["segmentation"]

    return run


def albumentations(name: str) -> Callable[[int], Deform]:
    def make(order: int) -> Deform:
        import albumentations
        import cv2

        settings = {
            "GridElasticDeform": {"num_grid_xy": (3, 3), "magnitude": SIGMA},
            "ElasticTransform": {"alpha": 300, "sigma": 50, "border_mode": cv2.BORDER_REFLECT_101},
        }[name]
        how = cv2.INTER_LINEAR if order == 1 else cv2.INTER_CUBIC
        bend = albumentations.Compose([getattr(albumentations, name)(**settings, interpolation=how, p=1)])

        def run(image: Image, labels: Labels) -> tuple[Any, Any]:
            bent = bend(image=image, mask=labels)
            return bent["image"], bent["mask"]

        return run

    return make


def torchio(_: int) -> Deform:
    import torch
    import torchio

    bend = torchio.RandomElasticDeformation(num_control_points=5, max_displacement=(SIGMA, SIGMA, 0))

    def run(image: Image, labels: Labels) -> tuple[Any, Any]:
        tensors = torch.from_numpy(image), torch.from_numpy(labels.astype(np.int16))
        volume, label_volume = (tensor[None, ..., None] for tensor in tensors)
        bent = bend(
            torchio.Subject(image=torchio.ScalarImage(tensor=volume), labels=torchio.LabelMap(tensor=label_volume))
        )
        return bent.image.data, bent.labels.data

    return run


TOOLS: dict[str, tuple[Callable[[int], Deform], str]] = {
    OURS["linear"]: (ubend, "linear"),
    "elasticdeform, order 1": (elasticdeform, "linear"),
    "MONAI Rand2DElasticd": (monai, "linear"),
    "batchgeneratorsv2 SpatialTransform, elastic only": (batchgenerators, "linear"),
    "Albumentations GridElasticDeform 3×3": (albumentations("GridElasticDeform"), "linear"),
    "Albumentations ElasticTransform": (albumentations("ElasticTransform"), "linear"),
    "TorchIO RandomElasticDeformation": (torchio, "linear"),
    "ubend as in training: + rotation, flip, zoom, gray values, weights": (ubend_training_tile, "linear"),
    OURS["cubic"]: (ubend, "cubic"),
    "elasticdeform, order 3": (elasticdeform, "cubic"),
    "MONAI Rand2DElasticd, bicubic": (monai, "cubic"),
    "Albumentations GridElasticDeform 3×3, cubic": (albumentations("GridElasticDeform"), "cubic"),
}


def sample() -> tuple[Image, Labels]:
    """Noise, and 1024 squares with labels up to 300."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 300, (32, 32)).astype(np.uint16)
    return rng.random((SIDE, SIDE)).astype(np.float32), np.kron(squares, np.ones((SIDE // 32, SIDE // 32), np.uint16))


def installed() -> dict[str, Deform]:
    """Make each tool, and look once at what it returns: the size of what went in, and no label that was not there."""
    image, labels = sample()
    tools = {}
    for name, (make, interpolation) in TOOLS.items():
        try:
            run = make(1 if interpolation == "linear" else 3)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        bent, bent_labels = (np.asarray(array).squeeze() for array in run(image, labels))
        if bent.shape != image.shape or bent_labels.shape != labels.shape or not np.isin(bent_labels, labels).all():
            raise AssertionError(f"{name} does not return what it should; the comparison would not be fair")
        tools[name] = run
    return tools


def median_of_a_turn(run: Deform, image: Image, labels: Labels) -> float:
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS_PER_TURN:
        start = time.perf_counter()
        run(image, labels)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure(rounds: int) -> str:
    """Let the tools take turns, and return the section of docs/benchmarks.md."""
    tools, (image, labels) = installed(), sample()
    turns = {name: np.empty(rounds) for name in tools}
    for turn in range(rounds):
        for name, run in tools.items():
            turns[name][turn] = median_of_a_turn(run, image, labels)
    rows = []
    for name, seconds in turns.items():
        ratios = seconds / turns[OURS[TOOLS[name][1]]]
        rows.append([name, TOOLS[name][1], f"{np.median(seconds) * 1e3:.2f} ms", f"{np.median(ratios):.1f}"])
    rivals = ", ".join(f"{name} {version(name)}" for name in (rival.split("==")[0] for rival in RIVALS) if has(name))
    return (
        f"One {SIDE}×{SIDE} float32 image and its uint16 labels, newly drawn each time; one thread for every tool, as "
        f"in the worker of a data loader; {rounds} rounds in turns. The ratio is to ubend, interpolating alike.\n\n"
        f"{markdown_table(['tool', 'image', 'time', 'ratio'], rows)}\n\n{machine()} Tools: {rivals}.\n\n"
        "Command: `python benchmarks/elastic.py`"
    )


def has(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except ImportError:
        return False


def environment(folder: Path) -> Path:
    """Make a virtual environment with ubend and the other tools, as far as they install, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *BASE], check=True)
    subprocess.run([*install, "--no-deps", "-e", Path(__file__).resolve().parents[1]], check=True)
    for rival in RIVALS:
        subprocess.run([*install, *BASE, rival], check=False)
    return python


def measure_elsewhere(folder: Path, rounds: int) -> str:
    command = [environment(folder), __file__, "--inside", "--rounds", str(rounds)]
    environ = {**os.environ, **ONE_THREAD, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, check=True, env=environ, stdout=subprocess.PIPE, encoding="utf-8").stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="folder of the environment, made if it is missing")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--inside", action="store_true", help="measure with this Python, and only print")
    chosen = parser.parse_args()
    if chosen.inside:
        print(measure(chosen.rounds))
        return
    with tempfile.TemporaryDirectory() as temporary:
        text = measure_elsewhere(chosen.venv or Path(temporary), chosen.rounds)
    print(text)
    write_section("elastic", text)


if __name__ == "__main__":
    main()

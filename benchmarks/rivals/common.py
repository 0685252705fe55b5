"""What the rivals of few_images.py share: images in, the result files of `ubend predict` out, and the clock.

It runs in the Python of a rival, so it imports NumPy and tifffile alone.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

REPORT = "training.json"


@dataclass(frozen=True)
class Job:
    """What the command line asks for.

    Attributes
    ----------
    train : Path
        Folder with images/ and masks/.
    images : Path
        Folder of images to segment.
    out : Path
        Folder for the results.
    minutes : float
        Of training.
    seed : int
    task : {"binary", "instances"}
        What the masks hold, and so what to write: foreground and its probabilities, or a number for each object.
    """

    train: Path
    images: Path
    out: Path
    minutes: float
    seed: int
    task: str


def read_job(about: str | None) -> Job:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=["binary", "instances"], required=True)
    job = Job(**vars(parser.parse_args()))
    job.out.mkdir(parents=True, exist_ok=True)
    return job


def read_gray(path: Path) -> NDArray[Any]:
    image = tifffile.imread(path)
    if image.ndim != 2:
        raise SystemExit(f"{path} is {image.shape}, and the rivals are set up for gray images (rows, columns)")
    return np.asarray(image)


def read_pairs(job: Job) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int32]]]:
    """Read the images to train on, and their masks."""
    names = sorted(path.name for path in (job.train / "images").iterdir())
    images = [read_gray(job.train / "images" / name).astype(np.float32) for name in names]
    masks = [read_gray(job.train / "masks" / name).astype(np.int32) for name in names]
    return images, masks


class Clock:
    """Time of training: from its start on, so without imports, reading and compiling."""

    def __init__(self, minutes: float) -> None:
        self.budget = 60 * minutes
        self.began = self.ended = time.perf_counter()

    def start(self) -> None:
        self.began = time.perf_counter()

    def share(self) -> float:
        """Share of the budget that is over; 1 or more at its end."""
        return (time.perf_counter() - self.began) / self.budget

    def stop(self) -> None:
        self.ended = time.perf_counter()

    def minutes(self) -> float:
        return (self.ended - self.began) / 60


def write_report(job: Job, clock: Clock, steps: int, packages: Sequence[str], **more: Any) -> None:
    """Say how long was trained, and with what."""
    report = {
        "minutes": clock.minutes(),
        "steps": steps,
        "versions": {name: _version(name) for name in packages},
        **more,
    }
    (job.out / REPORT).write_text(json.dumps(report), encoding="utf-8")


def _version(package: str) -> str:
    """Tell the version of a package, which may have been installed as its CPU build."""
    try:
        return version(package)
    except PackageNotFoundError:
        return version(f"{package}-cpu")


def write_labels(job: Job, stem: str, labels: NDArray[Any]) -> None:
    kind = next(kind for kind in (np.uint8, np.uint16, np.uint32) if int(labels.max()) <= np.iinfo(kind).max)
    tifffile.imwrite(job.out / f"{stem}.tif", labels.astype(kind), compression="zlib", photometric="minisblack")


def write_foreground(job: Job, stem: str, probability: NDArray[np.floating[Any]]) -> None:
    """Write what a semantic network found: its foreground, or the connected pieces of it as objects."""
    foreground = probability > 0.5
    if job.task == "instances":
        from scipy.ndimage import label  # StarDist, which never comes here, does without

        write_labels(job, stem, label(foreground)[0])
        return
    write_labels(job, stem, foreground)
    both = np.stack([1 - probability, probability]).astype(np.float32)
    axes = {"axes": "CYX"}  # two classes of one image, not two images
    tifffile.imwrite(job.out / f"{stem}_probabilities.tif", both, photometric="minisblack", metadata=axes)

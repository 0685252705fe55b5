"""Images unlike those trained on: how often ubend says so, of images that are and of images that are not.

    python benchmarks/drift.py            all sets, into docs/reliability.md
    python benchmarks/drift.py vnc_sstem  one set, a table on the screen

No network is trained for the first table: what a model states of its training images, and what prediction compares, is
made from arrays alone. Images to train on are drawn 40 times. Told without reason are all other images of the set as
they are; of each change up to 30 other images. Changed images keep their type, values are rounded.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import machine, markdown_table, write_section
from scipy import ndimage

from ubend.data.annotated import Task
from ubend.data.formats import read_images, read_labels
from ubend.method.network import UNet, for_prediction
from ubend.run.contract import Contract
from ubend.run.drift import (
    LIKE_DIAMETER,
    LIMIT,
    ImageStatistics,
    compare,
    diameter_factor,
    image_statistics,
    median_diameter,
    reference_of,
)
from ubend.run.normalisation import Normalisation
from ubend.run.prediction import predict_probabilities
from ubend.run.recipe import load_recipe

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
SETS = ("isbi2012_em", "vnc_sstem", "dic_hela", "coelho2009_nuclei", "dsb2018", "trpl_bacteria")
OTHER = dict.fromkeys(SETS, "isbi2012_em") | {"isbi2012_em": "coelho2009_nuclei", "vnc_sstem": "coelho2009_nuclei"}
"""The set whose images are of another modality."""
WITH_OBJECTS = ("coelho2009_nuclei", "dsb2018")
TRAINED_ON, DRAWS, MOST_IMAGES, CHANGED = (1, 5, 16), 40, 300, 30

Image = NDArray[Any]


def rounded(change: Callable[[Image], Image]) -> Callable[[Image], Image]:
    """Apply a change to numbers, and store its result as the image was stored."""
    return lambda image: np.clip(np.rint(change(image.astype(float))), 0, np.iinfo(image.dtype).max).astype(image.dtype)


def camera_noise(image: Image) -> float:
    down = np.diff(image, axis=0)
    return float(np.median(np.abs(np.diff(down, axis=1)))) / 0.6745 / 2


def blurred_before_the_camera(image: Image) -> Image:
    rng = np.random.default_rng(0)
    return ndimage.gaussian_filter(image, 3) + rng.normal(0, camera_noise(image), image.shape)  # type: ignore[no-any-return]


def fainter(image: Image) -> Image:
    middle, rng = np.median(image), np.random.default_rng(0)
    return middle + 0.2 * (image - middle) + rng.normal(0, 0.03 * np.ptp(image), image.shape)  # type: ignore[no-any-return]


CHANGES: dict[str, Callable[[Image], Image]] = {
    "blurred, σ 3": rounded(lambda image: ndimage.gaussian_filter(image, 3)),
    "blurred, its noise kept": rounded(blurred_before_the_camera),
    "contrast × 0.2, noise": rounded(fainter),
    "inverted": lambda image: image.max() - image,
    "enlarged × 2.5": rounded(lambda image: ndimage.zoom(image, 2.5, order=1)),
}


def files(name: str) -> list[str]:
    """Names of a set; of dsb2018 those of fluorescence."""
    names = sorted(path.name for path in (DATA / name / "images").iterdir())
    if name == "dsb2018":
        with (DATA / name / "manifest.csv").open(newline="") as file:
            fluorescence = {row["file"] for row in csv.DictReader(file) if row["modality"] == "fluorescence"}
        names = [one for one in names if one in fluorescence]
    return names[:MOST_IMAGES]


def read(name: str) -> list[Image]:
    return [read_images(DATA / name / "images" / file)[0].pixels for file in files(name)]


def look(image: Image) -> ImageStatistics:
    return image_statistics(image[None])


def rates(name: str, images: list[Image], others: list[ImageStatistics]) -> list[list[str]]:
    """For each number of images trained on: how many others are told, as they are and changed."""
    looks = [look(image) for image in images]
    changed = {change: [look(apply(image)) for image in images[:CHANGED]] for change, apply in CHANGES.items()}
    changed["other modality"] = others[:CHANGED]
    rng, rows = np.random.default_rng(1), []
    for number in TRAINED_ON:
        if number >= len(images):
            continue
        falsely: list[bool] = []
        told: dict[str, list[bool]] = {change: [] for change in changed}
        for _ in range(DRAWS):
            order = rng.permutation(len(images)).tolist()
            reference = reference_of([looks[k] for k in order[:number]])
            falsely += [compare(looks[k], reference).is_far for k in order[number:]]
            for change, them in changed.items():
                told[change] += [compare(one, reference).is_far for one in them]
        share = f"{np.mean(falsely):.1%}" if any(falsely) else "0"
        rows.append([name, str(number), share, *(f"{np.mean(found):.0%}" for found in told.values())])
    return rows


def diameters_told(name: str) -> str:
    """Share of images whose annotated objects would be told as of another size, by five others."""
    labels = [read_labels(DATA / name / "masks" / file)[0].pixels for file in files(name)]
    found = [median_diameter(np.unique(one[one > 0], return_counts=True)[1]) for one in labels]
    known = [one for one in found if one is not None]
    rng, told, look_of = np.random.default_rng(1), [], look(np.zeros((9, 9), np.uint8))
    for _ in range(DRAWS):
        order = rng.permutation(len(known))
        reference = reference_of([look_of], [known[k] for k in order[:5]])
        factors = [diameter_factor(known[k], reference) for k in order[5:]]
        told += [not 1 / LIKE_DIAMETER <= factor <= LIKE_DIAMETER for factor in factors]
    return f"{name} {np.mean(told):.1%}"


def cost() -> str:
    """Seconds of the processor for the statistics of an image, beside those of its prediction."""
    recipe, task = load_recipe("default"), Task("binary", (0, 1), None)
    torch.manual_seed(0)
    network = for_prediction(UNet(recipe.network))
    contract = Contract(
        network=recipe.network, task=task, normalisation=Normalisation("percentile", together=False),
        views=recipe.prediction.views,
    )  # fmt: skip
    said = []
    for side in (256, 512, 1024):
        image = np.random.default_rng(0).integers(0, 4096, (side, side)).astype(np.uint16)
        looking = [processor_seconds(lambda image=image: look(image)) for _ in range(9)]
        one = replace(contract, views="one")
        seen, averaged = (
            statistics.median(
                processor_seconds(lambda image=image, by=by: predict_probabilities(network, by, image))
                for _ in range(3)
            )
            for by in (one, contract)
        )
        took = statistics.median(looking)
        said.append(f"{1000 * took:.1f} ms at {side}×{side} px, {took / averaged:.2%} ({took / seen:.1%} of one view)")
    return "; ".join(said)


def processor_seconds(job: Callable[[], Any]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


def main(names: Sequence[str]) -> None:
    header = ["trained on images of", "images", "told without reason", *CHANGES, "other modality"]
    rows = []
    for name in names or SETS:
        others = [look(image) for image in read(OTHER[name])[:CHANGED]]
        rows += rates(name, read(name), others)
    table = markdown_table(header, rows)
    print(table)
    if names:
        return
    text = (
        f"`python benchmarks/drift.py`. {machine()}\n\n"
        f"Share of images of which `ubend predict` says that they are unlike those trained on (drift above {LIMIT:g}), "
        f"over {DRAWS} draws of the images trained on. Of dsb2018 the first {MOST_IMAGES} fluorescence images.\n\n"
        f"{table}\n\n"
        f"Images whose annotated objects would be told as more than twice as large or small as those of five others: "
        f"{', '.join(map(diameters_told, WITH_OBJECTS))}.\n\n"
        f"Seconds of the processor, one thread, and their share of a prediction with the recipe default: {cost()}."
    )
    write_section("drift", text, PAGE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", choices=[[], *SETS])
    main(parser.parse_args().names)

"""The data of `ubend demo`, and its picture."""

import re
from pathlib import Path

import numpy as np

from ubend.data.annotated import Task
from ubend.data.formats import existing_folder, image_files, read_images, read_labels, write_image, write_labels
from ubend.data.simulated import simulate
from ubend.errors import FileError
from ubend.faces.pictures import save_comparison
from ubend.run.evaluation import HEADLINES, Evaluation

TRAINING_IMAGES = 8
TEST_IMAGES = 4
TRAINING_SHAPE = (256, 256)
TEST_SHAPE = (300, 360)
_OF_A_DEMO = re.compile(
    r"(train|test)/(images|masks)/[a-z]+_\d\d\.tif|results/[a-z]+_\d\d(\.tif|_objects\.csv)|results/objects\.csv"
    r"|model/(model\.safetensors|recipe\.toml|log\.csv|report\.html)|demo\.png"
)


def clear_earlier_demo(out: Path, *, overwrite: bool) -> None:
    """Make room in a folder: only what an earlier demo wrote is ever removed.

    Raises
    ------
    FileError
        If there is something else in it, or `overwrite` is not given.
    """
    if not out.exists() or not any(existing_folder(out).iterdir()):
        return
    if not overwrite:
        raise FileError(f"{out} is not empty: give --out another folder, or say --overwrite")
    files = [path for path in out.rglob("*") if not path.is_dir()]
    foreign = [path for path in files if not _OF_A_DEMO.fullmatch(path.relative_to(out).as_posix())]
    if foreign:
        raise FileError(f"{out} holds what no demo wrote, {min(foreign).relative_to(out)}: give --out another folder")
    for path in files:
        path.unlink()


def simulate_folders(scene: str, out: Path, seed: int) -> None:
    """Write annotated images into out/train and out/test, as a user would have them."""
    for part, number, shape in (("train", TRAINING_IMAGES, TRAINING_SHAPE), ("test", TEST_IMAGES, TEST_SHAPE)):
        for folder in ("images", "masks"):
            (out / part / folder).mkdir(parents=True, exist_ok=True)
        for k in range(number):
            sample = simulate(scene, np.random.default_rng((seed, part == "test", k)), shape)
            name = f"{scene}_{k:02d}.tif"
            write_image(out / part / "images" / name, sample.image)
            write_labels(out / part / "masks" / name, sample.labels)


def write_picture(out: Path, task: Task, evaluation: Evaluation) -> Path:
    """Show image, truth and result of all test images in out/demo.png."""
    score = HEADLINES[evaluation.kind]
    short = score.split(" (")[0]
    rows = []
    for path, row in zip(image_files(out / "test" / "images"), evaluation.rows, strict=True):
        truth, result = (read_labels(out / part / path.name)[0].pixels for part in ("test/masks", "results"))
        rows.append((f"{path.name}: {short} {row.scores[short]:.2f}", read_images(path)[0].pixels, truth, result))
    picture = out / "demo.png"
    title = f"Images that the model was not trained on: {score} {evaluation.overall[score]:.3f}"
    save_comparison(picture, rows, task, title=title, overwrite=True)
    return picture

"""The data of `ubend demo`, and its picture."""

from pathlib import Path

import numpy as np

from ubend.data.annotated import Task
from ubend.data.formats import image_files, read_images, read_labels, write_atomically, write_labels
from ubend.data.simulated import simulate
from ubend.faces.pictures import save_comparison
from ubend.run.evaluation import HEADLINES, Evaluation

TRAINING_IMAGES = 8
TEST_IMAGES = 4
TRAINING_SHAPE = (256, 256)
TEST_SHAPE = (300, 360)


def simulate_folders(scene: str, out: Path, seed: int) -> None:
    """Write annotated images into out/train and out/test, as a user would have them."""
    import tifffile

    for part, number, shape in (("train", TRAINING_IMAGES, TRAINING_SHAPE), ("test", TEST_IMAGES, TEST_SHAPE)):
        for folder in ("images", "masks"):
            (out / part / folder).mkdir(parents=True)
        for k in range(number):
            sample = simulate(scene, np.random.default_rng((seed, part == "test", k)), shape)
            name = f"{scene}_{k:02d}.tif"
            write_atomically(
                out / part / "images" / name,
                lambda path, image=sample.image: tifffile.imwrite(path, image, compression="zlib"),  # type: ignore[misc]
            )
            write_labels(out / part / "masks" / name, sample.labels)


def write_picture(out: Path, task: Task, evaluation: Evaluation) -> Path:
    """Show image, truth and result of all test images in out/demo.png."""
    score = HEADLINES[evaluation.kind]
    short = score.split(",")[0]
    rows = []
    for path, row in zip(image_files(out / "test" / "images"), evaluation.rows, strict=True):
        truth, result = (read_labels(out / part / path.name)[0].pixels for part in ("test/masks", "results"))
        rows.append((f"{path.name}: {short} {row.scores[short]:.2f}", read_images(path)[0].pixels, truth, result))
    picture = out / "demo.png"
    title = f"Images that the model was not trained on: {score} {evaluation.overall[score]:.3f}"
    save_comparison(picture, rows, task, title=title, overwrite=True)
    return picture

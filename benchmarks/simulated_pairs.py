"""Touching cells after the demo's training: of the pairs that share a border of 5 px or more, how many come out as two.

    python benchmarks/simulated_pairs.py                        the demo's minutes, into docs/benchmarks.md
    python benchmarks/simulated_pairs.py --minutes 1 --images 8 shorter, on the screen

The images to train on, and the minutes, are those of `ubend demo`; the demo's four test images hold few pairs, so here
more are simulated.
"""

import argparse

import numpy as np
from report import machine, markdown_table, write_section

from ubend.data.simulated import simulate
from ubend.faces.demo import TEST_SHAPE, TRAINING_IMAGES, TRAINING_SHAPE
from ubend.run.evaluation import evaluate_arrays
from ubend.run.training import train

SCENES = ("cells", "nuclei")
MINUTES, IMAGES = 3.0, 40
SCORES = ("pairs apart", "AP@0.5 (pooled)", "AP@0.75 (pooled)", "SEG")


def scenes(scene: str, part: bool, number: int, shape: tuple[int, int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """As `faces.demo.simulate_folders` draws them with the seed 0."""
    samples = [simulate(scene, np.random.default_rng((0, part, k)), shape) for k in range(number)]
    return [sample.image for sample in samples], [sample.labels for sample in samples]


def measure(scene: str, minutes: float, number: int) -> list[str]:
    model = train(*scenes(scene, False, TRAINING_IMAGES, TRAINING_SHAPE), minutes=minutes, task="instances")
    images, truths = scenes(scene, True, number, TEST_SHAPE)
    found = [model.segment(image) for image in images]
    evaluation = evaluate_arrays(truths, found, task=model.contract.task, extent="all")
    pairs = next(column for column in evaluation.columns if column.score.name == "pairs apart").denominator.sum()
    scores = [f"{evaluation.overall[name]:.3f}" for name in SCORES]
    return [scene, f"{model.contract.provenance['steps']}", f"{int(pairs):,}", *scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--images", type=int, default=IMAGES)
    chosen = parser.parse_args()
    rows = [measure(scene, chosen.minutes, chosen.images) for scene in SCENES]
    table = markdown_table(["scene", "steps", "touching pairs", *SCORES], rows)
    print(table)
    if (chosen.minutes, chosen.images) == (MINUTES, IMAGES):
        about = (
            f"{chosen.minutes:g} minutes of training on {TRAINING_IMAGES} images each; {chosen.images} others scored."
        )
        write_section(
            "simulated_pairs", f"{about}\n\n{table}\n\n{machine()}\n\nCommand: `python benchmarks/simulated_pairs.py`"
        )


if __name__ == "__main__":
    main()

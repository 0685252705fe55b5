"""StarDist as its 2D training notebook has it, but for the time.

Config2D's defaults with 32 rays on a grid of (2, 2), images from percentile 1 to 99.8, holes of labels filled, the
notebook's flips, transpositions, gain, offset and noise, 15 % of the images (one at least) for validation, the weights
of the best validation, thresholds chosen on those images. A single image is both trained and validated on; the
notebook asks for two.

The clock starts after the first step, which compiles, and stops training at its end; of the validation at the end of
each 100 steps only the last, and the choice of thresholds, are not on it.

    python stardist_rival.py --train DIR --images DIR --out DIR --minutes M --seed S --task instances
"""

import os
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf
from common import Clock, Job, read_gray, read_job, read_pairs, write_labels, write_report
from csbdeep.utils import normalize
from numpy.typing import NDArray
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

STEPS_OF_AN_EPOCH = 100
EPOCHS = 1_000_000


class StopOnTime(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training when the clock says so."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.steps = 0

    def on_train_batch_end(self, _batch: int, logs: Any = None) -> None:
        self.steps += 1
        if self.steps == 1:
            self.clock.start()
        elif self.clock.share() >= 1 and not self.model.stop_training:
            self.clock.stop()
            self.model.stop_training = True


def augmenter(image: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Flip and transpose, change gain and offset, add noise; the ranges are the notebook's."""
    if np.random.rand() > 0.5:  # noqa: NPY002
        image, labels = image.T, labels.T
    for axis in (0, 1):
        if np.random.rand() > 0.5:  # noqa: NPY002
            image, labels = np.flip(image, axis), np.flip(labels, axis)
    gain, offset = np.random.uniform(0.6, 2), np.random.uniform(-0.2, 0.2)  # noqa: NPY002
    noise = np.random.normal(0, 1, image.shape) * np.random.uniform(0, 0.02)  # noqa: NPY002
    return image * gain + offset + noise, labels


def train(job: Job, folder: str) -> StarDist2D:
    images, masks = read_pairs(job)
    images = [normalize(image, 1, 99.8, axis=(0, 1)) for image in images]
    masks = [fill_label_holes(mask) for mask in masks]
    order = np.random.default_rng(job.seed).permutation(len(images))
    held_out = order[-max(1, round(0.15 * len(images))) :]
    rest = order[: len(images) - len(held_out)] if len(images) > 1 else order
    validation = [images[k] for k in held_out], [masks[k] for k in held_out]
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=1, use_gpu=False, train_tensorboard=False)
    model = StarDist2D(config, name="rival", basedir=folder)
    model.prepare_for_training()
    clock = Clock(job.minutes)
    stop = StopOnTime(clock)
    model.callbacks.append(stop)
    model.train(
        [images[k] for k in rest], [masks[k] for k in rest], validation_data=validation, augmenter=augmenter,
        seed=job.seed, epochs=EPOCHS, steps_per_epoch=STEPS_OF_AN_EPOCH,
    )  # fmt: skip
    thresholds = model.optimize_thresholds(*validation)
    write_report(job, clock, stop.steps, ["stardist", "tensorflow", "numpy"], thresholds=str(thresholds))
    return model


def main() -> None:
    job = read_job(__doc__)
    if job.task != "instances":
        raise SystemExit("StarDist finds single objects; these masks hold none")
    threads = len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.utils.set_random_seed(job.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = train(job, folder)
        for path in sorted(job.images.iterdir()):
            image = normalize(read_gray(path), 1, 99.8, axis=(0, 1))
            labels, _ = model.predict_instances(image, n_tiles=model._guess_n_tiles(image), show_tile_progress=False)
            write_labels(job, path.stem, labels)


if __name__ == "__main__":
    main()

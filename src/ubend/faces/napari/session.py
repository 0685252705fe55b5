"""The loop: paint, train, look, correct, train on. What the widget does, without a window."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Annotated, Kind
from ubend.data.formats import write_image, write_labels
from ubend.data.origin import was_written_here
from ubend.data.tables import write_table
from ubend.errors import FileError, InputError
from ubend.faces.napari.images import UNLABELLED, Shown
from ubend.method.measurements import measure_objects

if TYPE_CHECKING:  # torch takes seconds to load, and is not needed to paint
    from ubend.run.model import Model
    from ubend.run.training import OnPlan, OnStep

__all__ = ["Session", "segment", "train_on", "unsure_of"]

HELD_OUT_FROM = 5
"""Annotated images from which on some are held out: of fewer, each is needed to learn from."""
AIMED = 0.8
"""Share of the tiles around a painted pixel: of an image that is painted here and there, most others show none."""
LOOKED_AT = 384
"""Rows and columns in the middle of an image by which images are ranked."""
MODEL, IMAGES, MASKS, RESULTS = "model.safetensors", "images", "masks", "results"


@dataclass
class Session:
    """Images, what is painted on them, and the model so far.

    Attributes
    ----------
    kind : {"instances", "classes"}
        What numbers from 2 up mean.
    images : list of Shown
    model : Model or None
    """

    kind: Kind = "instances"
    images: list[Shown] = field(default_factory=list)
    model: "Model | None" = None

    def add(self, found: Iterable[Shown]) -> list[Shown]:
        """Take images in, but for files that are there; a name under which another is saved already gets a number."""
        there = {image.path for image in self.images if image.layer is None and image.path is not None}
        taken, new = {image.file_name.casefold() for image in self.images}, []
        for image in found:
            if image.layer is None and image.path in there:
                continue  # trained on and held out at once, it would tell of a score that is not
            name, number = image.name, 2
            while image.file_name.casefold() in taken:
                image.name, number = f"{name} ({number})", number + 1
            taken.add(image.file_name.casefold())
            new.append(image)
        self.images += new
        return new

    def annotated(self) -> list[Annotated]:
        """Give what is painted so far, to train on; a copy, so that painting may go on.

        Raises
        ------
        InputError
            If nothing is painted, or not what it takes to tell something apart.
        """
        found = [image.annotated() for image in self.images if image.is_annotated]
        if not found:
            raise InputError("nothing is painted yet: paint a few cells, and some background")
        values = {int(value) for one in found for value in np.unique(one.labels)} - {-1}
        if 0 not in values and self.kind == "instances":
            raise InputError(
                "no background is painted: draw a stroke or two where no cell is, or press 'The rest is background'"
            )
        if len(values) < 2:
            missing = "cell" if self.kind == "instances" else "second class"
            raise InputError(f"no {missing} is painted yet: there is nothing to tell apart")
        return found

    def use(self, model: "Model") -> None:
        """Take another model: results and ranks of the one before are no longer true."""
        self.model = model
        held_out = model.contract.provenance.get("held_out", {})
        for image in self.images:
            image.unsure, image.held_out = None, image.name in held_out

    def next_to_annotate(self) -> Shown | None:
        """Name the image that the model is least sure of, of those without annotation; None if none is ranked yet."""
        ranked = [image for image in self.images if image.unsure is not None and not image.is_annotated]
        return max(ranked, key=lambda image: image.unsure or 0.0, default=None)

    def save(self, folder: str | Path) -> list[Path]:
        """Write what is painted, the model, its results and their tables of objects.

        `ubend train FOLDER --ignore 65535` trains on such a folder, and opened in napari it goes on where it was.

        Parameters
        ----------
        folder : str or Path
            Gets images/, masks/, results/ and the model; made if need be. Of an earlier save, files are replaced.

        Returns
        -------
        list of Path

        Raises
        ------
        FileError
            If a file is in the way that ubend did not write, or one cannot be written.
        InputError
            If there is nothing to save.
        """
        folder, painted = Path(folder), [image for image in self.images if image.is_annotated]
        found = [image for image in self.images if image.result is not None and image.result_of is self.model]
        if not painted and not found and self.model is None:
            raise InputError("nothing is painted and no model is trained: there is nothing to save")
        endings = [".tif", "_objects.csv"] if self.kind == "instances" else [".tif"]
        paths = [
            *(folder / part / f"{image.file_name}.tif" for image in painted for part in (IMAGES, MASKS)),
            *(folder / RESULTS / f"{image.file_name}{ending}" for image in found for ending in endings),
            *([] if self.model is None else [folder / MODEL]),
        ]
        for image in painted:
            others = sorted((folder / IMAGES).glob(f"{glob.escape(image.file_name)}.*"))
            if other := next((one for one in others if one.suffix != ".tif"), None):
                raise FileError(f"{other} has the name of an image to be saved: choose another folder")
        for path in paths:
            if path.exists() and not was_written_here(path):
                raise FileError(f"{path} was not written by ubend: it is not replaced, choose another folder")
        for part in {path.parent for path in paths}:
            part.mkdir(parents=True, exist_ok=True)
        for image in painted:
            one, name = image.annotated(), f"{image.file_name}.tif"
            write_image(folder / IMAGES / name, one.image, pixel_size=one.pixel_size, overwrite=True)
            labels = np.where(one.labels == UNLABELLED, one.labels.max() + 1, one.labels)  # a cell of that number
            labels = np.where(one.labels < 0, UNLABELLED, labels)
            write_labels(folder / MASKS / name, labels, pixel_size=one.pixel_size, overwrite=True)
        for image in found:
            _write_result(folder / RESULTS / f"{image.file_name}.tif", image, objects=self.kind == "instances")
        if self.model is not None:
            self.model.save(folder / MODEL, overwrite=True)
        return paths


def _write_result(path: Path, image: Shown, *, objects: bool) -> None:
    """Write the result of one image, and beside it the table of its objects."""
    assert image.result is not None
    write_labels(path, image.result, pixel_size=image.pixel_size, overwrite=True)
    if objects:
        pixels, _ = image.pixels()
        table = measure_objects(np.asarray(image.result), pixels, pixel_size=image.pixel_size)
        write_table(path.with_name(f"{path.stem}_objects.csv"), table.columns(), overwrite=True)


def train_on(
    annotated: Sequence[Annotated],
    kind: Kind,
    *,
    minutes: float,
    start: "Model | None" = None,
    on_plan: "OnPlan | None" = None,
    on_step: "OnStep | None" = None,
) -> "Model":
    """Train on what is painted, for minutes, or until `on_step` gives a true answer.

    Parameters
    ----------
    annotated : sequence of Annotated
        From `Session.annotated`.
    kind : {"instances", "classes"}
    minutes : float
    start : Model, optional
        Train on from it.
    on_plan, on_step : callable, optional
        See `training.train`.

    Returns
    -------
    Model

    Raises
    ------
    InputError, TrainingError, OutOfMemory
        See `training.train`.
    """
    from ubend.run.recipe import load_recipe
    from ubend.run.training import train

    recipe = load_recipe("default")
    held_out = recipe.training.held_out if len(annotated) >= HELD_OUT_FROM else 0.0
    recipe = replace(
        recipe,
        tiles=replace(recipe.tiles, aimed=AIMED),
        training=replace(recipe.training, held_out=held_out),
    )
    return train(
        list(annotated),
        recipe=recipe,
        minutes=minutes,
        task=kind,
        ignore=-1,
        start=start,
        on_plan=on_plan,
        on_step=on_step,
    )


def segment(model: "Model", image: Shown) -> NDArray[np.integer[Any]]:
    """Label an image, or the part of a large one that is worked on, with all the context that the network wants.

    Returns
    -------
    ndarray of unsigned int, shape (rows, columns)
    """
    from ubend.method.geometry import halo

    depth = model.contract.network.depth
    pixels, inside = image.pixels(margin=halo(depth), step=2**depth)
    return np.ascontiguousarray(model.segment(pixels)[inside])


def unsure_of(model: "Model", image: Shown) -> float:
    """Measure how far a model's views of the middle of an image differ, see `disagreement.disagreement_of`."""
    from ubend.run.budget import middle_of
    from ubend.run.disagreement import predict_with_disagreement

    pixels, _ = image.pixels()
    rows, columns = middle_of(pixels.shape, LOOKED_AT)
    return float(predict_with_disagreement(model, pixels, rows=rows, columns=columns)[1].mean())

"""A folder of images in; label images, tables of objects and their outlines out (docs/outputs.md)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.formats import (
    Picture,
    check_writable,
    file_stem,
    image_files,
    is_disk_full,
    read_images,
    write_labels,
    write_picture,
    write_probabilities,
    written_together,
)
from ubend.data.rois import check_roifile, check_rois_fit, write_geojson, write_rois
from ubend.data.tables import join_tables, write_table
from ubend.errors import FileError, InputError, OutOfMemory
from ubend.method.measurements import measure_objects
from ubend.method.outlines import trace_outlines
from ubend.run.contract import channels_first
from ubend.run.model import Model
from ubend.run.prediction import OnSmallerTile, OnTile, check_tile, predict_labels

LABELS = ".tif"
PROBABILITIES = "_probabilities.tif"
OBJECTS = "_objects.csv"
ROIS = "_rois.zip"
GEOJSON = ".geojson"
OUTLINES = "_outlines.png"
ALL_OBJECTS = "objects.csv"

Paint = Callable[[NDArray[Any], NDArray[Any]], Iterator[NDArray[np.uint8]]]
"""From an image (rows, columns, channels) and its labels to bands of rows of a picture, uint8 (rows, columns, 3)."""


@dataclass(frozen=True)
class Extras:
    """What else to write beside each label image, for other tools and for looking.

    Attributes
    ----------
    rois : bool
        STEM_rois.zip, ImageJ ROIs of the objects; needs the package roifile.
    geojson : bool
        STEM.geojson, the objects for QuPath.
    paint : callable, optional
        Gives STEM_outlines.png, the picture of image and labels, as `faces.pictures.outlined` does.
    """

    rois: bool = False
    geojson: bool = False
    paint: Paint | None = None


@dataclass(frozen=True)
class FolderResult:
    """What `predict_folder` did.

    Attributes
    ----------
    written : tuple of Path
        Label images, one for each image or page of a stack.
    objects : dict of str to int
        For instances: objects found, by image.
    table : Path or None
        For instances: the table of all objects; of a file of one image the only one.
    failed : dict of Path to str
        Files that could not be segmented, and why.
    """

    written: tuple[Path, ...]
    objects: dict[str, int]
    table: Path | None
    failed: dict[Path, str]


def predict_folder(  # noqa: PLR0913
    model: Model,
    images: str | Path,
    out: str | Path,
    *,
    probabilities: bool = False,
    extras: Extras | None = None,
    tile: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
    on_image: Callable[[int, int, str], None] | None = None,
    on_tile: OnTile | None = None,
    on_smaller_tile: OnSmallerTile | None = None,
) -> FolderResult:
    """Segment all images of a folder, or one file.

    Parameters
    ----------
    model : Model
    images : path
        A folder of images, or an image file; a stack is many images.
    out : path
        Folder for STEM.tif of each image; for instances also STEM_objects.csv, and objects.csv of them all.
    probabilities : bool
        Also write STEM_probabilities.tif, float32 (classes, rows, columns).
    extras : Extras, optional
        What else to write.
    tile : int, optional
        Rows and columns a tile may have at most.
    memory : int, optional
        Bytes that this process may hold at its peak; the tile is the largest that fits.
    overwrite : bool
        Replace results that are there already. Never replaces one of the images, nor anything beside them.
    on_image : callable, optional
        Called with (number, of how many files, name) before each file.
    on_tile : callable, optional
        Called with (tiles done, tiles in all) of the image under way.
    on_smaller_tile : callable, optional
        Called with (tile, smaller tile) where memory ran out and the image under way begins again.

    Returns
    -------
    FolderResult
        A file that cannot be read, segmented or written does not stop the others. Of an image all files are written,
        or none.

    Raises
    ------
    FileError
        If there is no image, two would have the same result, or a result exists already; nothing is computed then. If
        the disk is full.
    InputError
        If outlines of objects are asked of a model that finds none, or ROIs without the package roifile.
    """
    extras = extras or Extras()
    files, folder = _files(Path(images)), Path(out)
    check_tile(model.contract.network, tile)
    endings = _endings(model, extras, probabilities=probabilities)
    check_writable(folder)
    table = _table_of_all(Path(images), folder) if OBJECTS in endings else None
    free = _Free(folder, files, overwrite)
    _check_results_free(free, endings, table)
    written: dict[Path, None] = {}
    objects: dict[str, int] = {}
    failed: dict[Path, str] = {}
    for number, file in enumerate(files, start=1):
        if on_image is not None:
            on_image(number, len(files), file.name)
        try:
            pictures = read_images(file)
            paths = [path for one in pictures for path in _result_paths(folder, one.name, endings)]
            _check_not_written(paths, file, written)
            if len(pictures) > 1:  # how many there are, and so their names, is known only now
                free.check(paths)
            for picture in pictures:
                pixels = np.moveaxis(channels_first(picture.pixels, model.contract.network.in_channels), 0, -1)
                if ROIS in endings:
                    check_rois_fit((pixels.shape[0], pixels.shape[1]))
                result = model.predict(
                    picture.pixels, tile=tile, memory=memory, on_tile=on_tile, on_smaller_tile=on_smaller_tile
                )
                labels = predict_labels(model.contract, result)
                folder.mkdir(parents=True, exist_ok=True)
                with written_together(folder, overwrite=free.may_replace) as parts:
                    _write_results(parts, picture, pixels, labels, result, endings, extras.paint)
                if table is not None:
                    if not written and table not in paths:
                        table.unlink(missing_ok=True)  # of an earlier run: no longer true, even if this one is stopped
                    objects[picture.name] = int(labels.max())
                written[folder / f"{picture.name}{LABELS}"] = None
        except (InputError, FileError, OutOfMemory) as error:
            if is_disk_full(error) or (isinstance(error, OutOfMemory) and tile is not None):
                raise  # no other image would fare better: the tile was asked for
            failed[file] = str(error)
    if table is not None and objects:
        tables = [(name, folder / f"{name}{OBJECTS}") for name in objects]
        if table not in (path for _, path in tables):  # a file of one image has that one table
            join_tables(table, tables, first_column="image", overwrite=free.may_replace)
    return FolderResult(tuple(written), objects, table if objects else None, failed)


def _table_of_all(images: Path, folder: Path) -> Path:
    """Name the table of all objects: of a file, which may be one of many that are segmented one by one, after it."""
    return folder / (f"{file_stem(images)}{OBJECTS}" if images.is_file() else ALL_OBJECTS)


def _endings(model: Model, extras: Extras, *, probabilities: bool) -> tuple[str, ...]:
    """Return the ends of the names of all files that an image leaves."""
    kind = model.contract.task.kind
    if kind != "instances" and (extras.rois or extras.geojson):
        raise InputError(
            f"ROIs and GeoJSON are outlines of single objects, and this model was trained on {kind} labels: train it "
            "with --task instances"
        )
    if extras.rois:
        check_roifile()
    chosen = {
        LABELS: True,
        PROBABILITIES: probabilities,
        OBJECTS: kind == "instances",
        ROIS: extras.rois,
        GEOJSON: extras.geojson,
        OUTLINES: extras.paint is not None,
    }
    return tuple(ending for ending, wanted in chosen.items() if wanted)


def _write_results(
    folder: Path,
    picture: Picture,
    pixels: NDArray[Any],
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float32],
    endings: tuple[str, ...],
    paint: Paint | None,
) -> None:
    size = picture.pixel_size
    paths = dict(zip(endings, _result_paths(folder, picture.name, endings), strict=True))
    write_labels(paths[LABELS], labels, pixel_size=size)
    if PROBABILITIES in paths:
        write_probabilities(paths[PROBABILITIES], probabilities, pixel_size=size)
    measured = {}
    if OBJECTS in paths:
        measured = measure_objects(labels, pixels, pixel_size=size).columns()
        write_table(paths[OBJECTS], measured)
    outlines = trace_outlines(labels) if ROIS in paths or GEOJSON in paths else []
    if ROIS in paths:
        write_rois(paths[ROIS], outlines)
    if GEOJSON in paths:
        write_geojson(paths[GEOJSON], outlines, measurements=measured)
    if paint is not None:
        write_picture(paths[OUTLINES], paint(pixels, labels))


def _files(images: Path) -> list[Path]:
    if images.is_file():
        return [images]
    files = image_files(images)
    if not files:
        raise FileError(f"{images} holds no image that can be read: TIFF, PNG, JPEG, BMP")
    return files


def _result_paths(folder: Path, name: str, endings: tuple[str, ...]) -> list[Path]:
    return [folder / f"{name}{ending}" for ending in endings]


@dataclass(frozen=True)
class _Free:
    """Which files may be written: never in the place of an image, and beside the images in that of no file at all.

    What lies there may have been drawn by hand, and has the names that the outlines of objects would get.
    """

    folder: Path
    files: Sequence[Path]
    overwrite: bool

    @property
    def beside_images(self) -> bool:
        return self.folder.is_dir() and self.folder.samefile(self.files[0].parent)

    @property
    def may_replace(self) -> bool:
        return self.overwrite and not self.beside_images

    def check(self, paths: list[Path]) -> None:
        """Raise FileError if one of the paths is taken."""
        there = [path for path in paths if path.exists()]
        if not there:
            return
        images = {(known.st_dev, known.st_ino) for known in map(Path.stat, self.files)}
        for path in there:
            found = path.stat()
            if (found.st_dev, found.st_ino) in images:
                raise FileError(f"{path} is an image of yours, its result would replace it: give --out another folder")
            if path.is_dir():
                raise FileError(f"{path} is a folder, in the place of a result: give --out another folder")
            if self.beside_images:
                raise FileError(
                    f"{path} exists already, and may be drawn by hand: beside the images nothing is replaced, give "
                    "--out another folder"
                )
            if not self.overwrite:
                raise FileError(f"{path} exists already: give --out another folder, or say --overwrite")


def _check_results_free(free: _Free, endings: tuple[str, ...], table: Path | None) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    owners: dict[str, Path] = {}
    paths: list[Path] = [] if table is None else [table]
    for file in free.files:
        for path in _result_paths(free.folder, file_stem(file), endings):
            other = owners.setdefault(path.name.casefold(), file)
            if other != file:
                raise FileError(f"{other.name} and {file.name} would both become {path.name}: rename one")
            paths.append(path)
    free.check(paths)


def _check_not_written(paths: list[Path], file: Path, written: dict[Path, None]) -> None:
    """Refuse a page k of x.tif if there is an image x_000k.tif too, or the other way round."""
    both = [path for path in paths if path in written]
    if both:
        raise FileError(f"{file.name} would replace {both[0]}, the result of another image: rename one")

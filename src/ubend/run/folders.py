"""A folder of images in; label images, tables of objects and their outlines out (docs/outputs.md)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.formats import (
    Picture,
    check_writable,
    file_stem,
    image_files,
    is_disk_full,
    read_header,
    read_images,
    write_labels,
    write_picture,
    write_probabilities,
    written_together,
)
from ubend.data.origin import is_for_labels, was_written_here
from ubend.data.rois import check_roifile, check_rois_fit, write_geojson, write_rois
from ubend.data.tables import join_tables, write_table
from ubend.errors import FileError, InputError, OutOfMemory
from ubend.method.geometry import halo
from ubend.method.measurements import measure_objects
from ubend.method.outlines import trace_outlines
from ubend.method.resampling import resized
from ubend.run.contract import Contract, Unlike, unlike, unlike_diameter
from ubend.run.drift import image_statistics, median_diameter
from ubend.run.labels import predict_labels
from ubend.run.model import Model
from ubend.run.normalisation import channels_first
from ubend.run.pipeline import Behind, Limit, Turn, Waiting, reading_ahead
from ubend.run.prediction import (
    OnSmallerTile,
    check_resampling,
    check_tile,
    differs_in_size,
    labels_resized,
    shape_for_model,
)

LABELS = ".tif"
PROBABILITIES = "_probabilities.tif"
OBJECTS = "_objects.csv"
ROIS = "_rois.zip"
GEOJSON = ".geojson"
OUTLINES = "_outlines.png"
ALL_OBJECTS = "objects.csv"

AHEAD = BEHIND = Limit(items=8, size=2**26)
"""How many images, of how many bytes, are read ahead, and how many probability maps wait to become files."""
MOST_OPENED = 500
"""Files whose sizes are looked up, to tell the time that is left."""
WRITERS = 2
"""Threads that make files of probabilities. They hold Python's lock about half of the time: more would gain nothing."""

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
    waiting : float
        Share of the time, 0 to 1, in which the network waited for an image to be read or for files to be written.
    other_sizes : dict of str to float
        Micrometres a pixel of the images whose pixels are more than 10 % larger or smaller than those trained on, and
        that were segmented as they are.
    unlike : dict of str to Unlike
        Images that look, or are named or stored, unlike those trained on.
    other_diameters : dict of str to float
        Median diameter, in pixels of the size segmented at, of the objects of images where they are more than twice as
        large or small as all those trained on.
    seconds : dict of str to float
        That the network took, by image.
    """

    written: tuple[Path, ...]
    objects: dict[str, int]
    table: Path | None
    failed: dict[Path, str]
    waiting: float
    other_sizes: dict[str, float]
    unlike: dict[str, Unlike]
    other_diameters: dict[str, float]
    seconds: dict[str, float]


def predict_folder(  # noqa: PLR0913
    model: Model,
    images: str | Path,
    out: str | Path,
    *,
    without: Sequence[Path] = (),
    probabilities: bool = False,
    extras: Extras | None = None,
    tile: int | None = None,
    resample: bool = False,
    memory: int | None = None,
    overwrite: bool = False,
    on_image: Callable[[int, int, str], None] | None = None,
    on_share: Callable[[float], None] | None = None,
    on_smaller_tile: OnSmallerTile | None = None,
) -> FolderResult:
    """Segment all images of a folder, or one file.

    Images are read ahead, and their files written behind, by threads; an image beyond `AHEAD` and `BEHIND` is alone.

    Parameters
    ----------
    model : Model
    images : path
        A folder of images, or an image file; a stack is many images.
    out : path
        Folder for STEM.tif of each image; for instances also STEM_objects.csv, and objects.csv of them all.
    without : sequence of Path
        Files of the folder that are segmented otherwise, see `scale.large_images`.
    probabilities : bool
        Also write STEM_probabilities.tif, float32 (classes, rows, columns).
    extras : Extras, optional
        What else to write.
    tile : int, optional
        Rows and columns a tile may have at most.
    resample : bool
        Segment at the pixel size of the model, and bring labels (nearest) and probabilities (linear) back onto the
        pixels of the image. An image that does not say its pixel size fails.
    memory : int, optional
        Bytes that this process may hold at its peak; the tile is the largest that fits.
    overwrite : bool
        Replace results that are there already, if ubend wrote them. Nothing else is ever replaced, nor anything beside
        the images or in the folder of their labels.
    on_image : callable, optional
        Called with (number, of how many files, name) before each file.
    on_share : callable, optional
        Called after each tile with the share of all work that is done, 0 to 1, as the sizes of the images tell it.
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
        If outlines of objects are asked of a model that finds none, ROIs without the package roifile, or resampling of
        a model that does not know its pixel size.
    """
    extras = extras or Extras()
    files, folder = [file for file in _files(Path(images)) if file not in without], Path(out)
    check_tile(model.contract.network, tile)
    if resample:
        check_resampling(model.contract)
    endings = _endings(model, extras, probabilities=probabilities)
    check_writable(folder)
    table = _table_of_all(Path(images), folder) if OBJECTS in endings else None
    free = _Free(folder, files, overwrite)
    _check_results_free(free, endings, table)
    results = _Results(model.contract, folder, endings, table, free, extras.paint, tile, resample)
    waiting = Waiting()
    share = _Share(files, model.contract, on_share)
    predict = partial(model.predict, tile=tile, memory=memory, on_tile=share.tile, on_smaller_tile=on_smaller_tile)
    with (
        reading_ahead(files, read_images, size=_bytes, limit=AHEAD, waiting=waiting) as ahead,
        Behind(threads=WRITERS, limit=BEHIND, waiting=waiting) as behind,
    ):
        for number, (file, read) in enumerate(ahead, start=1):
            if on_image is not None:
                on_image(number, len(files), file.name)
            try:
                _predict_file(predict, file, read, results, behind, partial(share.begin, number - 1))
            except (InputError, FileError, OutOfMemory) as error:
                if results.stops_all(error):
                    raise
                behind.put(partial(results.fail, file, str(error)))
    if table is not None and results.objects:
        tables = [(name, folder / f"{name}{OBJECTS}") for name in results.objects]
        if table not in (path for _, path in tables):  # a file of one image has that one table
            join_tables(table, tables, first_column="image", overwrite=free.may_replace)
    return FolderResult(
        written=tuple(results.written),
        objects=results.objects,
        table=table if results.objects else None,
        failed=results.failed,
        waiting=waiting.share(),
        other_sizes=results.other_sizes,
        unlike=results.unlike,
        other_diameters=results.other_diameters,
        seconds=results.seconds,
    )


def _predict_file(
    predict: Callable[[NDArray[Any]], NDArray[np.float32]],
    file: Path,
    read: Callable[[], list[Picture]],
    results: "_Results",
    behind: Behind,
    begin: Callable[[int, int], None],
) -> None:
    """Predict all images of a file, and leave the rest to threads."""
    pictures = read()
    results.check(file, pictures, behind)
    for page, picture in enumerate(pictures):
        begin(page, len(pictures))
        pixels = np.moveaxis(channels_first(picture.pixels, results.contract.network.in_channels), 0, -1)
        shape = pixels.shape[0], pixels.shape[1]
        if ROIS in results.endings:
            check_rois_fit(shape)
        seen = pixels
        if results.resample and (wanted := shape_for_model(results.contract, shape, picture.pixel_size)) != shape:
            seen = np.moveaxis(resized(np.moveaxis(pixels, -1, 0), wanted, order=1), 0, -1)
        began = perf_counter()
        found = predict(picture.pixels if seen is pixels else seen)
        results.seconds[picture.name] = perf_counter() - began
        size = picture.pixels.nbytes + found.nbytes + (0 if seen is pixels else seen.nbytes)
        behind.put(partial(results.write, picture, pixels, seen, found), size=size)


class _Share:
    """The share of the work on some files that is done, by the pixels that enter the network for each of them."""

    def __init__(self, files: Sequence[Path], contract: Contract, told: Callable[[float], None] | None) -> None:
        self._told = told
        self._ends = [0.0] * (len(files) + 1)
        if told is not None:
            work = _work(files, 2 * halo(contract.network.depth))
            self._ends = [0.0, *(end / sum(work) for end in accumulate(work))]
        self._low = self._high = 0.0

    def begin(self, file: int, page: int, pages: int) -> None:
        """A page of a file begins; both count from 0."""
        low, high = self._ends[file : file + 2]
        self._low, self._high = (low + (high - low) * number / pages for number in (page, page + 1))

    def tile(self, done: int, of: int) -> None:
        """Tiles of the page under way are done."""
        if self._told is not None:
            self._told(self._low + (self._high - self._low) * done / of)


def _work(files: Sequence[Path], around: int) -> list[float]:
    """Pixels that enter the network for each file; of very many files, bytes stand for them: opening all takes long."""
    if len(files) > MOST_OPENED:
        return [float(max(1, file.stat().st_size)) for file in files]
    return [float(_pixels_entering(file, around)) for file in files]


def _pixels_entering(file: Path, around: int) -> int:
    try:
        pages, rows, columns = read_header(file).shape
    except FileError:  # it fails again when its turn comes, and is told then
        return 1
    return pages * (rows + around) * (columns + around)


@dataclass(frozen=True)
class _Results:
    """What becomes of the images of a folder: their files, and what is known of them, in the order of the images.

    `write` and `fail` run in threads, but each changes something only at its turn (`pipeline.Behind`).
    """

    contract: Contract
    folder: Path
    endings: tuple[str, ...]
    table: Path | None
    free: "_Free"
    paint: Paint | None
    tile: int | None
    resample: bool
    written: dict[Path, None] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    other_sizes: dict[str, float] = field(default_factory=dict)
    unlike: dict[str, Unlike] = field(default_factory=dict)
    other_diameters: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _begun: set[Path] = field(default_factory=set)

    def stops_all(self, error: Exception) -> bool:
        """Whether no other image would fare better: the disk is full, or the tile was asked for."""
        return is_disk_full(error) or (isinstance(error, OutOfMemory) and self.tile is not None)

    def check(self, file: Path, pictures: list[Picture], behind: Behind) -> None:
        """Raise FileError if the results of a file may not be written; what is in the way may be under way."""
        paths = [path for picture in pictures for path in _result_paths(self.folder, picture.name, self.endings)]
        if not self._begun.isdisjoint(paths):
            behind.finish()
        _check_not_written(paths, file, self.written)
        if len(pictures) > 1:  # how many there are, and so their names, is known only now
            self.free.check(paths)
        self._begun.update(paths)

    def write(
        self,
        picture: Picture,
        pixels: NDArray[Any],
        seen: NDArray[Any],
        probabilities: NDArray[np.float32],
        turn: Turn,
    ) -> None:
        """Write all files of an image, or none, and compare what the network saw with what it was trained on."""
        try:
            labels = predict_labels(self.contract, probabilities)
            other = unlike(self.contract, image_statistics(np.moveaxis(seen, -1, 0)), picture.channel_names)
            diameter = median_diameter(np.bincount(labels.ravel())[1:]) if self.table is not None else None
            shape = pixels.shape[0], pixels.shape[1]
            if labels.shape != shape:
                labels = labels_resized(self.contract, labels, shape)
                if PROBABILITIES in self.endings:
                    probabilities = resized(probabilities, shape, order=1)
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_together(self.folder, overwrite=self.free.may_replace) as parts:
                _write_results(parts, picture, pixels, labels, probabilities, self.endings, self.paint)
                turn()
                if picture.path in self.failed:
                    raise FileError(f"a page before {picture.name} failed")
        except (InputError, FileError, OutOfMemory) as error:
            self.fail(picture.path, str(error), turn)
            if self.stops_all(error):
                raise
            return
        own = _result_paths(self.folder, picture.name, self.endings)
        if self.table is not None:
            if not self.written and self.table not in own:
                self.table.unlink(missing_ok=True)  # of an earlier run: no longer true, even if this one is stopped
            self.objects[picture.name] = int(labels.max())
        self.written[self.folder / f"{picture.name}{LABELS}"] = None
        if other is not None:
            self.unlike[picture.name] = other
        if diameter is not None and unlike_diameter(self.contract, diameter):
            self.other_diameters[picture.name] = diameter
        if not self.resample and picture.pixel_size is not None and differs_in_size(self.contract, picture.pixel_size):
            self.other_sizes[picture.name] = picture.pixel_size

    def fail(self, file: Path, reason: str, turn: Turn) -> None:
        """Note why a file could not be segmented; the first reason counts."""
        turn()
        self.failed.setdefault(file, reason)


def _bytes(pictures: list[Picture]) -> int:
    return sum(picture.pixels.nbytes for picture in pictures)


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
    """Which files may be written: in the place of what ubend wrote, and nothing else.

    Beside the images, and where their labels stand, nothing is replaced at all: what lies there may have been drawn by
    hand, and has the names that results would get.
    """

    folder: Path
    files: Sequence[Path]
    overwrite: bool

    @property
    def beside_images(self) -> bool:
        images = self.files[0].parent
        return self.folder.is_dir() and (self.folder.samefile(images) or is_for_labels(self.folder, images))

    @property
    def may_replace(self) -> bool:
        return self.overwrite and not self.beside_images

    def check(self, paths: list[Path]) -> None:
        """Raise FileError if one of the paths is taken."""
        there = [path for path in paths if path.exists() or path.is_symlink()]
        if not there:
            return
        images = {(known.st_dev, known.st_ino) for known in map(Path.stat, self.files)}
        for path in there:
            found = path.stat() if path.exists() else path.lstat()
            if (found.st_dev, found.st_ino) in images:
                raise FileError(f"{path} is an image of yours, its result would replace it: give --out another folder")
            if path.is_dir():
                raise FileError(f"{path} is a folder, in the place of a result: give --out another folder")
            if self.beside_images:
                raise FileError(
                    f"{path} exists already, and may be drawn by hand: beside the images and in the folder of their "
                    "labels nothing is replaced, give --out another folder"
                )
            if not self.overwrite:
                raise FileError(f"{path} exists already: give --out another folder, or say --overwrite")
            if not was_written_here(path):
                raise FileError(f"{path} was not written by ubend: it is not replaced, give --out another folder")


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

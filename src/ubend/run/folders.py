"""A folder of images in, a folder of label images out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ubend.data.formats import check_writable, file_stem, image_files, read_images, write_labels, write_probabilities
from ubend.errors import FileError, InputError, OutOfMemory
from ubend.run.model import Model
from ubend.run.prediction import OnTile, check_tile, predict_labels

PROBABILITIES = "_probabilities"


@dataclass(frozen=True)
class FolderResult:
    """What `predict_folder` did.

    Attributes
    ----------
    written : tuple of Path
        Label images, one for each image or page of a stack.
    objects : dict of str to int
        For instances: objects found, by image.
    failed : dict of Path to str
        Files that could not be segmented, and why.
    """

    written: tuple[Path, ...]
    objects: dict[str, int]
    failed: dict[Path, str]


def predict_folder(
    model: Model,
    images: str | Path,
    out: str | Path,
    *,
    probabilities: bool = False,
    tile: int | None = None,
    overwrite: bool = False,
    on_image: Callable[[int, int, str], None] | None = None,
    on_tile: OnTile | None = None,
) -> FolderResult:
    """Segment all images of a folder, or one file.

    Parameters
    ----------
    model : Model
    images : path
        A folder of images, or an image file; a stack is many images.
    out : path
        Folder for STEM.tif of each image, and STEM_probabilities.tif.
    probabilities : bool
        Also write the probabilities, float32 (classes, rows, columns).
    tile : int, optional
        Rows and columns a tile may have at most.
    overwrite : bool
        Replace results that are there already. Never replaces one of the images.
    on_image : callable, optional
        Called with (number, of how many files, name) before each file.
    on_tile : callable, optional
        Called with (tiles done, tiles in all) of the image under way.

    Returns
    -------
    FolderResult
        One file that cannot be read does not stop the others.

    Raises
    ------
    FileError
        If there is no image, two would have the same result, or a result exists already; nothing is computed then.
    """
    files, folder = _files(Path(images)), Path(out)
    check_tile(model.contract.network, tile)
    check_writable(folder)
    _check_results_free(files, folder, probabilities=probabilities, overwrite=overwrite)
    written: dict[Path, None] = {}
    objects: dict[str, int] = {}
    failed: dict[Path, str] = {}
    for number, file in enumerate(files, start=1):
        if on_image is not None:
            on_image(number, len(files), file.name)
        try:
            pictures = read_images(file)
            paths = [p for one in pictures for p in _result_paths(folder, one.name, probabilities=probabilities)]
            _check_not_written(paths, file, written)
            if len(pictures) > 1:  # how many there are, and so their names, is known only now
                _check_free(paths, files, overwrite=overwrite)
        except FileError as error:
            failed[file] = str(error)
            continue
        for picture in pictures:
            try:
                result = model.predict(picture.pixels, tile=tile, on_tile=on_tile)
            except (InputError, OutOfMemory) as error:
                if isinstance(error, OutOfMemory) and tile is not None:
                    raise  # the tile was asked for: it fits no other image better
                failed[file] = str(error)
                break
            labels = predict_labels(model.contract, result)
            folder.mkdir(parents=True, exist_ok=True)
            path = _result_paths(folder, picture.name, probabilities=False)[0]
            write_labels(path, labels, pixel_size=picture.pixel_size, overwrite=overwrite)
            written[path] = None
            if model.contract.task.kind == "instances":
                objects[picture.name] = int(labels.max())
            if probabilities:
                beside = _result_paths(folder, picture.name, probabilities=True)[1]
                write_probabilities(beside, result, pixel_size=picture.pixel_size, overwrite=overwrite)
    return FolderResult(tuple(written), objects, failed)


def _files(images: Path) -> list[Path]:
    if images.is_file():
        return [images]
    files = image_files(images)
    if not files:
        raise FileError(f"{images} holds no image that can be read: TIFF, PNG, JPEG, BMP")
    return files


def _result_paths(folder: Path, name: str, *, probabilities: bool) -> list[Path]:
    endings = ("", PROBABILITIES) if probabilities else ("",)
    return [folder / f"{name}{ending}.tif" for ending in endings]


def _check_results_free(files: list[Path], folder: Path, *, probabilities: bool, overwrite: bool) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    owners: dict[str, Path] = {}
    paths: list[Path] = []
    for file in files:
        for path in _result_paths(folder, file_stem(file), probabilities=probabilities):
            other = owners.setdefault(path.name.casefold(), file)
            if other != file:
                raise FileError(f"{other.name} and {file.name} would both become {path.name}: rename one")
            paths.append(path)
    _check_free(paths, files, overwrite=overwrite)


def _check_not_written(paths: list[Path], file: Path, written: dict[Path, None]) -> None:
    """Refuse a page k of x.tif if there is an image x_000k.tif too, or the other way round."""
    both = [path for path in paths if path in written]
    if both:
        raise FileError(f"{file.name} would replace {both[0]}, the result of another image: rename one")


def _check_free(paths: list[Path], files: list[Path], *, overwrite: bool) -> None:
    there = [path for path in paths if path.exists()]
    if not there:
        return
    images = {(known.st_dev, known.st_ino) for known in map(Path.stat, files)}
    for path in there:
        found = path.stat()
        if (found.st_dev, found.st_ino) in images:
            raise FileError(f"{path} is an image of yours, its result would replace it: give --out another folder")
        if not overwrite:
            raise FileError(f"{path} exists already: give --out another folder, or say --overwrite")

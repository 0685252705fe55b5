"""A folder of images in, a folder of label images out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ubend.data.formats import Picture, file_stem, image_files, read_images, write_labels, write_probabilities
from ubend.errors import FileError, InputError
from ubend.run.model import Model
from ubend.run.prediction import OnTile, predict_labels

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
    _check_results_free(files, folder, probabilities=probabilities, overwrite=overwrite)
    written: list[Path] = []
    objects: dict[str, int] = {}
    failed: dict[Path, str] = {}
    for number, file in enumerate(files, start=1):
        if on_image is not None:
            on_image(number, len(files), file.name)
        try:
            pictures = read_images(file)
            results = [model.predict(picture.pixels, tile=tile, on_tile=on_tile) for picture in pictures]
        except (FileError, InputError) as error:
            failed[file] = str(error)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for picture, result in zip(pictures, results, strict=True):
            labels = predict_labels(model.contract, result)
            path = _result_path(picture, folder)
            write_labels(path, labels, pixel_size=picture.pixel_size, overwrite=overwrite)
            written.append(path)
            if model.contract.task.kind == "instances":
                objects[picture.name] = int(labels.max())
            if probabilities:
                beside = path.with_name(f"{picture.name}{PROBABILITIES}.tif")
                write_probabilities(beside, result, pixel_size=picture.pixel_size, overwrite=overwrite)
    return FolderResult(tuple(written), objects, failed)


def _files(images: Path) -> list[Path]:
    if images.is_file():
        return [images]
    files = image_files(images)
    if not files:
        raise FileError(f"{images} holds no image that can be read: TIFF, PNG, JPEG, BMP")
    return files


def _result_path(picture: Picture, folder: Path) -> Path:
    return folder / f"{picture.name}.tif"


def _check_results_free(files: list[Path], folder: Path, *, probabilities: bool, overwrite: bool) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    owners: dict[str, Path] = {}
    for file in files:
        stem = file_stem(file)
        if stem.casefold() in owners:
            raise FileError(f"{owners[stem.casefold()].name} and {file.name} would both become {stem}.tif: rename one")
        owners[stem.casefold()] = file
        target = folder / f"{stem}.tif"
        if target.exists() and any(target.samefile(image) for image in files):
            raise FileError(f"the result of {file} would replace an image of yours: give --out another folder")
        for path in (target, folder / f"{stem}{PROBABILITIES}.tif") if probabilities else (target,):
            if path.exists() and not overwrite:
                raise FileError(f"{path} exists already: give --out another folder, or say --overwrite")

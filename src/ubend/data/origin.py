"""Whether a file was written by ubend, so that `--overwrite` may replace it; what a person made never is."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import tifffile
from safetensors import SafetensorError, safe_open

from ubend.data.annotated import LABEL_FOLDERS
from ubend.data.formats import PNG_MARK, UNREADABLE
from ubend.data.rois import GEOJSON_START, ZIP_MARK

__all__ = ["MODEL_MARK", "is_for_labels", "was_written_here"]

MARK = {"Software": "ubend"}
"""What a picture drawn by Matplotlib is to say of itself."""
MODEL_MARK = "ubend-model"
"""The format that a model file names."""
_COLUMNS = (b"id,centroid_row_px,", b"image,id,centroid_row_px,")


def was_written_here(path: Path) -> bool:
    """Whether a result says of itself that ubend wrote it; most programs drop that mark when they save a file.

    Parameters
    ----------
    path : Path
        A model, an image, a label image, probabilities, a table of objects, ROIs, GeoJSON, or a picture of outlines.

    Returns
    -------
    bool
        False also where the file cannot be read, or is none of these.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.data.formats import write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ours, other = Path(folder) / "a.tif", Path(folder) / "b.tif"
    ...     write_labels(ours, [[0, 1]])
    ...     tifffile.imwrite(other, tifffile.imread(ours))
    ...     was_written_here(ours), was_written_here(other)
    (True, False)
    """
    is_ours = _MARKS.get(path.suffix.lower())
    if is_ours is None or not path.is_file():
        return False
    try:
        return is_ours(path)
    except (*UNREADABLE, zipfile.BadZipFile):
        return False


def is_for_labels(folder: Path, images: Path) -> bool:
    """Whether a folder is where the labels of some images stand: masks/ (labels/, gt/ …) beside them or among them.

    Examples
    --------
    >>> is_for_labels(Path("data/masks"), Path("data/images")), is_for_labels(Path("results"), Path("data/images"))
    (True, False)
    """
    folder, images = folder.resolve(), images.resolve()
    return folder.name.casefold() in {*LABEL_FOLDERS, "labelstr"} and folder.parent in (images, images.parent)


def _is_our_tiff(path: Path) -> bool:
    with tifffile.TiffFile(path) as tif:
        return bool(tif.pages[0].tags.valueof("Software", default="") == "ubend")  # type: ignore[union-attr]


def _is_our_zip(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.comment == ZIP_MARK


def _is_our_model(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format") == MODEL_MARK
    except SafetensorError:
        return False


def _begins(*starts: bytes) -> Callable[[Path], bool]:
    def begins(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(max(map(len, starts))).startswith(starts)

    return begins


def _is_our_picture(path: Path) -> bool:
    with path.open("rb") as file:
        return PNG_MARK in file.read(200)


_MARKS: dict[str, Callable[[Path], bool]] = {
    ".safetensors": _is_our_model,
    ".tif": _is_our_tiff,
    ".csv": _begins(*_COLUMNS),
    ".zip": _is_our_zip,
    ".geojson": _begins(GEOJSON_START),
    ".png": _is_our_picture,
}

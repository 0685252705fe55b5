"""Outlines of objects in files of other tools: ImageJ ROIs (Fiji) and GeoJSON (QuPath), out and in.

Both count from the corner of the first pixel, x to the right and y down. ImageJ ROIs need the package roifile:
``pip install roifile``.
"""

import json
import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.formats import check_is_file, file_stem, reason_of, text_of, write_atomically
from ubend.errors import FileError, InputError, UbendError
from ubend.method.outlines import Outline, fill

if TYPE_CHECKING:
    from roifile import ImagejRoi

__all__ = [
    "OUTLINE_SUFFIXES",
    "DrawnObject",
    "check_roifile",
    "check_rois_fit",
    "is_roi_zip",
    "labels_from_drawn",
    "read_drawn",
    "write_geojson",
    "write_rois",
]

OUTLINE_SUFFIXES = (".zip", ".roi", ".geojson")
"""Endings of the files that `read_drawn` reads."""

logging.getLogger("roifile").addHandler(logging.NullHandler())  # or Python itself writes its words to the screen

_LARGEST_COORDINATE = 60535  # beyond that ImageJ takes a coordinate for a negative one
ZIP_MARK = b"ubend"
"""The comment of a zip that was written here."""
GEOJSON_START = b'{"type": "FeatureCollection", "features": [\n'
"""So begins what is written here; other programs break their lines elsewhere."""

_LARGEST_ROI = 2**26  # bytes: a hundred times what the longest outline takes
_LARGEST_ROIS = 2**29  # of a zip, unpacked
_IGNORED = re.compile(r"ignore\*?([-_ ]?\d+)?", re.IGNORECASE)
_UNREADABLE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, EOFError, OverflowError),
    *(AssertionError, struct.error, zlib.error, zipfile.BadZipFile, RecursionError),
)

_Rings = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class DrawnObject:
    """What somebody drew as one object.

    Attributes
    ----------
    name : str
        For messages.
    pieces : tuple of tuple of ndarray of float64, shape (corners, 2)
        Rings of corners (row, column) in pixels; within a piece, a ring in a ring is a hole.
    ignored : bool
        Whether its pixels are to count as unlabelled.
    page : int
        Of a stack, counted from 1; 0 where the file does not say.
    """

    name: str
    pieces: tuple[_Rings, ...]
    ignored: bool = False
    page: int = 0


def check_roifile() -> None:
    """Raise InputError unless the package that reads and writes ImageJ ROIs is there."""
    try:
        import roifile  # noqa: F401
    except ImportError:
        raise InputError("ImageJ ROIs need the package roifile: pip install roifile") from None


def check_rois_fit(shape: tuple[int, int]) -> None:
    """Raise InputError unless ImageJ ROIs can say each place of an image of so many rows and columns.

    Examples
    --------
    >>> check_rois_fit((60_535, 60_535))
    """
    if max(shape) > _LARGEST_COORDINATE:
        raise InputError(
            f"An image of {shape[0]} × {shape[1]} pixels (rows × columns) is too large for ImageJ ROIs, which end at "
            f"pixel {_LARGEST_COORDINATE}: write GeoJSON."
        )


def write_rois(path: str | Path, outlines: Iterable[Outline], *, overwrite: bool = False) -> None:
    """Write outlines as a zip of ROIs that ImageJ and Fiji open (ROI Manager: More > Open).

    Parameters
    ----------
    path : str or Path
        Ends with .zip.
    outlines : iterable of Outline
        From `trace_outlines`. An object of one piece without holes becomes a traced ROI, any other a composite one.
        Each is named after its number.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    InputError
        If roifile is missing, or an object lies further out than ImageJ can say.
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.
    """
    check_roifile()
    outlines = list(outlines)
    digits = max(4, len(str(max((outline.id for outline in outlines), default=0))))

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.comment = ZIP_MARK
            for outline in outlines:
                name = f"{outline.id:0{digits}d}"
                entry = zipfile.ZipInfo(f"{name}.roi")  # of 1980: the same objects give the same file
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, _roi(outline, name).tobytes())

    write_atomically(path, write, overwrite=overwrite)


def write_geojson(
    path: str | Path,
    outlines: Iterable[Outline],
    *,
    measurements: dict[str, NDArray[Any]] | None = None,
    overwrite: bool = False,
) -> None:
    """Write outlines as GeoJSON (RFC 7946, in pixels) that QuPath opens as detections.

    Parameters
    ----------
    path : str or Path
    outlines : iterable of Outline
        From `trace_outlines`. Holes stay holes; an object of several pieces is a MultiPolygon.
    measurements : dict of str to ndarray, shape (objects,), optional
        Columns as from `Measurements.columns`, a value for each outline; 7 digits, nan is left out.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    Examples
    --------
    >>> import tempfile
    >>> from ubend.method.outlines import trace_outlines
    >>> outlines = trace_outlines(np.array([[0, 1, 1]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_geojson(Path(folder) / "a.geojson", outlines, measurements={"area_px": np.array([2])})
    ...     [one] = json.loads((Path(folder) / "a.geojson").read_text())["features"]
    >>> one["geometry"]["coordinates"], one["properties"]["measurements"]
    ([[[1, 0], [3, 0], [3, 1], [1, 1], [1, 0]]], {'area_px': 2.0})
    """
    columns = {name: values.tolist() for name, values in (measurements or {}).items() if name != "id"}

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8") as file:
            file.write(GEOJSON_START.decode())
            for k, outline in enumerate(outlines):
                measured = {
                    name: float(f"{values[k]:.7g}") for name, values in columns.items() if values[k] == values[k]
                }
                file.write((",\n" if k else "") + json.dumps(_feature(outline, measured), separators=(",", ":")))
            file.write("\n]}\n")

    write_atomically(path, write, overwrite=overwrite)


def is_roi_zip(path: str | Path) -> bool:
    """Whether a .zip holds ROIs, or nothing at all, as that of an image without objects.

    A damaged one may have held some, and reading it says what is wrong.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    bool
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            return not entries or any(_is_roi(entry) for entry in entries)
    except (OSError, *_UNREADABLE):
        return True


def read_drawn(path: str | Path) -> list[DrawnObject]:
    """Read the objects that somebody drew in Fiji or QuPath.

    Parameters
    ----------
    path : str or Path
        A zip of ImageJ ROIs, one .roi, or .geojson. ROIs may be polygons, freehand and traced ones, rectangles, ovals
        and composites; GeoJSON polygons and multipolygons. What is named or classified "ignore" marks pixels to ignore.

    Returns
    -------
    list of DrawnObject
        In the order of the file. None of an empty zip or FeatureCollection: somebody looked, and there is no object.

    Raises
    ------
    InputError
        If ROIs are to be read and roifile is missing.
    FileError
        If the file cannot be read, is damaged, or holds lines, points or other things that are no areas.
    """
    path = Path(path)
    is_geojson = path.suffix.lower() == ".geojson"
    if not is_geojson:
        check_roifile()
    check_is_file(path)
    try:
        drawn = list(_from_geojson(path) if is_geojson else _from_rois(path))
    except UbendError:
        raise
    except OSError as error:
        raise FileError(f"Cannot read {path}: {error.strerror or error}.") from error
    except _UNREADABLE as error:
        kind = "GeoJSON" if is_geojson else "ImageJ ROI file"
        raise FileError(f"Cannot read {path}: it is damaged or no {kind} ({reason_of(error)}).") from error
    if not drawn and not _says_none(path):
        raise FileError(f"{path} holds no outline.")
    return drawn


def _says_none(path: Path) -> bool:
    """Whether a file without outlines is what `write_rois` or `write_geojson` leaves of an image without objects."""
    if path.suffix.lower() == ".geojson":
        return isinstance(json.loads(text_of(path)), dict)
    return is_roi_zip(path)


def labels_from_drawn(drawn: Sequence[DrawnObject], shape: tuple[int, int], *, first: int = 1) -> NDArray[np.int32]:
    """Paint drawn objects into a label image.

    Parameters
    ----------
    drawn : sequence of DrawnObject
    shape : (int, int)
        Rows and columns of the image. What lies outside is cut off.
    first : int
        Number of the first object; the others count on, in their order.

    Returns
    -------
    ndarray of int32, shape `shape`
        A pixel belongs to the object that its middle lies in; where objects overlap, to the earlier one. Pixels to
        ignore are -1, except where they belong to an object.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 2.0], [2.0, 0.0]])
    >>> labels_from_drawn([DrawnObject("a", ((square,),)), DrawnObject("b", ((square + 1,),))], (3, 3)).tolist()
    [[1, 1, 0], [1, 1, 2], [0, 2, 2]]
    """
    labels = np.zeros(shape, np.int32)
    objects = [one for one in drawn if not one.ignored]
    numbered = [*enumerate(objects, start=first), *((-1, one) for one in drawn if one.ignored)]
    for number, one in numbered:
        for rings in one.pieces:
            rows, columns, inside = fill(rings, shape)
            part = labels[rows, columns]
            part[inside & (part == 0)] = number
    return labels


def _is_ignored(name: str) -> bool:
    """Whether a name is "ignore", also as Fiji ("ignore-1") and QuPath ("Ignore*") change it."""
    return _IGNORED.fullmatch(name.strip()) is not None


# ImageJ


def _roi(outline: Outline, name: str) -> "ImagejRoi":
    import roifile

    rings = [ring[:, ::-1] for piece in outline.pieces for ring in piece]  # x, y
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    if max(right, bottom) > _LARGEST_COORDINATE:
        raise InputError(
            f"Object {outline.id} lies beyond pixel {_LARGEST_COORDINATE}, which ImageJ ROIs cannot say: write GeoJSON."
        )
    roi = roifile.ImagejRoi(name=name, left=left, top=top, right=right, bottom=bottom)
    if outline.is_simple:
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.integer_coordinates = corners - [left, top]
        roi.n_coordinates = len(corners)
        return roi
    roi.roitype = roifile.ROI_TYPE.RECT  # of a composite one
    roi.multi_coordinates = np.concatenate([_path(ring) for ring in rings]).astype(np.float32)
    roi.shape_roi_size = len(roi.multi_coordinates)
    return roi


def _path(ring: NDArray[Any]) -> NDArray[np.float64]:
    """Write a ring as java.awt.geom.PathIterator does: 0 move to, 1 line to, 4 close."""
    steps = np.insert(ring.astype(np.float64), 0, [[1]], axis=1)
    steps[0, 0] = 0
    return np.append(steps.ravel(), 4)


def _is_roi(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.lower().endswith(".roi") and not entry.filename.startswith("__MACOSX")


def _from_rois(path: Path) -> Iterator[DrawnObject]:
    import roifile

    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if _is_roi(entry)]
            if sum(entry.file_size for entry in entries) > _LARGEST_ROIS:
                raise ValueError(f"unpacked, it has more than {_LARGEST_ROIS} bytes")
            for entry in entries:
                if entry.file_size > _LARGEST_ROI:
                    raise ValueError(f"a ROI has {entry.file_size} bytes")
                name = Path(entry.filename).stem
                yield _from_roi(roifile.ImagejRoi.frombytes(archive.read(entry)), name, path)
    else:
        if path.stat().st_size > _LARGEST_ROI:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        yield _from_roi(roifile.ImagejRoi.frombytes(path.read_bytes()), file_stem(path), path)


def _from_roi(roi: "ImagejRoi", entry: str, path: Path) -> DrawnObject:
    name = roi.name or entry
    rings = _roi_rings(roi, name, path)
    if not all(np.isfinite(ring).all() for ring in rings):
        raise ValueError("a corner is nowhere")
    slices = {number for number in (roi.z_position, roi.t_position) if number > 1} or {roi.z_position, roi.t_position}
    page = roi.position or (max(slices) if len(slices - {0}) == 1 else 0)
    return DrawnObject(name, (rings,), _is_ignored(name), page)


def _roi_rings(roi: "ImagejRoi", name: str, path: Path) -> _Rings:
    import roifile

    kind = roifile.ROI_TYPE
    areas = (kind.POLYGON, kind.FREEHAND, kind.TRACED)
    remedy = "Objects are areas: draw it with the polygon, freehand or wand tool, or remove it."
    if roi.subtype in (roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.ARROW, roifile.ROI_SUBTYPE.IMAGE):
        raise FileError(f"{path}: the ROI {name} is of the kind {roi.subtype.name.lower()}. {remedy}")
    if roi.composite:
        try:
            return tuple(ring[:, ::-1].astype(np.float64) for ring in roi.coordinates(multi=True))
        except NotImplementedError:
            raise FileError(
                f"{path}: the ROI {name} has curves, which cannot be read. In Fiji, make it a polygon: "
                "Edit > Selection > Create Mask, then Create Selection."
            ) from None
    if roi.roitype in (kind.RECT, kind.OVAL):
        if roi.rounded_rect_arc_size > 0 and roi.roitype == kind.RECT:
            raise FileError(f"{path}: the ROI {name} is a rectangle with round corners, which cannot be read. {remedy}")
        top, left, height, width = (
            (roi.yd, roi.xd, roi.heightd, roi.widthd)
            if roi.subpixelrect
            else (roi.top, roi.left, roi.bottom - roi.top, roi.right - roi.left)
        )
        return _oval(top, left, height, width) if roi.roitype == kind.OVAL else _rectangle(top, left, height, width)
    if roi.roitype not in areas:
        raise FileError(f"{path}: the ROI {name} is of the kind {roi.roitype.name.lower()}. {remedy}")
    if roi.options & roifile.ROI_OPTIONS.SPLINE_FIT:
        raise FileError(
            f"{path}: the ROI {name} is a spline through its corners, which cannot be read. In Fiji, make it a "
            "polygon: Edit > Selection > Interpolate."
        )
    return (np.asarray(roi.coordinates(), dtype=np.float64)[:, ::-1],)


def _rectangle(top: float, left: float, height: float, width: float) -> _Rings:
    bottom, right = top + height, left + width
    return (np.array([(top, left), (top, right), (bottom, right), (bottom, left)], dtype=np.float64),)


def _oval(top: float, left: float, height: float, width: float) -> _Rings:
    """Outline the pixels whose middle is in an ellipse or on it, as ImageJ fills it (ij.gui.OvalRoi)."""
    if not (0 < height <= _LARGEST_COORDINATE and 0 < width <= _LARGEST_COORDINATE):
        raise ValueError(f"an oval of {height} × {width} pixels")
    row = np.arange(int(np.floor(top)), int(np.ceil(top + height))) + 0.5
    down = (row - top - height / 2) / (height / 2)

    def is_inside(column: NDArray[np.float64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = down**2 + ((column + 0.5 - left - width / 2) / (width / 2)) ** 2 <= 1
        return found

    reach = np.sqrt(np.maximum(1 - down**2, 0)) * width / 2
    first, last = np.ceil(left + width / 2 - reach - 0.5) - 1, np.floor(left + width / 2 + reach - 0.5) + 1
    for _ in range(2):  # from one beyond what rounding gives
        first, last = np.where(is_inside(first), first, first + 1), np.where(is_inside(last), last, last - 1)
    rows = np.flatnonzero(is_inside(first) & (first <= last))
    if not rows.size:
        return ()
    above, first, last = row[rows] - 0.5, first[rows], last[rows] + 1
    right = np.stack([above, last, above + 1, last], axis=1).reshape(-1, 2)
    back = np.stack([above, first, above + 1, first], axis=1).reshape(-1, 2)[::-1]
    return (np.concatenate([right, back]),)


# GeoJSON


def _feature(outline: Outline, measured: dict[str, float]) -> dict[str, Any]:
    pieces = [[_closed(ring) for ring in piece] for piece in outline.pieces]
    several = len(pieces) > 1
    properties: dict[str, Any] = {"objectType": "detection", "name": str(outline.id)}
    return {
        "type": "Feature",
        "id": outline.id,
        "geometry": {"type": "MultiPolygon" if several else "Polygon", "coordinates": pieces if several else pieces[0]},
        "properties": properties | ({"measurements": measured} if measured else {}),
    }


def _closed(ring: NDArray[np.int32]) -> list[list[int]]:
    points: list[list[int]] = ring[:, ::-1].tolist()
    return [*points, points[0]]


def _from_geojson(path: Path) -> Iterator[DrawnObject]:
    content: Any = json.loads(text_of(path))
    if isinstance(content, dict):
        content = content["features"] if content.get("type") == "FeatureCollection" else [content]
    for number, feature in enumerate(content, start=1):
        properties, geometry = feature.get("properties") or {}, feature.get("geometry") or {}
        named = str(properties.get("name") or "")
        kind: Any = geometry.get("type")
        coordinates: Any = geometry.get("coordinates")
        if kind not in ("Polygon", "MultiPolygon"):
            raise FileError(
                f"{path}: object {named or number} is a {kind or 'thing without geometry'}. Objects are areas: "
                "draw it as a polygon, or remove it."
            )
        pieces = coordinates if kind == "MultiPolygon" else [coordinates]
        rings = tuple(tuple(_ring(points) for points in piece) for piece in pieces)
        yield DrawnObject(named or str(number), rings, _is_ignored(named) or _is_ignored(_class_of(properties)))


def _ring(points: list[list[float]]) -> NDArray[np.float64]:
    ring = np.array([point[:2] for point in points], dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
        raise ValueError("a ring is no list of points")
    return ring[:, ::-1]


def _class_of(properties: dict[str, Any]) -> str:
    classification = properties.get("classification")
    return str(classification.get("name") or "") if isinstance(classification, dict) else str(classification or "")

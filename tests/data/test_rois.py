"""ROIs and GeoJSON: out and in again, and each kind that Fiji and QuPath write."""

import json
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import roifile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ubend.data.rois import DrawnObject, is_roi_zip, labels_from_drawn, read_drawn, write_geojson, write_rois
from ubend.errors import FileError, InputError
from ubend.method.measurements import measure_objects
from ubend.method.outlines import trace_outlines

KIND = roifile.ROI_TYPE
LABELS = np.array(
    [
        [1, 1, 0, 3, 3, 3],
        [0, 1, 2, 3, 0, 3],
        [0, 0, 2, 3, 3, 3],
        [4, 0, 2, 0, 0, 0],
        [0, 4, 4, 0, 0, 0],
    ]
)  # 3 has a hole, 4 is two pieces


def painted(path, shape=(6, 7)):
    return labels_from_drawn(read_drawn(path), shape)


def polygon(*corners, kind=KIND.POLYGON, name="one"):
    """A ROI of whole (x, y), as ImageJ writes it: corners from its box."""
    points = np.array(corners)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return roifile.ImagejRoi(
        roitype=kind, name=name, left=left, top=top, right=right, bottom=bottom, n_coordinates=len(points),
        integer_coordinates=points - [left, top],
    )  # fmt: skip


def box(kind=KIND.RECT, name="one", **others):
    return roifile.ImagejRoi(roitype=kind, name=name, left=1, top=2, right=5, bottom=4, **others)


BOX = np.zeros((6, 7), int)
BOX[2:4, 1:5] = 1


# Out and in again


@pytest.mark.parametrize("ending", ["zip", "geojson"])
def test_what_is_written_is_read_as_it_was(tmp_path, ending):
    write = write_rois if ending == "zip" else write_geojson
    write(tmp_path / f"a.{ending}", trace_outlines(LABELS))
    assert (painted(tmp_path / f"a.{ending}", LABELS.shape) == LABELS).all()


@given(arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 4)))
def test_any_labels_are_read_as_they_were(tmp_path_factory, labels):
    _, inverse = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
    numbered = inverse[:-1].reshape(labels.shape)  # 1, 2, … without gaps
    folder = tmp_path_factory.mktemp("labels")
    write_rois(folder / "a.zip", trace_outlines(numbered))
    write_geojson(folder / "a.geojson", trace_outlines(numbered))
    for name in ("a.zip", "a.geojson"):
        assert (painted(folder / name, labels.shape) == numbered).all()


@pytest.mark.parametrize("ending", ["zip", "geojson"])
def test_no_object_is_read_as_none(tmp_path, ending):
    (write_rois if ending == "zip" else write_geojson)(tmp_path / f"a.{ending}", [])
    assert read_drawn(tmp_path / f"a.{ending}") == []
    assert (painted(tmp_path / f"a.{ending}") == 0).all()


def test_simple_objects_are_traced_rois_and_others_composite(tmp_path):
    write_rois(tmp_path / "a.zip", trace_outlines(LABELS))
    found = roifile.roiread(tmp_path / "a.zip")
    assert [one.name for one in found] == ["0001", "0002", "0003", "0004"]
    assert [one.roitype for one in found] == [KIND.TRACED, KIND.TRACED, KIND.RECT, KIND.RECT]
    assert [one.composite for one in found] == [False, False, True, True]
    assert (found[0].left, found[0].top, found[0].right, found[0].bottom) == (0, 0, 2, 2)
    assert found[1].coordinates().tolist() == [[2, 1], [3, 1], [3, 4], [2, 4]]
    assert [len(part) for part in found[2].coordinates(multi=True)] == [5, 5]


def test_the_same_objects_give_the_same_file(tmp_path):
    for name in ("a.zip", "b.zip"):
        write_rois(tmp_path / name, trace_outlines(LABELS))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_objects_further_out_than_imagej_counts(tmp_path):
    labels = np.zeros((1, 60_600), np.uint8)
    labels[0, 60_000:60_100] = 1
    write_rois(tmp_path / "a.zip", trace_outlines(labels))
    assert (painted(tmp_path / "a.zip", labels.shape) == labels).all()
    labels[0, 60_590] = 2
    with pytest.raises(InputError, match=r"Object 2 lies beyond pixel 60535, .*: write GeoJSON"):
        write_rois(tmp_path / "b.zip", trace_outlines(labels))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_geojson_is_what_qupath_reads(tmp_path):
    measured = measure_objects(LABELS, pixel_size=None).columns()
    write_geojson(tmp_path / "a.geojson", trace_outlines(LABELS), measurements=measured)
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    assert [one["geometry"]["type"] for one in content["features"]] == ["Polygon"] * 3 + ["MultiPolygon"]
    second, third = content["features"][1:3]
    assert second["geometry"]["coordinates"] == [[[2, 1], [3, 1], [3, 4], [2, 4], [2, 1]]]  # x, y; closed
    assert len(third["geometry"]["coordinates"]) == 2
    assert (second["id"], second["properties"]["name"], second["properties"]["objectType"]) == (2, "2", "detection")
    assert second["properties"]["measurements"]["area_px"] == 3
    assert "area_um2" not in second["properties"]["measurements"]


# ImageJ's kinds


@pytest.mark.parametrize("kind", [KIND.POLYGON, KIND.FREEHAND, KIND.TRACED])
def test_polygons(tmp_path, kind):
    polygon((1, 2), (5, 2), (5, 4), (1, 4), kind=kind).tofile(tmp_path / "a.roi")
    assert (painted(tmp_path / "a.roi") == BOX).all()


def test_fractions_of_pixels(tmp_path):
    points = np.array([(0.6, 1.6), (4.6, 1.6), (4.6, 3.6), (0.6, 3.6)], np.float32)
    roifile.ImagejRoi.frompoints(points, name="one").tofile(tmp_path / "a.roi")
    assert (painted(tmp_path / "a.roi") == BOX).all()


def test_rectangles(tmp_path):
    box().tofile(tmp_path / "a.roi")
    assert (painted(tmp_path / "a.roi") == BOX).all()
    exact = {"xd": 0.9, "yd": 1.8, "widthd": 3.9, "heightd": 2.0}
    box(options=roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION, **exact).tofile(tmp_path / "b.roi")
    assert (painted(tmp_path / "b.roi") == BOX).all()


def test_an_oval_holds_the_pixels_whose_middle_it_holds(tmp_path):
    roifile.ImagejRoi(roitype=KIND.OVAL, left=1, top=1, right=6, bottom=6).tofile(tmp_path / "a.roi")
    expected = np.array([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]])
    assert (painted(tmp_path / "a.roi")[1:6, 1:6] == expected).all()  # (1.5, 2) from the middle lies on it
    assert painted(tmp_path / "a.roi").sum() == expected.sum()


def test_a_composite_with_a_hole(tmp_path):
    path = [0, 1, 1, 1, 6, 1, 1, 6, 6, 1, 1, 6, 4, 0, 3, 3, 1, 4, 3, 1, 4, 4, 1, 3, 4, 4]
    roifile.ImagejRoi(
        roitype=KIND.RECT, left=1, top=1, right=6, bottom=6, shape_roi_size=len(path),
        multi_coordinates=np.array(path, np.float32),
    ).tofile(tmp_path / "a.roi")  # fmt: skip
    found = painted(tmp_path / "a.roi")
    assert found[3, 3] == 0
    assert found.sum() == 24


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        (
            polygon((1, 1), (5, 5), kind=KIND.POLYLINE),
            "the ROI one is of the kind polyline. Objects are areas: draw it",
        ),
        (polygon((1, 1), (5, 5), kind=KIND.FREELINE), "kind freeline"),
        (polygon((1, 1), (5, 5), (5, 1), kind=KIND.ANGLE), "kind angle"),
        (polygon((3, 3), kind=KIND.POINT), "kind point"),
        (roifile.ImagejRoi(roitype=KIND.LINE, name="one", x2=5.0, y2=5.0), "kind line"),
        (box(subtype=roifile.ROI_SUBTYPE.TEXT), "kind text"),
        (box(rounded_rect_arc_size=4), "round corners"),
        (box(kind=KIND.OVAL, name="one", version=217), None),
    ],
)
def test_lines_and_points_are_no_objects(tmp_path, roi, message):
    roi.tofile(tmp_path / "a.roi")
    if message is None:
        assert painted(tmp_path / "a.roi").max() == 1
        return
    with pytest.raises(FileError, match=message):
        read_drawn(tmp_path / "a.roi")


def test_curves_are_refused(tmp_path):
    spline = polygon((1, 2), (5, 2), (5, 4), (1, 4))
    spline.options = roifile.ROI_OPTIONS.SPLINE_FIT
    spline.tofile(tmp_path / "a.roi")
    with pytest.raises(FileError, match="one is a spline through its corners"):
        read_drawn(tmp_path / "a.roi")
    path = np.array([0, 1, 1, 2, 6, 1, 6, 6, 4], np.float32)
    box(shape_roi_size=len(path), multi_coordinates=path).tofile(tmp_path / "b.roi")
    with pytest.raises(FileError, match="one has curves"):
        read_drawn(tmp_path / "b.roi")


# Many


def test_the_order_of_the_zip_counts_and_the_earlier_keeps_the_pixel(tmp_path):
    big, small = polygon((0, 0), (4, 0), (4, 4), (0, 4), name="z"), polygon((3, 3), (6, 3), (6, 6), (3, 6), name="a")
    roifile.roiwrite(tmp_path / "a.zip", [big, small])
    found = painted(tmp_path / "a.zip")
    assert (found[3, 3], found[4, 4], found[0, 0]) == (1, 2, 1)


@pytest.mark.parametrize("name", ["ignore", "Ignore", "ignore-1"])
def test_what_is_to_be_ignored(tmp_path, name):
    ignored, cell = polygon((0, 0), (4, 0), (4, 4), (0, 4), name=name), polygon((3, 3), (6, 3), (6, 6), (3, 6))
    roifile.roiwrite(tmp_path / "a.zip", [ignored, cell])
    found = painted(tmp_path / "a.zip")
    assert (found[0, 0], found[3, 3], found[5, 6]) == (-1, 1, 0)
    assert set(np.unique(found)) == {-1, 0, 1}


def test_numbers_can_go_on():
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], float)
    objects = [DrawnObject("a", ((square,),)), DrawnObject("b", ((square + 1,),))]
    assert labels_from_drawn(objects, (2, 2), first=8).tolist() == [[8, 0], [0, 9]]


def test_other_things_in_a_zip(tmp_path):
    roi = box().tobytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/._one.roi", b"junk")
        archive.writestr("notes.txt", b"junk")
        archive.writestr("one.roi", roi)
    assert (painted(tmp_path / "a.zip") == BOX).all()
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", b"junk")
    write_rois(tmp_path / "none.zip", [])
    assert [is_roi_zip(tmp_path / f"{name}.zip") for name in ("a", "b", "none")] == [True, False, True]
    with pytest.raises(FileError, match="holds no outline"):
        read_drawn(tmp_path / "b.zip")


@pytest.mark.parametrize("name", ["a.zip", "a.roi", "a.geojson"])
def test_damaged_files_are_refused(tmp_path, name):
    path = tmp_path / name
    if name == "a.roi":
        polygon((1, 2), (5, 2), (5, 4), (1, 4)).tofile(path)
    else:
        (write_rois if name == "a.zip" else write_geojson)(path, trace_outlines(LABELS))
    content = path.read_bytes()
    whole = painted(path)
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        try:
            found = painted(path)
        except FileError:
            continue
        assert (found == whole).all()  # nothing but the name was lost
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(FileError, match="is damaged or no"):
        read_drawn(path)


def test_a_package_that_is_missing(tmp_path, monkeypatch):
    write_rois(tmp_path / "a.zip", trace_outlines(LABELS))
    monkeypatch.setitem(sys.modules, "roifile", None)
    for job in (lambda: read_drawn(tmp_path / "a.zip"), lambda: write_rois(tmp_path / "b.zip", [])):
        with pytest.raises(InputError, match=r"need the package roifile: pip install roifile"):
            job()
    write_geojson(tmp_path / "a.geojson", trace_outlines(LABELS))
    assert (painted(tmp_path / "a.geojson", LABELS.shape) == LABELS).all()


# GeoJSON of QuPath


def feature(coordinates, kind="Polygon", **properties):
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


SQUARE = [[[1, 2], [5, 2], [5, 4], [1, 4], [1, 2]]]


@pytest.mark.parametrize(
    "content", [[feature(SQUARE)], feature(SQUARE), {"type": "FeatureCollection", "features": [feature(SQUARE)]}]
)
def test_a_list_a_collection_or_one_object(tmp_path, content):
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    assert (painted(tmp_path / "a.geojson") == BOX).all()


def test_a_class_of_qupath_that_is_ignored(tmp_path):
    other = [[[0, 0], [7, 0], [7, 6], [0, 6], [0, 0]]]
    content = [feature(other, classification={"name": "Ignore*"}), feature(SQUARE, classification={"name": "Tumor"})]
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    assert (painted(tmp_path / "a.geojson") == BOX * 2 - 1).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([feature([1, 2], "Point", name="spot")], "object spot is a Point. Objects are areas"),
        ([feature([[1, 2], [3, 4]], "LineString")], "object 1 is a LineString"),
        ([{"type": "Feature", "geometry": None}], "object 1 is a thing without geometry"),
        ([feature([[[1, 2], ["x", 4], [1, 1]]])], "damaged or no GeoJSON"),
        ({"type": "FeatureCollection"}, "damaged or no GeoJSON"),
        ([], "holds no outline"),
    ],
)
def test_geojson_of_other_things(tmp_path, content, message):
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    with pytest.raises(FileError, match=message):
        read_drawn(tmp_path / "a.geojson")


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(FileError, match=r"There is no file .*a.geojson"):
        read_drawn(tmp_path / "a.geojson")


@pytest.mark.parametrize(("height", "width"), [(5, 5), (4, 9), (7, 1), (1, 12), (20, 21), (2, 2)])
def test_ovals_of_any_shape_are_filled_as_by_their_pixels(tmp_path, height, width):
    roifile.ImagejRoi(roitype=KIND.OVAL, left=2, top=3, right=2 + width, bottom=3 + height).tofile(tmp_path / "a.roi")
    rows, columns = np.mgrid[0:30, 0:30] + 0.5
    down, across = (rows - 3 - height / 2) / (height / 2), (columns - 2 - width / 2) / (width / 2)
    labels = labels_from_drawn(read_drawn(tmp_path / "a.roi"), (30, 30))
    assert (labels == (down**2 + across**2 <= 1)).all()


def test_an_oval_as_large_as_it_can_be_takes_no_memory(tmp_path):
    roi = roifile.ImagejRoi(roitype=KIND.OVAL, left=0, top=0, right=32_000, bottom=32_000)
    roi.tofile(tmp_path / "a.roi")
    tracemalloc.start()
    try:
        [one] = read_drawn(tmp_path / "a.roi")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**25
    assert len(one.pieces[0][0]) == 4 * 32_000

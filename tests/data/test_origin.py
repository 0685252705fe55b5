import csv
import json
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from ubend.data.formats import write_labels, write_picture, write_probabilities
from ubend.data.large_tiff import write_large_tiff
from ubend.data.origin import is_for_labels, was_written_here
from ubend.data.rois import write_geojson, write_rois
from ubend.data.tables import join_tables, write_table
from ubend.method.measurements import measure_objects
from ubend.method.outlines import trace_outlines

LABELS = np.kron(np.array([[0, 1], [2, 0]], np.uint8), np.ones((20, 20), np.uint8))


def table(path):
    write_table(path, measure_objects(LABELS).columns())


def tables(path):
    table(path.with_name("one.csv"))
    join_tables(path, [("one", path.with_name("one.csv"))], first_column="image")


OURS = {
    "labels.tif": lambda path: write_labels(path, LABELS),
    "probabilities.tif": lambda path: write_probabilities(path, np.ones((2, 3, 4))),
    "large.tif": lambda path: write_large_tiff(path, LABELS, maximum=2),
    "x_objects.csv": table,
    "objects.csv": tables,
    "rois.zip": lambda path: write_rois(path, trace_outlines(LABELS)),
    "no rois.zip": lambda path: write_rois(path, []),
    "x.geojson": lambda path: write_geojson(path, trace_outlines(LABELS)),
    "none.geojson": lambda path: write_geojson(path, []),
    "outlines.png": lambda path: write_picture(path, [np.zeros((2, 3, 3), np.uint8)]),
}


def saved_again(path):
    """Open and save a file, as another program does."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, tifffile.imread(path), photometric="minisblack")
    elif path.suffix == ".csv":
        rows = list(csv.reader(path.read_text().splitlines()))
        path.write_text("\n".join(";".join(row) for row in rows))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    elif path.suffix == ".geojson":
        path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    else:
        with Image.open(path) as picture:
            picture.load()
        picture.info.clear()
        picture.save(path)


@pytest.mark.parametrize("name", OURS)
def test_what_ubend_wrote_is_known_until_another_program_saves_it(tmp_path, name):
    pytest.importorskip("roifile")
    OURS[name](tmp_path / name)
    assert was_written_here(tmp_path / name)
    saved_again(tmp_path / name)
    assert not was_written_here(tmp_path / name)


@pytest.mark.parametrize("name", [*OURS, "model.safetensors", "notes.txt", "a.ome.zarr", "x"])
def test_what_cannot_be_read_is_not_ours(tmp_path, name):
    assert not was_written_here(tmp_path / name)
    (tmp_path / name).write_bytes(b"mine")
    assert not was_written_here(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert not was_written_here(tmp_path / name)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("data/masks", True), ("data/images/Labels", True), ("data/images", False), ("data/results", False),
     ("masks", False), ("data/images/../gt", True), ("data/results/masks", False)],
)  # fmt: skip
def test_where_labels_stand(tmp_path, folder, expected):
    assert is_for_labels(tmp_path / folder, tmp_path / "data" / "images") is expected

"""Which result belongs to which truth, and what is not scored by mistake."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from ubend.data.formats import write_labels, write_probabilities
from ubend.errors import FileError
from ubend.run.result_files import read_matched

CELLS = np.array([[1, 1, 1, 0, 2, 2, 2]] * 3)


def write(folder, *stems, pixels=CELLS):
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        write_labels(folder / f"{stem}.tif", pixels)
    return folder


@pytest.fixture
def truth(tmp_path):
    return write(tmp_path / "truth", "a", "b")


@pytest.fixture
def results(tmp_path):
    return write(tmp_path / "results", "a", "b")


def annotated(folder):
    write(folder / "images", "a", "b", pixels=CELLS * 90)
    write(folder / "masks", "a", "b")
    return folder


def test_what_predict_writes_beside_is_no_result(truth, results):
    write_probabilities(results / "a_probabilities.tif", np.zeros((2, 3, 7), np.float32))
    Image.fromarray(np.zeros((3, 7, 3), np.uint8)).save(results / "a_outlines.png")
    for name in ("a_objects.csv", "objects.csv", "a_rois.zip", "a.geojson"):
        (results / name).write_text("")
    matched = read_matched(results, truth)
    assert matched.names == ("a", "b")
    assert matched.notes == ()
    assert matched.probabilities() == (None, "Only 1 of 2 results have probabilities, so none were used.")


def draw(path):
    """Write the outlines of CELLS."""
    square = [[[[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]]], [[[4, 0], [7, 0], [7, 3], [4, 3], [4, 0]]]]
    features = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}} for rings in square]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def test_one_of_two_files_may_be_outlines(tmp_path, results):
    draw(tmp_path / "x.geojson")
    for pair in ((results / "a.tif", tmp_path / "x.geojson"), (tmp_path / "x.geojson", results / "a.tif")):
        matched = read_matched(*pair)
        assert (matched.truths[0] == CELLS).all()
        assert (matched.results[0] == CELLS).all()
    draw(tmp_path / "y.geojson")
    with pytest.raises(FileError, match=r"x\.geojson and .*y\.geojson are both outlines.* give one of the two as"):
        read_matched(tmp_path / "x.geojson", tmp_path / "y.geojson")


def test_the_truth_may_be_outlines(tmp_path, results):
    write(tmp_path / "drawn" / "images", "a", "b", pixels=CELLS * 90)
    (tmp_path / "drawn" / "masks").mkdir()
    for stem in "ab":
        draw(tmp_path / "drawn" / "masks" / f"{stem}.geojson")
    matched = read_matched(results, tmp_path / "drawn")
    assert matched.names == ("a", "b")
    for truth in matched.truths:
        np.testing.assert_array_equal(truth > 0, CELLS > 0)
        assert len(np.unique(truth)) == 3


def test_an_image_may_be_called_outlines(tmp_path):
    truth, results = (write(tmp_path / name, "a_outlines", "b") for name in ("truth", "results"))
    assert read_matched(results, truth).names == ("a_outlines", "b")


def test_probabilities_are_read_if_all_have_them(truth, results):
    for stem in "ab":
        write_probabilities(results / f"{stem}_probabilities.tif", np.full((2, 3, 7), 0.5, np.float32))
    maps, few = read_matched(results, truth).probabilities()
    assert [one.shape for one in maps] == [(2, 3, 7)] * 2
    assert few == ""


def test_two_files_match_whatever_they_are_called(tmp_path, truth):
    result = write(tmp_path / "results", "my_cells") / "my_cells.tif"
    write_probabilities(result.with_name("my_cells_probabilities.tif"), np.full((2, 3, 7), 0.5, np.float32))
    matched = read_matched(result, truth / "b.tif")
    assert matched.names == ("my_cells",)
    assert (matched.truths[0] == CELLS).all()
    assert matched.probabilities()[0][0].shape == (2, 3, 7)


def test_two_stacks_match_page_by_page(tmp_path, truth):
    stack = np.stack([CELLS, CELLS * 0]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "y.tif", stack, photometric="minisblack")
    assert read_matched(tmp_path / "x.tif", tmp_path / "y.tif").names == ("x_0000", "x_0001")
    with pytest.raises(FileError, match=r"x\.tif holds 2 label images and .*a\.tif 1"):
        read_matched(tmp_path / "x.tif", truth / "a.tif")


def test_a_file_and_a_folder(truth, results):
    with pytest.raises(FileError, match=r"a\.tif is a file and .*truth a folder: give two folders, or two"):
        read_matched(results / "a.tif", truth)
    with pytest.raises(FileError, match=r"a\.tif is a file and .*results a folder"):
        read_matched(results, truth / "a.tif")


def test_what_is_not_there(truth, results, tmp_path):
    with pytest.raises(FileError, match=r"There is no folder .*result\b"):
        read_matched(tmp_path / "result", truth)
    with pytest.raises(FileError, match="There is no folder"):
        read_matched(results, tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"There is no file .*c\.tif"):
        read_matched(results / "c.tif", truth / "a.tif")
    with pytest.raises(FileError, match=r"There is no file .*c\.tif"):
        read_matched(results / "a.tif", truth / "c.tif")


def test_missing_results_are_counted(truth, results, tmp_path):
    (results / "b.tif").unlink()
    with pytest.raises(FileError, match=r"has no result for b: 1 of the 2 images of .*e\.g\. b\.tif"):
        read_matched(results, truth)
    with pytest.raises(FileError, match=r"no result for any of the 2 images .* truth has a, b, the results x, y"):
        read_matched(write(tmp_path / "other", "x", "y"), truth)


def test_more_results_than_truths_are_said(truth, results):
    write(results, "c", "d", "e", "f")
    [note] = read_matched(results, truth).notes
    assert note == f"Not scored, since the truth has none of them: c, d, e and 1 more in {results}."


def test_folders_inside(truth, results, tmp_path):
    write(tmp_path / "nested" / "run1", "a", "b")
    write(tmp_path / "nested" / "run2", "a", "b")
    for swapped in (False, True):
        with pytest.raises(FileError, match=r"nested has no label images itself, its folders may \(run1, run2\)"):
            read_matched(*[(tmp_path / "nested", truth), (results, tmp_path / "nested")][swapped])
    write(results / "old", "a")
    assert read_matched(results, truth).notes == (f"Not looked at: old in {results}.",)


def test_empty_folders(truth, results, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no label images, it is empty; name the folder of the results"):
        read_matched(tmp_path / "empty", truth)
    with pytest.raises(FileError, match="no label images, it is empty; name the folder of the truth"):
        read_matched(results, tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(FileError, match="none of its files is one"):
        read_matched(tmp_path / "empty", truth)


def test_probabilities_alone(truth, tmp_path):
    folder = tmp_path / "only"
    folder.mkdir()
    write_probabilities(folder / "a_probabilities.tif", np.zeros((2, 3, 7), np.float32))
    with pytest.raises(FileError, match="has probabilities and no label images"):
        read_matched(folder, truth)
    with pytest.raises(FileError, match="holds probabilities; name the label image"):
        read_matched(folder / "a_probabilities.tif", truth / "a.tif")


# swapped


def test_the_truth_in_the_place_of_the_results(results, tmp_path):
    data = annotated(tmp_path / "data")
    with pytest.raises(FileError, match="data has its labels in masks/, as a truth does: the results come first"):
        read_matched(data, results)


@pytest.mark.parametrize("name", ["objects.csv", "a_objects.csv", "a_probabilities.tif"])
def test_results_in_the_place_of_the_truth(name, truth, results):
    write_probabilities(truth / "a_probabilities.tif", np.zeros((2, 3, 7), np.float32))
    (truth / "a_probabilities.tif").rename(truth / name)
    with pytest.raises(FileError, match=f"truth holds {name}, as the results of `ubend predict` do"):
        read_matched(results, truth)
    (results / "objects.csv").write_text("")
    assert "this compares two results" in read_matched(results, truth).notes[0]


def test_a_model_in_the_place_of_the_results(truth, results, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_text("")
    with pytest.raises(FileError, match="run is the folder of a model"):
        read_matched(tmp_path / "run", truth)
    (results / "model.safetensors").write_text("")
    assert read_matched(results, truth).names == ("a", "b")


def test_nothing_is_compared_with_itself(truth, tmp_path):
    with pytest.raises(FileError, match="is both the results and the truth"):
        read_matched(truth, truth / ".." / "truth")
    data = annotated(tmp_path / "data")
    with pytest.raises(FileError, match=r"masks/a\.tif would be compared with itself"):
        read_matched(data / "masks", data)
    with pytest.raises(FileError, match=r"images/a\.tif is an image of .*data, and no result"):
        read_matched(data / "images", data)


def test_a_part_of_an_image_is_an_image_of_its_own(tmp_path):
    truth, results = tmp_path / "truth", tmp_path / "results"
    for stem, pixels in (("fov", CELLS), ("fov_roi", CELLS[:2])):
        write(truth, stem, pixels=pixels)
        write(results, stem, pixels=pixels)
    matched = read_matched(results, truth)
    assert matched.names == ("fov", "fov_roi")
    assert [result.shape for result in matched.results] == [(3, 7), (2, 7)]


def test_equal_names_match_before_those_without_a_word(tmp_path):
    data, results = tmp_path / "data", tmp_path / "results"
    for stem, pixels in (("a", CELLS), ("a_seg", CELLS[:2])):
        write(data / "images", stem, pixels=pixels)
        write(data / "masks", stem, pixels=pixels)
        write(results, stem, pixels=pixels)
    assert [result.shape for result in read_matched(results, data).results] == [(3, 7), (2, 7)]
    (results / "a_seg.tif").rename(results / "a_seg_mask.tif")
    (results / "a.tif").rename(results / "labels_a.tif")
    assert [result.shape for result in read_matched(results, data).results] == [(3, 7), (2, 7)]


def test_an_image_beside_its_result(truth, results):
    write(results, "b_mask")
    with pytest.raises(FileError, match="results has several label images for b"):
        read_matched(results, truth)


def test_one_result_for_two_truths(tmp_path):
    truth = write(tmp_path / "truth", "a", pixels=CELLS)
    write(truth / "masks", "a")
    results = write(tmp_path / "results", "a")
    assert read_matched(results, truth).names == ("a",)
    write(truth, "a_seg", pixels=CELLS)
    write(truth / "masks", "a_seg")
    with pytest.raises(FileError, match="several label images that fit the result a: leave one each"):
        read_matched(results, truth)

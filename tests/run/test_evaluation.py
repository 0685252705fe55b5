"""Evaluation of arrays and of folders, against numbers worked out by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ubend.data.annotated import Task
from ubend.data.formats import write_labels, write_probabilities
from ubend.errors import FileError, InputError
from ubend.run import pooling
from ubend.run.evaluation import FORMAT, FORMAT_VERSION, HEADLINES, evaluate_arrays, evaluate_folders

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"

BINARY = Task("binary", (0, 1), None)
INSTANCES = Task("instances", (), None)
CELLS = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
INSTANCE_TRUTH = np.array([[1, 1, 0, 2, 2, 0, 3, 3]])
INSTANCE_RESULT = np.array([[4, 4, 0, 9, 0, 0, 0, 0]])


def write(folder, **images):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, pixels in images.items():
        write_labels(folder / f"{stem}.tif", pixels)
    return folder


def test_binary_from_labels():
    truth, result = np.array([[1, 1, 0, 1, 1]]), np.array([[1, 1, 0, 1, 0]])
    evaluation = evaluate_arrays([truth, truth], [truth, result], task=BINARY)
    assert evaluation.kind == "binary"
    assert [row.name for row in evaluation.rows] == ["image 1", "image 2"]
    assert evaluation.rows[0].scores == pytest.approx({"IoU": 1, "Dice": 1, "V_Rand": 1, "V_Info": 1})
    # After thinning the pixel that is missing at the border belongs to its cell again.
    assert evaluation.rows[1].scores == pytest.approx({"IoU": 3 / 4, "Dice": 6 / 7, "V_Rand": 1, "V_Info": 1})
    assert evaluation.overall == pytest.approx({"IoU": 7 / 8, "Dice": 14 / 15, "V_Rand": 1, "V_Info": 1})
    assert "from the label images" in evaluation.notes[0]


def test_binary_from_probabilities():
    inside = np.where(CELLS == 1, 0.9, 0.55).astype(np.float32)
    result = np.ones_like(CELLS)
    evaluation = evaluate_arrays([CELLS], [result], task=BINARY, probabilities=[np.stack([1 - inside, inside])])
    assert evaluation.overall["V_Rand"] == 1
    assert "from the probabilities, at the best of 11 thresholds over all images (0.6 and 0.6)" in evaluation.notes[0]
    merged = evaluate_arrays([CELLS], [result], task=BINARY)
    assert merged.overall["V_Rand"] == pytest.approx(2 / 3)


def test_binary_values_of_any_kind():
    truth = CELLS * 255
    evaluation = evaluate_arrays([truth], [CELLS.astype(bool)], task=Task("binary", (0, 255), None))
    assert evaluation.overall["IoU"] == 1
    evaluation = evaluate_arrays([CELLS + 1], [CELLS + 1], task=Task("binary", (1, 2), None))
    assert evaluation.overall["IoU"] == 1


def test_unlabelled_pixels_are_not_scored():
    truth, result = np.array([[1, 1, 0, 7, 7]]), np.array([[1, 1, 0, 1, 0]])
    assert evaluate_arrays([truth], [result], task=Task("binary", (0, 1), 7)).overall["IoU"] == 1
    truth = np.array([[1, 1, 0, -1, -1]])
    assert evaluate_arrays([truth], [result], task=INSTANCES).overall["AP@0.5 (pooled)"] == 1


def test_classes():
    task = Task("classes", (0, 32, 64), None)
    truth, result = np.array([[0, 0, 32, 32]]), np.array([[0, 32, 32, 32]])
    evaluation = evaluate_arrays([truth], [result], task=task, names=["a"])
    scores = evaluation.rows[0].scores
    assert list(scores)[:3] == ["mean IoU", "mean Dice", "IoU of 0"]
    assert (scores["IoU of 0"], scores["IoU of 32"]) == (1 / 2, 2 / 3)
    assert math.isnan(scores["IoU of 64"])
    assert scores["mean IoU"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores["Dice of 32"] == 4 / 5
    assert evaluation.overall["mean IoU"] == scores["mean IoU"]


def test_instances():
    perfect = evaluate_arrays([INSTANCE_TRUTH], [INSTANCE_TRUTH], task=INSTANCES)
    assert set(perfect.overall.values()) == {1.0}
    evaluation = evaluate_arrays([INSTANCE_TRUTH] * 2, [INSTANCE_TRUTH, INSTANCE_RESULT], task=INSTANCES)
    assert evaluation.rows[1].scores == pytest.approx({"IoU": 1 / 2, "Dice": 2 / 3, "F1@0.5": 4 / 5, "AP@0.5": 2 / 3})
    assert evaluation.overall == pytest.approx(
        {
            "IoU": 9 / 12,
            "Dice": 18 / 21,
            "F1@0.5 (pooled)": 10 / 11,
            "AP@0.5 (pooled)": 5 / 6,
            "AP@0.5 (mean of images)": (1 + 2 / 3) / 2,
        }
    )


def test_objects_may_have_numbers_of_any_size():
    for first in (3_000_000_000, 4_000_000_000):
        truth = np.where(INSTANCE_TRUTH > 1, INSTANCE_TRUTH + first, INSTANCE_TRUTH).astype(np.uint32)
        evaluation = evaluate_arrays([truth], [INSTANCE_TRUTH], task=INSTANCES, extent="all")
        assert evaluation.overall["AP@0.5 (pooled)"] == evaluation.overall["SEG"] == 1
        assert "Objects: 3 in the truth" in evaluation.notes[0]
        assert evaluate_arrays([INSTANCE_TRUTH], [truth], task=INSTANCES).overall["AP@0.5 (pooled)"] == 1


def test_images_without_objects_do_not_enter_the_mean():
    nothing = np.zeros_like(INSTANCE_TRUTH)
    evaluation = evaluate_arrays([INSTANCE_TRUTH, nothing], [INSTANCE_RESULT, nothing], task=INSTANCES)
    assert math.isnan(evaluation.rows[1].scores["AP@0.5"])
    assert evaluation.overall["AP@0.5 (mean of images)"] == pytest.approx(2 / 3)


def test_to_dict_is_json_without_nan():
    task = Task("classes", (0, 1, 2), None)
    truths = [np.array([[0, 0, 1, 1]])] * 3
    evaluation = evaluate_arrays(truths, [*truths[:2], np.array([[0, 0, 0, 0]])], task=task, names=["a", "b", "c"])
    found = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert found["rows"][0] == {
        "name": "a",
        "scores": {"mean IoU": 1, "mean Dice": 1, "IoU of 0": 1, "IoU of 1": 1, "IoU of 2": None}
        | {"Dice of 0": 1, "Dice of 1": 1, "Dice of 2": None},
    }
    assert found["overall"]["IoU of 1"] == pytest.approx(4 / 6)
    assert found["overall"]["IoU of 2"] is None
    assert found["intervals"]["IoU of 1"] == [0, 1]
    assert found["intervals"]["IoU of 2"] is None
    assert found["confusion"] == {"values": [0, 1, 2], "pixels": [[6, 0, 0], [2, 4, 0], [0, 0, 0]]}
    assert (found["format"], found["format_version"]) == (FORMAT, FORMAT_VERSION)
    assert found["scores"].keys() == found["overall"].keys() == found["intervals"].keys()


def test_a_table_has_a_row_an_image_and_a_score_once():
    nothing = np.zeros_like(INSTANCE_TRUTH)
    table = evaluate_arrays([INSTANCE_TRUTH, nothing], [INSTANCE_RESULT, nothing], task=INSTANCES).to_table()
    assert table[0] == ["image", "IoU", "Dice", "F1@0.5", "AP@0.5"]
    assert table[1][0] == "image 1"
    assert table[1][1:] == pytest.approx([1 / 2, 2 / 3, 4 / 5, 2 / 3])
    assert table[2] == ["image 2", "", "", "", ""]


def test_intervals_are_of_every_score_and_only_if_asked_for(monkeypatch):
    evaluation = evaluate_arrays(
        [INSTANCE_TRUTH] * 3, [INSTANCE_TRUTH, INSTANCE_RESULT, INSTANCE_TRUTH], task=INSTANCES
    )
    monkeypatch.setattr(pooling, "intervals", lambda columns: {column.score.name: None for column in columns})
    assert "intervals" not in vars(evaluation)
    assert evaluation.overall["AP@0.5 (pooled)"] == pytest.approx(8 / 9)
    assert "intervals" not in vars(evaluation)
    assert evaluation.intervals.keys() == evaluation.overall.keys()


def test_all_scores_are_more_than_the_few():
    few, every = (
        evaluate_arrays([INSTANCE_TRUTH], [INSTANCE_RESULT], task=INSTANCES, extent=extent) for extent in ("few", "all")
    )
    assert few.overall.items() < every.overall.items()
    assert {"SEG", "DET", "AJI (mean of images)"} <= every.overall.keys()


def test_errors_of_2012_are_for_membranes():
    evaluation = evaluate_arrays([CELLS], [CELLS], task=BINARY, em2012=True)
    assert [evaluation.overall[name] for name in ("pixel error", "Rand error", "warping error")] == [0, 0, 0]
    with pytest.raises(InputError, match="for membranes, a binary task; these labels are instances"):
        evaluate_arrays([CELLS], [CELLS], task=INSTANCES, em2012=True)


def test_results_that_were_made_for_another_task(tmp_path):
    truth = write(tmp_path / "truth", a=INSTANCE_TRUTH, b=INSTANCE_TRUTH)
    mask = (INSTANCE_TRUTH > 0) * 255
    evaluation = evaluate_folders(write(tmp_path / "masks", a=mask, b=mask), truth, task="instances")
    assert any("Each result holds one number besides 0, so each counts as one object" in n for n in evaluation.notes)
    objects = write(tmp_path / "objects", a=INSTANCE_TRUTH, b=INSTANCE_TRUTH)
    evaluation = evaluate_folders(objects, write(tmp_path / "binary", a=mask, b=mask))
    assert evaluation.overall["IoU"] == 1
    assert any("all that is not 0 is scored as foreground" in note for note in evaluation.notes)
    assert len(evaluate_folders(objects, truth, task="instances").notes) == 1


def three_cells(folder):
    """Write three images of three cells each, which look like three classes."""
    return write(folder, **dict.fromkeys("abc", INSTANCE_TRUTH))


def test_a_table_of_objects_tells_instances_from_classes(tmp_path):
    truth, results = three_cells(tmp_path / "truth"), three_cells(tmp_path / "results")
    evaluation = evaluate_folders(results, truth)
    assert evaluation.kind == "classes"
    assert any("if they are, say --task instances" in note for note in evaluation.notes)
    assert evaluate_folders(results, truth, task="classes").notes == ()
    (results / "objects.csv").write_text("")
    evaluation = evaluate_folders(results, truth)
    assert evaluation.kind == "instances"
    assert "Scored as instances, since beside the results is their table objects.csv." in evaluation.notes
    assert evaluation.overall["AP@0.5 (pooled)"] == 1
    assert evaluate_folders(results, truth, task="classes").kind == "classes"


def test_a_table_of_objects_beside_one_result(tmp_path):
    empty, result = write(tmp_path, truth=INSTANCE_TRUTH * 0, result=INSTANCE_TRUTH), tmp_path / "result.tif"
    (tmp_path / "other_objects.csv").write_text("")
    assert evaluate_folders(result, empty / "truth.tif").kind == "binary"
    (tmp_path / "result_objects.csv").write_text("")
    evaluation = evaluate_folders(result, empty / "truth.tif")
    assert "Objects: 0 in the truth, 3 in the results" in evaluation.notes[0]


def test_a_mask_stays_a_mask_beside_a_table_of_objects(tmp_path):
    results = write(tmp_path / "results", a=INSTANCE_TRUTH)
    (results / "objects.csv").write_text("")
    evaluation = evaluate_folders(results, write(tmp_path / "truth", a=INSTANCE_TRUTH > 0))
    assert evaluation.kind == "binary"
    assert evaluation.overall["IoU"] == 1


def test_numbered_objects_are_not_scored_as_hundreds_of_classes(tmp_path):
    stripes = np.tile([[0, 1, 2]], (100, 10))
    truth = write(tmp_path / "truth", a=stripes)
    results = write(tmp_path / "results", a=np.arange(3000).reshape(100, 30))
    with pytest.raises(InputError, match=r"number objects \(2,997 values that .*has 3 classes: say --task instances"):
        evaluate_folders(results, truth)
    assert evaluate_folders(results, truth, task="instances").kind == "instances"
    few = write(tmp_path / "few", a=np.arange(3000).reshape(100, 30) % 259)
    assert len(evaluate_folders(few, truth).values) == 259


@pytest.mark.parametrize(
    ("truths", "results", "choices", "message"),
    [
        ([], [], {}, "no image to evaluate"),
        ([CELLS], [], {}, "1 truths and 0 results"),
        ([CELLS], [CELLS], {"names": ["a", "b"]}, "1 truths and 2 names"),
        ([CELLS], [CELLS[1:]], {"names": ["a"]}, "a: the truth is 3 × 7 pixels, the result 2 × 7"),
        ([CELLS], [CELLS], {"probabilities": [np.zeros((2, 3, 6))]}, "3 × 7 pixels, the map of probabilities 3 × 6"),
        ([np.stack([CELLS])], [np.stack([CELLS])], {}, "must be single images"),
    ],
)
def test_arrays_that_do_not_fit(truths, results, choices, message):
    with pytest.raises(InputError, match=message):
        evaluate_arrays(truths, results, task=BINARY, **choices)


def test_result_must_be_labelled_everywhere():
    task = Task("classes", (0, 1, 2), 255)
    with pytest.raises(InputError, match="The result a contains the value 255, which means unlabelled"):
        evaluate_arrays([np.array([[0, 1]])], [np.array([[0, 255]])], task=task, names=["a"])


def test_folders_match_by_stem_and_suffix(tmp_path):
    truth = write(tmp_path / "truth", a_mask=CELLS, b=CELLS, labels_c=CELLS)
    results = write(tmp_path / "results", a=CELLS, b_cp_masks=CELLS, c=np.ones_like(CELLS), other=CELLS)
    evaluation = evaluate_folders(results, truth)
    assert evaluation.kind == "binary"
    assert {row.name: row.scores["V_Rand"] for row in evaluation.rows} == pytest.approx({"a": 1, "b": 1, "c": 2 / 3})
    assert evaluation.notes[-1] == f"Not scored, since the truth has none of them: other in {results}."


def test_folders_use_probabilities_if_all_are_there(tmp_path):
    truth = write(tmp_path / "truth", a=CELLS, b=CELLS)
    results = write(tmp_path / "results", a=np.ones_like(CELLS), b=np.ones_like(CELLS))
    inside = np.where(CELLS == 1, 0.9, 0.2).astype(np.float32)
    write_probabilities(results / "a_probabilities.tif", np.stack([1 - inside, inside]))
    evaluation = evaluate_folders(results, truth)
    assert evaluation.overall["V_Rand"] == pytest.approx(2 / 3)
    assert "Only 1 of 2 results have probabilities" in evaluation.notes[1]
    write_probabilities(results / "b_probabilities.tif", np.stack([1 - inside, inside]))
    evaluation = evaluate_folders(results, truth)
    assert evaluation.overall["V_Rand"] == 1
    assert "from the probabilities" in evaluation.notes[0]


def test_annotated_folder_is_a_truth(tmp_path):
    data = tmp_path / "data"
    write(data / "images", a=CELLS * 100, b=CELLS * 90)
    write(data / "masks", a=CELLS, b=CELLS)
    results = write(tmp_path / "results", a=CELLS, b=CELLS)
    assert [row.name for row in evaluate_folders(results, data).rows] == ["a", "b"]


def test_annotated_folder_with_a_fault_is_no_folder_of_labels(tmp_path):
    data = write(tmp_path / "data", a=CELLS * 100, b=CELLS * 90)
    write(data / "masks", a=CELLS)
    with pytest.raises(FileError, match="b"):
        evaluate_folders(write(tmp_path / "results", a=CELLS, b=CELLS), data)


def test_stacks_match_page_by_page(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    stack = np.stack([CELLS, 1 - CELLS]).astype(np.uint8)
    tifffile.imwrite(data / "train-volume.tif", stack * 100, photometric="minisblack")
    tifffile.imwrite(data / "train-labels.tif", stack, photometric="minisblack")
    results = write(tmp_path / "results", **{"train-volume_0000": CELLS, "train-volume_0001": 1 - CELLS})
    evaluation = evaluate_folders(results, data)
    assert [row.name for row in evaluation.rows] == ["train-volume_0000", "train-volume_0001"]
    assert evaluation.overall["IoU"] == 1


def test_headlines_are_overall_scores():
    tasks = (BINARY, INSTANCES, Task("classes", (0, 1), None))
    evaluations = [evaluate_arrays([CELLS], [CELLS], task=task) for task in tasks]
    assert {evaluation.overall[HEADLINES[evaluation.kind]] for evaluation in evaluations} == {1.0}
    assert {evaluation.kind for evaluation in evaluations} == set(HEADLINES)


def test_task_may_be_stated(tmp_path):
    truth = write(tmp_path / "truth", a=CELLS)
    results = write(tmp_path / "results", a=CELLS)
    assert evaluate_folders(results, truth, task="instances").overall["AP@0.5 (pooled)"] == 1
    ignored = evaluate_folders(write(tmp_path / "all", a=np.ones_like(CELLS)), truth, task="binary", ignore=0)
    assert ignored.overall["IoU"] == 1


def test_class_that_only_a_result_has_is_wrong_not_an_error(tmp_path):
    classes = np.arange(4).repeat(16).reshape(8, 8)
    truth = write(tmp_path / "truth", a=classes, b=classes)
    results = write(tmp_path / "results", a=np.where(classes == 3, 9, classes), b=classes)
    evaluation = evaluate_folders(results, truth, task="classes")
    assert evaluation.rows[0].scores["IoU of 9"] == 0
    assert evaluation.overall["IoU of 3"] == 0.5


def test_missing_results_are_named(tmp_path):
    truth = write(tmp_path / "truth", **dict.fromkeys("abcde", CELLS))
    results = write(tmp_path / "results", a=CELLS)
    with pytest.raises(FileError, match=r"no result for b, c, d and 1 more: 4 of the 5 images of .*e\.g\. b\.tif"):
        evaluate_folders(results, truth)


def test_sizes_that_differ_are_named(tmp_path):
    truth = write(tmp_path / "truth", a=CELLS, b=CELLS, c=CELLS)
    results = write(tmp_path / "results", a=CELLS, b=CELLS[1:], c=CELLS[:2])
    with pytest.raises(
        InputError, match=r"b: the truth is 3 × 7 pixels, the result 2 × 7\..* 1 other image differs, too\."
    ):
        evaluate_folders(results, truth)


def test_folder_without_results(tmp_path):
    truth = write(tmp_path / "truth", a=CELLS)
    with pytest.raises(FileError, match="There is no folder"):
        evaluate_folders(tmp_path / "nowhere", truth)
    write(tmp_path / "empty")
    with pytest.raises(FileError, match="has no label images"):
        evaluate_folders(tmp_path / "empty", truth)
    with pytest.raises(FileError):
        evaluate_folders(truth, tmp_path / "empty")


def test_two_files_of_one_name(tmp_path):
    truth = write(tmp_path / "truth", a=CELLS)
    results = write(tmp_path / "results", a=CELLS, a_mask=CELLS)
    with pytest.raises(FileError, match="several label images for a"):
        evaluate_folders(results, truth)


def test_real_masks_against_themselves():
    folder = DATA / "dic_hela" / "instances_approx"
    if not folder.is_dir():
        pytest.skip("the HeLa cells are not beside the repository")
    truths = [tifffile.imread(path).astype(np.int32) for path in sorted(folder.iterdir())[:3]]
    assert set(evaluate_arrays(truths, truths, task=INSTANCES).overall.values()) == {1.0}


def test_pictures_in_the_place_of_the_truth_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    results = write(tmp_path / "results", **{f"cell{k}": CELLS.repeat(20, 0).repeat(20, 1) for k in range(2)})
    images = write(tmp_path / "images", **{f"cell{k}": rng.integers(0, 256, (60, 140)) for k in range(2)})
    with pytest.raises(InputError, match=r"looks like pictures, not labels: in cell0 .* folder of the label images"):
        evaluate_folders(results, images)
    assert evaluate_folders(results, images, task="instances").kind == "instances"  # who says so is believed

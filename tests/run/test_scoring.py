"""Which scores come out, and that they are those of the rooms that define them."""

import math

import numpy as np
import pytest

from ubend.run import scoring
from ubend.run.scoring import HEADLINES, score_binary, score_classes, score_instances
from ubend.scores import cells, em_challenge
from ubend.scores.aggregated_jaccard import aggregated_jaccard
from ubend.scores.tracking_challenge import detections, pooled_detections, seg

# Each of three objects is found, none exactly; a fourth lies beside the third.
TRUTH = np.array([[1, 1, 1, 0, 2, 2]] * 3 + [[0, 0, 0, 0, 2, 2]] + [[3, 3, 3, 0, 2, 2]] * 2)
RESULT = np.array(
    [[1, 1, 0, 0, 2, 2]] * 2 + [[1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 2]] + [[3, 3, 0, 4, 4, 4]] * 2,
)
NOTHING = np.zeros_like(TRUTH)


def overall(scored):
    return {column.score.name: column.overall() for column in scored.columns}


def names(scored):
    return [column.score.name for column in scored.columns]


def test_instances_of_the_worked_example():
    found = overall(score_instances([TRUTH], [RESULT]))
    assert found["AP@0.5 (pooled)"] == 0.75
    assert found["AP@0.75 (pooled)"] == pytest.approx(1 / 6)
    assert found["PQ@0.5 (pooled)"] == pytest.approx(0.5665445665445665)
    assert found["SEG"] == pytest.approx(0.660968660968661)
    assert found["AJI (mean of images)"] == found["AJI+ (mean of images)"] == pytest.approx(0.5294117647058824)
    assert math.isnan(found["pairs apart"])  # none of them touch
    by_threshold = [cells.match(TRUTH, RESULT, t).average_precision for t in np.arange(0.5, 0.96, 0.05).round(2)]
    assert found["AP@0.5:0.95 (pooled)"] == pytest.approx(np.mean(by_threshold))


def test_instances_of_several_images_are_pooled_as_their_organisers_do():
    pairs = [(TRUTH, RESULT), (TRUTH, TRUTH), (TRUTH[:3], NOTHING[:3]), (NOTHING, RESULT)]
    found = overall(score_instances(*zip(*pairs, strict=True)))
    together = cells.pooled(cells.match(*pair) for pair in pairs)
    assert found["AP@0.5 (pooled)"] == together.average_precision
    assert found["F1@0.5 (pooled)"] == together.f1
    assert found["PQ@0.5 (pooled)"] == pytest.approx(together.panoptic_quality)
    assert found["SEG"] == pytest.approx(np.concatenate([seg(*pair) for pair in pairs]).mean())
    assert found["DET"] == pytest.approx(pooled_detections(detections(*pair) for pair in pairs).det)
    assert found["AJI (mean of images)"] == pytest.approx(np.mean([aggregated_jaccard(*p).value for p in pairs]))
    assert found["AP@0.5 (mean of images)"] == pytest.approx((0.75 + 1 + 0 + 0) / 4)


def test_pairs_that_touch_are_pooled():
    row = np.repeat([[1, 1, 2, 2]], 5, axis=0)
    scored = score_instances([row, row, TRUTH], [row, row > 0, RESULT])
    assert overall(scored)["pairs apart"] == 0.5


def test_each_image_has_the_scores_of_that_image():
    scored = score_instances([TRUTH, TRUTH, NOTHING], [RESULT, NOTHING, RESULT])
    by_name = {column.score.image_name: column.of_images().tolist() for column in scored.columns}
    assert by_name["AP@0.5"] == [0.75, 0, 0]
    assert by_name["SEG"] == [pytest.approx(0.660968660968661), 0, pytest.approx(math.nan, nan_ok=True)]
    assert by_name["DET"] == [detections(TRUTH, RESULT).det, 0, pytest.approx(math.nan, nan_ok=True)]


def test_objects_are_counted_in_words():
    [note] = score_instances([TRUTH], [RESULT]).notes
    assert note == "Objects: 3 in the truth, 4 in the results; at an IoU of 0.5 3 found, 0 missed, 1 invented."


def test_pixels_that_are_not_scored_count_in_no_score():
    truth = np.where(TRUTH == 2, -1, TRUTH)
    found = overall(score_instances([truth], [np.where(truth < 0, 9, truth)]))
    assert math.isnan(found.pop("pairs apart"))
    assert set(found.values()) == {1.0}


def test_binary_scores():
    truth, result = np.array([[1, 1, 1, 0, 0, -1]]), np.array([[1, 1, 0, 1, 0, 1]])
    found = overall(score_binary([truth], [result]))
    assert [found[name] for name in ("IoU", "Dice", "precision", "recall")] == [1 / 2, 2 / 3, 2 / 3, 2 / 3]
    assert names(score_binary([truth], [result], extent="few")) == ["IoU", "Dice", "V_Rand", "V_Info"]
    assert score_binary([truth], [result]).confusion.tolist() == [[1, 1], [1, 2]]


def test_scores_of_whole_images_leave_out_those_with_pixels_that_are_not_scored():
    truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    part, merged = np.where(np.arange(7) == 1, -1, truth), np.ones_like(truth)
    scored = score_binary([truth, part, truth], [truth, merged, merged], em2012=True)
    without = score_binary([truth, truth], [truth, merged], em2012=True)
    for column, expected in zip(scored.columns[4:], without.columns[4:], strict=True):
        assert column.overall() == pytest.approx(expected.overall())
        assert np.isnan(column.of_images()).tolist() == [False, True, False]
    assert scored.notes[-1] == (
        "V_Rand, V_Info and the errors of 2012 are of whole images; left out: 1 of 3, with pixels that are not scored."
    )
    assert overall(scored)["precision"] == 51 / 57


def test_no_image_is_whole():
    truth = np.array([[-1, 1, 1, 1]] * 4)
    scored = score_binary([truth], [np.ones_like(truth)], em2012=True)
    found = overall(scored)
    assert found["IoU"] == 1
    assert all(math.isnan(found[name]) for name in ("V_Rand", "V_Info", "pixel error", "Rand error", "warping error"))
    [note] = scored.notes
    assert "left out: 1 of 1" in note


def test_v_rand_is_that_of_the_challenge():
    rng = np.random.default_rng(0)
    inside = [(np.indices((9, 9)).sum(axis=0) % 5 > 0).astype(int)] * 3 + [np.zeros((9, 9), int)]
    proposals = [np.clip(image * 0.7 + rng.uniform(0, 0.3, image.shape), 0, 1).astype(np.float32) for image in inside]
    results = [(image > 0.5).astype(int) for image in proposals]
    scored = score_binary(inside, results, [np.stack([1 - image, image]) for image in proposals])
    v_rand, v_info = em_challenge.v_scores(inside, proposals)
    found = overall(scored)
    assert found["V_Rand"] == pytest.approx(v_rand.f_score)
    assert found["V_Info"] == pytest.approx(v_info.f_score)
    assert f"({v_rand.threshold:.1f} and {v_info.threshold:.1f})" in scored.notes[0]


def test_a_slice_without_information_leaves_v_info_undefined_as_in_the_challenge():
    one_cell = np.ones((5, 5), int)
    two = np.array([[1, 1, 0, 1, 1]] * 5)
    assert math.isnan(overall(score_binary([one_cell, two], [one_cell, two]))["V_Info"])


def test_errors_of_2012_are_those_of_the_challenge():
    truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3)
    results = [np.ones_like(truth), truth, np.zeros_like(truth)]
    scored = score_binary([truth] * 3, results, em2012=True)
    found = overall(scored)
    for name, score in (
        ("pixel error", em_challenge.pixel_error),
        ("Rand error", em_challenge.rand_error),
        ("warping error", em_challenge.warping_error),
    ):
        assert found[name] == pytest.approx(score([truth] * 3, results).error)
        assert not next(column.score for column in scored.columns if column.score.name == name).higher_is_better


def test_classes_alone_and_together():
    truth, result = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    scored = score_classes([truth, truth], [result, truth], (0, 32, 64))
    found = overall(scored)
    assert found["IoU of 0"] == 3 / 4
    assert found["IoU of 32"] == 4 / 5
    assert math.isnan(found["IoU of 64"])
    assert found["mean IoU"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found["precision of 32"] == 4 / 5
    assert found["recall of 0"] == 3 / 4
    assert scored.confusion.tolist() == [[3, 1, 0], [0, 4, 0], [0, 0, 0]]
    assert {column.score.of_class for column in scored.columns} == {None, 0, 32, 64}


EVERYTHING = [
    score_binary([np.array([[0, 1]])], [np.array([[0, 1]])], em2012=True),
    score_classes([np.array([[0, 1]])], [np.array([[0, 1]])], (0, 1)),
    score_instances([TRUTH], [RESULT]),
]


@pytest.mark.parametrize("scored", EVERYTHING, ids=HEADLINES)
def test_every_score_is_described_in_a_line_and_named_once(scored):
    assert len(set(names(scored))) == len(scored.columns)
    longest = max(len(column.score.image_name) for column in scored.columns if column.score.of_class is None)
    for column in scored.columns:
        assert 0 < len(column.score.meaning) <= 80 - longest - 1


def test_training_computes_the_few_only(monkeypatch):
    def never(*_arrays, **_choices):
        raise AssertionError("not asked for")

    for name in ("seg", "detections", "aggregated_jaccard"):
        monkeypatch.setattr(scoring, name, never)
    assert HEADLINES["instances"] in names(score_instances([TRUTH], [RESULT], extent="few"))
    with pytest.raises(AssertionError, match="not asked for"):
        score_instances([TRUTH], [RESULT])

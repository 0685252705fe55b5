"""What a person sees of the scores, at any width."""

import re
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from ubend.data.annotated import Task
from ubend.faces.score_tables import print_scores, score_text
from ubend.run.evaluation import evaluate_arrays

INSTANCES = Task("instances", (), None)
TRUTH = np.array([[1] * 10 + [0] * 2 + [2] * 10])


def shifted(pixels):
    """Both objects, seen so many pixels further right: each pixel costs some IoU."""
    return np.roll(TRUTH, pixels, axis=1)


def evaluated(n, **choices):
    results = [shifted(k % 5) for k in range(n)]
    names = [f"image_{k:02d}" for k in range(n)]
    return evaluate_arrays([TRUTH] * n, results, task=INSTANCES, names=names, extent="all", **choices)


def said(evaluation, width=10_000, **choices):
    console = Console(file=StringIO(), width=width, highlight=False)
    print_scores(console, evaluation, **choices)
    return console.file.getvalue()


def test_a_score_as_text():
    assert [score_text(value) for value in (0.5, 1.0, 0.0, 0.0003529, float("nan"), None)] == [
        "0.5000", "1.0000", "0.0000", "0.0003529", "–", "–",
    ]  # fmt: skip


def test_few_images_are_all_shown_and_the_worst_named():
    text = said(evaluated(5))
    assert [line.split()[0] for line in text.splitlines()[1:6]] == [f"image_{k:02d}" for k in range(5)]
    assert re.search(r"^Worst by AP@0\.5: image_0\d \d\.\d{4}, image_0\d", text, re.MULTILINE)


def test_of_many_images_the_worst_the_middle_and_the_best_are_shown():
    evaluation = evaluated(40)
    lines = said(evaluation).splitlines()
    assert lines[0].startswith("The worst of 40 images by AP@0.5 (--all shows all, --csv FILE writes all)")
    worst = min(row.scores["AP@0.5"] for row in evaluation.rows)
    assert all(line.split()[1] == score_text(worst) for line in lines[2:7])
    assert lines[7].startswith("median")
    assert lines[8].startswith("best: image_")
    assert score_text(np.median([row.scores["IoU"] for row in evaluation.rows])) in lines[7]
    assert sum(line.startswith("image_") for line in said(evaluation, every=True).splitlines()) == 40


def test_every_overall_score_stands_with_its_interval_and_meaning():
    evaluation = evaluated(6)
    text = said(evaluation)
    for column in evaluation.columns:
        score, ends = column.score, evaluation.intervals[column.score.name]
        interval = "–".join(map(score_text, ends)) if ends else "–"  # nothing touches: no pair to score
        [line] = [line for line in text.splitlines() if line.startswith(f"{score.name} ")]
        value = score_text(evaluation.overall[score.name])
        assert re.sub(" +", " ", line).strip() == (
            f"{score.name} {value} {interval} {score.pooled_over} {score.meaning}"
        )
    ends = "–".join(map(score_text, evaluation.intervals["AP@0.5 (pooled)"]))
    assert f"95 % interval {ends}; 6 images, scored as instances (--task says otherwise)" in text
    assert "Of so few images it comes out rather too narrow." in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_the_terminal(width):
    text = said(evaluated(40), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text.replace("0.55 … 0.95", "").replace("0.55 …", "")
    for words in ("AP@0.5:0.95", "95 % interval", "with what covers over half"):
        assert words in re.sub(r"\s+", " ", text)


def test_two_images_have_no_interval():
    text = said(evaluated(2))
    assert "No 95 % interval: it takes 3 images, here are 2." in text
    assert "interval" not in text.split("No 95 % interval")[0]


def test_an_interval_that_is_not_shown_is_not_explained():
    nothing = np.zeros_like(TRUTH)
    text = said(evaluate_arrays([TRUTH, nothing, nothing], [TRUTH, nothing, nothing], task=INSTANCES))
    assert "No 95 % interval: no score has 3 images with something to score." in text
    assert "bootstrap" not in text


def test_how_scores_were_joined_is_said():
    joined = "How scores were joined: over pixels and objects: counted in all images, then divided once"
    assert joined in said(evaluated(2))
    assert joined in said(evaluated(3))


def test_images_with_nothing_to_score_are_named():
    nothing = np.zeros_like(TRUTH)
    names = ["full", "empty"]
    evaluation = evaluate_arrays([TRUTH, nothing], [TRUTH, nothing], task=INSTANCES, names=names)
    assert "Without AP@0.5, having nothing to score: empty" in said(evaluation)


def test_classes_have_a_table_of_their_own():
    truth, result = np.array([[0, 0, 32, 32]]), np.array([[0, 32, 32, 32]])
    task = Task("classes", (0, 32), None)
    lines = said(evaluate_arrays([truth] * 3, [result] * 3, task=task, extent="all")).splitlines()
    header = next(k for k, line in enumerate(lines) if line.startswith("class "))
    assert lines[header].split() == ["class", "IoU", "95", "%", "interval", "Dice", "precision", "recall"]
    assert lines[header + 2].split() == ["32", "0.6667", "0.6667–0.6667", "0.8000", "0.6667", "1.0000"]
    assert not any(line.startswith("IoU of") for line in lines)


def test_long_names_are_whole_and_brackets_are_no_colours():
    names = ["a_very_long_name_" * 4 + "1", "[red]two"]
    text = said(evaluate_arrays([TRUTH] * 2, [TRUTH] * 2, task=INSTANCES, names=names), 80)
    joined = "".join(line[:26].rstrip() for line in text.splitlines()[1:5])
    assert names[0] in joined
    assert "[red]two" in text

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ubend.errors import FileError
from ubend.faces.curves import in_words, print_curve, save_curve
from ubend.run.evaluation import Evaluation
from ubend.run.learning_curve import CurvePlan, LearningCurve
from ubend.run.pooling import Score, mean_of_images


def curve_of(law, images=12):
    repeat_of = [k * 4 // images for k in range(images)]
    noise = np.random.default_rng(0).normal(0, 0.004, (4, images))
    evaluations = tuple(
        Evaluation("binary", tuple("abcdefghijkl")[:images], (mean_of_images(Score("IoU", "overlap", "pixels"), row),))
        for row in law(np.array([[1.0], [2.0], [4.0], [9.0]])) + noise
    )
    held = tuple(tuple(k for k, of in enumerate(repeat_of) if of == r) for r in range(4))
    plan = CurvePlan(images, (1, 2, 4, 9), held, ((), (), (), ()), minutes=0.5)
    return LearningCurve(plan, evaluations, tuple(repeat_of))


@pytest.fixture(scope="module")
def rising():
    return curve_of(lambda n: 0.9 - 0.5 / n)


@pytest.fixture(scope="module")
def flat():
    return curve_of(lambda n: 0.8 + 0 * n)


def test_the_answer_in_words(rising):
    answer, caveat = in_words(rising)
    assert answer.startswith("With your 12 images: IoU 0.86 (95 % 0.8")
    assert "12 more would bring about +0.02 (+0.0" in answer
    assert caveat.startswith("Every point comes from trainings of 0.5 minutes: a model that is trained longer")


def test_no_answer_in_words(flat):
    measured, why, _ = in_words(flat)
    assert measured.startswith("With 9 of your 12 images: IoU 0.80 (95 % 0.")
    assert why.startswith("What more would bring these scores do not tell: from 1 to 9 images the score changed by ")


def test_the_table_tells_measured_from_foreseen(rising):
    console = Console(file=io.StringIO(), width=100)
    print_curve(console, rising)
    rows = console.file.getvalue().splitlines()
    assert [row.split()[0] for row in rows[:7]] == ["images", "1", "2", "4", "9", "12", "24"]
    assert [row.endswith("from the curve") for row in map(str.rstrip, rows[:7])] == [False] * 5 + [True] * 2


@pytest.mark.parametrize("name", ["rising", "flat"])
def test_a_picture_with_lines_on_white(name, tmp_path, request):
    save_curve(tmp_path / "curve.png", request.getfixturevalue(name))
    with Image.open(tmp_path / "curve.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (750, 1050, 3)
    assert (pixels[[0, -1]] == 255).all()
    blue = (pixels[..., 2].astype(int) - pixels[..., 0]) > 100  # the law
    assert blue.any() == (name == "rising")
    assert (pixels < 60).any()
    with pytest.raises(FileError, match="exists already"):
        save_curve(tmp_path / "curve.png", request.getfixturevalue(name))


def test_beyond_what_was_measured_the_line_is_dashed(rising, monkeypatch):
    from matplotlib.axes import Axes

    lines = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, **how: lines.append((x, how)) or plot(self, x, y, **how))
    save_curve_to_memory(rising)
    solid, dashed = [(x, how) for x, how in lines if "law" in how.get("label", "")]
    assert max(solid[0]) <= 9 < max(dashed[0]) == pytest.approx(24)
    assert "linestyle" in dashed[1]
    assert "linestyle" not in solid[1]


def save_curve_to_memory(curve):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        save_curve(Path(folder) / "curve.png", curve)

"""The other benchmarks: what they train on is not what they score, and what they would measure can be made."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def names_of(real_data: ModuleType, name: str) -> list[str]:
    if not real_data.DATA.is_dir():
        pytest.skip("the real images are not here")
    return sorted(path.name for path in (real_data.DATA / name / "images").iterdir())


@pytest.mark.parametrize(
    "name",
    ["isbi2012_em", "isbi2012_em, spread", "isbi2012_em, 5", "isbi2012_em, 5 spread", "isbi2012_em, 1", "vnc_sstem",
     "dsb2018", "dic_hela"],
)  # fmt: skip
def test_ten_minutes_score_other_images_than_they_train_on(benchmark, name):
    real_data = benchmark("real_data")
    split = real_data.SETS[name](names_of(real_data, name.split(",")[0]))
    assert not set(split.train) & set(split.test)
    assert len(set(split.train)) == len(split.train) > 0
    assert len(set(split.test)) == len(split.test) > 0


def test_every_split_is_tested(benchmark):
    (mark,) = test_ten_minutes_score_other_images_than_they_train_on.pytestmark
    assert set(mark.args[1]) == set(benchmark("real_data").SETS)


@pytest.mark.parametrize("name", ["dsb2018", "isbi2012_em", "dic_hela"])
def test_ablations_score_other_images_than_they_train_on(benchmark, name):
    ablations = benchmark("ablations")
    names = [Path(file).stem for file in names_of(benchmark("real_data"), name)]
    fold = ablations.FOLDS[name]
    scored = set(fold.score_on(names))
    trained = [fold.train_on(names, seed) for seed in (0, 1, 2)]
    assert scored
    assert not [seed for seed, images in enumerate(trained) if scored & set(images)]
    assert len({tuple(images) for images in trained}) == 3


def test_each_row_of_the_ablations_changes_the_recipe(benchmark):
    ablations = benchmark("ablations")
    default = ablations.recipe_of(ablations.DEFAULT)
    changed = [row for row in ablations.ROWS if row.trains and row != ablations.DEFAULT]
    assert len({row.name for row in ablations.ROWS}) == len(ablations.ROWS)
    assert [row.name for row in changed if ablations.recipe_of(row) == default] == []
    assert not default.budget.width  # what is compared may not follow the minutes


@pytest.mark.parametrize(("macs_of", "width"), [(32, 32), (20, 20), (33, 32), (35, 36)])
def test_our_width_to_a_rival_is_that_of_as_many_multiplications(benchmark, macs_of, width):
    speed = benchmark("speed")
    assert speed.width_of(speed.ubend(macs_of).macs) == width


def test_how_much_faster_is_the_ratio_of_the_medians_by_multiplication(benchmark):
    speed = benchmark("speed")
    ours, theirs = speed.ubend(4), speed.ubend(4, bfloat16=False)
    ours.macs, theirs.macs = 2e9, 1e9
    for what in ("step", "inference"):
        ours.seconds[what], theirs.seconds[what] = [1.0, 9.0, 2.0], [3.0, 1.0, 9.0]
    found = speed.row(ours, theirs)
    assert found["step"] == pytest.approx(2.0 / 4)
    assert found["step_ratio"] == pytest.approx(3.0 / 2.0 * 2)


def test_a_section_of_the_page_is_replaced(benchmark, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one: begin -->\nold\n<!-- one: end -->\nafter\n", encoding="utf-8")
    benchmark("report").write_section("one", "new", page)
    assert page.read_text(encoding="utf-8") == "before\n<!-- one: begin -->\nnew\n<!-- one: end -->\nafter\n"

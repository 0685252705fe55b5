"""benchmarks/few_images.py compares fairly: no image is both trained on and scored, and more images hold the fewer."""

import argparse
import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SETS = ("isbi2012_em", "vnc_sstem", "dsb2018", "coelho2009_nuclei", "dic_hela")


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("few_images")


@pytest.mark.parametrize("name", SETS)
def test_no_image_is_trained_on_and_scored(few_images: ModuleType, name: str) -> None:
    fold = few_images.FOLDS[name]
    for seed in few_images.SEEDS:
        order = fold.training(seed)
        assert sorted(order) == sorted(fold.pool)
        assert not set(order) & set(fold.scored)


@pytest.mark.parametrize("name", SETS)
def test_the_real_images_have_no_fault(few_images: ModuleType, name: str) -> None:
    if not few_images.DATA.is_dir():
        pytest.skip("the real images are not here")
    assert few_images.faults(name) == []


def test_a_fold_that_scores_what_it_trains_on_is_found_out(
    few_images: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = few_images.Fold("binary", ("IoU",), lambda: ["a", "b", "c"], (2,), (0, 2), few_images.spread, "")
    monkeypatch.setitem(few_images.FOLDS, "bad", bad)
    assert few_images.faults("bad") == ["bad: trained on and scored: [2]"]


def test_slices_of_a_stack_lie_far_apart(few_images: ModuleType) -> None:
    first = few_images.spread(range(9), seed=0)
    assert sorted(first) == list(range(9))
    for n, distance in ((2, 4), (3, 2), (5, 1)):
        assert min(abs(a - b) for a in first[:n] for b in first[:n] if a != b) >= distance


def test_neighbours_of_scored_slices_come_last(few_images: ModuleType) -> None:
    assert all(few_images.FOLDS["isbi2012_em"].training(seed)[-2:] == [16, 17] for seed in few_images.SEEDS)


def test_both_cell_lines_are_taken_in_turns(few_images: ModuleType) -> None:
    order = few_images.FOLDS["coelho2009_nuclei"].training(1)
    assert [k % 2 for k in order[:6]] == [0, 1, 0, 1, 0, 1]


def test_more_images_than_there_are_become_one_run(few_images: ModuleType) -> None:
    assert few_images.FOLDS["vnc_sstem"].sizes([1, 2, 5, 10, 20]) == [1, 2, 5, 8]


def test_the_curve_of_ubend_is_measured_first(few_images: ModuleType) -> None:
    chosen = argparse.Namespace(seeds=[0, 1], sets=[], n=[1, 5, 20], minutes=2.0)
    runs = few_images.planned(chosen, few_images.TOOLS, 1)
    assert all(run.tool == "ubend" and run.seed == 0 for run in runs[:15])
    assert {run.n for run in runs[15:30]} == {5}
    assert not [run for run in runs if run.tool == "stardist" and run.set == "isbi2012_em"]


def row(few_images: ModuleType, **values: str) -> dict[str, str]:
    same = {"set": "dic_hela", "n": "5", "minutes_asked": "2", "cores": "1"}
    return dict.fromkeys(few_images.COLUMNS, "") | same | values


def test_seeds_become_a_mean_and_a_spread_and_the_newest_row_counts(few_images: ModuleType) -> None:
    rows = [
        row(few_images, tool="ubend", seed="0", IoU="0.10"),
        row(few_images, tool="ubend", seed="0", IoU="0.80"),
        row(few_images, tool="ubend", seed="1", IoU="0.90"),
        row(few_images, tool="monai", seed="0", IoU="0.86"),
    ]
    table = few_images.table_of(rows, ("2", "1"))
    assert str(table["dic_hela", 5, "IoU", "ubend"]) == "0.850 (0.800–0.900)"
    assert "| dic_hela | IoU | 5 | 0.850 (0.800–0.900) | **0.860** |" in few_images.markdown_of(table)
    assert "ubend is first in 0; not in: dic_hela by IoU at n = 5 (MONAI BasicUNet)." in few_images.standing(table)


def test_tools_are_compared_by_the_seeds_that_both_have(few_images: ModuleType) -> None:
    """A seed draws the images, so a lucky one of ours counts only where the rival has it too."""
    rows = [
        row(few_images, tool="ubend", seed="0", IoU="0.80"),
        row(few_images, tool="ubend", seed="1", IoU="0.99"),
        row(few_images, tool="monai", seed="0", IoU="0.81"),
        row(few_images, tool="nnunet", seed="2", IoU="0.10"),
    ]
    table = few_images.table_of(rows, ("2", "1"))
    assert "1 scores, and ubend is first in 0; not in: dic_hela" in few_images.standing(table)
    assert "**" not in few_images.markdown_of(table)  # nobody shares a seed with nnU-Net


def test_steps_and_the_minutes_of_the_command_are_said(few_images: ModuleType) -> None:
    rows = [
        row(few_images, tool="ubend", steps="900", command_minutes="2.04"),
        row(few_images, tool="ubend", steps="1100", command_minutes="1.98"),
        row(few_images, tool="stardist", steps="33"),
    ]
    assert few_images.steps_made(rows) == "Steps in that time: ubend 900 to 1,100; StarDist 33 to 33."
    assert few_images.clock_kept(rows).endswith("of the minutes given: ubend 0.99 to 1.02 (2 runs).")
    assert few_images.clock_kept(rows[2:]) == ""


def test_other_minutes_stand_in_another_table(few_images: ModuleType) -> None:
    rows = [
        row(few_images, tool="ubend", seed=str(seed), minutes_asked=m) for seed, m in ((0, "2.0"), (1, "2"), (0, "9"))
    ]
    assert few_images.settings(rows) == [("2", "1"), ("9", "1")]

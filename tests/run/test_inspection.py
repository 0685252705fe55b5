from dataclasses import replace

import numpy as np
import pytest

from ubend.data.formats import write_labels
from ubend.errors import FileError
from ubend.run import inspection
from ubend.run.inspection import inspect, rank_unlabelled
from ubend.run.runs import train_folder


def write(folder, discs, names):
    for part, arrays in zip(("images", "masks"), discs, strict=True):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, array in zip(names, arrays, strict=True):
            write_labels(folder / part / f"{name}.tif", array)
    return folder


@pytest.fixture(scope="module")
def trained(discs, tiny, tmp_path_factory):
    """A folder of four images, and a model trained on three of them."""
    folder = write(tmp_path_factory.mktemp("data"), discs, "abcd")
    return folder, train_folder(folder, folder.parent / "run_of_inspection", recipe=tiny, steps=2, device="cpu")


def held_out(model):
    [name] = model.contract.provenance["held_out"]
    return name


def test_only_what_was_held_out_is_looked_at(trained):
    folder, model = trained
    seen = inspect(model, folder)
    assert [one.name for one in seen.images] == [held_out(model)]
    assert (seen.trained_on, seen.complete) == (False, True)
    [one] = seen.images
    assert (one.result == model.segment(one.image)).all()
    assert one.score == pytest.approx(seen.evaluation.overall["IoU"])
    assert one.unsure == pytest.approx(float(one.disagreement.mean()))
    assert one.whole == one.truth.shape == (80, 96)


def test_without_held_out_images_those_trained_on_are_shown_and_it_is_said(trained, discs, tmp_path):
    _, model = trained
    names = list(model.contract.provenance["images"])
    places = ["abcd".index(name) for name in names]
    others = write(tmp_path, tuple([part[k] for k in places] for part in discs), names)
    seen = inspect(model, others)
    assert seen.trained_on
    assert [one.name for one in seen.images] == names


def test_an_image_under_another_name_is_known_again(trained, discs, tmp_path):
    _, model = trained
    names = ["x", "y", "z", "new"]
    images, masks = ([*part[:3], part[3]] for part in discs)
    images[3] = np.roll(images[3], 5)
    seen = inspect(model, write(tmp_path, (images, masks), names))
    unknown = [name for name, letter in zip(names, "abcd", strict=True) if letter == held_out(model)]
    assert not seen.trained_on
    assert [one.name for one in seen.images] == sorted({*unknown, "new"}, key=names.index)


def test_where_time_is_short_one_image_is_looked_at(trained, discs, tmp_path):
    _, model = trained
    images = [np.roll(discs[0][k % 4], k + 1) for k in range(6)]
    folder = write(tmp_path, (images, [discs[1][k % 4] for k in range(6)]), [f"n{k}" for k in range(6)])
    assert len(inspect(model, folder).images) == 6
    seen = inspect(model, folder, seconds=0.0)
    assert len(seen.images) == 1
    assert not seen.complete


def test_of_a_large_image_the_middle(trained, discs, monkeypatch):
    monkeypatch.setattr(inspection, "LARGEST_SIDE", 40)
    folder, model = trained
    [one] = inspect(model, folder).images
    assert (one.truth.shape, one.whole) == ((40, 40), (80, 96))
    whole = discs[1]["abcd".index(one.name)]
    assert (one.truth == whole[20:60, 28:68]).all()


def test_the_worst_comes_first_and_one_without_score_not(trained):
    folder, model = trained
    [one] = inspect(model, folder).images
    some = [replace(one, name=name, score=score) for name, score in (("a", 0.9), ("b", np.nan), ("c", 0.1))]
    seen = inspection.Inspection(tuple(some), inspect(model, folder).evaluation, trained_on=False, complete=True)
    assert [image.name for image in seen.ranked] == ["c", "a"]


def test_images_without_labels_are_ranked(trained, discs):
    folder, model = trained
    ranked = rank_unlabelled(model, folder / "images")
    assert sorted(one.name for one in ranked) == list("abcd")
    assert [one.unsure for one in ranked] == sorted((one.unsure for one in ranked), reverse=True)
    assert len(rank_unlabelled(model, folder / "images", most=2)) == 2


def test_an_empty_folder(trained, tmp_path):
    with pytest.raises(FileError):
        inspect(trained[1], tmp_path)

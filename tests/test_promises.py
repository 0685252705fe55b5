"""What a user may rely on: no seam, the same again, no pickle, nothing lost."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ubend
from ubend.data.formats import write_labels
from ubend.data.simulated import simulate
from ubend.errors import FileError
from ubend.method.geometry import smallest_input_for
from ubend.run.folders import predict_folder
from ubend.run.training import train, train_folder

SOURCE = Path(ubend.__file__).parent


# tiles do not show


@pytest.mark.parametrize("views", ["one", "dihedral", "rotations"])
def test_the_result_does_not_depend_on_the_tile(views, model):
    image = simulate("cells", np.random.default_rng(0), (150, 133)).image
    whole = model.predict(image, tile=smallest_input_for(300, 2), views=views, exact=True)
    for tile in (60, 76, 124):
        tiled = model.predict(image, tile=tile, views=views, exact=True)
        np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_neither_do_the_objects(instance_model, discs):
    image = np.vstack([np.hstack(discs[0][:2]), np.hstack(discs[0][2:])])
    whole = instance_model.segment(image)
    assert whole.max() > 1
    assert (instance_model.segment(image, tile=60) == whole).all()


# the same again


def test_the_same_seed_gives_the_same_model(discs, tiny, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(name) + seed * 7)  # whatever was drawn before
        train(*discs, recipe=replace(tiny, network=replace(tiny.network, dropout=0.2)), steps=5, seed=seed,
              device="cpu").save(tmp_path / name)  # fmt: skip
    one, two, other = (ubend.load(tmp_path / name).network.state_dict() for name in "abc")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_predicting_twice_gives_the_same(model, discs):
    assert (model.predict(discs[0][0]) == model.predict(discs[0][0])).all()


# no pickle


@pytest.mark.parametrize(
    "forbidden",
    [
        r"\b(import|from) pickle\b|\bpickle\.\w", r"\btorch\.(load|save)\b", r"allow_pickle\s*=\s*True",
        r"\byaml\.\w*load\b",
        r"\b(dill|cloudpickle|joblib|shelve|marshal)\b", r"(?<![.\w])(eval|exec)\(", r"__import__\(",
    ],
)  # fmt: skip
def test_nothing_that_is_read_can_run(forbidden):
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in sorted(SOURCE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(forbidden, line)
    ]
    assert found == []


# nothing lost


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mine(discs, tmp_path):
    """A folder with images, labels, a run and results."""
    for part, arrays in zip(("images", "masks", "results"), (*discs, discs[1]), strict=True):
        (tmp_path / part).mkdir()
        for number, array in enumerate(arrays):
            write_labels(tmp_path / part / f"disc_{number}.tif", array)
    return tmp_path


def test_training_into_an_existing_run_is_refused(mine, model, tiny):
    (mine / "run").mkdir()
    model.save(mine / "run" / "model.safetensors")
    before = everything(mine)
    with pytest.raises(FileError, match=r"run already holds model\.safetensors"):
        train_folder(mine, mine / "run", labels="masks", recipe=tiny, steps=1)
    assert everything(mine) == before


def test_training_into_the_folder_of_the_images_adds_three_files(mine, tiny):
    before = everything(mine)
    train_folder(mine, mine, labels="masks", recipe=tiny, steps=1, device="cpu")
    after = everything(mine)
    assert before.items() <= after.items()
    assert {str(path) for path in after.keys() - before.keys()} == {"model.safetensors", "recipe.toml", "log.csv"}


def test_predicting_into_existing_results_is_refused(mine, model):
    before = everything(mine)
    for out in ("results", "masks", "images"):
        with pytest.raises(FileError, match="give --out another folder"):
            predict_folder(model, mine / "images", mine / out)
    assert everything(mine) == before


def test_predicting_changes_no_image(mine, model):
    before = everything(mine)
    predict_folder(model, mine / "images", mine / "new", probabilities=True)
    predict_folder(model, mine / "images", mine / "new", probabilities=True, overwrite=True)
    assert before.items() <= everything(mine).items()

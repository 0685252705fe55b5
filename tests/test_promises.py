"""What a user may rely on: no seam, the same again, no pickle, nothing lost."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ubend
from ubend.data.annotated import Task
from ubend.data.formats import write_labels
from ubend.data.simulated import simulate
from ubend.errors import FileError
from ubend.method.geometry import halo, smallest_input_for, tile_spans
from ubend.method.network import NetworkConfig, UNet
from ubend.method.overlap_tile import cut_tile
from ubend.run.contract import Contract
from ubend.run.folders import predict_folder
from ubend.run.memory import smallest_tile
from ubend.run.model import Model
from ubend.run.normalisation import Normalisation
from ubend.run.runs import train_folder
from ubend.run.training import train

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


def random_model(depth, padding, normalisation, seed):
    """A model with random weights and, where it has them, random statistics of batch normalisation."""
    generator = torch.Generator().manual_seed(seed)
    network = NetworkConfig(width=2, depth=depth, classes=3, padding=padding, normalisation=normalisation, dropout=0.0)
    net = UNet(network, generator=generator)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1, 1), (module.running_var, 0.3, 3), (module.weight, 0.5, 1.5),
                (module.bias, -1, 1),
            ):  # fmt: skip
                torch.nn.init.uniform_(tensor, low, high, generator=generator)
    contract = Contract(
        network=network, task=Task("classes", (0, 1, 2), None), normalisation=Normalisation("percentile", True),
        views="one",
    )  # fmt: skip
    return Model(net.eval(), contract, device="cpu")


models = st.builds(
    random_model,
    depth=st.integers(1, 3),
    padding=st.sampled_from(["none", "same"]),
    normalisation=st.sampled_from(["none", "batch"]),
    seed=st.integers(0, 2**16),
)
shapes = st.tuples(st.integers(1, 60), st.integers(1, 40))


def random_image(shape):
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def right_answer(model, image):
    """The network as trained, on the normalised image mirrored without end: by hand, and padded if it is padded."""
    config = model.contract.network
    low, high = (np.float32(value) for value in np.percentile(image.astype(np.float32), (1, 99.8)))
    high = high if high > low else np.float32(image.max())
    seen = (image - low) / (high - low if high > low else np.float32(1))
    border = halo(config.depth)
    step = 2**config.depth
    if config.padding == "same":  # so much context that no zero reaches the image
        border = 14 * step - 2  # the pooling grid of an unpadded network has its origin at pixel 2
        after = [border + (-2 * border - length) % step for length in image.shape]
    else:
        after = [smallest_input_for(length, config.depth) - border - length for length in image.shape]
    seen = np.pad(seen.astype(np.float32), [(border, end) for end in after], mode="reflect")
    with torch.inference_mode():
        scores = model.network(torch.from_numpy(seen)[None, None])
    start = border if config.padding == "same" else 0
    rows, columns = (slice(start, start + length) for length in image.shape)
    return torch.softmax(scores, 1)[0, :, rows, columns].numpy()


@settings(max_examples=15)
@given(model=models, shape=shapes, extra=st.integers(0, 60))
def test_any_tile_gives_the_network_on_the_image_mirrored_without_end(model, shape, extra):
    image = random_image(shape)
    expected = right_answer(model, image)
    smallest = smallest_tile(model.contract.network)
    for tile in (smallest + 16 + extra, 400):
        found = model.predict(image, tile=tile, exact=True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        top = np.sort(expected, axis=0)
        decided = top[-1] - top[-2] > 2e-5  # a tie has no right label
        assert (found.argmax(0) == expected.argmax(0))[decided].all()


@pytest.mark.parametrize("depth", [4, 5])
@pytest.mark.parametrize("padding", ["none", "same"])
def test_so_do_deep_networks(depth, padding):
    model = random_model(depth, padding, "batch", 1)
    image = random_image((75, 41))
    expected = right_answer(model, image)
    for tile in (smallest_tile(model.contract.network) + 32, 700):
        np.testing.assert_allclose(model.predict(image, tile=tile, exact=True), expected, atol=1e-5)


def tiles_of(image, model, tile):
    """Places and inputs of all tiles."""
    depth = model.contract.network.depth
    rows, columns = (tile_spans(length, largest_input=tile, depth=depth) for length in image.shape)
    offset, gain = (value[:, None, None] for value in model.contract.normalisation.offset_and_gain(image[None]))
    return [
        (row, column, (cut_tile(image[None], row, column).astype(np.float32) - offset) * gain)
        for row in rows
        for column in columns
    ]


def tile_by_tile(model, image, tile, order):
    """What any worker does with any share of the tiles."""
    tiles = tiles_of(image, model, tile)
    result = np.zeros((model.contract.network.classes, *image.shape), np.float32)
    for number in order(len(tiles)):
        row, column, part = tiles[number]
        with torch.inference_mode():
            scores = model.predictor(torch.from_numpy(part)[None].contiguous(memory_format=torch.channels_last))
        found = torch.softmax(scores, 1)[0].numpy()[:, : row.stop - row.start, : column.stop - column.start]
        result[:, row.start : row.stop, column.start : column.stop] = found
    return result


@settings(max_examples=15)
@given(model=models, shape=shapes, extra=st.integers(0, 40), data=st.data())
def test_with_one_tile_shape_the_order_changes_no_bit(model, shape, extra, data):
    image = random_image(shape)
    tile = smallest_tile(model.contract.network) + 16 + extra

    def shuffled(count):
        return data.draw(st.permutations(range(count)))

    found = tile_by_tile(model, image, tile, shuffled)
    assert (found == model.predict(image, tile=tile, exact=True)).all()
    assert len({part.shape for _, _, part in tiles_of(image, model, tile)}) == 1


HALF = """
import sys
import numpy as np
import torch
import ubend
sys.path.insert(0, sys.argv[1])
from test_promises import tile_by_tile
torch.set_num_threads(int(sys.argv[4]))
model, image = ubend.load(sys.argv[2], device="cpu"), np.load(sys.argv[3])
np.save(sys.argv[5], tile_by_tile(model, image, 100, lambda count: range(int(sys.argv[6]), count, 2)))
"""


def test_nor_does_the_number_of_processes_and_threads(tmp_path):
    model, image = random_model(2, "same", "batch", 0), random_image((90, 61))
    model.save(tmp_path / "model.safetensors")
    np.save(tmp_path / "image.npy", image)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HALF, Path(__file__).parent, tmp_path / "model.safetensors", tmp_path / "image.npy",
             str(threads), tmp_path / f"{part}.npy", str(part)],
            env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
        )
        for part, threads in ((0, 1), (1, 2))
    ]  # fmt: skip
    assert [worker.wait() for worker in workers] == [0, 0]
    parts = [np.load(tmp_path / f"{part}.npy") for part in (0, 1)]
    assert all(part.any() for part in parts)
    assert (parts[0] + parts[1] == model.predict(image, tile=100, exact=True)).all()


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
        r"\b(import|from) pickle\b(?! import UnpicklingError$)|\bpickle\.\w",
        r"\btorch\.save\b|\btorch\.load\b(?!\(.*\bweights_only=True\)$)", r"allow_pickle\s*=\s*True",
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

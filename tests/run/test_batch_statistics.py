"""The statistics of an image: those of training, the same for all tiles, and of nothing but the image."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from ubend.data.annotated import Annotated, Task
from ubend.data.large import open_large
from ubend.data.tiles import TileConfig
from ubend.errors import FileError, OutOfMemory
from ubend.method.augmentation import AugmentationConfig
from ubend.method.network import (
    Measured,
    NetworkConfig,
    UNet,
    for_prediction,
    measure_statistics,
    training_statistics,
)
from ubend.run import batch_statistics, prediction, scale
from ubend.run.batch_statistics import (
    MOST_PARTS,
    adapts,
    measure_image,
    measuring_bytes,
    network_for_image,
    starts,
    statistics_for,
)
from ubend.run.contract import Contract
from ubend.run.disagreement import predict_with_disagreement
from ubend.run.memory import parse_bytes
from ubend.run.model import Model
from ubend.run.normalisation import Normalisation
from ubend.run.preparation import annotated_images, make_contract
from ubend.run.recipe import PredictionConfig, Recipe, load_recipe
from ubend.run.scale import compute_block, predict_large
from ubend.run.training import train, with_batch_of
from ubend.run.validation import probabilities_of

CONFIG = NetworkConfig(width=4, depth=2, padding="same", normalisation="batch", dropout=0.0)
SIDE = 64


@pytest.fixture
def net():
    """A network whose averages of training are far from what any image gives."""
    net = UNet(CONFIG, generator=torch.Generator().manual_seed(1))
    for name, values in net.state_dict().items():
        if name.endswith("running_mean"):
            values.fill_(0.05)
        elif name.endswith("running_var"):
            values.fill_(0.3)
    return net.eval()


@pytest.fixture(autouse=True)
def always_by_the_image(monkeypatch):
    """These networks have learned nothing, and are sure of nothing."""
    monkeypatch.setattr(batch_statistics, "SURER", -1.0)
    monkeypatch.setattr(batch_statistics, "SURE", 0.0)


@pytest.fixture
def contract():
    recipe = Recipe(network=CONFIG, tiles=TileConfig(size=SIDE))
    of_range = Normalisation("range", together=False)
    return Contract(
        network=CONFIG, task=Task("binary", (0, 1), None), normalisation=of_range, views="one", statistics="image",
        recipe=recipe,
    )  # fmt: skip


def noise(rows, columns, seed=0):
    rough = np.random.default_rng(seed).random((rows // 4 + 1, columns // 4 + 1), dtype=np.float32)
    return np.kron(rough, np.ones((4, 4), np.float32))[:rows, :columns] / 2


def in_training(net, image):
    """What the network gives in a training step."""
    net.train()
    with torch.no_grad():
        return net(torch.from_numpy(image)[None, None])[0].softmax(0).numpy()


def test_a_tile_is_seen_as_in_training(net, contract):
    image, edge = noise(SIDE + 4, SIDE + 4), 24  # what zeros beyond the border of a padded network reach
    inside = np.s_[:, edge:-edge, edge:-edge]
    expected = in_training(net, image[2:-2, 2:-2])  # prediction begins to pool there
    plain = Model(net, replace(contract, statistics="training"), device="cpu").predict(image, exact=True)
    found = Model(net, contract, device="cpu").predict(image, exact=True)
    assert np.abs(found[:, 2:-2, 2:-2] - expected)[inside].max() < 1e-5
    assert np.abs(plain[:, 2:-2, 2:-2] - expected)[inside].max() > 0.01


@pytest.mark.parametrize("tiles", [1, 3])
def test_the_statistics_are_those_of_batch_normalisation(net, tiles):
    """Of several tiles together: each layer sees what prediction will give it."""
    empty = np.zeros((SIDE, SIDE), np.float32)
    seen = torch.from_numpy(np.stack([noise(SIDE, SIDE), empty, empty])[:tiles])[:, None]
    found, scores, by_training = measure_statistics(net, seen)
    with torch.no_grad():
        torch.testing.assert_close(by_training, net(seen))
        net.train()
        torch.testing.assert_close(scores, net(seen), rtol=1e-4, atol=1e-5)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net(seen)
    mean, variance = (torch.cat([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var"))
    np.testing.assert_allclose(found[0], mean, atol=1e-5)
    np.testing.assert_allclose(found[1], variance, rtol=0.02, atol=1e-5)  # PyTorch keeps n/(n − 1) times the variance
    np.testing.assert_allclose(training_statistics(net), np.stack([mean, variance]))


def test_measuring_leaves_the_network(net):
    before = {name: values.clone() for name, values in net.state_dict().items()}
    measure_statistics(net, torch.rand(1, 1, SIDE, SIDE))
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    assert not net.training


def test_a_dimmer_image_is_segmented_alike(net, contract):
    """Brightness comes and goes with the first statistics."""
    image = noise(100, 120)
    model = Model(net, contract, device="cpu")
    bright, dim = (model.predict(image * factor, exact=True) for factor in (1.0, 0.4))
    assert np.ptp(bright[1]) > 0.1
    assert np.abs(bright - dim).max() < 0.01
    plain = Model(net, replace(contract, statistics="training"), device="cpu")
    assert np.abs(plain.predict(image) - plain.predict(image * 0.4)).max() > 0.02


@pytest.mark.parametrize("shape", [(30, 300), (150, 130)])
@pytest.mark.parametrize("coarse", [0, 1])
def test_tiles_do_not_show(net, contract, shape, coarse):
    config = replace(CONFIG, coarse=coarse, depth=2 + coarse)
    of_coarse = replace(contract, network=config)
    trained = UNet(config)
    trained.load_state_dict(net.state_dict())
    model, image = Model(trained, of_coarse, device="cpu"), noise(*shape)
    whole, in_tiles = (model.predict(image, tile=tile, exact=True) for tile in (500, 100 << coarse))
    assert np.abs(whole - in_tiles).max() < 1e-5


def test_views_and_disagreement_have_the_same_statistics(net, contract):
    model = Model(net, replace(contract, views="dihedral"), device="cpu")
    image = noise(90, 110)
    found, _ = predict_with_disagreement(model, image)
    np.testing.assert_array_equal(found, model.predict(image))
    part, _ = predict_with_disagreement(model, image, rows=slice(0, 50))
    assert np.abs(part - found[:, :50])[:, :20].max() < 0.02  # of the whole image, though only a part is predicted


def test_the_same_bits_on_any_number_of_threads(net, contract):
    image, before = noise(200, 200), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(Model(net, contract, device="cpu").predict(image, exact=True))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_predicting_leaves_the_callers_random_numbers(net, contract):
    model, image = Model(net, contract, device="cpu"), noise(40, 40)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.predict(image)
    assert torch.equal(torch.rand(3), expected)


def test_parts_lie_all_over_the_image(net, contract):
    """What is bright in one corner counts, wherever it is."""
    seen = []

    def read(rows, columns):
        seen.append((rows.start, rows.stop, columns.start, columns.stop))
        return np.zeros((1, rows.stop - rows.start, columns.stop - columns.start), np.float32)

    one = np.ones(1, np.float32)
    measure_image(net, contract, (1000, 90), read, 0 * one, one)
    assert seen == [(0, 64, 13, 77), (936, 1000, 13, 77)]


@pytest.mark.parametrize("length", [1, 63, 64, 65, 96, 97, 160, 161, 10**6])
def test_parts_lie_within_the_image(length):
    first = starts(length, 64)
    assert 1 <= len(first) <= MOST_PARTS
    assert first == sorted(set(first))
    assert first[0] >= 0
    assert first[-1] + 64 <= max(length, 64)


def test_an_image_goes_by_itself_where_the_network_is_surer_by_that(net, contract, monkeypatch):
    image = noise(90, 90)
    adapting, plain = (Model(net, replace(contract, statistics=by), device="cpu") for by in ("image", "training"))
    by_image, by_training = (model.predict(image, exact=True) for model in (adapting, plain))
    assert np.abs(by_image - by_training).max() > 0.01
    found = measure_statistics(net, torch.from_numpy(image[None, None, 13:77, 13:77]))
    sure, before = (batch_statistics.how_sure(scores, contract)[0] for scores in found[1:])
    gain = sure - before
    for surer, least, expected in (
        (gain - 1e-4, sure - 1e-4, by_image), (gain + 1e-4, 0.0, by_training), (-1.0, sure + 1e-4, by_training),
    ):  # fmt: skip
        monkeypatch.setattr(batch_statistics, "SURER", surer)
        monkeypatch.setattr(batch_statistics, "SURE", least)
        np.testing.assert_array_equal(adapting.predict(image, exact=True), expected)


@pytest.mark.parametrize("finds", ["nothing by the image", "nothing by the training", "less than half"])
def test_what_finds_nothing_or_little_is_not_taken_for_sure(net, contract, monkeypatch, finds):
    sure, unsure, nothing = ([[-9.0], [9.0]], [[0.0], [1.0]], [[9.0], [-9.0]])
    by_image, by_training = {
        "nothing by the image": ([nothing] * 4, [unsure] * 4),
        "nothing by the training": ([sure] * 4, [nothing] * 4),
        "less than half": ([sure, nothing, nothing, nothing], [unsure, unsure, unsure, nothing]),
    }[finds]
    monkeypatch.undo()
    statistics = training_statistics(net) + 1
    found = Measured(statistics, *(torch.tensor(scores)[..., None] for scores in (by_image, by_training)))
    monkeypatch.setattr(batch_statistics, "measure_statistics", lambda *_: found)
    one = np.ones(1, np.float32)
    read = lambda *_: np.zeros((1, SIDE, SIDE), np.float32)  # noqa: E731
    taken = measure_image(net, contract, (SIDE, SIDE), read, 0 * one, one)
    np.testing.assert_array_equal(taken, training_statistics(net))
    found = found._replace(
        scores=torch.tensor([sure] * 4)[..., None], by_training=torch.tensor([unsure] * 4)[..., None]
    )
    np.testing.assert_array_equal(measure_image(net, contract, (SIDE, SIDE), read, 0 * one, one), statistics)


def test_statistics_of_what_is_not_finite_are_not_taken(net, contract):
    pixels = np.full((1, SIDE, SIDE), np.nan, np.float32)
    one = np.ones(1, np.float32)
    taken = measure_image(net, contract, (SIDE, SIDE), lambda *_: pixels, 0 * one, one)
    np.testing.assert_array_equal(taken, training_statistics(net))


def test_how_sure_a_network_is_counts_what_it_finds(contract):
    def sure(probabilities, **changes):
        scores = torch.tensor(probabilities).log()[None, :, None, :]
        return batch_statistics.how_sure(scores, replace(contract, **changes))[0]

    foreground = [0.1, 0.2, 0.6, 0.9]
    two = [[1 - p for p in foreground], foreground]
    assert sure(two) == pytest.approx(0.75)
    assert sure([[0.9, 0.8], [0.1, 0.2]]) == 0.0  # nothing is found
    cells = {"task": Task("instances", (), None), "network": replace(CONFIG, classes=3)}
    assert sure([*two, [0.5] * 4], **cells) == pytest.approx(0.75)  # the distance is no class
    classes = {"task": Task("classes", (0, 1), None)}
    assert sure(two, **classes) == pytest.approx((0.9 + 0.8 + 0.6 + 0.9) / 4)


def test_noise_and_nothing_go_by_the_training(net, contract, monkeypatch):
    """A network that has learned little is not sure of what it finds in noise."""
    monkeypatch.undo()
    adapting, plain = (Model(net, replace(contract, statistics=by), device="cpu") for by in ("image", "training"))
    for image in (noise(90, 90), np.full((90, 90), 0.3, np.float32), np.zeros((90, 90), np.uint8)):
        np.testing.assert_array_equal(adapting.predict(image), plain.predict(image))


def test_an_image_of_which_most_is_empty_has_no_seams(net, contract):
    image = np.zeros((300, 300), np.float32)
    image[200:, 200:] = noise(100, 100)
    model = Model(net, contract, device="cpu")
    whole, in_tiles = (model.predict(image, tile=tile, exact=True) for tile in (500, 100))
    assert np.abs(whole - in_tiles).max() < 1e-5


@pytest.mark.parametrize("padding", ["same", "none"])
def test_a_network_in_training_without_it_is_made_ready(padding):
    """As folds, validation and the choice of rules predict: unpadded, without dropout."""
    config = NetworkConfig(width=4, depth=2, padding=padding, normalisation="none", dropout=0.5)
    trained = UNet(config).train()
    contract = Contract(
        network=config, task=Task("binary", (0, 1), None), normalisation=Normalisation("range", together=False),
        views="one", statistics="image",
    )  # fmt: skip
    image = noise(70, 90)
    [found] = probabilities_of(trained, [Annotated("one", image, np.zeros(image.shape, np.int32), None)], contract)
    np.testing.assert_array_equal(found, Model(trained, contract, device="cpu").predict(image))


def test_a_network_of_batch_normalisation_without_the_image_is_folded(net, contract):
    plain = replace(contract, statistics="training")
    image = noise(70, 90)
    [found] = probabilities_of(net.train(), [Annotated("one", image, np.zeros(image.shape, np.int32), None)], plain)
    np.testing.assert_array_equal(found, Model(net, plain, device="cpu").predict(image))


@pytest.mark.parametrize("image", ["gray", "bool", "channels", "row", "point"])
def test_any_image_is_measured(net, contract, image):
    pixels = {
        "gray": (noise(40, 50) * 200).astype(np.uint8), "bool": noise(40, 50) > 0.2, "row": noise(1, 300),
        "point": noise(1, 1), "channels": np.stack([noise(70, 70)] * 3, -1),
    }[image]  # fmt: skip
    found = Model(net, contract, device="cpu").predict(pixels)
    assert found.shape == (2, *pixels.shape[:2])
    assert np.isfinite(found).all()


def test_memory_that_does_not_hold_what_measuring_takes_is_said(net, contract, monkeypatch):
    model, image = Model(net, contract, device="cpu"), noise(300, 300)
    assert measuring_bytes(replace(contract, statistics="training"), image.shape) == 0
    needed = measuring_bytes(contract, image.shape)
    monkeypatch.setattr(prediction, "resident_memory", lambda: 10**8)
    monkeypatch.setattr(prediction, "free_memory", lambda _device: 10**11)
    with pytest.raises(OutOfMemory, match=r"measuring the image \d+MB; --memory (\d+MB) would do") as refused:
        model.predict(image, memory=10**8 + needed - 1)
    model.predict(image, memory=parse_bytes(str(refused.value).split("--memory ")[1].split()[0]))


def test_networks_without_it_and_other_models_do_not_adapt(net, contract):
    assert adapts(contract)
    assert not adapts(replace(contract, statistics="training"))
    assert not adapts(replace(contract, network=NetworkConfig(width=4, depth=2)))
    pixels, one = noise(50, 50)[None], np.ones((1, 1, 1), np.float32)
    folded = for_prediction(net)
    assert network_for_image(folded, contract, pixels, 0 * one, one) is folded


def test_of_several_tiles_a_step_the_averages_of_training_count(discs):
    """Training had the statistics of all tiles together."""
    recipe = Recipe(
        network=CONFIG, tiles=TileConfig(size=SIDE, batch=1), prediction=PredictionConfig(statistics="image"),
        augmentation=AugmentationConfig(elastic_sigma=0.0),
    )  # fmt: skip
    assert statistics_for(recipe) == "image"
    four = replace(recipe, tiles=replace(recipe.tiles, batch=4))
    assert statistics_for(four) == "training"
    assert statistics_for(replace(recipe, network=replace(CONFIG, normalisation="none"))) == "training"
    assert train(*discs, recipe=recipe, steps=1, device="cpu").contract.statistics == "image"
    assert train(*discs, recipe=four, steps=1, device="cpu").contract.statistics == "training"
    made = make_contract(recipe, Task("binary", (0, 255), None), annotated_images(*discs))
    assert with_batch_of(made, SimpleNamespace(number=1)).statistics == "image"
    assert with_batch_of(made, SimpleNamespace(number=2)).statistics == "training"


def test_training_on_goes_on_with_those_of_the_model(discs):
    recipe = Recipe(network=CONFIG, tiles=TileConfig(size=SIDE, batch=1))
    before = train(*discs, recipe=recipe, steps=1, device="cpu")
    adapting = replace(recipe, prediction=PredictionConfig(statistics="image"))
    assert train(*discs, recipe=adapting, steps=1, device="cpu", start=before).contract.statistics == "training"


@pytest.fixture
def planes(net, contract, tmp_path):
    """A model file, and an image of two planes of which one is much dimmer."""
    model = Model(net, contract, device="cpu")
    model.save(tmp_path / "model.safetensors")
    images = np.stack([noise(180, 150), 0.3 * noise(180, 150, seed=1)])
    tifffile.imwrite(tmp_path / "two.tif", images, metadata={"axes": "ZYX"})
    return model, images, tmp_path


def test_each_plane_of_a_large_image_has_its_own(planes):
    model, images, folder = planes
    found = predict_large(
        folder / "model.safetensors", folder / "two.tif", folder / "out", tile=108, probabilities=True, exact=True
    )
    read = open_large(found.probabilities)
    for plane, image in zip(read.planes, images, strict=True):
        whole = read.read(plane, slice(None), slice(None))
        assert np.abs(whole[-1] - model.predict(image, exact=True)[1]).max() < 2 / 255  # kept as 8 bits or better


def test_what_is_continued_has_the_statistics_that_it_began_with(planes):
    """Another machine rounds differently: what the first process measured counts."""
    folder, measured = planes[-1], []

    def stopped(work, blocks, done):
        done(blocks[0], compute_block(work, blocks[0]))
        file = Path(work.folder) / "statistics.npy"
        measured.append(np.load(file, allow_pickle=False))
        np.save(file, 1.01 * measured[-1])  # as another machine would have measured it
        raise KeyboardInterrupt

    arguments = (folder / "model.safetensors", folder / "two.tif", folder / "out")
    with pytest.raises(KeyboardInterrupt):
        predict_large(*arguments, tile=108, engine=stopped)
    assert measured[0].shape[:2] == (2, 2)
    assert np.abs(measured[0][0] - measured[0][1]).max() > 0.1
    with pytest.raises(KeyboardInterrupt):
        predict_large(*arguments, tile=108, engine=stopped, resume=True)
    np.testing.assert_allclose(measured[1], 1.01 * measured[0])


@pytest.mark.parametrize("damage", [b"", b"nothing", None])
def test_kept_statistics_that_are_damaged_are_told(planes, damage):
    folder = planes[-1]

    def stopped(work, blocks, done):
        done(blocks[0], compute_block(work, blocks[0]))
        file = Path(work.folder) / "statistics.npy"
        file.write_bytes(file.read_bytes()[:-9] if damage is None else damage)
        raise KeyboardInterrupt

    arguments = (folder / "model.safetensors", folder / "two.tif", folder / "out")
    with pytest.raises(KeyboardInterrupt):
        predict_large(*arguments, tile=108, engine=stopped)
    with pytest.raises(FileError, match=r"statistics\.npy is damaged, so that nothing can be continued: --overwrite"):
        predict_large(*arguments, tile=108, resume=True)
    predict_large(*arguments, tile=108, overwrite=True)


def test_workers_have_the_statistics_that_are_kept(planes, monkeypatch):
    """They are read, not measured anew."""
    folder, looked = planes[-1], []
    monkeypatch.setattr(scale, "measure_image", lambda *a: looked.append(1) or measure_image(*a))
    predict_large(folder / "model.safetensors", folder / "two.tif", folder / "out", tile=108)
    assert len(looked) == 2  # one a plane, not one a block


def test_recipes_say_which():
    assert load_recipe("default").prediction.statistics == "image"
    assert load_recipe("paper").prediction.statistics == "training"


def test_a_contract_from_before_has_the_averages_of_training(contract):
    values = contract.to_dict()
    del values["statistics"]
    assert Contract.from_dict(values).statistics == "training"

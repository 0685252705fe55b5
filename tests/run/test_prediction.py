import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from ubend.data.annotated import Task
from ubend.errors import InputError, OutOfMemory
from ubend.method.geometry import smallest_input_for
from ubend.method.network import NetworkConfig, UNet
from ubend.method.objects import ObjectRules
from ubend.run import prediction
from ubend.run.contract import Contract
from ubend.run.labels import predict_labels
from ubend.run.memory import label_bytes, parse_bytes, result_bytes, tile_bytes
from ubend.run.model import Model
from ubend.run.normalisation import Normalisation
from ubend.run.prediction import DIHEDRAL, ROTATIONS, _turned, _turned_back, choose_tile


def random_model(*, channels=1, classes=3, depth=2, kind="percentile", width=4):
    """A padded network with weights and batch statistics as after training."""
    generator = torch.Generator().manual_seed(0)
    config = NetworkConfig(
        in_channels=channels, classes=classes, width=width, depth=depth, padding="same", normalisation="batch"
    )
    net = UNet(config, generator=generator)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1, 1), (module.running_var, 0.3, 3), (module.weight, 0.5, 1.5),
                (module.bias, -1, 1),
            ):  # fmt: skip
                torch.nn.init.uniform_(tensor, low, high, generator=generator)
    task = Task("classes", tuple(range(classes)), None)
    return Model(net.eval(), Contract(network=config, task=task, normalisation=Normalisation(kind, True), views="one"))


def noise(*shape):
    return np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def net():
    return random_model()


# tiles


@pytest.mark.parametrize("views", ["one", "dihedral"])
@pytest.mark.parametrize("shape", [(130, 95), (64, 64), (61, 7)])
def test_tiles_do_not_show(views, shape, net):
    image = noise(*shape)
    whole = net.predict(image, views=views, exact=True)
    assert whole.shape == (3, *shape)
    assert whole.std() > 0.05
    for tile in (44, 60, 76, 161):
        np.testing.assert_allclose(net.predict(image, views=views, tile=tile, exact=True), whole, atol=1e-5)


def test_tiles_do_not_show_in_deep_networks():
    net = random_model(depth=4, width=2)
    image = noise(150, 220)
    whole = net.predict(image, tile=1020, exact=True)
    for tile in (204, 252):
        np.testing.assert_allclose(net.predict(image, tile=tile, exact=True), whole, atol=1e-5)


def test_tiles_do_not_show_in_rotated_views(net):
    image = noise(50, 41)
    whole = net.predict(image, views="rotations", exact=True)
    np.testing.assert_allclose(net.predict(image, views="rotations", tile=60, exact=True), whole, atol=1e-5)
    assert np.abs(whole - net.predict(image, views="one", exact=True)).max() > 1e-3


@pytest.mark.parametrize("views", ["one", "dihedral", "rotations"])
def test_probabilities_sum_to_one(views, net):
    probabilities = net.predict(noise(30, 40), views=views)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_a_mirrored_image_gives_the_mirrored_result(net):
    image = noise(44, 44)  # a multiple of 2^depth: the pooling grid lies alike from both ends
    straight = net.predict(image, views="dihedral", exact=True)
    np.testing.assert_allclose(
        net.predict(image[:, ::-1].copy(), views="dihedral", exact=True), straight[..., ::-1], atol=1e-5
    )


def test_views_turn_back():
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    seen = {tuple(_turned(x, *view).flatten().tolist()) for view in DIHEDRAL}
    assert len(seen) == 8
    for view in DIHEDRAL:
        assert torch.equal(_turned_back(_turned(x, *view), *view), x)


def test_progress_is_told(net):
    told = []
    net.predict(noise(100, 50), tile=60, on_tile=lambda done, of: told.append((done, of)))
    assert told == [(k, told[-1][1]) for k in range(1, len(told) + 1)]
    assert told[-1][1] > 4
    told.clear()
    net.predict(noise(20, 20), views="rotations", on_tile=lambda done, of: told.append((done, of)))
    assert told == [(k, ROTATIONS) for k in range(1, ROTATIONS + 1)]


def test_a_view_that_is_none(net):
    with pytest.raises(InputError, match="views is 'one' or 'dihedral' or 'rotations', not 'eight'"):
        net.predict(noise(20, 20), views="eight")


# images


def test_a_network_sees_the_normalised_image(net):
    """As training does, by hand: one tile of the whole image, padded by mirroring, through the folded network."""
    image = noise(36, 44)
    low, high = np.percentile(image, (1, 99.8))
    seen = np.pad((image - low) / (high - low), 20, mode="reflect")  # the halo of depth 2
    with torch.inference_mode():
        scores = net.predictor(
            torch.from_numpy(np.pad(seen, ((0, 4), (0, 4)), mode="reflect").astype(np.float32))[None, None]
        )
    np.testing.assert_allclose(torch.softmax(scores, 1)[0, :, :36, :44], net.predict(image, exact=True), atol=1e-4)


@pytest.mark.parametrize("scale", [2, 100])
def test_brightness_and_contrast_of_an_image_do_not_matter(scale, net):
    image = noise(40, 40).astype(np.uint16)
    np.testing.assert_allclose(net.predict(image * scale + 300, exact=True), net.predict(image, exact=True), atol=1e-4)


def test_channels(net):
    gray, colour = noise(20, 24), noise(20, 24, 3)
    as_colour = np.stack([gray] * 3, -1)
    assert (net.predict(as_colour) == net.predict(gray)).all()
    with pytest.raises(InputError, match="the image has 3 channels, the model takes 1"):
        net.predict(colour)
    three = random_model(channels=3)
    assert (three.predict(np.moveaxis(colour, -1, 0)) == three.predict(colour)).all()
    with pytest.raises(InputError, match="the image has 1 channel, the model takes 3: give images like those"):
        three.predict(gray)


@pytest.mark.parametrize("kind", ["percentile", "range", "standardise"])
@pytest.mark.parametrize("image", [
    np.zeros((1, 1), np.uint8), np.full((1, 70), 9, np.int64), np.full((40, 30), 1e-30), np.eye(30, dtype=bool),
    np.zeros((3, 2), np.float16), np.full((5, 5), 2**63, np.uint64),
])  # fmt: skip
def test_odd_images(kind, image):
    probabilities = random_model(kind=kind).predict(image)
    assert probabilities.shape == (3, *image.shape)
    if image.max() <= 1:
        assert np.isfinite(probabilities).all()


def test_nan_is_refused(net):
    with pytest.raises(InputError, match="NaN or infinite at 4 places"):
        net.predict(np.full((2, 2), np.nan))


def test_the_image_stays_as_it_was(net):
    image = noise(30, 30).astype(np.float32)
    before = image.copy()
    image.flags.writeable = False
    net.predict(image, views="dihedral")
    assert (image == before).all()


# memory


def test_a_tile_that_is_too_small(net):
    with pytest.raises(InputError, match="a tile of 43 px is too small for this network; the smallest is 44"):
        net.predict(noise(40, 40), tile=43)
    net.predict(noise(40, 40), tile=44)


def test_a_tile_that_does_not_fit_names_one_that_does(net, monkeypatch):
    network = net.contract.network
    monkeypatch.setattr(prediction, "mixed_precision", lambda _device: None)
    monkeypatch.setattr(prediction, "free_memory", lambda _device: 2 * tile_bytes(network, 100))
    image = noise(300, 300)
    with pytest.raises(
        OutOfMemory, match=r"a tile of 200 px needs about 1\dMB, and 1\dMB are free for it; --tile 100 fits"
    ):
        net.predict(image, tile=200)
    net.predict(image, tile=100)
    net.predict(image)  # chooses one itself
    net.predict(noise(20, 20), tile=200)  # a small image needs no tile of that size


def test_no_memory_at_all(net, monkeypatch):
    monkeypatch.setattr(prediction, "free_memory", lambda _device: 1000)
    with pytest.raises(OutOfMemory, match="the smallest tile of this network, 44 px, needs"):
        net.predict(noise(20, 20))


@pytest.fixture
def held(monkeypatch):
    """As if the process held 100 MB, on a machine with much more."""
    monkeypatch.setattr(prediction, "resident_memory", lambda: 10**8)
    monkeypatch.setattr(prediction, "free_memory", lambda _device: 10**11)
    return 10**8


@pytest.mark.parametrize("size", [44, 124, 300])
def test_stated_memory_is_used_up(size, net, held):
    network, shape = net.contract.network, (700, 600)
    memory = held + result_bytes(network, shape) + max(tile_bytes(network, size), label_bytes(shape, instances=False))
    cpu = torch.device("cpu")
    assert choose_tile(net.contract, shape, cpu, memory=memory, exact=True) >= size
    more = held + result_bytes(network, shape) + tile_bytes(network, size + 80)
    assert choose_tile(net.contract, shape, cpu, memory=more, exact=True) == size + 80
    assert choose_tile(net.contract, (30, 20), cpu, memory=more) == smallest_input_for(30, 2)


def test_freed_memory_is_kept_only_where_there_is_room(net, held, monkeypatch):
    entered = []
    monkeypatch.setattr(prediction, "own_pages", lambda: contextlib.nullcontext(entered.append("own")))
    for spare, expected in ((1.0, ["own"]), (3.0, [])):
        memory = (
            held + result_bytes(net.contract.network, (90, 90)) + int(spare * tile_bytes(net.contract.network, 132))
        )
        entered.clear()
        net.predict(noise(90, 90), memory=memory, exact=True)
        assert entered == expected


def test_an_image_that_does_not_fit_names_what_would_do(net, held):
    image = noise(400, 300)
    with pytest.raises(
        OutOfMemory, match=r"an image of 400×300 px does not fit 101MB.*; --memory (\d+MB) would do"
    ) as caught:
        net.predict(image, memory=held + 10**6)
    least = parse_bytes(str(caught.value).split("--memory ")[1].split()[0])
    assert net.predict(image, memory=least).shape == (3, 400, 300)
    with pytest.raises(OutOfMemory, match="does not fit"):
        net.predict(image, memory=int(0.97 * least))


MEMORY_ERRORS = [
    MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), torch.OutOfMemoryError("CUDA")
]  # fmt: skip


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_memory_that_runs_out_with_a_tile_asked_for(error, net, monkeypatch):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(UNet, "forward", fail)
    with pytest.raises(OutOfMemory, match=r"tiles of 120 px do not fit the memory of cpu; try --tile 84"):
        net.predict(noise(300, 300), tile=120)
    told = []
    with pytest.raises(OutOfMemory, match="tiles of 44 px do not fit the memory of cpu, and there is no smaller one"):
        net.predict(noise(300, 300), on_smaller_tile=lambda *tiles: told.append(tiles))
    assert told[0] == (340, 236)
    assert told[-1][1] == 44


@pytest.mark.parametrize("views", ["one", "rotations"])
@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_memory_that_runs_out_once_gives_smaller_tiles(error, views, net, monkeypatch):
    expected = net.predict(noise(120, 110), views=views, exact=True)
    forward, sizes = UNet.forward, []

    def fail_first(self, image):
        sizes.append(image.shape[-1])
        if len(sizes) == 2 - (views == "one"):
            raise error
        return forward(self, image)

    monkeypatch.setattr(UNet, "forward", fail_first)
    told = []
    found = net.predict(noise(120, 110), views=views, exact=True, on_smaller_tile=lambda *tiles: told.append(tiles))
    assert len(told) == 1
    old, new = told[0]
    assert max(sizes[3:]) <= new < old
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_other_errors_are_not_called_memory(net, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(prediction, "predict_tiles", fail)
    with pytest.raises(RuntimeError, match="something else"):
        net.predict(noise(30, 30))


# labels


def labels(contract, foreground):
    foreground = np.array([foreground], np.float32)
    return predict_labels(contract, np.stack([1 - foreground, foreground]))


def test_labels_have_the_values_of_training(model):
    found = labels(model.contract, [0.2, 0.7])
    assert found.tolist() == [[0, 255]]
    assert found.dtype == np.uint8
    other = replace(model.contract, task=Task("binary", (3, 700), None))
    found = labels(other, [0.2, 0.7])
    assert found.tolist() == [[3, 700]]
    assert found.dtype == np.uint16


def test_objects_are_counted(instance_model):
    contract = replace(instance_model.contract, objects=ObjectRules(smallest=2))
    assert labels(contract, [0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9]).tolist() == [
        [1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0]
    ]


def test_float_images_beyond_one_have_no_range():
    model = random_model(kind="range")
    with pytest.raises(InputError, match=r"takes float images from 0 to 1, these go from -1 to 3999; .percentile. or"):
        model.predict(np.array([[-1.0, 3999.0]]))


@pytest.mark.parametrize("tile", [60, 100])
def test_tiles_do_not_matter_in_16_bits_either(tile):
    model = random_model()
    image = noise(150, 170)
    np.testing.assert_allclose(model.predict(image, tile=tile), model.predict(image), atol=1e-5)

"""What a user may rely on: no seam, the same again, no pickle, nothing lost."""

import contextlib
import errno
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ubend
from ubend.data.annotated import Task, find_pairs, read_pairs
from ubend.data.formats import (
    read_images,
    read_labels,
    read_probabilities,
    write_labels,
    write_picture,
    write_probabilities,
)
from ubend.data.large import open_large
from ubend.data.large_results import LargeResult
from ubend.data.large_tiff import write_large_tiff
from ubend.data.rois import read_drawn, write_geojson, write_rois
from ubend.data.simulated import simulate
from ubend.data.tables import write_table
from ubend.errors import FileError, Stopped, UbendError
from ubend.method.geometry import halo, smallest_input_for, tile_spans
from ubend.method.network import NetworkConfig, UNet
from ubend.method.outlines import trace_outlines
from ubend.method.overlap_tile import cut_tile
from ubend.run.contract import Contract
from ubend.run.evaluation import evaluate_folders
from ubend.run.folders import predict_folder
from ubend.run.memory import smallest_tile
from ubend.run.model import Model
from ubend.run.normalisation import Normalisation
from ubend.run.prediction import soft_max
from ubend.run.recipe import load_recipe
from ubend.run.runs import train_folder
from ubend.run.scale import predict_large
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


def random_model(depth, padding, normalisation, seed, coarse=0):
    """A model with random weights and, where it has them, random statistics of batch normalisation."""
    generator = torch.Generator().manual_seed(seed)
    network = NetworkConfig(
        width=2, depth=depth + coarse, coarse=coarse, classes=3, padding=padding, normalisation=normalisation,
        dropout=0.0,
    )  # fmt: skip
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
    depth=st.integers(1, 2),
    padding=st.sampled_from(["none", "same"]),
    normalisation=st.sampled_from(["none", "batch"]),
    seed=st.integers(0, 2**16),
    coarse=st.integers(0, 1),
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


@pytest.mark.parametrize(("depth", "coarse"), [(3, 0), (4, 0), (5, 0), (3, 2)])
@pytest.mark.parametrize("padding", ["none", "same"])
def test_so_do_deep_networks(depth, coarse, padding):
    model = random_model(depth, padding, "batch", 1, coarse)
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
        found = soft_max(scores)[0].numpy()[:, : row.stop - row.start, : column.stop - column.start]
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


@pytest.mark.parametrize("views", ["one", "dihedral", "rotations"])
def test_threads_change_no_bit(views, model, instance_model):
    image = np.random.default_rng(3).integers(0, 255, (83, 71), np.uint8)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append([one.predict(image, tile=60, views=views, exact=True) for one in (model, instance_model)])
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all((a == b).all() for a, b in zip(found[0], other, strict=True))


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


def test_no_way_in_loads_a_pickle(tmp_path, model):
    """A file that would run when it is unpickled, under every name that something here reads."""
    payload = Payload(tmp_path / "ran")
    pickle.loads(pickle.dumps(payload))
    assert payload.mark.exists()  # so it would
    payload.mark.unlink()
    for name, content in hostile_files(payload).items():
        for read in ways_in(tmp_path, model):
            path = tmp_path / name
            path.write_bytes(content)
            with pytest.raises(UbendError):
                read(path)
            assert not payload.mark.exists(), (name, read)


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def hostile_files(payload):
    plain, array, torch_file = pickle.dumps(payload), io.BytesIO(), io.BytesIO()
    np.save(array, np.array([[payload]], object), allow_pickle=True)
    torch.save(payload, torch_file)
    endings = ("tif", "png", "jpg", "bmp", "npy", "zip", "roi", "geojson", "safetensors", "toml", "json", "pt")
    found = {f"x.{ending}": plain for ending in endings}
    return found | {"x_seg.npy": array.getvalue(), "x.npz": torch_file.getvalue(), "model.zip": torch_file.getvalue()}


def ways_in(folder, model):
    """Everything that opens a file."""

    def as_data(path):
        data = folder / f"data of {path.name}"
        for part in ("images", "masks"):
            (data / part).mkdir(parents=True, exist_ok=True)
        write_labels(data / "images" / "x.tif", np.eye(9, dtype=int), overwrite=True)
        shutil.copy(path, data / "masks")
        read_pairs(find_pairs(data))

    def as_images(path):
        result = predict_folder(model, path, folder / "results", overwrite=True)
        raise FileError(*result.failed.values())

    def as_chunk(path):
        for zarr_format, codecs in ((2, {"id": "pickle"}), (2, None)):
            shutil.rmtree(folder / "x.zarr", ignore_errors=True)
            meta = {"zarr_format": zarr_format, "shape": [9, 9], "chunks": [9, 9], "dtype": "|u1", "fill_value": 0}
            meta |= {"order": "C", "filters": None, "compressor": codecs}
            (folder / "x.zarr").mkdir()
            (folder / "x.zarr" / ".zarray").write_text(json.dumps(meta))
            shutil.copy(path, folder / "x.zarr" / "0.0")
            with contextlib.suppress(UbendError) if codecs else contextlib.nullcontext():
                open_large(folder / "x.zarr").read((), slice(None), slice(None))

    def as_metadata(path):
        for name in (".zarray", ".zattrs", "zarr.json"):
            shutil.rmtree(folder / "y.zarr", ignore_errors=True)
            (folder / "y.zarr").mkdir()
            (folder / "y.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
            shutil.copy(path, folder / "y.zarr" / name)
            with contextlib.suppress(UbendError):
                open_large(folder / "y.zarr")
        raise FileError("none of them")

    def as_stopped_job(path):
        unfinished = folder / "out" / "z.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        model.save(folder / "saved", overwrite=True)
        tifffile.imwrite(folder / "z.tif", np.eye(80, dtype=np.uint8))
        for name in ("blocks.jsonl", "job.json"):
            shutil.copy(path, unfinished / name)
        predict_large(folder / "saved", folder / "z.tif", folder / "out", resume=True, device="cpu")

    def as_results(path):
        shutil.copy(path, folder / "data" / path.name)
        evaluate_folders(path, folder / "data" / path.name)

    (folder / "data").mkdir(exist_ok=True)
    return (
        read_images, read_labels, read_probabilities, open_large, read_drawn, ubend.load, load_recipe,
        as_data, as_images, as_chunk, as_metadata, as_stopped_job, as_results, LargeResult.open,
    )  # fmt: skip


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


# nothing half written


WRITERS = {
    "labels.tif": lambda path: write_labels(path, np.arange(10_000).reshape(100, 100)),
    "labels.png": lambda path: write_labels(path, np.random.default_rng(0).integers(0, 999, (80, 80))),
    "probabilities.tif": lambda path: write_probabilities(path, np.random.default_rng(0).random((2, 60, 60))),
    "picture.png": lambda path: write_picture(path, [np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)]),
    "table.csv": lambda path: write_table(path, {"id": np.arange(9000)}),
    "rois.zip": lambda path: write_rois(path, trace_outlines(np.arange(400).reshape(20, 20))),
    "x.geojson": lambda path: write_geojson(path, trace_outlines(np.arange(400).reshape(20, 20))),
    "large.tif": lambda path: write_large_tiff(path, np.arange(10_000).reshape(100, 100), maximum=9999),
    "model.safetensors": lambda path: random_model(1, "same", "batch", 0).save(path),
}


@pytest.fixture
def small_disk():
    """No file may grow beyond 4000 bytes, whoever writes it: the system itself refuses."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(write, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
        try:
            write(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up_leaves_no_half_file(name, small_disk, tmp_path):
    WRITERS[name](tmp_path / f"whole {name}")
    assert (tmp_path / f"whole {name}").stat().st_size > 4000
    before = everything(tmp_path)
    with pytest.raises(FileError, match="no space left") as caught:
        small_disk(WRITERS[name], tmp_path / name)
    assert str(caught.value).isprintable()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", WRITERS)
def test_nor_does_one_that_says_so_only_at_the_end(name, code, tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(FileError, match=r"Cannot write .*"):
        WRITERS[name](tmp_path / name)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("name", WRITERS)
def test_nor_does_who_is_interrupted(name, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        WRITERS[name](tmp_path / name)
    assert everything(tmp_path) == {}


def test_every_file_is_written_whole_or_not_at_all():
    """Whatever opens a file to write does so for `write_atomically`, or is named here with its reason."""
    allowed = {
        "data/formats.py": 2,  # write_picture and write_labels, for write_atomically
        "data/large_results.py": 1,  # metadata, for write_atomically
        "run/runs.py": 1,  # the log, a row a step
        "share/bioimageio.py": 2,  # in a temporary folder, of which the package is made
        "run/scale.py": 1,  # notes of blocks, a line at a time: a line that is cut is not counted
    }
    opens = re.compile(r"\.open\(\"[wax]|\.write_(text|bytes)\(")
    atomic = re.compile(r"\b(part|temporary|path: path)\.|write_atomically|^\s*>>>|^\s*\.\.\.")
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if opens.search(line)]
        assert len([line for line in lines if not atomic.search(line)]) <= allowed.get(name, 0), (name, lines)


# stopped, and going on as if it had not been (killed at any moment: tests/run/test_runs.py)


def test_a_stopped_run_ends_with_the_same_weights(mine, tiny, tmp_path):
    def stop(progress):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    one, two = tmp_path / "one", tmp_path / "two"
    whole = train_folder(mine, one, labels="masks", recipe=tiny, steps=5, device="cpu")
    with pytest.raises(Stopped, match="go on by the same command with --resume"):
        train_folder(mine, two, labels="masks", recipe=tiny, steps=5, device="cpu", on_step=stop)
    resumed = train_folder(mine, two, labels="masks", resume=True, device="cpu")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


# nothing goes out, nothing is left behind


WATCHED = """
import sys
def watch(event, args):
    if event in FORBIDDEN and args[0] != "fc-list":  # by which matplotlib finds fonts, once
        sys.stderr.write(f"{event} {args}\\n")
        raise PermissionError(event)
FORBIDDEN = {
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto",
    "socket.sendmsg", "socket.bind", "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect",
    "webbrowser.open", "pickle.find_class", "os.system", "subprocess.Popen",
}
sys.addaudithook(watch)
"""

DEMO = """
from ubend.faces import demo
from ubend.faces.cli import run
demo.TRAINING_IMAGES, demo.TEST_IMAGES, demo.TRAINING_SHAPE, demo.TEST_SHAPE = 3, 1, (64, 64), (70, 80)
sys.argv = ["ubend", "demo", "--out", sys.argv[1], "--minutes", "0.02", "--device", "cpu", "--sample", "membranes"]
run()
"""


def in_a_new_process(code, *arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment,
        check=False, cwd=folder,
    )  # fmt: skip


def test_the_whole_job_needs_no_network_and_no_other_program(tmp_path):
    done = in_a_new_process(WATCHED + DEMO, tmp_path / "demo", folder=tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert (tmp_path / "demo" / "demo.png").exists()


def test_the_watch_would_notice(tmp_path):
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert "PermissionError: socket." in in_a_new_process(WATCHED + code, folder=tmp_path).stderr


IMPORT = """
import logging, os, signal, sys, threading, warnings
opened = []
def watch(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        opened.append(args[0])
    if event.startswith(("socket.", "subprocess.", "os.system", "os.mkdir", "os.remove", "os.rename")):
        opened.append((event, args))
sys.addaudithook(watch)
def state():
    return (
        list(warnings.filters), list(logging.getLogger().handlers), logging.getLogger().level, threading.active_count(),
        dict(os.environ), os.getcwd(), os.umask(os.umask(0)), signal.getsignal(signal.SIGINT), sys.excepthook,
        sys.getrecursionlimit(), sys.path[:], sys.stdout, sys.stderr,
    )
before = state()
import ubend
assert state() == before, (state(), before)
assert opened == [], opened
heavy = {"torch", "numpy", "matplotlib", "zarr", "tifffile", "PIL", "logging.config"} & sys.modules.keys()
assert heavy == set(), heavy
"""

EVERYTHING = """
import torch
before = torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
seed, filters = torch.initial_seed(), list(warnings.filters)
import importlib, pkgutil
for module in pkgutil.walk_packages(ubend.__path__, "ubend."):
    if not module.name.endswith(("__main__", "napari.jobs", "napari.widget")):  # these two need napari
        importlib.import_module(module.name)
assert before == (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
assert seed == torch.initial_seed()
assert logging.getLogger().handlers == []
assert "matplotlib.pyplot" not in sys.modules
assert opened == [], opened
assert threading.active_count() == 1
"""


@pytest.mark.parametrize("more", ["", EVERYTHING], ids=["ubend", "all of it"])
def test_importing_changes_nothing(more, tmp_path):
    done = in_a_new_process(IMPORT + more, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_nothing_here_speaks_to_the_network():
    forbidden = re.compile(
        r"^\s*(import|from) (socket|ssl|http|urllib|requests|httpx|aiohttp|ftplib|smtplib|webbrowser)\b"
    )
    found = [
        f"{path.relative_to(SOURCE)}: {line}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if forbidden.match(line)
    ]
    assert found == []

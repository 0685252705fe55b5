"""Blocks by processes of Dask: the same bits, whoever computes them, and whoever is killed."""

import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import zarr

from ubend.data.large import open_large
from ubend.errors import InputError
from ubend.method.network import NetworkConfig
from ubend.run import workers
from ubend.run.recipe import BudgetConfig, load_recipe
from ubend.run.scale import predict_large
from ubend.run.training import train

distributed = pytest.importorskip("distributed", reason="Dask is not installed (pip install ubend[scale])")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A model and an image of 20 blocks in files, and what this process makes of them."""
    folder = tmp_path_factory.mktemp("workers")
    network = replace(NetworkConfig(width=4, depth=2, padding="same", normalisation="batch"), classes=2)
    images = [np.random.default_rng(k).random((64, 64)).astype(np.float32) for k in range(2)]
    recipe = replace(load_recipe("default"), budget=BudgetConfig())
    recipe = replace(recipe, network=network, tiles=replace(recipe.tiles, size=32))
    labels = [(image > 0.5).astype(np.int32) for image in images]
    train(images, labels, recipe=recipe, steps=5, task="binary", device="cpu").save(folder / "model.safetensors")
    zarr.create_array(folder / "big.zarr", data=np.random.default_rng(7).random((300, 260)).astype(np.float32))
    return folder, maps_of(run(folder, "here", None))


def run(folder, name, engine, **options):
    model, image = folder / "model.safetensors", folder / "big.zarr"
    options = {"tile": 108, "probabilities": True, "engine": engine} | options
    return predict_large(model, image, folder / name, **options)


def maps_of(result):
    return open_large(result.probabilities).read((), slice(None), slice(None))


@pytest.fixture(scope="module")
def two():
    with workers.on_this_machine(2) as engine:
        yield engine


def test_the_same_bits(job, two):
    folder, expected = job
    result = run(folder, "two", two)
    assert result.blocks == 20
    assert (maps_of(result) == expected).all()


def test_a_worker_that_is_killed_costs_its_block(job, two):
    folder, expected = job
    killed = []

    def killing(work, blocks, done):
        def then(block, checksum):
            if not killed:
                killed.append(one_of(distributed.default_client()))
                os.kill(killed[0], signal.SIGKILL)
            done(block, checksum)

        two(work, blocks, then)

    result = run(folder, "killed", killing)
    assert killed
    assert (maps_of(result) == expected).all()


def one_of(client):
    """The process number of a worker."""
    return next(iter(client.run(os.getpid).values()))


def test_the_workers_of_a_scheduler(job, two):
    folder, expected = job
    address = distributed.default_client().scheduler.address
    with workers.engine_of(None, address) as engine:
        assert (maps_of(run(folder, "scheduler", engine)) == expected).all()


def test_an_error_in_a_worker_is_told_as_it_is(job, two):
    folder, _ = job
    spoilt = np.random.default_rng(7).random((300, 260)).astype(np.float32)
    spoilt[299, 259] = np.inf
    zarr.create_array(folder / "spoilt.zarr", data=spoilt)
    with pytest.raises(InputError, match="NaN or infinite at 1 place"):
        predict_large(folder / "model.safetensors", folder / "spoilt.zarr", folder / "out", tile=108, engine=two)


def test_no_worker():
    with pytest.raises(InputError, match="at least 1 worker, not 0"), workers.on_this_machine(0):
        pass


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.3)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        workers.on_scheduler("tcp://127.0.0.1:1").__enter__()


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "ubend\[scale\]"'), workers.on_this_machine(2):
        pass

"""Several processes train the network that one would, and one that is killed loses nothing."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ubend.data.formats import write_labels
from ubend.errors import InputError
from ubend.run.device import mixed_precision
from ubend.run.model import load
from ubend.run.processes import ALONE, Processes, are_several
from ubend.run.recipe import TrainingConfig, to_toml


def test_alone_nothing_changes():
    assert ALONE.first
    assert list(ALONE.samples(3)) == [0, 1, 2]
    assert ALONE.told({"a": 1}) == {"a": 1}
    assert ALONE.largest(3) == 3
    net = torch.nn.BatchNorm2d(2)
    assert ALONE.parallel(net, torch.device("cpu")) is net
    assert not are_several({})
    assert not are_several({"RANK": "0", "WORLD_SIZE": "1"})
    assert are_several({"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(("batch", "number"), [(4, 2), (5, 3), (3, 3)])
def test_each_sample_is_computed_once(batch, number):
    taken = [k for rank in range(number) for k in Processes(rank, number).samples(batch)]
    assert taken == list(range(batch))


def test_more_processes_than_tiles():
    with pytest.raises(InputError, match=r"a step has 1 tile, too few for 2 processes: start at most 1"):
        Processes(1, 2).samples(1)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for k in range(5):
        labels = np.zeros((80, 80), np.uint8)
        for number, (row, column) in enumerate(rng.integers(10, 70, (6, 2)), 1):
            labels[row - 7 : row + 7, column - 7 : column + 7] = number
        image = (60 + 90 * (labels > 0) + rng.normal(0, 15, labels.shape)).astype(np.uint8)
        write_labels(tmp_path / "data" / "images" / f"{k}.tif", image)
        write_labels(tmp_path / "data" / "masks" / f"{k}.tif", labels)
    return tmp_path / "data"


def start(number, *command):
    """Start processes as torchrun does, with a core's threads each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "ubend", "train", *map(str, command)]
    ranks = range(number) if number > 1 else [None]
    return [
        subprocess.Popen(
            command, env=shared | ({} if rank is None else {"RANK": str(rank), "LOCAL_RANK": str(rank)}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in ranks
    ]  # fmt: skip


def finish(processes):
    said = [process.communicate(timeout=120) for process in processes]
    return [process.returncode for process in processes], said


def energies(run):
    return [float(row["energy"]) for row in csv.DictReader((run / "log.csv").read_text().splitlines())]


@pytest.fixture
def recipes(tiny, tmp_path):
    """Recipes with so many tiles a step, each with every term of the energy and a checkpoint after every step.

    The optimiser is the paper's: the first steps of AdamW are as long where the gradient is but rounding as elsewhere,
    so that there the last digits of a sum would show.
    """
    found = {}
    for batch in (1, 2):
        recipe = replace(
            tiny, tiles=replace(tiny.tiles, batch=batch), energy=replace(tiny.energy, dice=0.5, distance=1.0),
            optimiser=replace(tiny.optimiser, kind="sgd", learning_rate=3e-3, momentum=0.9, averaging=0.1),
            training=TrainingConfig(checkpoint_minutes=1e-9),
        )  # fmt: skip
        found[batch] = tmp_path / f"{batch}.toml"
        found[batch].write_text(to_toml(recipe))
    return found


def test_two_processes_do_the_steps_of_one_with_the_larger_batch(folder, recipes, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    jobs = [
        start(1, folder, "--out", one, "--recipe", recipes[2], "--steps", 50, "--task", "instances"),
        start(2, folder, "--out", two, "--recipe", recipes[1], "--steps", 50, "--task", "instances"),
    ]
    for codes, said in map(finish, jobs):
        assert not any(codes), said
    assert said[1] == ("", "")  # the second tells nothing
    assert "Trained on 4 images, 50 steps in" in said[0][0]
    rounding = 1 if mixed_precision(torch.device("cpu")) is None else 20  # 16 bits have three digits
    np.testing.assert_allclose(energies(two), energies(one), atol=1e-4 * rounding)
    assert energies(one)[-1] < 0.9 * energies(one)[0]
    for (name, here), there in zip(
        load(one).network.state_dict().items(), load(two).network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(here, there, atol=1e-3 * rounding, rtol=1e-2 * rounding, msg=name)
    assert load(two).contract.recipe.tiles.batch == 2
    assert sorted(path.name for path in two.iterdir()) == ["log.csv", "model.safetensors", "recipe.toml", "report.html"]


def test_one_that_is_killed_ends_the_job_which_goes_on_with_fewer(folder, recipes, tmp_path):
    out = tmp_path / "run"
    command = (folder, "--out", out, "--recipe", recipes[1], "--steps", 120, "--task", "instances", "--resume")
    processes = start(2, *command)
    give_up = time.monotonic() + 100
    while not ((out / "log.csv").is_file() and any((out / "checkpoint").glob("000[1-9]*"))):
        assert time.monotonic() < give_up
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.05)
    processes[1].kill()
    codes, said = finish(processes)
    assert codes == [1, -signal.SIGKILL]
    assert "Traceback" not in said[0][1]
    assert "another process of this run has gone" in said[0][1]
    assert "go on by the same command with --resume" in " ".join(said[0][1].split())
    assert load(out).contract.provenance["stopped"] > 0
    codes, said = finish(start(1, *command[:-1], "--resume"))
    assert codes == [0], said
    assert "1 processes for 2" in said[0][0]
    assert len(energies(out)) == 120
    assert load(out).contract.recipe.tiles.batch == 2

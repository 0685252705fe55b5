import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from ubend.data import machine
from ubend.errors import InputError
from ubend.run import device
from ubend.run.device import (
    autocast,
    choose_device,
    free_memory,
    kept_memory,
    mixed_precision,
    own_pages,
    resident_memory,
)

CPU = torch.device("cpu")


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == CPU
    assert choose_device().type in ("cpu", "cuda", "mps")


def test_the_best_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device().type == "cuda"
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().type == "mps"
    with pytest.raises(InputError, match="no device 'cuda' here; this machine has mps and cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "tpu:0"])
def test_a_device_that_is_none(name):
    with pytest.raises(InputError, match=f"no device '{name}' here; this machine has .*cpu"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cpu:x", "cpu:-1", "cpu:0:0"])
def test_a_number_that_is_none(name):
    with pytest.raises(InputError, match=f"'{name}' names no device; examples are"):
        choose_device(name)


def test_arithmetic(monkeypatch):
    for avx512, amx, gain, expected in (
        (True, False, 2.0, torch.bfloat16),
        (True, False, 0.5, None),  # has the instructions, and is slower with them
        (True, True, 0.5, torch.bfloat16),
        (False, False, 2.0, None),
    ):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=avx512: has, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: has, raising=False)
        monkeypatch.setattr(device, "bfloat16_gain", lambda gain=gain: gain)
        assert mixed_precision(CPU) is expected
    assert mixed_precision(torch.device("mps")) is None
    monkeypatch.undo()
    device.bfloat16_gain.cache_clear()
    assert device.bfloat16_gain() == device.bfloat16_gain() > 0  # measured once
    x = torch.ones(2, 2)
    with autocast(CPU, None):
        assert (x @ x).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16


def test_memory_of_this_machine():
    assert free_memory(CPU) > 2**20


def test_memory_of_a_container(tmp_path, monkeypatch):
    """What files take in the cache is free; a container without limit has what the machine has."""
    monkeypatch.setattr(machine, "CONTAINER", tmp_path)
    monkeypatch.setattr(machine, "_available_bytes", lambda: 10_000)

    def say(folder, limit, used, **files):
        folder.mkdir(exist_ok=True)
        names = ("memory.max", "memory.current") if folder == tmp_path else (
            "memory.limit_in_bytes", "memory.usage_in_bytes",
        )  # fmt: skip
        for name, value in zip(names, (limit, used), strict=True):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text("".join(f"{key} {value}\n" for key, value in files.items()))

    assert free_memory(CPU) == 10_000
    say(tmp_path, "max", 5000)
    assert free_memory(CPU) == 10_000
    say(tmp_path, 6000, 5000, anon=2000, inactive_file=3000)
    assert free_memory(CPU) == 4000
    say(tmp_path, 6000, 7000, anon=7000)
    assert free_memory(CPU) == 0
    for path in tmp_path.iterdir():
        path.unlink()
    say(tmp_path / "memory", 6000, 5000, inactive_file=0, total_inactive_file=1500)
    assert free_memory(CPU) == 2500


class Glibc:
    """Notes what it is told; `largest` is the highest threshold that it takes."""

    def __init__(self, largest=2**31):
        self.largest, self.told = largest, []

    def mallopt(self, option, value):
        if value <= self.largest:
            self.told.append((option, value))
        return int(value <= self.largest)

    def malloc_trim(self, pad):
        self.told.append("given back")


ON, OFF = [(-3, 2**30), (-1, -1)], [(-3, 2**25), (-1, 2**26), "given back"]


def test_freed_memory_is_kept_until_the_outermost_block_ends(monkeypatch):
    glibc = Glibc()
    monkeypatch.setattr(device, "_c_library", lambda: glibc)
    with kept_memory:
        assert glibc.told == ON
        with kept_memory:
            pass
        assert glibc.told == ON
    assert glibc.told == ON + OFF


def test_freed_memory_is_given_back_after_an_error(monkeypatch):
    glibc = Glibc()
    monkeypatch.setattr(device, "_c_library", lambda: glibc)
    with pytest.raises(ZeroDivisionError), kept_memory:
        _ = 1 / 0
    assert glibc.told == ON + OFF


def test_an_old_glibc_takes_lower_thresholds_only(monkeypatch):
    glibc = Glibc(largest=2**25)
    monkeypatch.setattr(device, "_c_library", lambda: glibc)
    with kept_memory:
        assert glibc.told == [(-3, 2**25), (-1, -1)]


def test_memory_that_was_kept_counts_as_free(monkeypatch):
    glibc = Glibc()
    monkeypatch.setattr(device, "_c_library", lambda: glibc)
    with kept_memory:
        free_memory(CPU)
        assert glibc.told == [*ON, "given back"]


def test_other_c_libraries_go_their_own_way(monkeypatch):
    monkeypatch.setattr(device.platform, "system", lambda: "Windows")
    assert device._c_library() is None
    with kept_memory:
        assert free_memory(CPU) > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_options_are_those_of_this_c_library():
    library = device._c_library()
    assert library.mallopt(device.M_MMAP_THRESHOLD, 2**25) == 1
    assert library.mallopt(device.M_TRIM_THRESHOLD, 2**26) == 1


def test_own_pages_are_for_a_block_and_not_within_kept_memory(monkeypatch):
    glibc = Glibc()
    monkeypatch.setattr(device, "_c_library", lambda: glibc)
    with own_pages():
        assert glibc.told == ["given back", (-3, 2**17), (-1, 2**17)]
    assert glibc.told[3:] == OFF
    with kept_memory:
        glibc.told.clear()
        with own_pages():
            pass
        assert glibc.told == []


def test_resident_memory_grows_with_what_is_held(monkeypatch):
    before = resident_memory()
    held = np.ones(2**24)
    assert resident_memory() - before > 0.9 * held.nbytes
    monkeypatch.setattr(device, "Path", lambda _name: Path("/nowhere"))
    assert resident_memory() > 2**24  # the most there ever was

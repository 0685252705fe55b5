import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ubend
from ubend.errors import InputError
from ubend.method.geometry import is_valid_input
from ubend.method.network import NetworkConfig
from ubend.run.memory import (
    label_bytes,
    largest_tile_within,
    parse_bytes,
    result_bytes,
    say_bytes,
    smallest_tile,
    tile_bytes,
)

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "memory.py"


@pytest.mark.parametrize(("text", "amount"), [
    ("2GB", 2 * 10**9), ("500MB", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("1.5 gib", 3 * 2**29), ("64k", 64_000),
    (".5GB", 5 * 10**8), ("1000", 1000), ("1000B", 1000), ("2 T", 2 * 10**12),
])  # fmt: skip
def test_amounts(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 gigs", "1,5GB", "2GBB", "nan", "2iB"])
def test_what_is_no_amount(text):
    with pytest.raises(InputError, match=r"is no amount of memory: say it as 2GB, 500MB or 1\.5GiB"):
        parse_bytes(text)


@given(st.integers(10**6, 10**13))
def test_an_amount_rounded_up_is_not_less(amount):
    assert amount <= parse_bytes(say_bytes(amount, up=True)) <= 1.1 * amount + 10**6
    assert abs(parse_bytes(say_bytes(amount)) - amount) <= 0.05 * amount + 5 * 10**5


configs = st.builds(
    NetworkConfig,
    in_channels=st.sampled_from([1, 3]),
    classes=st.sampled_from([2, 30]),
    width=st.sampled_from([1, 8, 20]),
    depth=st.integers(3, 5),
    coarse=st.integers(0, 2),
    wide_last_up=st.booleans(),
)


@given(config=configs, memory=st.integers(10**6, 10**10), sixteen_bits=st.booleans(), views=st.sampled_from([1, 8]))
def test_the_largest_tile_fits_and_the_next_does_not(config, memory, sixteen_bits, views):
    def cost(size):
        return tile_bytes(config, size, sixteen_bits=sixteen_bits, views=views)

    tile = largest_tile_within(config, memory, sixteen_bits=sixteen_bits, views=views)
    if tile is None:
        assert cost(smallest_tile(config)) > memory
    else:
        assert is_valid_input(tile, config.depth)
        assert cost(tile) <= memory < cost(tile + 2**config.depth)


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_a_tile_takes_at_least_the_maps_of_its_widest_convolution(depth):
    config = NetworkConfig(width=16, depth=depth)
    for size in (380, 1532):
        assert tile_bytes(config, size) > 4 * 2 * 16 * (size - 4) ** 2
        assert tile_bytes(config, size, sixteen_bits=True) < tile_bytes(config, size)
        assert tile_bytes(config, size, views=8) > tile_bytes(config, size)


def test_rotated_views_take_more_and_so_do_objects():
    config = NetworkConfig(classes=3)
    assert result_bytes(config, (200, 100)) == 3 * 4 * 20_000
    assert result_bytes(config, (200, 100), rotations=True) > 2 * result_bytes(config, (200, 100))
    assert label_bytes((200, 100), instances=True) > label_bytes((200, 100), instances=False)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a process")
@pytest.mark.parametrize("case", [(8, 4, 572), (32, 3, 380), (16, 4, 380, 5, 3, "dihedral")])
def test_the_measured_peak_is_80_to_100_percent_of_the_predicted(case):
    environ = os.environ | {"PYTHONPATH": str(Path(ubend.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARK), "--one", *map(str, case)]
    found = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout)
    assert found["tiles"] == 2
    assert 0.8 * found["predicted"] <= found["measured"] <= found["predicted"]

from pathlib import Path

import pytest

from ubend.data import machine
from ubend.data.machine import check_fits_memory, free_here
from ubend.errors import FileError


def test_this_machine_has_memory():
    assert free_here() > 2**20


@pytest.mark.parametrize("size", [0, 2**26, 10**9 // 2])
def test_what_fits_is_read(size, monkeypatch):
    monkeypatch.setattr(machine, "free_here", lambda: 10**9)
    check_fits_memory(Path("a.tif"), size)


def test_what_does_not_fit_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(machine, "free_here", lambda: 10**9)
    with pytest.raises(FileError, match=r"a\.tif takes 3\.0 GB to read whole, and 1\.0 GB are free: `ubend"):
        check_fits_memory(Path("a.tif"), 3 * 10**9 // 2)

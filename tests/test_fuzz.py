"""benchmarks/fuzz.py, in small: damaged files are read or refused in one line, and the script notices what is not."""

import contextlib
import importlib
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ubend.errors import FileError, UbendError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
READERS = (
    *("images", "labels", "probabilities", "large", "zarr", "rois", "geojson"),
    *("model", "recipe", "job", "folder", "evaluate"),
)
INPUTS = 18


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("fuzz")


def test_no_reader_is_left_out(fuzz: ModuleType) -> None:
    assert tuple(fuzz.READERS) == READERS
    assert sum(reader.inputs for reader in fuzz.READERS.values()) >= 10_000


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(
    fuzz: ModuleType, reader: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = []
    for number in range(INPUTS):
        (tmp_path / str(number)).mkdir()
        path = fuzz.prepare(reader, number, tmp_path / str(number))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                fuzz.READERS[reader].read(path)
        except UbendError as error:
            said.append(str(error))
    assert said
    assert all(message.isprintable() for message in said)  # one line each, that is
    assert capfd.readouterr() == ("", "")


def test_the_same_number_is_the_same_input(fuzz: ModuleType, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fuzz.prepare("images", 3, tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def two_lines(_: Path) -> None:
    error = FileError("one")
    error.__cause__ = MemoryError()
    raise error


def grows(_: Path) -> int:
    return int(np.ones(2**24).sum())


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda _: None, ("read", "")),
        (lambda path: path.read_bytes(), ("fault", "FileNotFoundError")),
        (two_lines, ("fault", "memory ran out: one")),
        (grows, ("fault", "took 1")),
    ],
)
def test_faults_are_noticed(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, read, expected) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell how much memory a process has held")
    monkeypatch.setattr(fuzz, "GROWTH", 2**26)
    what, said = fuzz.outcome(read, Path("nowhere"))
    assert (what, said[: len(expected[1])]) == expected

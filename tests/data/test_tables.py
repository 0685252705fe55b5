import csv

import numpy as np
import pytest

from ubend.data.tables import join_tables, write_table
from ubend.errors import FileError


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_numbers_are_short_and_exact_enough(tmp_path):
    write_table(tmp_path / "a.csv", {"id": np.array([1, 70000]), "row": np.array([1 / 3, 81920.125])})
    assert rows(tmp_path / "a.csv") == [["id", "row"], ["1", "0.3333333"], ["70000", "81920.12"]]


def test_what_is_unknown_is_empty(tmp_path):
    write_table(tmp_path / "a.csv", {"id": np.array([1]), "um": np.array([np.nan])})
    assert rows(tmp_path / "a.csv") == [["id", "um"], ["1", ""]]


def test_a_table_without_rows_has_its_names(tmp_path):
    write_table(tmp_path / "a.csv", {"id": np.array([], int), "row": np.array([])})
    assert rows(tmp_path / "a.csv") == [["id", "row"]]


def test_tables_are_joined_in_their_order_and_names_are_quoted(tmp_path):
    for name, ids in (("one", [1, 2]), ("none", []), ("two", [1])):
        write_table(tmp_path / f"{name}.csv", {"id": np.array(ids, int)})
    names = ("one", "none", "two")
    join_tables(
        tmp_path / "all.csv", ((f'{name}, "x"', tmp_path / f"{name}.csv") for name in names), first_column="image"
    )
    assert rows(tmp_path / "all.csv") == [["image", "id"], ['one, "x"', "1"], ['one, "x"', "2"], ['two, "x"', "1"]]


def test_nothing_is_replaced_unasked(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        write_table(tmp_path / "a.csv", {"id": np.array([1])})
    with pytest.raises(FileError, match="exists already"):
        join_tables(tmp_path / "a.csv", [], first_column="image")
    assert (tmp_path / "a.csv").read_text() == "mine"
    write_table(tmp_path / "a.csv", {"id": np.array([1])}, overwrite=True)
    assert rows(tmp_path / "a.csv") == [["id"], ["1"]]

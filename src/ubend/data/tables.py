"""Tables of objects, as CSV that a spreadsheet, R and pandas open."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend.data.formats import write_atomically

__all__ = ["join_tables", "write_table"]


def write_table(path: str | Path, columns: dict[str, NDArray[Any]], *, overwrite: bool = False) -> None:
    """Write columns as CSV: a line of names, then a line a row.

    Parameters
    ----------
    path : str or Path
    columns : dict of str to ndarray, shape (rows,)
        Numbers. Fractions get 7 digits, nan an empty field.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(Path(folder) / "a.csv", {"id": np.array([1, 2]), "area_um2": np.array([0.25, np.nan])})
    ...     (Path(folder) / "a.csv").read_text().split()
    ['id,area_um2', '1,0.25', '2,']
    """

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(_texts(values) for values in columns.values()), strict=True))

    write_atomically(path, write, overwrite=overwrite)


def join_tables(
    path: str | Path, tables: Iterable[tuple[str, Path]], *, first_column: str, overwrite: bool = False
) -> None:
    """Join tables of the same columns into one, one after the other.

    Parameters
    ----------
    path : str or Path
    tables : iterable of (str, Path)
        What the first column says, and a file of `write_table`.
    first_column : str
        Its name.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    FileError
        If the file exists and `overwrite` is false, or cannot be written; nothing half written is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one, all_of_them = Path(folder) / "one.csv", Path(folder) / "all.csv"
    ...     write_table(one, {"id": np.array([1, 2])})
    ...     join_tables(all_of_them, [("a", one), ("b", one)], first_column="image")
    ...     all_of_them.read_text().split()
    ['image,id', 'a,1', 'a,2', 'b,1', 'b,2']
    """

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            for k, (name, table) in enumerate(tables):
                with table.open(newline="", encoding="utf-8") as rows:
                    reader = csv.reader(rows)
                    names = next(reader)
                    if k == 0:
                        writer.writerow([first_column, *names])
                    writer.writerows([name, *row] for row in reader)

    write_atomically(path, write, overwrite=overwrite)


def _texts(values: NDArray[Any]) -> list[str]:
    if np.issubdtype(values.dtype, np.floating):
        return ["" if value != value else f"{value:.7g}" for value in values.tolist()]
    return [str(value) for value in values.tolist()]

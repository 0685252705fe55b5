"""What the benchmarks share: a table, the machine it was measured on, and its place in docs/benchmarks.md."""

import csv
import datetime
import fcntl
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def processor() -> str:
    """Name the processor, and say whether it multiplies 16-bit matrices: fast and slow ones bear one name."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    if model := re.search(r"model name\s*: (.*)", text):
        return model[1] + (" with AMX" if "amx_bf16" in text else "")
    return platform.processor() or platform.machine()


def machine() -> str:
    """Say on what, with what, and when."""
    return (
        f"Measured {datetime.date.today().isoformat()} on {os.cpu_count()} cores of {processor()}, "
        f"Python {platform.python_version()}, {versions()}."
    )


def versions() -> str:
    """Name what is measured and what it computes with."""
    return ", ".join(f"{name} {version(name)}" for name in ("ubend", "torch", "numpy", "scipy"))


def kept(path: Path) -> list[dict[str, str]]:
    """Read the rows that have been measured."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep(path: Path, fields: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a file of results; several processes may."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        if file.seek(0, os.SEEK_END) == 0:
            writer.writeheader()
        writer.writerows(rows)


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between the marks of this benchmark in a page, docs/benchmarks.md unless another is named."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
    print(f"Wrote the section {name} of {page}")

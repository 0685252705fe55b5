"""What the benchmarks share: a table, the machine it was measured on, and its place in docs/benchmarks.md."""

import datetime
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def processor() -> str:
    """Name the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (model := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        return model[1]
    return platform.processor() or platform.machine()


def machine() -> str:
    """Say on what, with what, and when."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("ubend", "torch", "numpy", "scipy"))
    return (
        f"Measured {datetime.date.today().isoformat()} on {os.cpu_count()} cores of {processor()}, "
        f"Python {platform.python_version()}, {versions}."
    )


def write_section(name: str, text: str) -> None:
    """Replace what stands between the marks of this benchmark in docs/benchmarks.md."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
    print(f"Wrote the section {name} of {PAGE}")

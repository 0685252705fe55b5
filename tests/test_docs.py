"""What README.md and docs/ say holds: their Python runs, and every file, function and test that they name exists."""

import ast
import json
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import ubend

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ubend"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))

FENCE = re.compile(r"^(?P<before>[^\n]*)\n```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`(?P<path>[\w./-]+(?:\.(?:py|md|toml|cff|txt|typed)|/))(?:::(?P<name>[\w.]+))?`")
LINK = re.compile(r"\]\((?P<path>[^)#:\s]+)(?:#[^)]*)?\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Lines before, and code, of each block of Python that is not marked as `<!-- not run -->`."""
    text = "\n" + page.read_text(encoding="utf-8")
    return [
        (text[: found.start("code")].count("\n") - 1, found["code"])
        for found in FENCE.finditer(text)
        if found["language"] == "python" and found["before"].strip() != "<!-- not run -->"
    ]


def prose(page: Path) -> str:
    return FENCE.sub("", "\n" + page.read_text(encoding="utf-8"))


@cache
def defined_names(path: Path) -> frozenset[str]:
    """Functions, classes, methods, constants and fields at the top of a module; keys of a recipe."""
    if path.suffix == ".toml":
        tables = tomllib.loads(path.read_text(encoding="utf-8")).items()
        return frozenset(f"{table}.{key}" for table, keys in tables if isinstance(keys, dict) for key in keys)
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names.update(_names(node))
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}.{name}" for inner in node.body for name in _names(inner))
    return frozenset(names)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def missing(page: Path) -> list[str]:
    """What a page names in backticks, from the root or from src/ubend, and links to, but is not there."""
    absent = []
    text = prose(page)
    for found in NAMED.finditer(text):
        path = next((base / found["path"] for base in (ROOT, SOURCE) if (base / found["path"]).exists()), None)
        if path is None or (found["name"] and found["name"] not in defined_names(path)):
            absent.append(found[0])
    absent += [found[0] for found in LINK.finditer(text) if not (page.parent / found["path"]).exists()]
    return absent


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=name_of)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, code in python_blocks(page):
        exec(compile("\n" * line + code, name_of(page), "exec"), namespace)


def test_blocks_are_found_with_their_lines_and_skipped_if_marked(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\n\n<!-- not run -->\n```python\nb\n```\ntext\n```python\nc = 3\n```\n")
    assert python_blocks(page) == [(1, "a = 1\n"), (10, "c = 3\n")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_exists(page):
    assert missing(page) == []


def test_what_does_not_exist_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`method/network.py::UNet.forward` `errors.py::NoError` `docs/none.md` [x](away.md) [y](page.md#z)")
    assert missing(page) == ["`errors.py::NoError`", "`docs/none.md`", "](away.md)"]


def test_the_architecture_names_every_file():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".toml", ".typed")]
    only_a_docstring = {path for path in files if path.name == "__init__.py" and not defined_names(path)}
    named = {path.relative_to(SOURCE).as_posix() for path in files if path not in only_a_docstring}
    assert [name for name in sorted(named) if f"`{name}`" not in text] == []


def test_the_example_of_a_json_file_is_what_is_written():
    page = ROOT / "docs" / "evaluate.md"
    [example] = [
        found["code"] for found in FENCE.finditer(page.read_text(encoding="utf-8")) if found["language"] == "json"
    ]
    [(_, code)] = python_blocks(page)
    namespace: dict[str, object] = {}
    exec(code, namespace)
    written, shown = json.loads(json.dumps(namespace["scores"], allow_nan=False)), json.loads(example)
    assert list(written) == list(shown)
    assert rounded(written) == shown


def rounded(value):
    """The same with six decimals, as the page shows them."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def test_the_paper_page_has_all_21_slips():
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    slips = text.split("## The 21 slips of the notes")[1].split("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", slips, re.MULTILINE) == [str(number) for number in range(1, 22)]


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert project["version"] == ubend.__version__
    assert re.search(r"^## \[([\d.]+)\]", changes, re.MULTILINE)[1] == ubend.__version__


def test_the_citation_is_of_this_version_and_of_the_paper():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"^ *(- )?([a-z-]+:( .+)?|[^:]+)$", line) for line in lines)
    top = dict(line.split(": ", 1) for line in lines if re.match(r"[a-z-]+: ", line))
    assert top["cff-version"] == "1.2.0"
    assert (top["title"], top["version"], top["license"]) == ("ubend", ubend.__version__, "BSD-3-Clause")
    assert '    doi: "10.1007/978-3-319-24574-4_28"' in lines

"""What README.md and docs/ say holds: their code runs, and all that they name, link to and show exists.

Python runs on every page; on the pages of `WALKTHROUGHS` the commands do too, in the order of the page. On the others,
where DATA and RUN stand for a reader's own, they are read as the command line would read them.
"""

import ast
import importlib.util
import inspect
import json
import re
import shlex
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
from numpydoc.validate import validate
from typer.testing import CliRunner

import ubend
from ubend.faces.cli import app
from ubend.run.recipe import load_recipe, to_toml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ubend"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/**/*.md"))
WALKTHROUGHS = {"tutorial.md", "touching-cells.md", "few-images.md", "fiji.md", "other-tools.md"}
"""Pages of docs/ whose commands run."""
MOST_LINES = 60
"""Of an example."""
MOST_BYTES = 120_000
"""Of a picture that docs/pictures.py draws."""

FENCE = re.compile(
    r"^(?P<before>[^\n]*)\n```(?P<language>[\w{}-]*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
NAMED = re.compile(r"`(?P<path>[\w./-]+(?:\.(?:py|md|toml|cff|txt|typed)|/))(?:::(?P<name>[\w.]+))?`")
LINK = re.compile(r"\]\((?P<path>[^)#:\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[tuple[int, str, str]]:
    """Lines before, language and code of each block in these languages that is not marked as `<!-- not run -->`."""
    text = "\n" + page.read_text(encoding="utf-8")
    return [
        (text[: found.start("code")].count("\n") - 1, found["language"], found["code"])
        for found in FENCE.finditer(text)
        if found["language"] in languages and found["before"].strip() != "<!-- not run -->"
    ]


def commands(code: str) -> list[list[str]]:
    """Take the lines of a shell apart, without comments; a line that ends with a backslash goes on."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@cache
def verbs():
    return typer.main.get_command(app).commands


def read_command(words: list[str]) -> None:
    """Read a command as ubend would, or raise what is wrong with it."""
    if words[0].startswith("-"):
        assert words[0] in {name for option in typer.main.get_command(app).params for name in option.opts}, words
    elif words[-1:] != ["--help"]:
        verbs()[words[0]].make_context(words[0], words[1:])


def run_command(words: list[str], recipe: Path) -> None:
    """Run a command as it stands on a page, a training for some steps instead of minutes; `pip` is not called."""
    if words[0] == "ubend":
        if "--minutes" in words:
            words[words.index("--minutes") : words.index("--minutes") + 2] = ["--steps", "2", "--recipe", str(recipe)]
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
    elif words[0] != "pip":
        subprocess.run(words, check=True)


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
    absent += [
        found[0]
        for found in LINK.finditer(text)
        if not is_there(page.parent / (found["path"] or page.name), found["anchor"])
    ]
    return absent


def is_there(path: Path, anchor: str | None) -> bool:
    return path.exists() and (anchor is None or anchor in anchors(path))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Name the headings of a page as code hosts do, and MyST."""
    plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in HEADING.findall(prose(page)))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain)


@pytest.fixture
def quick(tiny, tmp_path_factory):
    """A recipe whose steps take milliseconds, as a file."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(to_toml(tiny), encoding="utf-8")
    return path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_code_of_a_page_runs(page, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    languages = ("python", "sh") if page.name in WALKTHROUGHS else ("python",)
    for line, language, code in blocks(page, *languages):
        if language == "python":
            exec(compile("\n" * line + code, name_of(page), "exec"), namespace)
        for words in commands(code) if language == "sh" else ():
            run_command(words, quick)


def test_the_walkthroughs_are_pages_with_commands():
    pages = [ROOT / "docs" / name for name in WALKTHROUGHS]
    assert all(
        any(words[0] == "ubend" for _, _, code in blocks(page, "sh") for words in commands(code)) for page in pages
    )


def every_block() -> list[tuple[str, str, str]]:
    """Place, language and code of every block, marked or not."""
    found = []
    for page in PAGES:
        text = "\n" + page.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            found.append(
                (f"{name_of(page)}:{text[: block.start('code')].count(chr(10))}", block["language"], block["code"])
            )
    return found


def test_examples_are_short_and_in_a_language_that_is_checked():
    languages = {"python", "sh", "toml", "json", "text", "{toctree}", "{eval-rst}", "{from-code}"}
    assert [place for place, _, code in every_block() if code.count("\n") > MOST_LINES] == []
    assert [(place, language) for place, language, _ in every_block() if language not in languages] == []


def test_python_that_is_not_run_can_be_read_at_least():
    for place, language, code in every_block():
        if language == "python":
            compile(code, place, "exec")


def test_recipes_can_be_loaded(tmp_path):
    found = [(place, code) for place, language, code in every_block() if language == "toml"]
    assert found
    for place, code in found:
        (tmp_path / "own.toml").write_text(code, encoding="utf-8")
        assert load_recipe(tmp_path / "own.toml"), place


def test_commands_are_what_the_command_line_takes():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    others = {"pip", "napari", "python3", ".", "cp"}
    read = 0
    for place, language, code in every_block():
        if language != "sh":
            continue
        subprocess.run(["bash", "-n"], input=code, text=True, check=True)
        if "srun " in code:  # a script for a scheduler: the commands in it
            code = "\n".join(re.findall(r"-m ubend [^|;&\n]+", code)).replace("-m ubend", "ubend")
        for words in commands(code):
            words = words[words.index("ubend") :] if "-m" in words and "ubend" in words else words
            if words[0] == "ubend":
                try:
                    read_command(words[1:])
                except Exception as error:
                    raise AssertionError(f"{place}: {shlex.join(words)}: {error}") from error
                read += 1
            else:
                assert words[0] in others or (words[0] == "make" and set(words[1:]) <= targets), f"{place}: {words}"
    assert read > 40


def test_a_wrong_command_is_noticed():
    with pytest.raises(Exception, match="--minuts"):
        read_command(["train", "DATA", "--out", "RUN", "--minuts", "3"])
    with pytest.raises(KeyError):
        read_command(["trian", "DATA"])


def test_a_command_goes_on_after_a_backslash_and_ends_at_a_comment():
    assert commands("a b \\\n  c  # d\n\ne 'f g'\n") == [["a", "b", "c"], ["e", "f g"]]


def test_blocks_are_found_with_their_lines_and_skipped_if_marked(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\n\n<!-- not run -->\n```python\nb\n```\ntext\n```python\nc = 3\n```\n")
    assert blocks(page, "python") == [(1, "python", "a = 1\n"), (10, "python", "c = 3\n")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_exists(page):
    assert missing(page) == []


def test_what_does_not_exist_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "## The `a`, (b)\n`method/network.py::UNet.forward` `errors.py::NoError` `docs/none.md` [x](away.md)"
        " [y](page.md#z) [z](#the-a-b)"
    )
    assert missing(page) == ["`errors.py::NoError`", "`docs/none.md`", "](away.md)", "](page.md#z)"]


def pages_of_the_site() -> set[str]:
    return {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}


def test_every_page_is_linked_from_the_index_and_stands_in_its_tree():
    index = ROOT / "docs" / "index.md"
    linked = {found["path"] for found in LINK.finditer(prose(index))}
    in_tree = [
        f"{line}.md"
        for _, language, code in ((None, *rest) for _, *rest in every_block())
        if language == "{toctree}"
        for line in code.splitlines()
        if line and not line.startswith(":")
    ]
    assert sorted(in_tree) == sorted(pages_of_the_site() - {"index.md"})
    assert set(in_tree) <= linked


@pytest.fixture
def from_docs(monkeypatch):
    """Import a module that stands in docs/."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module


def test_the_page_of_the_command_line_has_every_verb_and_option(from_docs):
    text = from_docs("from_code").command_line()
    assert re.findall(r"^## ubend (.+)$", text, re.MULTILINE) == list(verbs())
    for name, verb in verbs().items():
        section = text.split(f"## ubend {name}\n")[1].split("\n## ")[0]
        assert verb.help.split(" (docs/")[0] in section
        for parameter in verb.params:
            assert all(option in section for option in parameter.opts), (name, parameter.opts)


def test_the_page_of_recipes_has_every_key_with_its_meaning(from_docs):
    text = from_docs("from_code").recipe_keys()
    for table, keys in tomllib.loads(to_toml(load_recipe("paper"))).items():
        if isinstance(keys, dict):
            rows = text.split(f"## [{table}]\n")[1].split("\n## ")[0].splitlines()[5:]
            assert [row.split("`")[1] for row in rows if row] == list(keys)
            assert [row for row in rows if row and not row.split(" | ")[-1].strip(" |")] == []
    assert "| `momentum` | number | `0.99` | `0.99` |" in text
    assert '| `kind` | `"sgd"`, `"nesterov"`, `"adamw"` | `"adamw"` | `"sgd"` |' in text


def test_the_reference_has_every_public_name():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = set(re.findall(r"^\.\. auto\w+:: (ubend[\w.]*)$", pages, re.MULTILINE))
    names = {f"ubend.{name}" for name in ubend.__all__ if name != "scores"}
    scores = {f"ubend.scores.{name}" for name in ubend.scores.__all__}
    assert names | scores <= listed
    for name in listed:
        assert importlib.util.find_spec(name) or hasattr(ubend, name.removeprefix("ubend.")), name


def documented() -> list[str]:
    """Functions and classes that the reference shows."""
    found: list[str] = []
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    for kind, name, chosen in re.findall(r"^\.\. auto(\w+):: (\S+)(?:\n   :members:([^\n]*))?", pages, re.MULTILINE):
        if kind != "module":
            found.append(name)
            continue
        module = importlib.import_module(name)
        public = getattr(module, "__all__", [one for one in vars(module) if not one.startswith("_")])
        own = [one for one in public if getattr(vars(module)[one], "__module__", None) == name]
        found += [f"{name}.{one}" for one in (chosen.strip().split(", ") if chosen.strip() else own)]
    return found


def methods_of(name: str) -> list[str]:
    home, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(home), last)
    if not inspect.isclass(thing):
        return []
    return [f"{name}.{key}" for key, value in vars(thing).items() if key[0] != "_" and inspect.isfunction(value)]


def test_what_the_reference_shows_says_what_goes_in_and_what_comes_out():
    """By numpydoc's own check; a class lists its fields as attributes."""
    names = [one for name in documented() for one in (name, *methods_of(name))]
    assert len(names) > 100
    faults = []
    for name in names:
        wanted = {"GL08"} if name.rpartition(".")[2][0].isupper() else {"GL08", "PR01", "PR02", "RT01"}
        faults += [(name, *fault) for fault in validate(name)["errors"] if fault[0] in wanted]
    assert faults == []


@pytest.mark.parametrize(
    "name", ["network", "energy", "weights", "elastic", "overlap_tile", "momentum", "slips", "changes"]
)
def test_each_picture_is_drawn_and_stands_on_the_page(name, from_docs, monkeypatch):
    drawn = from_docs("pictures")
    monkeypatch.setattr(drawn, "STEPS", 1)
    picture = drawn.small_png(drawn.PICTURES[name]())
    assert picture.startswith(b"\x89PNG")
    assert 2_000 < len(picture) <= MOST_BYTES
    kept = ROOT / "docs" / "pictures" / f"{name}.png"
    assert kept.stat().st_size <= MOST_BYTES
    assert f"(pictures/{name}.png)" in (ROOT / "docs" / "paper-in-code.md").read_text(encoding="utf-8")


def test_no_picture_is_left_over(from_docs):
    assert {path.stem for path in (ROOT / "docs" / "pictures").iterdir()} == set(from_docs("pictures").PICTURES)


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
    [(_, _, code)] = blocks(page, "python")
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

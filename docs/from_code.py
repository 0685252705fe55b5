"""Pages of the reference that are read from the code: the verbs of the command line, and the keys of a recipe."""

import dataclasses
import re
import typing

import typer
from docutils import nodes
from numpydoc.docscrape import ClassDoc
from sphinx.util.docutils import SphinxDirective

from ubend.faces.cli import app
from ubend.run.recipe import Recipe, load_recipe


class FromCode(SphinxDirective):
    """`{from-code} command_line`: what the function of this name writes as Markdown stands here."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(PAGES[self.arguments[0]](), allow_section_headings=True)


def command_line() -> str:
    """Write a section for each verb: what it does, and a table of its arguments and options for each panel."""
    parts = []
    for name, verb in typer.main.get_command(app).commands.items():
        context = verb.make_context(name, [], resilient_parsing=True)
        usage = " ".join(["ubend", name, *verb.collect_usage_pieces(context)])
        parts += [f"## ubend {name}", _linked(verb.help), f"```text\n{usage}\n```"]
        panels: dict[str, list[str]] = {}
        for parameter in verb.params:
            record = parameter.get_help_record(context)
            if record is not None:
                kind = "Arguments" if parameter.opts[0].isidentifier() else "Options"
                panel = parameter.rich_help_panel or kind
                panels.setdefault(panel, []).append(f"| `{record[0]}` | {_cell(record[1])} |")
        for panel, rows in panels.items():
            parts.append("\n".join([f"| {_linked(panel)} | |", "| --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def recipe_keys() -> str:
    """Write a section for each table of a recipe: its keys, what they may be, and what the shipped recipes say."""
    default, paper = load_recipe("default"), load_recipe("paper")
    parts = []
    for table in dataclasses.fields(Recipe):
        if table.name == "about":
            continue
        kind = type(getattr(default, table.name))
        meanings = {
            name: " ".join(entry.desc) for entry in ClassDoc(kind)["Attributes"] for name in entry.name.split(", ")
        }
        hints = typing.get_type_hints(kind)
        rows = ["| Key | It is | `default` | `paper` | Meaning |", "| --- | --- | --- | --- | --- |"]
        for key in dataclasses.fields(kind):
            values = (_value(getattr(getattr(recipe, table.name), key.name)) for recipe in (default, paper))
            rows.append(
                f"| `{key.name}` | {_allowed(hints[key.name])} | {' | '.join(values)} | {_cell(meanings[key.name])} |"
            )
        parts += [f"## [{table.name}]", ClassDoc(kind)["Summary"][0], "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _allowed(hint: type) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(_value(value) for value in typing.get_args(hint))
    return {int: "whole number", float: "number", bool: "true or false", str: "text"}[hint]


def _value(value: object) -> str:
    """As TOML has it."""
    written = (
        str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else f"{value:g}"
    )
    return f"`{written}`"


def _cell(text: str) -> str:
    text = text.replace("|", r"\|").replace("[required]", "**Required.**").replace(str(2**63 - 1), "2⁶³−1")
    return _linked(text)


def _linked(text: str) -> str:
    """Pages that the command line names by their file become links."""
    return re.sub(r"docs/([\w-]+)\.md", r"[\1](../\1.md)", text)


PAGES = {"command_line": command_line, "recipe_keys": recipe_keys}

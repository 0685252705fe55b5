"""Options that several verbs share, what a shell completes for them, and a wrong command line in one line.

Nothing heavy is imported here: a shell asks for completions at each key.
"""

import difflib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from ubend.faces.terminal import console

EXPORTS = ("onnx", "bioimageio")
"""Formats of other programs that a model is written in."""
DEMO_SCENES = {
    "cells": "touching cells in phase contrast",
    "membranes": "membranes as in electron microscopy",
    "nuclei": "fluorescent nuclei",
    "landscape": "sky, tree and ground in colour",
}
TASKS = {
    "binary": "foreground and background",
    "classes": "each pixel has a class",
    "instances": "single objects, each with a number of its own",
}
DEVICES = {"cpu": "the processor", "cuda": "an NVIDIA GPU", "mps": "an Apple GPU"}

STDOUT = Path("-")
"""What --json takes for the standard output."""


# what a shell completes


def tasks() -> list[tuple[str, str]]:
    """What labels may mean."""
    return list(TASKS.items())


def devices() -> list[tuple[str, str]]:
    """Where networks are computed."""
    return list(DEVICES.items())


def scenes() -> list[tuple[str, str]]:
    """What the demo simulates."""
    return list(DEMO_SCENES.items())


def exports() -> list[str]:
    """Formats to export to."""
    return list(EXPORTS)


def recipes() -> list[str]:
    """Recipes by name, and TOML files here; other files a shell completes itself."""
    shipped = sorted(path.name.removesuffix(".toml") for path in (files("ubend.run") / "recipes").iterdir())
    return [*shipped, *sorted(path.name for path in Path().glob("*.toml"))]


# the options


def _hush(quiet: bool) -> bool:
    console.quiet = console.quiet or quiet
    return quiet


def _hush_for_json(file: Path | None) -> Path | None:
    console.quiet = console.quiet or file == STDOUT
    return file


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write into; made if it is missing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.", callback=_hush),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Also write what came of it as JSON (docs/terminal.md); - prints it, and nothing else.",
        callback=_hush_for_json,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps; without it the best there is.", autocompletion=devices)
]
Minutes = Annotated[
    float | None,
    typer.Option("--minutes", "-m", help="How long it may take in all; the learning rate falls just until then."),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="default, paper, or a TOML file.", autocompletion=recipes)
]
LabelFolder = Annotated[str | None, typer.Option(help="Name of the label folder, if there are several.")]
Seed = Annotated[int, typer.Option(help="Of all randomness.", min=0, max=2**63 - 1)]
TaskKind = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="binary, classes or instances, if the labels are not what they look like.",
        autocompletion=tasks,
    ),
]
Ignore = Annotated[int | None, typer.Option(help="The label of pixels that are not labelled.")]
Memory = Annotated[
    str | None,
    typer.Option(help="How much the program may hold, as 2GB or 500MB; without it a share of what is free."),
]
ModelPath = Annotated[Path, typer.Argument(help="Folder of a run, or a model file.")]
Data = Annotated[Path, typer.Argument(help="Folder with images and labels, as for `ubend train`.")]


# a wrong command line

UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""What typer raises where a command line is wrong; its releases keep the class in different places."""


def usage_in_one_line(error: Any) -> str:
    """Say what is wrong with a command line, and the nearest one that works.

    Parameters
    ----------
    error : UsageError

    Returns
    -------
    str
    """
    context, kind = error.ctx, type(error).__name__
    if context is None or kind not in ("NoSuchOption", "MissingParameter"):
        said = " ".join(error.format_message().split())
        said = said[:1].lower() + said[1:]
        verbs = getattr(context and context.command, "commands", ())
        return f"{said.rstrip('.')}; there are {', '.join(verbs)}" if verbs and "mean" not in said else said
    verb = context.command_path.removeprefix("ubend ")
    more = f"`{context.command_path} --help` says all"
    if kind == "NoSuchOption":
        known = [name for one in context.command.params for name in one.opts if name.startswith("--")]
        nearest = difflib.get_close_matches(error.option_name, known, n=1)
        hint = f": did you mean {nearest[0]}?" if nearest else f"; {more}"
        return f"{verb} knows no option {error.option_name}{hint}"
    needed = " ".join(_said(one) for one in context.command.params if one.required)
    return f"{verb} needs {_said(error.param)}: `{context.command_path} {needed}`; {more}"


def _said(parameter: Any) -> str:
    """Write an argument or an option with a value as in a command line."""
    name = str(parameter.name).upper()
    return name if parameter.param_type_name == "argument" else f"{parameter.opts[0]} {name}"

"""What a training or a prediction came to: a table for people, and the same for programs (docs/terminal.md)."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from ubend.faces.score_tables import score_text
from ubend.faces.terminal import count, duration, escape
from ubend.faces.words import rules_in_words
from ubend.run.contract import Contract
from ubend.run.folders import ALL_OBJECTS, LABELS, OBJECTS, FolderResult
from ubend.run.runs import FOLDS, LOG, RECIPE, REPORT
from ubend.run.scale import LargePrediction
from ubend.run.verification import TOLERANCE, Verification

__all__ = [
    "Prediction",
    "Segmented",
    "Training",
    "print_training",
    "print_verification",
    "verification_for_programs",
]

FORMAT_VERSION = 1
"""Of what is written for programs."""
MOST_IMAGES = 10
"""Rows of images at most."""
MOST_CLASSES = 20
_FILES = {
    "model": "the model",
    "recipe": "how it was made",
    "log": "energy and learning rate of each step",
    "folds": "scores of each image",
    "report": "look at it in a browser: how good, on which images, where unsure",
}
_WARNINGS = {
    "looks": "unlike those trained on",
    "dtype": "other type of values",
    "channel-names": "other names of channels",
    "pixel-size": "other pixel size",
    "object-size": "objects of another size",
}


# training


@dataclass(frozen=True)
class Training:
    """What a run came to.

    Attributes
    ----------
    run : Path
        Its folder.
    contract : Contract
        Of its model.
    seconds : float
        From the start of the command to its end.
    waited : float or None
        Share of the time of all steps in which the network waited for tiles; None for a run that was done already.
    """

    run: Path
    contract: Contract
    seconds: float
    waited: float | None

    @property
    def files(self) -> dict[str, Path]:
        """What is in the folder, by what it is."""
        names = {"model": "model.safetensors", "recipe": RECIPE, "log": LOG, "folds": FOLDS, "report": REPORT}
        return {what: self.run / name for what, name in names.items() if (self.run / name).is_file()}

    @property
    def quality_of(self) -> str | None:
        """What the quality was measured on: "folds", "held-out images", or None where there is none."""
        if not self.contract.quality:
            return None
        return "folds" if "folds" in self.contract.provenance else "held-out images"

    def for_programs(self) -> dict[str, Any]:
        """Return all of it as JSON holds it."""
        made = self.contract.provenance
        return {
            "format": "ubend-training",
            "format_version": FORMAT_VERSION,
            "run": str(self.run),
            "task": self.contract.task.kind,
            "values": list(self.contract.task.values),
            "images": len(made.get("images", {})),
            "held_out": len(made.get("held_out", {})),
            "steps": made.get("steps"),
            "seconds": round(self.seconds, 2),
            "waited": self.waited,
            "quality_of": self.quality_of,
            "quality": {name: value if math.isfinite(value) else None for name, value in self.contract.quality.items()},
            "intervals": made.get("folds", {}).get("intervals", {}),
            "files": {what: str(path) for what, path in self.files.items()},
        }


def print_training(console: Console, training: Training) -> None:
    """Print how long a run took, how good its model is by score and class, and the files it left."""
    contract, made = training.contract, training.contract.provenance
    itself = " the model itself" if "folds" in made else ""
    waited = "" if training.waited is None else f"; waited for tiles {training.waited:.1%} of the time"
    console.print(
        f"\n[bold]Trained{itself}[/] on {count(len(made['images']), 'image')}, {count(made['steps'], 'step')} in "
        f"{duration(60 * made['minutes'])}{' with the folds' * bool(itself)}{waited}."
    )
    if contract.task.kind == "instances":
        chosen = "as chosen on the held-out images" if contract.quality else "by default"
        console.print(f"Objects, {chosen}: {rules_in_words(contract)}.")
    console.print(_where_from(contract))
    if contract.quality:
        _print_quality(console, contract)
    table = _table("file", "what", text=("file", "what"), header=False)
    for what, path in training.files.items():
        table.add_row(escape(str(path)), f"[dim]{_FILES[what]}[/]")
    console.print()
    console.print(table)
    console.print(f"Took {duration(training.seconds)} in all.")


def _where_from(contract: Contract) -> str:
    """Say what the quality was measured on."""
    made = contract.provenance
    if "folds" in made:
        chosen = ", rules for objects from the other folds" if contract.task.kind == "instances" else ""
        images = count(len(made["folds"]["of"]), "image")
        return (
            f"Quality, of {made['folds']['number']} folds ({images}, each scored by a network that has not seen it"
            f"{chosen}):"
        )
    if contract.quality:
        held_out, helped = count(len(made["held_out"]), "held-out image"), ""
        if contract.task.kind == "instances" and made.get("scored") == "as it predicts":
            share = made.get("scored_share", 1.0)
            helped = ("" if share == 1 else f" ({share:.0%} of their pixels)") + ", which helped to choose that"
        elif contract.task.kind == "instances":
            helped = ", before that choice"
        return f"Quality, of {held_out}{helped}:"
    none = contract.recipe.training.held_out == 0
    why = "the recipe holds none out" if none else "there are fewer than three"
    return f"No image was held out ({why}), so its quality is unknown."


def _print_quality(console: Console, contract: Contract) -> None:
    """Print scores of all together, then those of each class, a class a row."""
    ends = contract.provenance.get("folds", {}).get("intervals", {})
    together = {name: value for name, value in contract.quality.items() if " of " not in name or "(" in name}
    table = _table("  score", "value", *["95 % interval"] * bool(ends), text=("  score",))
    for name, value in together.items():
        interval = [f"{score_text(ends[name][0])}–{score_text(ends[name][1])}" if ends.get(name) else "–"] * bool(ends)
        table.add_row(f"  {name}", f"[bold]{score_text(value)}[/]", *interval)
    console.print(table)
    of_classes = [name.split(" of ") for name in contract.quality if name not in together]
    kinds = list(dict.fromkeys(kind for kind, _ in of_classes))
    values = list(dict.fromkeys(value for _, value in of_classes))
    if not values:
        return
    names = dict(zip(map(str, contract.task.values), contract.class_names, strict=False))
    table = _table("  class", *kinds, text=("  class",))
    for label in values[:MOST_CLASSES]:
        scores = (score_text(contract.quality.get(f"{kind} of {label}")) for kind in kinds)
        table.add_row(f"  {escape(f'{label} {names.get(label, str())}'.strip())}", *scores)
    console.print(table)
    if len(values) > MOST_CLASSES:
        console.print(f"  and {len(values) - MOST_CLASSES} classes more: `ubend describe` has them all")


# prediction


@dataclass(frozen=True)
class Segmented:
    """What was made of an image.

    Attributes
    ----------
    name : str
    labels : Path
        Its label image.
    objects : int or None
        For single objects.
    seconds : float
        That it took; of an image in memory those of the network alone.
    warnings : tuple of str
        In what it is unlike those trained on, a word each.
    """

    name: str
    labels: Path
    objects: int | None
    seconds: float
    warnings: tuple[str, ...]

    def for_programs(self) -> dict[str, Any]:
        """Return all of it as JSON holds it."""
        return {
            "name": self.name,
            "labels": str(self.labels),
            "objects": self.objects,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
        }


@dataclass
class Prediction:
    """What was made of all images.

    Attributes
    ----------
    out : Path
        The folder of results.
    task : str
    images : list of Segmented
    failed : dict of str to str
        Files that could not be segmented, and why.
    tables : list of Path
        Of all objects of a folder, or of those of a large image.
    for_napari : Path or None
        The table with which the plugin opens the results of a folder; of a stack those of its first page.
    began : float
        Seconds of `perf_counter` when it was made.
    """

    out: Path
    task: str
    images: list[Segmented] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    for_napari: Path | None = None
    began: float = field(default_factory=perf_counter)

    def add_folder(self, result: FolderResult) -> None:
        """Note what became of a folder."""
        for path in result.written:
            name = path.name.removesuffix(LABELS)
            seconds = result.seconds[name]
            row = Segmented(name, path, result.objects.get(name), seconds, _warnings(result, [name]))
            self.images.append(row)
        self.failed |= {path.name: reason for path, reason in result.failed.items()}
        if result.table is not None:
            self.tables.append(result.table)
            of_first = result.table.with_name(f"{result.written[0].name.removesuffix(LABELS)}{OBJECTS}")
            self.for_napari = result.table if result.table.name == ALL_OBJECTS else of_first

    def add_large(self, result: LargePrediction, seconds: float) -> None:
        """Note what became of an image that was segmented block by block, all of its planes together."""
        planes, name = [*result.unlike, *result.other_diameters], result.image.path.name
        self.images.append(Segmented(name, result.labels, result.objects, seconds, _warnings(result, planes)))
        self.tables += result.tables

    def for_programs(self) -> dict[str, Any]:
        """Return all of it as JSON holds it."""
        counted = [image.objects for image in self.images if image.objects is not None]
        return {
            "format": "ubend-prediction",
            "format_version": FORMAT_VERSION,
            "out": str(self.out),
            "task": self.task,
            "seconds": round(perf_counter() - self.began, 2),
            "objects": sum(counted) if counted else None,
            "images": [image.for_programs() for image in self.images],
            "failed": [{"file": name, "reason": reason} for name, reason in self.failed.items()],
            "tables": [str(table) for table in self.tables],
        }

    def print(self, console: Console) -> None:
        """Print a row for each image, of many for the first, one for all of them, and the files."""
        if not self.images:
            return
        _print_images(console, self.images, perf_counter() - self.began)
        console.print(f"Wrote {count(len(self.images), 'label image')} into {escape(str(self.out))}.")
        if self.tables:
            shown = ", ".join(escape(str(table)) for table in self.tables[:3])
            more = f" and {len(self.tables) - 3} more" if len(self.tables) > 3 else ""
            console.print(f"Measured the objects: {shown}{more}.")


def _warnings(result: FolderResult | LargePrediction, names: Sequence[str]) -> tuple[str, ...]:
    unlike = [result.unlike[name] for name in names if name in result.unlike]
    sizes: Mapping[str, float] = result.other_sizes if isinstance(result, FolderResult) else {}
    found = {
        "looks": any(one.drift is not None for one in unlike),
        "dtype": any(one.dtype is not None for one in unlike),
        "channel-names": any(one.channel_names is not None for one in unlike),
        "pixel-size": any(name in sizes for name in names),
        "object-size": any(name in result.other_diameters for name in names),
    }
    return tuple(word for word, there in found.items() if there)


def _print_images(console: Console, images: Sequence[Segmented], seconds: float) -> None:
    counted = any(image.objects is not None for image in images)
    warned = any(image.warnings for image in images)
    table = _table("image", *["objects"] * counted, "seconds", *["note"] * warned, text=("image", "note"))
    for image in images[:MOST_IMAGES]:
        unlike = [", ".join(_WARNINGS[word] for word in image.warnings)] * warned
        table.add_row(escape(image.name), *_number(image.objects, counted), f"{image.seconds:.1f}", *unlike)
    if len(images) > MOST_IMAGES:
        table.add_row(f"[dim]and {len(images) - MOST_IMAGES} more[/]")
    if len(images) > 1:
        total = sum(image.objects or 0 for image in images)
        table.add_row(
            f"[bold]{count(len(images), 'image')}[/]", *_number(total, counted), f"{seconds:.1f}",
            style="bold",
        )  # fmt: skip
    console.print(table)


def _number(objects: int | None, counted: bool) -> list[str]:
    return [("" if objects is None else f"{objects:,}")] * counted


# verification of tiles


def print_verification(console: Console, found: Verification) -> None:
    """Print how each tile size compares with one piece."""
    rows, columns = found.shape
    tiles = found.reference.tiles
    piece = "one piece" if tiles == 1 else f"the largest tiles that fit, {tiles} of them"
    height, width = found.reference.shape
    console.print(f"Image of {rows}×{columns} px, compared with {piece} ({height}×{width} px), in float32:")
    table = _table("tile", "tiles", "largest difference", "labels changed", "")
    for check in found.checks:
        said = "PASS" if check.passed else "[bold red]FAIL[/]"
        size = f"{check.shape[0]}×{check.shape[1]}"
        table.add_row(size, str(check.tiles), f"{check.difference:.1e}", str(check.changed), said)
    console.print(table)
    if found.passed:
        console.print(f"[bold]PASS[/]: no label changes, and no probability by more than {TOLERANCE:g}.")
    else:
        console.print(f"[bold red]FAIL[/]: a label changes, or a probability by more than {TOLERANCE:g}.")


def verification_for_programs(found: Verification) -> dict[str, Any]:
    """Return how each tile size compares, as JSON holds it."""
    return {
        "format": "ubend-verification",
        "format_version": FORMAT_VERSION,
        "passed": found.passed,
        "tolerance": TOLERANCE,
        "shape": list(found.shape),
        "reference": {"tile": list(found.reference.shape), "tiles": found.reference.tiles},
        "checks": [
            {
                "tile": list(check.shape),
                "tiles": check.tiles,
                "difference": check.difference,
                "changed": check.changed,
                "passed": check.passed,
            }
            for check in found.checks
        ],
    }


# tables


def _table(*names: str, text: Collection[str] = (), header: bool = True) -> Table:
    """Make a table without lines; all but text to the right, and unbroken."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=header)
    for name in names:
        is_text = name in text
        table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    return table

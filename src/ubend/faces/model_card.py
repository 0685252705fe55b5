"""What a model is for, in plain words: the card that `ubend describe` prints, and the same for programs."""

import dataclasses
import textwrap
from typing import Any

from rich.console import Console

from ubend.faces.terminal import escape
from ubend.faces.unlike import range_in_words
from ubend.faces.words import rules_in_words
from ubend.method.network import count_parameters
from ubend.run.budget import at_resolution
from ubend.run.contract import Contract
from ubend.run.drift import Reference
from ubend.run.normalisation import Normalisation, count
from ubend.run.recipe import Recipe, load_recipe

__all__ = ["card_for_programs", "print_card"]

_SAID_ELSEWHERE = ("about", "budget", "training")
_MOST_SCORES = 12
_MOST_NAMES = 12
_NARROWEST = 20

_TASKS = {
    "binary": "foreground and background",
    "classes": "one class for each pixel",
    "instances": "single objects, each with a number of its own",
}
_VIEWS = {
    "one": "one",
    "dihedral": "8, rotated by quarter turns and mirrored, averaged",
    "rotations": "7, rotated by multiples of 360°/7, averaged",
}
_STATISTICS = {
    "image": "batch normalisation goes by an image where the network is surer by that, else by the training",
    "training": "batch normalisation goes by the averages of the training",
}


def print_card(console: Console, contract: Contract, *, name: str) -> None:
    """Print what a model is for, what it was trained on, how good it was, and how it was made.

    Parameters
    ----------
    console : Console
    contract : Contract
    name : str
        Of the model, as the user gave it.
    """
    console.print(f"[bold]Model {escape(name)}[/]")
    sections = {
        "What it does": _what_it_does(contract),
        "What it expects": _what_it_expects(contract),
        "What it was trained on": _trained_on(contract),
        "How good it was": _quality(contract),
        "How it was made": _made(contract),
    }
    widest = max(len(key) for lines in sections.values() for key in lines)
    for title, lines in sections.items():
        console.print(f"\n[bold]{title}[/]")
        for key, value in lines.items():
            for line in _wrapped(key.ljust(widest + 2), value, console.width).split("\n"):
                console.print(escape(line), soft_wrap=True)


def _wrapped(key: str, value: str, width: int) -> str:
    """Put a value beside its key, over as many lines as it needs, and no blanks at their ends."""
    room = max(width - len(key), _NARROWEST)
    lines = [line for part in value.splitlines() for line in textwrap.wrap(part, room)] or [""]
    return key + f"\n{' ' * len(key)}".join(lines)


def card_for_programs(contract: Contract) -> dict[str, Any]:
    """Return all that a model file says beside its weights, as JSON holds it."""
    return {
        "format": "ubend-model-card",
        "format_version": 2,
        "parameters": count_parameters(contract.network),
        **contract.to_dict(),
    }


def _what_it_does(contract: Contract) -> dict[str, str]:
    task = contract.task
    lines = {"Finds": _TASKS[task.kind]}
    if task.values:
        names = contract.class_names or ("",) * len(task.values)
        shown = [f"{value} {name}".strip() for value, name in zip(task.values, names, strict=True)]
        lines["Label values"] = _some(shown)
    if task.kind == "instances":
        lines["Objects are"] = rules_in_words(contract)
    lines["Views"] = _VIEWS[contract.views]
    if contract.network.normalisation == "batch":
        lines["Statistics"] = _STATISTICS[contract.statistics]
    return lines


def _what_it_expects(contract: Contract) -> dict[str, str]:
    channels, reference = contract.network.in_channels, contract.reference
    names = f": {', '.join(contract.channel_names)}" if contract.channel_names else ""
    lines = {
        "Channels": f"{channels}{names}",
        "Pixel size": "not known: the training images did not say theirs",
        "Normalisation": _normalisation(contract.normalisation, channels),
    }
    if contract.pixel_size is not None:
        lines["Pixel size"] = f"{contract.pixel_size:g} µm; other sizes are told, and --resample brings them to it"
    if reference is None:
        lines["Looks"] = (
            "not known: the file is older than format version 4; train again to be told of images that look otherwise"
        )
        return lines
    lines["Values"] = " and ".join(reference.dtypes) + "; " + _values(reference)
    if reference.diameters is not None:
        known = reference.diameters
        lines["Object size"] = f"{range_in_words(known.least, known.most)} px, median diameter of an image"
        if contract.pixel_size is not None:
            least, most = (value * contract.pixel_size for value in (known.least, known.most))
            lines["Object size"] += f" ({range_in_words(least, most)} µm)"
    lines["Looks"] = _looks(reference)
    return lines


def _normalisation(normalisation: Normalisation, channels: int) -> str:
    if normalisation.kind == "range":
        return "values divided by the largest of their type; floats go from 0 to 1"
    if normalisation.kind == "percentile":
        low, high = (f"{value:g}" for value in (normalisation.low, normalisation.high))
        said = f"percentile {low} becomes 0, percentile {high} becomes 1"
    else:
        said = "mean becomes 0, mean and standard deviation become 1"
    together = ", of all channels together" if normalisation.together else ", of each channel" if channels > 1 else ""
    return f"{said}{together}, of each image as a whole"


def _values(reference: Reference) -> str:
    """Say where the values of each channel lie."""
    said = []
    for number, channel in enumerate(reference.channels, start=1):
        of = f"channel {number}: " if len(reference.channels) > 1 else ""
        low, high = (range_in_words(channel[key].least, channel[key].most) for key in ("low", "high"))
        said.append(f"{of}darkest {low}, brightest {high}")
    return "; ".join(said)


def _looks(reference: Reference) -> str:
    """Say how the images look, by numbers that prediction compares."""
    said = []
    for number, channel in enumerate(reference.channels, start=1):
        of = f"channel {number}: " if len(reference.channels) > 1 else ""
        noise, sharpness = (
            range_in_words(scale * 2 ** channel[key].least, scale * 2 ** channel[key].most)
            for key, scale in (("noise", 100), ("sharpness", 1))
        )
        middle = range_in_words(100 * channel["brightness"].least, 100 * channel["brightness"].most)
        polarity = channel["polarity"].median
        details = "brighter" if polarity > 0 else "darker"
        said.append(
            f"{of}noise {noise} % of the range, sharpness {sharpness}, middle at {middle} % of the range, details "
            f"mostly {details} than around them"
        )
    return "; ".join(said)


def _trained_on(contract: Contract) -> dict[str, str]:
    made = contract.provenance
    images, held_out = made.get("images", {}), made.get("held_out", {})
    lines = {"Images": f"{len(images)}: {_some(list(images))}" if images else "not known"}
    if held_out:
        lines["Held out"] = f"{len(held_out)}: {_some(list(held_out))}"
    if images:
        lines["Fingerprints"] = (
            f"{len(images) + len(held_out)}, a hash of the pixels and labels of each image (--json writes them)"
        )
    return lines


def _quality(contract: Contract) -> dict[str, str]:
    folds = contract.provenance.get("folds")
    if not contract.quality:
        return {"Not known": "no image was held out"}
    scores = list(contract.quality.items())
    shown = scores if len(scores) <= _MOST_SCORES else scores[:2]
    ends = {} if folds is None else folds["intervals"]
    lines = {
        name: f"{value:.4f}" + (f"  95 % interval {ends[name][0]:.4f} to {ends[name][1]:.4f}" if name in ends else "")
        for name, value in shown
    }
    if folds is None:
        on = count(len(contract.provenance.get("held_out", {})), "held-out image")
        how = "in one view"
        if contract.provenance.get("scored") == "as it predicts":
            share = contract.provenance.get("scored_share", 1.0)
            on += "" if share == 1 else f" ({share:.0%} of their pixels)"
            how = "as the model predicts; the rules for objects were chosen on them too, which flatters a little"
        elif contract.task.kind == "instances":
            how = "in one view, before the rules for objects were chosen"
        lines["Measured on"] = f"{on}, {how}"
    else:
        chosen = ", rules for objects from the other folds" if contract.task.kind == "instances" else ""
        lines["Measured on"] = (
            f"all {count(len(folds['of']), 'image')} in {folds['number']} folds, each by a network that has not seen "
            f"it{chosen}"
        )
    return lines


def _made(contract: Contract) -> dict[str, str]:
    made, network = contract.provenance, contract.network
    said = {key: made.get(key, "not known") for key in ("steps", "minutes", "seed", "machine", "date")}
    lines = {
        "Network": f"U-Net of width {network.width} and depth {network.core.depth}{at_resolution(network.coarse)}, "
        f"{count_parameters(network):,} "
        f"parameters, padding {network.padding}, normalisation {network.normalisation}",
        "Training": "{steps} steps in {minutes} minutes, seed {seed}, {machine}, {date}".format(**said),
        "Recipe": _unlike_default(contract.recipe),
        "Software": ", ".join(f"{name} {number}" for name, number in made.get("versions", {}).items()) or "not known",
        "File": "holds all of this and the weights; no code, no pickle",
    }
    if made.get("plan"):
        lines["Plan"] = "\n".join(made["plan"])
    return lines


def _unlike_default(recipe: Recipe) -> str:
    """Name what recipe and plan have settled otherwise than the recipe default."""
    default, own = (dataclasses.asdict(one) for one in (load_recipe("default"), recipe))
    changed = [
        f"{key} {_written(value)} ({_written(default[table][key])})"
        for table, keys in own.items()
        if table not in _SAID_ELSEWHERE
        for key, value in keys.items()
        if value != default[table][key]
    ]
    return ", ".join(changed) + "; in brackets those of default" if changed else "default"


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + rest

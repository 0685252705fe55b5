"""What a model was made for: everything that prediction must do just as training did."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ubend.data.annotated import Kind, Task
from ubend.errors import ModelFileError
from ubend.method.network import NetworkConfig
from ubend.method.objects import ObjectRules
from ubend.run.drift import LIKE_DIAMETER, Drift, ImageStatistics, Reference, compare, diameter_factor
from ubend.run.normalisation import Normalisation, count
from ubend.run.recipe import Recipe, recipe_from_dict


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a model file says beside the weights.

    Attributes
    ----------
    network : NetworkConfig
    task : Task
        Binary, classes or instances; the label values of the classes.
    normalisation : Normalisation
    views : {"one", "dihedral", "rotations"}
        Over which views of an image the probabilities are averaged.
    statistics : {"training", "image"}
        By which batch normalisation works; of a model from before version 6 of the file those of the training.
    objects : ObjectRules
        For instances: how foreground becomes objects, as chosen on the held-out images; with
        folds on all of them, each as held out.
    pixel_size : float or None
        Micrometres a pixel of the training images, where they said so.
    channel_names : tuple of str
        Names of the channels in their order, where the training images named them all, and alike; else empty.
    class_names : tuple of str
        Names of the label values of the task, in their order, where the data named them all; else empty.
    reference : Reference or None
        What the training images looked like, and how large their objects were. None of a model from before version 4
        of the file.
    quality : dict of str to float
        Scores on held-out images; empty if none were held out. With folds they are those of all images, each by a
        network that has not seen it, and ``provenance["folds"]`` has their intervals and who was in which fold.
    recipe : Recipe
    provenance : dict
        When, from what, with what the model was made.
    """

    network: NetworkConfig
    task: Task
    normalisation: Normalisation
    views: Literal["one", "dihedral", "rotations"]
    statistics: Literal["training", "image"] = "training"
    objects: ObjectRules = field(default_factory=ObjectRules)
    pixel_size: float | None = None
    channel_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    reference: Reference | None = None
    quality: dict[str, float] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def learns_distance(self) -> bool:
        """Whether the last map of the network is not a class but the distance to the border of a cell."""
        return self.task.kind == "instances" and self.network.classes == 3

    def to_dict(self) -> dict[str, Any]:
        """Say all of it in what JSON holds.

        Returns
        -------
        dict
            Nested dictionaries.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Contract":
        """Build from what `to_dict` returned.

        Raises
        ------
        ModelFileError
            If something is missing, unknown, or not allowed.
        """
        try:
            task = dict(values["task"])
            parts = {
                "network": NetworkConfig(**values["network"]),
                "task": Task(**{**task, "values": tuple(task["values"])}),
                "normalisation": Normalisation(**values["normalisation"]),
                "objects": _all_rules(values["objects"]),
                "recipe": recipe_from_dict(values["recipe"]),
                "channel_names": tuple(map(str, values["channel_names"])),
                "class_names": tuple(map(str, values["class_names"])),
                "reference": None if values["reference"] is None else Reference.from_dict(values["reference"]),
            }
            contract = cls(**{**values, **parts})
            _check_counts(contract)
            _check_values(contract)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelFileError(f"the model's contract is damaged: {' '.join(str(error).split())[:300]}") from None
        return contract


def _check_values(contract: Contract) -> None:
    """Raise ValueError where a file says what `ubend train` never writes, and what would go wrong only later."""
    task, made, folds = contract.task, contract.provenance, contract.provenance.get("folds")
    is_instances = task.kind == "instances"
    labels = [*task.values, *([] if task.ignore_label is None else [task.ignore_label])]
    fits = {
        "task": task.kind in get_args(Kind) and all(type(value) is int and abs(value) < 2**31 for value in labels),
        "classes": contract.network.classes in ((2, 3) if is_instances else (len(task.values),)),
        "values": len(set(task.values)) == len(task.values) and min(task.values, default=0) >= 0,
        "normalisation": contract.normalisation.kind in ("percentile", "range", "standardise"),
        "together": isinstance(contract.normalisation.together, bool),
        "views": contract.views in ("one", "dihedral", "rotations"),
        "statistics": contract.statistics in ("training", "image"),
        "pixel_size": contract.pixel_size is None or (_is_number(contract.pixel_size) and contract.pixel_size > 0),
        "quality": _are_numbers(contract.quality),
        "images": isinstance(made.get("images", {}), dict),
        "held_out": isinstance(made.get("held_out", {}), dict),
        "plan": isinstance(made.get("plan", []), list) and all(isinstance(line, str) for line in made.get("plan", [])),
        "versions": isinstance(made.get("versions", {}), dict),
        "folds": folds is None or _are_folds(folds, contract.quality),
    }
    wrong = [name for name, is_right in fits.items() if not is_right]
    if wrong:
        raise ValueError(f"{wrong[0]} is not what ubend writes")


def _are_folds(folds: dict[str, Any], quality: dict[str, float]) -> bool:
    ends = folds["intervals"]
    pairs = all(len(pair) == 2 and all(map(_is_number, pair)) for pair in ends.values())
    return type(folds["number"]) is int and isinstance(folds["of"], dict) and pairs and ends.keys() <= quality.keys()


def _are_numbers(values: dict[str, float]) -> bool:
    return all(_is_number(value) for value in values.values())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_counts(contract: Contract) -> None:
    """Raise ValueError where there are more or fewer names, or numbers, than channels or classes."""
    channels, reference = contract.network.in_channels, contract.reference
    if contract.channel_names and len(contract.channel_names) != channels:
        raise ValueError(f"channel_names: {len(contract.channel_names)} names for {count(channels, 'channel')}")
    if contract.class_names and len(contract.class_names) != len(contract.task.values):
        raise ValueError(f"class_names: {len(contract.class_names)} names for {len(contract.task.values)} label values")
    if reference is not None and len(reference.channels) != channels:
        raise ValueError(f"reference: of {len(reference.channels)}, for {count(channels, 'channel')}")


def _all_rules(values: dict[str, Any]) -> ObjectRules:
    """Build the rules for objects; one that is missing is damage, not a default."""
    missing = {one.name for one in dataclasses.fields(ObjectRules)} - values.keys()
    if missing:
        raise KeyError(f"objects: {min(missing)}")
    return ObjectRules(**values)


@dataclass(frozen=True)
class Unlike:
    """In what an image is unlike those that a model was trained on; None where it is alike, or nothing is known.

    Attributes
    ----------
    drift : Drift or None
        How it looks.
    dtype : str or None
        Of its values.
    channel_names : tuple of str or None
        As its file names them.
    """

    drift: Drift | None = None
    dtype: str | None = None
    channel_names: tuple[str, ...] | None = None


def unlike(contract: Contract, image: ImageStatistics, channel_names: tuple[str, ...] = ()) -> Unlike | None:
    """Say in what an image is unlike those trained on.

    Parameters
    ----------
    contract : Contract
    image : ImageStatistics
        Of as many channels as the model takes.
    channel_names : tuple of str
        Of the image, where its file has them. Only names for as many channels as the model has names for count.

    Returns
    -------
    Unlike or None
        None if in nothing.
    """
    known = contract.reference
    if known is None:
        return None
    drift, names = compare(image, known), tuple(map(str.casefold, channel_names))
    same_names = len(names) != len(contract.channel_names) or names == tuple(map(str.casefold, contract.channel_names))
    found = Unlike(
        drift if drift.is_far else None,
        None if image.dtype in known.dtypes else image.dtype,
        None if same_names else channel_names,
    )
    return None if found == Unlike() else found


def unlike_diameter(contract: Contract, diameter: float | None) -> bool:
    """Whether objects are more than twice as large as, or less than half as large as, all those trained on."""
    if contract.reference is None:
        return False
    factor = diameter_factor(diameter, contract.reference)
    return not 1 / LIKE_DIAMETER <= factor <= LIKE_DIAMETER

"""What a model was made for: everything that prediction must do just as training did."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Kind, Task
from ubend.errors import InputError, ModelFileError
from ubend.method.network import NetworkConfig
from ubend.method.objects import ObjectRules
from ubend.run.drift import LIKE_DIAMETER, Drift, ImageStatistics, Reference, compare, diameter_factor
from ubend.run.recipe import Recipe, recipe_from_dict

SAMPLED_PIXELS = 2**20


@dataclass(frozen=True)
class Normalisation:
    """How gray values become numbers near 0 to 1; computed for each image as a whole, never for a tile.

    Attributes
    ----------
    kind : {"percentile", "range", "standardise"}
        See `recipe.PredictionConfig`.
    together : bool
        One scale for all channels, as colour needs; otherwise each channel has its own.
    low, high : float
        The percentiles that become 0 and 1, where `kind` is "percentile".
    """

    kind: Literal["percentile", "range", "standardise"]
    together: bool
    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        if self.kind not in ("percentile", "range", "standardise"):
            raise InputError(f"normalisation is percentile, range or standardise, not {self.kind!r}")
        if not 0 <= self.low < self.high <= 100:
            raise InputError(f"percentiles go from 0 up to 100, not from {self.low} to {self.high}")

    def offset_and_gain(self, image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return offset and gain of each channel, so that (image − offset)·gain is what the network sees.

        Parameters
        ----------
        image : ndarray, shape (channels, rows, columns)

        Returns
        -------
        offset, gain : ndarray of float32, shape (channels,)
            A constant image has the gain 1.
        """
        stride = self.stride(image.shape[1], image.shape[2])
        return self.of_sample(image if self.kind == "range" else image[:, ::stride, ::stride])

    def stride(self, rows: int, columns: int) -> int:
        """Every how many-th row and column of an image is looked at: enough to know its gray values."""
        return max(1, int(np.sqrt(rows * columns / SAMPLED_PIXELS)))

    def of_sample(self, image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return offset and gain from every `stride`-th row and column of an image."""
        channels = image.shape[0]
        if self.kind == "range":
            if image.dtype.kind == "f" and (image.min() < 0 or image.max() > 1):
                raise InputError(
                    f'normalisation = "range" takes float images from 0 to 1, these go from {image.min():g} to '
                    f'{image.max():g}; "percentile" or "standardise" take any'
                )
            largest = np.iinfo(image.dtype).max if image.dtype.kind in "iu" else 1.0
            return np.zeros(channels, np.float32), np.full(channels, 1 / largest, np.float32)
        values = image.reshape(1 if self.together else channels, -1).astype(np.float32)
        if self.kind == "percentile":
            low, high = np.percentile(values, (self.low, self.high), axis=1)
            high = np.where(high > low, high, values.max(1))  # all that is not background is very little
        else:
            low = values.mean(1, dtype=np.float64)
            high = low + values.std(1, dtype=np.float64)
        gain = 1 / np.where(high > low, high - low, 1.0)
        return tuple(np.broadcast_to(value.astype(np.float32), channels).copy() for value in (low, gain))  # type: ignore[return-value]


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
    objects : ObjectRules
        For instances: how foreground becomes objects, as chosen on the annotated images, held-out ones first; with
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
        """Return nested dictionaries of what JSON holds."""
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


def channels_first(image: NDArray[Any], channels: int) -> NDArray[Any]:
    """Bring an image into the order (channels, rows, columns) and check that it has the channels of the model.

    Parameters
    ----------
    image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
    channels : int
        What the model was trained on. A colour image whose channels are all equal counts as gray.

    Raises
    ------
    InputError
        If the image has another shape or other channels, or is no array of finite numbers.
    """
    if image.dtype.kind not in "buif" or image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(
            f"an image is a non-empty array of real numbers, (rows, columns) or (rows, columns, channels); "
            f"came {image.dtype} {image.shape}"
        )
    if image.ndim == 2:
        image = image[..., None]
    elif image.shape[-1] != channels and image.shape[0] == channels:
        image = np.moveaxis(image, 0, -1)
    if channels == 1 and image.shape[-1] in (3, 4) and is_gray(image):
        image = image[..., :1]
    if image.shape[-1] != channels:
        raise InputError(
            f"the image has {count(image.shape[-1], 'channel')}, the model takes {channels}: "
            f"give images like those it was trained on"
        )
    if not_finite(image):
        raise InputError(
            f"the image is NaN or infinite at {count(not_finite(image), 'place')}: put numbers there, for example 0"
        )
    first = np.moveaxis(image, -1, 0)
    return first.astype(np.float32) if first.dtype.kind == "b" else first


def not_finite(image: NDArray[Any]) -> int:
    """Count the values that are NaN or infinite."""
    return int(image.size - np.count_nonzero(np.isfinite(image))) if image.dtype.kind == "f" else 0


def is_gray(image: NDArray[Any]) -> bool:
    """Whether the three colours of an image (rows, columns, 3 or 4) are equal."""
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())


def count(number: int, noun: str) -> str:
    """Say "1 channel", "3 channels"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")

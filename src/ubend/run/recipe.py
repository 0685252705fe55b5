"""A whole run as data: recipes, read from TOML, where an unknown key is an error.

A recipe is a frozen dataclass of small frozen dataclasses, most of which belong to the room that uses them. Shipped
recipes have names (`RECIPES`); a recipe of one's own is a TOML file, which only needs to say what differs from
`default`, or from the recipe named by its key ``base``.
"""

import dataclasses
import difflib
import json
import math
import operator
import tomllib
import typing
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from ubend.data.tiles import TileConfig
from ubend.errors import InputError, RecipeError
from ubend.method.augmentation import AugmentationConfig
from ubend.method.network import NetworkConfig

RECIPES = ("default", "paper")

BUDGETED = {"width": "network", "depth": "network", "coarse": "network", "size": "tiles", "batch": "tiles"}
"""What a budget may change, and the table it stands in."""

LARGEST_FILE = 2**15
"""Bytes of a recipe. Python takes a time that grows with the square of them, for keys such as a.a.a.a."""
LARGEST_INTEGER = 2**63 - 1
"""In a recipe; TOML promises as much."""

T = TypeVar("T")

_IN_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True, kw_only=True)
class EnergyConfig:
    """The energy: weighted cross entropy (Eq. 1) with the weights of Eq. 2; a Dice term; distances.

    Attributes
    ----------
    formula : {"ronneberger2015", "falk2019"}
        Eq. 2, or the weights of the authors' later plugin with its own numbers; then balance, w0, sigma and border_on
        say nothing.
    balance : {"none", "frequency"}
        w_c: every class 1, or inverse to its frequency in the training images.
    w0 : float
        Height of the border weight between cells; 0 leaves it out.
    sigma : float
        Its width, in pixels.
    border_on : {"everywhere", "background"}
        Whether the border weight also lies on the cells, as Eq. 2 has it.
    gap : int
        Pixels of background cut between touching cells.
    dice : float
        Weight of the Dice term.
    distance : float
        For single objects, weight of the distance to the border of its cell, which the network then learns beside the
        foreground, and by which objects that touch are parted; 0 learns the foreground only, as in 2015.
    """

    formula: Literal["ronneberger2015", "falk2019"] = "ronneberger2015"
    balance: Literal["none", "frequency"] = "frequency"
    w0: float = 10.0
    sigma: float = 5.0
    border_on: Literal["everywhere", "background"] = "everywhere"
    gap: int = 1
    dice: float = 0.0
    distance: float = 0.0

    def __post_init__(self) -> None:
        _check_ranges(self, at_least={"w0": 0, "gap": 0, "dice": 0, "distance": 0}, above={"sigma": 0})


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """How the weights move.

    Attributes
    ----------
    kind : {"sgd", "nesterov", "adamw"}
        "nesterov" is "sgd" that looks ahead by its momentum.
    learning_rate : float
        Its peak.
    momentum : float
        Of SGD, with or without Nesterov.
    weight_decay : float
        Share of each weight that a step takes away, times the learning rate.
    schedule : {"constant", "cosine"}
        "cosine" falls from the peak to 0 over the run.
    warm_up : float
        Share of the run over which the learning rate rises to its peak.
    averaging : float
        The model holds the running mean of the weights over about this share of the steps done; 0: the last weights.
    """

    kind: Literal["sgd", "nesterov", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.99
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warm_up: float = 0.05
    averaging: float = 0.0

    def __post_init__(self) -> None:
        _check_ranges(
            self,
            at_least={"momentum": 0, "weight_decay": 0, "warm_up": 0, "averaging": 0},
            above={"learning_rate": 0},
            below={"momentum": 1, "warm_up": 1, "averaging": 1},
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, and what is held out.

    Attributes
    ----------
    minutes : float
        Duration of a run for which neither minutes nor steps were asked; 0 if `steps` rules.
    steps : int
        Steps of a run for which neither was asked, if `minutes` is 0.
    held_out : float
        Share of the images on which the model is validated, never trained; with fewer than three images none.
    checkpoint_minutes : float
        Between two checkpoints; 0 for none but at the begin, at the end and when a signal stops the run.
    """

    minutes: float = 10.0
    steps: int = 0
    held_out: float = 0.2
    checkpoint_minutes: float = 2.0

    def __post_init__(self) -> None:
        at_least: dict[str, float] = {"minutes": 0, "steps": 0, "held_out": 0, "checkpoint_minutes": 0}
        _check_ranges(self, at_least=at_least, below={"held_out": 1})


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """What may follow the minutes, the memory and the size of the objects (`budget.py`), instead of standing fast.

    A recipe that sets one of these numbers in a file keeps it: `load_recipe`. In Python, ``replace(recipe,
    budget=BudgetConfig())`` keeps them all.

    Attributes
    ----------
    width, depth, coarse : bool
        Whether that of the network may; coarse only together with depth and size.
    size, batch : bool
        Whether that of the tiles may.
    """

    width: bool = False
    depth: bool = False
    coarse: bool = False
    size: bool = False
    batch: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictionConfig:
    """What happens at test time.

    Attributes
    ----------
    views : {"one", "dihedral", "rotations"}
        The mean over one view, over the 8 rotations by 90° and flips, or over 7 rotations by 360°/7 as in the paper.
    normalisation : {"percentile", "range", "standardise"}
        What gray values become 0 and 1: the 1st and the 99.8th percentile of the image, the limits of its dtype;
        or mean 0 and standard deviation 1.
    statistics : {"training", "image"}
        By which batch normalisation works: the averages of the training, or those of each image, as training with one
        tile a step has had them of the tile (`run/batch_statistics.py`); with more tiles those of the training.
    """

    views: Literal["one", "dihedral", "rotations"] = "dihedral"
    normalisation: Literal["percentile", "range", "standardise"] = "percentile"
    statistics: Literal["training", "image"] = "training"


def _check_ranges(
    config: object,
    *,
    at_least: dict[str, float] | None = None,
    above: dict[str, float] | None = None,
    below: dict[str, float] | None = None,
) -> None:
    """Raise InputError unless the named fields are within their limits; NaN never is."""
    for word, fits, limits in (
        ("at least", operator.ge, at_least),
        ("above", operator.gt, above),
        ("below", operator.lt, below),
    ):
        for name, limit in (limits or {}).items():
            value = getattr(config, name)
            if not fits(value, limit):
                raise InputError(f"{name} is {word} {limit}, not {value}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All choices of a run.

    Examples
    --------
    >>> load_recipe("paper").optimiser.momentum
    0.99
    """

    about: str = ""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    tiles: TileConfig = field(default_factory=TileConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)


def load_recipe(name: str | Path) -> Recipe:
    """Read a shipped recipe by name, or a TOML file.

    A width, depth, coarse, size or batch that stands in a file of one's own is kept, whatever the budget, unless the
    file's own table [budget] says otherwise.

    Parameters
    ----------
    name : str or Path
        One of `RECIPES`, or a file.

    Returns
    -------
    Recipe

    Raises
    ------
    RecipeError
        If there is no such recipe, the file is no TOML, a key is unknown, or a value is not allowed.
    """
    path = Path(name)
    if str(name) in RECIPES:
        content = (files("ubend.run") / "recipes" / f"{name}.toml").read_bytes()
    elif path.is_file():
        content = _content_of(path)
    else:
        nearest = difflib.get_close_matches(str(name), RECIPES, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise RecipeError(f"no recipe {str(name)!r}: shipped are {', '.join(RECIPES)}, or give a TOML file{hint}")
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError, AttributeError, TypeError) as error:  # tomllib of Python 3.11 has bugs
        raise RecipeError(f"{name} is not TOML: {' '.join(str(error).split())[:120]}") from None
    _check_integers(values, str(name))
    base = values.pop("base", "default")
    if base not in RECIPES:
        raise RecipeError(f"{name}: base is one of the shipped recipes, {' or '.join(RECIPES)}, not {base!r}")
    if str(name) in RECIPES:
        return _update(Recipe(), values, where=str(name))
    start = load_recipe(base)
    stated = {key: False for key, table in BUDGETED.items() if _states(values, table, key)}
    start = replace(start, budget=replace(start.budget, **stated))
    return _update(start, values, where=str(name))


def _content_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror or error}") from None
    if len(content) > LARGEST_FILE:
        raise RecipeError(f"{path} is no recipe: it has more than {LARGEST_FILE} bytes")
    return content


def _check_integers(values: dict[str, Any], where: str) -> None:
    """Refuse integers beyond what TOML promises, which Python may not even print."""
    left: list[Any] = [values]
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            left.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise RecipeError(
                f"{where}: numbers go up to {LARGEST_INTEGER}, and one here has {value.bit_length()} bits"
            )


def _states(values: dict[str, Any], table: str, key: str) -> bool:
    return isinstance(values.get(table), dict) and key in values[table]


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """Build a recipe from nested dictionaries, as `dataclasses.asdict` gives them."""
    return _update(Recipe(), values, where="recipe")


def _update(config: T, values: dict[str, Any], *, where: str) -> T:
    """Replace fields of a (nested) dataclass; every key must exist and every value fit its type."""
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            nearest = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(hints)}"
            raise RecipeError(f"{where}: unknown key {key!r}; {hint}")
        old = getattr(config, key)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, dict):
                raise RecipeError(f"{where}: {key} is a table, not {value!r}")
            changes[key] = _update(old, value, where=f"{where}, [{key}]")
        else:
            changes[key] = _checked(hints[key], value, where=f"{where}: {key}")
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except InputError as error:
        raise RecipeError(f"{where}: {error}") from None


def _checked(hint: Any, value: Any, *, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            choices = " or ".join(repr(choice) for choice in typing.get_args(hint))
            raise RecipeError(f"{where} is {choices}, not {value!r}")
        return value
    allowed = (int, float) if hint is float else (hint,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        raise RecipeError(f"{where} is {_IN_WORDS[hint]}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where} is a finite number, not {value}")
    return float(value) if hint is float else value


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML that `load_recipe` reads back.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    str

    Examples
    --------
    >>> print(to_toml(Recipe()).splitlines()[0])
    about = ""
    """
    lines, tables = [], []
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{name} = {_toml(entry)}" for name, entry in value.items())]
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _toml(value: Any) -> str:
    """Texts, numbers and truth values look alike in JSON and TOML, but for what TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

"""Weights of other U-Nets, read into ours: where every array fits, and not at all otherwise.

Two layouts are known by the names of their arrays: github.com/milesial/Pytorch-UNet, and the network that the authors
released for Caffe in 2015 (phseg_v5). Files are read without running anything that they hold.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ubend.data.formats import reason_of
from ubend.errors import FileError, InputError, ModelFileError
from ubend.method.geometry import nearest_valid_inputs
from ubend.method.network import NetworkConfig, UNet, layer_table
from ubend.run.model import network_of
from ubend.share.caffemodel import arrays_of_caffemodel

__all__ = ["read_foreign"]

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".npz", ".caffemodel")
MOST_LISTED = 30
"""Arrays that do not fit are listed up to so many."""
BEYOND_ARRAYS = ("mask_values",)
"""What milesial's files hold beside arrays."""


def read_foreign(path: str | Path) -> UNet:
    """Read the weights of another program's U-Net into ours.

    Parameters
    ----------
    path : str or Path
        .pth, .pt or .ckpt (PyTorch, loaded with ``weights_only=True``), .safetensors, .npz (NumPy), or .caffemodel.
        Arrays are named as in milesial's Pytorch-UNet (``inc.double_conv.0.weight`` …, ``bilinear=False``; also under
        ``state_dict``, also with ``module.`` before each name), or as in the release of 2015 (``conv_d0a-b/0`` for
        weights, ``conv_d0a-b/1`` for biases; also ``.weight`` and ``.bias``).

    Returns
    -------
    UNet
        In evaluation mode. Its config is seen from the shapes. Scores are those of the other network: of milesial's for
        sizes that are multiples of 2^depth. A network of milesial's with one score (a sigmoid) gets a second one before
        it that is always 0, and its soft-max is that sigmoid.

    Raises
    ------
    FileError
        If there is no such file.
    InputError
        If the file has another ending.
    ModelFileError
        If it is damaged, holds more than arrays, or holds arrays that do not fit; the message lists which.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "other.npz", fc=np.zeros((10, 5)))
    ...     read_foreign(Path(folder) / "other.npz")
    Traceback (most recent call last):
    ...
    ubend.errors.ModelFileError: other.npz is of no known layout, which begins with inc.double_conv.0.weight ...
    """
    path = Path(path)
    arrays = _arrays(path)
    try:
        if "inc.double_conv.0.weight" in arrays:
            return _of_milesial(arrays).into_network()
        if "conv_d0a-b.weight" in arrays:
            return _of_release_2015(arrays).into_network()
    except (ModelFileError, InputError) as error:
        raise ModelFileError(f"{path.name} is not read: {error}") from None
    raise ModelFileError(
        f"{path.name} is of no known layout, which begins with inc.double_conv.0.weight (milesial/Pytorch-UNet) or "
        f"conv_d0a-b (the Caffe network of 2015); it has {_listed(f'{name} {_shape(arrays[name])}' for name in arrays)}"
    )


def _arrays(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a file by their names, with .weight and .bias for Caffe's /0 and /1."""
    if not path.is_file():
        raise FileError(f"no file {path}")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"weights are read from {', '.join(SUFFIXES)}, not from {path.name}")
    try:
        found = _content(path)
    except UnpicklingError:
        raise ModelFileError(
            f"{path.name} holds more than arrays, or is damaged, and is not loaded, because that could run code of "
            "the file: save its state_dict() alone"
        ) from None
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise ModelFileError(f"{path.name} cannot be read: {reason_of(error)}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path.name} holds no arrays with names but one {type(found).__name__}")
    inner = found.get("state_dict")
    found = inner if isinstance(inner, dict) else found
    renamed = {_our_name(str(name)): value for name, value in found.items() if name not in BEYOND_ARRAYS}
    others = [name for name, value in renamed.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelFileError(f"{path.name} holds more than arrays: {_listed(others)}; save its state_dict() alone")
    return renamed


def _content(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".caffemodel":
        return {name: torch.from_numpy(values) for name, values in arrays_of_caffemodel(path.read_bytes()).items()}
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _our_name(name: str) -> str:
    name = name.removeprefix("module.").removeprefix("data/")
    return re.sub(r"/1$", ".bias", re.sub(r"/0$", ".weight", name))


@dataclass
class _Fitting:
    """The arrays of a file, and which of them is which of ours."""

    config: NetworkConfig
    arrays: dict[str, Tensor]
    place: dict[str, str] = field(default_factory=dict)
    """Our name → theirs."""
    may_miss: frozenset[str] = frozenset()
    """Ours that a file need not have."""
    known: frozenset[str] = frozenset()
    """Theirs that have no place of their own."""
    skip_first: bool = False
    """Whether the map of the way down comes first where two are concatenated; ours comes second."""
    hint: str = ""

    def into_network(self) -> UNet:
        """Return the network, or raise ModelFileError with all that does not fit."""
        expected = self._expected()
        wrong = [
            f"{theirs} is missing"
            for ours, theirs in self.place.items()
            if theirs not in self.arrays | self._optional()
        ]
        tensors = {}
        for ours, theirs in self.place.items():
            if theirs not in self.arrays:
                continue
            value, shape = self.arrays[theirs], expected[ours].shape
            if value.numel() == shape.numel() and value.ndim > len(shape) and value.shape[-1:] == shape:
                value = value.reshape(shape)  # Caffe once gave all arrays four axes
            if value.shape != shape:
                wrong.append(f"{theirs} is {_shape(value)}, not {_shape(expected[ours])}")
            elif expected[ours].is_floating_point() and not value.is_floating_point():
                wrong.append(f"{theirs} is of {value.dtype}, which is no floating point")
            tensors[ours] = value.to(expected[ours].dtype).contiguous()
        wrong += [
            f"{name} {_shape(self.arrays[name])} has no place" for name in self.arrays if name not in self._known()
        ]
        if wrong:
            hint = f" ({self.hint})" if self.hint else ""
            raise ModelFileError(f"these arrays do not fit a U-Net of {_said(self.config)}{hint}: {_listed(wrong)}")
        if self.skip_first:
            self._put_up_first(tensors)
        return network_of(self.config, {**self._absent(expected), **tensors}).eval()

    def _expected(self) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return UNet(self.config).state_dict()

    def _optional(self) -> dict[str, None]:
        return {self.place[name]: None for name in self.may_miss}

    def _known(self) -> set[str]:
        return {*self.place.values(), *self.known}

    def _absent(self, expected: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.zeros(expected[name].shape, dtype=expected[name].dtype) for name in self.may_miss}

    def _put_up_first(self, tensors: dict[str, Tensor]) -> None:
        for level in range(self.config.depth):
            name = f"merge.{level}.first.weight"
            tensors[name] = tensors[name].roll(-self.config.channels(level), 1)


def _of_milesial(arrays: dict[str, Tensor]) -> _Fitting:
    depth = _count(arrays, r"down(\d+)\.")
    width, in_channels = _leading(arrays, "inc.double_conv.0.weight")
    classes, _ = _leading(arrays, "outc.conv.weight", 2)
    config = NetworkConfig(
        in_channels=in_channels, classes=max(classes, 2), width=width, depth=depth, padding="same",
        normalisation="batch", dropout=0.0,
    )  # fmt: skip
    place, arrays, biases = dict(_places_of_milesial(depth)), dict(arrays), set()
    for theirs in place.values():
        found = re.fullmatch(r"(.*double_conv\.)([14])\.running_mean", theirs)
        bias = f"{found[1]}{int(found[2]) - 1}.bias" if found else ""
        # Older files have a bias before each batch normalisation: its mean less that bias is the same function.
        if {bias, theirs} <= arrays.keys() and arrays[bias].shape == arrays[theirs].shape:
            arrays[theirs] = arrays[theirs] - arrays[bias]
            biases.add(bias)
    if classes == 1:
        for name in ("outc.conv.weight", "outc.conv.bias"):
            if name in arrays:
                arrays[name] = torch.cat([torch.zeros_like(arrays[name]), arrays[name]])
    bilinear = not any(re.fullmatch(r"up\d+\.up\.weight", name) for name in arrays)
    return _Fitting(
        config=config, arrays=arrays, place=place, skip_first=True, known=frozenset(biases),
        may_miss=frozenset(name for name in place if name.endswith("num_batches_tracked")),
        hint="there are no up-convolutions: bilinear=True of that program is another network" if bilinear else "",
    )  # fmt: skip


def _places_of_milesial(depth: int) -> Iterator[tuple[str, str]]:
    batch = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def two_convolutions(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
        for part, number in (("first", 0), ("second", 3)):
            yield f"{ours}.{part}.weight", f"{theirs}.double_conv.{number}.weight"
            yield from ((f"{ours}.{part}_norm.{one}", f"{theirs}.double_conv.{number + 1}.{one}") for one in batch)

    for level in range(depth + 1):
        ours = "bottom" if level == depth else f"down.{level}"
        yield from two_convolutions(ours, f"down{level}.maxpool_conv.1" if level else "inc")
    for level in reversed(range(depth)):
        yield from ((f"up.{level}.{one}", f"up{depth - level}.up.{one}") for one in ("weight", "bias"))
        yield from two_convolutions(f"merge.{level}", f"up{depth - level}.conv")
    yield from ((f"head.{one}", f"outc.conv.{one}") for one in ("weight", "bias"))


def _of_release_2015(arrays: dict[str, Tensor]) -> _Fitting:
    depth = _count(arrays, r"conv_d(\d+)a-b\.")
    width, in_channels = _leading(arrays, "conv_d0a-b.weight")
    classes, _ = _leading(arrays, "conv_u0d-score.weight", 2)
    last = "upconv_u1d_u0a.weight" if depth > 1 else "upconv_d1c_u0a.weight"
    wide = last in arrays and arrays[last].ndim == 4 and arrays[last].shape[1] == 2 * width
    config = NetworkConfig(
        in_channels=in_channels, classes=classes, width=width, depth=depth, up_relu=True, wide_last_up=wide
    )
    place = {
        f"{_module_of(layer.name, depth)}.{one}": f"{layer.name}.{one}"
        for layer in layer_table(config, nearest_valid_inputs(0, depth)[0])
        for one in ("weight", "bias")
    }
    return _Fitting(config=config, arrays=arrays, place=place)


def _module_of(layer: str, depth: int) -> str:
    """Find our module from the name of a layer in the authors' Caffe files."""
    if layer == "conv_u0d-score":
        return "head"
    if layer.startswith("upconv"):
        return f"up.{re.findall(r'u([0-9]+)a$', layer)[0]}"
    way, level, half = re.fullmatch(r"conv_([du])(\d+)([abc])-.", layer).groups()  # type: ignore[union-attr]
    if way == "d":
        module = "bottom" if int(level) == depth else f"down.{level}"
        return f"{module}.{'first' if half == 'a' else 'second'}"
    return f"merge.{level}.{'first' if half == 'b' else 'second'}"


def _count(arrays: dict[str, Tensor], pattern: str) -> int:
    """Return the largest number in names, which is that of the levels."""
    numbers = [int(found[1]) for name in arrays if (found := re.match(pattern, name)) and len(found[1]) < 4]
    return max(numbers, default=0)


def _leading(arrays: dict[str, Tensor], name: str, without: int | None = None) -> tuple[int, int]:
    """Return channels out and in of a convolution."""
    value = arrays.get(name)
    if value is None and without is not None:
        return without, 0  # it is listed as missing
    if value is None or value.ndim != 4:
        raise ModelFileError(
            f"{name} is {'missing' if value is None else _shape(value)}, and a 2D network has four axes there"
        )
    return int(value.shape[0]), int(value.shape[1])


def _said(config: NetworkConfig) -> str:
    return (
        f"depth {config.depth}, width {config.width}, {config.in_channels} channels in and {config.classes} classes, "
        "as the others say it"
    )


def _shape(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "one number"


def _listed(names: Any) -> str:
    every = list(names)
    more = len(every) - MOST_LISTED
    return "; ".join(every[:MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")

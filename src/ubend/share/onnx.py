"""A model as one ONNX file, and prediction from such a file with onnxruntime alone: neither makes the other guess.

The graph is the network as it predicts: unpadded, batch normalisation folded in, soft-max at its end. Batch, rows and
columns are free. In an unpadded network the crop of a skip connection does not depend on the size, so all crops are
constants. What a graph cannot do, which is to mirror the border, cut tiles, average views and number objects, is done
by `OnnxModel` with the same functions of `method` as in training's own `run.model.Model`. It does not import torch.
"""

import copy
import importlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Kind, Task
from ubend.data.formats import check_free, existing_folder, write_atomically
from ubend.errors import FileError, InputError, ModelFileError
from ubend.method.geometry import halo, nearest_valid_inputs, skip_crop, smallest_input_for
from ubend.method.objects import ObjectRules
from ubend.method.overlap_tile import predict_tiles
from ubend.run.labels import predict_labels
from ubend.run.normalisation import Normalisation, channels_first

if TYPE_CHECKING:
    from ubend.method.network import TwoConvolutions, UNet
    from ubend.run.contract import Contract
    from ubend.run.model import Model

__all__ = ["AGREES", "ExportedContract", "OnnxModel", "export_onnx", "package"]

FORMAT = "ubend-onnx"
FORMAT_VERSION = 2  # 1 had another rule for objects
OPSET, IR_VERSION = 17, 8
"""Of 2022: onnxruntime from 1.12 on reads them."""
AGREES = 1e-4
"""By how much a probability may differ from that of the model; an export that differs more is not written."""
TILE = 572
"""Rows and columns of the paper's tiles."""
VIEWS = {"one": 1, "dihedral": 8}
"""How many there are of each that a tile has alone."""
LARGEST_GRAPH = 2**31 - 2**20
"""Bytes of weights that one ONNX file holds."""

OnTile = Callable[[int, int], None]


def export_onnx(model: "Model", path: str | Path, *, overwrite: bool = False) -> float:
    """Write a model as one ONNX file, once it is seen to agree with the model.

    Parameters
    ----------
    model : Model
    path : str or Path
        The file to be, NAME.onnx.
    overwrite : bool
        Whether a file of that name may be replaced.

    Returns
    -------
    float
        The largest difference between a probability of the file, computed by onnxruntime, and one of the model, over
        random tiles of several sizes.

    Raises
    ------
    InputError
        If the file is not called NAME.onnx, onnx or onnxruntime is missing, or an ONNX file cannot hold so large a
        network.
    FileError
        If the file exists and may not be overwritten, or cannot be written.
    ModelFileError
        If the two differ by more than 1e-4. Nothing is written.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"an ONNX file is called NAME.onnx, not {path.name}")
    existing_folder(path.parent)
    check_free(path, overwrite=overwrite)
    onnx = package("onnx")
    package("onnxruntime")
    network = copy.deepcopy(model.predictor).cpu()
    if sum(4 * weight.numel() for weight in network.parameters()) > LARGEST_GRAPH:
        raise InputError("an ONNX file holds at most 2 GB of weights, and this network has more: train a narrower one")
    graph = _onnx_of(network, model.contract)
    onnx.checker.check_model(graph)
    difference = 0.0

    def write(part: Path) -> None:
        nonlocal difference
        onnx.save(graph, part)
        difference = _difference(OnnxModel(part), network, model.contract)
        if not difference <= AGREES:
            raise ModelFileError(
                f"onnxruntime gives other probabilities than the model, by up to {difference:.1e}: nothing was written"
            )

    write_atomically(path, write, overwrite=overwrite)
    return difference


@dataclass(frozen=True)
class ExportedContract:
    """What prediction needs of a model's contract (`run.contract.Contract`), read without torch.

    Attributes
    ----------
    in_channels, classes, depth, coarse : int
        Of the network.
    task : Task
    normalisation : Normalisation
    views : {"one", "dihedral", "rotations"}
    objects : ObjectRules
    """

    in_channels: int
    classes: int
    depth: int
    coarse: int
    task: Task
    normalisation: Normalisation
    views: str
    objects: ObjectRules

    @property
    def learns_distance(self) -> bool:
        """Whether the last map is not a class but the distance to the border of a cell."""
        return self.task.kind == "instances" and self.classes == 3

    @classmethod
    def from_json(cls, text: str) -> "ExportedContract":
        """Read from the JSON that an exported file keeps.

        Raises
        ------
        ModelFileError
            If something is missing or not allowed.
        """
        try:
            values = json.loads(text)
            network, task = values["network"], values["task"]
            contract = cls(
                in_channels=int(network["in_channels"]),
                classes=int(network["classes"]),
                depth=int(network["depth"]),
                coarse=int(network.get("coarse", 0)),
                task=Task(**{**task, "values": tuple(task["values"])}),
                normalisation=Normalisation(**values["normalisation"]),
                views=values["views"],
                objects=ObjectRules(**values["objects"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"the model's contract is damaged: {' '.join(str(error).split())[:300]}") from None
        if contract.task.kind not in get_args(Kind) or contract.views not in (*VIEWS, "rotations"):
            raise ModelFileError("the model's contract is damaged: its task or its views are not what ubend writes")
        return contract


class OnnxModel:
    """A model that `export_onnx` wrote, run by onnxruntime on the CPU; torch is not needed.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    contract : ExportedContract

    Raises
    ------
    InputError
        If onnxruntime is missing.
    FileError
        If there is no such file.
    ModelFileError
        If it is no ONNX file, or none that ubend wrote, or newer than this program.
    """

    def __init__(self, path: str | Path) -> None:
        onnxruntime = package("onnxruntime")
        if not Path(path).is_file():
            raise FileError(f"no file {path}; `ubend export MODEL --to onnx --out {path}` makes one")
        reasons = onnxruntime.capi.onnxruntime_pybind11_state
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except (reasons.Fail, reasons.InvalidProtobuf, reasons.InvalidGraph, reasons.InvalidArgument) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(f"{path} is no ONNX file, or damaged: {reason}") from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        if metadata.get("format") != FORMAT:
            raise ModelFileError(f"{path} is an ONNX file, but none that `ubend export` wrote")
        version = metadata.get("format_version")
        if version != str(FORMAT_VERSION):
            advice = "export the model again" if version == "1" else "update ubend"
            raise ModelFileError(
                f"{path} has the format version {version}, this program reads {FORMAT_VERSION}: {advice}"
            )
        self.contract = ExportedContract.from_json(metadata.get("contract", ""))

    def predict(
        self, image: NDArray[Any], *, tile: int = TILE, views: str | None = None, on_tile: OnTile | None = None
    ) -> NDArray[np.float32]:
        """Give the probability of each class at each pixel; after them the distance, where the model has learned it.

        Parameters
        ----------
        image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
            Of any size.
        tile : int
            Rows and columns a tile may have at most. It changes time and memory, not the result.
        views : {"one", "dihedral"}, optional
            Other views than the contract's.
        on_tile : callable, optional
            Called with (tiles done, tiles in all) after each tile.

        Returns
        -------
        ndarray of float32, shape (classes, rows, columns)
            Those of ``run.model.Model.predict(image, exact=True)`` within 1e-4, if the model works by the statistics
            of the training; a file cannot have those of each image.

        Raises
        ------
        InputError
            If the image does not fit the model, the tile is too small, or the views need torch.
        """
        contract, chosen = self.contract, views or self.contract.views
        if chosen not in VIEWS:
            raise InputError(
                f"views = {chosen!r} is not to be had from an ONNX file, which sees an image in the views "
                f"{' or '.join(map(repr, VIEWS))}: name one of them, or predict with the model itself"
            )
        pixels = channels_first(image, contract.in_channels)
        offset, gain = (value.reshape(-1, 1, 1) for value in contract.normalisation.offset_and_gain(pixels))
        smallest = smallest_input_for(2**contract.depth, contract.depth)
        largest = max(TILE << contract.coarse, smallest) if tile == TILE else tile

        def predict(part: NDArray[Any]) -> NDArray[np.float32]:
            return self._mean_over_views((part.astype(np.float32) - offset) * gain, VIEWS[chosen])

        return predict_tiles(pixels, predict, depth=contract.depth, largest_tile=largest, on_tile=on_tile)

    def segment(
        self, image: NDArray[Any], *, tile: int = TILE, objects: ObjectRules | None = None
    ) -> NDArray[np.integer]:
        """Label each pixel of an image of any size; see `run.labels.predict_labels`.

        Parameters
        ----------
        image : ndarray, shape (rows, columns) or (rows, columns, channels)
        tile : int
            Rows and columns that a tile may have at most.
        objects : ObjectRules, optional
            Instead of those that training chose.

        Returns
        -------
        ndarray of unsigned int, shape (rows, columns)
        """
        return predict_labels(self.contract, self.predict(image, tile=tile), objects=objects)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the graph itself to normalised tiles.

        Parameters
        ----------
        batch : ndarray of float32, shape (batch, channels, rows, columns)
            Rows and columns as `method.geometry.nearest_valid_inputs` gives them.

        Returns
        -------
        ndarray of float32, shape (batch, classes, rows − 2·halo, columns − 2·halo)
        """
        [found] = self._session.run(None, {"image": np.ascontiguousarray(batch)})
        probabilities: NDArray[np.float32] = found
        return probabilities

    def _mean_over_views(self, tile: NDArray[np.float32], views: int) -> NDArray[np.float32]:
        def one_view(quarter_turns: int, flip: bool) -> NDArray[np.float32]:
            seen = np.rot90(tile[..., ::-1] if flip else tile, quarter_turns, (-2, -1))
            found: NDArray[np.float32] = np.rot90(self.run(seen[None])[0], -quarter_turns, (-2, -1))
            return np.flip(found, -1) if flip else found

        total: NDArray[np.float32] = one_view(0, False).copy()
        for view in range(1, views):
            total += one_view(view % 4, view >= 4)
        total /= views
        return total


class _Graph:
    """Nodes and constants of an ONNX graph, in the order in which they are computed."""

    def __init__(self) -> None:
        onnx = package("onnx")
        self.helper, self._from_array = onnx.helper, onnx.numpy_helper.from_array
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants[name] = self._from_array(values, name)
        return name

    def cut(self, source: str, start: int, end: int, *axes: int) -> str:
        """Cut the same part out of several axes."""
        numbers = {"start": start, "end": end}
        bounds = [
            self.constant(f"{name}_{value}_{len(axes)}", np.full(len(axes), value, np.int64))
            for name, value in numbers.items()
        ]
        where = self.constant(f"axes_{'_'.join(map(str, axes))}", np.array(axes, np.int64))
        return self.add("Slice", source, *bounds, where)

    def convolution(self, source: str, module: Any, name: str, kind: str = "Conv") -> str:
        weight, bias = (value.detach().numpy().astype(np.float32) for value in (module.weight, module.bias))
        inputs = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        side = list(weight.shape[2:])
        strides = [2, 2] if kind == "ConvTranspose" else [1, 1]
        return self.add(kind, source, *inputs, name=name, kernel_shape=side, strides=strides)

    def interpolated(self, source: str, channels: int) -> str:
        """Double rows and columns by linear interpolation, and cut 2 pixels off, as `network.UNet.forward` does."""
        weight = np.outer(*[np.array([0.25, 0.75, 0.75, 0.25], np.float32)] * 2)
        kernel = self.constant("interpolation", np.tile(weight, (channels, 1, 1, 1)))
        wide = self.add("ConvTranspose", source, kernel, kernel_shape=[4, 4], strides=[2, 2], group=channels)
        return self.cut(wide, 3, -3, 2, 3)

    def two_convolutions(self, source: str, module: "TwoConvolutions", first: str, second: str) -> str:
        x = self.add("Relu", self.convolution(source, module.first, first))
        return self.add("Relu", self.convolution(x, module.second, second))


def _onnx_of(network: "UNet", contract: "Contract") -> Any:
    """Build the graph of a network from `network.for_prediction`; layers have the names of the authors' Caffe files."""
    config, graph = network.config, _Graph()
    depth, x = config.depth, "image"
    skips: list[str] = []
    for _ in range(config.coarse):
        x = graph.add("AveragePool", graph.cut(x, 2, -2, 2, 3), kernel_shape=[2, 2], strides=[2, 2])
    for level, module in enumerate((*network.down, network.bottom), start=config.coarse):
        if skips:
            x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = graph.two_convolutions(x, module, f"conv_d{level}a-b", f"conv_d{level}b-c")
        skips.append(x)
    for level in reversed(range(config.coarse, depth)):
        source, place = f"d{depth}c" if level == depth - 1 else f"u{level + 1}d", level - config.coarse
        x = graph.convolution(x, network.up[place], f"upconv_{source}_u{level}a", "ConvTranspose")
        if config.up_relu:
            x = graph.add("Relu", x)
        crop = skip_crop(level, depth)
        x = graph.add("Concat", x, graph.cut(skips[place], crop, -crop, 2, 3), axis=1)
        x = graph.two_convolutions(x, network.merge[place], f"conv_u{level}b-c", f"conv_u{level}c-d")  # type: ignore[arg-type]
    scores = graph.convolution(x, network.head, f"conv_u{config.coarse}d-score")
    for _ in range(config.coarse):
        scores = graph.interpolated(scores, config.classes)
    _add_probabilities(graph, scores, learns_distance=contract.learns_distance)
    helper = graph.helper
    inside = helper.make_tensor_value_info("image", 1, ["batch", config.in_channels, "rows", "columns"])
    maps = ["batch", config.classes, "output_rows", "output_columns"]
    outside = helper.make_tensor_value_info("probabilities", 1, maps)
    made = helper.make_model(
        helper.make_graph(graph.nodes, "ubend", [inside], [outside], list(graph.constants.values())),
        producer_name="ubend",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(made, _metadata(contract))
    return made


def _add_probabilities(graph: _Graph, scores: str, *, learns_distance: bool) -> None:
    if not learns_distance:
        graph.add("Softmax", scores, name="probabilities", axis=1)
        return
    classes = graph.add("Softmax", graph.cut(scores, 0, -1, 1), axis=1)
    ends = graph.constant("least", np.zeros((), np.float32)), graph.constant("most", np.ones((), np.float32))
    distance = graph.add("Clip", graph.cut(scores, -1, 2**31 - 1, 1), *ends)
    graph.add("Concat", classes, distance, name="probabilities", axis=1)


def _metadata(contract: "Contract") -> dict[str, str]:
    """Say in the file what a program needs that runs the graph without ubend."""
    depth = contract.network.depth
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "contract": json.dumps(contract.to_dict()),
        "input_smallest": str(nearest_valid_inputs(0, depth)[0]),
        "input_step": str(2**depth),
        "output_crop": str(halo(depth)),
    }


def _difference(exported: OnnxModel, network: "UNet", contract: "Contract") -> float:
    """Compare the probabilities of random tiles of several sizes, one and two at once."""
    from ubend.run.prediction import predict_part

    rng, depth = np.random.default_rng(0), contract.network.depth
    smallest, step, channels = nearest_valid_inputs(0, depth)[0], 2**depth, contract.network.in_channels
    offset, gain = np.zeros((channels, 1, 1), np.float32), np.ones((channels, 1, 1), np.float32)
    own = partial(predict_part, network, contract, offset=offset, gain=gain, views="one", exact=True)
    found = 0.0
    for batch, rows, columns in ((1, smallest, smallest), (2, smallest + 3 * step, smallest + step)):
        tiles = rng.random((batch, channels, rows, columns), dtype=np.float32)
        expected = np.stack([own(tile) for tile in tiles])
        found = max(found, float(np.abs(exported.run(tiles) - expected).max()))
    return found


def package(name: str) -> ModuleType:
    """Import one of the packages of the extra ``export``.

    Raises
    ------
    InputError
        If it is missing; the message says how to get it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of their own parts, which nobody here can mend
            return importlib.import_module(name)
    except ImportError:
        raise InputError(f"this needs the package {name}: pip install onnx onnxruntime") from None

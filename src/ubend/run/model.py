"""A trained model: the network and its contract, in one versioned .safetensors file. No pickle."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ubend.data.formats import reason_of, write_atomically
from ubend.data.origin import MODEL_MARK
from ubend.errors import FileError, ModelFileError
from ubend.method.network import NetworkConfig, UNet, for_prediction
from ubend.method.objects import ObjectRules
from ubend.run.batch_statistics import adapts, on_device_of
from ubend.run.contract import Contract
from ubend.run.device import choose_device
from ubend.run.labels import predict_labels
from ubend.run.prediction import OnSmallerTile, OnTile, predict_probabilities

FORMAT_VERSION = 7
"""7 asks what objects reach on average, 3 to 6 what they reach somewhere; 6 may work by the statistics of each image; 5
may work at half or a quarter of the resolution; 4 tells what the training images looked like, and names; 3 has one more
rule for objects; 2 kept them together; 1 four apart."""
FILE_NAME = "model.safetensors"


class Model:
    """A trained network that knows what it was trained for.

    Parameters
    ----------
    network : UNet
        As trained; it moves to the device.
    contract : Contract
        What it was trained for.
    device : str, optional
        Where to predict: "cpu", "cuda", "mps"; without it the best there is.

    Attributes
    ----------
    predictor : UNet
        The network on its device, from `network.for_prediction`, by the averages of the training.
    """

    def __init__(self, network: UNet, contract: Contract, *, device: str | None = None) -> None:
        self.contract = contract
        self.network = network.to(choose_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.predictor = on_device_of(network, for_prediction(network))

    @property
    def device(self) -> torch.device:
        """Where it predicts."""
        device: torch.device = next(self.predictor.parameters()).device
        return device

    def predict(
        self,
        image: NDArray[Any],
        *,
        tile: int | None = None,
        memory: int | None = None,
        views: str | None = None,
        exact: bool = False,
        on_tile: OnTile | None = None,
        on_smaller_tile: OnSmallerTile | None = None,
    ) -> NDArray[np.float32]:
        """Give the probability of each class at each pixel; see `prediction.predict_probabilities`.

        Parameters
        ----------
        image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
        tile : int, optional
            Rows and columns a tile may have at most; without it what the memory holds.
        memory : int, optional
            Bytes that the program may hold at its peak.
        views : {"one", "dihedral", "rotations"}, optional
            Other views than the contract's.
        exact : bool
            Compute in float32, whatever the device is made for.
        on_tile, on_smaller_tile : callable, optional
            Called after each tile, and where the memory ran out and smaller tiles are taken.

        Returns
        -------
        ndarray of float32, shape (classes, rows, columns)
        """
        network = self.network if adapts(self.contract) else self.predictor
        return predict_probabilities(
            network, self.contract, image, tile=tile, memory=memory, views=views, exact=exact, on_tile=on_tile,
            on_smaller_tile=on_smaller_tile,
        )  # fmt: skip

    def segment(
        self, image: NDArray[Any], *, tile: int | None = None, objects: ObjectRules | None = None
    ) -> NDArray[np.integer]:
        """Label each pixel of an image of any size; see `labels.predict_labels`.

        Parameters
        ----------
        image : ndarray, shape (rows, columns), (rows, columns, channels) or (channels, rows, columns)
        tile : int, optional
            Rows and columns a tile may have at most.
        objects : ObjectRules, optional
            Other rules than those chosen in training, for example
            ``replace(model.contract.objects, threshold=0.7)``.

        Returns
        -------
        ndarray of unsigned int, shape (rows, columns)
        """
        return predict_labels(self.contract, self.predict(image, tile=tile), objects=objects)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model into one file.

        Parameters
        ----------
        path : str or Path
            Of the file, by custom NAME.safetensors.
        overwrite : bool
            Whether a file of that name may be replaced.

        Raises
        ------
        FileError
            If the file exists and may not be overwritten, or cannot be written; nothing half-written stays.
        """
        metadata = {
            "format": MODEL_MARK,
            "format_version": str(FORMAT_VERSION),
            "contract": json.dumps(self.contract.to_dict()),
        }
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        content = save(tensors, metadata)
        write_atomically(path, lambda temporary: temporary.write_bytes(content), overwrite=overwrite)


def load(path: str | Path, *, device: str | None = None) -> Model:
    """Read a model from its file, or from the folder of its run.

    Parameters
    ----------
    path : str or Path
        Of the file, or of the folder that `ubend train` left.
    device : str, optional
        "cpu", "cuda" or "mps"; without it the best there is.

    Returns
    -------
    Model

    Raises
    ------
    FileError
        If there is no such file.
    ModelFileError
        If the file is no model of ubend, is damaged, or newer than this program.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise FileError(f"no model file {path}; a run of `ubend train` leaves one as {FILE_NAME} in its folder")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_version(path, metadata)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is no model file, or damaged: {reason_of(error)}") from None
    try:
        contract = Contract.from_dict(_contract_values(metadata))
        network = network_of(contract.network, tensors)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # RecursionError is one of them
        raise ModelFileError(f"{path} is a damaged model file: {' '.join(str(error).split())[:300]}") from None
    return Model(network.eval(), contract, device=device)


def network_of(config: NetworkConfig, tensors: dict[str, torch.Tensor]) -> UNet:
    """Build a network around weights: no memory is taken for one that does not fit them."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = UNet(config)
    types = {key: value.dtype for key, value in network.state_dict().items()}
    network.load_state_dict({key: value.to(types.get(key)) for key, value in tensors.items()}, assign=True)
    return network


def _contract_values(metadata: dict[str, str]) -> Any:
    """Read the contract as the present version has it."""
    values, format_version = json.loads(metadata["contract"]), int(metadata["format_version"])
    if format_version == FORMAT_VERSION or not isinstance(values, dict):
        return values
    if format_version == 1:
        old = {"gap": "gap", "smallest_object": "smallest", "threshold": "threshold", "split": "split"}
        rules = dataclasses.asdict(ObjectRules()) | {new: values[key] for key, new in old.items()}
        values = {key: value for key, value in values.items() if key not in old} | {"objects": rules}
    elif isinstance(values.get("objects"), dict):
        rules = {"surest": 0.0} | values["objects"] if format_version == 2 else dict(values["objects"])
        if all(isinstance(rules.get(key), int | float) for key in ("surest", "threshold")):  # else it is damaged
            most = 0.75 if rules["threshold"] >= 0.5 else 0.0  # a mean is lower, all the more above a low threshold
            rules["certainty"] = min(rules.pop("surest"), most)
        values = values | {"objects": rules}
    return {"channel_names": (), "class_names": (), "reference": None} | values


def _check_version(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != MODEL_MARK:
        raise ModelFileError(f"{path} is a safetensors file but no model of ubend")
    version = metadata.get("format_version", "")
    if not version.isdecimal() or int(version) < 1:
        raise ModelFileError(f"{path} has no readable format version: {version!r}")
    if int(version) > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has the format version {version}, this program reads up to {FORMAT_VERSION}: update ubend"
        )

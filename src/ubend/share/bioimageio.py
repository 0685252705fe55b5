"""A model as a package of bioimage.io (model description 0.5): one .zip that its programs read and test.

It holds the network as ONNX (`share.onnx`), a description `rdf.yaml`, a test image with the probabilities that must
come of it, a picture and a page of documentation. The description says which sizes the unpadded network takes and how
much smaller its output is (an offset, not a halo: nothing is left to be cut off), and how the image is normalised.
"""

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ubend.data.formats import check_free, existing_folder, write_atomically, write_picture
from ubend.errors import InputError
from ubend.method.geometry import halo, mirror, nearest_valid_inputs, smallest_input_for
from ubend.run.budget import at_resolution
from ubend.run.normalisation import Normalisation, channels_first
from ubend.share.onnx import OPSET, OnnxModel, export_onnx

if TYPE_CHECKING:
    from ubend.run.contract import Contract
    from ubend.run.model import Model

__all__ = ["export_bioimageio"]

FORMAT_VERSION = "0.5.4"
"""Of the description of models; later ones of 0.5 read it."""
SHOWN = 192
"""About how many rows and columns of output the test has."""
TYPES = ("uint8", "uint16", "int8", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
ABSOLUTE, RELATIVE = 1e-4, 1e-3
"""By how much another machine may differ."""
TINY = 1e-12
"""Added to what is divided by; theirs would be 1e-6, which images from 0 to 0.001 notice."""


def export_bioimageio(
    model: "Model", path: str | Path, *, image: NDArray[Any] | None = None, overwrite: bool = False
) -> float:
    """Write a model as a package of bioimage.io.

    Parameters
    ----------
    model : Model
    path : str or Path
        The file to be, NAME.zip.
    image : ndarray, optional
        An image as `Model.predict` takes it, for the test and the picture; its middle is used. Without it, blurred
        noise of the brightness of the training images, which shows nothing.
    overwrite : bool
        Whether a file of that name may be replaced.

    Returns
    -------
    float
        The largest difference that `export_onnx` found.

    Raises
    ------
    InputError
        If the file is not called NAME.zip, the image does not fit the model, or onnx or onnxruntime is missing.
    FileError
        If the file exists and may not be overwritten, or cannot be written.
    """
    path, contract = Path(path), model.contract
    if path.suffix.lower() != ".zip":
        raise InputError(f"a package of bioimage.io is called NAME.zip, not {path.name}")
    existing_folder(path.parent)
    check_free(path, overwrite=overwrite)
    seen = _noise(contract) if image is None else channels_first(image, contract.network.in_channels)
    test = _middle(seen, contract).astype(_dtype(contract) if image is None else _allowed(str(seen.dtype)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        difference = export_onnx(model, folder / "weights.onnx")
        offset, gain = (value.reshape(-1, 1, 1) for value in contract.normalisation.of_sample(test))
        normalised = (test.astype(np.float32) - offset) * gain
        probabilities = OnnxModel(folder / "weights.onnx").run(normalised[None])
        np.save(folder / "test_input.npy", test[None])
        np.save(folder / "test_output.npy", probabilities)
        write_picture(folder / "cover.png", [_cover(test, probabilities[0], contract)])
        (folder / "README.md").write_text(_documentation(contract), encoding="utf-8")
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
        description = _description(contract, str(test.dtype), hashes)
        text = json.dumps(description, indent=2, allow_nan=False)  # JSON is YAML
        (folder / "rdf.yaml").write_text(text + "\n", encoding="utf-8")
        write_atomically(path, lambda part: _zip(folder, part), overwrite=overwrite)
    return difference


def _zip(folder: Path, part: Path) -> None:
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)


def _description(contract: "Contract", dtype: str, hashes: dict[str, str]) -> dict[str, Any]:
    depth, files = contract.network.depth, {name: {"source": name, "sha256": hashes[name]} for name in hashes}
    size = {"min": nearest_valid_inputs(0, depth)[0], "step": 2**depth}
    pixel = {} if contract.pixel_size is None else {"unit": "micrometer", "scale": contract.pixel_size}
    channels = [*contract.channel_names] or [f"channel{n}" for n in range(contract.network.in_channels)]
    image = {
        "id": "image",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": channels},
            *({"type": "space", "id": axis, "size": size, **pixel} for axis in "yx"),
        ],
        "data": {"type": dtype},
        "test_tensor": files["test_input.npy"],
        "preprocessing": _preprocessing(contract.normalisation, dtype),
    }
    smaller = [{"tensor_id": "image", "axis_id": axis, "offset": -2 * halo(depth)} for axis in "yx"]
    probabilities = {
        "id": "probabilities",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _maps(contract)},
            *(
                {"type": "space", "id": axis, "size": offset, **pixel}
                for axis, offset in zip("yx", smaller, strict=True)
            ),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": files["test_output.npy"],
    }
    tolerance = {"absolute_tolerance": ABSOLUTE, "relative_tolerance": RELATIVE, "mismatched_elements_per_million": 0}
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": f"U-Net for {contract.task.kind} (ubend)",
        "description": f"An unpadded U-Net of depth {contract.network.core.depth}"
        f"{at_resolution(contract.network.coarse)}, trained with ubend. {_purpose(contract)}",
        "tags": ["unet", "segmentation", "ubend"],
        "cite": [
            {
                "text": "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation",
                "doi": "10.1007/978-3-319-24574-4_28",
            }
        ],
        "documentation": files["README.md"],
        "covers": [files["cover.png"]],
        "inputs": [image],
        "outputs": [probabilities],
        "weights": {"onnx": {**files["weights.onnx"], "opset_version": OPSET}},
        "config": {
            "bioimageio": {"reproducibility_tolerance": [tolerance]},
            "ubend": {"contract": contract.to_dict()},
        },
    }


def _preprocessing(normalisation: Normalisation, dtype: str) -> list[dict[str, Any]]:
    """Say in their words what `Normalisation` does.

    It ends with a type, too: without one at the end their programs turn the numbers back into the type of the image.
    """
    as_float = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
    axes = ["channel", "y", "x"] if normalisation.together else ["y", "x"]
    if normalisation.kind == "percentile":
        ends = {"min_percentile": normalisation.low, "max_percentile": normalisation.high}
        scaling: dict[str, Any] = {"id": "scale_range", "kwargs": {"axes": axes, **ends, "eps": TINY}}
    elif normalisation.kind == "standardise":
        scaling = {"id": "zero_mean_unit_variance", "kwargs": {"axes": axes, "eps": TINY}}
    elif np.dtype(dtype).kind == "f":
        return [as_float]
    else:
        scaling = {"id": "scale_linear", "kwargs": {"gain": 1 / int(np.iinfo(dtype).max)}}
    return [as_float, scaling, as_float]


def _maps(contract: "Contract") -> list[str]:
    values = contract.task.values
    if contract.task.kind == "instances":
        return ["background", "foreground", "distance"][: contract.network.classes]
    return [*contract.class_names] or [f"label{value}" for value in values]


def _purpose(contract: "Contract") -> str:
    return {
        "instances": "It tells foreground from background, and objects are parted from its output.",
        "binary": "It tells foreground from background.",
        "classes": f"It tells {len(contract.task.values)} classes apart.",
    }[contract.task.kind]


def _documentation(contract: "Contract") -> str:
    depth, scores, norm = contract.network.depth, contract.quality, contract.normalisation
    said = {
        "percentile": f"percentile {norm.low:g} becomes 0 and {norm.high:g} becomes 1",
        "standardise": "the mean becomes 0 and the standard deviation 1",
        "range": "the largest value of the type becomes 1",
    }[norm.kind]
    lines = [
        f"# U-Net for {contract.task.kind}",
        "",
        f"Trained with ubend. {_purpose(contract)} Channels: {', '.join(_maps(contract))}"
        f"{' (how far inside its object a pixel lies, 0 to 1)' if contract.learns_distance else ''}.",
        "",
        f"- Input: rows and columns are {nearest_valid_inputs(0, depth)[0]} + n · {2**depth}. The output is "
        f"{halo(depth)} pixels smaller at each side: mirror the image by as much for a result of its size.",
        f"- Normalisation, of the image as a whole and never of a tile: {said}, "
        f"{'of all channels together' if norm.together else 'of each channel'}.",
        f"- Tiles fit without a seam where they begin at multiples of {2**depth} pixels.",
        f"- Pixel size: {'not known' if contract.pixel_size is None else f'{contract.pixel_size:g} µm'}.",
        "- Whole images and single objects: `ubend.share.onnx.OnnxModel('weights.onnx').segment(image)`.",
        "",
        "## Validation",
        "",
    ]
    if scores:
        lines += ["On held-out images:", "", *(f"- {name}: {value:.3f}" for name, value in scores.items())]
        if contract.statistics == "image":
            said = "That is by `ubend predict`, by the statistics of each image; here those of the training count."
            lines += ["", said]
    else:
        lines += ["No images were held out: nothing is known of its quality."]
    lines += [
        "",
        "Validate it on annotated images of your own that it was not trained on: predict, and compare with the "
        "annotation by `ubend evaluate RESULTS TRUTH`.",
        "",
    ]
    return "\n".join(lines)


def _dtype(contract: "Contract") -> str:
    """Return the type of the training images, if they had one that the description can say."""
    known = contract.reference.dtypes if contract.reference is not None else ()
    if len(known) == 1:
        return _allowed(known[0])
    return "uint8" if contract.normalisation.kind == "range" else "float32"


def _allowed(dtype: str) -> str:
    return dtype if dtype in TYPES else "float32"


def _noise(contract: "Contract") -> NDArray[np.float64]:
    """Blurred noise, (channels, rows, columns), between the darkest and the brightest of the training images."""
    side, channels = smallest_input_for(SHOWN, contract.network.depth), contract.network.in_channels
    rng, dtype = np.random.default_rng(0), np.dtype(_dtype(contract))
    blurred = ndimage.gaussian_filter(rng.random((channels, side, side)), (0, 4, 4))
    planes: NDArray[np.float64] = (blurred - blurred.min()) / (blurred.max() - blurred.min())
    if contract.reference is None:
        return planes if dtype.kind == "f" else planes * min(int(np.iinfo(dtype).max), 4095)
    ends = [(channel["low"].median, channel["high"].median) for channel in contract.reference.channels]
    low, high = (np.array(values).reshape(-1, 1, 1) for values in zip(*ends, strict=True))
    scaled: NDArray[np.float64] = low + planes * (high - low)
    return scaled


def _middle(image: NDArray[Any], contract: "Contract") -> NDArray[Any]:
    """Cut a valid size out of the middle; a smaller image is mirrored."""
    side = smallest_input_for(SHOWN, contract.network.depth)
    for axis in (1, 2):
        first = (image.shape[axis] - side) // 2
        image = image.take(mirror(np.arange(first, first + side), image.shape[axis]), axis=axis)
    return image


def _cover(test: NDArray[Any], probabilities: NDArray[np.float32], contract: "Contract") -> NDArray[np.uint8]:
    """Lay what the network saw beside what it says: twice as wide as high."""
    border = (test.shape[1] - probabilities.shape[1]) // 2
    seen = test[:3, border : test.shape[1] - border, border : test.shape[2] - border].astype(np.float64)
    low, high = np.percentile(seen, (1, 99.8))
    left = np.clip((seen - low) / max(high - low, TINY), 0, 1)
    left = left if len(left) == 3 else np.broadcast_to(left[:1], (3, *left.shape[1:]))
    shade = probabilities[1] if contract.task.kind != "classes" else probabilities.argmax(0) / (len(probabilities) - 1)
    both = np.concatenate([left, np.broadcast_to(shade, left.shape)], axis=2)
    return (255 * np.moveaxis(both, 0, -1)).round().astype(np.uint8)

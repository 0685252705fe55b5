import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ubend.data.annotated import Task
from ubend.data.formats import write_labels
from ubend.errors import FileError, InputError
from ubend.faces import cli
from ubend.method.network import NetworkConfig, UNet
from ubend.run.contract import Contract
from ubend.run.drift import image_statistics, reference_of
from ubend.run.model import Model
from ubend.run.normalisation import Normalisation
from ubend.run.prediction import predict_part
from ubend.share.bioimageio import export_bioimageio

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason="the extra export is not installed: pip install onnx onnxruntime")


def made(scaling, kind="binary", values=(0, 1), reference=None, pixel_size=None, **network):
    """An untrained model."""
    net = UNet(NetworkConfig(**{"width": 4, "depth": 1, **network}), generator=torch.Generator().manual_seed(2)).eval()
    contract = Contract(
        network=net.config, task=Task(kind, values, None), normalisation=scaling, views="one",
        reference=reference, pixel_size=pixel_size,
    )  # fmt: skip
    return Model(net, contract, device="cpu")


def pixels(dtype, channels=1, shape=(90, 300)):
    rng = np.random.default_rng(5)
    return (rng.random((channels, *shape)) * (1 if np.dtype(dtype).kind == "f" else 250)).astype(dtype)


def of(dtype, channels=1):
    return reference_of([image_statistics(pixels(dtype, channels))])


CASES = {
    "percentiles of each channel": made(
        Normalisation("percentile", False, 2, 98), in_channels=2, reference=of("uint16", 2), pixel_size=0.25
    ),
    "percentiles together, distance": made(
        Normalisation("percentile", True), "instances", in_channels=3, classes=3, padding="same", normalisation="batch"
    ),
    "mean and deviation": made(Normalisation("standardise", False), "classes", (3, 5, 9), of("float32"), classes=3),
    "range of uint8": made(Normalisation("range", True)),
    "range of float": made(Normalisation("range", True), reference=of("float32")),
}


def opened(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(params=CASES.values(), ids=CASES)
def package(request, tmp_path):
    assert export_bioimageio(request.param, tmp_path / "a.zip") <= 1e-4
    return request.param, opened(tmp_path / "a.zip")


def test_all_files_are_there_with_their_hashes(package):
    _, files = package
    names = ["README.md", "cover.png", "rdf.yaml", "test_input.npy", "test_output.npy", "weights.onnx"]
    assert sorted(files) == names
    said = files["rdf.yaml"].decode()
    for name in set(names) - {"rdf.yaml"}:
        assert hashlib.sha256(files[name]).hexdigest() in said
    width, height = Image.open(io.BytesIO(files["cover.png"])).size
    assert width == 2 * height
    assert len(files["cover.png"]) < 500_000
    assert "## Validation" in files["README.md"].decode()


def test_the_output_of_the_test_is_that_of_the_model(package):
    model, files = package
    image, expected = (np.load(io.BytesIO(files[f"test_{name}.npy"])) for name in ("input", "output"))
    offset, gain = (value.reshape(-1, 1, 1) for value in model.contract.normalisation.offset_and_gain(image[0]))
    found = predict_part(model.predictor, model.contract, image[0], offset, gain, exact=True)
    assert np.abs(found - expected[0]).max() <= 1e-4


def test_sizes_are_those_of_the_unpadded_network(package):
    model, files = package
    said = json.loads(files["rdf.yaml"])
    image, expected = (np.load(io.BytesIO(files[f"test_{name}.npy"])) for name in ("input", "output"))
    [given], [found] = said["inputs"], said["outputs"]
    assert given["data"]["type"] == image.dtype
    for axis in (2, 3):
        size, offset = given["axes"][axis]["size"], found["axes"][axis]["size"]["offset"]
        assert size == {"min": 20, "step": 2}
        assert (image.shape[axis] - 20) % 2 == 0
        assert expected.shape[axis] == image.shape[axis] + offset == image.shape[axis] - 16
        assert "halo" not in found["axes"][axis]
        assert given["axes"][axis].get("scale") == found["axes"][axis].get("scale") == model.contract.pixel_size
    assert len(found["axes"][1]["channel_names"]) == expected.shape[1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("bioimageio") is None, reason="bioimageio.core is not installed")
@pytest.mark.parametrize("given", ["noise", "an image"])
def test_bioimageio_test_passes(given, tmp_path):
    for number, model in enumerate(CASES.values()):
        image = None if given == "noise" else pixels("uint8", model.contract.network.in_channels)
        export_bioimageio(model, tmp_path / f"{number}.zip", image=image)
    program = (
        "import sys\n"
        "from bioimageio.core import test_description\n"
        "said = {path: test_description(path) for path in sys.argv[1:]}\n"
        "sys.exit('\\n'.join(one.format() for one in said.values() if one.status != 'passed') or 0)\n"
    )
    names = [path.name for path in tmp_path.iterdir()]
    done = subprocess.run([sys.executable, "-c", program, *names], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    assert len(names) == len(CASES)


def test_the_image_is_the_test_mirrored_where_it_is_small(tmp_path):
    image = pixels("uint16")[0]
    export_bioimageio(CASES["range of uint8"], tmp_path / "a.zip", image=image)
    [[found]] = np.load(io.BytesIO(opened(tmp_path / "a.zip")["test_input.npy"]))
    assert found.dtype == np.uint16
    first = (90 - len(found)) // 2
    column = (300 - found.shape[1]) // 2
    assert (found[-first : 90 - first] == image[:, column : column + found.shape[1]]).all()
    assert (found[-first - 1] == image[1, column : column + found.shape[1]]).all()


def test_what_training_knew_is_said(tmp_path):
    model = made(Normalisation("percentile", False), "classes", (0, 7))
    contract = replace(model.contract, class_names=("ground", "cell"), channel_names=("DAPI",), quality={"IoU": 0.8125})
    export_bioimageio(Model(model.network, contract, device="cpu"), tmp_path / "a.zip")
    files = opened(tmp_path / "a.zip")
    said = json.loads(files["rdf.yaml"])
    assert said["inputs"][0]["axes"][1]["channel_names"] == ["DAPI"]
    assert said["outputs"][0]["axes"][1]["channel_names"] == ["ground", "cell"]
    assert "IoU: 0.812" in files["README.md"].decode()
    assert Contract.from_dict(said["config"]["ubend"]["contract"]) == contract


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "a.zip").write_text("mine")
    with pytest.raises(FileError, match="exists"):
        export_bioimageio(CASES["range of uint8"], tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_text() == "mine"
    with pytest.raises(InputError, match=r"called NAME.zip, not a.onnx"):
        export_bioimageio(CASES["range of uint8"], tmp_path / "a.onnx")
    with pytest.raises(InputError, match="the image has 2 channels, the model takes 1"):
        export_bioimageio(CASES["range of uint8"], tmp_path / "b.zip", image=np.zeros((50, 60, 2)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_the_command(tmp_path):
    CASES["range of uint8"].save(tmp_path / "model.safetensors")
    write_labels(tmp_path / "image.tif", pixels("uint8")[0])
    command = ["export", str(tmp_path), "--to", "bioimageio", "--out", str(tmp_path / "a.zip")]
    done = CliRunner().invoke(cli.app, [*command, "--image", str(tmp_path / "image.tif")], catch_exceptions=False)
    assert "bioimageio test" in done.output
    assert "noise" not in done.output
    assert "noise" in CliRunner().invoke(cli.app, [*command, "--overwrite"], catch_exceptions=False).output

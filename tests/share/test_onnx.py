import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ubend.data.annotated import Task
from ubend.errors import FileError, InputError, ModelFileError
from ubend.faces import cli
from ubend.method.geometry import halo, nearest_valid_inputs
from ubend.method.network import NetworkConfig, UNet
from ubend.method.objects import ObjectRules
from ubend.run import prediction
from ubend.run.contract import Contract
from ubend.run.model import Model
from ubend.run.normalisation import Normalisation
from ubend.share import onnx as share

onnx = pytest.importorskip("onnx", reason="the extra export is not installed: pip install onnx onnxruntime")
pytest.importorskip("onnxruntime", reason="the extra export is not installed: pip install onnx onnxruntime")


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    """As the exported file computes; a CPU with 16-bit arithmetic rounds otherwise."""
    monkeypatch.setattr(prediction, "mixed_precision", lambda _device: None)


def made(*, views="one", kind="binary", **network):
    """An untrained model whose probabilities are far from all alike."""
    config = NetworkConfig(**{"width": 4, "depth": 2, "dropout": 0.0, **network})
    net = UNet(config, generator=torch.Generator().manual_seed(7)).eval()
    with torch.no_grad():
        net.head.weight.mul_(4)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for values in (module.running_mean, module.bias):
                    values.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(8))
                for values in (module.running_var, module.weight):
                    values.uniform_(0.5, 2, generator=torch.Generator().manual_seed(9))
    values = tuple(range(config.classes)) if kind == "classes" else (0, 255 if kind == "binary" else 1)
    normalisation = Normalisation("percentile", together=config.in_channels > 1)
    contract = Contract(
        network=config, task=Task(kind, values, None), normalisation=normalisation, views=views,
        objects=ObjectRules(smallest=3),
    )  # fmt: skip
    return Model(net, contract, device="cpu")


def picture(channels, shape=(61, 83)):
    rng = np.random.default_rng(3)
    return rng.integers(0, 4000, shape if channels == 1 else (*shape, channels)).astype(np.uint16)


CASES = {
    "the paper's kind": {},
    "8 views": {"views": "dihedral"},
    "padded, batch normalised": {"padding": "same", "normalisation": "batch"},
    "colour, classes": {"in_channels": 3, "classes": 4, "kind": "classes", "padding": "same"},
    "as released in 2015": {"up_relu": True, "wide_last_up": True, "depth": 1},
    "deeper": {"depth": 3, "width": 2},
    "at half the resolution": {"depth": 3, "coarse": 1, "padding": "same", "normalisation": "batch"},
    "at a quarter": {"depth": 3, "coarse": 2, "width": 2, "kind": "instances", "classes": 3},
    "distance": {
        "kind": "instances", "classes": 3, "views": "dihedral", "in_channels": 3, "padding": "same",
        "normalisation": "batch",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_whole_images_are_as_the_model_predicts_them(case, tmp_path):
    model = made(**case)
    assert share.export_onnx(model, tmp_path / "a.onnx") <= 1e-4
    exported = share.OnnxModel(tmp_path / "a.onnx")
    image = picture(model.contract.network.in_channels)
    expected = model.predict(image, exact=True)
    assert expected.max(axis=(1, 2)).min() - expected.min() > 0.1  # not all alike
    for tile in (572, nearest_valid_inputs(0, model.contract.network.depth)[0] + 12 * model.contract.network.depth):
        assert np.abs(exported.predict(image, tile=tile) - expected).max() <= 1e-4
    agrees = exported.segment(image) == model.segment(image)
    assert agrees.mean() > 0.999
    assert exported.segment(image).dtype == model.segment(image).dtype


def test_a_distance_beyond_0_and_1_is_cut_off(tmp_path):
    model = made(kind="instances", classes=3)
    with torch.no_grad():
        model.predictor.head.weight[2].mul_(50)
    share.export_onnx(model, tmp_path / "a.onnx")
    distance = share.OnnxModel(tmp_path / "a.onnx").predict(picture(1))[2]
    assert (distance.min(), distance.max()) == (0, 1)


def test_other_views_than_the_contracts(tmp_path):
    model = made(views="rotations")
    share.export_onnx(model, tmp_path / "a.onnx")
    exported = share.OnnxModel(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"'rotations' is not to be had from an ONNX file.* 'one' or 'dihedral'"):
        exported.predict(picture(1))
    found = exported.predict(picture(1), views="dihedral")
    assert np.abs(found - model.predict(picture(1), views="dihedral", exact=True)).max() <= 1e-4


@pytest.mark.parametrize(("batch", "more"), [(1, (0, 0)), (3, (1, 4))])
def test_any_valid_size_goes_through_the_graph_itself(batch, more, tmp_path):
    share.export_onnx(made(), tmp_path / "a.onnx")
    rows, columns = (nearest_valid_inputs(0, 2)[0] + 4 * n for n in more)
    found = share.OnnxModel(tmp_path / "a.onnx").run(np.zeros((batch, 1, rows, columns), np.float32))
    assert found.shape == (batch, 2, rows - 2 * halo(2), columns - 2 * halo(2))
    assert np.allclose(found.sum(1), 1)


def test_the_file_says_what_other_programs_need(tmp_path):
    model = made()
    share.export_onnx(model, tmp_path / "a.onnx")
    file = onnx.load(tmp_path / "a.onnx")
    said = {entry.key: entry.value for entry in file.metadata_props}
    assert {key: said[key] for key in ("format", "input_smallest", "input_step", "output_crop")} == {
        "format": "ubend-onnx", "input_smallest": "44", "input_step": "4", "output_crop": "20",
    }  # fmt: skip
    assert Contract.from_dict(json.loads(said["contract"])) == model.contract
    assert [node.name for node in file.graph.node if node.op_type == "ConvTranspose"] == [
        "upconv_d2c_u1a",
        "upconv_u1d_u0a",
    ]


def test_a_model_that_goes_by_each_image_has_the_averages_of_training_in_a_file(tmp_path):
    model = made(padding="same", normalisation="batch")
    adapting = Model(model.network, replace(model.contract, statistics="image"), device="cpu")
    adapting.save(tmp_path / "m.safetensors")
    command = ["export", str(tmp_path / "m.safetensors"), "--to", "onnx", "--out", str(tmp_path / "a.onnx")]
    said = " ".join(CliRunner().invoke(cli.app, command, catch_exceptions=False).output.split())
    assert "ubend predict works by the statistics of each image, this file by those of the training" in said
    found = share.OnnxModel(tmp_path / "a.onnx").predict(picture(1))
    assert np.abs(found - model.predict(picture(1), exact=True)).max() <= 1e-4


def test_torch_is_not_imported(tmp_path, discs, instance_model):
    share.export_onnx(instance_model, tmp_path / "a.onnx")
    np.save(tmp_path / "image.npy", discs[0][0])
    program = (
        "import sys, numpy as np\n"
        "from ubend.share.onnx import OnnxModel\n"
        "image, model = np.load('image.npy'), OnnxModel('a.onnx')\n"
        "np.savez('found.npz', probabilities=model.predict(image), labels=model.segment(image))\n"
        "assert 'torch' not in sys.modules, 'torch is imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    with np.load(tmp_path / "found.npz") as found:
        expected = instance_model.predict(discs[0][0], exact=True)
        assert np.abs(found["probabilities"] - expected).max() <= 1e-4
        assert (found["labels"] == instance_model.segment(discs[0][0])).all()
        assert found["labels"].max() >= 1


def test_what_differs_from_the_model_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(share.OnnxModel, "run", lambda self, batch: np.zeros((len(batch), 2, 1, 1), np.float32))
    with pytest.raises(ModelFileError, match="gives other probabilities than the model, by up to"):
        share.export_onnx(made(), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(FileError, match="exists"):
        share.export_onnx(made(), tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_text() == "mine"
    share.export_onnx(made(), tmp_path / "a.onnx", overwrite=True)
    with pytest.raises(InputError, match=r"called NAME.onnx, not model.safetensors"):
        share.export_onnx(made(), tmp_path / "model.safetensors")


def saved(path, **metadata):
    """A tiny ONNX file of somebody else, with these metadata."""
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", ends[:1], ends[1:])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(file, metadata)
    onnx.save(file, path)
    return path


def test_files_that_are_none_of_ours(tmp_path):
    with pytest.raises(FileError, match="no file"):
        share.OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelFileError, match="is no ONNX file, or damaged"):
        share.OnnxModel(tmp_path / "text.onnx")
    with pytest.raises(ModelFileError, match="none that `ubend export` wrote"):
        share.OnnxModel(saved(tmp_path / "other.onnx"))
    with pytest.raises(ModelFileError, match="format version 3, this program reads 2: update"):
        share.OnnxModel(saved(tmp_path / "newer.onnx", format="ubend-onnx", format_version="3"))
    with pytest.raises(ModelFileError, match="format version 1, this program reads 2: export the model again"):
        share.OnnxModel(saved(tmp_path / "older.onnx", format="ubend-onnx", format_version="1"))
    with pytest.raises(ModelFileError, match="contract is damaged"):
        share.OnnxModel(saved(tmp_path / "damaged.onnx", format="ubend-onnx", format_version="2", contract="{}"))


def test_a_contract_that_ubend_never_writes_is_damage():
    contract = made().contract
    wrong = replace(contract, task=Task("cats", (0, 1), None)), replace(contract, views="many")
    for one in wrong:
        with pytest.raises(ModelFileError, match="contract is damaged"):
            share.ExportedContract.from_json(json.dumps(one.to_dict()))


def test_the_command(tmp_path, model):
    model.save(tmp_path / "model.safetensors")
    command = ["export", str(tmp_path), "--to", "onnx", "--out", str(tmp_path / "a.onnx")]
    done = CliRunner().invoke(cli.app, command, catch_exceptions=False)
    assert "Wrote" in done.output
    assert "differ from the network's by at most" in done.output
    assert share.OnnxModel(tmp_path / "a.onnx").contract.task == model.contract.task
    with pytest.raises(InputError, match="no export to 'tensorflow': there is onnx or bioimageio"):
        CliRunner().invoke(cli.app, [*command[:3], "tensorflow", *command[4:]], catch_exceptions=False)
    with pytest.raises(InputError, match="--image is for --to bioimageio"):
        CliRunner().invoke(cli.app, [*command, "--image", "a.tif"], catch_exceptions=False)

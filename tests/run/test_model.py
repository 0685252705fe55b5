import itertools
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file, save_file

from ubend.errors import FileError, ModelFileError
from ubend.method.network import NetworkConfig, UNet
from ubend.run.folders import predict_folder
from ubend.run.model import FORMAT_VERSION, load


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def header(path):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length])


def rewritten(path, change=None, tensors=None, **metadata):
    """The same file with another contract, other tensors, or other metadata."""
    known = header(path)["__metadata__"]
    contract = json.loads(known["contract"])
    if change:
        change(contract)
    save_file(
        load_file(path) if tensors is None else tensors,
        path,
        {**known, "contract": json.dumps(contract), **metadata},
    )
    return path


def test_a_model_comes_back_as_it_was(model, path, discs):
    back = load(path, device="cpu")
    assert back.contract == model.contract
    for image in discs[0]:
        assert (back.predict(image) == model.predict(image)).all()
        assert (back.segment(image) == model.segment(image)).all()
    assert (load(path.parent).predict(discs[0][0]) == model.predict(discs[0][0])).all()


def test_objects_come_back_as_they_were(instance_model, tmp_path, discs):
    instance_model.save(tmp_path / "cells.safetensors")
    back = load(tmp_path / "cells.safetensors")
    assert back.contract.objects == instance_model.contract.objects
    assert back.contract.objects.smallest > 0
    assert (back.segment(discs[0][1]) == instance_model.segment(discs[0][1])).all()


def test_a_model_of_format_version_1_still_loads(instance_model, tmp_path):
    path = tmp_path / "cells.safetensors"
    instance_model.save(path)

    def as_it_was(contract):
        rules = contract.pop("objects")
        contract |= {"gap": rules["gap"], "smallest_object": rules["smallest"], "threshold": 0.65, "split": 1.5}

    old = load(rewritten(path, as_it_was, format_version="1"))
    assert old.contract.objects == replace(
        instance_model.contract.objects, threshold=0.65, split=1.5, certainty=0.0, fill_holes=False
    )


def test_a_file_of_the_second_version_dropped_no_unsure_objects(instance_model, tmp_path):
    path = tmp_path / "cells.safetensors"
    instance_model.save(path)
    old = load(rewritten(path, lambda contract: contract["objects"].pop("certainty"), format_version="2"))
    assert old.contract.objects == replace(instance_model.contract.objects, certainty=0.0)


@pytest.mark.parametrize("version", ["3", "4", "5", "6"])
@pytest.mark.parametrize(
    ("surest", "threshold", "certainty"),
    [(0.8, 0.5, 0.75), (0.9, 0.6, 0.75), (0.7, 0.5, 0.7), (0.0, 0.5, 0.0), (0.8, 0.3, 0.0)],
)
def test_until_the_sixth_version_an_object_had_to_be_sure_somewhere(
    surest, threshold, certainty, version, instance_model, tmp_path
):
    path = tmp_path / "cells.safetensors"
    instance_model.save(path)

    def as_it_was(contract):
        del contract["objects"]["certainty"]
        contract["objects"] |= {"surest": surest, "threshold": threshold}

    old = load(rewritten(path, as_it_was, format_version=version))
    assert old.contract.objects == replace(instance_model.contract.objects, threshold=threshold, certainty=certainty)
    damaged = rewritten(path, lambda contract: contract["objects"].pop("surest"), format_version=version)
    assert "objects: certainty" in refused(damaged)


VERSION_3 = {
    "network": {
        "in_channels": 1, "classes": 2, "width": 4, "depth": 2, "padding": "same", "normalisation": "batch",
        "dropout": 0.0,
    },
    "task": {"kind": "binary", "values": [0, 255], "ignore_label": None},
    "normalisation": {"kind": "percentile", "together": False},
    "views": "one",
    "objects": {
        "gap": 0, "smallest": 0, "threshold": 0.5, "surest": 0.0, "split": 0.0, "fill_holes": False,
        "clear_border": False,
    },
    "pixel_size": 0.5,
    "quality": {"IoU": 0.75},
    "recipe": {"network": {"width": 4, "depth": 2}},
    "provenance": {"images": {"a": "0123456789abcdef"}, "steps": 3},
}  # fmt: skip
"""The contract of a file of the third version, as that version wrote it."""


def test_a_file_of_the_third_version_still_loads(tmp_path, discs):
    network = UNet(NetworkConfig(**VERSION_3["network"]))
    metadata = {"format": "ubend-model", "format_version": "3", "contract": json.dumps(VERSION_3)}
    save_file(network.state_dict(), tmp_path / "old.safetensors", metadata)
    old = load(tmp_path / "old.safetensors", device="cpu")
    assert old.contract.reference is None
    assert (old.contract.channel_names, old.contract.class_names) == ((), ())
    assert (old.contract.normalisation.low, old.contract.normalisation.high) == (1.0, 99.8)
    assert old.contract.pixel_size == 0.5
    assert set(np.unique(old.segment(discs[0][0]))) <= {0, 255}
    result = predict_folder(old, _saved(tmp_path, discs[0][0]), tmp_path / "out")
    assert (result.unlike, result.other_diameters) == ({}, {})
    old.save(tmp_path / "new.safetensors")
    assert header(tmp_path / "new.safetensors")["__metadata__"]["format_version"] == str(FORMAT_VERSION)
    assert load(tmp_path / "new.safetensors").contract == old.contract


def _saved(folder, image):
    tifffile.imwrite(folder / "image.tif", image)
    return folder / "image.tif"


def test_a_file_of_the_fourth_version_that_lost_what_it_saw_is_damaged(path):
    assert "contract is damaged: 'reference'" in refused(rewritten(path, lambda c: c.pop("reference")))


def test_other_rules_for_objects_can_be_asked_for(instance_model, discs):
    image, rules = discs[0][1], instance_model.contract.objects
    found = instance_model.segment(image)
    assert (instance_model.segment(image, objects=rules) == found).all()
    assert found.any()
    assert not instance_model.segment(image, objects=replace(rules, smallest=image.size + 1)).any()


def test_the_file_is_a_header_of_json_and_plain_numbers(path, model):
    """The 8 bytes of the header's length, the header, and the tensors: nothing that could be run."""
    content, known = path.read_bytes(), header(path)
    assert known["__metadata__"]["format"] == "ubend-model"
    assert known["__metadata__"]["format_version"] == str(FORMAT_VERSION)
    assert json.loads(known["__metadata__"]["contract"])["task"]["kind"] == "binary"
    places = sorted(value["data_offsets"] for key, value in known.items() if key != "__metadata__")
    assert places[0][0] == 0
    assert all(one[1] == two[0] for one, two in itertools.pairwise(places))
    assert 8 + struct.unpack("<Q", content[:8])[0] + places[-1][1] == len(content)
    assert {value["dtype"] for key, value in known.items() if key != "__metadata__"} == {"F32", "I64"}
    assert set(known) - {"__metadata__"} == set(model.network.state_dict())


def test_loading_unpickles_nothing(path, monkeypatch):
    import pickle

    def refuse(*_args, **_kwargs):
        raise AssertionError("pickle was used")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    load(path)


def test_loading_leaves_the_callers_random_numbers(path):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    load(path)
    assert torch.equal(torch.rand(2), expected)


def test_saving_replaces_nothing(path, model):
    before = path.read_bytes()
    with pytest.raises(FileError, match=r"model\.safetensors exists already"):
        model.save(path)
    assert path.read_bytes() == before
    model.save(path, overwrite=True)
    with pytest.raises(FileError, match="There is no folder"):
        model.save(path.parent / "none" / "model.safetensors")


def test_a_full_disk_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match="no space left on the disk"):
        model.save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def refused(path):
    with pytest.raises((ModelFileError, FileError)) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_newer_file(path):
    rewritten(path, format_version=str(FORMAT_VERSION + 1))
    assert refused(path).endswith(
        f"has the format version {FORMAT_VERSION + 1}, this program reads up to {FORMAT_VERSION}: update ubend"
    )


def test_no_version(path):
    assert "no readable format version: 'one'" in refused(rewritten(path, format_version="one"))


def test_the_weights_of_another_program(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert refused(tmp_path / "other.safetensors").endswith("is a safetensors file but no model of ubend")


def test_what_is_no_model_file(tmp_path):
    for name, content in (
        ("empty", b""),
        ("text", b"hello"),
        ("long", b"\xff" * 4000),
        ("zip", b"PK\3\4" + 99 * b"\0"),
    ):
        (tmp_path / name).write_bytes(content)
        assert f"{name} is no model file, or damaged" in refused(tmp_path / name)


@pytest.mark.parametrize("share", [0.0005, 0.05, 0.5, 0.999])
def test_a_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is no model file, or damaged" in refused(path)


def test_a_path_without_model(tmp_path):
    assert "leaves one as model.safetensors in its folder" in refused(tmp_path)
    assert "no model file" in refused(tmp_path / "none.safetensors")


@pytest.mark.parametrize("key", ["network", "task", "normalisation", "views", "recipe"])
def test_a_contract_that_lost_a_key(key, path):
    assert "contract is damaged" in refused(rewritten(path, lambda contract: contract.pop(key)))


@pytest.mark.parametrize("objects", [None, [], 3, "all"])
def test_a_file_of_the_second_version_whose_rules_are_none(objects, path):
    assert "damaged" in refused(rewritten(path, lambda c: c.update(objects=objects), format_version="2"))


def test_a_contract_that_does_not_fit_the_weights(path):
    message = refused(rewritten(path, lambda contract: contract["network"].update(width=8)))
    assert "is a damaged model file" in message
    assert "size mismatch" in message


def test_weights_that_are_missing(path):
    tensors = load_file(path)
    del tensors["head.bias"]
    assert "head.bias" in refused(rewritten(path, tensors=tensors))


@pytest.mark.parametrize("contract", ["", "{", "[]", "3", "null"])
def test_a_contract_that_is_none(contract, path):
    assert "damaged" in refused(rewritten(path, contract=contract))


def test_segmenting_is_predicting_and_deciding(model, discs):
    probabilities = model.predict(discs[0][0])
    assert probabilities.dtype == np.float32
    assert ((probabilities.argmax(0) * 255) == model.segment(discs[0][0])).all()

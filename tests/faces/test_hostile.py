"""Whole commands on hostile files: exit code 2, one line, no traceback, nothing written."""

import json
import os
import struct
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
import tifffile

from ubend.data.formats import write_labels
from ubend.faces import cli


def fail(*arguments, capsys, monkeypatch):
    """Run a command that fails as from a shell; return its one line."""
    monkeypatch.setattr(sys, "argv", ["ubend", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.run()
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert said.err.startswith("ubend: ")
    assert said.err[:-1].isprintable()
    assert said.err.endswith("\n")
    assert "Traceback" not in said.out + said.err
    return said.err


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows, columns, lines=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def tiff(rows, columns, tags=()):
    """A TIFF header that promises so many pixels, and holds a hundred bytes."""
    entries = {
        256: columns,
        257: rows,
        258: 8,
        259: 1,
        262: 1,
        273: 200,
        277: 1,
        278: rows,
        279: rows * columns % 2**32,
    }
    entries |= dict(tags)
    table = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in sorted(entries.items()))
    return (b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)).ljust(300, b"\0")


BOMB = png(31_623, 31_623, bytes(31_623 * 31_624))  # a billion zeros in a megabyte
IMAGES = {
    "a billion zeros.png": BOMB,
    "huge header.png": png(10_000, 9_000),
    "huge header.tif": tiff(31_623, 31_623),
    "huge deflated header.tif": tiff(31_623, 31_623, {259: 8, 279: 100}),
    "huge strips.tif": tiff(31_623, 31_623, {259: 5, 278: 2**31, 279: 100}),
    "a circle of pages.tif": tiff(1, 1)[:118] + struct.pack("<I", 8) + bytes(200),
    "cut.tif": tiff(8, 8)[:100],
    "empty.tif": b"",
    "text.png": b"no picture",
    "two\nlines \x1b[2J.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\x1b[31mred\n"),
}


@pytest.fixture
def run(model, tmp_path):
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "model.safetensors")
    return tmp_path / "run"


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "verify-tiling"])
def test_images(command, name, run, tmp_path, capsys, monkeypatch):
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    image = tmp_path / "data" / "images" / name
    image.write_bytes(IMAGES[name])
    write_labels(tmp_path / "data" / "masks" / (image.stem + ".tif"), np.eye(20, dtype=int))
    arguments = {
        "train": (tmp_path / "data", "--out", tmp_path / "out", "--steps", "1"),
        "predict": (run, image, "--out", tmp_path / "out"),
        "evaluate": (tmp_path / "data" / "images", tmp_path / "data" / "masks"),
        "verify-tiling": (run, image),
    }
    begun = time.process_time()
    said = fail(command, *arguments[command], capsys=capsys, monkeypatch=monkeypatch)
    assert "png" in said or "tif" in said
    assert time.process_time() - begun < 5
    assert not list(tmp_path.glob("out/*"))


def members(**contents):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name.replace("_", "/"), content)

    return write


def deep_json(path):
    path.write_text('{"type":' * 100_000 + "1" + "}" * 100_000)


def huge_array(path):
    np.save(path, np.zeros((4, 4), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(4, 4)", b"(9999999999, 9999999999)"))


LABELS = {
    ".zip": members(**{".._.._a.roi": b"Iout" + bytes(60), "b.roi": bytes(2**27)}),
    "_rois.zip": members(**{"_tmp_a.roi": b"no roi"}),
    ".roi": lambda path: path.write_bytes(b"Iout\0\xe4\0\0" + bytes(20)),
    ".geojson": deep_json,
    "_seg.npy": huge_array,
}


@pytest.mark.parametrize("ending", LABELS)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_outlines_and_arrays(command, ending, tmp_path, capsys, monkeypatch):
    pytest.importorskip("roifile")
    write_labels(tmp_path / "x.tif", np.eye(20, dtype=int))
    LABELS[ending](tmp_path / f"x{ending}")
    (tmp_path / "results").mkdir()
    write_labels(tmp_path / "results" / "x.tif", np.eye(20, dtype=int))
    arguments = (tmp_path, "--out", tmp_path / "out") if command == "train" else (tmp_path / "results", tmp_path)
    assert f"x{ending}" in fail(command, *arguments, capsys=capsys, monkeypatch=monkeypatch)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path.parent.parent / "a.roi").exists()


def zarr_of(**changes):
    def write(path):
        path.mkdir()
        meta = {"zarr_format": 2, "shape": [40, 40], "chunks": [20, 20], "dtype": "|u1", "fill_value": 0, "order": "C"}
        meta |= {"filters": None, "compressor": None} | changes
        (path / ".zarray").write_text(json.dumps(meta))
        for key in ("0.0", "0.1", "1.0", "1.1"):
            (path / key).write_bytes(bytes(400))

    return write


def ome_zarr(level):
    def write(path):
        path.mkdir()
        axes = [{"name": name, "type": "space"} for name in "yx"]
        image = {"version": "0.4", "axes": axes, "datasets": [{"path": level}]}
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
        zarr_of()(path.parent / "other.zarr")

    return write


def endless(path):
    zarr_of()(path)
    (path / "0.0").unlink()
    (path / "0.0").symlink_to("/dev/zero")


ZARRS = {
    "huge": (zarr_of(shape=[10**9, 10**9]), "next to nothing is there"),
    "small chunks": (zarr_of(shape=[10**9, 10**9], chunks=[1, 1]), "next to nothing is there"),
    "huge chunks": (zarr_of(shape=[10**6, 10**6], chunks=[10**6, 10**6]), "GB are free"),
    "no chunks": (zarr_of(chunks=[0, 0]), "big.zarr"),
    "planes": (zarr_of(shape=[10**7, 1, 1, 1, 40]), "big.zarr"),
    "objects": (zarr_of(dtype="|O", filters=[{"id": "pickle"}]), "Python objects"),
    "pickle": (zarr_of(compressor={"id": "pickle"}), "Python objects"),
    "outside": (ome_zarr("../other.zarr"), "lies outside of it"),
    "elsewhere": (ome_zarr("/etc"), "lies outside of it"),
    "endless": (endless, "is a pipe or a device"),
}


@pytest.mark.parametrize("name", ZARRS)
@pytest.mark.parametrize("command", ["predict", "verify-tiling"])
def test_zarrs(command, name, run, tmp_path, capsys, monkeypatch):
    write, expected = ZARRS[name]
    write(tmp_path / "big.zarr")
    out = ("--out", tmp_path / "out") if command == "predict" else ()
    assert expected in fail(command, run, tmp_path / "big.zarr", *out, capsys=capsys, monkeypatch=monkeypatch)


def header(values):
    text = json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text


MODELS = {
    "empty.safetensors": b"",
    "long.safetensors": struct.pack("<Q", 2**63) + b"{}",
    "deep.safetensors": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "other.safetensors": header({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}) + bytes(4),
    "deep.toml": b"a = " + b"[" * 100_000,
    "keys.toml": b"a." * 100_000 + b"b = 1",
    "number.toml": b"[network]\nwidth = " + b"9" * 100_000,
    "float.toml": b"[optimiser]\nlearning_rate = 1" + b"0" * 400,
    "binary.toml": bytes(range(256)),
    "long.toml": b"#" * 2**21,
}


@pytest.mark.parametrize(
    ("command", "name"),
    [*(("describe", name) for name in MODELS), *(("predict", name) for name in MODELS),
     *(("train", name) for name in MODELS if name.endswith(".toml"))],
)  # fmt: skip
def test_models_and_recipes(command, name, tmp_path, capsys, monkeypatch):
    (tmp_path / name).write_bytes(MODELS[name])
    write_labels(tmp_path / "x.tif", np.eye(20, dtype=int))
    write_labels(tmp_path / "x_mask.tif", np.eye(20, dtype=int))
    arguments = {
        "describe": (tmp_path / name,),
        "predict": (tmp_path / name, tmp_path / "x.tif", "--out", tmp_path / "out"),
        "train": (tmp_path, "--out", tmp_path / "out", "--recipe", tmp_path / name, "--steps", "1"),
    }
    assert name in fail(command, *arguments[command], capsys=capsys, monkeypatch=monkeypatch)
    assert not (tmp_path / "out").exists()


def test_a_network_that_its_file_does_not_hold_takes_no_memory(run, tmp_path, capsys, monkeypatch):
    content = (run / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    values = json.loads(content[8 : 8 + length])
    contract = json.loads(values["__metadata__"]["contract"])
    contract["network"] |= {"width": 4096, "depth": 8}  # 130 TB of weights
    values["__metadata__"]["contract"] = json.dumps(contract)
    (tmp_path / "huge.safetensors").write_bytes(header(values) + content[8 + length :])
    said = fail("describe", tmp_path / "huge.safetensors", capsys=capsys, monkeypatch=monkeypatch)
    assert "huge.safetensors is a damaged model file" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(run, tmp_path, capsys, monkeypatch):
    os.mkfifo(tmp_path / "x.tif")
    for arguments in ((run, tmp_path / "x.tif"), (run, tmp_path)):
        fail("predict", *arguments, "--out", tmp_path / "out", capsys=capsys, monkeypatch=monkeypatch)


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_links_to_the_images_are_not_written_through(linked, discs, run, tmp_path, capsys, monkeypatch):
    image = tmp_path / "images" / "x.tif"
    image.parent.mkdir()
    write_labels(image, discs[0][0])
    before = image.read_bytes()
    if linked == "folder":
        (tmp_path / "out").symlink_to(tmp_path / "images")
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "x.tif").symlink_to(image)
    fail("predict", run, image.parent, "--out", tmp_path / "out", "--overwrite", capsys=capsys, monkeypatch=monkeypatch)
    assert image.read_bytes() == before


def test_masks_drawn_by_hand_are_not_replaced(discs, run, tmp_path, capsys, monkeypatch):
    for folder, arrays in zip(("images", "masks"), discs, strict=True):
        (tmp_path / "data" / folder).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "data" / folder / "x.tif", arrays[0])
    mask = tmp_path / "data" / "masks" / "x.tif"
    before = mask.read_bytes()
    images, out = tmp_path / "data" / "images", tmp_path / "data" / "masks"
    said = fail("predict", run, images, "--out", out, "--overwrite", capsys=capsys, monkeypatch=monkeypatch)
    assert "may be drawn by hand" in said
    mask.rename(tmp_path / "x.tif")
    said = fail("predict", run, images, "--out", tmp_path, "--overwrite", capsys=capsys, monkeypatch=monkeypatch)
    assert "was not written by ubend" in said
    assert (tmp_path / "x.tif").read_bytes() == before


def test_scores_are_not_written_over_images(discs, tmp_path, capsys, monkeypatch):
    for folder in ("results", "truth"):
        (tmp_path / folder).mkdir()
        write_labels(tmp_path / folder / "x.tif", discs[1][0])
    before = (tmp_path / "truth" / "x.tif").read_bytes()
    for option in ("--csv", "--json"):
        said = fail(
            "evaluate", tmp_path / "results", tmp_path / "truth", option, tmp_path / "truth" / "x.tif", "--overwrite",
            capsys=capsys, monkeypatch=monkeypatch,
        )  # fmt: skip
        assert "is not replaced: name another file" in said
    assert (tmp_path / "truth" / "x.tif").read_bytes() == before

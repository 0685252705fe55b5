"""Damaged and hostile files in every reader: each is read, or refused in one line, within bounded memory and time.

    python benchmarks/fuzz.py                                   # all readers, and the table of docs/reliability.md
    python benchmarks/fuzz.py --reader images --number 4711     # one input again, with its traceback

Input number k of a reader depends on (SEED, reader, k) alone. Each is read by a process that may take MEMORY bytes more
than it holds, and compute for SECONDS seconds. A fault is anything but a result or one line: another exception, a
warning, words of a library on the screen, a message of several lines, memory that ran out or grew beyond GROWTH, a
crash, too much time.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import tifffile
import torch
import zarr
from PIL import Image
from report import machine, markdown_table, write_section

from ubend.data.annotated import Task, find_pairs, infer_task, read_pairs
from ubend.data.formats import read_images, read_labels, read_probabilities, write_labels, write_probabilities
from ubend.data.large import open_large
from ubend.data.large_results import create_labels
from ubend.data.rois import labels_from_drawn, read_drawn, write_geojson, write_rois
from ubend.errors import UbendError
from ubend.faces import cli
from ubend.method.network import NetworkConfig, UNet
from ubend.method.outlines import trace_outlines
from ubend.run.contract import Contract
from ubend.run.evaluation import evaluate_folders
from ubend.run.model import Model, load
from ubend.run.normalisation import Normalisation
from ubend.run.recipe import Recipe, load_recipe, to_toml
from ubend.run.scale import in_this_process, predict_large

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
SEED = 1505
SECONDS = 10
MEMORY = 4 * 2**30
GROWTH = 2**30
"""Bytes that a file of a few kB may take: no more than an honest image of that header could."""

Files = dict[str, bytes]
"""A file, or a folder of them, by the path from its parent."""
Random = np.random.Generator


# Seeds: small files, each whole


def picture(shape: tuple[int, ...] = (24, 31), dtype: str = "uint8") -> Any:
    values = np.random.default_rng(len(shape)).integers(0, 250, shape)
    return (values / 250).astype(dtype) if np.dtype(dtype).kind == "f" else values.astype(dtype)


def discs() -> Any:
    labels = np.zeros((24, 31), np.uint8)
    labels[3:9, 4:12], labels[12:20, 15:27], labels[14:17, 18:22] = 1, 2, 0
    return labels


def tree(write: Callable[[Path], object]) -> Files:
    """Everything that `write` leaves in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }


def tiffs() -> list[Files]:
    gray, colour = picture(), picture((24, 31, 3))
    stack, floats = picture((3, 24, 31), "uint16"), picture(dtype="float32")
    planes = {"photometric": "minisblack"}
    ways: list[tuple[Any, dict[str, Any]]] = [
        (gray, {}),
        (gray, {"compression": "zlib"}),
        (gray, {"compression": "zlib", "tile": (16, 16), "predictor": True}),
        (gray, {"byteorder": ">", "rowsperstrip": 5}),
        (picture(dtype="uint32"), {"bigtiff": True, "compression": "zlib"}),
        (floats, {"compression": "zlib", "resolution": (2e4, 2e4), "resolutionunit": 3}),
        (colour, {"photometric": "rgb", "compression": "zlib"}),
        (picture((24, 31, 4)), {"photometric": "rgb", "extrasamples": ("unassalpha",)}),
        (
            stack,
            {
                "photometric": "minisblack",
                "imagej": True,
                "metadata": {"axes": "ZYX", "unit": "um", "spacing": 2.0},
                "resolution": (5, 5),
            },
        ),
        (
            stack,
            {
                "photometric": "minisblack",
                "ome": True,
                "metadata": {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
            },
        ),
        (
            stack,
            {
                "photometric": "minisblack",
                "ome": True,
                "bigtiff": True,
                "tile": (16, 16),
                "compression": "zlib",
                "metadata": {"axes": "CYX"},
            },
        ),
        (stack, planes | {"metadata": {"axes": "ZYX"}}),
        (gray, {"compression": "lzma"}),
    ]
    return [tree(lambda at, a=a, more=more: tifffile.imwrite(at / "x.tif", a, **more)) for a, more in ways] + [
        {"x.tif": encoded(Image.fromarray(gray), "TIFF", compression="tiff_lzw")},
        {"x.tif": encoded(Image.fromarray(gray), "TIFF", compression="packbits")},
        {"x.tif": encoded(Image.fromarray(colour), "TIFF", compression="jpeg")},
        pyramid(),
    ]


def pyramid() -> Files:
    def write(folder: Path) -> None:
        with tifffile.TiffWriter(folder / "x.tif", ome=True) as tif:
            tif.write(picture((64, 64)), subifds=1, tile=(16, 16), compression="zlib")
            tif.write(picture((32, 32)), subfiletype=1, tile=(16, 16), compression="zlib")

    return tree(write)


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def pillow_files() -> list[Files]:
    gray, colour = Image.fromarray(picture()), Image.fromarray(picture((24, 31, 3)))
    orientation = Image.Exif()
    orientation[274] = 6
    return [
        {"x.png": encoded(gray, "PNG", dpi=(25400, 25400))},
        {"x.png": encoded(colour, "PNG")},
        {"x.png": encoded(Image.fromarray(picture((24, 31, 4))), "PNG")},
        {"x.png": encoded(colour.quantize(7), "PNG")},
        {"x.png": encoded(gray.convert("1"), "PNG")},
        {"x.png": encoded(Image.fromarray(picture(dtype="uint16")), "PNG")},
        {"x.jpg": encoded(gray, "JPEG")},
        {"x.jpg": encoded(colour, "JPEG", progressive=True, exif=orientation)},
        {"x.bmp": encoded(colour, "BMP")},
        {"x.bmp": encoded(colour.quantize(7), "BMP")},
    ]


def arrays() -> list[Files]:
    found = []
    for array in (discs(), np.stack([discs()] * 3).astype("int64"), np.asfortranarray(discs().astype("float64"))):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        found.append({"x_seg.npy": buffer.getvalue()})
    return found


def label_files() -> list[Files]:
    def ours(ending: str, labels: Any) -> Files:
        return tree(lambda at: write_labels(at / f"x{ending}", labels, pixel_size=0.5))

    return [
        ours(".tif", discs()),
        ours(".png", discs() * np.uint16(300)),
        *pillow_files()[3:5],
        *arrays(),
    ]


def probability_files() -> list[Files]:
    maps = np.stack([picture(dtype="float32")] * 2)
    return [tree(lambda at: write_probabilities(at / "x.tif", maps, pixel_size=0.25))]


def zarrs() -> list[Files]:
    def plain(zarr_format: int, **more: Any) -> Callable[[Path], object]:
        return lambda at: zarr.create_array(
            at / "x.zarr", data=picture((2, 40, 31), "uint16"), zarr_format=zarr_format, chunks=(1, 20, 20), **more
        )

    def ours(version: str) -> Callable[[Path], None]:
        def write(at: Path) -> None:
            with tempfile.TemporaryDirectory() as elsewhere:
                zarr.create_array(f"{elsewhere}/image.zarr", data=picture((40, 31)))
                result = create_labels(at / "x.zarr", open_large(f"{elsewhere}/image.zarr"), chunk=16, version=version)
                result.write((), 0, 0, np.arange(1240).reshape(40, 31))
                result.finish()

        return write

    def ome(version: str) -> Callable[[Path], None]:
        def write(at: Path) -> None:
            ours(version)(at)
            (at / "x.zarr" / "labels" / "ubend").rename(at / "y.zarr")
            shutil.rmtree(at / "x.zarr")
            (at / "y.zarr").rename(at / "x.zarr")

        return write

    return [
        tree(plain(2)),
        tree(plain(3, shards=(1, 40, 40))),
        tree(plain(2, filters=[numcodecs.Delta("<u2")], compressors=numcodecs.Zlib(1))),
        tree(ome("0.4")),
        tree(ome("0.5")),
    ]


def roi_files() -> list[Files]:
    import roifile

    def write(at: Path) -> None:
        write_rois(at / "x_rois.zip", trace_outlines(discs()))

    polygon = roifile.ImagejRoi.frompoints(np.array([[1.5, 2.5], [12.5, 3], [8, 20]]), name="cell")
    oval = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.OVAL, name="oval", left=3, top=4, right=12, bottom=20)
    return [
        tree(write),
        {"x.roi": polygon.tobytes()},
        {"x.roi": oval.tobytes()},
        {"x.zip": zipped({"a.roi": polygon.tobytes(), "b.roi": oval.tobytes()})},
    ]


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # names twice
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def geojsons() -> list[Files]:
    def write(at: Path) -> None:
        measured = {"area_px": np.array([48.0, 84.0])}
        write_geojson(at / "x.geojson", trace_outlines(discs()), measurements=measured)

    square = {"type": "Polygon", "coordinates": [[[1, 1], [9.5, 1], [9, 9], [1, 1]]]}
    qupath = [{"type": "Feature", "geometry": square, "properties": {"classification": {"name": "Tumor"}}}]
    return [tree(write), {"x.geojson": json.dumps(qupath).encode()}]


@cache
def trained() -> Model:
    """A network of a few hundred random weights, and a contract that says all that one can."""
    network = NetworkConfig(width=2, depth=1, padding="same", normalisation="batch")
    folds = {"number": 2, "of": {"a": 1, "b": 2}, "intervals": {"IoU": [0.5, 0.9]}}
    made = {"steps": 3, "minutes": 0.1, "date": "2026-01-01", "images": {"a": "00"}, "versions": {"torch": "2.13.0"}}
    contract = Contract(
        network=network, task=Task("instances", (), None), normalisation=Normalisation("percentile", True),
        views="one", pixel_size=0.5, quality={"IoU": 0.75}, recipe=Recipe(network=network),
        provenance=made | {"folds": folds, "plan": ["a small one"]},
    )  # fmt: skip
    return Model(UNet(network, generator=torch.Generator().manual_seed(SEED)).eval(), contract, device="cpu")


def models() -> list[Files]:
    return [tree(lambda at: trained().save(at / "x.safetensors"))]


def recipes() -> list[Files]:
    own = b'base = "paper"\nabout = "mine"\n\n[network]\nwidth = 8\ndepth = 2\n\n[tiles]\nsize = 188\nbatch = 2\n'
    return [{"x.toml": to_toml(load_recipe("default")).encode()}, {"x.toml": own}]


def stopped_jobs() -> list[Files]:
    """What is left of a prediction that was stopped after its first block; beside it model and image."""

    class Stopped(Exception):
        pass

    def first_block(work: Any, blocks: Sequence[Any], done: Callable[[Any, str], None]) -> None:
        in_this_process(work, blocks[:1], done)
        raise Stopped

    def write(at: Path) -> None:
        trained().save(at / "model.safetensors")
        zarr.create_array(at / "big.zarr", data=picture((60, 50)), chunks=(30, 30))
        with contextlib.suppress(Stopped):
            predict_large(at / "model.safetensors", at / "big.zarr", at / "out", tile=44, device="cpu",
                          engine=first_block)  # fmt: skip

    return [tree(write)]


def annotated_folders() -> list[Files]:
    image, labels = encoded(Image.fromarray(picture()), "PNG"), encoded(Image.fromarray(discs()), "PNG")
    two = {f"x/{part}/{name}.png": kind for part, kind in (("images", image), ("masks", labels)) for name in "ab"}
    drawn = {"x/a.png": image, "x/a_rois.zip": roi_files()[0]["x_rois.zip"], "x/b.png": image}
    return [two, drawn | {"x/b_seg.npy": arrays()[0]["x_seg.npy"]}]


def evaluated_folders() -> list[Files]:
    labels = tree(lambda at: write_labels(at / "a.tif", discs()))["a.tif"]
    drawn = geojsons()[0]["x.geojson"]
    table = b"id,area_px\n1,48\n2,84\n"
    return [
        {"x/truth/a.tif": labels, "x/results/a.tif": labels, "x/results/objects.csv": table},
        {
            "x/truth/images/a.tif": labels,
            "x/truth/masks/a.geojson": drawn,
            "x/results/a.tif": labels,
        },
    ]


# Readers: each as the commands read


def read_large(path: Path) -> None:
    image = open_large(path)
    for plane in image.planes[:3]:
        image.missing_chunks(plane)
        image.read(plane, slice(0, 20), slice(3, 25))
        image.read_strided(plane, max(1, int(np.sqrt(image.rows * image.columns / 2**20))))


def read_outlines(path: Path) -> None:
    labels_from_drawn(read_drawn(path), (24, 31))


def read_folder(path: Path) -> None:
    pairs = read_pairs(find_pairs(path))
    infer_task([pair.labels for pair in pairs])


def read_model(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        cli.describe(str(path))
    load(path, device="cpu").segment(picture())


def read_recipe(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        cli.describe(str(path))


def resume(folder: Path) -> None:
    predict_large(folder / "model.safetensors", folder / "big.zarr", folder / "out", tile=44, device="cpu", resume=True)


@dataclass(frozen=True)
class Reader:
    """A way in: what is read there, and how many damaged ones."""

    what: str
    files: str
    seeds: Callable[[], list[Files]]
    read: Callable[[Path], object]
    inputs: int
    entry: str | None = None  # what is read, if not the first part of the first path

    def entry_of(self, files: Files) -> str:
        return Path(next(iter(files))).parts[0] if self.entry is None else self.entry


READERS = {
    "images": Reader(
        "`data/formats.py::read_images`", "TIFF, PNG, JPEG, BMP", lambda: tiffs() + pillow_files(), read_images, 4000
    ),
    "labels": Reader("`data/formats.py::read_labels`", "TIFF, PNG, .npy", label_files, read_labels, 1200),
    "probabilities": Reader(
        "`data/formats.py::read_probabilities`", "TIFF", probability_files, read_probabilities, 300
    ),
    "large": Reader("`data/large.py::open_large`", "TIFF by regions", tiffs, read_large, 1800),
    "zarr": Reader("`data/large.py::open_large`", "Zarr, OME-Zarr 0.4, 0.5", zarrs, read_large, 2000),
    "rois": Reader("`data/rois.py::read_drawn`", "ImageJ ROIs, zips of them", roi_files, read_outlines, 1200),
    "geojson": Reader("`data/rois.py::read_drawn`", "GeoJSON", geojsons, read_outlines, 800),
    "model": Reader("`run/model.py::load`", "safetensors", models, read_model, 1500),
    "recipe": Reader("`run/recipe.py::load_recipe`", "TOML", recipes, read_recipe, 1200),
    "job": Reader("`run/scale.py::predict_large`", "stopped jobs", stopped_jobs, resume, 400, entry=""),
    "folder": Reader("`data/annotated.py::find_pairs`", "folders to train on", annotated_folders, read_folder, 500),
    "evaluate": Reader(
        "`run/evaluation.py::evaluate_folders`", "results and truth", evaluated_folders,
        lambda path: evaluate_folders(path / "results", path / "truth"), 400,
    ),
}  # fmt: skip


# Mutations


EXTREMES = (0, 1, 2, 3, 127, 128, 255, 32767, 65535, 65536, 10**9, 2**31 - 1, 2**31, 2**32 - 1)
HUGE = (*EXTREMES, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, [], {}, "", [[]], [None], {"": None}),
    *(-1, 0, 1, 2, 3, 7, 1000, 65536, 10**9, 2**31, 2**63, 10**30, 0.5, 1e308, -1e-320, float("nan"), float("inf")),
    *("x", "0", "y", "../../x", "/etc/passwd", "a\nb", "\x1b[31mred\x07", "\0", "é" * 300, "|O", "pickle", "../0"),
    *([0] * 7, [1] * 3, [10**9, 10**9], [-1, -1], [[1, 2], [3, float("nan")], [5, 6]], [2**62] * 2),
)


def choice(rng: Random, things: Sequence[Any]) -> Any:
    return things[int(rng.integers(len(things)))]


def damaged(data: bytes, rng: Random) -> bytes:
    """Change bytes without knowing what they mean."""
    found, size = bytearray(data), len(data)
    if size == 0:
        return bytes(rng.integers(0, 256, int(rng.integers(1, 60)), dtype=np.uint8))
    at = int(rng.integers(min(size, choice(rng, (64, 1024, size)))))  # headers are where it hurts
    length = int(rng.integers(1, max(2, min(size - at, 64) + 1)))
    match int(rng.integers(8)):
        case 0:
            del found[int(rng.integers(size)) :]
        case 1:
            for _ in range(int(rng.integers(1, 9))):
                found[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
        case 2:
            found[at] ^= 1 << int(rng.integers(8))
        case 3:
            found[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        case 4:
            to = int(rng.integers(size))
            found[to : to + length] = found[at : at + length]
        case 5:
            form = choice(rng, ("H", "I", "Q"))
            number = choice(rng, HUGE) % 2 ** (8 * struct.calcsize(form))
            found[at : at + struct.calcsize(form)] = struct.pack(choice(rng, "<>") + form, number)
        case 6:
            del found[at : at + length]
        case 7:
            found[at:at] = bytes(found[at : at + length]) * int(rng.integers(1, 40))
    return bytes(found)


TAGS = (256, 257, 258, 259, 262, 277, 284, 317, 322, 339)


def damaged_tiff(data: bytes, rng: Random) -> bytes:
    """Change an entry of a table of tags, or where the next table stands."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    count_form, size_form, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    tables, at = [], struct.unpack_from(order + size_form, data, 8 if big else 4)[0]
    while at and at not in tables and at < len(data) - 8:
        tables.append(at)
        count = struct.unpack_from(order + count_form, data, at)[0]
        at = struct.unpack_from(order + size_form, data, at + struct.calcsize(count_form) + entry * count)[0]
    found, table = bytearray(data), choice(rng, tables)
    count = struct.unpack_from(order + count_form, data, table)[0]
    first, part = table + struct.calcsize(count_form), int(rng.integers(6))
    if part == 0:
        struct.pack_into(order + size_form, found, first + entry * count, choice(rng, (*tables, *EXTREMES)))
        return bytes(found)
    for _ in range(int(rng.integers(1, 3))):
        place = first + entry * int(rng.integers(count))
        match part:
            case 1:
                struct.pack_into(order + "H", found, place, choice(rng, TAGS))
            case 2:
                struct.pack_into(order + "H", found, place + 2, int(rng.integers(20)))
            case 3:
                struct.pack_into(order + size_form, found, place + 4, choice(rng, EXTREMES))
            case _:
                size = struct.calcsize(size_form)
                value = choice(rng, HUGE) % 2 ** (8 * size)
                struct.pack_into(order + size_form, found, place + 4 + size, value)
    return bytes(found)


def damaged_png(data: bytes, rng: Random) -> bytes:
    """Change chunks, and give them checksums that are right."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    k = int(rng.integers(len(chunks)))
    match int(rng.integers(5)):
        case 0:
            del chunks[k]
        case 1:
            chunks.insert(int(rng.integers(len(chunks))), chunks[k])
        case 2:
            chunks[k][1] = damaged(chunks[k][1], rng)
        case 3:
            head = bytearray(chunks[0][1])
            struct.pack_into(">I", head, 4 * int(rng.integers(2)), choice(rng, EXTREMES))
            chunks[0][1] = bytes(head)
        case 4:
            bomb = zlib.compress(bytes(10**7), 9)
            struct_head = struct.pack(">II", choice(rng, (10_000, 40_000)), choice(rng, (1000, 30_000)))
            chunks = [[b"IHDR", struct_head + chunks[0][1][8:]], [choice(rng, (b"IDAT", b"zTXt")), bomb], *chunks[1:]]
    body = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + body


def damaged_json(data: bytes, rng: Random) -> bytes:
    """Put something that is not expected into the tree, take something out, or nest it deeply."""
    if rng.random() < 0.05:
        deep = int(choice(rng, (50, 990, 100_000)))
        return b'{"a":' * deep + b"1" + b"}" * deep if rng.random() < 0.5 else b"[" * deep + b"]" * deep
    return json.dumps(changed(json.loads(data), rng)).encode()


def changed(tree: Any, rng: Random) -> Any:
    """Walk down a random way, and change what is found there."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = choice(rng, keys)
        if rng.random() < 0.15:
            copy = tree.copy()
            copy.pop(key)
            return copy
        if rng.random() < 0.1 and isinstance(tree, list):
            return tree + tree[:1] * int(choice(rng, (1, 5, 3000)))
        if rng.random() < 0.05 and isinstance(tree, dict):
            return {str(choice(rng, HOSTILE)) if one == key else one: value for one, value in tree.items()}
        below = changed(tree[key], rng)
        return tree | {key: below} if isinstance(tree, dict) else [*tree[:key], below, *tree[key + 1 :]]
    if isinstance(tree, int | float) and not isinstance(tree, bool) and rng.random() < 0.5:
        return choice(rng, (-tree, tree * 10**9, tree + 1, tree + 0.5, float(tree), str(tree), -1, 0))
    return choice(rng, HOSTILE)


def damaged_model(data: bytes, rng: Random) -> bytes:
    """Change the header of a safetensors file, or the contract in it."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.75:
        note = header["__metadata__"]
        if rng.random() < 0.1:
            note["format_version"] = str(choice(rng, HOSTILE))
        else:
            note["contract"] = damaged_json(note["contract"].encode(), rng).decode()
    else:
        header = changed(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


TOML_VALUES = (
    *("1", "-1", "0", "8", "4096", "10000000000", "0x" + "f" * 5000, "9" * 5000, "nan", "inf", "1e400", "true"),
    *('""', '"x"', '"none"', "'''a\nb'''", '"\\u001b"', "[]", "{}", "1979-05-27"),
    *("[" * 3000 + "]" * 3000, "{a=" * 2000 + "1" + "}" * 2000),
)
TOML_LINES = ("a." * 3000 + "b = 1", "[" + "a." * 3000 + "b]", "[[network]]", "base = 3", "x")


def damaged_toml(data: bytes, rng: Random) -> bytes:
    lines = data.decode().splitlines()
    k = int(rng.integers(len(lines)))
    match int(rng.integers(6)):
        case 0:
            del lines[k]
        case 1:
            lines.insert(int(rng.integers(len(lines))), lines[k])
        case 2:
            lines.insert(k, choice(rng, TOML_LINES))
        case _:
            settings = [k for k, line in enumerate(lines) if " = " in line]
            k = choice(rng, settings)
            lines[k] = lines[k].split(" = ")[0] + " = " + choice(rng, TOML_VALUES)
    return "\n".join(lines).encode()


NAMES = (
    *("../../x.roi", "/tmp/x.roi", "C:\\x.roi", "a\nb.roi", "\x1b[31m.roi", "x" * 5000 + ".roi"),
    *("__MACOSX/a.roi", ".roi"),
)


def damaged_zip(data: bytes, rng: Random) -> bytes:
    """Change members of a zip, whose checksums are right; their names; or make one a bomb."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = choice(rng, list(members))
    match int(rng.integers(5)):
        case 0 | 1:
            members[name] = damaged(members[name], rng)
        case 2:
            members[choice(rng, NAMES)] = members.pop(name)
        case 3:
            members[name] += bytes(choice(rng, (10**5, 10**5, 10**5, 10**7)))
        case 4:
            copies = int(choice(rng, (3, 3000))) if len(members[name]) < 10**4 else 3
            members |= {f"{k}.roi": members[name] for k in range(copies)}
    return zipped(members)


def damaged_array(data: bytes, rng: Random) -> bytes:
    """Change the header of a .npy."""
    length = struct.unpack_from("<H", data, 8)[0]
    head = data[10 : 10 + length].decode("latin1")
    old, new = choice(rng, (
        ("24", "1000000000"), ("31", "99999999999999999999"), ("24, 31", "24, -31"), ("False", "True"),
        ("'|u1'", "'|O'"),
        ("(24, 31)", "(" * 3000 + ")" * 3000), ("(24, 31)", "()"), ("(24, 31)", "(0, 31)"), ("'|u1'", "'<c16'"),
        ("'|u1'", "[('a', '<i4'), ('b', '|O')]"), ("'|u1'", "'<M8[s]'"), ("'|u1'", "'<U9999999'"), ("descr", "desk"),
    ))  # fmt: skip
    head = head.replace(old, new)
    return data[:8] + struct.pack("<H", len(head) % 2**16) + head.encode("latin1") + data[10 + length :]


KNOWING: dict[str, Callable[[bytes, Random], bytes]] = {
    ".tif": damaged_tiff, ".png": damaged_png, ".zip": damaged_zip, ".npy": damaged_array, ".geojson": damaged_json,
    ".safetensors": damaged_model, ".toml": damaged_toml, ".json": damaged_json, ".zarray": damaged_json,
    ".zattrs": damaged_json, ".zgroup": damaged_json,
}  # fmt: skip
PAST_KNOWING = (
    *(ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError),
    *(zlib.error, struct.error, zipfile.BadZipFile),
)
"""What comes of a second damage to a file that the first one made unreadable."""
LINKS = ("/dev/zero", "/etc/passwd", "..", "loop", "nowhere")


def mutate(files: Files, rng: Random) -> tuple[Files, dict[str, str]]:
    """Change some of the files; return them, and links in the place of others."""
    found, links = dict(files), dict[str, str]()
    for _ in range(int(choice(rng, (1, 1, 1, 2, 3)))):
        names = list(found)
        metadata = [name for name in names if name.endswith((".json", ".zarray", ".zattrs", ".jsonl"))]
        name = choice(rng, metadata if metadata and rng.random() < 0.6 else names)
        kind, chance = Path(name).suffix or Path(name).name, rng.random()
        if len(found) > 1 and chance < 0.05:
            del found[name]
        elif chance < 0.08:
            del found[name]
            links[name] = choice(rng, LINKS)
            return found, links
        elif kind in KNOWING and chance < 0.6:
            with contextlib.suppress(*PAST_KNOWING):
                found[name] = KNOWING[kind](found[name], rng)
        elif chance < 0.63:
            found[name] = choice(rng, list(found.values()))
        else:
            found[name] = damaged(found[name], rng)
    return found, links


def lay_out(files: Files, links: dict[str, str], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(Path(name).name if target == "loop" else target)


# Trying


class TooLong(BaseException):
    """The time of an input is over."""


@cache
def seeds_of(reader: str) -> list[Files]:
    return READERS[reader].seeds()


def prepare(reader: str, number: int, folder: Path) -> Path:
    """Write input `number` of a reader into a folder, and return the path to read."""
    rng = np.random.default_rng((SEED, list(READERS).index(reader), number))
    files = choice(rng, seeds_of(reader))
    entry = READERS[reader].entry_of(files)
    lay_out(*mutate(files, rng), folder)
    return folder / entry


def held() -> int:
    """The most memory that this process has held since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def forget() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return held()


def outcome(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """Read a path: "read", "refused", or "fault" and what it is."""
    before = forget()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read(path)
        found = "read", ""
    except UbendError as error:
        found = "refused", str(error)
        causes = [error.__cause__, error.__context__]
        if any(isinstance(cause, MemoryError) for cause in causes):
            found = "fault", f"memory ran out: {error}"
        elif "\n" in str(error).strip() or not str(error).isprintable():
            found = "fault", f"not one line: {error!r}"
    except TooLong:
        found = "fault", f"more than {SECONDS} s"
    except BaseException as error:  # noqa: BLE001
        found = "fault", f"{type(error).__name__}: {error}"[:300] + f" [{where(error)}]"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = held() - before
    return ("fault", f"took {grown / 2**20:.0f} MB: {found[1]}") if grown > GROWTH else found


def where(error: BaseException) -> str:
    """The last line of this project that an error went through, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "ubend" in Path(frame.filename).parts]
    return " … ".join(f"{Path(one.filename).name}:{one.lineno}" for one in (*ours[-1:], frames[-1]))


def too_long(*_: Any) -> None:
    raise TooLong


def limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))


def try_all(reader: str, numbers: Sequence[int], tell: Connection) -> None:
    """Read inputs one after the other, and tell of each, in a process of its own."""
    signal.signal(signal.SIGPROF, too_long)
    limit_memory()
    words = Path(tempfile.mkstemp()[1])
    os.dup2(os.open(words, os.O_WRONLY | os.O_APPEND), 2)
    said = 0
    for number in numbers:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = prepare(reader, number, Path(folder))
            found = outcome(READERS[reader].read, path)
        now = words.stat().st_size
        if now > said and found[0] != "fault":
            found = "fault", f"words on the screen: {words.read_bytes()[said:][:200]!r}"
        said = now
        tell.send((number, *found))
    words.unlink()


def outcomes(reader: str, numbers: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    """Give number, outcome and what was said of each input; a process that crashes or hangs is replaced."""
    seeds_of(reader)  # made once, and there in every process
    left = list(numbers)
    context = multiprocessing.get_context("fork")
    while left:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=try_all, args=(reader, left, theirs))
        process.start()
        theirs.close()
        try:
            while left and ours.poll(12 * SECONDS):
                found = ours.recv()
                left.remove(found[0])
                yield found
            if left:
                process.kill()
                yield left.pop(0), "fault", f"hangs: no answer in {12 * SECONDS} s"
        except EOFError:
            process.join()
            yield left.pop(0), "fault", f"crashed: exit code {process.exitcode}"
        process.join()


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def fuzz(readers: Sequence[str], scale: float = 1.0) -> dict[str, Tally]:
    found = {}
    for reader in readers:
        tally, start = Tally(), time.perf_counter()
        for number, what, said in outcomes(reader, range(max(1, round(scale * READERS[reader].inputs)))):
            tally.counts[what] += 1
            if what == "fault":
                tally.faults.append(f"{reader} {number}: {said}")
        tally.seconds = time.perf_counter() - start
        print(f"{reader}: {dict(tally.counts)}", *tally.faults, sep="\n", flush=True)
        found[reader] = tally
    return found


def section(found: dict[str, Tally]) -> str:
    rows = [
        [
            READERS[reader].what, READERS[reader].files, f"{sum(tally.counts.values()):,}",
            *(f"{tally.counts[what]:,}" for what in ("read", "refused", "fault")), f"{tally.seconds:.0f} s",
        ]
        for reader, tally in found.items()
    ]  # fmt: skip
    total = sum((tally.counts for tally in found.values()), Counter())
    seconds = sum(tally.seconds for tally in found.values())
    sums = [f"{sum(total.values()):,}", *(f"{total[what]:,}" for what in ("read", "refused", "fault"))]
    rows.append(["**all**", "", *(f"**{text}**" for text in sums), f"**{seconds:.0f} s**"])
    header = ("Reader", "Files", "Damaged inputs", "Read all the same", "Refused in one line", "Faults", "Time")
    return f"`python benchmarks/fuzz.py`, seed {SEED}. {machine()}\n\n{markdown_table(header, rows)}\n\n{EXPLANATION}"


EXPLANATION = f"""\
Small whole files of each kind are cut, bits flipped, bytes moved and repeated, numbers of headers made huge, tags,
chunks and members of archives removed, doubled and renamed (their checksums made right again), trees of JSON and TOML
filled with what does not belong there or nested 100,000 deep, files taken away or made links. A fault would be any
exception but ubend's own, a message of more than one line, a warning or words of a library on the screen, a crash, more
than {SECONDS} s of computing, more than {GROWTH // 2**30} GB held, or an attempt to take {MEMORY // 2**30} GB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=READERS, action="append", help="this one only; may be repeated")
    parser.add_argument("--number", type=int, help="this input only, with its traceback")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the inputs")
    asked = parser.parse_args()
    if asked.number is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = prepare(asked.reader[0], asked.number, Path(folder))
            limit_memory()
            print(READERS[asked.reader[0]].read(path))
        return
    found = fuzz(asked.reader or list(READERS), asked.scale)
    print(section(found))
    if asked.reader is None and asked.scale >= 1:
        write_section("fuzz", section(found), page=PAGE)
    sys.exit(any(tally.faults for tally in found.values()))


if __name__ == "__main__":
    main()

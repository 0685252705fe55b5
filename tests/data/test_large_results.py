"""Results of images larger than memory: written by several processes, shown by napari, never half of one."""

import errno
import json
import multiprocessing
import tracemalloc
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import tifffile
import zarr

from ubend.data.formats import is_disk_full
from ubend.data.large import open_large
from ubend.data.large_results import LargeResult, create_labels, create_probabilities
from ubend.data.ngff import Axis, multiscales_metadata
from ubend.errors import FileError, InputError

RNG = np.random.default_rng(2)
SIZE = {"t": 2, "c": 3, "z": 2, "y": 70, "x": 520}


def source(folder, axes="czyx", version="0.5", translation=0.0):
    """An OME-Zarr to be segmented, opened."""
    kinds = {"t": "time", "c": "channel"}
    named = tuple(
        Axis(axis, kinds.get(axis, "space"), "micrometer", 0.5, translation)
        if axis in "yx"
        else Axis(axis, kinds.get(axis, "space"))
        for axis in axes
    )
    path, zarr_format = folder / "image.zarr", {"0.4": 2, "0.5": 3}[version]
    zarr.create_group(path, zarr_format=zarr_format, attributes=multiscales_metadata(version, "image", [("0", named)]))
    zarr.create_array(path / "0", shape=[SIZE[axis] for axis in axes], dtype="uint8", zarr_format=zarr_format)
    return open_large(path)


def blocks(shape, chunk, many=2):
    step = chunk * many
    return [(row, column, step) for row in range(0, shape[-2], step) for column in range(0, shape[-1], step)]


def write_all(result, plane, pixels, chunk):
    for row, column, step in blocks(pixels.shape, chunk):
        result.write(plane, row, column, pixels[..., row : row + step, column : column + step])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "tczyx", "xyz"])
def test_labels_are_what_was_written(tmp_path, axes, version):
    image = source(tmp_path, axes, version)
    result = create_labels(tmp_path / "labels.zarr", image, chunk=64)
    pixels = {plane: RNG.integers(0, 2**32, (70, 520)).astype(np.uint32) for plane in image.planes}
    for plane in image.planes:
        write_all(result, plane, pixels[plane], 64)
        np.testing.assert_array_equal(result.plane(plane)[10:30, 480:], pixels[plane][10:30, 480:])
    result.finish()
    found = open_large(tmp_path / "labels.zarr/labels/ubend")
    assert (found.name, found.version, found.stack, found.channels) == ("labels_labels_ubend", version, image.stack, 1)
    assert [level.pixel_size for level in found.levels] == [0.5, 1.0, 2.0]
    for k in range(3):
        level = open_large(tmp_path / f"labels.zarr/labels/ubend/{k}")
        for plane in image.planes:
            np.testing.assert_array_equal(
                level.read(plane, slice(None), slice(None))[0], pixels[plane][:: 2**k, :: 2**k]
            )
            assert level.missing_chunks(plane) == 0


def test_planes_keep_the_order_of_a_tiff_and_axes_that_of_ome(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 2, 20, 30), np.uint8), ome=True, metadata={"axes": "ZTYX"})
    image = open_large(tmp_path / "a.tif")
    result = create_labels(tmp_path / "l.zarr", image)
    for number, plane in enumerate(image.planes):
        result.write(plane, 0, 0, np.full((20, 30), number))
    result.finish()
    assert (image.stack, result.axes) == ((("z", 3), ("t", 2)), "tzyx")
    np.testing.assert_array_equal(result.array[:, :, 0, 0], [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_metadata_of_labels_have_what_the_specification_demands(tmp_path, version):
    image = source(tmp_path, "tczyx", version, translation=3.0)
    result = create_labels(tmp_path / "r.zarr", image, name="cells", chunk=128)
    for plane in image.planes:
        write_all(result, plane, np.zeros((70, 520), int), 128)
    result.finish()
    names = {"0.4": (".zattrs", ".zgroup", ".zarray"), "0.5": ("zarr.json",) * 3}[version]

    def attributes(group):
        assert json.loads((group / names[1]).read_text())["zarr_format"] == {"0.4": 2, "0.5": 3}[version]
        found = json.loads((group / names[0]).read_text())
        return found if version == "0.4" else found["attributes"]

    def ome(group):
        found = attributes(group)
        if version == "0.4":
            return found
        assert found["ome"]["version"] == "0.5"
        return found["ome"]

    assert attributes(tmp_path / "r.zarr") == {}
    assert ome(tmp_path / "r.zarr/labels")["labels"] == ["cells"]
    label = ome(tmp_path / "r.zarr/labels/cells")
    assert label["image-label"]["source"]["image"] == "../../../image.zarr"
    assert (tmp_path / "r.zarr/labels/cells" / label["image-label"]["source"]["image"]).resolve() == image.folder
    [multiscale] = label["multiscales"]
    if version == "0.4":
        assert multiscale["version"] == label["image-label"]["version"] == "0.4"
    assert multiscale["name"] == "cells"
    space = {"type": "space"}
    assert multiscale["axes"] == [
        {"name": "t", "type": "time"},
        {"name": "z", **space},
        *({"name": name, **space, "unit": "micrometer"} for name in "yx"),
    ]
    assert [one["path"] for one in multiscale["datasets"]] == ["0", "1", "2"]
    for k, one in enumerate(multiscale["datasets"]):
        assert one["coordinateTransformations"] == [
            {"type": "scale", "scale": [1.0, 1.0, 0.5 * 2**k, 0.5 * 2**k]},
            {"type": "translation", "translation": [0.0, 0.0, 3.0, 3.0]},
        ]
        metadata = json.loads((tmp_path / "r.zarr/labels/cells" / one["path"] / names[2]).read_text())
        if version == "0.5":
            assert metadata["dimension_names"] == ["t", "z", "y", "x"]
            packer = metadata["codecs"][-1]["configuration"]
            assert (packer["cname"], packer["clevel"], packer["shuffle"]) == ("zstd", 3, "shuffle")
        else:
            assert metadata["dimension_separator"] == "/"
            packer = metadata["compressor"]
            assert (packer["cname"], packer["clevel"], packer["shuffle"]) == ("zstd", 3, 1)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_probabilities_are_an_image_whose_channels_are_classes(tmp_path, version):
    image = source(tmp_path, "tczyx", version)
    result = create_probabilities(tmp_path / "p.zarr", image, 2, chunk=64)
    pixels = RNG.random((2, 70, 520), np.float32)
    for plane in image.planes:
        write_all(result, plane, pixels * (1 + plane[0]), 64)
    assert result.plane((1, 0)).shape == (2, 70, 520)
    result.finish()
    found = open_large(tmp_path / "p.zarr")
    assert (found.axes, found.channels, found.dtype, found.pixel_size) == ("tczyx", 2, np.float32, 0.5)
    np.testing.assert_array_equal(found.read((1, 0), slice(None), slice(None)), pixels * 2)
    assert len(found.levels) == 3


def test_the_version_follows_the_image_unless_it_is_named(tmp_path):
    image = source(tmp_path, "yx", "0.4")
    assert create_labels(tmp_path / "a.zarr", image).array.metadata.zarr_format == 2
    assert create_labels(tmp_path / "b.zarr", image, version="0.5").array.metadata.zarr_format == 3
    with pytest.raises(InputError, match=r"in the versions 0\.4 and 0\.5, not 1"):
        create_labels(tmp_path / "c.zarr", image, version="1")


# Several processes


def write_some(result, numbers):
    for number in numbers:
        row, column, step = blocks((70, 520), 32)[number]
        height, width = min(step, 70 - row), min(step, 520 - column)
        result.write((0, 1), row, column, np.full((height, width), number + 1))


def test_two_processes_write_at_once(tmp_path):
    image = source(tmp_path, "tczyx")
    result = create_labels(tmp_path / "l.zarr", image, chunk=32)
    count = len(blocks((70, 520), 32))
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=call, args=(cloudpickle.dumps((write_some, result, range(k, count, 2))),))
        for k in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    found = LargeResult.open(tmp_path / "l.zarr").plane((0, 1))
    for number, (row, column, step) in enumerate(blocks((70, 520), 32)):
        assert (found[row : row + step, column : column + step] == number + 1).all()


def call(pickled):
    function, *arguments = cloudpickle.loads(pickled)
    function(*arguments)


# Finished and unfinished


def test_half_of_a_result_is_no_image(tmp_path):
    image = source(tmp_path, "yx")
    result = create_labels(tmp_path / "l.zarr", image, chunk=64)
    result.write((), 0, 0, np.ones((64, 520), int))
    for path in (tmp_path / "l.zarr", tmp_path / "l.zarr/labels/ubend"):
        with pytest.raises(FileError, match=r"without the metadata of a Zarr|is a folder"):
            open_large(path)
    assert result.missing_chunks() == 9
    with pytest.raises(FileError, match="9 of its chunks were never written"):
        result.finish()
    again = LargeResult.open(tmp_path / "l.zarr")
    again.write((), 64, 0, np.zeros((6, 520), int))
    again.finish()
    again.finish()  # as after an interruption
    found = open_large(tmp_path / "l.zarr/labels/ubend", pixel_size=1.0)
    assert found.read((), slice(None), slice(None)).sum() == 32 * 260


def test_the_pyramid_takes_little_memory(tmp_path):
    zarr.create_array(tmp_path / "big.zarr", shape=(2400, 2400), chunks=(800, 800), dtype="uint8")
    result = create_labels(tmp_path / "l.zarr", open_large(tmp_path / "big.zarr"), chunk=250)
    for row, column, step in blocks((2400, 2400), 250, many=4):
        result.write((), row, column, np.full((min(step, 2400 - row), min(step, 2400 - column)), 3, np.uint32))
    tracemalloc.start()
    result.finish()
    assert tracemalloc.get_traced_memory()[1] < 12e6  # the first level is 23 MB
    tracemalloc.stop()


# What is refused


@pytest.mark.parametrize(
    ("row", "column", "shape", "message"),
    [
        (32, 0, (64, 64), "whole chunks of 64 × 64"),
        (0, 0, (64, 60), "whole chunks"),
        (0, 512, (64, 64), "whole chunks"),
        (-64, 0, (64, 64), "whole chunks"),
        (0, 0, (1, 64, 64), "has the axes of a plane"),
    ],
)
def test_a_block_is_made_of_whole_chunks(tmp_path, row, column, shape, message):
    result = create_labels(tmp_path / "l.zarr", source(tmp_path, "yx"), chunk=64)
    with pytest.raises(InputError, match=message):
        result.write((), row, column, np.ones(shape, int))


def test_labels_that_do_not_fit_are_refused(tmp_path):
    result = create_labels(tmp_path / "l.zarr", source(tmp_path, "zyx"), dtype="uint16", chunk=1000)
    for block in (np.full((70, 520), 70000), np.full((70, 520), -1), np.full((70, 520), 0.5)):
        with pytest.raises(InputError, match="integers from 0 to 65535"):
            result.write((0,), 0, 0, block)
    with pytest.raises(InputError, match="no plane"):
        result.plane((2,))


def test_a_plane_is_read_and_written_like_an_array(tmp_path):
    plane = create_probabilities(tmp_path / "p.zarr", source(tmp_path, "zyx"), 2, chunk=64).plane((1,))
    plane[1, 5:9, 3] = 0.5
    plane[..., 0:2, 0:2] = 0.25
    assert (plane.shape, plane.dtype, plane[1, 5, 3], plane[:, 0, 0].tolist()) == (
        (2, 70, 520),
        np.float32,
        0.5,
        [0.25] * 2,
    )
    assert plane[0].shape == (70, 520)
    with pytest.raises(IndexError, match="3 axes"):
        plane[0, 0, 0, 0]


def test_the_image_is_never_written_to(tmp_path):
    image = source(tmp_path, "yx")
    before = sorted(tmp_path.rglob("*"))
    for path in (image.path, image.path / "labels.zarr", image.path / "0" / "x", tmp_path):
        with pytest.raises(FileError, match=r"results go into a Zarr of their own, say .*image_labels\.zarr"):
            create_labels(path, image, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_only_results_are_replaced_and_only_when_asked(tmp_path):
    image = source(tmp_path, "yx")
    for name in ("folder", "other.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious.txt").write_text("keep")
        with pytest.raises(FileError, match="is no result of ubend"):
            create_labels(tmp_path / name, image, overwrite=True)
        assert (tmp_path / name / "precious.txt").exists()
    create_labels(tmp_path / "l.zarr", image).write((), 0, 0, np.ones((70, 520), int))
    with pytest.raises(FileError, match=r"say --overwrite \(in Python overwrite=True\)"):
        create_labels(tmp_path / "l.zarr", image)
    again = create_labels(tmp_path / "l.zarr", image, chunk=64, overwrite=True)
    assert again.missing_chunks() == 18
    with pytest.raises(FileError, match="There is no folder"):
        create_labels(tmp_path / "none" / "l.zarr", image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int32"}, "unsigned integers"),
        ({"name": "a/b"}, "cannot be the name"),
        ({"name": ""}, "cannot be the name"),
        ({"chunk": 0}, "one row and column or more"),
    ],
)
def test_what_cannot_be_created(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        create_labels(tmp_path / "l.zarr", source(tmp_path, "yx"), **options)
    with pytest.raises(InputError, match="one class or more"):
        create_probabilities(tmp_path / "p.zarr", open_large(tmp_path / "image.zarr"), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["image.zarr"]


def test_other_arrays_are_not_opened_as_results(tmp_path):
    source(tmp_path, "yx")
    with pytest.raises(FileError, match="was not written by ubend"):
        LargeResult.open(tmp_path / "image.zarr", None)
    with pytest.raises(FileError, match="There is no Zarr array"):
        LargeResult.open(tmp_path / "image.zarr")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_one_line_and_spares_what_was_written(tmp_path, monkeypatch, code):
    result = create_labels(tmp_path / "l.zarr", source(tmp_path, "yx"), chunk=64)
    result.write((), 0, 0, np.full((64, 64), 5))

    def refuse(self, *args, **kwargs):
        raise OSError(code, "No room")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)  # what a chunk is put in its place with
        with pytest.raises(FileError, match=r"^Cannot write .*l\.zarr.*\.$") as caught:
            result.write((), 0, 0, np.full((64, 64), 6))  # one chunk: Zarr leaves the others of a block at work
    assert is_disk_full(caught.value) == (code == errno.ENOSPC)
    assert (result.plane(())[:64, :64] == 5).all()
    assert not list((tmp_path / "l.zarr").rglob("*.partial"))


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    image = source(tmp_path, "yx")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(FileError, match="is not yours to write into"):
        create_labels(tmp_path / "l.zarr", image)

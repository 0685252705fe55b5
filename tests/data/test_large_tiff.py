"""TIFFs written tile by tile are read as what they were; how regions of TIFFs are read stands in test_large.py."""

import errno
import tracemalloc

import numpy as np
import pytest
import tifffile

from ubend.data.formats import is_disk_full, read_images, read_labels, read_probabilities
from ubend.data.large import open_large
from ubend.data.large_results import create_labels
from ubend.data.large_tiff import write_large_tiff
from ubend.errors import FileError, InputError

RNG = np.random.default_rng(3)


class Lazy:
    """An array that is only read by regions, and says the largest."""

    def __init__(self, pixels):
        self.shape, self.dtype, self._pixels, self.largest = pixels.shape, pixels.dtype, pixels, 0

    def __getitem__(self, index):
        region = self._pixels[index]
        self.largest = max(self.largest, region.size)
        return region


@pytest.mark.parametrize(
    ("maximum", "dtype", "shape"),
    [
        (1, "uint8", (530, 1030)),
        (255, "uint8", (3, 5)),
        (256, "uint16", (3, 5)),
        (65535, "uint16", (512, 512)),
        (65536, "uint32", (3, 5)),
    ],
)
def test_labels_come_back_in_the_smallest_dtype(tmp_path, maximum, dtype, shape):
    labels = RNG.integers(0, maximum, shape, endpoint=True).astype(np.uint64)
    write_large_tiff(tmp_path / "a.ome.tif", labels, maximum=maximum, pixel_size=0.325)
    [picture] = read_labels(tmp_path / "a.ome.tif")
    assert (picture.pixels.dtype, picture.pixel_size, picture.name) == (np.dtype(dtype), 0.325, "a")
    np.testing.assert_array_equal(picture.pixels, labels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.ome.tif"), labels)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        page = tif.pages[0]
        assert tif.is_ome
        assert not tif.is_bigtiff
        assert (page.tilelength, page.tilewidth, page.compression.name) == (512, 512, "ADOBE_DEFLATE")
    image = open_large(tmp_path / "a.ome.tif")
    assert (image.axes, image.pixel_size) == ("yx", 0.325)
    np.testing.assert_array_equal(image.read((), slice(None), slice(None))[0], labels)


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_come_back(tmp_path, classes):
    probabilities = RNG.random((classes, 20, 530), np.float32)
    write_large_tiff(tmp_path / "p.tif", probabilities, pixel_size=2.0)
    np.testing.assert_array_equal(read_probabilities(tmp_path / "p.tif"), probabilities)
    assert read_images(tmp_path / "p.tif")[0].pixel_size == 2.0
    assert open_large(tmp_path / "p.tif").channels == classes


@pytest.mark.parametrize(
    ("stack", "axes"),
    [
        ((), "zyx"),
        ([("t", 6)], "tyx"),
        ([("t", 2), ("z", 3)], "tzyx"),
        ([("z", 3), ("t", 2)], "ztyx"),
        ([("?", 6)], "zyx"),
    ],
)
def test_stacks_of_labels(tmp_path, stack, axes):
    planes = [RNG.integers(0, 9, (70, 600)) for _ in range(6)]
    write_large_tiff(tmp_path / "s.tif", planes, maximum=9, stack=stack)
    image, pictures = open_large(tmp_path / "s.tif"), read_images(tmp_path / "s.tif")
    assert image.axes == axes
    for plane, place, picture in zip(planes, image.planes, pictures, strict=True):
        np.testing.assert_array_equal(picture.pixels, plane)
        np.testing.assert_array_equal(image.read(place, slice(None), slice(None))[0], plane)


def test_a_stack_of_probabilities(tmp_path):
    planes = [RNG.random((2, 70, 600), np.float32) for _ in range(3)]
    write_large_tiff(tmp_path / "s.tif", planes, stack=[("t", 3)])
    pictures = read_images(tmp_path / "s.tif")
    np.testing.assert_array_equal([picture.pixels.transpose(2, 0, 1) for picture in pictures], planes)


def test_labels_from_zarr_to_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 300, 200), np.uint8), metadata={"axes": "TYX"})
    image = open_large(tmp_path / "a.tif")
    result = create_labels(tmp_path / "l.zarr", image, chunk=128)
    labels = RNG.integers(0, 300, (2, 300, 200))
    for plane in image.planes:
        for row in (0, 256):
            result.write(plane, row, 0, labels[plane][row : row + 256])
    planes = [result.plane(plane) for plane in image.planes]
    write_large_tiff(tmp_path / "l.tif", planes, maximum=int(labels.max()), stack=image.stack)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "l.tif"), labels)
    assert open_large(tmp_path / "l.tif").axes == "tyx"


def test_only_a_few_tiles_are_in_memory(tmp_path):
    lazy = Lazy(np.zeros((2000, 5000), np.uint8))
    write_large_tiff(tmp_path / "warm.tif", np.zeros((600, 600), int), maximum=1)
    tracemalloc.start()
    write_large_tiff(tmp_path / "a.tif", lazy, maximum=70000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lazy.largest == 512 * 4096
    assert peak < 20e6  # as uint32 the whole is 40 MB


def test_more_than_4_gb_make_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("ubend.data.large_tiff._LARGEST_CLASSIC", 1000)
    write_large_tiff(tmp_path / "a.tif", np.eye(40, dtype=int), maximum=1)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    np.testing.assert_array_equal(read_images(tmp_path / "a.tif")[0].pixels, np.eye(40))


@pytest.mark.parametrize(
    ("planes", "options", "message"),
    [
        (np.zeros((5, 5)), {}, "have the axes"),
        (np.zeros((2, 5, 5)), {"maximum": 3}, "have the axes"),
        (np.zeros((0, 5)), {"maximum": 3}, "have the axes"),
        ([np.zeros((5, 5)), np.zeros((5, 6))], {"maximum": 3}, "have one shape"),
        ([], {"maximum": 3}, "have one shape"),
        (np.full((5, 5), 4), {"maximum": 3}, "from 4 to 4, not from 0 to 3"),
        (np.full((5, 5), -1), {"maximum": 3}, "not from 0 to 3"),
        (np.zeros((5, 5)), {"maximum": 2**32}, "from 0 to 4294967295"),
        ([np.zeros((5, 5))] * 3, {"maximum": 3, "stack": [("t", 2)]}, "is not 3 planes"),
        ([np.zeros((5, 5))] * 2, {"maximum": 3, "stack": [("t", 2), ("t", 1)]}, "has the axes t and z"),
        (np.zeros((5, 5)), {"maximum": 3, "pixel_size": -1.0}, "pixel size"),
    ],
)
def test_what_cannot_be_written(tmp_path, planes, options, message):
    with pytest.raises(InputError, match=message):
        write_large_tiff(tmp_path / "a.tif", planes, **options)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    write_large_tiff(tmp_path / "a.tif", np.ones((5, 5), int), maximum=1)
    with pytest.raises(FileError, match=r"say --overwrite \(in Python overwrite=True\)"):
        write_large_tiff(tmp_path / "a.tif", np.zeros((5, 5), int), maximum=1)
    with pytest.raises(InputError, match=r"as \.tif, not as \.png"):
        write_large_tiff(tmp_path / "a.png", np.zeros((5, 5), int), maximum=1)

    def refuse(path, *args, **kwargs):
        path.write_bytes(b"II*")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ubend.data.large_tiff.tifffile.imwrite", refuse)
    with pytest.raises(FileError, match="no space left") as caught:
        write_large_tiff(tmp_path / "a.tif", np.zeros((5, 5), int), maximum=1, overwrite=True)
    assert is_disk_full(caught.value)
    assert read_images(tmp_path / "a.tif")[0].pixels.all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]

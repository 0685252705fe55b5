"""Images larger than memory: regions of every kind of file are what the whole is."""

import json
import pickle
import tracemalloc
from io import BytesIO

import cloudpickle
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from zarr.codecs import BloscCodec

from ubend.data.formats import read_images
from ubend.data.large import open_large
from ubend.errors import FileError, InputError

RNG = np.random.default_rng(1)
FORMATS = {"0.4": 2, "0.5": 3}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write_group(path, zarr_format, attributes):
    zarr.create_group(path, zarr_format=zarr_format, attributes=attributes)


def ome_zarr(path, pixels, axes, *, version="0.5", size=0.5, levels=1, chunks=None, unit="micrometer"):
    """Write an OME-Zarr as other programs do, with zarr alone; every level is every second pixel of the one before."""
    named = [{"name": axis, "type": KINDS[axis]} | ({"unit": unit} if axis in "yx" else {}) for axis in axes]
    datasets = []
    for k in range(levels):
        step = tuple(slice(None, None, 2**k if axis in "yx" else None) for axis in axes)
        scale = [size * 2**k if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    image = {"axes": named, "datasets": datasets}
    attributes = {"multiscales": [{"version": "0.4", **image}]}
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    write_group(path, FORMATS[version], attributes)
    for k in range(levels):
        step = tuple(slice(None, None, 2**k if axis in "yx" else None) for axis in axes)
        options = {"dimension_names": list(axes)} if version == "0.5" else {}
        zarr.create_array(
            path / str(k), data=pixels[step], chunks=chunks or "auto", zarr_format=FORMATS[version], **options
        )
    return path


def random(shape, dtype="uint8"):
    return RNG.integers(0, 200, shape).astype(dtype)


def whole(image, plane=()):
    return image.read(plane, slice(None), slice(None))


# OME-Zarr


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tyx", "czyx", "tcyx", "tczyx", "xyc", "yxc", "cyxz", "xzyct"])
def test_axes_in_any_order(tmp_path, version, axes):
    length = {"t": 2, "c": 3, "z": 4, "y": 13, "x": 17}
    pixels = random([length[axis] for axis in axes], "uint16")
    image = open_large(ome_zarr(tmp_path / "a.ome.zarr", pixels, axes, version=version))
    others = [axis for axis in axes if axis in "tz"]
    assert (image.name, image.axes, image.version, image.zarr_format) == ("a", axes, version, FORMATS[version])
    assert (image.rows, image.columns, image.channels) == (13, 17, 3 if "c" in axes else 1)
    assert image.stack == tuple((axis, length[axis]) for axis in others)
    assert image.pixel_size == 0.5
    assert image.dtype == np.uint16
    assert list(image.planes) == list(np.ndindex(*(length[axis] for axis in others)))
    order = [axes.index(axis) for axis in (*others, *("c" if "c" in axes else ""), "y", "x")]
    expected = pixels.transpose(order).reshape(*(length[axis] for axis in others), image.channels, 13, 17)
    for plane in image.planes:
        np.testing.assert_array_equal(whole(image, plane), expected[plane])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("asked", "level"), [(None, 0), (0.1, 0), (0.5, 0), (0.7, 0), (0.72, 1), (1.0, 1), (1.5, 2), (9.0, 2)]
)
def test_the_level_with_the_nearest_pixel_size(tmp_path, version, asked, level):
    pixels = random((40, 64))
    image = open_large(ome_zarr(tmp_path / "a.zarr", pixels, "yx", version=version, levels=3), pixel_size=asked)
    assert (image.level, image.pixel_size) == (level, 0.5 * 2**level)
    assert [(one.path, one.pixel_size, one.length("x")) for one in image.levels] == [
        ("0", 0.5, 64),
        ("1", 1.0, 32),
        ("2", 2.0, 16),
    ]
    np.testing.assert_array_equal(whole(image)[0], pixels[:: 2**level, :: 2**level])


def test_without_a_known_pixel_size_the_largest_level_is_read(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", random((40, 64)), "yx", levels=2, unit="cubit")
    image = open_large(path, pixel_size=1.0)
    assert (image.level, image.pixel_size) == (0, None)


def test_a_level_can_be_named(tmp_path):
    pixels = random((2, 40, 64))
    path = ome_zarr(tmp_path / "big.zarr", pixels, "cyx", levels=2)
    image = open_large(path / "1", pixel_size=0.5)
    assert (image.name, image.level, image.channels, image.pixel_size, image.folder) == ("big_1", 1, 2, 1.0, path)
    np.testing.assert_array_equal(whole(image), pixels[:, ::2, ::2])


def test_a_level_is_read_where_others_are_lost(tmp_path):
    path = ome_zarr(tmp_path / "big.zarr", random((40, 64)), "yx", levels=2)
    (path / "0").rename(tmp_path / "elsewhere")
    with pytest.raises(FileError, match=r"its level 0 is missing; name a level that is there, for example .*/1\.$"):
        open_large(path)
    image = open_large(path / "1")
    assert (image.rows, image.level, len(image.levels)) == (20, 0, 1)
    assert pickle.loads(pickle.dumps(image)) == image


def test_the_layout_of_bioformats2raw(tmp_path):
    pixels = random((1, 1, 1, 9, 8))
    write_group(tmp_path / "a.zarr", 2, {"bioformats2raw.layout": 3})
    write_group(tmp_path / "a.zarr" / "OME", 2, {"series": ["0"]})
    ome_zarr(tmp_path / "a.zarr" / "0", pixels, "tczyx", version="0.4")
    image = open_large(tmp_path / "a.zarr")
    assert (image.name, image.planes) == ("a", ((0, 0),))
    np.testing.assert_array_equal(whole(image, (0, 0)), pixels[0, :, 0])
    ome_zarr(tmp_path / "a.zarr" / "1", pixels, "tczyx", version="0.4")
    with pytest.raises(FileError, match=r"holds 2 images; name one of them, for example .*a.zarr/0\.$"):
        open_large(tmp_path / "a.zarr")
    assert open_large(tmp_path / "a.zarr" / "1").name == "a_1"


def test_one_axis_of_another_meaning_numbers_planes(tmp_path):
    pixels = random((3, 9, 8))
    write_group(
        tmp_path / "a.zarr",
        3,
        {
            "ome": {
                "version": "0.5",
                "multiscales": [
                    {"axes": [{"name": name} for name in ("angle", "y", "x")], "datasets": [{"path": "0"}]}
                ],
            }
        },
    )
    zarr.create_array(tmp_path / "a.zarr/0", data=pixels)
    image = open_large(tmp_path / "a.zarr")
    assert (image.axes, image.stack, image.channels) == ("?yx", (("?", 3),), 1)
    np.testing.assert_array_equal(whole(image, (2,))[0], pixels[2])


# Arrays without OME metadata


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9, 8), "yx"),
        ((7, 9, 8), "zyx"),
        ((9, 8, 3), "yxc"),
        ((3, 9, 8), "zyx"),
        ((2, 3, 9, 8), "czyx"),
        ((5, 9, 8, 4), "zyxc"),
        ((1, 2, 3, 9, 8), "tczyx"),
    ],
)
def test_a_plain_array(tmp_path, zarr_format, shape, axes):
    zarr.create_array(tmp_path / "a.zarr", data=random(shape), zarr_format=zarr_format)
    image = open_large(tmp_path / "a.zarr")
    assert (image.axes, image.name, image.version, image.pixel_size) == (axes, "a", None, None)


def test_a_plain_array_may_name_its_axes(tmp_path):
    zarr.create_array(tmp_path / "3", data=random((3, 9, 8)), dimension_names=["c", "y", "x"])
    zarr.create_array(
        tmp_path / "2", data=random((3, 9, 8)), zarr_format=2, attributes={"_ARRAY_DIMENSIONS": list("tyx")}
    )
    zarr.create_array(tmp_path / "1", data=random((3, 9, 8)), dimension_names=["dim_0", None, "dim_2"])
    assert [open_large(tmp_path / name).axes for name in "321"] == ["cyx", "tyx", "zyx"]


def test_both_byte_orders_are_read_in_that_of_the_machine(tmp_path):
    pixels = random((9, 8), ">u2")
    zarr.create_array(tmp_path / "a.zarr", data=pixels, zarr_format=2)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=">")
    for name in ("a.zarr", "a.tif"):
        image = open_large(tmp_path / name)
        assert image.dtype.isnative
        assert whole(image).dtype.isnative
        np.testing.assert_array_equal(whole(image)[0], pixels)


# TIFF

LAYOUTS = {
    "plain": {},
    "big endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 7},
    "packed strips": {"rowsperstrip": 7, "compression": "zlib"},
    "one packed strip": {"compression": "zlib"},
    "tiles": {"tile": (16, 32)},
    "packed tiles": {"tile": (16, 32), "compression": "zlib", "predictor": True},
    "BigTIFF": {"bigtiff": True, "tile": (16, 16), "compression": "zlib"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiffs")


KINDS_OF_TIFF = [
    ("YX", {}),
    ("ZYX", {}),
    ("CYX", {}),
    ("TZCYX", {"ome": True}),
    ("ZTYX", {"ome": True}),
    ("YXS", {}),
    ("SYX", {"planarconfig": "separate"}),
    ("ZYXS", {}),
]


@pytest.mark.parametrize(
    ("layout", "axes", "kind"),
    [(layout, *kind) for layout in LAYOUTS for kind in KINDS_OF_TIFF]
    + [("plain", "ZYX", {"imagej": True}), ("one packed strip", "TZCYX", {"imagej": True})],
)
def test_a_tiff_is_what_read_images_reads(tmp_path, layout, axes, kind):
    length = {"T": 2, "Z": 3, "C": 2, "Y": 45, "X": 50, "S": 3}
    pixels = random([length[axis] for axis in axes], "uint8" if "S" in axes else "uint16")
    options = {"photometric": "rgb" if "S" in axes else "minisblack", "metadata": {"axes": axes}, **kind}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options, **LAYOUTS[layout])
    image, pictures = open_large(tmp_path / "a.tif"), read_images(tmp_path / "a.tif")
    assert image.axes == axes.lower()
    assert len(image.planes) == len(pictures)
    for plane, picture in zip(image.planes, pictures, strict=True):
        expected = np.moveaxis(np.atleast_3d(picture.pixels), -1, 0)
        np.testing.assert_array_equal(whole(image, plane), expected)
        region = image.read(plane, slice(10, 31), slice(15, 40))
        np.testing.assert_array_equal(region, expected[:, 10:31, 15:40])
    assert image.missing_chunks(image.planes[-1]) == 0


def test_pages_apart_in_the_file(tmp_path):
    pixels = random((3, 20, 30))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pixels:
            writer.write(page, contiguous=False, metadata=None, description="x" * 100)
    image = open_large(tmp_path / "a.tif")
    np.testing.assert_array_equal([whole(image, plane)[0] for plane in image.planes], pixels)


@pytest.mark.parametrize("ome", [True, False])
def test_the_pixel_size_of_a_tiff(tmp_path, ome):
    options = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    if ome:
        options = {"metadata": {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}}
    tifffile.imwrite(tmp_path / "a.tif", random((9, 8)), ome=ome, **options)
    assert open_large(tmp_path / "a.tif").pixel_size == 0.5 == read_images(tmp_path / "a.tif")[0].pixel_size


def test_the_levels_of_a_tiff(tmp_path):
    pixels = random((64, 96))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        options = {"tile": (16, 16), "compression": "zlib"}
        writer.write(pixels, subifds=2, metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options)
        for step in (2, 4):
            writer.write(pixels[::step, ::step], subfiletype=1, **options)
    for asked, level in ((None, 0), (0.5, 0), (1.2, 1), (2.0, 2)):
        image = open_large(tmp_path / "a.ome.tif", pixel_size=asked)
        assert (image.name, image.level, len(image.levels), image.pixel_size) == ("a", level, 3, 0.5 * 2**level)
        np.testing.assert_array_equal(whole(image)[0], pixels[:: 2**level, :: 2**level])
    assert cloudpickle.loads(cloudpickle.dumps(image)).level == 2


def test_several_images_in_a_tiff_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(random((9, 8)))
        writer.write(random((5, 8)))
    with pytest.raises(FileError, match=r"holds 2 images \(9 × 8, 5 × 8\); save each"):
        open_large(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
def test_an_alpha_channel_counts_as_in_read_images(tmp_path, options):
    pixels = random((40, 50, 4))
    for name, alpha in (("same", 255), ("varies", pixels[..., 3])):
        pixels[..., 3] = alpha
        stored = pixels.transpose(2, 0, 1) if "planarconfig" in options else pixels
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, photometric="rgb", extrasamples=["unassalpha"], **options)
        image, [picture] = open_large(tmp_path / f"{name}.tif"), read_images(tmp_path / f"{name}.tif")
        assert image.channels == picture.pixels.shape[-1]
        np.testing.assert_array_equal(whole(image), picture.pixels.transpose(2, 0, 1))


def test_an_alpha_channel_that_changes_once_is_no_guess(tmp_path):
    pixels = random((16 * 30, 16 * 30, 4))
    pixels[..., 3] = 255
    pixels[20, 20, 3] = 7
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16))
    image = open_large(tmp_path / "a.tif")
    assert image.channels == 3
    assert image.read((), slice(100, 200), slice(0, 50)).shape == (3, 100, 50)
    with pytest.raises(FileError, match="alpha channel that changes"):
        image.read((), slice(10, 30), slice(0, 50))


def lzw(values):
    """Pack with libtiff's LZW."""
    buffer = BytesIO()
    rows = values.view(np.uint8).reshape(values.shape[0], -1)
    Image.fromarray(rows).save(buffer, format="TIFF", compression="tiff_lzw", strip_size=2**30)
    with tifffile.TiffFile(BytesIO(buffer.getvalue())) as tif:
        [at], [count] = tif.pages[0].dataoffsets, tif.pages[0].databytecounts
    return buffer.getvalue()[at : at + count]


@pytest.mark.parametrize(
    ("dtype", "predictor"), [("uint8", False), ("uint8", True), ("<u2", False), ("<u2", True), ("float32", False)]
)
@pytest.mark.parametrize("tiled", [False, True])
def test_lzw_needs_no_other_package(tmp_path, dtype, predictor, tiled):
    """tifffile cannot pack LZW here: the file is written as if packed, with the tags changed afterwards."""
    pixels = random((45, 64), dtype)
    size = (16, 32) if tiled else (16, 64)
    pieces, stored = [], pixels.copy()
    for top in range(0, 45, size[0]):
        for left in range(0, 64, size[1]):
            piece = stored[top : top + size[0], left : left + size[1]]
            if tiled:
                piece = np.pad(piece, ((0, size[0] - piece.shape[0]), (0, 0)))
            if predictor:
                piece = np.diff(piece, axis=1, prepend=np.zeros((len(piece), 1), piece.dtype))
            pieces.append(lzw(np.ascontiguousarray(piece)))
    path = tmp_path / "a.tif"
    layout = {"tile": size} if tiled else {"rowsperstrip": size[0]}
    tifffile.imwrite(
        path,
        iter(pieces),
        shape=pixels.shape,
        dtype=dtype,
        compression="zlib",
        predictor=predictor,
        metadata=None,
        **layout,
    )
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["Compression"].overwrite(5, dtype="H")
    image = open_large(path)
    np.testing.assert_array_equal(whole(image)[0], pixels)
    np.testing.assert_array_equal(image.read((), slice(20, 45), slice(30, 50))[0], pixels[20:45, 30:50])


def test_tiles_left_out_are_counted_and_read_as_zero(tmp_path):
    pixels = random((64, 64)) + 1
    tiles = [pixels[i : i + 32, j : j + 32] for i in (0, 32) for j in (0, 32)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        iter([tiles[0], None, None, tiles[3]]),
        shape=(64, 64),
        dtype="uint8",
        tile=(32, 32),
        metadata=None,
    )
    image = open_large(tmp_path / "a.tif")
    assert image.missing_chunks(()) == 2
    assert whole(image)[0, :32, 32:].max() == 0
    np.testing.assert_array_equal(whole(image)[0, 32:, 32:], pixels[32:, 32:])


# Regions of any kind


def zarr_with_odd_chunks(folder):
    return ome_zarr(folder / "odd.zarr", random((2, 3, 61, 45), "int16"), "czyx", chunks=(1, 2, 16, 11))


def sharded(folder):
    zarr.create_array(folder / "sharded.zarr", data=random((61, 45)), chunks=(16, 20), shards=(32, 40))
    return folder / "sharded.zarr"


def tiff_of_tiles(folder):
    tifffile.imwrite(folder / "t.tif", random((2, 61, 45, 3)), photometric="rgb", tile=(16, 16), compression="zlib")
    return folder / "t.tif"


def tiff_of_rows(folder):
    tifffile.imwrite(folder / "r.tif", random((3, 61, 45)), photometric="minisblack")
    return folder / "r.tif"


@pytest.fixture(scope="module", params=[zarr_with_odd_chunks, sharded, tiff_of_tiles, tiff_of_rows])
def image(request, folder):
    return open_large(request.param(folder))


SLICES = st.builds(slice, st.none() | st.integers(-70, 70), st.none() | st.integers(-70, 70))


@settings(max_examples=15)
@given(rows=SLICES, columns=SLICES, number=st.integers(0, 5))
def test_a_region_is_that_part_of_the_whole(image, rows, columns, number):
    plane = image.planes[number % len(image.planes)]
    found = image.read(plane, rows, columns)
    np.testing.assert_array_equal(found, whole(image, plane)[:, rows, columns])
    assert found.dtype == image.dtype


@settings(max_examples=12)
@given(step=st.integers(1, 70), small=st.booleans())
def test_strided_is_strided(image, step, small):
    with pytest.MonkeyPatch.context() as patch:
        if small:  # blocks of a chunk, as of a huge image
            patch.setattr("ubend.data.large._BLOCK_BYTES", 1)
            patch.setattr("ubend.data.large._BLOCK_COLUMNS", 1)
        found = image.read_strided(image.planes[-1], step)
    np.testing.assert_array_equal(found, whole(image, image.planes[-1])[:, ::step, ::step])


def test_it_travels_to_other_processes(image):
    again = cloudpickle.loads(cloudpickle.dumps(image))
    assert again == image
    np.testing.assert_array_equal(whole(again, image.planes[-1]), whole(image, image.planes[-1]))


def test_planes_and_steps_that_are_none(image):
    with pytest.raises(InputError, match=r"has no plane \(99,\)"):
        image.read((99,), slice(None), slice(None))
    with pytest.raises(InputError, match="step 1"):
        image.read(image.planes[0], slice(0, 9, 2), slice(None))
    with pytest.raises(InputError, match="1 or more"):
        image.read_strided(image.planes[0], 0)


@pytest.mark.parametrize("kind", ["zarr", "tiff tiles", "tiff rows"])
def test_a_region_takes_the_memory_of_a_region(tmp_path, kind):
    shape = (3000, 4000)  # 12 MB
    if kind == "zarr":
        path = tmp_path / "a.zarr"
        zarr.create_array(path, shape=shape, chunks=(512, 512), dtype="uint8")[:600, :600] = 7
    else:
        path = tmp_path / "a.tif"
        tile = {"tile": (512, 512), "compression": "zlib"} if kind == "tiff tiles" else {}
        tifffile.imwrite(path, np.full(shape, 7, np.uint8), metadata=None, **tile)
    image = open_large(path)
    image.read((), slice(0, 1), slice(0, 1))  # what is imported once
    tracemalloc.start()
    assert image.read((), slice(500, 700), slice(100, 400))[0, 0, 0] == 7
    assert image.missing_chunks(()) == (44 if kind == "zarr" else 0)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


# Damage


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_missing_chunks_are_counted_in_each_plane(tmp_path, version):
    pixels = random((2, 3, 40, 40)) + 1
    path = ome_zarr(tmp_path / "a.zarr", pixels, "czyx", version=version, chunks=(1, 1, 16, 16))
    image = open_large(path)
    assert [image.missing_chunks(plane) for plane in image.planes] == [0, 0, 0]
    array = zarr.open_array(path / "0", mode="r")
    for place in ((0, 1, 0, 0), (1, 1, 2, 2), (1, 2, 0, 1)):
        (path / "0" / array.metadata.encode_chunk_key(place)).unlink()
    image = open_large(path)
    assert [image.missing_chunks(plane) for plane in image.planes] == [0, 2, 1]
    assert whole(image, (1,))[0, :16, :16].max() == 0


@pytest.mark.parametrize("codec", ["blosc", "zstd", "gzip", None])
@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_damaged_chunk_is_named(tmp_path, codec, damage):
    packed = None if codec is None else {"name": codec, "configuration": {}}
    if codec == "gzip":
        packed["configuration"] = {"level": 1}
    array = zarr.create_array(tmp_path / "a.zarr", shape=(40, 40), chunks=(16, 16), dtype="uint16", compressors=packed)
    array[:] = random((40, 40), "uint16")
    chunk = tmp_path / "a.zarr/c/1/0"
    chunk.write_bytes(b"" if damage == "empty" else chunk.read_bytes()[:-20])
    image = open_large(tmp_path / "a.zarr")
    image.read((), slice(0, 16), slice(0, 40))
    with pytest.raises(FileError, match=r"its chunk c/1/0 is damaged \(.+\); copy it again"):
        whole(image)


def test_a_damaged_shard_is_named(tmp_path):
    image = open_large(sharded(tmp_path))
    shard = tmp_path / "sharded.zarr/c/0/1"
    shard.write_bytes(shard.read_bytes()[:30])
    with pytest.raises(FileError, match=r"its chunk c/0/1 is damaged"):
        whole(image)


def test_a_damaged_tile_is_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random((2, 64, 64)), tile=(32, 32), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[1].dataoffsets[2]
    data = bytearray(path.read_bytes())
    data[at : at + 20] = bytes(20)
    path.write_bytes(data)
    image = open_large(path)
    image.read((1,), slice(0, 32), slice(None))
    with pytest.raises(FileError, match="its tile 2 of page 1 is damaged"):
        whole(image, (1,))


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}, {"ome": True}])
def test_a_truncated_tiff_is_refused(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", random((5, 60, 50)), photometric="minisblack", **options)
    data = (tmp_path / "a.tif").read_bytes()
    for length in (5, len(data) // 3, len(data) - 1000):
        (tmp_path / "a.tif").write_bytes(data[:length])
        with pytest.raises(FileError, match="is truncated or no TIFF"):
            open_large(tmp_path / "a.tif")


# What is no image


def folder_without_metadata(path):
    path.mkdir()
    ome_zarr(path / "inside.zarr", random((9, 8)), "yx")


def group_without_image(path):
    write_group(path, 3, {})
    zarr.create_array(path / "pixels", data=random((9, 8)))


def empty_group(path):
    write_group(path, 2, {})


def labels(path):
    write_group(path, 3, {"ome": {"version": "0.5", "labels": ["nuclei"]}})
    ome_zarr(path / "nuclei", random((9, 8)), "yx")


def table(path):
    write_group(path, 2, {"encoding-type": "anndata"})


def plate(path):
    write_group(path, 2, {"plate": {"wells": [{"path": "A/1"}]}})
    write_group(path / "A", 2, {})
    write_group(path / "A/1", 2, {"well": {}})
    ome_zarr(path / "A/1/0", random((9, 8)), "yx", version="0.4")


def two_unknown_axes(path):
    write_group(
        path,
        3,
        {"ome": {"multiscales": [{"axes": [{"name": n} for n in ("a", "b", "y", "x")], "datasets": [{"path": "0"}]}]}},
    )
    zarr.create_array(path / "0", data=random((2, 2, 9, 8)))


def two_time_axes(path):
    write_group(
        path,
        3,
        {
            "ome": {
                "multiscales": [{"axes": [{"name": n} for n in ("t", "time", "y", "x")], "datasets": [{"path": "0"}]}]
            }
        },
    )
    zarr.create_array(path / "0", data=random((2, 2, 9, 8)))


def axes_of_another_image(path):
    ome_zarr(path, random((3, 9, 8)), "cyx")
    zarr.create_array(path / "0", data=random((9, 8)), overwrite=True)


def six_axes(path):
    zarr.create_array(path, data=random((1, 1, 1, 1, 9, 8)))


def complex_numbers(path):
    zarr.create_array(path, data=random((9, 8)).astype("complex64"))


def no_pixels(path):
    zarr.create_array(path, shape=(0, 8), dtype="uint8", chunks=(1, 1))


def unknown_codec(path):
    zarr.create_array(path, data=random((9, 8)))
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["codecs"][-1] = {"name": "jpegxl", "configuration": {}}
    (path / "zarr.json").write_text(json.dumps(metadata))


def unknown_codec_of_format_2(path):
    zarr.create_array(path, data=random((9, 8)), zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    metadata["compressor"] = {"id": "imagecodecs_jpeg2k"}
    (path / ".zarray").write_text(json.dumps(metadata))


def broken_metadata(path):
    write_group(path, 3, {})
    (path / "zarr.json").write_text("{")


def broken_multiscales(path):
    write_group(path, 3, {"ome": {"multiscales": [{"axes": []}]}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            folder_without_metadata,
            r"folder without the metadata of a Zarr .*; name an image in it, for example .*/inside.zarr",
        ),
        (group_without_image, r"is a Zarr group without an image; name an image in it, for example .*/pixels"),
        (empty_group, r"is an empty Zarr group; name the folder of an OME-Zarr image, or a TIFF"),
        (labels, r"holds 1 images; name one of them, for example .*/nuclei"),
        (table, r"is a table \(anndata\), not an image"),
        (plate, r"is a plate of wells, not one image; name an image in it, for example .*/A/1/0"),
        (two_unknown_axes, r"has the axes a, b, y, x; beside t, c, z, y and x there may be one other, not a, b"),
        (two_time_axes, r"has the axes t, time, y, x; an image has"),
        (axes_of_another_image, r"it names 3 axes, and its level 0 has 2"),
        (six_axes, r"has 6 axes; an image has 2 to 5"),
        (complex_numbers, r"holds complex64; .*: save its absolute value"),
        (no_pixels, r"it holds no pixels"),
        (unknown_codec, r"its compression is not known here \(.*jpegxl.*\); save it with blosc, zstd or gzip"),
        (unknown_codec_of_format_2, r"its compression is not known here \(.*jpeg2k.*\)"),
        (broken_metadata, r"is truncated or no metadata of a Zarr"),
        (broken_multiscales, r"is truncated or no OME-Zarr"),
    ],
)
def test_a_zarr_that_is_no_image(tmp_path, make, message):
    make(tmp_path / "a.zarr")
    with pytest.raises(FileError, match=message) as caught:
        open_large(tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)


def test_other_files_and_folders(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "b.tif").mkdir()
    tifffile.imwrite(tmp_path / "c.tif", random((9, 8)).astype("complex64"))
    for name, message in (
        ("a.png", "is neither TIFF nor Zarr"),
        ("b.tif", "is a folder, and no Zarr"),
        ("c.tif", "holds complex64"),
        ("c.tiff", "There is no file .*c.tif$|There is no file .*; the nearest name in .* is c.tif"),
    ):
        with pytest.raises(FileError, match=message):
            open_large(tmp_path / name)


@pytest.mark.parametrize("compression", [7, 34712])
def test_a_tiff_packed_in_an_unknown_way(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", random((9, 8)), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[0].tags["Compression"].overwrite(compression, dtype="H")
    with pytest.raises(FileError, match="needs one more package"):
        open_large(tmp_path / "a.tif")


def test_names_of_channels(tmp_path):
    pixels = random((2, 20, 30))
    path = ome_zarr(tmp_path / "a.ome.zarr", pixels, "cyx", version="0.4")
    attributes = json.loads((path / ".zattrs").read_text())
    for labels, expected in ((("DAPI", "GFP"), ("DAPI", "GFP")), (("DAPI",), ())):
        channels = [{"label": label} for label in labels]
        (path / ".zattrs").write_text(json.dumps(attributes | {"omero": {"channels": channels}}))
        assert open_large(path).channel_names == expected
    assert pickle.loads(pickle.dumps(open_large(path))).channel_names == ()
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}})
    assert open_large(tmp_path / "a.ome.tif").channel_names == ("DAPI", "GFP")


# hostile files


def test_a_blosc_chunk_that_says_another_length_is_refused_before_it_is_unpacked(tmp_path):
    """The C library would read beyond the end of it."""
    for zarr_format, codec in ((2, numcodecs.Blosc("zstd")), (3, BloscCodec(cname="zstd"))):
        for shards in (None, (20, 20)) if zarr_format == 3 else (None,):
            path = tmp_path / f"{zarr_format}{bool(shards)}.zarr"
            zarr.create_array(
                path, data=np.arange(400, dtype=np.uint8).reshape(20, 20) % 7, chunks=(10, 10), shards=shards,
                compressors=codec, zarr_format=zarr_format,
            )  # fmt: skip
            whole = open_large(path).read((), slice(None), slice(None))
            assert (whole[0] == np.arange(400).reshape(20, 20) % 256 % 7).all()
            chunk = next(one for one in (path / "c" / "0" / "0", path / "0.0") if one.is_file())
            content = bytearray(chunk.read_bytes())
            at = content.index(b"\x02\x01") + 12
            content[at : at + 4] = (10**9).to_bytes(4, "little")
            chunk.write_bytes(content)
            with pytest.raises(FileError, match=r"is damaged \(it is cut, or its header damaged\)"):
                open_large(path).read((), slice(None), slice(None))


def test_an_image_of_parts_in_another_folder_is_refused(tmp_path):
    (tmp_path / "here").mkdir()
    tifffile.imwrite(tmp_path / "other.tif", np.ones((5, 6), np.uint8))
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="6" SizeY="5" SizeC="1" SizeZ="2" SizeT="1">'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="../other.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(tmp_path / "here" / "a.ome.tif", np.zeros((5, 6), np.uint8), description=xml, metadata=None)
    for read in (open_large, read_images):
        with pytest.raises(FileError, match="it names a file of another folder as its own"):
            read(tmp_path / "here" / "a.ome.tif")

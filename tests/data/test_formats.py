"""Images in and out: each kind of file that a microscope or a colleague may hand over."""

import errno
import io
import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ubend.data import formats
from ubend.errors import FileError, InputError

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
STACK = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
COLOURS = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def only(path):
    [picture] = formats.read_images(path)
    return picture


# TIFF


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f2", "f4", "f8", "?"])
def test_a_tiff_keeps_its_dtype(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(dtype), photometric="minisblack")
    picture = only(tmp_path / "a.tif")
    assert picture.pixels.dtype == dtype
    np.testing.assert_array_equal(picture.pixels, GRAY.astype(dtype))
    assert (picture.name, picture.path, picture.pixel_size) == ("a", tmp_path / "a.tif", None)


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"bigtiff": True, "compression": "zlib"},
        {"compression": "zlib", "tile": (16, 16)},
        {"byteorder": ">"},
    ],
)
def test_a_stack_is_one_picture_a_page(tmp_path, options):
    tifffile.imwrite(tmp_path / "s.tif", STACK, photometric="minisblack", **options)
    pictures = formats.read_images(tmp_path / "s.tif")
    assert [picture.name for picture in pictures] == [f"s_000{k}" for k in range(5)]
    np.testing.assert_array_equal(np.stack([picture.pixels for picture in pictures]), STACK)


def test_pages_of_different_sizes_are_all_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        writer.write(GRAY, photometric="minisblack")
        writer.write(GRAY[:2], photometric="minisblack")
    assert [picture.pixels.shape for picture in formats.read_images(tmp_path / "s.tif")] == [(3, 4), (2, 4)]


def test_the_channels_of_a_hyperstack_come_last(tmp_path):
    stack = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)
    tifffile.imwrite(tmp_path / "h.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    pictures = formats.read_images(tmp_path / "h.tif")
    assert [picture.pixels.shape for picture in pictures] == [(4, 5, 3)] * 2
    np.testing.assert_array_equal(pictures[1].pixels[..., 2], stack[1, 2])


@pytest.mark.parametrize("planar", [False, True])
def test_rgb_comes_last_however_it_is_stored(tmp_path, planar):
    pixels = np.moveaxis(COLOURS, -1, 0) if planar else COLOURS
    tifffile.imwrite(
        tmp_path / "c.tif", pixels, photometric="rgb", planarconfig="separate" if planar else "contig", metadata=None
    )
    np.testing.assert_array_equal(only(tmp_path / "c.tif").pixels, COLOURS)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_constant_alpha_is_dropped_and_another_kept(tmp_path, suffix):
    opaque = np.dstack([COLOURS, np.full((3, 4), 255, np.uint8)])
    holed = opaque.copy()
    holed[0, 0, 3] = 0
    for name, pixels in (("opaque", opaque), ("holed", holed)):
        if suffix == ".tif":
            tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb")
        else:
            Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(only(tmp_path / f"opaque{suffix}").pixels, COLOURS)
    np.testing.assert_array_equal(only(tmp_path / f"holed{suffix}").pixels, holed)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_common_compressions_need_no_other_package(tmp_path, compression):
    pages = [Image.fromarray(page) for page in STACK]
    pages[0].save(tmp_path / "z.tif", compression=compression, save_all=True, append_images=pages[1:])
    pictures = formats.read_images(tmp_path / "z.tif")
    np.testing.assert_array_equal(np.stack([picture.pixels for picture in pictures]), STACK)


def test_a_compression_that_nothing_here_undoes_is_named(tmp_path, monkeypatch):
    Image.fromarray(GRAY).save(tmp_path / "z.tif", compression="tiff_lzw")
    monkeypatch.setattr(formats, "_decoded_by_pillow", lambda path, series: None)

    def refuse(self):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", refuse)
    with pytest.raises(FileError, match=r"compression LZW needs one more package \(pip install imagecodecs\); or save"):
        formats.read_images(tmp_path / "z.tif")


def test_a_thumbnail_is_no_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "t.tif") as writer:
        writer.write(GRAY, photometric="minisblack")
        writer.write(GRAY[::2, ::2], photometric="minisblack", subfiletype=1)
    assert only(tmp_path / "t.tif").pixels.shape == (3, 4)


def test_nan_is_read_as_it_is(tmp_path):
    tifffile.imwrite(tmp_path / "n.tif", np.array([[np.nan, 1]], np.float32), photometric="minisblack")
    assert np.isnan(only(tmp_path / "n.tif").pixels[0, 0])


# Pixel size


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (25400, 25400), "resolutionunit": "INCH"}, 1.0),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, None),
        ({"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}, None),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, 0.25),
        ({"imagej": True, "resolution": (0.5, 0.5), "metadata": {"unit": "nm"}}, 0.002),
        ({"imagej": True, "resolution": (0.01, 0.01), "metadata": {"unit": "um"}}, 100.0),
        ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3}}, 0.3),
        ({"ome": True, "metadata": {"PhysicalSizeX": 4, "PhysicalSizeXUnit": "nm"}}, None),
        (
            {
                "ome": True,
                "metadata": {f"PhysicalSize{a}": 4 for a in "XY"} | {f"PhysicalSize{a}Unit": "nm" for a in "XY"},
            },
            0.004,
        ),
    ],
)
def test_the_pixel_size_where_the_file_knows_it(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "p.tif", GRAY, photometric="minisblack", **options)
    assert only(tmp_path / "p.tif").pixel_size == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("name", ["l.tif", "l.png"])
@pytest.mark.parametrize("size", [0.004, 0.1625, 3.0])
def test_a_written_pixel_size_is_read_again(tmp_path, name, size):
    formats.write_labels(tmp_path / name, GRAY, pixel_size=size)
    assert only(tmp_path / name).pixel_size == pytest.approx(size, rel=1e-4)


def test_a_written_pixel_size_of_a_satellite_is_read_again(tmp_path):
    formats.write_labels(tmp_path / "l.tif", GRAY, pixel_size=1e7)
    assert only(tmp_path / "l.tif").pixel_size == pytest.approx(1e7)


# PNG, JPEG, BMP


@pytest.mark.parametrize("pixels", [GRAY, GRAY.astype(np.uint16) * 5000, GRAY % 2 == 1, COLOURS], ids=str)
def test_a_png_keeps_its_pixels(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = only(tmp_path / "a.png")
    assert picture.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("pixels", [GRAY, COLOURS], ids=["gray", "colours"])
def test_a_bmp_keeps_its_pixels(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(only(tmp_path / "a.bmp").pixels, pixels)


def test_a_palette_is_colours_in_images_and_its_index_in_labels(tmp_path):
    picture = Image.fromarray(GRAY % 3)
    picture = picture.convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "voc.png")
    [labels] = formats.read_labels(tmp_path / "voc.png")
    np.testing.assert_array_equal(labels.pixels, GRAY % 3)
    assert only(tmp_path / "voc.png").pixels[0, 1].tolist() == [128, 0, 0]


def test_a_gray_palette_is_gray(tmp_path):
    picture = Image.fromarray(GRAY % 2).convert("P")
    picture.putpalette([10, 10, 10, 200, 200, 200])
    picture.save(tmp_path / "gray.png")
    np.testing.assert_array_equal(only(tmp_path / "gray.png").pixels, np.where(GRAY % 2, 200, 10))


def small_png(depth, colour, row_bytes):
    """Write a PNG of one row and two pixels by hand, for what Pillow does not write."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row_bytes)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_the_labels_of_a_4_bit_png_are_not_spread_over_255(tmp_path):
    (tmp_path / "four.png").write_bytes(small_png(4, 0, b"\x1f"))
    assert formats.read_labels(tmp_path / "four.png")[0].pixels.tolist() == [[1, 15]]


def test_a_16_bit_colour_png_is_refused_rather_than_cut_to_8_bits(tmp_path):
    (tmp_path / "deep.png").write_bytes(small_png(16, 2, bytes(12)))
    with pytest.raises(FileError, match="16-bit colour PNG would be cut to 8 bits here; save it as TIFF"):
        formats.read_images(tmp_path / "deep.png")


def test_a_jpeg_is_turned_as_its_exif_says(tmp_path):
    picture = Image.fromarray(np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 8, 0), 8, 1))
    exif = picture.getexif()
    exif[274] = 6  # turn clockwise by 90° to see it upright
    picture.save(tmp_path / "e.jpg", exif=exif, quality=100)
    pixels = only(tmp_path / "e.jpg").pixels
    assert pixels.shape == (16, 8)
    assert pixels[0].max() < 10 < 245 < pixels[-1].min()


def test_the_content_decides_and_not_the_ending(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.tif", format="PNG")
    np.testing.assert_array_equal(only(tmp_path / "a.tif").pixels, GRAY)


# Labels


def test_three_equal_channels_are_one_label(tmp_path):
    Image.fromarray(np.dstack([GRAY] * 3)).save(tmp_path / "l.png")
    np.testing.assert_array_equal(formats.read_labels(tmp_path / "l.png")[0].pixels, GRAY)


def test_bool_and_whole_floats_are_integers_and_negative_ones_stay(tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", GRAY > 5, photometric="minisblack")
    tifffile.imwrite(tmp_path / "f.tif", np.array([[-1.0, 3.0]]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "i.tif", np.array([[-1, 3]], np.int16), photometric="minisblack")
    assert formats.read_labels(tmp_path / "b.tif")[0].pixels.tolist() == (GRAY > 5).astype(int).tolist()
    for name in ("f.tif", "i.tif"):
        pixels = formats.read_labels(tmp_path / name)[0].pixels
        assert np.issubdtype(pixels.dtype, np.integer)
        assert pixels.tolist() == [[-1, 3]]


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e20])
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, value):
    tifffile.imwrite(tmp_path / "f.tif", np.array([[1.0, value]]), photometric="minisblack")
    with pytest.raises(FileError, match=r"f\.tif holds no labels: they are whole numbers, and this is float64, 1 × 2"):
        formats.read_labels(tmp_path / "f.tif")


def test_coloured_labels_are_refused_with_a_way_out(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "l.png")
    with pytest.raises(FileError, match=r"holds colours \(RGB\).* as 8-bit or 16-bit gray or as a palette image"):
        formats.read_labels(tmp_path / "l.png")


def test_labels_with_slices_as_channels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "l.tif", STACK, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(FileError, match="has 5 channels; labels have one"):
        formats.read_labels(tmp_path / "l.tif")


def test_jpeg_labels_are_taken_only_where_jpeg_did_no_harm(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "flat.jpg")
    assert formats.read_labels(tmp_path / "flat.jpg")[0].pixels.max() == 0
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(tmp_path / "eye.jpg")
    with pytest.raises(FileError, match="is a JPEG, which changes label values"):
        formats.read_labels(tmp_path / "eye.jpg")


# Damage


def test_a_missing_file_brings_the_nearest_name(tmp_path):
    formats.write_labels(tmp_path / "cell_01.tif", GRAY)
    with pytest.raises(FileError, match=r"no file .*cell_1\.tif; the nearest name in .* is cell_01\.tif"):
        formats.read_images(tmp_path / "cell_1.tif")
    with pytest.raises(FileError, match=r"its parent folder .* does not exist either"):
        formats.read_images(tmp_path / "no" / "cell.tif")
    with pytest.raises(FileError, match="is a folder; name one image file"):
        formats.read_images(tmp_path)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"])
def test_what_is_no_image_is_said_in_one_line(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FileError, match=r"Cannot read .*a\.tif: it is truncated or no TIFF \(") as caught:
        formats.read_images(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


def encoded(kind):
    buffer = io.BytesIO()
    if kind in ("PNG", "BMP", "JPEG"):
        Image.fromarray(COLOURS).save(buffer, kind)
    else:
        options = {
            "plain": {"metadata": None},
            "deflate": {"compression": "zlib"},
            "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        }
        options |= {"ome": {"ome": True}, "tiled": {"tile": (16, 16)}, "bigtiff": {"bigtiff": True}}
        tifffile.imwrite(buffer, STACK, photometric="minisblack", **options[kind])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["plain", "deflate", "imagej", "ome", "tiled", "bigtiff", "PNG", "BMP", "JPEG"])
def test_a_cut_file_is_never_read_as_less_than_it_was(tmp_path, kind):
    path, whole = tmp_path / "a.tif", encoded(kind)
    path.write_bytes(whole)
    expected = [picture.pixels for picture in formats.read_images(path)]
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        try:
            pages = [picture.pixels for picture in formats.read_images(path)]
        except FileError:
            refused += 1
        else:
            np.testing.assert_array_equal(pages, expected)
    assert refused > 40


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["deflate", "tiled", "PNG"]), data=st.data())
def test_damage_is_a_file_error_or_harmless(tmp_path_factory, kind, data):
    damaged = bytearray(encoded(kind))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    path.write_bytes(bytes(damaged))
    try:
        formats.read_images(path)
    except FileError as error:
        assert "\n" not in str(error)  # noqa: PT017 - reading it is just as well


def test_a_header_that_promises_too_much_does_not_fill_the_memory(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="minisblack", compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        tif.pages[0].tags["ImageLength"].overwrite(2_000_000_000)
        tif.pages[0].tags["RowsPerStrip"].overwrite(2_000_000_000)
    with pytest.raises(FileError, match="promises more pixels than a file of its length can hold"):
        formats.read_images(tmp_path / "a.tif")


def test_the_screen_stays_silent(tmp_path, capfd, caplog):
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("tifffile").handlers)
    (tmp_path / "a.tif").write_bytes(encoded("plain")[:300])
    with pytest.raises(FileError):
        formats.read_images(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


# Folders


def test_image_files_are_counted_as_a_person_does(tmp_path):
    for name in ("b2.PNG", "b10.png", "a.tif", "B1.tiff", ".a.tif", "._a.tif", "Thumbs.db", "notes.txt", "a.czi"):
        (tmp_path / name).touch()
    (tmp_path / "folder.tif").mkdir()
    assert [path.name for path in formats.image_files(tmp_path)] == ["a.tif", "B1.tiff", "b2.PNG", "b10.png"]


def test_a_missing_folder_brings_the_nearest_name(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(FileError, match=r"no folder .*image; the nearest name in .* is images"):
        formats.image_files(tmp_path / "image")
    (tmp_path / "a.tif").touch()
    with pytest.raises(FileError, match="is a file; name a folder"):
        formats.image_files(tmp_path / "a.tif")


# Writing


@settings(max_examples=40, deadline=None)
@given(
    labels=hnp.arrays(
        np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 2**32 - 1)
    )
)
def test_labels_come_back_as_they_were(tmp_path_factory, labels):
    path = tmp_path_factory.getbasetemp() / "labels.tif"
    formats.write_labels(path, labels, overwrite=True)
    [picture] = formats.read_labels(path)
    assert picture.pixels.dtype == np.min_scalar_type(int(labels.max()))
    np.testing.assert_array_equal(picture.pixels, labels)


@pytest.mark.parametrize(
    ("highest", "dtype"), [(255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32"), (2**32 - 1, "uint32")]
)
def test_labels_take_the_smallest_type(tmp_path, highest, dtype):
    formats.write_labels(tmp_path / "l.tif", np.array([[0, highest]]))
    assert only(tmp_path / "l.tif").pixels.dtype == dtype


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("l.tif", [[-1, 0]], "numbers from 0 to 4294967295; this image holds -1"),
        ("l.tif", [[2**32]], "this image holds 4294967296"),
        ("l.tif", [[0.5]], "Labels are integers; this array is float64"),
        ("l.tif", [1, 2], r"axes \(rows, columns\); this array has the shape \(2,\)"),
        ("l.png", [[65536]], r"PNG holds labels up to 65535, these go to 65536; write l\.tif instead"),
        ("l.jpg", [[1]], r"written as \.tif or \.png, not as \.jpg"),
    ],
)
def test_labels_that_cannot_be_written(tmp_path, name, labels, message):
    with pytest.raises(InputError, match=message):
        formats.write_labels(tmp_path / name, labels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_a_pixel_size_is_above_0(tmp_path, size):
    with pytest.raises(InputError, match="micrometres per pixel, above 0"):
        formats.write_labels(tmp_path / "l.tif", GRAY, pixel_size=size)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5])
def test_probabilities_come_back_as_they_were(tmp_path, classes):
    values = np.linspace(0, 1, classes * 12, dtype=np.float32).reshape(classes, 3, 4)
    formats.write_probabilities(tmp_path / "p.tif", values, pixel_size=0.5)
    again = formats.read_probabilities(tmp_path / "p.tif")
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, values)
    assert only(tmp_path / "p.tif").pixel_size == 0.5


def test_what_is_no_probability(tmp_path):
    with pytest.raises(InputError, match=r"axes \(classes, rows, columns\); these have the shape \(3, 4\)"):
        formats.write_probabilities(tmp_path / "p.tif", np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"written as \.tif, not as \.png"):
        formats.write_probabilities(tmp_path / "p.png", np.zeros((1, 3, 4)))
    formats.write_probabilities(tmp_path / "two.tif", np.full((2, 3, 4), 2.0))
    formats.write_labels(tmp_path / "labels.tif", GRAY)
    for name in ("two.tif", "labels.tif"):
        with pytest.raises(FileError, match=r"holds no probabilities: they are floats in 0\.\.1"):
            formats.read_probabilities(tmp_path / name)
    tifffile.imwrite(tmp_path / "stack.tif", STACK, photometric="minisblack")
    with pytest.raises(FileError, match="holds 5 images; probabilities are one image with a channel for each class"):
        formats.read_probabilities(tmp_path / "stack.tif")


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / "l.tif"
    formats.write_labels(path, GRAY)
    with pytest.raises(FileError, match=r"exists already: say --overwrite \(in Python overwrite=True\) to replace it"):
        formats.write_labels(path, GRAY * 0)
    np.testing.assert_array_equal(only(path).pixels, GRAY)
    formats.write_labels(path, GRAY * 0, overwrite=True)
    assert only(path).pixels.max() == 0


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "l.txt"

    def slow(part):
        path.write_text("theirs")
        part.write_text("ours")

    with pytest.raises(FileError, match="exists already"):
        formats.write_atomically(path, slow)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("l.txt", "theirs")]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left on the disk; free some, or choose another folder"),
        (errno.EDQUOT, "no space left on the disk"),
        (errno.EFBIG, "no space left, its disk or quota takes no file so large"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_full_disk_leaves_what_was_there(tmp_path, number, message):
    path = tmp_path / "l.txt"
    path.write_text("before")

    def half(part):
        part.write_text("half")
        raise OSError(number, "Input/output error")

    with pytest.raises(FileError, match=message):
        formats.write_atomically(path, half, overwrite=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("l.txt", "before")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, InputError])
def test_other_errors_pass_and_leave_nothing(tmp_path, error):
    def fail(part):
        part.write_text("half")
        raise error("mine")

    with pytest.raises(error, match="mine"):
        formats.write_atomically(tmp_path / "l.txt", fail)
    assert list(tmp_path.iterdir()) == []


def test_places_where_no_file_can_be(tmp_path):
    with pytest.raises(FileError, match="no folder"):
        formats.write_atomically(tmp_path / "no" / "l.txt", lambda part: part.touch())
    with pytest.raises(FileError, match="it is a folder"):
        formats.write_atomically(tmp_path, lambda part: part.touch(), overwrite=True)


def write_a_and_b(folder, **choices):
    with formats.written_together(folder, **choices) as parts:
        for name in ("a.txt", "b.txt"):
            formats.write_atomically(parts / name, lambda part: part.write_text("new"))


def test_files_are_written_together(tmp_path):
    (tmp_path / "b.txt").write_text("mine")
    with pytest.raises(FileError, match=r"b\.txt exists already"):
        write_a_and_b(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b.txt": "mine"}
    write_a_and_b(tmp_path, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "new", "b.txt": "new"}


def test_an_error_among_files_written_together_says_their_place_to_be(tmp_path, monkeypatch):
    def full(part, _text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FileError, match="no space left on the disk") as caught:
        write_a_and_b(tmp_path)
    assert f"Cannot write {tmp_path / 'a.txt'}: " in str(caught.value)
    assert formats.is_disk_full(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_files_written_together_of_which_one_cannot_be_moved(tmp_path, monkeypatch):
    before = Path.replace

    def not_b(part, target):
        if target == tmp_path / "b.txt":
            raise OSError(errno.EACCES, "Permission denied")
        return before(part, target)

    monkeypatch.setattr(Path, "replace", not_b)
    with pytest.raises(FileError, match=r"Cannot write .*b\.txt: Permission denied"):
        write_a_and_b(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_has_the_rights_of_any_other(tmp_path):
    (tmp_path / "plain.txt").touch()
    formats.write_labels(tmp_path / "l.tif", GRAY)
    assert (tmp_path / "l.tif").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_the_same_labels_make_the_same_bytes(tmp_path):
    for name in ("a.tif", "b.tif"):
        formats.write_labels(tmp_path / name, GRAY, pixel_size=0.5)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


# arrays of NumPy


@pytest.mark.parametrize("array", [GRAY, GRAY.astype(float), GRAY > 3, STACK.astype(np.int64)])
def test_labels_of_an_array(tmp_path, array):
    np.save(tmp_path / "a_seg.npy", array)
    pictures = formats.read_labels(tmp_path / "a_seg.npy")
    pages = array[None] if array.ndim == 2 else array
    assert [picture.pixels.tolist() for picture in pictures] == pages.astype(int).tolist()
    assert pictures[0].name == ("a_seg" if array.ndim == 2 else "a_seg_0000")


@pytest.mark.parametrize("thing", [{"masks": GRAY}, np.array([GRAY, "x"], dtype=object)])
def test_python_objects_are_never_read(tmp_path, thing):
    np.save(tmp_path / "a_seg.npy", thing, allow_pickle=True)
    with pytest.raises(FileError, match="holds Python objects, as Cellpose writes them, and reading those could run"):
        formats.read_labels(tmp_path / "a_seg.npy")


def test_a_pickle_by_another_name_is_not_read(tmp_path):
    (tmp_path / "a_seg.npy").write_bytes(b"\x80\x04}q\x00.")
    with pytest.raises(FileError, match="holds Python objects"):
        formats.read_labels(tmp_path / "a_seg.npy")


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2, 2, 2)), np.zeros((0, 3))])
def test_an_array_that_is_no_label_image(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FileError, match="holds no label image"):
        formats.read_labels(tmp_path / "a.npy")


def test_an_array_that_is_cut(tmp_path):
    np.save(tmp_path / "a.npy", GRAY)
    content = (tmp_path / "a.npy").read_bytes()
    for length in range(0, len(content), 5):
        (tmp_path / "a.npy").write_bytes(content[:length])
        with pytest.raises(FileError, match=r"truncated or no array|holds Python objects"):
            formats.read_labels(tmp_path / "a.npy")


# pictures for people


@pytest.mark.parametrize("height", [1, 2, 3])
def test_a_picture_is_written_band_by_band(tmp_path, height):
    bands = (COLOURS[first : first + height] for first in range(0, 3, height))
    formats.write_picture(tmp_path / "a.png", bands)
    assert (np.array(Image.open(tmp_path / "a.png")) == COLOURS).all()
    with pytest.raises(FileError, match="exists already"):
        formats.write_picture(tmp_path / "a.png", [COLOURS])


# more than 65,535 objects


def test_labels_that_need_32_bits_are_read_as_they_were(tmp_path):
    labels = np.arange(70_000).reshape(200, 350)
    formats.write_labels(tmp_path / "a.tif", labels)
    [picture] = formats.read_labels(tmp_path / "a.tif")
    assert picture.pixels.dtype == np.uint32
    assert (picture.pixels == labels).all()
    with pytest.raises(InputError, match=r"PNG holds labels up to 65535, these go to 69999; write a\.tif instead"):
        formats.write_labels(tmp_path / "a.png", labels)


@pytest.mark.skipif(not (DATA / "ovule3d").is_dir(), reason="the real images are not beside this repository")
def test_a_real_stack():
    pictures = formats.read_images(next((DATA / "ovule3d" / "images").glob("*.tif")))
    assert len(pictures) == 32
    assert {picture.pixels.shape for picture in pictures} == {(128, 128)}


def test_names_of_channels(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    named = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "two.ome.tif", pixels, metadata=named, photometric="minisblack")
    tifffile.imwrite(tmp_path / "none.ome.tif", pixels, metadata={"axes": "CYX"}, photometric="minisblack")
    colours = {"axes": "YXS", "Channel": {"Name": "RGB"}}
    tifffile.imwrite(tmp_path / "rgb.ome.tif", np.zeros((3, 4, 3), np.uint8), metadata=colours, photometric="rgb")
    found = {path.name: formats.read_images(path)[0].channel_names for path in tmp_path.iterdir()}
    assert found == {"two.ome.tif": ("DAPI", "GFP"), "none.ome.tif": (), "rgb.ome.tif": ()}


def test_pages_of_a_stack_have_the_names_of_its_channels(tmp_path):
    named = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "s.ome.tif", np.zeros((3, 2, 5, 6), np.uint8), metadata=named)
    assert [page.channel_names for page in formats.read_images(tmp_path / "s.ome.tif")] == [("DAPI", "GFP")] * 3

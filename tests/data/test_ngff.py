"""The metadata of OME-Zarr: what is read, what is written, and that the two agree."""

import pytest

from ubend.data.ngff import Axis, Level, in_order, multiscales_metadata, parse_multiscales

COLUMNS = Axis("x", "space", "micrometer", 0.5)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_written_is_read(version):
    axes = (Axis("t", "time", "second", 3.0), Axis("c", "channel"), Axis("y", "space", "micrometer", 0.5, 7.0), COLUMNS)
    lower = (*axes[:2], Axis("y", "space", "micrometer", 1.0, 7.0), Axis("x", "space", "micrometer", 1.0))
    found = parse_multiscales(multiscales_metadata(version, "cells", [("0", axes), ("low/1", lower)]))
    assert (found.version, found.datasets) == (version, (("0", axes), ("low/1", lower)))


def test_transformations_of_all_levels_come_after_those_of_one():
    image = {
        "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [2, 2]},
                    {"type": "translation", "translation": [1, 0]},
                ],
            }
        ],
        "coordinateTransformations": [{"type": "identity"}, {"type": "scale", "scale": [10, 100]}],
    }
    [(_, (rows, columns))] = parse_multiscales({"multiscales": [image]}).datasets
    assert (rows.scale, rows.translation, columns.scale, columns.translation) == (20, 10, 200, 0)


def test_names_alone_are_the_axes_of_version_3():
    image = {"version": "0.3", "axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}
    found = parse_multiscales({"multiscales": [image]})
    assert [axis.kind for axis in found.datasets[0][1]] == ["channel", "space", "space"]


def test_a_scale_in_a_file_of_its_own_is_unknown():
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    there = {"path": "0", "coordinateTransformations": [{"type": "scale", "path": "scales"}]}
    [(_, read)] = parse_multiscales({"multiscales": [{"axes": axes, "datasets": [there]}]}).datasets
    assert Level("0", read, (5, 5)).pixel_size is None


@pytest.mark.parametrize(
    ("unit", "scale", "size"),
    [
        ("micrometer", 0.25, 0.25),
        ("nanometer", 250.0, 0.25),
        ("angstrom", 2500.0, 0.25),
        ("millimeter", 0.002, 2.0),
        ("um", 0.3, 0.3),
        (None, 0.25, None),
        ("furlong", 1.0, None),
    ],
)
def test_pixel_size_in_any_unit(unit, scale, size):
    axes = tuple(Axis(name, "space", unit, scale) for name in "yx")
    assert Level("0", axes, (5, 5)).pixel_size == (size if size is None else pytest.approx(size))


def test_pixels_that_are_not_square_have_no_size():
    assert (
        Level("0", (Axis("y", "space", "micrometer", 0.5), Axis("x", "space", "micrometer", 0.6)), (5, 5)).pixel_size
        is None
    )


def test_the_order_is_that_of_the_specification():
    assert (
        "".join(axis.letter for axis in in_order([Axis(name) for name in ("x", "angle", "z", "c", "y", "t")]))
        == "t?czyx"
    )


def test_a_scale_must_fit_the_axes():
    bad = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}
    with pytest.raises(ValueError, match="3 numbers for 2 axes"):
        parse_multiscales({"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [bad]}]})


def test_other_attributes_are_no_image():
    assert parse_multiscales({"plate": {}, "ome": {"version": "0.5"}}) is None


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        ([{"label": "DAPI", "color": "0000FF"}, {"label": "GFP"}], ("DAPI", "GFP")),
        ([{"label": "DAPI"}, {}], ()),
        ([], ()),
        ("red", ()),
        ([3], ()),
        (None, ()),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_names_of_channels(version, channels, names):
    omero = {"omero": {"channels": channels}}
    attributes = multiscales_metadata(version, "cells", [("0", (Axis("c", "channel"), COLUMNS))], omero)
    assert parse_multiscales(attributes).channel_names == names


def test_names_of_channels_that_are_damaged_are_none():
    attributes = multiscales_metadata("0.5", "cells", [("0", (COLUMNS,))], {"omero": 3})
    assert parse_multiscales(attributes).channel_names == ()

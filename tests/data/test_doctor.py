"""Each fault, made on purpose in simulated images, is found and named; images without fault give nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

import ubend
from ubend.data.annotated import find_pairs
from ubend.data.doctor import FIELD, SMALLEST_SIDE, check
from ubend.data.findings import FAULTS
from ubend.data.formats import write_labels
from ubend.data.simulated import SCENES
from ubend.errors import FileError, InputError
from ubend.method.geometry import receptive_field
from ubend.run.budget import DEEPEST, SMALLEST_BOTTOM
from ubend.run.recipe import load_recipe


def fill(folder, scene="nuclei", number=4, shape=(128, 128), first=0):
    """Write simulated images and labels."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for k in range(first, first + number):
        sample = ubend.simulate(scene, np.random.default_rng(k), shape)
        tifffile.imwrite(folder / "images" / f"a{k}.tif", sample.image)
        write_labels(folder / "masks" / f"a{k}.tif", sample.labels)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """One clean folder of each scene."""
    sizes = {"cells": (192, 192)}  # with fewer cells all images have the same numbers, and look like classes
    return {
        scene: fill(tmp_path_factory.mktemp(scene) / "data", scene, shape=sizes.get(scene, (128, 128)))
        for scene in SCENES
    }


@pytest.fixture
def nuclei(made, tmp_path):
    return Path(shutil.copytree(made["nuclei"], tmp_path / "data"))


@pytest.fixture
def cells(made, tmp_path):
    return Path(shutil.copytree(made["cells"], tmp_path / "data"))


def image(folder, k=1):
    return folder / "images" / f"a{k}.tif"


def mask(folder, k=1):
    return folder / "masks" / f"a{k}.tif"


def pixels(path):
    return tifffile.imread(path)


def change(path, do):
    """Write a file anew with other pixels."""
    tifffile.imwrite(path, do(pixels(path)))


def codes(folder, **choices):
    return [finding.code for finding in check(folder, **choices).findings]


def only(folder, code, **choices):
    """The cases of the one fault that is found."""
    report = check(folder, **choices)
    assert [finding.code for finding in report.findings] == [code]
    return [([report.shown(path) for path in case.files], case.said) for case in report.findings[0].cases]


def found(folder, code, **choices):
    """The cases of a fault that is found beside others."""
    report = check(folder, **choices)
    [finding] = [finding for finding in report.findings if finding.code == code]
    return [([report.shown(path) for path in case.files], case.said) for case in finding.cases]


# without fault


@pytest.mark.parametrize("scene", SCENES)
def test_clean_images_give_nothing(made, scene):
    report = check(made[scene])
    assert report.findings == ()
    assert (report.images, report.of) == (4, 4)
    assert report.task == {"membranes": "binary", "landscape": "classes"}.get(scene, "instances")


@pytest.mark.parametrize("scene", SCENES)
def test_larger_clean_images_give_nothing_either(scene, tmp_path):
    assert codes(fill(tmp_path, scene, shape=(256, 320), first=20)) == []


# files


def test_an_image_without_labels_and_labels_without_image(nuclei):
    mask(nuclei).rename(nuclei / "masks" / "b1.tif")
    mask(nuclei, 2).unlink()
    assert found(nuclei, "images-alone") == [
        (["images/a1.tif"], ""),
        (["images/a2.tif"], ""),
    ]
    assert found(nuclei, "labels-alone") == [(["masks/b1.tif"], "")]


def test_the_name_that_may_be_meant_is_told(nuclei):
    image(nuclei).rename(nuclei / "images" / "experiment_01.tif")
    mask(nuclei).rename(nuclei / "masks" / "experiment_1_mask.tif")
    assert found(nuclei, "images-alone") == [(["images/experiment_01.tif"], "is experiment_1_mask.tif meant for it?")]


def test_two_files_for_one_place(nuclei):
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(image(nuclei).with_suffix(".png"))
    assert found(nuclei, "same-name")[0][0] == ["images/a1.png", "images/a1.tif"]


def test_a_damaged_file_does_not_hide_other_faults(nuclei):
    image(nuclei).write_bytes(image(nuclei).read_bytes()[:400])
    change(mask(nuclei, 2), lambda labels: labels[:, :100])
    mask(nuclei, 3).unlink()
    report = check(nuclei)
    assert [finding.code for finding in report.errors] == ["unreadable", "images-alone", "sizes-differ"]


def test_a_folder_without_labels(tmp_path):
    fill(tmp_path)
    shutil.rmtree(tmp_path / "masks")
    assert only(tmp_path, "layout")[0][1].startswith(f"{tmp_path} holds images in images/ and no labels")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="There is no folder"):
        check(tmp_path / "none")


def test_files_of_the_operating_system_and_other_formats(nuclei):
    for name in (".DS_Store", "images/._a1.tif", "masks/Thumbs.db", "images/b.czi"):
        (nuclei / name).write_bytes(b"x")
    (nuclei / "__MACOSX").mkdir()
    assert [files for files, _ in found(nuclei, "hidden-files")] == [
        [".DS_Store"], ["__MACOSX"], ["images/._a1.tif"], ["masks/Thumbs.db"],
    ]  # fmt: skip
    assert found(nuclei, "not-read") == [(["images/b.czi"], "")]


# sizes and places


def test_sizes_that_differ(nuclei):
    change(mask(nuclei), lambda labels: labels[::2, ::2])
    assert only(nuclei, "sizes-differ") == [
        (["images/a1.tif", "masks/a1.tif"],
         "image 128 × 128, labels 64 × 64 (rows × columns); the labels are 0.5 times as large")
    ]  # fmt: skip


def test_rows_and_columns_swapped(tmp_path):
    fill(tmp_path, shape=(128, 192))
    change(mask(tmp_path), np.transpose)
    [(_, said)] = only(tmp_path, "labels-turned")
    assert said.endswith("rows and columns are swapped")


@pytest.mark.parametrize("scene", ["membranes", "nuclei", "landscape"])
@pytest.mark.parametrize(
    ("turn", "way"),
    [
        (np.transpose, "transposed"),
        (np.rot90, "turned right by 90°"),
        (lambda a: np.rot90(a, 2), "turned by 180°"),
        (lambda a: np.rot90(a, 3), "turned left by 90°"),
        (np.fliplr, "mirrored left to right"),
        (np.flipud, "mirrored top to bottom"),
    ],
)
def test_labels_turned_in_a_square_image(made, scene, turn, way, tmp_path):
    folder = Path(shutil.copytree(made[scene], tmp_path / "data"))
    change(mask(folder), turn)
    [(files, said)] = only(folder, "labels-turned")
    assert files == ["masks/a1.tif"]
    assert f"they fit when {way}" in said


def test_all_labels_turned_where_one_image_tells_little(tmp_path):
    fill(tmp_path, "cells", shape=(192, 192), number=6)
    for k in range(6):
        change(mask(tmp_path, k), np.transpose)
    assert len(found(tmp_path, "labels-turned")) == 6


def test_a_photograph_that_its_camera_turned(nuclei):
    """The picture is turned when it is read; its mask was drawn on what is stored."""
    stored = (pixels(image(nuclei)) // 64).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(image(nuclei).with_suffix(".jpg"), exif=exif, quality=95)
    image(nuclei).unlink()
    assert "labels-turned" in codes(nuclei)
    empty = np.zeros((128, 128), np.uint8)
    empty[60:64, 60:64] = 1
    write_labels(mask(nuclei), empty, overwrite=True)
    assert found(nuclei, "turned-by-camera") == [(["images/a1.jpg"], "")]


def test_stacks_with_other_numbers_of_pages(nuclei):
    stack = np.stack([pixels(image(nuclei, k)) for k in range(4)])
    tifffile.imwrite(image(nuclei), stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    for k in (0, 2, 3):
        image(nuclei, k).unlink()
        mask(nuclei, k).unlink()
    assert only(nuclei, "pages-differ")[0][1] == "4 in the image, 1 in the labels"
    tifffile.imwrite(mask(nuclei), np.stack([pixels(mask(nuclei))] * 3), photometric="minisblack")
    assert only(nuclei, "pages-differ")[0][1] == "4 in the image, 3 in the labels"


def slices(rng, number=8):
    """A volume whose structure changes slowly from slice to slice."""
    volume = ndimage.gaussian_filter(rng.random((number, 128, 128)), (1.5, 3, 3))
    return (255 * (volume - volume.min()) / np.ptp(volume)).astype(np.uint8)


def test_slices_saved_as_channels(nuclei):
    for k in range(4):
        volume = slices(np.random.default_rng(k))
        tifffile.imwrite(image(nuclei, k), volume, photometric="minisblack", metadata={"axes": "CYX"}, ome=False)
    cases = found(nuclei, "slices-as-channels")
    assert len(cases) == 4
    assert cases[0][1] == "8 channels, each likest to the next"
    labels = np.repeat(pixels(mask(nuclei))[None], 8, 0)
    tifffile.imwrite(mask(nuclei), labels, photometric="minisblack", metadata={"axes": "ZYX"})
    assert found(nuclei, "pages-differ")[0][1].endswith("8 channels: its slices were saved as channels")


def test_stains_are_no_slices(nuclei):
    for k in range(4):
        stains = np.random.default_rng(k).integers(0, 255, (6, 128, 128), np.uint8)
        tifffile.imwrite(image(nuclei, k), stains, photometric="minisblack", metadata={"axes": "CYX"})
    assert "slices-as-channels" not in codes(nuclei)


# labels that are none


def binary(folder, high=255):
    for k in range(4):
        change(mask(folder, k), lambda labels: ((labels > 0) * high).astype(np.uint8))


def test_masks_of_0_and_255_are_only_noted(nuclei):
    binary(nuclei)
    report = check(nuclei)
    assert report.task == "binary"
    assert [(finding.level, finding.code) for finding in report.findings] == [("note", "foreground-255")]


def test_masks_of_0_and_1_beside_0_and_255(nuclei):
    binary(nuclei)
    change(mask(nuclei), lambda labels: labels // 255)
    assert ("masks/a1.tif", "0 and 1") in [(files[0], said) for files, said in only(nuclei, "foreground-mixed")]


def smoothed(labels):
    return np.rint(ndimage.zoom(ndimage.zoom(labels.astype(float), 0.5, order=1), 2, order=1)).astype(np.uint8)


def test_a_mask_resized_with_smoothing(nuclei):
    binary(nuclei)
    change(mask(nuclei), smoothed)
    assert [files for files, _ in found(nuclei, "labels-smoothed")] == [["masks/a1.tif"]]


def test_numbers_of_cells_resized_with_smoothing(cells):
    change(mask(cells), smoothed)
    assert [files for files, _ in found(cells, "labels-smoothed")] == [["masks/a1.tif"]]


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_a_mask_that_went_through_jpeg(nuclei, quality, tmp_path):
    binary(nuclei)
    Image.fromarray(pixels(mask(nuclei))).save(tmp_path / "a.jpg", quality=quality)
    with Image.open(tmp_path / "a.jpg") as picture:
        picture.save(mask(nuclei).with_suffix(".png"))
    mask(nuclei).unlink()
    assert [files for files, _ in found(nuclei, "labels-smoothed")] == [["masks/a1.png"]]


def test_a_mask_saved_as_jpeg(nuclei):
    binary(nuclei)
    Image.fromarray(pixels(mask(nuclei))).save(mask(nuclei).with_suffix(".jpg"), quality=75)
    mask(nuclei).unlink()
    assert found(nuclei, "labels-smoothed")[0][1].startswith("a JPEG with ")


def test_labels_in_colour(nuclei):
    change(mask(nuclei), lambda labels: np.stack([labels, labels // 2, 0 * labels], -1).astype(np.uint8))
    [(files, said)] = only(nuclei, "labels-in-colour")
    assert files == ["masks/a1.tif"]
    assert said.startswith("3 channels, ")


def test_labels_with_a_palette_are_noted(nuclei):
    picture = Image.fromarray(pixels(mask(nuclei)).astype(np.uint8), mode="P")
    picture.putpalette(list(range(256)) * 3)
    picture.save(mask(nuclei).with_suffix(".png"))
    mask(nuclei).unlink()
    assert only(nuclei, "palette") == [(["masks/a1.png"], "")]


def test_labels_of_fractions(nuclei):
    change(mask(nuclei), lambda labels: (labels > 0) * np.float32(0.7))
    assert only(nuclei, "labels-not-whole") == [(["masks/a1.tif"], "float32, 0 to 0.7")]


def test_labels_that_are_the_image(nuclei):
    shutil.copy(image(nuclei), mask(nuclei))
    assert only(nuclei, "labels-are-the-image") == [(["masks/a1.tif"], "")]


def test_labels_that_are_another_image(nuclei):
    shutil.copy(image(nuclei, 2), mask(nuclei))
    [(files, said)] = only(nuclei, "labels-a-picture")
    assert files == ["masks/a1.tif"]
    assert said.endswith("different values")


def test_images_and_masks_swapped(nuclei):
    binary(nuclei)
    for k in range(4):
        image(nuclei, k).rename(nuclei / "x.tif")
        mask(nuclei, k).rename(image(nuclei, k))
        (nuclei / "x.tif").rename(mask(nuclei, k))
    assert set(codes(nuclei)) == {"labels-a-picture", "image-of-two-values"}


def test_some_empty_labels_and_nothing_but_empty_labels(nuclei):
    change(mask(nuclei), np.zeros_like)
    assert only(nuclei, "labels-empty") == [(["masks/a1.tif"], "")]
    for k in range(4):
        change(mask(nuclei, k), np.zeros_like)
    assert len(only(nuclei, "nothing-labelled")) == 4


# labels of cells


def joined(labels, missing, radius=9):
    """Two touching discs of one number beside single discs."""
    rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
    out = np.zeros(labels.shape, np.uint8)
    for number, (row, column) in enumerate(
        [(r, c) for r in (16, 48, 80, 112) for c in (16, 80)][missing:], start=1 + missing
    ):
        out[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    out[(rows - 48) ** 2 + (columns - (80 + 2 * radius)) ** 2 <= radius**2] = 4
    return out


def test_one_label_on_two_touching_cells(nuclei):
    for k in range(4):
        labels = joined(pixels(mask(nuclei, k)), missing=k)
        write_labels(mask(nuclei, k), labels, overwrite=True)
        tifffile.imwrite(
            image(nuclei, k),
            (50 + 100 * (labels > 0) + np.random.default_rng(k).normal(0, 9, labels.shape)).astype(np.uint16),
        )
    assert [said for _, said in found(nuclei, "several-cells")] == ["label 4"] * 4
    [finding] = [finding for finding in check(nuclei).findings if finding.code == "several-cells"]
    assert [case.values for case in finding.cases] == [(4,)] * 4


def test_a_binary_mask_among_labels_of_cells(nuclei):
    change(mask(nuclei), lambda labels: ((labels > 0) * 255).astype(np.uint8))
    [(files, said)] = found(nuclei, "mask-among-cells")
    assert files == ["masks/a1.tif"]
    assert "all with the value 255" in said


def test_one_number_for_two_cells_apart(nuclei):
    labels = pixels(mask(nuclei))
    numbers = np.arange(1, labels.max() + 1)
    rows = np.array([row for row, _ in ndimage.center_of_mass(labels > 0, labels, numbers)])
    top, bottom = int(numbers[rows.argmin()]), int(numbers[rows.argmax()])
    change(mask(nuclei), lambda labels: np.where(labels == bottom, top, labels))
    assert only(nuclei, "label-in-pieces") == [(["masks/a1.tif"], f"label {top} in 2 pieces")]


def test_specks(nuclei):
    def dotted(labels):
        free = np.argwhere(ndimage.maximum_filter(labels, 5) == 0)
        for number, (row, column) in enumerate(free[:: len(free) // 2][:2]):
            labels[row, column] = labels.max() + 1 + number
        return labels

    change(mask(nuclei), dotted)
    [(files, said)] = only(nuclei, "specks")
    assert files == ["masks/a1.tif"]
    assert said.startswith("2 pieces of 1 pixel; usual are ")


def test_specks_in_masks_are_noted(made, tmp_path):
    folder = Path(shutil.copytree(made["membranes"], tmp_path / "data"))

    def dotted(labels):
        labels[tuple(np.argwhere(ndimage.maximum_filter(labels, 3) == 0)[0])] = 1
        return labels

    change(mask(folder), dotted)
    assert only(folder, "stray-pixels")[0][0] == ["masks/a1.tif"]


def test_cells_cut_by_the_border(tmp_path):
    fill(tmp_path, "cells", number=6, shape=(256, 256))
    for k in range(6):
        change(image(tmp_path, k), lambda a: a[90:160, 90:160])
        change(mask(tmp_path, k), lambda a: a[90:160, 90:160])
    report = check(tmp_path)
    assert report.errors == ()
    assert "cells-cut" in [finding.code for finding in report.notes]


def test_cells_a_pixel_wide(nuclei):
    for k in range(4):
        labels = np.zeros((128, 128), np.uint8)
        for number in range(12):
            labels[10 * number + 5 : 10 * number + 7, 20:100] = number + 1
        write_labels(mask(nuclei, k), labels, overwrite=True)
        tifffile.imwrite(
            image(nuclei, k),
            (labels > 0) * np.uint16(900) + np.random.default_rng(k).integers(0, 99, labels.shape, np.uint16),
        )
    assert found(nuclei, "objects-thin")[0][1] == "12 of 12"


def test_cells_wider_than_the_network_sees(nuclei):
    report = check(nuclei, field=16)
    assert "objects-large" in [finding.code for finding in report.warnings]
    assert "the network sees 16" in report.warnings[0].cases[0].said


def test_a_class_that_is_left_out(made, tmp_path):
    folder = Path(shutil.copytree(made["landscape"], tmp_path / "data"))
    for k in range(4):
        change(mask(folder, k), lambda labels: np.where(labels == 2, 3, labels).astype(np.uint8))
    assert only(folder, "classes-missing") == [([], "2 in no image; there are 0, 1, 3")]


def test_a_class_of_one_image(made, tmp_path):
    folder = Path(shutil.copytree(made["landscape"], tmp_path / "data"))

    def with_house(labels):
        labels[50:70, 50:70] = 3
        return labels

    change(mask(folder), with_house)
    assert only(folder, "class-rare", task="classes") == [(["masks/a1.tif"], "class 3")]


# images


@pytest.mark.parametrize(
    "copied",
    [
        lambda a: a,
        lambda a: (a * 1.3 + 40).astype(a.dtype),
        lambda a: ((a / a.max()) ** 0.8 * 4000).astype(a.dtype),
    ],
    ids=["equal", "brighter", "gamma"],
)
def test_the_same_image_twice(nuclei, copied):
    tifffile.imwrite(nuclei / "images" / "z.tif", copied(pixels(image(nuclei))))
    shutil.copy(mask(nuclei), nuclei / "masks" / "z.tif")
    [(files, said)] = only(nuclei, "duplicates")
    assert files == ["images/a1.tif", "images/z.tif"]
    assert said in ("equal pixel by pixel", "the same up to brightness or compression")


def test_the_same_image_recompressed_with_other_labels(cells):
    Image.fromarray(pixels(image(cells))).save(cells / "images" / "z.jpg", quality=60)
    write_labels(cells / "masks" / "z.tif", ndimage.maximum_filter(pixels(mask(cells)), 3))
    [(files, said)] = only(cells, "duplicates")
    assert files == ["images/a1.tif", "images/z.jpg"]
    assert said == "the same up to brightness or compression; their labels differ"


def test_three_copies_are_one_case(nuclei):
    for name, do in (("x", lambda a: a), ("y", lambda a: a // 2), ("z", lambda a: a // 2)):
        tifffile.imwrite(nuclei / "images" / f"{name}.tif", do(pixels(image(nuclei))))
        shutil.copy(mask(nuclei), nuclei / "masks" / f"{name}.tif")
    [(files, _)] = only(nuclei, "duplicates")
    assert files == ["images/a1.tif", "images/x.tif", "images/y.tif", "images/z.tif"]


def test_equal_pages_of_a_stack(nuclei):
    for path in (image(nuclei), mask(nuclei)):
        tifffile.imwrite(path, np.stack([pixels(path)] * 2), photometric="minisblack")
    assert only(nuclei, "duplicates") == [(["images/a1.tif"], "equal pixel by pixel, pages 1, 2")]


def test_not_a_number(nuclei):
    def with_hole(a):
        a = a.astype(np.float32)
        a[:2, :2] = np.nan
        a[3, 3] = np.inf
        return a

    change(image(nuclei), with_hole)
    assert found(nuclei, "not-a-number") == [(["images/a1.tif"], "5 of them")]


def test_a_blank_image(nuclei):
    change(image(nuclei), lambda a: np.full_like(a, 7))
    assert only(nuclei, "image-blank") == [(["images/a1.tif"], "7 everywhere")]


def test_an_overexposed_image(nuclei):
    change(image(nuclei), lambda a: np.minimum(a, int(np.quantile(a, 0.9))))
    [(files, said)] = only(nuclei, "saturated")
    assert files == ["images/a1.tif"]
    assert "% of the pixels are" in said


def test_12_bit_data_are_noted(nuclei):
    for k in range(4):
        change(image(nuclei, k), lambda a: (a / a.max() * 4095).astype(np.uint16))
    assert {said for _, said in only(nuclei, "twelve-bits")} == {"up to 4095"}


def test_other_bit_depths_are_noted(nuclei):
    change(image(nuclei), lambda a: (a / a.max() * 255).astype(np.uint8))
    assert only(nuclei, "bit-depths-differ") == [(["images/a1.tif"], "uint8, most images uint16")]


def test_pixels_of_other_sizes(nuclei):
    for k in range(4):
        size = 0.5 if k == 1 else 0.25
        tifffile.imwrite(
            image(nuclei, k),
            pixels(image(nuclei, k)),
            imagej=True,
            resolution=(1 / size, 1 / size),
            metadata={"unit": "um"},
        )
    assert only(nuclei, "pixel-sizes-differ") == [(["images/a1.tif"], "0.5 µm a pixel, usual here 0.25 µm")]
    tifffile.imwrite(image(nuclei), pixels(image(nuclei)))
    assert only(nuclei, "pixel-size-unknown") == [(["images/a1.tif"], "unknown; others 0.25 µm")]


def test_bright_field_among_fluorescence(nuclei):
    change(image(nuclei), lambda a: a.max() - a)
    [(files, said)] = only(nuclei, "modalities-mixed")
    assert files == ["images/a1.tif"]
    assert said == "gray, dark on bright; most images are gray, bright on dark"


def test_colour_among_gray(nuclei):
    def stained(a):
        shade = 1 - (a / a.max())[..., None] * np.array([0.5, 0.8, 0.2])
        return (shade * 250).astype(np.uint8)

    change(image(nuclei), stained)
    assert [files for files, _ in found(nuclei, "channels-differ")] == [["images/a1.tif"]]
    assert [files for files, _ in found(nuclei, "modalities-mixed")] == [["images/a1.tif"]]
    for k in (0, 2, 3):  # gray saved as colour
        change(image(nuclei, k), lambda a: np.repeat((a / a.max() * 255).astype(np.uint8)[..., None], 3, -1))
    assert only(nuclei, "modalities-mixed")[0][0] == ["images/a1.tif"]


def test_small_images(tmp_path):
    assert only(fill(tmp_path, shape=(48, 128), number=3), "images-small")[0] == (
        ["images/a0.tif"],
        "48 × 128 (rows × columns)",
    )


# the report


def test_every_fault_is_explained_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    assert [code for code in FAULTS if f"`{code}`" not in page] == []


def test_words_end_without_a_full_stop_and_are_there():
    for fault in FAULTS.values():
        assert all(words and not words.endswith(".") for words in (fault.what, fault.why, fault.remedy))


def test_errors_come_before_warnings_before_notes(nuclei):
    change(mask(nuclei), np.zeros_like)
    (nuclei / ".DS_Store").write_bytes(b"x")
    shutil.copy(image(nuclei, 2), mask(nuclei, 2))
    report = check(nuclei)
    assert [finding.level for finding in report.findings] == ["error", "warning", "note"]
    assert len(report.errors) == len(report.warnings) == len(report.notes) == 1


def test_a_report_for_machines(nuclei):
    change(mask(nuclei), np.zeros_like)
    written = json.loads(json.dumps(check(nuclei).to_dict(), allow_nan=False))
    assert {key: written[key] for key in ("images", "pairs_of_files", "task", "errors", "warnings", "notes")} == {
        "images": 4, "pairs_of_files": 4, "task": "instances", "errors": 0, "warnings": 1, "notes": 0,
    }  # fmt: skip
    [finding] = written["findings"]
    assert finding["code"] == "labels-empty"
    assert finding["cases"] == [{"files": ["masks/a1.tif"], "page": 0, "labels": [], "said": ""}]


def test_a_quick_check_looks_at_some_images_wherever_it_runs(tmp_path):
    fill(tmp_path, number=20, shape=(64, 64))
    report = check(tmp_path, quick=True)
    assert (report.images, report.of) == (16, 20)


def test_a_quick_check_knows_of_all_files(tmp_path):
    fill(tmp_path, number=20, shape=(64, 64))
    mask(tmp_path, 19).unlink()
    assert [finding.code for finding in check(tmp_path, quick=True).errors] == ["images-alone"]


def test_progress_is_told(nuclei):
    told = []
    check(nuclei, on_image=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_task_that_cannot_be_is_an_error(nuclei):
    assert "layout" in codes(nuclei, task="binary")
    with pytest.raises(InputError, match="one of binary, classes, instances"):
        check(nuclei, task="cells")


def test_the_numbers_of_the_network_are_those_of_the_default():
    depth = load_recipe("default").network.depth
    assert (SMALLEST_BOTTOM * 2**depth, receptive_field(DEEPEST)[0]) == (SMALLEST_SIDE, FIELD)


def test_all_pairs_are_found_as_training_finds_them(nuclei):
    assert check(nuclei).of == len(find_pairs(nuclei))

"""Pairs in folders of all common layouts, and what label images mean."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ubend.data.annotated import Task, class_indices, find_pairs, infer_task, look_numbered, read_pairs
from ubend.data.rois import write_geojson, write_rois
from ubend.errors import FileError, InputError
from ubend.method.outlines import trace_outlines

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def write(folder, *names):
    """Write small images; one pixel tells them apart."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((4, 5), np.uint8)
        pixels[0, 0] = number
        if path.suffix in (".png", ".bmp"):
            Image.fromarray(pixels).save(path)
        else:
            tifffile.imwrite(path, pixels, photometric="minisblack")


def found(folder, labels=None):
    return [
        (pair.name, *(path.relative_to(folder).as_posix() for path in (*pair.images, pair.labels)))
        for pair in find_pairs(folder, labels=labels)
    ]


# Layouts


@pytest.mark.parametrize("images", ["images", "image", "imgs", "Raw", "X", "inputs"])
@pytest.mark.parametrize("labels", ["masks", "Labels", "annotation", "gt", "GroundTruth", "truth", "segmentation"])
def test_two_folders(tmp_path, images, labels):
    write(tmp_path, f"{images}/b10.tif", f"{images}/b2.png", f"{labels}/b10.png", f"{labels}/b2.tif", "other/x.tif")
    expected = [("b2", f"{images}/b2.png", f"{labels}/b2.tif"), ("b10", f"{images}/b10.tif", f"{labels}/b10.png")]
    assert found(tmp_path) == expected


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("x", "x_mask"),
        ("x", "x_labels"),
        ("x", "x-seg"),
        ("x", "x_GT"),
        ("x", "mask_x"),
        ("x_img", "x_mask"),
        ("img_01", "mask_01"),
        ("image01", "label01"),
        ("x.ome", "x"),
        ("x_img", "x"),
    ],
)
def test_two_folders_with_a_word_in_the_names(tmp_path, image, label):
    write(tmp_path, f"images/{image}.tif", f"masks/{label}.tif")
    assert found(tmp_path)[0][1:] == (f"images/{image}.tif", f"masks/{label}.tif")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("x", "x_masks"),
        ("x_img", "x_masks"),
        ("x", "x_cp_masks"),
        ("x", "x_seg"),
        ("x", "x_ground_truth"),
        ("train-volume", "train-labels"),
        ("test-volume", "test-labels"),
    ],
)
def test_one_folder(tmp_path, image, label):
    write(tmp_path, f"{image}.tif", f"{label}.tif")
    (tmp_path / "README.txt").touch()
    assert found(tmp_path) == [(image, f"{image}.tif", f"{label}.tif")]


def test_equal_names_win_over_words(tmp_path):
    write(tmp_path, "images/x.tif", "images/x_img.tif", "masks/x.tif", "masks/x_img.tif")
    assert [pair[0] for pair in found(tmp_path)] == ["x", "x_img"]
    assert found(tmp_path)[1][2] == "masks/x_img.tif"


def test_what_cellpose_leaves_beside_its_masks_is_no_image(tmp_path):
    write(tmp_path, "x.tif", "x_masks.tif", "x_flows.tif", "x_cp_outlines.png")
    assert found(tmp_path) == [("x", "x.tif", "x_masks.tif")]


def test_a_part_of_an_image_is_an_image_of_its_own(tmp_path):
    write(tmp_path, "a_roi.png", "a_roi_mask.png", "a.png", "a_mask.png")
    assert found(tmp_path) == [("a", "a.png", "a_mask.png"), ("a_roi", "a_roi.png", "a_roi_mask.png")]


def test_labels_in_a_folder_beside_the_images(tmp_path):
    write(tmp_path, "x.tif", "masks/x.tif")
    assert found(tmp_path) == [("x", "x.tif", "masks/x.tif")]


def test_a_stray_picture_beside_the_folders_is_no_image(tmp_path):
    write(tmp_path, "overview.png", "images/x.tif", "masks/x.tif")
    assert found(tmp_path) == [("x", "images/x.tif", "masks/x.tif")]


def test_nnunet_channels_belong_together(tmp_path):
    write(tmp_path, *(f"imagesTr/{case}_000{k}.tif" for case in ("a_01", "a_02") for k in (0, 1)))
    write(tmp_path, "labelsTr/a_01.tif", "labelsTr/a_02.tif", "imagesTs/a_03_0000.tif")
    assert found(tmp_path)[0] == ("a_01", "imagesTr/a_01_0000.tif", "imagesTr/a_01_0001.tif", "labelsTr/a_01.tif")
    first = read_pairs(find_pairs(tmp_path))[0]
    assert first.image.shape == (4, 5, 2)
    assert first.image[0, 0].tolist() == [0, 1]


def test_nnunet_images_have_the_same_channels(tmp_path):
    write(tmp_path, *(f"imagesTr/{name}.tif" for name in ("a_0000", "a_0001", "b_0000", "b_0001", "c_0001")))
    write(tmp_path, *(f"labelsTr/{name}.tif" for name in "abc"))
    with pytest.raises(FileError, match=r"c has the channels 0001, other images have 0000 and 0001"):
        find_pairs(tmp_path)


def test_the_labels_that_are_asked_for(tmp_path):
    write(tmp_path, "images/x.tif", "masks/x.tif", "labels/x.tif", "my cells/x.tif")
    with pytest.raises(FileError, match=r"labels in masks/ and labels/: say which to take, .* labels='masks'"):
        find_pairs(tmp_path)
    for name, folder in (("labels", "labels"), ("masks/", "masks"), ("My Cells", "my cells")):
        assert found(tmp_path, labels=name) == [("x", "images/x.tif", f"{folder}/x.tif")]


def test_the_labels_that_are_asked_for_in_one_folder(tmp_path):
    write(tmp_path, "x.tif", "x_mask.tif", "x_seg.tif", "x_nuclei.tif")
    with pytest.raises(FileError, match=r"x_mask\.tif and x_seg\.tif all fit the image x"):
        find_pairs(tmp_path)
    (tmp_path / "x_nuclei.tif").unlink()
    assert found(tmp_path, labels="seg") == found(tmp_path, labels="_seg") == [("x", "x.tif", "x_seg.tif")]


# What can be wrong with a folder


def test_a_missing_folder_and_a_file_for_a_folder(tmp_path):
    write(tmp_path, "cells/x.tif")
    with pytest.raises(FileError, match=r"no folder .*cell; the nearest name in .* is cells"):
        find_pairs(tmp_path / "cell")
    with pytest.raises(FileError, match="is a file; name a folder"):
        find_pairs(tmp_path / "cells" / "x.tif")


def test_a_folder_that_holds_nothing(tmp_path):
    with pytest.raises(FileError, match=r"no annotated images: it is empty\. Looked for images/ beside masks/"):
        find_pairs(tmp_path)
    (tmp_path / "a.czi").touch()
    with pytest.raises(FileError, match=r"found files of the kinds \.czi\..* export other formats as TIFF"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("name", ["a.tif", "a_mask.tif"])
def test_a_folder_of_only_images_or_only_labels(tmp_path, name):
    write(tmp_path, name)
    with pytest.raises(FileError, match=r"found files of the kinds \.tif"):
        find_pairs(tmp_path)


def test_one_folder_too_high(tmp_path):
    write(tmp_path, "train/images/x.tif", "train/masks/x.tif", "val/imagesTr/x.tif", "val/labelsTr/x.tif")
    with pytest.raises(
        FileError, match=r"in it are .*(train/ and val/|val/ and train/): name one, for example .*(train|val)"
    ):
        find_pairs(tmp_path)


def test_labels_under_a_name_that_is_not_known(tmp_path):
    write(tmp_path, "images/x.tif", "cells/x.tif")
    with pytest.raises(FileError, match=r"looked for masks, .* If they are in cells/, say labels='cells'"):
        find_pairs(tmp_path)
    with pytest.raises(FileError, match=r"no folder 'cels' with images, .* the nearest folder is 'cells'"):
        find_pairs(tmp_path, labels="cels")


def test_labels_without_any_image(tmp_path):
    write(tmp_path, "masks/x.tif")
    with pytest.raises(FileError, match="labels and no images: looked in it and for images"):
        find_pairs(tmp_path)


def test_images_in_two_folders(tmp_path):
    write(tmp_path, "images/x.tif", "raw/x.tif", "masks/x.tif")
    with pytest.raises(FileError, match="images in images/ and raw/: which belong to the labels"):
        find_pairs(tmp_path)


def test_one_name_for_two_images(tmp_path):
    write(tmp_path, "images/x.png", "images/x.tif", "masks/x.tif")
    with pytest.raises(FileError, match=r"x\.png and x\.tif have one name"):
        find_pairs(tmp_path)


def test_what_is_alone_is_named_up_to_three(tmp_path):
    write(tmp_path, *(f"images/{k}.tif" for k in range(6)), "masks/5.tif", "masks/other.tif")
    with pytest.raises(
        FileError,
        match=r"holds 5 images without labels \(images.0\.tif, images.1\.tif, images.2\.tif and 2 more\) and 1 label "
        r"file without an image \(masks.other\.tif\): labels have the image's name",
    ):
        find_pairs(tmp_path)


# Reading


def test_a_stack_gives_one_image_a_page(tmp_path):
    volume = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    tifffile.imwrite(tmp_path / "train-volume.tif", volume, photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "train-labels.tif", (volume > 30) * np.uint8(255), photometric="minisblack")
    pages = read_pairs(find_pairs(tmp_path))
    assert [page.name for page in pages] == [f"train-volume_000{k}" for k in range(3)]
    for page, slice_ in zip(pages, volume, strict=True):
        np.testing.assert_array_equal(page.image, slice_)
        np.testing.assert_array_equal(page.labels, (slice_ > 30) * 255)
        assert page.labels.dtype == np.int32


def test_the_pixel_size_of_the_image_or_else_of_the_labels(tmp_path):
    pixels = np.zeros((4, 5), np.uint8)
    for name, per_centimetre in (("x", None), ("x_mask", 20000), ("y", 40000), ("y_mask", 20000)):
        known = {} if per_centimetre is None else {"resolution": (per_centimetre,) * 2, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack", **known)
    assert [one.pixel_size for one in read_pairs(find_pairs(tmp_path))] == [0.5, 0.25]


def test_sizes_and_page_counts_that_differ(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 5), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "x_mask.tif", np.zeros((5, 4), np.uint8), photometric="minisblack")
    with pytest.raises(
        FileError, match=r"x\.tif is 4 × 5 \(rows × columns\) and .*x_mask\.tif 5 × 4 .* must have the same"
    ):
        read_pairs(find_pairs(tmp_path))
    tifffile.imwrite(tmp_path / "x_mask.tif", np.zeros((3, 4, 5), np.uint8), photometric="minisblack")
    with pytest.raises(
        FileError, match=r"x\.tif holds 1 image of 4 × 5 .* and .*x_mask\.tif 3 label images: .* one for each"
    ):
        read_pairs(find_pairs(tmp_path))


def test_a_label_that_int32_does_not_hold(tmp_path):
    write(tmp_path, "x.tif")
    tifffile.imwrite(tmp_path / "x_mask.tif", np.full((4, 5), 2**32 - 1, np.uint32), photometric="minisblack")
    with pytest.raises(FileError, match="holds the label 4294967295; labels go up to 2147483647: number them anew"):
        read_pairs(find_pairs(tmp_path))


# Task

SCENE = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2]])


def cells(*numbers):
    """Draw cells of 2 × 2 pixels in a row, one column apart."""
    image = np.zeros((4, 3 * len(numbers) + 1), np.int32)
    for position, number in enumerate(numbers):
        image[1:3, 3 * position + 1 : 3 * position + 3] = number
    return image


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([[[0, 1]]], Task("binary", (0, 1), None)),
        ([[[0, 255]], [[0, 0]]], Task("binary", (0, 255), None)),
        ([[[False, True]]], Task("binary", (0, 1), None)),
        ([[[1, 2]]], Task("binary", (1, 2), None)),
        ([[[0, 0]]], Task("binary", (0, 1), None)),
        ([[[7, 7]]], Task("binary", (0, 7), None)),
        ([[[0, 1, 255]]], Task("binary", (0, 1), 255)),
        ([[[0, 1, -1, -5]]], Task("binary", (0, 1), None)),
        ([SCENE, SCENE.T], Task("classes", (0, 1, 2), None)),
        ([SCENE * 100, SCENE.T * 100], Task("classes", (0, 100, 200), None)),
        ([[[0, 1, 2, 0, 2, 1, 0, 1, 3]]], Task("classes", (0, 1, 2, 3), None)),
        ([[[0, 1, 2, 0, 2, 1, 0, 255]]], Task("classes", (0, 1, 2), 255)),
        ([[[0, 64, 128, 0, 128, 64, 0, 255]]], Task("classes", (0, 64, 128, 255), None)),
        ([cells(1, 2), cells(1, 2, 3), cells(1, 2, 3, 4, 5)], Task("instances", (), None)),
        ([cells(3, 9, 40), cells(9, 41)], Task("instances", (), None)),
        ([cells(*range(1, 10))] * 2, Task("instances", (), None)),
        ([cells(*range(1, 300))], Task("instances", (), None)),
    ],
)
def test_what_labels_mean(labels, task):
    assert infer_task([np.asarray(image) for image in labels]) == task


def test_stray_pixels_do_not_break_a_cell():
    image = np.zeros((30, 30), np.int32)
    for number in range(3):
        image[1:8, 10 * number : 10 * number + 7] = number + 1
    image[20, 5] = 1
    assert infer_task([image]).kind == "instances"


def test_values_that_may_number_objects():
    cells, classes = np.array([[1, 1, 0, 2]]), np.array([[1, 0, 1, 2]])
    assert look_numbered([cells, cells])
    assert not look_numbered([cells, classes])
    assert look_numbered([cells, classes], share=0.75)
    assert look_numbered([np.where(classes == 1, 255, classes)], ignore=255)
    assert look_numbered([cells * 0])


def test_the_kind_that_is_asked_for():
    assert infer_task([SCENE, SCENE], kind="instances") == Task("instances", (), None)
    assert infer_task([cells(1, 2, 3)], kind="classes") == Task("classes", (0, 1, 2, 3), None)
    assert infer_task([cells(1)], kind="classes") == Task("classes", (0, 1), None)
    assert infer_task([cells()], kind="classes") == Task("classes", (0, 1), None)
    assert infer_task([SCENE], kind="binary", ignore=2) == Task("binary", (0, 1), 2)
    assert infer_task([[[0, 1, 255]]], kind="classes", ignore=-1) == Task("classes", (0, 1, 255), -1)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([], {}, "No pixel of the 0 label images is labelled"),
        ([[[-1, -1]]], {}, "nothing to learn from"),
        ([[[3, 3]]], {"ignore": 3}, "nothing to learn from"),
        ([[[0.5]]], {}, r"integers with the axes \(rows, columns\); got float64"),
        ([[0, 1]], {}, r"got int64, shape \(2,\)"),
        ([[[0, 1]]], {"kind": "cells"}, "one of binary, classes, instances; got 'cells'"),
        ([SCENE], {"kind": "binary"}, r"two values, these have 3 \(0, 1 and 2\): say kind='classes'"),
        ([cells(*range(300))], {"kind": "classes"}, r"300 values are hardly classes \(at most 256\)"),
    ],
)
def test_labels_that_make_no_task(labels, options, message):
    with pytest.raises(InputError, match=message):
        infer_task(labels, **options)


# Class numbers


def test_values_become_positions_and_unlabelled_becomes_minus_one():
    task = Task("classes", (0, 32, 200), 255)
    indices = class_indices(np.array([[0, 32, 200], [255, -1, -7]]), task)
    assert indices.tolist() == [[0, 1, 2], [-1, -1, -1]]
    assert indices.dtype == np.int32
    assert class_indices(np.array([[False, True]]), Task("binary", (0, 1), None)).tolist() == [[0, 1]]


def test_instances_keep_their_numbers():
    assert class_indices([[0, 70000, 255, -3]], Task("instances", (), 255)).tolist() == [[0, 70000, -1, -1]]


@pytest.mark.parametrize(("dtype", "large"), [(np.uint32, 3_000_000_000), (np.int64, 2**40), (np.uint64, 2**64 - 1)])
def test_numbers_that_int32_does_not_hold_are_numbered_anew(dtype, large):
    labels = np.array([[0, large, 5, 255, large]], dtype)
    indices = class_indices(labels, Task("instances", (), 255))
    assert indices.tolist() == [[0, 2, 1, -1, 2]]
    assert indices.dtype == np.int32


@pytest.mark.parametrize("value", [1, 33, 300])
def test_a_value_that_the_task_does_not_know_is_named(value):
    with pytest.raises(
        InputError, match=rf"labels hold {value}, which is no label of this task: they are 0, 32 and 200"
    ):
        class_indices([[0, value]], Task("classes", (0, 32, 200), None))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 255), min_size=1, max_size=30))
def test_each_labelled_pixel_finds_its_value_again(pixels):
    image = np.array([pixels])
    if (image < 0).all():
        return
    task = infer_task([image], kind="classes", ignore=-1)
    indices = class_indices(image, task)
    labelled = image >= 0
    np.testing.assert_array_equal(np.array(task.values)[indices[labelled]], image[labelled])
    assert (indices[~labelled] == -1).all()


# The real sets


@pytest.mark.parametrize(
    ("name", "labels", "kind", "values"),
    [
        ("isbi2012_em", None, "binary", (0, 1)),
        ("dic_hela", None, "binary", (0, 1)),
        ("vnc_sstem", "masks", "binary", (0, 1)),
        ("vnc_sstem", "labels", "classes", (0, 32, 64, 96, 128, 159, 191, 223, 255)),
        ("dic_hela", "instances_approx", "instances", ()),
        ("trpl_bacteria", None, "instances", ()),
        ("coelho2009_nuclei", None, "instances", ()),
        ("dsb2018", None, "instances", ()),
        ("ovule3d", None, "instances", ()),
    ],
)
def test_real_sets_are_what_they_are_from_few_images(name, labels, kind, values):
    if not (DATA / name).is_dir():
        pytest.skip("the real images are not beside this repository")
    pairs = find_pairs(DATA / name, labels=labels)
    few = read_pairs(pairs[:: max(1, len(pairs) // 5)])
    assert infer_task([one.labels for one in few]) == Task(kind, values, None)


# Outlines and arrays


def draw(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    (write_geojson if path.suffix == ".geojson" else write_rois)(path, trace_outlines(labels))


CELLS = np.array([[1, 1, 0, 0, 3], [1, 2, 2, 0, 3], [0, 2, 0, 0, 3], [0, 0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("x.tif", "x.zip"),
        ("x.tif", "x_rois.zip"),
        ("x.tif", "RoiSet.zip"),
        ("x.tif", "x.geojson"),
        ("images/x.tif", "rois/x.zip"),
        ("images/x.tif", "masks/x_rois.zip"),
        ("images/x.tif", "masks/RoiSet.zip"),
        ("x.tif", "annotations/x.geojson"),
    ],
)
def test_outlines_are_labels(tmp_path, image, label):
    write(tmp_path, image)
    draw(tmp_path / label, CELLS)
    assert found(tmp_path) == [("x", image, label)]
    [one] = read_pairs(find_pairs(tmp_path))
    assert one.labels.dtype == np.int32
    assert (one.labels == CELLS).all()


def test_a_single_roi(tmp_path):
    write(tmp_path, "x.tif")
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, left=1, top=2, right=9, bottom=9)
    roi.tofile(tmp_path / "x.roi")
    [one] = read_pairs(find_pairs(tmp_path))
    assert one.labels.tolist() == [[0] * 5, [0] * 5, [0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]


def test_a_label_image_wins_over_outlines(tmp_path):
    write(tmp_path, "images/x.tif", "masks/x.tif", "images/y.tif")
    for name in ("x.zip", "y.zip"):
        draw(tmp_path / "masks" / name, CELLS)
    assert [pair[2] for pair in found(tmp_path)] == ["masks/x.tif", "masks/y.zip"]
    write(tmp_path, "masks/y.tif")
    assert [pair[2] for pair in found(tmp_path)] == ["masks/x.tif", "masks/y.tif"]


def test_what_predict_leaves_is_an_annotated_folder(tmp_path):
    write(tmp_path, "images/x.tif", "masks/x.tif", "masks/x_outlines.png", "masks/x_probabilities.tif")
    draw(tmp_path / "masks" / "x_rois.zip", CELLS)
    draw(tmp_path / "masks" / "x.geojson", CELLS)
    (tmp_path / "masks" / "x_objects.csv").write_text("id")
    assert found(tmp_path) == [("x", "images/x.tif", "masks/x.tif")]


def test_two_kinds_of_outlines_for_one_image(tmp_path):
    write(tmp_path, "x.tif")
    draw(tmp_path / "x_rois.zip", CELLS)
    draw(tmp_path / "x_mask.geojson", CELLS)
    with pytest.raises(FileError, match="all fit the image x: keep one"):
        find_pairs(tmp_path)


def test_a_zip_without_rois_is_not_looked_at(tmp_path):
    write(tmp_path, "x.tif", "x_mask.tif")
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    assert found(tmp_path) == [("x", "x.tif", "x_mask.tif")]


def test_objects_are_numbered_on_and_are_instances(tmp_path):
    """Three cells in each image would look like three classes."""
    for name in "abc":
        write(tmp_path, f"{name}.tif")
        draw(tmp_path / f"{name}.zip", CELLS)
    labels = [one.labels for one in read_pairs(find_pairs(tmp_path))]
    assert [sorted(set(image[image > 0].tolist())) for image in labels] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert infer_task(labels).kind == "instances"


def test_outlines_of_a_stack_know_their_page(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((2, 4, 5), np.uint8), photometric="minisblack")
    boxes = [roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, right=1, bottom=k, position=k) for k in (1, 2)]
    roifile.roiwrite(tmp_path / "x.zip", boxes, name=["a", "b"])
    assert [one.labels[:, 0].tolist() for one in read_pairs(find_pairs(tmp_path))] == [[1, 0, 0, 0], [2, 2, 0, 0]]
    boxes[1].position = 0
    roifile.roiwrite(tmp_path / "x.zip", boxes, name=["a", "b"], mode="w")
    with pytest.raises(FileError, match=r"does not say for b which of the 2 images .*position in the stack"):
        read_pairs(find_pairs(tmp_path))


def test_a_label_array_of_cellpose(tmp_path):
    write(tmp_path, "x.tif")
    np.save(tmp_path / "x_seg.npy", CELLS.astype(np.uint16))
    np.save(tmp_path / "features.npy", np.zeros(3))
    [one] = read_pairs(find_pairs(tmp_path))
    assert (one.labels == CELLS).all()
    assert infer_task([one.labels]).kind == "instances"


def test_python_objects_of_cellpose_are_refused(tmp_path):
    write(tmp_path, "x.tif")
    np.save(tmp_path / "x_seg.npy", {"masks": CELLS}, allow_pickle=True)
    with pytest.raises(FileError, match=r"holds Python objects.*Save masks as PNG/tif; or.*x_masks\.tif"):
        read_pairs(find_pairs(tmp_path))


def test_roifile_is_missing(tmp_path, monkeypatch):
    write(tmp_path, "x.tif")
    draw(tmp_path / "x.zip", CELLS)
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(InputError, match=r"pip install roifile"):
        read_pairs(find_pairs(tmp_path))


def nnunet(folder, **dataset):
    write(folder, "imagesTr/a_0000.tif", "imagesTr/a_0001.tif", "labelsTr/a.tif")
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return read_pairs(find_pairs(folder))[0]


def test_names_that_nnunet_gives(tmp_path):
    labels = {"background": 0, "cell": 1, "whole": [1, 2]}
    named = nnunet(tmp_path / "2", channel_names={"0": "DAPI", "1": "GFP"}, labels=labels)
    assert named.channel_names == ("DAPI", "GFP")
    assert named.class_names == ((0, "background"), (1, "cell"))
    first = nnunet(tmp_path / "1", modality={"0": "DAPI", "1": "GFP"}, labels={"0": "background", "1": "cell"})
    assert (first.channel_names, first.class_names) == (named.channel_names, named.class_names)


@pytest.mark.parametrize("dataset", [{}, {"channel_names": ["a"]}, {"channel_names": {"1": "a"}, "labels": {}}])
def test_names_that_cannot_be_read_are_none(tmp_path, dataset):
    one = nnunet(tmp_path, **dataset)
    assert (one.channel_names, one.class_names) == ((), ())


def test_fewer_names_than_channels_are_none(tmp_path):
    one = nnunet(tmp_path, channel_names={"0": "DAPI"}, labels={"background": 0})
    assert one.channel_names == ()


def test_names_of_channels_of_an_ome_tiff(tmp_path):
    (tmp_path / "images").mkdir()
    named = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "images" / "x.ome.tif", np.zeros((2, 4, 5), np.uint8), metadata=named)
    write(tmp_path, "masks/x.tif")
    assert read_pairs(find_pairs(tmp_path))[0].channel_names == ("DAPI", "GFP")

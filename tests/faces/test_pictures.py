import numpy as np
import pytest

from ubend.data.annotated import Task
from ubend.data.formats import read_images
from ubend.errors import FileError
from ubend.faces.pictures import CLASS_COLOURS, displayed, overlay, save_comparison

CELLS = Task("instances", (), None)
BINARY = Task("binary", (0, 255), None)
CLASSES = Task("classes", (0, 1, 2), 255)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_an_image_of_any_type_is_stretched(dtype):
    image = np.zeros((20, 20), dtype)
    image[10:] = 1
    shown = displayed(image)
    assert shown.dtype == np.uint8
    assert (shown[:10] == 0).all()
    assert (shown[10:] == 255).all()


def test_channels_that_are_shown():
    image = np.random.default_rng(0).integers(0, 255, (9, 8, 5)).astype(np.uint8)
    assert displayed(image[..., :3]).shape == (9, 8, 3)
    assert (displayed(image[..., :4]) == displayed(image[..., :3])).all()
    for channels in (1, 2, 5):
        assert (displayed(image[..., :channels]) == displayed(image[..., 0])).all()


def test_a_constant_image_is_black():
    assert (displayed(np.full((3, 3), 7, np.uint16)) == 0).all()


def test_objects_have_colours_of_their_own():
    labels = np.zeros((12, 30), np.int32)
    labels[2:10, 2:14], labels[2:10, 14:28] = 1, 2
    shown = overlay(np.zeros((12, 30), np.uint8), labels, CELLS)
    assert (shown[0] == 0).all()
    assert shown[5, 7].any()
    assert (shown[5, 7] != shown[5, 20]).any()
    assert shown[5, 13].max() > shown[5, 7].max()  # the outline is stronger
    assert (overlay(np.zeros((2, 2)), np.zeros((2, 2), int), CELLS) == 0).all()


def test_foreground_is_painted():
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 2:7] = 255
    shown = overlay(np.zeros((9, 9), np.uint8), labels, BINARY)
    assert shown[4, 4].any()
    assert (shown[0] == 0).all()


def test_classes_have_their_colours_and_unlabelled_pixels_none():
    shown = overlay(np.zeros((1, 4), np.uint8), np.array([[0, 1, 2, 255]]), CLASSES)
    np.testing.assert_allclose(shown[0, :3], 0.6 * CLASS_COLOURS[:3], atol=1)
    assert (shown[0, 3] == 0).all()


def test_a_comparison_is_a_png(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)
    labels = (image > 128).astype(np.int32) * 255
    rows = [("one: IoU 0.50", image, labels, labels), ("two", image, labels, labels * 0)]
    save_comparison(tmp_path / "c.png", rows, BINARY, title="What came of it")
    pixels = read_images(tmp_path / "c.png")[0].pixels
    assert pixels.shape[0] > 600
    assert pixels.std() > 10
    with pytest.raises(FileError, match="exists already"):
        save_comparison(tmp_path / "c.png", rows, BINARY, title="Again")
    save_comparison(tmp_path / "c.png", rows, BINARY, title="Again", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]

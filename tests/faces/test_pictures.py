import numpy as np
import pytest

from ubend.data.annotated import Task
from ubend.data.formats import read_images
from ubend.errors import FileError
from ubend.faces import pictures
from ubend.faces.pictures import CLASS_COLOURS, displayed, outlined, overlay, save_comparison

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


def drawn(image, labels):
    return np.concatenate(list(outlined(image, labels)))


def test_outlines_lie_inside_the_objects_and_touching_ones_have_their_own():
    labels = np.zeros((1030, 1030), np.int32)
    labels[10:14, 10:14], labels[10:14, 14:18] = 1, 2
    shown = drawn(np.zeros((1030, 1030), np.uint8), labels)
    assert shown.shape == (1030, 1030, 3)
    assert (shown[labels == 0] == 0).all()
    assert (shown[10, 10:18].max(axis=-1) == 255).all()
    assert (shown[11:13, 11:13] == 0).all()
    assert (shown[11, 13] != shown[11, 14]).any()


def test_lines_of_large_objects_have_a_dark_rim():
    labels = np.zeros((1030, 1030), np.int32)
    labels[100:200, 100:200] = 1
    shown = drawn(labels * 200, labels)
    assert shown[150, 98:105].max(axis=-1).tolist() == [0, 0, 255, 255, 0, 255, 255]
    assert shown[150, 104].tolist() == [255, 255, 255]


def test_small_images_are_enlarged():
    assert drawn(np.zeros((40, 60)), np.eye(40, 60, dtype=int)).shape == (320, 480, 3)
    assert drawn(np.zeros((300, 400, 2)), np.zeros((300, 400), int)).shape == (600, 800, 3)


def test_bands_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 9, (9, 8)), np.ones((40, 45), int))
    image = rng.integers(0, 255, (360, 360, 3)).astype(np.uint8)
    whole = drawn(image, labels)
    low, high = pictures._darkest_and_brightest(image)
    monkeypatch.setattr(pictures, "_darkest_and_brightest", lambda _values: (low, high))
    monkeypatch.setattr(pictures, "_PIXELS_AT_ONCE", 5000)
    assert (drawn(image, labels) == whole).all()
    assert len(list(outlined(image, labels))) > 50

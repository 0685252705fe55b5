import numpy as np
import pytest

from ubend.data.annotated import Task
from ubend.data.formats import read_images
from ubend.errors import FileError
from ubend.faces import pictures
from ubend.faces.pictures import CLASS_COLOURS, compared, displayed, heat, outlined, overlay, save_comparison

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


def colours(labels):
    """The colours of the outlines, by number; the image is black."""
    shown = drawn(np.zeros(labels.shape), labels)
    zoom = shown.shape[0] // labels.shape[0]
    return {number: shown[np.repeat(np.repeat(labels, zoom, 0), zoom, 1) == number].max(axis=0) for number in
            np.unique(labels[labels > 0])}  # fmt: skip


@pytest.mark.parametrize("gap", [0, 1, 4])
def test_neighbours_have_colours_far_apart(gap):
    labels, by_themselves = np.zeros((60, 60), np.int32), np.zeros((60, 60), np.int32)
    for k, (row, column) in enumerate([(10, 10), (10, 30), (30, 10), (30, 30)]):
        labels[row : row + 20 - gap, column : column + 20 - gap] = 1 + 13 * k  # hues by number are nearly the same
    for first in colours(labels).values():
        near = [other for other in colours(labels).values() if np.abs(first.astype(int) - other).max() < 60]
        assert len(near) == 1  # itself
    by_themselves[10:20, 10:20], by_themselves[50:60, 50:60] = 1, 14
    alone = colours(by_themselves)
    assert np.abs(alone[1].astype(int) - alone[14]).max() < 60
    assert (alone[1] == colours(labels)[1]).all()


def test_classes_keep_their_colours():
    stripes = np.repeat(np.arange(5), 12)[None].repeat(60, axis=0)
    other = np.roll(stripes, 24, axis=1)
    assert all((colours(stripes)[k] == colours(other)[k]).all() for k in range(1, 5))


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


def test_truth_and_result_are_compared_object_by_object():
    truth, result = np.zeros((600, 600), np.int32), np.zeros((600, 600), np.uint8)
    truth[50:100, 50:100], truth[200:250, 200:250] = 4, 9
    result[52:100, 50:100], result[400:450, 400:450] = 1, 2
    shown = compared(np.zeros((600, 600), np.uint8), truth, result, CELLS)
    assert (shown.missed, shown.invented) == (1, 1)
    assert tuple(shown.truth[50, 75]) == pictures.TRUTH
    assert tuple(shown.result[52, 75]) == pictures.RESULT
    filled = [tuple(int(0.45 * part) for part in colour) for colour in (pictures.MISSED, pictures.INVENTED)]
    assert tuple(shown.truth[225, 225]) == filled[0]
    assert tuple(shown.result[425, 425]) == filled[1]
    for picture in (shown.truth, shown.result):
        assert not picture[75, 75].any()  # found: an outline only
        assert not picture[300].any()


def test_of_foreground_the_pixels_are_compared():
    truth, result = np.array([[0, 255, 255, -1]]), np.array([[255, 255, 0, 255]])
    shown = compared(np.zeros((1, 4), np.uint8), truth, result, BINARY)
    assert (shown.missed, shown.invented) == (1, 1)


def test_wrong_classes_are_hatched():
    truth, result = np.zeros((60, 60), int), np.zeros((60, 60), int)
    result[:, 30:] = 2
    truth[:, :5] = 255
    shown = compared(np.full((60, 60), 9, np.uint8), truth, result, CLASSES)
    assert shown.missed == 60 * 30
    half = shown.result.shape[1] // 2
    assert len(np.unique(shown.result[:, :half].reshape(-1, 3), axis=0)) == 1
    assert {(0, 0, 0), (255, 255, 255)} < set(map(tuple, shown.result[:, half:].reshape(-1, 3).tolist()))


def test_values_glow_on_the_image():
    values = np.zeros((300, 300), np.float32)
    values[100:200, 100:200] = 0.5
    shown = heat(np.full((300, 300), 7), values, highest=0.5)
    assert shown[150, 150].max() > 200
    assert (shown[5, 5] == 0).all()
